"""What the JSON Lines tier survives: failing calls and full disks."""

import errno
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from tests.plugins.jsonl_tools import Faults, held, lines_of, open_store, row, shard

from tierkit import (
    CacheStorageError,
    Delta,
    TierFull,
    TierReadOnly,
    TierTimeout,
    TierUnavailable,
    files,
)
from tierkit.testing import make_row
from tierkit_jsonl import FileCacheTier

Step = tuple[str, int | None, Callable[[FileCacheTier], object]]


STEPS: list[Step] = [
    ("a", 1, lambda tier: tier.put(row("a", 1))),
    ("b", 1, lambda tier: tier.put_many([row("b", 1)])),
    ("a", 2, lambda tier: tier.replace(row("a", 2), 1)),
    ("b", None, lambda tier: tier.delete("b", 2)),
    ("c", 1, lambda tier: tier.put(row("c", 1))),
    ("c", 1, lambda tier: tier.touch_many({"c": Delta(1, 1.0)})),
    ("c", 1, lambda tier: tier.compact()),
    ("d", 1, lambda tier: tier.put(row("d", 1))),
    ("d", None, lambda tier: tier.discard(row("d", 1))),
    ("e", 5, lambda tier: tier.put(row("e", 5))),
    ("e", 5, lambda tier: tier.get("e")),
    ("e", None, lambda tier: tier.clear()),
    ("f", 6, lambda tier: tier.put(row("f", 6))),
]


def run_steps(tier: FileCacheTier, allowed: dict[str, set[int | None]]) -> int:
    """Take every step; what may be held after each. How many raised."""
    failures = 0
    for key, version, step in STEPS:
        everything = step is STEPS[-2][2]
        touched = list(allowed) if everything else [key]
        try:
            step(tier)
        except CacheStorageError:
            failures += 1
            for name in touched:
                allowed.setdefault(name, {None}).add(version)
        else:
            for name in touched:
                allowed[name] = follows(allowed.get(name, {None}), version)
    return failures


def follows(before: set[int | None], version: int | None) -> set[int | None]:
    """What may be held after an acknowledged step: its own outcome, or that it had nothing to act on."""
    return {version} if len(before) == 1 else {version, *before}


@pytest.mark.parametrize("durability", ["process", "full"])
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from then on"])
def test_whatever_call_fails_what_was_acknowledged_is_there(
    tmp_path: Path, durability: str, lasting: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        counter = Faults(patch, lambda *_: None)
        with open_store(tmp_path / "count", durability=durability) as tier:
            run_steps(tier, {})
    assert counter.count > 60
    for number in range(1, counter.count + 1):
        root = tmp_path / str(number)
        allowed: dict[str, set[int | None]] = {}
        with monkeypatch.context() as patch:
            fails = partial(fails_at, number=number, lasting=lasting)
            faults = Faults(patch, fails)
            tier_or_none = opened(root, durability)
            if tier_or_none is not None:
                failures = run_steps(tier_or_none, allowed)
                faults.on = False
                tier_or_none.close()
                what = faults.names[number - 1] if len(faults.names) >= number else "close"
                silent = {"unlock", "close"}
                assert failures or what in silent, f"call {number}, {what}, failed and nobody was told"
        with open_store(root) as tier:
            found = {key: value.version for key, value in held(tier).items()}
            for key, versions in allowed.items():
                assert found.get(key) in versions, f"call {number}: {key}"
            assert found.keys() <= allowed.keys()
            assert tier.put(row("next", 99)) is None
            assert tier.damaged_lines == 0
        assert not list(shard(root).parent.glob("*.tmp"))
        shutil.rmtree(root)


def fails_at(count: int, name: str, *, number: int, lasting: bool) -> OSError | None:
    if count == number or (lasting and count > number and name != "close"):
        return OSError(errno.EIO, "planted")
    return None


def opened(root: Path, durability: str) -> FileCacheTier | None:
    try:
        return open_store(root, durability=durability)
    except CacheStorageError:
        return None


@pytest.mark.parametrize("call", ["create", "append", "fsync", "replace", "fsync_dir", "pread"])
def test_a_rewrite_that_fails_anywhere_loses_nothing_and_leaves_nothing(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(tmp_path) as tier:
        for version in range(1, 5):
            tier.put_many([row("a", version), row("b", version)])
        tier.touch_many({"a": Delta(3, 7.0)})
        tier.delete("b", 4)
        expected = held(tier)
        with monkeypatch.context() as patch:
            Faults(patch, lambda _, name: OSError(errno.ENOSPC, "planted") if name == call else None)
            with pytest.raises(TierFull):
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


def test_a_put_is_not_failed_by_a_rewrite_that_fails_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    big = "x" * 20_000
    with open_store(tmp_path) as tier:
        with monkeypatch.context() as patch:
            faults = Faults(patch, lambda _, name: OSError(errno.ENOSPC, "no room") if name == "replace" else None)
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
    tmp_path: Path, number: int, kind: type[CacheStorageError], monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(tmp_path) as tier:
        tier.put(row("a"))
        before = shard(tmp_path).read_bytes()
        with monkeypatch.context() as patch:
            Faults(patch, lambda _, name: OSError(number, os.strerror(number)) if name == "append" else None)
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


def test_a_write_that_cannot_be_taken_back_ends_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(tmp_path, durability="full") as tier:
        tier.put(row("a"))
        with monkeypatch.context() as patch:
            Faults(patch, lambda _, name: OSError(errno.EIO, "x") if name in {"fsync", "truncate"} else None)
            with pytest.raises(TierUnavailable):
                tier.put(row("b"))
        with pytest.raises(TierUnavailable, match="open it anew"):
            tier.put(row("c"))
    with open_store(tmp_path, durability="full") as tier:
        assert tier.put(row("c")) is None


@pytest.mark.parametrize("durability", ["full", "process", "none"])
def test_durability_decides_how_often_a_write_is_flushed(
    tmp_path: Path, durability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_store(tmp_path, shards=4, durability=durability) as tier:
        calls = Faults(monkeypatch, lambda *_: None)
        tier.put_many([row(f"key {n}") for n in range(100)])
        tier.put(row("a"))
        tier.delete("a", 1)
        assert calls.names.count("append") == 6
        assert calls.names.count("fsync") == (6 if durability == "full" else 0)


def test_a_new_directory_and_a_rewrite_are_flushed_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Faults(monkeypatch, lambda *_: None)
    with open_store(tmp_path, shards=2) as tier:
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
