"""Children of every kind, and interrupts, while threads hold locks: nobody hangs, and nothing is lost.

The threads of the parent write all the while, and give their turns away between any two lines: so a fork nearly always
comes while one of them holds a lock, and an interrupt anywhere.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any, Final
from unittest.mock import patch

import msgspec
from tests.faults.kills import STORES, JsonlStore, SqliteStore, StackStore, Step, Store, TierStore, Value
from tests.faults.trials import Effort, Outcome, Trial

from tierkit import Row, files
from tierkit.stack import Stack
from tierkit.testing.suite import processes
from tierkit.testing.suite.processes import forked, run_together, send
from tierkit.testing.suite.stirring import Stir
from tierkit_jsonl import FileCacheTier
from tierkit_jsonl.locks import ShardLock
from tierkit_jsonl.shard import Shard
from tierkit_sqlite.connections import Connections
from tierkit_sqlite.handles import Handle

WRITERS: Final = 2
OWN_KEYS: Final = 3
FORKS: Final[Mapping[Effort, int]] = {"short": 5, "long": 200}
INTERRUPTS: Final[Mapping[Effort, int]] = {"short": 15, "long": 2000}
LATEST_SECONDS: Final = 0.002
"""An interrupt comes that long after the first call, at most."""
AGAIN_SECONDS: Final = 0.2
IMPATIENCE_SECONDS: Final = 0.6
"""How long a hunt waits for who will never answer."""
PARENTS_KEYS: Final = tuple(f"thread {writer}, {number}" for writer in range(WRITERS) for number in range(OWN_KEYS))
GAP_SECONDS: Final = 0.001
"""Between two writes of a thread: locks are not handed on in turn, and children want them, too."""
NOWHERE: Final = "nowhere"
"""A key that no level has: to read it takes longest."""
SLOW_APPEND_SECONDS: Final = 0.01
SLOW_SECONDS: Final = 0.1
Allowed = defaultdict[str, set[Value]]
"""What may be found of each key: what was acknowledged last, or written by a call that was cut off since."""


def keys_of(writer: str) -> list[str]:
    return [f"{writer}, {number}" for number in range(OWN_KEYS)]


def write(store: Store, step: Step, allowed: Allowed) -> None:
    """Take a step, noting what may be found then."""
    for key in step.keys:
        allowed[key].add(step.value)
    store.do(step)
    for key in step.keys:
        allowed[key] = {step.value}


def read(store: Store, key: str) -> object:
    """Look at one record, as a reader does."""
    return store.tier.get(key) if isinstance(store, TierStore) else store.cache.get(key)  # type: ignore[attr-defined]  # a stack


def compare(outcome: Outcome, store: type[Store], root: Path, allowed: Allowed) -> None:
    """What another opening finds must be allowed."""
    with store(root) as opened:
        found = opened.found()[1]
    outcome.count("keys compared", len(allowed))
    for key, values in allowed.items():
        outcome.check(found.get(key) in values, f"{key} is {found.get(key)} and not {values}")


# -- children --------------------------------------------------------------------------------------------------------


@contextmanager
def writing(store: Store, allowed: Allowed) -> Iterator[None]:
    """Threads write to `store` meanwhile."""
    done, stir = threading.Event(), Stir()
    errors: list[BaseException] = []

    def run(writer: int) -> None:
        try:
            with stir:
                for number in iter(range(1, 1_000_000)):
                    if done.wait(GAP_SECONDS):
                        break
                    key = f"thread {writer}, {number % OWN_KEYS}"
                    write(store, Step(number, "delete" if number % 7 == 0 else "put", (key,)), allowed)
                    read(store, PARENTS_KEYS[number % len(PARENTS_KEYS)])
                    read(store, NOWHERE)
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(writer,), daemon=True) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join(processes.PATIENCE_SECONDS)
    assert not any(thread.is_alive() for thread in threads), "a thread of the parent hangs"
    if errors:
        raise errors[0]


def as_child(store: Store, name: str) -> None:
    """What a child does with what it has inherited, or opened: it writes and reads, in another thread too."""

    def work(thread: str) -> None:
        for number, key in enumerate(keys_of(f"{name} {thread}"), 1):
            store.do(Step(number, "put", (key,)))
            assert read(store, key) is not None, f"{key} is not there"
            store.do(Step(number, "compact", ()))

    for key in (*PARENTS_KEYS, NOWHERE):
        read(store, key)
    work("first")
    run_together([lambda: work("second")])


def by_child(name: str) -> dict[str, set[Value]]:
    """What must be there after `as_child`."""
    keys = [keys_of(f"{name} {thread}") for thread in ("first", "second")]
    return {key: {number} for some in keys for number, key in enumerate(some, 1)}


def forks(store: type[Store], folder: Path, effort: Effort) -> Outcome:
    """The trial of forks in the midst of writes."""
    outcome, allowed = Outcome(), Allowed(set)

    def child(number: int, opened: Store, pipe: Connection) -> None:
        as_child(opened, f"child {number}")
        if number % 2 == 0:
            opened.__exit__(None, None, None)
        send(pipe, number)

    with store(folder) as opened:
        with writing(opened, allowed):
            for number in range(FORKS[effort]):
                with forked(partial(child, number, opened)) as forked_child:
                    outcome.check(forked_child.receive() == number, "a child ended early")
                outcome.count("children of a fork")
                allowed.update(by_child(f"child {number}"))
        outcome.check(opened.found()[1], "the parent finds nothing any more")
    compare(outcome, store, folder, allowed)
    return outcome


# -- interrupts ------------------------------------------------------------------------------------------------------


def interrupts(store: type[Store], folder: Path, effort: Effort) -> Outcome:
    """The trial of interrupts at random moments, in a process of its own, whose signals these are."""
    with forked(partial(_interrupts, store, folder, INTERRUPTS[effort])) as child:
        while child.receive():
            pass
    return msgspec.json.decode((folder / "outcome").read_bytes(), type=Outcome)


def _interrupts(store: type[Store], folder: Path, times: int, pipe: Connection) -> None:
    sys.settrace(None)  # what measures coverage has a lock of its own, which an interrupt would leave held
    threading.settrace(None)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    outcome, allowed, chance, numbers = Outcome(), Allowed(set), Random(1), count(1)
    root = folder / "store"
    root.mkdir(mode=0o700)
    with store(root) as opened, store(root) as other:
        for number in range(1, times + 1):
            interrupted(opened, numbers, allowed, chance)
            run_together([partial(go_on, opened, number, "thread", allowed)])
            go_on(other, number, "opening", allowed)
            outcome.count("interrupts")
            send(pipe, number)
    compare(outcome, store, root, allowed)
    (folder / "outcome").write_bytes(msgspec.json.encode(outcome))
    send(pipe, 0)


def interrupted(store: Store, numbers: Iterator[int], allowed: Allowed, chance: Random) -> None:
    """Call the store until an interrupt comes."""
    keys = keys_of("interrupted")
    what = chance.choice(("put", "put_many", "delete"))
    try:
        # Once more after a while, for Python lets none out of a finalizer.
        signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, LATEST_SECONDS), AGAIN_SECONDS)
        while True:
            for key in keys:
                read(store, key)
                write(store, Step(next(numbers), what, tuple(keys) if what == "put_many" else (key,)), allowed)
    except KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)


def go_on(store: Store, number: int, who: str, allowed: Allowed) -> None:
    """Others read what was in use when the interrupt came, and write."""
    for key in keys_of("interrupted"):
        read(store, key)
    write(store, Step(number, "put_many", tuple(keys_of(who))), allowed)


# -- what could be wrong ---------------------------------------------------------------------------------------------


@contextmanager
def impatient(*faults: AbstractContextManager[object]) -> Iterator[None]:
    """Plant faults that leave someone waiting for ever, and wait less long for him."""
    with ExitStack() as stack:
        for fault in (*faults, patch.object(processes, "PATIENCE_SECONDS", IMPATIENCE_SECONDS)):
            stack.enter_context(fault)
        yield


def starts_once(connections: Connections) -> None:
    """`Connections.start` that makes locks when a tier is opened, and not in a child."""
    if not hasattr(connections, "lock"):
        true_start(connections)


true_start = Connections.start


def keeps_descriptor(lock: ShardLock) -> None:
    """`ShardLock.after_fork` that goes on with the descriptor, and so with the lock, of the parent."""
    lock.mutex, lock._owner, lock._has_file = threading.RLock(), 0, False


def runs_unprotected(lock: ShardLock, work: Callable[[], Any]) -> Any:
    """`ShardLock.run` that gives the locks back when work ends or fails, and not when it is interrupted."""
    if not lock.mutex.acquire(timeout=lock._timeout):
        raise TimeoutError
    try:
        answer = work()
    except Exception:
        lock.release_file()
        lock.mutex.release()
        raise
    lock.release_file()
    lock.mutex.release()
    return answer


def leads_unprotected(stack: Stack[Any], key: str, flight: Any) -> Any:
    """`Stack._lead` that tells those who wait when it has landed, and not when it is interrupted."""
    flight.result = stack._search(key, flight.started)
    flight.landed = True
    stack.filling.detach(key, flight)
    flight.release()
    return flight.result


@contextmanager
def inherited_lock_file() -> Iterator[None]:
    """A child has the lock whenever its parent has it; and appending takes so long that they meet."""
    true = files.append

    def append(fd: int, data: bytes) -> None:
        time.sleep(SLOW_APPEND_SECONDS)
        true(fd, data)

    with patch.object(ShardLock, "after_fork", keeps_descriptor), patch.object(files, "append", append):
        yield


@contextmanager
def slow_reads() -> Iterator[None]:
    """Threads are seldom found without a read under way."""
    true = FileCacheTier.get

    def get(tier: FileCacheTier, key: str) -> Row | None:
        if threading.current_thread() is not threading.main_thread():
            time.sleep(SLOW_SECONDS)
        return true(tier, key)

    with patch.object(FileCacheTier, "get", get):
        yield


def nothing(_: object) -> None: ...


Faults = Mapping[str, Callable[[], AbstractContextManager[object]]]
FORK_FAULTS: Final[Mapping[type[Store], Faults]] = {
    JsonlStore: {
        "locks are not renewed in the child": lambda: impatient(patch.object(Shard, "after_fork", nothing)),
        "the child keeps the lock file of its parent": inherited_lock_file,
    },
    SqliteStore: {
        "locks are not renewed in the child": lambda: impatient(patch.object(Connections, "start", starts_once)),
    },
    StackStore: {
        "locks are not renewed in the child": lambda: impatient(
            patch.object(Stack, "leave_parent", nothing), slow_reads()
        ),
    },
}
INTERRUPT_FAULTS: Final[Mapping[type[Store], Faults]] = {
    JsonlStore: {"a lock stays held": lambda: impatient(patch.object(ShardLock, "run", runs_unprotected))},
    SqliteStore: {"a transaction stays open": lambda: impatient(patch.object(Handle, "roll_back", nothing))},
    StackStore: {"a flight never lands": lambda: impatient(patch.object(Stack, "_lead", leads_unprotected))},
}


def obstacle() -> str:
    """Why there are no forks here."""
    return "" if hasattr(os, "fork") else "needs fork"


TRIALS: Final = (
    *(
        Trial(12, f"forks in the midst of writes to {store.name}", partial(forks, store), FORK_FAULTS[store], obstacle)
        for store in STORES
    ),
    *(
        Trial(12, f"interrupts of {store.name}", partial(interrupts, store), INTERRUPT_FAULTS[store], obstacle)
        for store in STORES
    ),
)
