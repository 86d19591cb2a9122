"""The N-th call to the system fails, once and from then on, for every N of some work.

Counted are the calls of `tierkit.files` and those of SQLite together. Whatever fails, and wherever: somebody is told,
what was acknowledged is there, no wrong value is read, and when the fault is gone the next write succeeds.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from tests.faults import workload
from tests.faults.planted_files import But, calling, nothing
from tests.faults.sqlite_calls import Failing, no_hooks, watched
from tests.faults.trials import Effort, Outcome, Trial
from tests.faults.workload import NEXT, STEPS, Allowed, Durability, Store, at_once, in_memory, wrong

from tierkit import CacheTier, TierkitError, files
from tierkit.level import Level
from tierkit.testing import FileFaults, nth_fails
from tierkit_jsonl import FileCacheTier, batch, compaction, shard
from tierkit_jsonl.log import Log
from tierkit_sqlite import SQLiteCacheTier, connections
from tierkit_sqlite.library import sqlite3
from tierkit_sqlite.statements import Table

SILENT: Final = frozenset({"unlock", "close", "sqlite lock"})
"""What may fail and nobody is told: a lock goes with its descriptor, a descriptor goes in any case, and whoever closes
a database tries to have it alone, to tidy up."""

TRIED_AGAIN: Final = "sqlite write"
"""What may find no room once and nobody is told: it is done again when the log has been brought into the database."""


class Case(NamedTuple):
    """What fails."""

    durability: Durability
    number: int
    code: int
    lasting: bool

    def __str__(self) -> str:
        how = "from then on" if self.lasting else "once"
        return f"{self.durability}, call {self.number}, {errno.errorcode[self.code]}, {how}"


def cases(counts: Mapping[Durability, int], every: int) -> Iterator[Case]:
    """Each so-manieth case."""
    everything = [
        Case(durability, number, code, lasting)
        for durability, count in counts.items()
        for number in range(1, count + 1)
        for code in (errno.ENOSPC, errno.EIO)
        for lasting in (False, True)
    ]
    yield from everything[::every]


class Attempt:
    """The work done while a call fails.

    Attributes:
        allowed: What may be held afterwards.
        raised: How many steps raised; opening is one.
        silently: Whether a call failed before closing, and nobody was told.
        complaints: What must not be.
    """

    def __init__(self, store: type[Store], root: Path, durability: Durability, faults: FileFaults) -> None:
        """Do it."""
        self.allowed = Allowed()
        self.raised = 0
        self.silently = False
        self.complaints: list[str] = []
        self._faults = faults
        with faults, watched(Failing(faults)):
            try:
                opened = store(root, durability)
            except TierkitError:
                self.raised += 1
            else:
                with opened:
                    self._work(opened)

    def _work(self, opened: Store) -> None:
        for step in STEPS:
            self._take(opened, step)
        if self._faults.failed:
            self.silently = not (self.raised or opened.told())
            self._read(opened)
            self._faults.on = False
            self._go_on(opened)

    def _take(self, opened: Store, step: workload.Step) -> None:
        sure = self.allowed.is_sure(step)
        self.allowed.begun(step)
        try:
            done = opened.do(step)
        except TierkitError:
            self.raised += 1
            return
        if done:
            self.allowed.acknowledged(step)
        elif sure:
            self.complaints.append(f"{step.what} of {step.keys} was refused")

    def _read(self, opened: Store) -> None:
        """While it still fails, what is read is right."""
        try:
            found = opened.found()
        except TierkitError:
            return
        self._complain(self.allowed.wrong(found))

    def _go_on(self, opened: Store) -> None:
        """The fault is gone: by and by all is as it was."""
        opened.recover()
        try:
            opened.do(NEXT)
        except TierkitError as error:
            self.complaints.append(f"the next write: {error}")
            return
        self.allowed.acknowledged(NEXT)
        self._complain(self.allowed.wrong(opened.found()))
        self._complain(opened.degraded())

    def _complain(self, what: str) -> None:
        if what:
            self.complaints.append(what)


def violations(store: type[Store], root: Path, case: Case) -> list[str]:
    """What must not be, where this case happens."""
    faults = FileFaults(nth_fails(case.number, case.code, lasting=case.lasting))
    attempt = Attempt(store, root, case.durability, faults)
    found = list(attempt.complaints)
    name = faults.names[case.number - 1] if faults.failed else "nothing"
    if attempt.silently and name not in SILENT and not (name == TRIED_AGAIN and case.code == errno.ENOSPC):
        found.append("nobody was told")
    if not case.lasting and any(root.rglob("*.tmp")):  # else it could not be removed
        found.append("a temporary is left")
    if left := wrong(store, root, attempt.allowed):
        found.append(f"reopened: {left}")
    if any(root.rglob("*.tmp")):
        found.append("a temporary is left for good")
    return [f"{case} ({name}): {what}" for what in found]


def run(store: type[Store], folder: Path, effort: Effort) -> Outcome:
    """Let each call fail, in both modes."""
    outcome = Outcome()
    with at_once(), in_memory(folder) as quick:
        counts: dict[Durability, int] = {}
        for durability in ("full", "process"):
            faults = FileFaults()
            Attempt(store, quick / f"counted {durability}", durability, faults)
            counts[durability] = len(faults.names)
        outcome.count("calls", sum(counts.values()))
        every = 1 if effort == "long" else EVERY[store.name]
        for number, case in enumerate(cases(counts, every)):
            root = quick / str(number)
            root.mkdir(mode=0o700)
            outcome.count("failures")
            outcome.violations += violations(store, root, case)
    return outcome


EVERY: Final = {"jsonl": 7, "sqlite": 61, "memory, jsonl, sqlite": 201}
"""Of how many cases the short form takes one; odd, so that all kinds of them come."""
Fault = Callable[[], AbstractContextManager[object]]


# -- planted faults ----------------------------------------------------------------------------------------------------


def never_told(tier: type[CacheTier[Any]]) -> AbstractContextManager[object]:
    """A put that failed is acknowledged."""
    true = tier.put

    def put(self: CacheTier[Any], record: Any) -> int | None:
        with suppress(TierkitError):
            return true(self, record)
        return None

    return patch.object(tier, "put", put)


def flushed_again() -> AbstractContextManager[object]:
    """A flush that failed is tried again, and believed."""

    def fsync(fd: int) -> None:
        try:
            files.fsync(fd)
        except OSError:
            files.fsync(fd)

    return calling(But(fsync=fsync), batch)


def ended() -> AbstractContextManager[object]:
    """A shard that could not take a write back is never written again."""

    def refuse(_shard: shard.Shard, _log: Log) -> Log:
        raise OSError(errno.EIO, "open it anew")

    return patch.object(shard.Shard, "_in_another_file", refuse)


def believed() -> AbstractContextManager[object]:
    """Nobody looks whether a transaction was committed."""

    def in_transaction(cursor: sqlite3.Cursor, table: Table, work: Callable[..., Any], *args: Any, **more: Any) -> Any:
        cursor.execute("BEGIN IMMEDIATE")
        answer = work(cursor, table, *args, **more)
        with suppress(sqlite3.Error):
            cursor.execute("COMMIT")
        return answer

    return patch.object(connections, "_in_transaction", in_transaction)


def never_closed() -> AbstractContextManager[object]:
    """A level that left service does not come back."""
    return patch.object(Level, "probe", lambda _: False)


FAULTS: Final[Mapping[str, Mapping[str, Fault]]] = {
    "jsonl": {
        "a write that failed is acknowledged": lambda: never_told(FileCacheTier),
        "a flush that failed is tried again": flushed_again,
        "a write that cannot be taken back ends writing": ended,
        "a temporary is left behind": lambda: calling(But(unlink=nothing), compaction),
    },
    "sqlite": {
        "a write that failed is acknowledged": lambda: never_told(SQLiteCacheTier),
        "a commit that failed is believed": believed,
    },
    "memory, jsonl, sqlite": {
        "a write that failed is acknowledged": lambda: never_told(SQLiteCacheTier),
        "a level that left service does not come back": never_closed,
    },
}


def trial(store: type[Store]) -> Trial:
    """The trial of a store."""
    return Trial(2, f"failing calls, {store.name}", partial(run, store), FAULTS[store.name], no_hooks)


TRIALS: Final = tuple(map(trial, workload.STORES))
