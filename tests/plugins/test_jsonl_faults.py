"""What the JSON Lines tier survives: failing calls and full disks."""

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.plugins.jsonl_tools import held, lines_of, open_store, row, shard

from tierkit import (
    CacheStorageError,
    Delta,
    TierFull,
    TierReadOnly,
    TierTimeout,
    TierUnavailable,
    files,
)
from tierkit.testing import FileFaults, make_row, these_fail


@pytest.mark.parametrize("call", ["create", "fstat", "append", "fsync", "replace", "fsync_dir", "pread"])
def test_a_rewrite_that_fails_anywhere_loses_nothing_and_leaves_nothing(tmp_path: Path, call: str) -> None:
    with open_store(tmp_path) as tier:
        for version in range(1, 5):
            tier.put_many([row("a", version), row("b", version)])
        tier.touch_many({"a": Delta(3, 7.0)})
        tier.delete("b", 4)
        expected = held(tier)
        with FileFaults(these_fail(errno.ENOSPC, call)), pytest.raises(TierFull):
            tier.compact()
        assert not list(shard(tmp_path).parent.glob("*.tmp"))
        assert held(tier) == expected
        assert tier.put(row("c")) is None
        tier.compact()
        assert held(tier) == {**expected, "c": row("c")}
    with open_store(tmp_path) as tier:
        assert held(tier) == {**expected, "c": row("c")}
        found = tier.get("a")
        assert found is not None
        assert (found.access_count, found.last_accessed) == (3, 7.0)


def test_a_put_is_not_failed_by_a_rewrite_that_fails_after_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    big = "x" * 20_000
    with open_store(tmp_path) as tier:
        with FileFaults(these_fail(errno.ENOSPC, "replace")) as faults:
            for version in range(1, 20):
                assert tier.put(row("a", version, big=big)) is None
        assert 1 <= faults.names.count("replace") <= 6, "it is not tried again at each put"
        assert "could not be compacted" in caplog.text
        assert tier.get("a") == row("a", 19, big=big)
        size = shard(tmp_path).stat().st_size
        for version in range(20, 40):
            tier.put(row("a", version, big=big))
        assert shard(tmp_path).stat().st_size < size


@pytest.mark.req("E-2")
@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, TierFull),
        (errno.EDQUOT, TierFull),
        (errno.EFBIG, TierFull),
        (errno.EROFS, TierReadOnly),
        (errno.EACCES, TierReadOnly),
        (errno.EPERM, TierReadOnly),
        (errno.EIO, TierUnavailable),
    ],
)
def test_a_full_or_failing_disk_is_named_and_leaves_no_part_of_a_line(
    tmp_path: Path, number: int, kind: type[CacheStorageError]
) -> None:
    with open_store(tmp_path) as tier:
        tier.put(row("a"))
        before = shard(tmp_path).read_bytes()
        with FileFaults(these_fail(number, "append")):
            for write in (
                lambda: tier.put(row("b")),
                lambda: tier.put_many([row("c"), row("d")]),
                lambda: tier.delete("a", 5),
            ):
                with pytest.raises(kind, match="tier"):
                    write()
        assert shard(tmp_path).read_bytes() == before
        assert held(tier) == {"a": row("a")}
        assert tier.put(row("b")) is None


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Let no file of this process grow beyond a size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.req("E-2")
def test_a_write_that_the_system_cuts_short_is_taken_back(tmp_path: Path, small_files: Callable[[int], None]) -> None:
    with open_store(tmp_path) as tier:
        tier.put(row("a"))
        before = shard(tmp_path).read_bytes()
        small_files(len(before) + 100)
        for _ in range(2):
            with pytest.raises(TierFull):
                tier.put_many([row("b", text2="x" * 50), row("c")])
        assert shard(tmp_path).read_bytes() == before
        small_files(10_000)
        assert tier.put_many([row("b"), row("c")]) == [None, None]
        assert set(held(tier)) == {"a", "b", "c"}


def test_after_a_failed_fsync_nothing_of_the_write_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(tmp_path, durability="full") as tier, open_store(tmp_path) as other:
        tier.put(row("a"))
        before = shard(tmp_path).read_bytes()
        seen = []

        def fsync(fd: int) -> None:
            seen.append(other.get("a"))
            raise OSError(errno.EIO, "planted")

        with monkeypatch.context() as patch:
            patch.setattr(files, "fsync", fsync)
            with pytest.raises(TierUnavailable):
                tier.put(row("a", 2))
        assert shard(tmp_path).read_bytes() == before
        assert seen == [row("a", 2)], "others may see what is not acknowledged yet"
        assert tier.get("a") == row("a")
        assert tier.put(row("a", 3)) is None
        assert other.get("a") == row("a", 3)
        assert other.put(row("b", 1)) is None
        assert held(tier) == held(other)


def test_a_write_is_taken_back_though_a_reader_of_a_damaged_record_comes_between(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(tmp_path, durability="full") as tier, open_store(tmp_path) as other:
        tier.put_many([row("a"), row("damaged")])
        content = shard(tmp_path).read_bytes()
        shard(tmp_path).write_bytes(content.replace(b"damageddamaged", b"damagedDAMAGED"))
        before = shard(tmp_path).read_bytes()

        def fsync(_fd: int) -> None:
            with suppress(TierTimeout):  # it looks again when the writer is done, for whom it does not wait long
                tier.get("damaged")
            raise OSError(errno.EIO, "planted")

        with monkeypatch.context() as patch:
            patch.setattr(files, "fsync", fsync)
            with pytest.raises(TierUnavailable):
                tier.put(row("a", 2))
        assert shard(tmp_path).read_bytes() == before
        assert tier.get("a") == other.get("a") == row("a")
        assert tier.get("damaged") is None


@pytest.mark.parametrize("read_between", [False, True])
def test_after_a_write_that_cannot_be_taken_back_the_next_goes_into_another_file(
    tmp_path: Path, read_between: bool
) -> None:
    with open_store(tmp_path, durability="full") as tier:
        tier.put(row("a"))
        before = shard(tmp_path).stat().st_ino
        with FileFaults(these_fail(errno.EIO, "fsync", "truncate")), pytest.raises(TierUnavailable):
            tier.put(row("b"))
        if read_between:
            assert tier.get("a") == row("a")
        with FileFaults(these_fail(errno.EIO, "fsync")), pytest.raises(TierUnavailable):
            tier.put(row("c"))
        assert tier.put(row("c")) is None
        assert shard(tmp_path).stat().st_ino != before, "no flush of the old one can be believed"
        assert tier.put(row("c", 2)) is None
    with open_store(tmp_path, durability="full") as tier:
        assert (tier.get("a"), tier.get("c")) == (row("a"), row("c", 2))


def test_a_descriptor_that_fails_to_close_is_no_reason_to_raise(tmp_path: Path) -> None:
    tier = open_store(tmp_path)
    tier.put(row("a"))
    with FileFaults(these_fail(errno.EIO, "close")):
        tier.close()


@pytest.mark.parametrize("durability", ["full", "process", "none"])
def test_durability_decides_how_often_a_write_is_flushed(tmp_path: Path, durability: str) -> None:
    with open_store(tmp_path, shards=4, durability=durability) as tier, FileFaults() as calls:
        tier.put_many([row(f"key {n}") for n in range(100)])
        tier.put(row("a"))
        tier.delete("a", 1)
        assert calls.names.count("append") == 6
        assert calls.names.count("fsync") == (6 if durability == "full" else 0)


def test_a_new_directory_and_a_rewrite_are_flushed_by_name(tmp_path: Path) -> None:
    with FileFaults() as calls, open_store(tmp_path, shards=2) as tier:
        assert calls.names.count("fsync_dir") >= 4  # two directories, the shards, meta.json
        calls.names.clear()
        tier.compact()
        tail = [name for name in calls.names if name in {"fsync", "replace", "fsync_dir"}]
        assert tail == ["fsync", "replace", "fsync_dir"] * 2


def test_a_file_that_vanishes_reads_as_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier:
        tier.put(row("a"))
        shard(tmp_path).unlink()
        assert tier.get("a") is None
        assert tier.size() == 0
        assert tier.put(row("b")) is None
        assert tier.get("b") == row("b")


def test_a_stale_temporary_is_swept_and_a_live_one_is_not(tmp_path: Path) -> None:
    with open_store(tmp_path, shards=2) as tier:
        tier.put(row("a"))
        stale = [shard(tmp_path, number).with_suffix(".jsonl.tmp") for number in (0, 1)]
        for path in stale:
            path.write_bytes(b"half")
        lock = files.open_lock(str(shard(tmp_path, 1).with_suffix(".lock")))
        try:
            assert files.lock(lock)
            with open_store(tmp_path) as other:
                assert other.get("a") == row("a")
        finally:
            os.close(lock)
        assert [path.exists() for path in stale] == [False, True]
        tier.compact()
        assert not any(path.exists() for path in stale)


def test_usage_that_a_rewrite_carries_over_is_not_lost(tmp_path: Path) -> None:
    rows = {key: make_row(key, 1, access_count=n, last_accessed=n / 4, x='"access_count":9') for n, key in
            enumerate(("access_count", '"access_count":7,"last_accessed":8', "c"))}  # fmt: skip
    with open_store(tmp_path) as tier:
        tier.put_many(list(rows.values()))
        tier.touch_many(dict.fromkeys(rows, Delta(5, 2.5)))
        tier.compact()
        tier.compact()
        assert len(lines_of(tmp_path)) == 4
    with open_store(tmp_path) as tier:
        assert held(tier) == rows
        assert {r.key: (r.access_count, r.last_accessed) for r in tier.scan()} == {
            key: (n + 5, 2.5) for n, key in enumerate(rows)
        }
        assert tier.damaged_lines == 0
