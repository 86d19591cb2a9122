"""Kill -9 of a process that spreads a store over another number of shards, while another one writes to it.

The process that spreads stops at one of its calls that change something until the writer has had its say, and kills
itself at that one or at one of the next. Every other time that call is the one that makes the new files the store. The
writer has had the store open all along.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from tests.faults.kills import KEYS, JsonlStore
from tests.faults.trials import Effort, Outcome, Trial

from tierkit import Row, TierContext, TierTimeout, files
from tierkit.testing.suite.processes import Child, forked, receive, send
from tierkit_jsonl import FileCacheTier, resharding
from tierkit_jsonl.home import Home
from tierkit_jsonl.layout import read_meta, replace_meta
from tierkit_jsonl.log import Log

CHANGES: Final = ("append", "create", "fsync", "fsync_dir", "lock", "replace", "unlink", "unlock")
SHORT, LONG = 8, 100
SECONDS: Final = 0.005
"""How long the writer waits for a lock."""
STOPPED, NEVER = 0, 0
SWAP: Final = -1
AFTER_SWAP: Final = 4
"""Changes that are always made from the swap on."""


@dataclass
class Writer:
    """A process that writes to the store, and knows what must be in it.

    Attributes:
        tier: The store as it has it open.
        outcome: What it finds.
        expected: The last acknowledged version of each key; negative, where it was deleted.
    """

    tier: FileCacheTier
    outcome: Outcome
    expected: dict[str, int] = field(default_factory=dict)
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    version: int = 0

    def write(self, keys: Iterable[str]) -> None:
        """Put or delete each key, if the lock can be had."""
        for key in keys:
            self.version += 1
            is_put = self.chance.random() < 0.6
            try:
                answer = self._put(key) if is_put else self.tier.delete(key, self.version)
            except TierTimeout:
                self.outcome.count("kept waiting")
            else:
                self.outcome.count("acknowledged")
                self.outcome.check(answer is None, f"{key} was refused for version {answer}")
                self.expected[key] = self.version if is_put else -self.version

    def write_some(self) -> None:
        """Write to a few keys of different shards."""
        self.write(self.chance.sample(KEYS, 6))

    def look(self, tier: FileCacheTier) -> None:
        """Find in `tier` what must be there, and no more."""
        scanned = {row.key: row for row in tier.scan()}
        for key in KEYS:
            version = self.expected[key]
            wanted = JsonlStore.row(key, version) if version > 0 else None
            for found in (tier.get(key), scanned.pop(key, None)):
                self.outcome.check(found == wanted, f"{key} is {_version(found)}, not {_version(wanted)}")
            if version < 0:
                refused = tier.put(JsonlStore.row(key, -version))
                self.outcome.check(refused is not None, f"the deletion of {key} is forgotten")
        self.outcome.check(not scanned, f"{len(scanned)} keys that nobody wrote")

    def _put(self, key: str) -> int | None:
        return self.tier.put(JsonlStore.row(key, self.version))


def _version(row: Row | None) -> int:
    return row.version if row is not None else 0


@contextmanager
def interrupted(pipe: Connection, stop: int, more: int) -> Iterator[list[str]]:
    """Stop before change number `stop`, or before the swap, until a word comes over `pipe`; die after `more` others."""
    changes: list[str] = []
    stopped_at: list[int] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            changes.append(name)
            if not stopped_at and (len(changes) == stop or (stop == SWAP and name == "replace")):
                stopped_at.append(len(changes))
                send(pipe, STOPPED)
                receive(pipe)
            if stopped_at and len(changes) == stopped_at[0] + more:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args)

        return call

    with ExitStack() as patches:
        for name in CHANGES:
            patches.enter_context(patch.object(files, name, counted(name, getattr(files, name))))
        yield changes


def spread(root: Path, shards: int, stop: int, more: int) -> Callable[[Connection], None]:
    """What the process does that is killed; if it lives it tells how many changes it made."""

    def work(pipe: Connection) -> None:
        with interrupted(pipe, stop, more) as changes, open_store(root, shards):
            send(pipe, len(changes))

    return work


def open_store(root: Path, shards: int | None = None, lock_timeout_seconds: float = 5.0) -> FileCacheTier:
    """The store."""
    return FileCacheTier(TierContext(), root, shards=shards, lock_timeout_seconds=lock_timeout_seconds)


def beside(writer: Writer, child: Child, stop: int) -> int:
    """Write while `child` is at work; how many changes it made, or 0 if it died."""
    with suppress(EOFError, ConnectionError):
        if stop:
            child.receive()
            writer.write_some()
            child.send(STOPPED)
        writer.write_some()
        return child.receive()
    return 0


def rounds(count: int, changes: int) -> Iterator[tuple[int, int]]:
    """Where the process stops that would make so many changes, and after how many more it dies."""
    for number in range(count):
        stop = 1 + number * (changes - 2 * AFTER_SWAP) // count
        yield SWAP if number % 2 else stop, number // 2 % AFTER_SWAP


def run(root: Path, effort: Effort) -> Outcome:
    """Kill one process after the other."""
    outcome = Outcome({"kills": 0})
    open_store(root, 2).close()
    with open_store(root, lock_timeout_seconds=SECONDS) as tier:
        writer = Writer(tier, outcome)
        writer.write(KEYS)
        changes = min(undisturbed(root, shards, writer) for shards in (3, 2))
        for stop, more in rounds(LONG if effort == "long" else SHORT, changes):
            before = shards_of(root)
            with forked(spread(root, 5 - before, stop, more)) as child:
                outcome.count("kills", not beside(writer, child, stop))
            outcome.count("found spread anew", shards_of(root) != before)
            writer.write_some()
            with open_store(root) as opened:
                writer.look(opened)
            writer.look(tier)
    return outcome


def undisturbed(root: Path, shards: int, writer: Writer) -> int:
    """Spread the store and let the process live; how many changes it makes."""
    with forked(spread(root, shards, NEVER, NEVER)) as child:
        return beside(writer, child, NEVER)


def shards_of(root: Path) -> int:
    """How many shards the store has: two or three."""
    held = read_meta(str(root / "entries"))
    assert held is not None
    return held.shards


def swapped_first() -> AbstractContextManager[object]:
    """The new files are the store before they are written."""
    true = resharding._copy

    def copy(directory: str, old: Any, new: Any, context: TierContext) -> int:
        replace_meta(directory, new)
        return true(directory, old, new, context)

    return patch.object(resharding, "_copy", copy)


def without_marks() -> AbstractContextManager[object]:
    """Deletions are not carried over."""
    true = resharding._Copy.take

    def take(self: resharding._Copy, log: Log) -> None:
        log.marks.clear()
        true(self, log)

    return patch.object(resharding._Copy, "take", take)


TRIALS: Final = (
    Trial(
        1,
        "kill -9 while a JSON Lines store is spread over other shards",
        run,
        {
            "the new files are the store before they are written": swapped_first,
            "marks are not copied": without_marks,
            "who writes meanwhile is not kept out": lambda: patch.object(
                resharding, "_locked", lambda *_: nullcontext()
            ),
            "who has the old files open goes on writing them": lambda: patch.object(Home, "check", lambda _: None),
        },
    ),
)
