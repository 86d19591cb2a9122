"""What exports and imports seldom meet: owed writes, other writers, storage that fails, unreadable files."""

from __future__ import annotations

import errno
import io
import json
import tracemalloc
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from pydantic import SecretStr

from tierkit import (
    CacheConfig,
    CacheManager,
    CacheTier,
    CacheValidationError,
    FlatRecord,
    ProxyEntry,
    Row,
    TierUnavailable,
    TransferError,
    Unreadable,
)
from tierkit.export_format import EXPORT_FORMATS
from tierkit.testing import FakeClock, FileFaults
from tierkit.testing.file_faults import these_fail
from tierkit.transfer.beside import FileBeside
from tierkit.transfer.flat import Flattening, Rebuilding
from tierkit.transfer.formats import CsvFormat, JsonLinesFormat

from .transfer_support import KEY, OTHER_KEY, Everything, cache_of, got


def entry(key: str, **fields: Any) -> Everything:
    return Everything(key=key, token=SecretStr("Kanarienvogel"), **fields)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An export of the records a and b."""
    with cache_of(tmp_path / "source", "memory") as cache:
        cache.put_many([entry("a", text="old"), entry("b")])
        cache.export_to_file(tmp_path / "all.jsonl")
    return tmp_path / "all.jsonl"


def tier_of(cache: CacheManager[Any]) -> CacheTier[Row]:
    return cache.levels[-1].tier


def two_levels(folder: Path, **options: Any) -> CacheManager[Any]:
    tiers = [
        {"backend": "jsonl", "path": str(folder / "l2")},
        {"backend": "sqlite", "path": str(folder / "l3.db"), "write_policy": "demote"},
    ]
    config = CacheConfig(tiers=tiers, encryption_key=KEY)
    return CacheManager(config, entry_type=Everything, **{"clock": FakeClock(), **options})


def test_another_process_exports_what_the_authority_is_owed_and_not_what_is_damaged(tmp_path: Path) -> None:
    with two_levels(tmp_path) as cache:
        cache.put_many([entry("a", text="first"), entry("b"), entry("c")])
        cache.flush()
        cache.put(entry("a", text="new"))
        cache.delete("b")
        cache.put(entry("d"))
        holder: CacheTier[Row] = cache.levels[0].tier
        (row,) = holder.get_many(["d"]).values()
        holder.put(Row("d", row.version + 1, row.purge_at, row.check, {**row.columns, "text": "forged"}))
        with two_levels(tmp_path, read_only=True) as reader:
            assert reader.export_to_file(tmp_path / "all.jsonl").exported == 2
    with cache_of(tmp_path / "target", "memory") as target:
        target.import_from_file(tmp_path / "all.jsonl")
        assert set(target.keys()) == {"a", "c"}
        assert got(target, "a").text == "new"


def test_what_is_owed_is_paid_before_an_import_and_settled_by_it(tmp_path: Path, file: Path) -> None:
    later = FakeClock()
    later.advance(1.0)
    with two_levels(tmp_path, clock=later) as cache:
        newer = cache.put(entry("a", text="new"))
        result = cache.import_from_file(file)
        assert (result.imported, result.kept) == (1, 1)
        assert got(cache, "a") == newer


def test_a_storage_that_fails_ends_an_import_and_leaves_no_stale_copy(tmp_path: Path, file: Path) -> None:
    with cache_of(tmp_path / "cache", "sqlite") as cache:
        cache.put(entry("a", text="held"))
        with (
            patch.object(tier_of(cache), "put_many", side_effect=TierUnavailable("unplugged")),
            pytest.raises(TierUnavailable, match="unplugged"),
        ):
            cache.import_from_file(file)
        with (
            patch.object(tier_of(cache), "put_many", return_value=[]),
            pytest.raises(TierUnavailable, match="answered 0"),
        ):
            cache.import_from_file(file)
        assert cache.levels[0].tier.size() == 0
        assert got(cache, "a").text == "held"


def test_an_import_gives_up_where_others_write_all_the_time(tmp_path: Path, file: Path) -> None:
    def refuse(rows: list[Row]) -> list[int]:
        return [row.version for row in rows]

    with (
        cache_of(tmp_path / "cache", "sqlite") as cache,
        patch.object(tier_of(cache), "put_many", refuse),
        pytest.raises(TierUnavailable, match="64 other writers"),
    ):
        cache.import_from_file(file)


def test_writes_that_wait_in_memory_are_settled_by_an_import(tmp_path: Path, file: Path) -> None:
    with cache_of(tmp_path / "cache", "sqlite") as cache:
        cache._stack.owing.intents.note("b", next(iter(_intents())))
        with patch.object(cache._writer, "authority", lambda _: cache.levels[-1]):
            cache.import_from_file(file)
        assert not cache._stack.owing.intents


def _intents() -> Iterator[Any]:
    from tierkit.intents import Intent

    yield Intent(1, None, None, 0.0, True, True)


def test_rejects_are_many_and_all_of_them_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with cache_of(tmp_path / "source", "memory") as cache:
        cache.put_many(entry(f"{number}") for number in range(1200))
        cache.export_to_file(tmp_path / "all.jsonl")
    with cache_of(tmp_path / "other", "jsonl", key=OTHER_KEY) as other:
        result = other.import_from_file(tmp_path / "all.jsonl", rejects=tmp_path / "bad.jsonl")
    assert (result.rejected, len(result.rejects), caplog.text.count("rejected: ")) == (1200, 100, 20)
    with cache_of(tmp_path / "again", "jsonl") as again:
        assert again.import_from_file(tmp_path / "bad.jsonl").imported == 1200


def test_a_file_of_rejects_that_cannot_be_written_ends_the_import(tmp_path: Path, file: Path) -> None:
    with (
        cache_of(tmp_path / "other", "memory", key=OTHER_KEY) as other,
        FileFaults(these_fail(errno.ENOSPC, "append")),
        pytest.raises(TransferError, match=r"rejects\.jsonl could not be written: No space left"),
    ):
        other.import_from_file(file)
    assert {path.name for path in tmp_path.iterdir()} == {"source", "other", "all.jsonl"}


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, file: Path) -> None:
    with cache_of(tmp_path / "cache", "memory") as cache:
        with (
            patch.object(Path, "open", side_effect=OSError(errno.EACCES, "Permission denied")),
            pytest.raises(TransferError, match="cannot be read: Permission denied"),
        ):
            cache.import_from_file(file)
        with (
            patch.object(JsonLinesFormat, "read", side_effect=OSError(errno.EIO, "Input/output error")),
            pytest.raises(TransferError, match="cannot be read: Input/output error"),
        ):
            cache.import_from_file(file)
        with pytest.raises(TransferError, match="cannot be read"):
            cache.import_from_file(f"{file}\0", format="jsonl")
        (tmp_path / "fifo").symlink_to("/dev/null")
        with pytest.raises(TransferError, match="is not a regular file"):
            cache.import_from_file(tmp_path / "fifo", format="jsonl")


def test_a_secret_of_another_class_needs_its_key_in_a_file_in_the_clear_too(tmp_path: Path) -> None:
    class Older(ProxyEntry):
        note: SecretStr | None = None

    with cache_of(tmp_path / "a", "sqlite", Older) as older:
        older.put(Older(proxy_url="http://a.example:1", note=SecretStr("n")))
    with cache_of(tmp_path / "a", "sqlite", ProxyEntry) as later:
        later.export_to_file(tmp_path / "all.jsonl", secrets="plain")
        none = later.export_to_file(tmp_path / "none.jsonl", secrets="none")
    assert none.exported == 1
    assert "note" not in (tmp_path / "none.jsonl").read_text()
    with cache_of(tmp_path / "b", "sqlite", ProxyEntry, key=OTHER_KEY) as other:
        result = other.import_from_file(tmp_path / "all.jsonl")
        assert "a secret in it was sealed with the key" in result.rejects[0].reason


def test_a_row_that_another_class_wrote_is_left_out_of_an_export(tmp_path: Path) -> None:
    class Numbered(ProxyEntry):
        __namespace__ = "proxy_entry"
        rank: str = ""

    class Ranked(ProxyEntry):
        __namespace__ = "proxy_entry"
        rank: bytes = b""

    with cache_of(tmp_path / "a", "jsonl", Numbered) as cache:
        cache.put(Numbered(proxy_url="http://a.example:1", rank="first"))
    with cache_of(tmp_path / "a", "jsonl", Ranked) as other:
        assert other.export_to_file(tmp_path / "all.jsonl", secrets="plain").unreadable == 1


def test_damage_beyond_what_is_worth_a_line_is_only_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with cache_of(tmp_path / "a", "sqlite", key=OTHER_KEY) as other:
        other.put_many(entry(f"{number}") for number in range(30))
    with cache_of(tmp_path / "a", "sqlite") as cache:
        assert cache.export_to_file(tmp_path / "all.jsonl").unreadable == 30
    assert caplog.text.count("left out of the export") == 20


def test_a_very_long_line_is_passed_over_to_its_end() -> None:
    import io

    from tierkit.transfer.formats import MOST_BYTES, lines_of

    found = list(lines_of(io.BytesIO(b"x" * (2 * MOST_BYTES + 5) + b"\nshort\n")))
    assert found[1] == b"short\n"
    assert len(found) == 2


def test_large_files_are_written_in_blocks_and_what_is_in_the_way_is_left(tmp_path: Path) -> None:
    record: FlatRecord = {"key": "x" * 600_000}
    with cache_of(tmp_path / "cache", "memory") as cache:
        cache.put_many(entry(f"{number}", text=str(record["key"])) for number in range(4))
        with FileFaults() as calls:
            cache.export_to_file(tmp_path / "all.json")
        assert calls.names.count("append") >= 1
        (tmp_path / ".all.json.01234567.export.tmp").mkdir()
        cache.export_to_file(tmp_path / "all.json")
    with FileFaults(these_fail(errno.EIO, "open_log")), FileBeside(tmp_path / "all.json"):
        pass


def test_a_quote_that_is_never_closed_is_given_up_when_it_is_too_long() -> None:
    table = b'key\n"' + (b"x" * 1_000_000 + b"\n") * 9
    assert "a quote is not closed" in next(
        item.reason for item in EXPORT_FORMATS["csv"]().read(io.BytesIO(table)) if isinstance(item, Unreadable)
    )


def test_an_owed_write_that_never_ends_is_exported_without_an_end() -> None:
    with CacheManager(CacheConfig(tiers=[{"backend": "memory"}]), entry_type=Everything) as cache:
        flattening, sealer = Flattening(cache._stack.sealer, "none"), cache._stack.sealer
        assert "purge_at" not in flattening.flat(Everything(key="a"))
        held = Rebuilding(sealer, "none", live=True).record({"key": "a", "version": 1})
        assert held.purge_at == inf


def test_a_sealed_secret_of_another_class_is_rejected_by_its_key(tmp_path: Path) -> None:
    class Older(ProxyEntry):
        note: SecretStr | None = None

    with cache_of(tmp_path / "a", "sqlite", Older) as older:
        older.put(Older(proxy_url="http://a.example:1", note=SecretStr("n")))
        older.export_to_file(tmp_path / "sealed.jsonl")
    with cache_of(tmp_path / "b", "sqlite", ProxyEntry) as other:
        assert other.import_from_file(tmp_path / "sealed.jsonl").imported == 1
        other.export_to_file(tmp_path / "all.jsonl", secrets="plain")
    with cache_of(tmp_path / "c", "memory", ProxyEntry) as live:
        assert live.import_from_file(tmp_path / "all.jsonl").imported == 1


def test_no_file_is_put_in_the_place_of_what_the_cache_needs(tmp_path: Path) -> None:
    key_file = tmp_path / "key.jsonl"
    key_file.write_text(KEY)
    key_file.chmod(0o600)
    (tmp_path / "cache").mkdir(mode=0o700)
    config = CacheConfig(
        tiers=[{"backend": "jsonl", "path": tmp_path / "l2"}, {"backend": "sqlite", "path": tmp_path / "l3.db"}],
        encryption_key_file=key_file,
    )
    with CacheManager(config, entry_type=Everything, clock=FakeClock()) as cache:
        cache.put(Everything(key="a"))
        cache.export_to_file(tmp_path / "all.jsonl")
        (tmp_path / "link").symlink_to(tmp_path / "l2")
        for place in ("l3.db", "l3.db-wal", "l3.db-shm", "l2/everything/00.jsonl", "link/new.jsonl", "key.jsonl"):
            with pytest.raises(TransferError, match="name a file elsewhere"):
                cache.export_to_file(tmp_path / place, format="jsonl")
            with pytest.raises(TransferError, match="name a file elsewhere"):
                cache.import_from_file(tmp_path / "all.jsonl", rejects=tmp_path / place)
        with pytest.raises(TransferError, match="the storage of L1, or a part of it"):
            cache.backup(tmp_path / "l2")
    assert key_file.read_text() == KEY
    with CacheManager(config, entry_type=Everything, clock=FakeClock()) as cache:
        assert cache.get("a") is not None


def test_rejects_do_not_take_the_place_of_the_file_that_they_come_from(tmp_path: Path) -> None:
    with cache_of(tmp_path / "cache", "sqlite") as cache:
        cache.put_many([Everything(key="a"), Everything(key="b")])
        file = tmp_path / "all.jsonl"
        cache.export_to_file(file)
        file.write_bytes(damaged := file.read_bytes() + b"rest\n")
        with pytest.raises(CacheValidationError, match="rejects is the file that is imported"):
            cache.import_from_file(file, rejects=tmp_path / "cache" / ".." / "all.jsonl", accept_damage=True)
    assert file.read_bytes() == damaged


def test_a_long_cell_of_a_csv_file_takes_little_more_memory_than_itself() -> None:
    for long in (b"a" * 400_000, b'""' * 200_000):
        rows = io.BytesIO(b'key\n"' + long + b'"\n')
        tracemalloc.start()
        (record,) = CsvFormat().read(rows)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert isinstance(record, dict)
        assert len(str(record["key"])) in (200_000, 400_000)
        assert peak < 10 * len(long)


def test_a_record_that_could_never_be_changed_or_has_no_place_in_time_is_rejected_alone(tmp_path: Path) -> None:
    file = tmp_path / "all.jsonl"
    with cache_of(tmp_path / "source", "sqlite") as cache:
        cache.put_many([Everything(key=key) for key in "abc"])
        cache.export_to_file(file, secrets="plain")
    content = [json.loads(line) for line in file.read_text().splitlines()]
    records = {record.get("key"): record for record in content}
    records["a"]["version"] = 2**63 - 1
    records["b"]["purge_at"] = {"float": "nan"}
    file.write_text("".join(f"{json.dumps(record)}\n" for record in content))
    with cache_of(tmp_path / "target", "sqlite") as cache:
        result = cache.import_from_file(file, accept_damage=True)
        assert [reject.reason for reject in result.rejects] == [
            "has a version that leaves no room for later ones",
            "has a time at which it may be dropped that is none",
        ]
        assert cache.get("c") is not None
        assert cache.put(Everything(key="a")).version < 2**62
