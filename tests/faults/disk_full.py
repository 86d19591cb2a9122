"""Disks that fill up: at every stage of some work, with as much room as is swept over, and room again afterwards.

What is full is a small tmpfs of a mount namespace of its own; or, for a single file, what the process or the database
may grow to (`RLIMIT_FSIZE`, `PRAGMA max_page_count`). Nothing acknowledged is lost, no part of a line and no temporary
is left, what is held can be read all the while, and once there is room the next write succeeds by itself.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from string import ascii_lowercase
from typing import Final
from unittest.mock import patch

from tests.faults.planted_files import But, calling, nothing
from tests.faults.rooms import Room, in_few_pages, in_small_files, mounted, no_mounting, own_namespace
from tests.faults.trials import Effort, Outcome, Trial
from tests.faults.workload import NEXT, Allowed, JsonlStore, SqliteStore, StackStore, Step, Store, at_once, wrong

from tierkit import CacheStorageError, TierFull, TierReadOnly, TierUnavailable
from tierkit.level import Level
from tierkit.testing.suite.processes import forked, send
from tierkit.writing import Writer
from tierkit_jsonl import compaction, shard
from tierkit_jsonl import failures as jsonl_failures
from tierkit_sqlite import failures as sqlite_failures
from tierkit_sqlite import opening
from tierkit_sqlite.connections import Connections

KEYS: Final = tuple(ascii_lowercase[:12])
BEFORE: Final = tuple(Step(number, "put_many", KEYS, number - 7, number) for number in (6, 13))
"""What is there when the disk fills up; half of it is dead. Records of these numbers are of about 1 kB."""
STAGES: Final = {
    "put": tuple(Step(20, "put", (key,), 13, 20) for key in KEYS),
    "put_many": (Step(20, "put_many", KEYS, 13, 20),),
    "put_many of others": (Step(20, "put_many", tuple("mnopqr"), 0, 20),),
    "compact": (Step(20, "compact", (), 0, None),),
    "delete": tuple(Step(number, "delete", (key,), 13, None) for number in (20, 27, 34) for key in KEYS),
    "open": tuple(Step(20, "put", (key,), 13, 20) for key in KEYS),
}
"""What goes on when it is full; before "open" it was closed. The next stage is one line here and one way to do it in
`workload`."""
STACK_STAGES: Final = {**STAGES, "rotate": (Step(20, "rotate", (), 0, None),)}
"""A stack has keys, too."""


def stages_of(store: type[Store]) -> Mapping[str, tuple[Step, ...]]:
    """What can go on in a store when it is full."""
    return STACK_STAGES if store is StackStore else STAGES


class Filled:
    """One stage of the work, while there is room for little."""

    def __init__(self, store: type[Store], room: Room, units: int, what: str) -> None:
        """Nothing is done yet."""
        self._store = store
        self._room = room
        self._units = units
        self._what = what
        self._allowed = Allowed()
        self.raised = False
        self.violations: list[str] = []

    def run(self) -> None:
        """Fill it up, do it, look, make room, and look again."""
        with self._opened() as opened:
            self._prepare(opened)
            if self._what != "open":
                self._fill(opened)
        if self._what == "open":
            self._open_when_full()
        self._complain(wrong(self._store, self._room.root, self._allowed))

    def _opened(self) -> Store:
        return self._store(self._room.root, "process")

    def _fill(self, opened: Store) -> None:
        self._room.leave(self._units)
        try:
            self._while_full(opened)
        finally:
            self._room.free()
        self._go_on(opened)

    def _open_when_full(self) -> None:
        self._room.leave(self._units)
        try:
            with self._opened() as opened:
                self._while_full(opened)
                self._room.free()
                self._go_on(opened)
        except CacheStorageError as error:
            self._room.free()
            self._complain(f"cannot be opened: {type(error).__name__} {error}")

    def _prepare(self, opened: Store) -> None:
        for step in BEFORE:
            opened.do(step)
            self._allowed.acknowledged(step)

    def _while_full(self, opened: Store) -> None:
        for step in stages_of(self._store)[self._what]:
            self._do(opened, step)
        self._complain(opened.out_of_service())
        self._read(opened)
        for left in self._leftovers():
            self._complain(left)

    def _do(self, opened: Store, step: Step) -> None:
        self._allowed.begun(step)
        try:
            opened.do(step)
        except (TierFull, TierReadOnly):
            self.raised = True
        except CacheStorageError as error:
            self._complain(f"{type(error).__name__}: {error}")
        else:
            self._allowed.acknowledged(step)

    def _go_on(self, opened: Store) -> None:
        """There is room again."""
        opened.recover()
        with suppress(TierReadOnly):  # a database that was opened for reading is opened anew by the call after that
            if self._what == "open":
                opened.do(NEXT)
        try:
            opened.do(NEXT)
        except CacheStorageError as error:
            self._complain(f"the next write: {error}")
        else:
            self._allowed.acknowledged(NEXT)
        self._read(opened)
        self._complain(opened.degraded())

    def _read(self, opened: Store) -> None:
        try:
            self._complain(self._allowed.wrong(opened.found()))
        except CacheStorageError as error:
            self._complain(f"cannot be read: {error}")

    def _leftovers(self) -> Iterator[str]:
        for path in self._room.root.rglob("*"):
            if path.suffix == ".tmp":
                yield f"{path.name} is left"
            if path.suffix == ".jsonl" and not path.read_bytes().endswith(b"\n"):
                yield f"a part of a line is left in {path.name}"

    def _complain(self, what: str) -> None:
        if what:
            self.violations.append(f"room for {self._units} x {self._room.unit} bytes, {self._what}: {what}")


def sweep(
    store: type[Store],
    rooms: Callable[[], AbstractContextManager[Room]],
    most: int,
    every: int,
    tell: Callable[[], None],
) -> Outcome:
    """Each stage, with room for each of so many units, or each so-manieth number of them. Then `tell` is called."""
    outcome = Outcome()
    for what in stages_of(store):
        for units in range(0, most, every):
            with rooms() as room, at_once():
                filled = Filled(store, room, units, what)
                filled.run()
            outcome.count("disks filled")
            outcome.count(f"full in {what}", int(filled.raised))
            outcome.violations += filled.violations
            tell()
    return outcome


Sweep = tuple[int, int]
"""Up to how many units of room, and each how-manieth number of them."""


def run(
    store: type[Store],
    rooms: Callable[[Path], AbstractContextManager[Room]],
    sweeps: Mapping[Effort, Sweep],
    folder: Path,
    effort: Effort,
) -> Outcome:
    """Fill it up, in a process whose limits and mounts are its own."""
    told = folder / "outcome.json"

    def work(pipe: Connection) -> None:
        if rooms is mounted:
            own_namespace()
        outcome = sweep(store, partial(rooms, folder / "room"), *sweeps[effort], lambda: send(pipe, 1))
        told.write_text(json.dumps([outcome.counts, outcome.violations]))
        send(pipe, 0)

    (folder / "room").mkdir(mode=0o700)
    with forked(work) as child:
        while child.receive():
            pass
    return Outcome(*json.loads(told.read_text()))


Faults = Mapping[str, Callable[[], AbstractContextManager[object]]]
JSONL_FAULTS: Final[Faults] = {
    "a part of a line is left": lambda: calling(But(truncate=nothing), shard),
    "a full disk is taken for an outage": lambda: patch.dict(
        jsonl_failures._KINDS, dict.fromkeys((errno.ENOSPC, errno.EFBIG), TierUnavailable)
    ),
}
SQLITE_FAULTS: Final[Faults] = {
    "a full disk is taken for an outage": lambda: patch.dict(sqlite_failures._BY_CODE, {13: TierUnavailable}),
}
FAULTS: Final[Mapping[str, Faults]] = {
    "jsonl": {
        **JSONL_FAULTS,
        "a temporary is left behind": lambda: calling(But(unlink=nothing), compaction),
    },
    "sqlite": {
        **SQLITE_FAULTS,
        "a database is not opened for reading where it cannot be written": lambda: patch.object(
            opening.Settings, "_can_only_be_read", lambda *_: False
        ),
    },
    "memory, jsonl, sqlite": {
        **SQLITE_FAULTS,
        "a level never takes writes again": lambda: patch.object(Level, "_found_room", nothing),
        "a full level that cannot drop a copy leaves with what is owed": lambda: patch.object(
            Writer, "_is_current", lambda *_: False
        ),
    },
}


def trial(store: type[Store], short: Sweep) -> Trial:
    """The trial of a store on a tmpfs."""
    work = partial(run, store, mounted, {"short": short, "long": (40, 1)})
    return Trial(4, f"disk full, {store.name}", work, FAULTS[store.name], no_mounting)


TRIALS: Final = (
    trial(JsonlStore, (4, 1)),
    trial(SqliteStore, (20, 6)),
    trial(StackStore, (20, 9)),
    Trial(
        4,
        "RLIMIT_FSIZE, jsonl",
        partial(run, JsonlStore, in_small_files, {"short": (14_000, 1_709), "long": (16_000, 61)}),
        JSONL_FAULTS,
    ),
    Trial(
        4,
        "RLIMIT_FSIZE, sqlite",
        partial(run, SqliteStore, in_small_files, {"short": (90_000, 22_003), "long": (160_000, 1_009)}),
        {
            "what cannot be written is an outage": lambda: patch.object(
                Connections, "_of_writing", lambda _, __, error: error
            )
        },
    ),
    Trial(
        4,
        "max_page_count, sqlite",
        partial(run, SqliteStore, in_few_pages, {"short": (4, 2), "long": (8, 1)}),
        SQLITE_FAULTS,
    ),
)
