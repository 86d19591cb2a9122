"""Several processes, openings and threads on one JSON Lines store."""

import contextlib
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from tests.plugins.jsonl_tools import held, lines_of, open_store, row, shard

from tierkit import Delta, TierReadOnly, TierTimeout, TierUnavailable, files
from tierkit.testing import FileFaults, make_row, these_fail
from tierkit.testing.suite.processes import forked, receive, send
from tierkit_jsonl import FileCacheTier


@pytest.mark.req("US1-2")
def test_what_another_opening_appends_is_read_without_a_lock(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier, open_store(tmp_path) as other, FileFaults() as calls:
        tier.put(row("a"))
        assert other.get("a") == row("a")
        tier.put(row("a", 2))
        calls.names.clear()
        assert other.get("a") == row("a", 2)
        assert "lock" not in calls.names
        calls.names.clear()
        assert other.get("a") == row("a", 2)
        assert calls.names == ["fstat", "pread"]


def test_a_rewrite_by_another_opening_is_seen_by_readers_and_writers(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier, open_store(tmp_path) as reader, open_store(tmp_path) as writer:
        tier.put_many([row("a"), row("b"), row("c")])
        assert len(held(reader)) == len(held(writer)) == 3
        tier.put(row("a", 2))
        tier.delete("b", 1)
        tier.compact()
        assert len(lines_of(tmp_path)) == 4
        assert reader.get("a") == row("a", 2)
        assert reader.get("b") is None
        assert writer.put(row("d")) is None, "an append to the old file would vanish"
        assert writer.put(row("b")) == 1, "the mark survives the rewrite"
        expected = {"a": row("a", 2), "c": row("c"), "d": row("d")}
        assert held(tier) == held(reader) == held(writer) == expected


def test_a_scan_goes_on_through_a_rewrite(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier, open_store(tmp_path) as other:
        tier.put_many([row(f"key {n}") for n in range(30)])
        rows = tier.scan()
        seen = [next(rows).key]
        other.touch_many({"key 1": Delta(1, 1.0)})
        other.compact()
        tier.compact()
        seen += [found.key for found in rows]
        assert sorted(seen) == sorted(f"key {n}" for n in range(30))


def test_a_torn_tail_is_left_to_writers(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier, open_store(tmp_path) as other:
        tier.put(row("a"))
        whole = shard(tmp_path).read_bytes()
        with shard(tmp_path).open("ab") as file:
            file.write(b'{"crc":"0000')
        assert other.get("a") == row("a")
        assert other.get("b") is None
        assert shard(tmp_path).read_bytes() == whole + b'{"crc":"0000'
        assert other.put(row("b")) is None
        assert shard(tmp_path).read_bytes().startswith(whole + b'{"crc":"')
        assert held(tier) == {"a": row("a"), "b": row("b")}


def test_a_taken_back_write_that_was_seen_is_unlearned(tmp_path: Path) -> None:
    """The line that follows has the same length: size and inode tell nothing."""
    with open_store(tmp_path) as tier, open_store(tmp_path) as other:
        tier.put(row("a", 1))
        end = shard(tmp_path).stat().st_size
        tier.put(row("b", 1))
        assert other.get("b") == row("b", 1)
        os.truncate(shard(tmp_path), end)
        tier.put(row("c", 1))
        tier.put(row("d", 1))
        assert other.get("c") == row("c", 1)
        assert other.get("b") is None
        assert held(other) == held(tier) == {key: row(key) for key in "acd"}


def test_a_read_of_a_place_that_now_holds_another_record_looks_again(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier, open_store(tmp_path) as other:
        tier.put(row("a", 1))
        end = shard(tmp_path).stat().st_size
        tier.put(row("b", 1))
        assert other.get("b") == row("b", 1)
        os.truncate(shard(tmp_path), end)
        tier.put(row("c", 1))
        assert shard(tmp_path).stat().st_size > end
        assert other.get("b") is None
        assert other.get("c") == row("c", 1)
        assert other.damaged_lines == 0


@pytest.mark.req("E-4")
def test_processes_append_and_rewrite_at_once(tmp_path: Path) -> None:
    def work(tag: int, pipe: Connection) -> None:
        with open_patient(tmp_path) as tier:
            send(pipe, 1)
            receive(pipe)
            for n in range(40):
                assert tier.put(row(f"own {tag} {n}", 1)) is None
                assert tier.get(f"own {tag} {n}") == row(f"own {tag} {n}", 1)
                tier.put(row("shared", n * 4 + tag + 1))
                if n % 8 == tag:
                    tier.compact()
                if n % 5 == 0:
                    tier.put_many([row(f"bulk {tag} {n} {m}") for m in range(20)])
                    tier.touch_many({"counted": Delta(1, float(n))})
        send(pipe, 2)

    with open_patient(tmp_path) as tier:
        tier.put(row("counted"))
        with (
            forked(partial(work, 0)) as first,
            forked(partial(work, 1)) as second,
            forked(partial(work, 2)) as third,
        ):
            children = (first, second, third)
            for child in children:
                assert child.receive() == 1
            for child in children:
                child.send(1)
            for child in children:
                assert child.receive() == 2
        keys = {f"own {tag} {n}" for tag in range(3) for n in range(40)}
        keys |= {f"bulk {tag} {n} {m}" for tag in range(3) for n in range(0, 40, 5) for m in range(20)}
        assert set(tier.keys()) == keys | {"shared", "counted"}
        assert tier.get("shared") == row("shared", 39 * 4 + 3)
        counted = tier.get("counted")
        assert counted is not None
        assert (counted.access_count, counted.last_accessed) == (24, 35.0)
        assert tier.damaged_lines == 0


def open_patient(root: Path, **context: Any) -> FileCacheTier:
    from tierkit import TierContext

    return FileCacheTier(TierContext(**context), root / "store", shards=2, compact_ratio=0.1)


def test_a_child_of_a_fork_has_locks_of_its_own(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier:
        tier.put(row("a"))
        held_lock = files.open_lock(str(shard(tmp_path).with_suffix(".lock")))
        mutex = tier._store.shards[0].lock.mutex

        def child(pipe: Connection) -> None:
            os.close(held_lock)
            assert tier.get("a") == row("a")
            send(pipe, 1)
            receive(pipe)
            assert tier.put(row("b")) is None
            send(pipe, 2)

        with mutex, forked(child) as other:  # a thread of the parent is writing when it forks
            assert other.receive() == 1
            other.send(1)
            assert other.receive() == 2
        os.close(held_lock)
        assert tier.get("b") == row("b")
        assert tier.put(row("c")) is None


def test_a_child_does_not_write_while_the_parent_holds_the_lock(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier:
        tier.put(row("a"))

        def child(pipe: Connection) -> None:
            with pytest.raises(TierTimeout):
                tier.put(row("b"))
            send(pipe, 1)

        lock = tier._store.shards[0].lock
        with lock.mutex:
            assert lock.try_file()
            with forked(child) as other:
                assert other.receive() == 1
            lock.release_file()
        assert held(tier) == {"a": row("a")}


def test_a_lock_that_is_kept_is_waited_for_only_so_long(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier:
        tier.put(row("a"))
        lock = files.open_lock(str(shard(tmp_path).with_suffix(".lock")))
        assert files.lock(lock)
        with pytest.raises(TierTimeout, match="another process"):
            tier.put(row("b"))
        assert tier.get("a") == row("a"), "a reader does not wait"
        os.close(lock)
        assert tier.put(row("b")) is None
        with kept_by_another_thread(tier), pytest.raises(TierTimeout, match="another thread"):
            tier.put(row("c"))


@contextlib.contextmanager
def kept_by_another_thread(tier: FileCacheTier) -> Iterator[None]:
    """Its first shard."""
    taken, done = threading.Event(), threading.Event()

    def keep() -> None:
        with tier._store.shards[0].lock.mutex:
            taken.set()
            done.wait(60)

    thread = threading.Thread(target=keep)
    thread.start()
    assert taken.wait(60)
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("opened", [False, True])
def test_closing_waits_only_so_long_for_another_thread(tmp_path: Path, opened: bool) -> None:
    tier = open_store(tmp_path)
    if opened:
        tier.put(row("a"))
    with kept_by_another_thread(tier):
        tier.close()
        assert tier._store.shards[0].lock._fd == -1
        tier.close()


def test_a_reader_does_not_wait_for_the_fsync_of_a_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(tmp_path, durability="full") as tier:
        tier.put(row("a"))
        flushing, done = threading.Event(), threading.Event()

        def fsync(_fd: int) -> None:
            flushing.set()
            assert done.wait(60)

        monkeypatch.setattr(files, "fsync", fsync)
        writer = threading.Thread(target=tier.put, args=(row("a", 2),))
        writer.start()
        try:
            assert flushing.wait(60)
            assert tier.get("a") == row("a"), "nobody was told of the new one yet"
            assert tier.size() == 1
        finally:
            done.set()
            writer.join()
        assert tier.get("a") == row("a", 2)


def test_an_unlock_that_fails_keeps_nobody_out(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier, open_store(tmp_path) as other:
        with FileFaults(these_fail(errno.EIO, "unlock")):
            assert tier.put(row("a")) is None
        assert other.put(row("b")) is None
        assert tier.put(row("c")) is None


def test_read_only_creates_and_changes_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path / "none", read_only=True) as reader:
        assert reader.get("a") is None
        assert (held(reader), reader.size(), reader.bytes_on_disk(), reader.highest_version()) == ({}, 0, 0, 0)
    assert list(tmp_path.iterdir()) == []
    with open_store(tmp_path) as tier, open_store(tmp_path, read_only=True) as reader:
        tier.put(row("a"))
        assert reader.get("a") == row("a")
        tier.put(row("a", 2))
        tier.compact()
        assert reader.get("a") == row("a", 2)
        for write in (
            lambda: reader.put(row("b")),
            lambda: reader.put_many([row("b")]),
            lambda: reader.delete("a", 9),
            lambda: reader.delete_many({"a": 9}),
            lambda: reader.replace(row("a", 3), 2),
            lambda: reader.discard(row("a", 2)),
            lambda: reader.touch_many({"a": Delta(1, 1.0)}),
            lambda: reader.purge(1e12),
            reader.clear,
            reader.compact,
        ):
            with pytest.raises(TierReadOnly):
                write()
        assert held(tier) == {"a": row("a", 2)}


def test_a_store_that_cannot_be_written_is_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(tmp_path) as tier:
        tier.put(row("a"))
    real = files.open_log

    def refuse(path: str, *, write: bool) -> Any:
        if write:
            raise OSError(errno.EROFS, "read-only", path)
        return real(path, write=write)

    with open_store(tmp_path) as tier:
        with monkeypatch.context() as patch:
            patch.setattr(files, "open_log", refuse)
            assert tier.get("a") == row("a")
            with pytest.raises(TierReadOnly):
                tier.put(row("b"))
            assert tier.get("a") == row("a")
        assert tier.put(row("b")) is None


def test_a_closed_tier_refuses_by_name(tmp_path: Path) -> None:
    tier = open_store(tmp_path, name="L2", max_entries=1)
    tier.put(row("a"))
    rows = tier.scan()
    tier.close()
    tier.close()
    for call in (
        lambda: tier.get("a"),
        lambda: tier.put(row("a")),
        lambda: tier.put_many([row("a")]),
        lambda: tier.delete("a", 1),
        lambda: list(rows),
        lambda: list(tier.keys()),
        tier.size,
        tier.overflow,
        tier.clear,
        tier.compact,
        tier.highest_version,
        lambda: tier.purge(0.0),
    ):
        with pytest.raises(TierUnavailable, match="L2 is closed"):
            call()


LEFT_OPEN = """
import sys, threading

from tierkit import TierContext
from tierkit.testing import make_row
from tierkit_jsonl import FileCacheTier

threading.tier = FileCacheTier(TierContext(), sys.argv[1])  # let go of when modules are gone already
threading.tier.put(make_row("a"))
"""


def test_a_tier_left_open_says_nothing_when_the_interpreter_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LEFT_OPEN, str(tmp_path / "store")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_compact_ratio_decides_when_a_shard_is_rewritten(tmp_path: Path) -> None:
    sizes = {}
    for ratio in (0.5, 4.0):
        root = tmp_path / str(ratio)
        with open_store(root, compact_ratio=ratio) as tier:
            for version in range(1, 200):
                tier.put(make_row("a", version, text="x" * 20_000))
                tier.put(make_row("b", 1, text="y" * 20_000))
            sizes[ratio] = max_size(tier, root)
            assert len(held(tier)) == 2
    assert sizes[0.5] < 64 * 1024 + 45_000 < sizes[4.0] < 6 * 40_500 + 45_000


def max_size(tier: FileCacheTier, root: Path) -> int:
    """The largest that the file gets over many more writes."""
    sizes = []
    for version in range(200, 240):
        tier.put(make_row("a", version, text="x" * 20_000))
        sizes.append(shard(root).stat().st_size)
    return max(sizes)


def test_marks_go_in_a_rewrite_once_they_are_old(tmp_path: Path) -> None:
    time = [1_700_000_000.0]
    with open_store(tmp_path, now=lambda: time[0], tombstone_seconds=100.0) as tier:
        tier.put_many([row("a"), row("b")])
        tier.delete("a", 5)
        time[0] += 99
        tier.compact()
        assert [line.get("mark") for line in lines_of(tmp_path)][-1] == "0" * 18 + "6"
        assert tier.put(row("a", 5)) == 5
        time[0] += 1
        assert tier.put(row("a", 5)) is None
        tier.delete("b", 1)
        time[0] += 100
        tier.compact()
        assert [line.get("key") for line in lines_of(tmp_path)] == [None, "a"]
