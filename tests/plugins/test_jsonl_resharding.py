"""A store that is opened with another number of shards than it has: its records are spread anew."""

import errno
import json
import logging
import os
import resource
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import pytest
from tests.leaks import open_descriptors
from tests.plugins.jsonl_tools import NOW, held, open_store, row, shard

from tierkit import Delta, TierContext, TierFull, TierUnavailable, files
from tierkit.testing import FileFaults, nothing_fails, nth_fails, these_fail
from tierkit.testing.file_faults import Fails
from tierkit.testing.suite.processes import forked, run_together, send
from tierkit_jsonl import FileCacheTier
from tierkit_jsonl.shard import Shard

KEYS: Final = tuple(f"key {number}" for number in range(30))


def folder(root: Path) -> Path:
    return root / "store" / "entries"


def meta(root: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder(root) / "meta.json").read_text())
    return told


def shard_files(root: Path) -> list[str]:
    return sorted(path.name for path in folder(root).glob("*.jsonl*"))


def reshard(root: Path, shards: int) -> None:
    with open_store(root, shards=shards):
        assert meta(root)["shards"] == shards


def fill(root: Path, shards: int) -> None:
    with open_store(root, shards=shards) as tier:
        tier.put_many([row(key, 3) for key in KEYS])


@pytest.fixture(autouse=True)
def no_waiting_for_the_medium() -> Iterator[None]:
    """Flushes are called, and counted where a test looks at their order, but wait for nothing."""
    with patch.object(files, "fsync", lambda _: None), patch.object(files, "fsync_dir", lambda _: None):
        yield


# -- what is carried over --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), [(1, 5), (7, 2), (4, 1)])
def test_records_marks_usage_and_what_was_set_aside_are_carried_over(tmp_path: Path, before: int, after: int) -> None:
    with open_store(tmp_path, shards=before) as tier:
        tier.put_many([row(key, 3) for key in KEYS])
        tier.put(row("key 1", 9))
        tier.touch_many({"key 2": Delta(5, NOW)})
        tier.delete("key 3", 7)
        tier.discard(row("key 4", 3))
        everything = held(tier)
    reshard(tmp_path, after)
    with open_store(tmp_path) as tier:
        assert held(tier) == everything
        assert tier.size() == len(KEYS) - 2
        used = tier.get("key 2")
        assert used is not None
        assert (used.access_count, used.last_accessed) == (5, NOW)
        assert tier.put(row("key 3", 7)) == 7
        assert tier.put(row("key 4", 2)) == 2
        assert tier.put(row("key 4", 3)) is None
        assert tier.highest_version() == 9


def test_the_files_are_those_of_the_new_number_and_no_others(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    assert shard_files(tmp_path) == ["00.jsonl", "01.jsonl", "02.jsonl"]
    reshard(tmp_path, 2)
    assert shard_files(tmp_path) == ["00.1.jsonl", "01.1.jsonl"]
    reshard(tmp_path, 1)
    assert shard_files(tmp_path) == ["00.2.jsonl"]
    told = {"op": "shard", "format": 1, "shards": 1, "generation": 2}
    assert {**meta(tmp_path), "crc": ""} == {**told, "crc": ""}
    first = json.loads((folder(tmp_path) / "00.2.jsonl").read_text().partition("\n")[0])
    assert {**first, "crc": ""} == {**told, "crc": "", "shard": 0}


def test_marks_that_count_no_more_are_left_out(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier:
        tier.delete("a", 7)
    with open_store(tmp_path, shards=2, now=lambda: NOW + 100, tombstone_seconds=50) as tier:
        assert tier.put(row("a", 1)) is None


def test_a_damaged_record_is_set_aside_and_a_file_of_which_nothing_can_be_read_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, 2)
    lines = shard(tmp_path).read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"text"', b'"tExt"')
    shard(tmp_path).write_bytes(b"".join(lines))
    shard(tmp_path, 1).write_bytes(b"nothing of ours\n")
    reshard(tmp_path, 3)
    with open_store(tmp_path) as tier:
        assert tier.size() == len(lines) - 2
    (aside,) = folder(tmp_path).glob("*.corrupt-*")
    assert aside.read_bytes() == b"nothing of ours\n"
    assert "1 damaged lines left out" in caplog.text
    assert "holds nothing that can be read; moved to" in caplog.text


def test_a_record_that_is_damaged_after_it_was_indexed_leaves_its_mark(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    real = files.pread

    def flipped(fd: int, size: int, offset: int) -> bytes:
        data = real(fd, size, offset)
        return data.replace(b'"text":"key 5', b'"text":"kEy 5') if data.count(b"\n") == 0 else data

    with patch.object(files, "pread", flipped):
        reshard(tmp_path, 3)
    with open_store(tmp_path) as tier:
        assert tier.get("key 5") is None
        assert tier.size() == len(KEYS) - 1
        assert tier.put(row("key 5", 2)) == 2
        assert tier.put(row("key 5", 3)) is None


def test_a_torn_tail_is_left_behind(tmp_path: Path) -> None:
    fill(tmp_path, 1)
    with shard(tmp_path).open("ab") as file:
        file.write(b'{"crc":"0011')
    reshard(tmp_path, 2)
    with open_store(tmp_path) as tier:
        assert tier.size() == len(KEYS)
        assert tier.damaged_lines == 0


def test_without_a_number_a_store_keeps_what_it_has_and_a_new_one_gets_sixteen(tmp_path: Path) -> None:
    with FileCacheTier(TierContext(), tmp_path / "new"):
        assert json.loads((tmp_path / "new" / "entries" / "meta.json").read_text())["shards"] == 16
    fill(tmp_path, 3)
    with open_store(tmp_path):
        assert meta(tmp_path)["shards"] == 3


def test_it_is_told_how_many_went_where(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, 3)
    with caplog.at_level(logging.INFO, "tierkit.jsonl"):
        reshard(tmp_path, 5)
    assert f"{folder(tmp_path)}: 30 records were spread over 5 shards instead of 3 in" in caplog.text


# -- who has it open -------------------------------------------------------------------------------------------------

CALLS: Final[dict[str, tuple[Callable[[FileCacheTier], Any], Any]]] = {
    "get": (lambda tier: tier.get("key 1"), row("key 1", 3)),
    "size": (lambda tier: tier.size(), 30),
    "keys": (lambda tier: sorted(tier.keys()), sorted(KEYS)),
    "scan": (lambda tier: len(list(tier.scan())), 30),
    "highest version": (lambda tier: tier.highest_version(), 3),
    "overflow": (lambda tier: len(tier.overflow()), 10),
    "put": (lambda tier: tier.put(row("key 1", 4)), None),
    "put late": (lambda tier: tier.put(row("key 1", 2)), 3),
    "put many": (lambda tier: tier.put_many([row(key, 4) for key in KEYS]), [None] * 30),
    "delete": (lambda tier: tier.delete("key 1", 3), None),
    "delete many": (lambda tier: tier.delete_many(dict.fromkeys(KEYS, 2)), dict.fromkeys(KEYS, 3)),
    "replace": (lambda tier: tier.replace(row("key 1", 4), 3), True),
    "replace many": (lambda tier: tier.replace_many([(row(key, 4), 3) for key in KEYS]), [True] * 30),
    "discard": (lambda tier: tier.discard(row("key 1", 3)), True),
    "purge": (lambda tier: tier.purge(NOW), 0),
    "compact": (lambda tier: tier.compact(), None),
    "clear": (lambda tier: (tier.clear(), tier.size())[1], 0),
}


@pytest.mark.parametrize(("call", "expected"), CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("used", [True, False], ids=["used", "not used"])
def test_who_has_the_store_open_notices_nothing(
    tmp_path: Path, call: Callable[[FileCacheTier], Any], expected: Any, used: bool
) -> None:
    fill(tmp_path, 4)
    with open_store(tmp_path, max_entries=20) as tier:
        assert not used or tier.size() == 30
        reshard(tmp_path, 3)
        assert call(tier) == expected
        with open_store(tmp_path) as other:
            assert held(other) == held(tier)


def test_a_writer_that_waited_for_the_lock_writes_to_the_new_files(tmp_path: Path) -> None:
    fill(tmp_path, 2)
    waits, swapped = threading.Event(), threading.Event()
    true = Shard._lock_file

    def lock_file(self: Shard) -> None:
        waits.set()
        swapped.wait(30)
        true(self)

    with open_store(tmp_path) as tier, patch.object(Shard, "_lock_file", lock_file):

        def spread() -> None:
            waits.wait(30)
            reshard(tmp_path, 5)
            swapped.set()

        run_together([lambda: tier.touch_many({"key 1": Delta(1, NOW)}), spread])
    with open_store(tmp_path) as tier:
        assert {found.key for found in tier.scan() if found.access_count} == {"key 1"}


@pytest.mark.parametrize("times", [1, 2])
def test_a_scan_goes_on_in_the_new_files_with_what_was_left(tmp_path: Path, times: int) -> None:
    fill(tmp_path, 4)
    with open_store(tmp_path) as tier:
        for keys in (iter(tier.keys()), (row.key for row in tier.scan())):
            found = [next(keys), next(keys)]
            for shards in range(5, 5 + times):
                reshard(tmp_path, shards)
                found.append(next(keys))
            found += keys
            assert sorted(found) == sorted(KEYS)
            reshard(tmp_path, 4)


@pytest.mark.parametrize("damaged_again", [False, True])
def test_a_scan_finds_in_the_new_files_what_is_damaged_in_the_old(tmp_path: Path, damaged_again: bool) -> None:
    fill(tmp_path, 1)
    with open_store(tmp_path) as tier, shard(tmp_path).open("r+b") as old:
        scan = tier.scan()
        first = next(scan)
        reshard(tmp_path, 2)
        last = shard(tmp_path).parent.joinpath("00.1.jsonl").read_bytes().splitlines()[-1]
        old.seek(old.read().index(last) + len(last) // 2)
        old.write(b"?")
        old.flush()
        if damaged_again:
            path = shard(tmp_path).parent / "00.1.jsonl"
            path.write_bytes(path.read_bytes().replace(last, last[:-9] + b"?" + last[-8:]))
        assert len({row.key for row in (first, *scan)}) == len(KEYS) - damaged_again


def test_a_bulk_write_that_is_overtaken_does_each_of_its_records_once(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    with open_store(tmp_path) as tier:
        with _overtaken(tmp_path, 3):
            tier.touch_many(dict.fromkeys(KEYS, Delta(2, NOW)))
        assert [found.access_count for found in tier.scan()] == [2] * 30
        with _overtaken(tmp_path, 5):
            assert tier.replace_many([(row(key, 8), 3) for key in KEYS]) == [True] * 30
        with _overtaken(tmp_path, 2):
            assert tier.put_many([row(key, 9) for key in KEYS]) == [None] * 30
        assert {found.version for found in tier.scan()} == {9}


def _overtaken(root: Path, shards: int) -> Any:
    """Have the store spread anew after one shard was written."""
    true, left = Shard.write, [1]

    def write(self: Shard, work: Callable[[Any], Any]) -> Any:
        answer = true(self, work)
        if left:
            left.pop()
            reshard(root, shards)
        return answer

    return patch.object(Shard, "write", write)


def test_two_programs_that_want_different_numbers_spread_it_when_they_open_it_and_not_by_turns(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    with open_store(tmp_path, shards=4) as one, open_store(tmp_path, shards=6) as other:
        for version in range(4, 8):
            assert one.put(row("key 1", version)) is None
            assert other.get("key 1") == row("key 1", version)
        assert meta(tmp_path)["generation"] == 1


def test_a_closed_tier_stays_closed(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    tier = open_store(tmp_path)
    assert tier.size() == 30
    tier.close()
    reshard(tmp_path, 3)
    for call in (lambda: tier.get("key 1"), lambda: tier.put(row("a")), lambda: list(tier.scan())):
        with pytest.raises(TierUnavailable, match="closed"):
            call()


def test_a_reader_follows_and_one_of_a_store_that_is_made_later_finds_it(tmp_path: Path) -> None:
    with open_store(tmp_path, read_only=True) as reader:
        assert reader.get("key 1") is None
        fill(tmp_path, 5)
        assert reader.get("key 1") == row("key 1", 3)
        reshard(tmp_path, 2)
        assert held(reader) == {key: row(key, 3) for key in KEYS}


# -- where it cannot be done -----------------------------------------------------------------------------------------


@pytest.mark.no_canary("it counts the lines of its log, which are more at DEBUG")
@pytest.mark.parametrize("name", ["meta.lock", "01.lock"])
def test_a_store_whose_lock_is_held_keeps_its_number_until_the_next_opening(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, 3)
    descriptor = files.open_lock(str(folder(tmp_path) / name))
    assert files.lock(descriptor)
    with open_store(tmp_path, shards=5) as tier:
        assert tier.size() == 30
        assert meta(tmp_path)["shards"] == 3
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "keeps its 3 shards, not 5, until it is opened again: another process keeps" in record.getMessage()
    files.close(descriptor)
    reshard(tmp_path, 5)
    assert len(caplog.records) == 1


def test_a_full_disk_leaves_the_old_store_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, 3)
    with FileFaults(these_fail(errno.ENOSPC, "append")) as faults, open_store(tmp_path, shards=5) as tier:
        assert tier.size() == 30
        with pytest.raises(TierFull):
            tier.put(row("a"))
        faults.on = False
        assert tier.put(row("a")) is None
    assert shard_files(tmp_path) == ["00.jsonl", "01.jsonl", "02.jsonl"]
    assert "keeps its 3 shards, not 5, until it is opened again: tier: No space left" in caplog.text
    reshard(tmp_path, 5)


def test_a_reader_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path, 3)
    with caplog.at_level(logging.INFO, "tierkit.jsonl"), open_store(tmp_path, shards=5, read_only=True) as reader:
        assert reader.size() == 30
    assert meta(tmp_path)["shards"] == 3
    assert "keeps its 3 shards, not 5: it is opened read-only" in caplog.text


def _spread(root: Path, fails: Fails) -> int:
    """Open a store so that it is spread over two shards, while calls fail. How many were made."""
    with suppress(OSError), FileFaults(fails) as faults, open_store(root, shards=2) as tier:
        tier.size()
    return len(faults.names)


def test_any_call_may_fail_once_or_from_then_on(tmp_path: Path) -> None:
    fill(tmp_path / "sound", 1)
    with open_store(tmp_path / "sound") as tier:
        tier.delete("key 3", 7)
    shutil.copytree(tmp_path / "sound", tmp_path / "counted")
    count = _spread(tmp_path / "counted", nothing_fails)
    for number, lasting in product(range(1, count + 1), (False, True)):
        root = tmp_path / "tried"
        shutil.copytree(tmp_path / "sound", root)
        _spread(root, nth_fails(number, errno.EIO, lasting=lasting))
        with open_store(root, shards=2) as tier:
            assert held(tier) == {key: row(key, 3) for key in KEYS if key != "key 3"}
            assert tier.put(row("key 3", 7)) == 7
        assert meta(root)["shards"] == 2
        assert len(shard_files(root)) == 2
        shutil.rmtree(root)


# -- what a process leaves that dies ---------------------------------------------------------------------------------


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """A store before and after it was spread anew."""
    fill(tmp_path / "before", 4)
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    reshard(tmp_path / "after", 2)
    return tmp_path / "before", tmp_path / "after"


def _add(source: Path, target: Path, pattern: str) -> None:
    for path in folder(source).glob(pattern):
        shutil.copy(path, folder(target) / path.name)


def _damage_meta(root: Path) -> None:
    (folder(root) / "meta.json").write_bytes(b"?")


@pytest.mark.parametrize("damaged", [False, True])
def test_one_that_dies_before_the_swap_leaves_the_old_store(both: tuple[Path, Path], damaged: bool) -> None:
    before, after = both
    _add(after, before, "*.jsonl")
    (folder(before) / "00.1.jsonl").write_bytes((folder(before) / "00.1.jsonl").read_bytes()[:500])
    if damaged:
        _damage_meta(before)
    with open_store(before, read_only=True) as reader:
        assert reader.size() == 30
    with open_store(before) as tier:
        assert tier.size() == 30
    assert shard_files(before) == ["00.jsonl", "01.jsonl", "02.jsonl", "03.jsonl"]


@pytest.mark.parametrize("damaged", [False, True])
def test_one_that_dies_after_the_swap_leaves_the_new_store(both: tuple[Path, Path], damaged: bool) -> None:
    before, after = both
    with open_store(after) as tier:
        tier.put(row("new"))
    _add(before, after, "0[1-3].jsonl")  # the first is removed
    if damaged:
        _damage_meta(after)
    with open_store(after, read_only=True) as reader:
        assert reader.size() == 31
    with open_store(after) as tier:
        assert tier.size() == 31
    assert shard_files(after) == ["00.1.jsonl", "01.1.jsonl"]


def test_who_has_the_old_files_open_writes_to_the_new_ones_though_the_old_are_there(both: tuple[Path, Path]) -> None:
    before, after = both
    with open_store(before) as tier:
        assert tier.size() == 30
        _add(after, before, "*.jsonl")
        os.replace(folder(after) / "meta.json", folder(before) / "meta.json")
        assert tier.put(row("new")) is None
        assert tier.size() == 31
        assert shard_files(before) == ["00.1.jsonl", "01.1.jsonl"]


def test_files_that_a_process_is_at_work_on_are_left_alone(both: tuple[Path, Path]) -> None:
    before, after = both
    _add(after, before, "*.jsonl")
    descriptor = files.open_lock(str(folder(before) / "meta.lock"))
    assert files.lock(descriptor)
    with open_store(before) as tier:
        assert tier.size() == 30
    assert len(shard_files(before)) == 6
    files.close(descriptor)
    with open_store(before):
        assert len(shard_files(before)) == 4


def test_every_file_and_name_is_flushed_before_the_swap_and_nothing_is_removed_before_that_is(tmp_path: Path) -> None:
    fill(tmp_path, 3)
    with FileFaults() as calls, open_store(tmp_path, shards=5):
        pass
    swap = calls.names.index("replace")
    flushes = [name for name in calls.names[:swap] if name in {"append", "fsync", "fsync_dir"}]
    assert flushes[-9:] == ["append", *["fsync"] * 5, "fsync_dir", "append", "fsync"]  # shards, names, meta.json
    after = [name for name in calls.names[swap:] if name in {"fsync_dir", "unlink"}]
    assert after[0] == "fsync_dir"
    assert after.count("unlink") == 3


# -- descriptors -----------------------------------------------------------------------------------------------------


def test_an_open_store_has_two_descriptors_for_each_shard_and_two_and_a_scan_one_that_was_rewritten(
    tmp_path: Path,
) -> None:
    before = len(open_descriptors())
    with FileCacheTier(TierContext(), tmp_path, shards=4) as tier:

        def work() -> None:
            for version in range(1, 20):
                tier.put_many([row(key, version) for key in KEYS])
                tier.compact()
                assert len(list(tier.scan())) == 30

        run_together([work] * 4)
        assert len(open_descriptors()) - before == 2 * 4 + 2
        scans = [tier.scan() for _ in range(3)]
        for scan in scans:
            next(scan)
        for _ in range(3):
            tier.compact()
        assert len(open_descriptors()) - before <= 2 * 4 + 2 + len(scans)
        assert all(len(list(scan)) == 29 for scan in scans)
        assert len(open_descriptors()) - before == 2 * 4 + 2


def test_a_process_with_too_few_descriptors_is_told_what_to_do_and_loses_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path, shards=64):
        pass

    def write(pipe: Connection) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(open_descriptors()) + 60, hard))
        told: set[str] = set()
        with open_store(tmp_path, shards=60, durability="full") as tier:
            for number in range(200):
                try:
                    tier.put(row(f"{number}"))
                    tier.get(f"{number}")
                except TierUnavailable as error:
                    told.add(str(error).partition("; ")[2])
                else:
                    send(pipe, number)
        assert told == {"an open store takes two for each shard: raise the limit (ulimit -n), or set fewer shards"}
        send(pipe, 1000)

    acknowledged = set()
    with forked(write) as child:
        while (number := child.receive()) != 1000:
            acknowledged.add(f"{number}")
    assert 10 < len(acknowledged) < 200
    with open_store(tmp_path) as tier:
        assert acknowledged <= set(tier.keys())
        assert meta(tmp_path)["shards"] == 64
