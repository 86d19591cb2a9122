"""Connections of the SQLite tier: threads, forks, locks, and that nothing is left open."""

import contextlib
import multiprocessing
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from tests.plugins.sqlite_support import assert_nothing_is_open, open_tier, own_connection, proxy, raw

from tierkit import (
    Delta,
    TierkitError,
    TierTimeout,
    TierUnavailable,
)
from tierkit.testing import make_row
from tierkit_sqlite import SQLiteCacheTier, connections, files, handles, library, opening
from tierkit_sqlite.library import sqlite3


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tierkit.db"


@pytest.fixture(params=[False, True], ids=["sound library", "library with the WAL fault"])
def faulty(request: pytest.FixtureRequest) -> Iterator[bool]:
    with patch.object(library, "has_wal_fault", lambda: request.param):
        yield request.param


CALLS: dict[str, Callable[[SQLiteCacheTier], Any]] = {
    "get": lambda tier: tier.get("key 1"),
    "get nothing": lambda tier: tier.get("nobody"),
    "get many": lambda tier: tier.get_many(["key 1", "nobody"]),
    "put": lambda tier: tier.put(proxy(1, 5)),
    "put refused": lambda tier: tier.put(proxy(1, 0)),
    "put equal": lambda tier: tier.put(proxy(1)),
    "put many": lambda tier: tier.put_many([proxy(1, 5), proxy(9)]),
    "put many refused": lambda tier: tier.put_many([proxy(1, 0), proxy(9)]),
    "replace": lambda tier: tier.replace(proxy(1, 5), 1),
    "replace refused": lambda tier: tier.replace(proxy(1, 5), 2),
    "delete": lambda tier: tier.delete("key 1", 5),
    "delete refused": lambda tier: tier.delete("key 1", 0),
    "delete many": lambda tier: tier.delete_many({"key 1": 5, "key 2": 0}),
    "discard": lambda tier: tier.discard(proxy(1)),
    "touch many": lambda tier: tier.touch_many({"key 1": Delta(1, 1.0)}),
    "scan": lambda tier: list(tier.scan()),
    "a scan that stands still": lambda tier: next(tier.scan()),
    "keys": lambda tier: next(tier.keys()),
    "size": lambda tier: tier.size(),
    "overflow": lambda tier: tier.overflow(),
    "purge": lambda tier: tier.purge(2e9 + 150),
    "clear": lambda tier: tier.clear(),
    "compact": lambda tier: tier.compact(),
    "highest version": lambda tier: tier.highest_version(),
    "bytes": lambda tier: tier.bytes_on_disk(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_call_leaves_anything_open(path: Path, faulty: bool, call: Callable[[SQLiteCacheTier], Any]) -> None:
    with open_tier(path, context={"max_entries": 5}) as tier:
        tier.put_many([proxy(n) for n in range(250)])
        held = call(tier)
        assert_nothing_is_open(tier)
        del held


WRITES = {name: call for name, call in CALLS.items() if name.split()[0] in {"put", "replace", "delete", "discard"}}
WRITES |= {name: CALLS[name] for name in ("touch many", "purge", "clear")}


@pytest.mark.parametrize("call", WRITES.values(), ids=WRITES)
def test_a_locked_database_times_out_and_nothing_is_left_open(
    path: Path, faulty: bool, call: Callable[[SQLiteCacheTier], Any]
) -> None:
    with open_tier(path, busy_timeout_seconds=0.01) as tier:
        tier.put_many([proxy(n) for n in range(250)])
        before = sorted((row.key, row.version) for row in tier.scan())
        with raw(path) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(TierTimeout, match=r"L3.*tierkit\.db.*another writer"):
                call(open_tier_named(tier))
            assert tier.get("key 1") is not None, "readers wait for nobody"
            other.execute("ROLLBACK")
        assert_nothing_is_open(tier)
        assert sorted((row.key, row.version) for row in tier.scan()) == before
        call(tier)


def open_tier_named(tier: SQLiteCacheTier) -> SQLiteCacheTier:
    tier._connections.where = f"L3 ({tier.path})"
    return tier


def test_a_sweep_that_finds_nothing_waits_for_nobody(path: Path) -> None:
    with open_tier(path, busy_timeout_seconds=0) as tier, raw(path) as other:
        tier.put(proxy(1))
        other.execute("BEGIN IMMEDIATE")
        assert tier.purge(0.0) == 0


def test_a_closed_tier_says_so_in_every_thread(path: Path) -> None:
    tier = open_tier(path)
    tier.close()
    tier.close()
    errors: list[BaseException] = []

    def call() -> None:
        try:
            tier.get("key")
        except TierUnavailable as error:
            errors.append(error)

    call()
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert ["has been closed" in str(error) for error in errors] == [True, True]


def test_close_closes_the_connections_of_all_threads_dead_or_alive(path: Path) -> None:
    tier = open_tier(path)
    opened, leave = threading.Barrier(3), threading.Event()

    def work(stays: bool) -> None:
        tier.put(proxy(threading.get_ident()))
        opened.wait(30)
        if stays:
            leave.wait(30)

    threads = [threading.Thread(target=work, args=(stays,)) for stays in (True, False)]
    for thread in threads:
        thread.start()
    opened.wait(30)
    threads[1].join()
    known = [handle.opened.connection for handle in tier._connections.handles if handle.opened]
    assert len(known) == 3
    tier.close()
    leave.set()
    threads[0].join()
    for connection in known:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")


def test_connections_of_dead_threads_do_not_pile_up(path: Path) -> None:
    with open_tier(path) as tier:
        for n in range(8):
            thread = threading.Thread(target=tier.put, args=(proxy(n),))
            thread.start()
            thread.join()
        assert len(tier._connections.handles) <= 3
        assert tier.size() == 8


@pytest.mark.req("E-4")
def test_threads_write_at_once(path: Path, faulty: bool) -> None:
    with open_tier(path, busy_timeout_seconds=60) as tier:
        threads = [
            threading.Thread(target=lambda t=t: [tier.put(proxy(100 * t + n)) for n in range(50)]) for t in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(tier.keys()) == sorted(f"key {100 * t + n}" for t in range(4) for n in range(50))


def test_a_new_file_waits_for_another_that_is_making_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself does not wait when two switch a file to WAL mode."""
    path.touch(0o600)
    with raw(path) as other:
        other.execute("CREATE TABLE made (x)")
        other.execute("DROP TABLE made")
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(opening, "sleep", lambda _: other.execute("ROLLBACK"))
        open_tier(path).close()
        other.execute("BEGIN IMMEDIATE").fetchall()


@pytest.mark.parametrize("_", range(5))
def test_many_open_a_new_file_at_once(path: Path, faulty: bool, _: int) -> None:
    barrier = threading.Barrier(4)
    errors: list[Exception] = []

    def make(n: int) -> None:
        barrier.wait(30)
        try:
            with open_tier(path, busy_timeout_seconds=60) as tier:
                tier.put(proxy(n))
        except TierkitError as error:
            errors.append(error)

    threads = [threading.Thread(target=make, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with open_tier(path) as tier:
        assert tier.size() == 4


def test_what_is_written_anew_during_a_scan_is_not_seen_twice(path: Path) -> None:
    with open_tier(path) as tier:
        tier.put_many([proxy(n) for n in range(150)])
        seen = []
        for row in tier.scan():
            seen.append(row.key)
            tier.delete(row.key, row.version)
            tier.put(make_row(row.key, row.version + 1))
        assert sorted(seen) == sorted(f"key {n}" for n in range(150))


# -- fork --------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def forked(work: Callable[[Any], None]) -> Iterator[Any]:
    """A forked child that runs `work` with its end of a pipe, and must end well."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    child = fork.Process(target=work, args=(there,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        child.start()
    try:
        yield here
        child.join(60)
        assert child.exitcode == 0
    finally:
        child.kill()
        child.join()
        child.close()
        here.close()
        there.close()


def put_and_close(tier: SQLiteCacheTier, n: int, pipe: Any) -> None:
    tier.put(proxy(n))
    assert tier.get(f"key {n}") == proxy(n)
    tier.close()


def expect(pipe: Any, word: str) -> None:
    assert pipe.poll(60)
    assert pipe.recv() == word


@pytest.mark.req("E-4")
def test_what_a_forked_child_writes_outlives_the_closing_of_its_parent(path: Path, faulty: bool) -> None:
    """With the parent's connection, or with its own beside that, the child would write to a log that is unlinked."""
    tier = open_tier(path)
    tier.put(proxy(0))

    def work(pipe: Any) -> None:
        assert tier.get("key 0") == proxy(0)
        tier.put(proxy(1))
        pipe.send("written")
        expect(pipe, "parent closed")
        tier.put(proxy(2))
        tier.close()

    with forked(work) as pipe:
        expect(pipe, "written")
        assert tier.get("key 1") == proxy(1)
        tier.close()
        with open_tier(path) as another:
            another.put(proxy(3))
        pipe.send("parent closed")
    with open_tier(path) as tier:
        assert sorted(tier.keys()) == ["key 0", "key 1", "key 2", "key 3"]


def test_a_child_that_ends_leaves_its_parent_alone(path: Path, faulty: bool) -> None:
    with open_tier(path) as tier:
        tier.put(proxy(0))
        scan = tier.scan()
        for n in range(1, 4):
            with forked(partial(put_and_close, tier, n)):
                tier.put(proxy(10 + n))
        assert tier.size() == 7
        assert next(scan) == proxy(0)
        assert_nothing_is_open(tier)


def test_a_fork_waits_for_calls_and_its_child_is_not_left_with_a_lock(path: Path) -> None:
    with open_tier(path, busy_timeout_seconds=60) as tier:
        stop = threading.Event()

        def write() -> None:
            version = 1
            while not stop.is_set():
                version += 1
                tier.put(proxy(1, version))

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for n in range(5):
                with forked(partial(put_and_close, tier, 10 + n)):
                    pass
        finally:
            stop.set()
            thread.join()
        assert {f"key {10 + n}" for n in range(5)} <= set(tier.keys())


def test_nothing_of_a_tier_is_open_while_the_process_forks(path: Path) -> None:
    with open_tier(path) as tier:
        connection = own_connection(tier)
        connections._before_fork()
        try:
            with pytest.raises(sqlite3.ProgrammingError, match="closed"):
                connection.execute("SELECT 1")
        finally:
            connections._after_fork_in_parent()
        assert tier.size() == 0


def test_a_child_of_a_program_that_forks_by_itself_never_closes_what_it_inherits(path: Path) -> None:
    with open_tier(path) as tier:
        connection = own_connection(tier)
        connections._after_fork_in_child()
        inherited = connections._inherited.pop()
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert own_connection(tier) is not connection
        inherited.drop()


# -- interrupts and calls within calls ---------------------------------------------------------------------------------


class Interrupt(BaseException):
    """What a signal handler raises."""


def interrupt(*_: Any) -> None:
    raise Interrupt


def put_from_another_thread(tier: SQLiteCacheTier, n: int) -> None:
    """Raises `TierTimeout` if a lock was left behind."""
    answers: list[object] = []

    def put() -> None:
        try:
            answers.append(tier.put(proxy(n)))
        except TierkitError as error:
            answers.append(error)

    thread = threading.Thread(target=put, daemon=True)
    thread.start()
    thread.join(30)
    assert answers == [None]


@pytest.mark.parametrize("close", [False, True], ids=["call", "close"])
def test_a_call_within_a_call_of_the_same_thread_hangs_neither(path: Path, faulty: bool, close: bool) -> None:
    """As a signal handler or a finalizer makes one, at any step."""
    with open_tier(path, busy_timeout_seconds=0.05) as tier:
        tier.put(proxy(1))

        def handler(cursor: sqlite3.Cursor, _: Any) -> Any:
            if close:
                tier.close()
            else:
                for call in (lambda: tier.put(proxy(2)), lambda: tier.get("key 1")):
                    with pytest.raises(TierUnavailable, match="another call of the same thread"):
                        call()
            return cursor.execute("SELECT 1").fetchall()

        thread = threading.Thread(target=run_within, args=(tier, handler, close), daemon=True)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        if not close:
            assert tier.put(proxy(2)) is None
            assert_nothing_is_open(tier)


def run_within(tier: SQLiteCacheTier, handler: Callable[..., Any], closed: bool) -> None:
    with pytest.raises(TierUnavailable) if closed else contextlib.nullcontext():
        assert tier._connections.write(handler) == [(1,)]


def test_a_new_thread_may_call_while_its_handle_is_being_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_tier(path) as tier:
        first = threading.Thread(target=tier.size)
        first.start()
        first.join()

        def drop(handle: handles.Handle) -> None:
            monkeypatch.undo()
            sizes.append(tier.size())
            handle.drop()

        sizes: list[int] = []
        monkeypatch.setattr(handles.Handle, "drop", drop)
        second = threading.Thread(target=lambda: sizes.append(tier.size()), daemon=True)
        second.start()
        second.join(30)
        assert sizes == [0, 0]


@pytest.mark.no_canary("an interrupt may leave the lock of a handler of the log held")
@pytest.mark.parametrize(
    ("owner", "step"),
    [
        (files.LockFile, "__exit__"),
        (handles.Handle, "roll_back"),
        (handles.Handle, "checkpoint_by_hand"),
        (connections.Connections, "_attempt"),
    ],
)
def test_an_interrupt_leaves_no_lock_behind(
    path: Path, faulty: bool, owner: type, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between any two steps: here on the way into one, once."""
    real = getattr(owner, step)

    def interrupted(*_: Any, **__: Any) -> None:
        monkeypatch.setattr(owner, step, real)
        raise Interrupt

    def fail(*_: Any) -> None:
        raise TierUnavailable("no")

    with open_tier(path, busy_timeout_seconds=0.05) as tier:
        tier.put(proxy(1))
        monkeypatch.setattr(owner, step, interrupted)
        with contextlib.suppress(Interrupt, TierUnavailable):
            tier._connections.write(fail if step == "roll_back" else connections_work)
        put_from_another_thread(tier, 2)
        assert tier.put(proxy(3)) is None
        assert tier.size() == 3


def connections_work(cursor: sqlite3.Cursor, _: Any) -> None:
    cursor.execute("SELECT 1").fetchall()


def test_an_interrupt_between_the_lock_and_its_count_leaves_no_lock_behind(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "has_wal_fault", lambda: True)
    with open_tier(path, busy_timeout_seconds=0.05) as tier:
        tier.put(proxy(1))
        lock = files.LockFile._lock

        def interrupted(lock_file: files.LockFile) -> None:
            lock(lock_file)
            raise Interrupt

        with monkeypatch.context() as patched:
            patched.setattr(files.LockFile, "_lock", interrupted)
            with pytest.raises(Interrupt):
                tier.put(proxy(1, 2))
        put_from_another_thread(tier, 2)


def test_an_interrupt_while_a_connection_is_opened_leaves_it_to_the_next_call(path: Path) -> None:
    with open_tier(path) as tier:
        handle = tier._connections._mine()
        handle.drop()
        with patch.object(tier._connections, "_opener") as opener:
            opener.return_value.connection.cursor = interrupt
            with pytest.raises(Interrupt):
                tier.size()
        assert tier.size() == 0
