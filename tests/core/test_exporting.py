"""Exports: what goes in, who can read it, and that a file is whole or not there."""

from __future__ import annotations

import errno
import gzip
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tierkit import (
    CacheConfig,
    CacheConfigError,
    CacheManager,
    CacheTier,
    CacheValidationError,
    Row,
    TierUnavailable,
    TransferError,
)
from tierkit.testing import FakeClock, FileFaults, crash_states, recorded_files
from tierkit.testing.file_faults import nth_fails, these_fail
from tierkit.transfer.beside import SUFFIX, FileBeside

from .transfer_support import KEY, OTHER_KEY, Everything, cache_of, everything_in, got

SECRET = "Kanarienvogel"


def entry(key: str, **fields: Any) -> Everything:
    return Everything(key=key, token=SecretStr(SECRET), **fields)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[CacheManager[Any]]:
    with cache_of(tmp_path / "cache", "sqlite", failure_threshold=1) as opened:
        opened.put_many([entry("a"), entry("b"), entry("c")])
        yield opened


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.endswith(SUFFIX)]


@pytest.mark.req("E-5", "US1-6")
def test_secrets_are_ciphertext_in_the_clear_only_by_asking_or_not_there(
    cache: CacheManager[Any], tmp_path: Path
) -> None:
    content = {}
    for secrets in ("sealed", "plain", "none"):
        cache.export_to_file(tmp_path / "out.jsonl", secrets=secrets)
        content[secrets] = (tmp_path / "out.jsonl").read_text()
    assert SECRET not in content["sealed"]
    assert "token_encrypted" in content["sealed"]
    assert content["plain"].count(f'"token":"{SECRET}"') == 3
    assert "token" not in content["none"].split("\n", 1)[1]


def test_a_file_is_for_its_owner_only_whatever_was_there(cache: CacheManager[Any], tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("before")
    path.chmod(0o644)
    cache.export_to_file(path, secrets="plain")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_export_touches_neither_statistics_nor_recency(cache: CacheManager[Any], tmp_path: Path) -> None:
    cache.get("a")
    cache.flush()
    before, counted = everything_in(cache), cache.get_statistics().to_metrics_dict()
    cache.export_to_file(tmp_path / "out.jsonl")
    assert everything_in(cache) == before
    assert cache.get_statistics().to_metrics_dict() == counted


def test_what_is_damaged_or_of_another_key_is_left_out_and_counted(tmp_path: Path) -> None:
    with cache_of(tmp_path / "cache", "sqlite", key=OTHER_KEY) as other:
        other.put(entry("foreign"))
    with cache_of(tmp_path / "cache", "sqlite") as cache:
        cache.put_many([entry("good"), entry("bad", text="x")])
        tier: CacheTier[Row] = cache.levels[-1].tier
        (row,) = tier.get_many(["bad"]).values()
        tier.put(Row(row.key, row.version + 1, row.purge_at, row.check, {**row.columns, "text": "y"}))
        result = cache.export_to_file(tmp_path / "out.jsonl")
        assert (result.exported, result.damaged, result.unreadable, result.complete) == (1, 1, 1, False)
        assert cache.size() == 3
    assert '"bad"' not in (tmp_path / "out.jsonl").read_text()
    assert str(result).endswith("out.jsonl: 1 records exported, 1 damaged left out, 1 unreadable left out")


def test_what_may_be_dropped_is_left_out_and_what_is_in_its_grace_is_not(tmp_path: Path) -> None:
    clock = FakeClock()
    with cache_of(tmp_path / "cache", "sqlite", clock=clock, grace_seconds=100.0) as cache:
        cache.put_many([entry("gone", ttl_seconds=60.0), entry("grace", ttl_seconds=120.0)])
        clock.advance(170.0)
        result = cache.export_to_file(tmp_path / "out.jsonl")
    assert (result.exported, result.expired) == (1, 1)


def test_what_the_authority_is_owed_counts_and_not_what_it_has(tmp_path: Path) -> None:
    tiers = [
        {"backend": "jsonl", "path": str(tmp_path / "l2")},
        {"backend": "sqlite", "path": str(tmp_path / "l3.db"), "write_policy": "demote"},
    ]
    with cache_of(tmp_path / "cache", "memory") as target:
        config = CacheConfig(tiers=tiers, encryption_key=KEY)
        with CacheManager(config, entry_type=Everything, clock=FakeClock()) as cache:
            cache.put_many([entry("a"), entry("b")])
            cache.delete("b")
            cache.put(entry("a", text="new"))
            cache.flush()
        with CacheManager(config, entry_type=Everything, clock=FakeClock(), read_only=True) as reader:
            assert reader.export_to_file(tmp_path / "out.jsonl").exported == 1
        assert target.import_from_file(tmp_path / "out.jsonl").imported == 1
        assert got(target, "a").text == "new"


def test_an_authority_that_is_out_of_service_is_not_half_exported(cache: CacheManager[Any], tmp_path: Path) -> None:
    cache.levels[-1].take_out(RuntimeError("unplugged"))
    with pytest.raises(TierUnavailable, match="would be left out"):
        cache.export_to_file(tmp_path / "out.jsonl")
    assert not leftovers(tmp_path)
    assert not (tmp_path / "out.jsonl").exists()


# -- whole or not there ----------------------------------------------------------------------------------------------


def test_whichever_call_fails_the_former_file_is_whole_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl.gz"
    with cache_of(tmp_path / "cache", "memory") as cache:
        cache.put_many(entry(str(number)) for number in range(20))
        cache.export_to_file(path)
        with FileFaults() as counted:
            cache.export_to_file(path)
        for number, name in enumerate(counted.names, start=1):
            former, told = path.read_bytes(), ""
            with FileFaults(nth_fails(number, errno.EIO)):
                try:
                    cache.export_to_file(path)
                except TransferError as error:
                    told = str(error)
            assert b"tierkit.end" in gzip.decompress(path.read_bytes()), name
            assert (path.read_bytes() == former) == (bool(told) and name not in {"fsync_dir", "open_dir"}), name
            assert not leftovers(tmp_path) or name == "unlink", name


def test_a_disk_that_is_full_leaves_the_former_file(cache: CacheManager[Any], tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("before")
    fails = these_fail(errno.ENOSPC, "append")
    with FileFaults(fails), pytest.raises(TransferError, match="No space left on device; what was there before is as"):
        cache.export_to_file(path)
    assert path.read_text() == "before"
    assert not leftovers(tmp_path)


def test_the_file_is_flushed_before_it_takes_its_name_and_its_name_after(
    cache: CacheManager[Any], tmp_path: Path
) -> None:
    with FileFaults() as calls:
        cache.export_to_file(tmp_path / "out.jsonl")
    own = [name for name in calls.names if name in {"append", "fsync", "replace", "fsync_dir"}]
    assert own == ["append", "fsync", "replace", "fsync_dir"]


def test_a_power_cut_leaves_the_former_file_or_the_new_one(cache: CacheManager[Any], tmp_path: Path) -> None:
    folder = tmp_path / "exports"
    folder.mkdir()
    contents = set()
    with recorded_files(folder) as log:
        for key in ("first", "second"):
            cache.put(entry(key))
            cache.export_to_file(folder / "out.jsonl")
            contents.add((folder / "out.jsonl").read_bytes())
            log.note(key)
    for state in crash_states(log, samples=10):
        found = {content for name, content in state.contents.items() if name == "out.jsonl"}
        assert found <= contents
        assert found or "first" not in state.notes


def test_what_stops_an_export_leaves_nothing(cache: CacheManager[Any], tmp_path: Path) -> None:
    def stop(_done: int, _total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.export_to_file(tmp_path / "out.jsonl", secrets="plain", on_progress=stop)
    assert not leftovers(tmp_path)
    assert not (tmp_path / "out.jsonl").exists()


def test_the_file_of_a_killed_export_is_removed_by_the_next_and_one_that_is_written_is_not(
    cache: CacheManager[Any], tmp_path: Path
) -> None:
    path = tmp_path / "out.jsonl"
    left = tmp_path / f".out.jsonl.0123abcd{SUFFIX}"
    left.write_text("half")
    with FileBeside(path) as other:
        other.append(b"half")
        cache.export_to_file(path)
        assert not left.exists()
        assert len(leftovers(tmp_path)) == 1
    assert not leftovers(tmp_path)


def test_a_file_system_without_locks_will_do(tmp_path: Path) -> None:
    with FileFaults(these_fail(errno.ENOLCK, "lock")), FileBeside(tmp_path / "a") as file:
        file.append(b"x")
        file.finish()
    assert (tmp_path / "a").read_bytes() == b"x"


# -- refused -----------------------------------------------------------------------------------------------------------


def test_what_cannot_work_is_told(cache: CacheManager[Any], tmp_path: Path) -> None:
    with pytest.raises(CacheConfigError, match=r"no plugin offers the export format 'jsnl': did you mean 'json"):
        cache.export_to_file(tmp_path / "out.jsnl")
    with pytest.raises(CacheValidationError, match="has no extension that says the format"):
        cache.export_to_file(tmp_path / "out")
    with pytest.raises(CacheValidationError, match="secrets = 'clear': must be one of 'sealed', 'plain', 'none'"):
        cache.export_to_file(tmp_path / "out.jsonl", secrets="clear")  # type: ignore[arg-type]  # what is refused
    with pytest.raises(TransferError, match="is a directory"):
        cache.export_to_file(tmp_path / "cache", format="json")
    with pytest.raises(TransferError, match="there is no folder"):
        cache.export_to_file(tmp_path / "none" / "out.json")
    with pytest.raises(TransferError, match="is a URL, not a file") as caught:
        cache.export_to_file(f"https://user:{SECRET}@host/x.json")
    assert SECRET not in str(caught.value)
    (tmp_path / "link.json").symlink_to("cache")
    with pytest.raises(TransferError, match="no regular file, or a link"):
        cache.export_to_file(tmp_path / "link.json")
    assert cache.export_to_file(tmp_path / "named", format="csv").exported == 3


def test_progress_is_told(cache: CacheManager[Any], tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    cache.export_to_file(tmp_path / "out.csv", on_progress=lambda *step: told.append(step))
    cache.import_from_file(tmp_path / "out.csv", on_progress=lambda *step: told.append(step))
    assert told == [(3, 3), (3, 3)]
