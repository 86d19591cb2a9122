"""Power cuts: every state that POSIX allows at any moment of some work is built, and opened again.

`tierkit.testing.crash_states` says what is allowed. In durability `full` each acknowledged write must be there. In
`process` the store must be sound and hold, for each key, something that it held at some time. In both the next write
succeeds.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Final
from unittest.mock import patch

from tests.faults import workload
from tests.faults.planted_files import But, calling, nothing
from tests.faults.sqlite_calls import Logging, no_hooks, watched
from tests.faults.trials import Effort, Outcome, Trial
from tests.faults.workload import STEPS, Allowed, Durability, Store, at_once, in_memory, wrong

from tierkit import files
from tierkit.testing import CrashState, FileLog, crash_states, recorded_files
from tierkit_jsonl import batch, compaction, layout, shard
from tierkit_jsonl.batch import Batch
from tierkit_jsonl.log import Log
from tierkit_sqlite import opening

Begun = tuple[bool, int]
"""What is noted: whether a step is acknowledged, and its place."""


def record(store: type[Store], root: Path, durability: Durability) -> FileLog:
    """The log of opening a store, taking every step, and closing it."""
    with recorded_files(root) as log, watched(Logging(log)), store(root, durability) as opened:
        for place, step in enumerate(STEPS):
            log.note((False, place))
            opened.do(step)
            log.note((True, place))
    return log


def allowed_after(notes: tuple[Begun, ...], durability: Durability) -> Allowed:
    """What may be held after a power cut."""
    allowed = Allowed()
    for acknowledged, place in notes:
        if not acknowledged:
            allowed.begun(STEPS[place])
        elif durability == "full":
            allowed.acknowledged(STEPS[place])
    return allowed


def reopen(store: type[Store], state: CrashState, folder: Path, durability: Durability) -> str:
    """Build a state, open it, and throw it away. What is wrong, if anything."""
    state.restore(folder)
    try:
        return wrong(store, folder, allowed_after(state.notes, durability))
    finally:
        shutil.rmtree(folder)


def run(store: type[Store], folder: Path, effort: Effort) -> Outcome:
    """Cut the power at every moment of the work, in both modes."""
    outcome = Outcome()
    durabilities: tuple[Durability, ...] = ("full", "process")
    for durability in durabilities:
        with in_memory(folder) as live:
            log = record(store, live, durability)
        outcome.count("operations", len(log.operations))
        samples, every = SAMPLES[effort, store.name]
        with in_memory(folder) as quick, at_once():
            for state in crash_states(log, samples=samples, every=every):
                outcome.count(f"states in {durability}")
                if found := reopen(store, state, quick / "state", durability):
                    outcome.violations.append(f"{durability}, after {state.point} operations: {found}")
    return outcome


SAMPLES: Final[Mapping[tuple[Effort, str], tuple[int, int]]] = {
    ("short", "jsonl"): (1, 2),
    ("short", "sqlite"): (1, 20),
    ("short", "memory, jsonl, sqlite"): (1, 70),
    ("long", "jsonl"): (60, 1),
    ("long", "sqlite"): (8, 1),
    ("long", "memory, jsonl, sqlite"): (6, 1),
}
"""By effort and store: states drawn at random for each moment, and of how many moments one is looked at."""


# -- planted faults ----------------------------------------------------------------------------------------------------

Fault = Callable[[], AbstractContextManager[object]]


def unflushed_directories() -> AbstractContextManager[object]:
    """Directories are made, and their names not flushed."""

    def make_directories(path: str) -> None:
        if not os.path.isdir(path):
            make_directories(os.path.dirname(path))
            files.mkdir(path)

    return patch.object(files, "make_directories", make_directories)


def renamed_first() -> AbstractContextManager[object]:
    """What a rewrite made is flushed after it got its name."""

    class Unflushed(Batch):
        def commit(self, *, sync: bool) -> None:
            super().commit(sync=False)

    def replace(source: str, target: str) -> None:
        files.replace(source, target)
        fd = os.open(target, os.O_RDWR)
        files.fsync(fd)
        os.close(fd)

    patches = ExitStack()
    patches.enter_context(patch.object(compaction, "Batch", Unflushed))
    patches.enter_context(calling(But(replace=replace), compaction))
    return patches


def rewritten_in_place() -> AbstractContextManager[object]:
    """A rewrite empties the file and writes it anew."""

    def rewrite(log: Log, path: str, header: bytes, _now: float, horizon: float) -> Log:
        alive = [files.pread(log.fd, place.length + 1, place.offset) for place in log.index.values()]
        files.truncate(log.fd, 0)
        files.append(log.fd, b"".join([header, *alive]))
        files.fsync(log.fd)
        fresh = Log(os.open(path, os.O_RDWR | os.O_APPEND), writable=True)
        fresh.catch_up(horizon)
        return fresh

    return patch.object(shard, "rewrite", rewrite)


FAULTS: Final[Mapping[str, Mapping[str, Fault]]] = {
    "jsonl": {
        "no flush before the acknowledgement": lambda: calling(But(fsync=nothing), batch),
        "the name of a rewrite is not flushed": lambda: calling(But(fsync_dir=nothing), shard),
        "the names of new shards are not flushed": lambda: calling(But(fsync_dir=nothing), layout),
        "the names of new directories are not flushed": unflushed_directories,
        "a rewrite gets its name before it is flushed": renamed_first,
        "a rewrite in place": rewritten_in_place,
        "a line glued to a torn tail": lambda: calling(But(truncate=nothing), shard),
    },
    "sqlite": {
        "synchronous = OFF in full": lambda: patch.dict(opening._SYNCHRONOUS, full="OFF"),
        "synchronous = NORMAL in full": lambda: patch.dict(opening._SYNCHRONOUS, full="NORMAL"),
        "the names of new directories are not flushed": unflushed_directories,
    },
    "memory, jsonl, sqlite": {
        "synchronous = OFF in full": lambda: patch.dict(opening._SYNCHRONOUS, full="OFF"),
        "the names of new directories are not flushed": unflushed_directories,
    },
}


def trial(store: type[Store]) -> Trial:
    """The trial of a store."""
    return Trial(3, f"power cut, {store.name}", partial(run, store), FAULTS[store.name], no_hooks)


TRIALS: Final = tuple(map(trial, workload.STORES))
