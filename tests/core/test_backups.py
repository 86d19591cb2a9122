"""Backups: read back before they take their name, verified before anything is restored, and compared after."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from pydantic import SecretStr

import tierkit
from tierkit import CacheManager, CacheValidationError, TierFull, TransferError, files
from tierkit.testing import FakeClock
from tierkit.transfer.placing import Placing

from .transfer_support import OTHER_KEY, Everything, cache_of, everything_in, got


def entry(key: str, **fields: Any) -> Everything:
    return Everything(key=key, token=SecretStr("Kanarienvogel"), **fields)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[CacheManager[Any]]:
    with cache_of(tmp_path / "cache", "sqlite", name="pool") as opened:
        opened.put_many([entry("a"), entry("b"), entry("c")])
        yield opened


@pytest.fixture
def backup(cache: CacheManager[Any], tmp_path: Path) -> Path:
    cache.backup(tmp_path / "all.jsonl")
    return tmp_path / "all.jsonl"


def test_a_backup_says_what_it_holds_and_which_keys_it_needs(cache: CacheManager[Any], tmp_path: Path) -> None:
    info = cache.backup(tmp_path)
    assert info.path == tmp_path / "pool-20231114T221320Z.jsonl.gz"
    assert (info.records, info.entry_type, info.left_out) == (3, "Everything", 0)
    assert info.tierkit == tierkit.__version__
    assert list(info.keys) == [cache.key_status().primary]
    assert info.columns["data"] == "blob"
    assert cache.verify_backup(info.path) == info
    assert b"Kanarienvogel" not in gzip.decompress(info.path.read_bytes())


@pytest.mark.req("E-5")
@pytest.mark.parametrize("tiers", ["memory", "jsonl"])
def test_it_is_restored_onto_other_tiers_and_equal(
    cache: CacheManager[Any], backup: Path, tmp_path: Path, tiers: str
) -> None:
    with cache_of(tmp_path / "other", tiers) as other:
        result = other.restore(backup)
        assert (result.imported, str(result)) == (3, f"{backup}: 3 restored, 0 kept, 0 expired, 0 removed")
        assert everything_in(other) == everything_in(cache)


def test_what_is_read_back_wrong_gets_no_name(cache: CacheManager[Any], tmp_path: Path) -> None:
    def torn(data: bytes) -> bytes:
        return data[: len(data) // 2]

    append = files.append
    with (
        patch.object(files, "append", lambda fd, data: append(fd, torn(data))),
        pytest.raises(TransferError, match=r"was not kept, since this was read back: .* is cut off"),
    ):
        cache.backup(tmp_path / "all.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_a_cache_that_holds_records_is_refused_merged_or_made_what_the_backup_is(
    cache: CacheManager[Any], backup: Path
) -> None:
    newer = cache.put(entry("a", text="new"))
    cache.put(entry("d"))
    cache.delete("b")
    with pytest.raises(CacheValidationError, match="holds 3 records: restore with held='merge'"):
        cache.restore(backup)
    result = cache.restore(backup, held="merge")
    assert (result.imported, result.kept, got(cache, "a"), cache.size()) == (2, 1, newer, 4)
    result = cache.restore(backup, held="replace")
    assert (result.imported, result.removed, got(cache, "a").text) == (3, 1, "")
    assert set(cache.keys()) == {"a", "b", "c"}


def test_nothing_is_written_of_a_backup_that_is_damaged_or_sealed_with_another_key(
    backup: Path, tmp_path: Path
) -> None:
    with cache_of(tmp_path / "other", "jsonl", key=OTHER_KEY) as other:
        with pytest.raises(TransferError, match=r"record 1: .* was sealed with the key .*add it; nothing was written"):
            other.restore(backup)
        assert other.size() == 0
    backup.write_bytes(backup.read_bytes()[:-200])
    with cache_of(tmp_path / "another", "jsonl") as other:
        for act in (other.verify_backup, other.restore):
            with pytest.raises(TransferError, match="is not what was backed up"):
                act(backup)
        assert other.size() == 0


def test_a_forged_row_with_a_digest_that_fits_is_found(cache: CacheManager[Any], backup: Path) -> None:
    from tierkit.transfer.flat import Tally

    head, *records, closing = [json.loads(line) for line in backup.read_text().splitlines()]
    records[0]["text"] = "forged"
    tally = Tally()
    for record in records:
        tally.add({**record, "token_encrypted": record["token_encrypted"]["bytes"].encode(), "data": b""})
    lines = [head, *records, {**closing, "digest": tally.digest}]
    backup.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with pytest.raises(TransferError, match=r"record 1: .* its check does not fit"):
        cache.verify_backup(backup)


def test_what_expired_since_is_left_out(backup: Path, tmp_path: Path) -> None:
    clock = FakeClock()
    clock.advance(4000.0)
    with cache_of(tmp_path / "other", "jsonl", clock=clock) as other:
        assert other.restore(backup).expired == 3


def test_an_authority_without_room_for_all_is_refused(backup: Path, tmp_path: Path) -> None:
    with cache_of(tmp_path / "other", "memory", max_entries=2) as other:
        with pytest.raises(TierFull, match="at most 2 records, and the backup has 3: raise its max_entries"):
            other.restore(backup)
        assert other.size() == 0


@pytest.mark.parametrize("tiers", ["memory", "jsonl"])
def test_a_record_that_is_not_there_afterwards_is_told(backup: Path, tmp_path: Path, tiers: str) -> None:
    place = Placing.place
    with (
        cache_of(tmp_path / "other", tiers) as other,
        patch.object(Placing, "place", lambda self, records: place(self, records[1:])),
        pytest.raises(TransferError, match="1 of 3 records are not there as it has them: the first is"),
    ):
        other.restore(backup)


def test_what_is_no_backup_is_told(cache: CacheManager[Any], tmp_path: Path) -> None:
    with pytest.raises(CacheValidationError, match="has no extension of a backup"):
        cache.backup(tmp_path / "all.csv")
    cache.export_to_file(tmp_path / "plain.jsonl", secrets="plain")
    with pytest.raises(TransferError, match="is no backup: it was exported with secrets='plain'"):
        cache.verify_backup(tmp_path / "plain.jsonl")
    with pytest.raises(CacheValidationError, match="held = 'clear'"):
        cache.restore(tmp_path / "plain.jsonl", held="clear")  # type: ignore[arg-type]  # what is refused


def test_a_cache_that_is_turned_off_backs_up_nothing_and_drops_what_is_restored(backup: Path, tmp_path: Path) -> None:
    with cache_of(tmp_path / "off", "memory", cache_enabled=False) as off:
        assert off.backup(tmp_path / "off.jsonl").records == 0
        assert off.restore(backup).imported == 3
        assert off.size() == 0


@pytest.mark.parametrize("tiers", ["behind", "demote"])
def test_what_the_lowest_level_is_owed_is_held_too_and_does_not_come_down_after_a_restore(
    backup: Path, tmp_path: Path, tiers: str
) -> None:
    with cache_of(tmp_path / "owing", tiers) as owing:
        owing.put(entry("d"))
        with pytest.raises(CacheValidationError, match="holds 1 records"):
            owing.restore(backup)
        owing.put(entry("e"))
        assert owing.restore(backup, held="replace").removed == 2
        assert sorted(owing.keys()) == ["a", "b", "c"]
