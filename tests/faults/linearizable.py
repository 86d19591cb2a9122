"""Several processes and threads on one tier: for each key as if one call came after the other, and no update lost.

Every call is written down with its begin and its end, by a clock that all processes share. Some keys are counters,
which are only ever incremented by compare and set: afterwards each holds how often that succeeded.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import msgspec
from tests.faults.registers import WRONG, Call, violations
from tests.faults.trials import Effort, Outcome, Trial

from tierkit import CacheTier, Row, TierContext, files
from tierkit.testing import make_row
from tierkit.testing.clock import NOW
from tierkit.testing.suite.processes import forked, receive, run_together, send
from tierkit_jsonl import FileCacheTier
from tierkit_jsonl.shard import Shard
from tierkit_sqlite import SQLiteCacheTier, work

KEYS: Final = ("a", "b")
COUNTERS: Final = ("counter",)
WRITES: Final = {"put": 25, "put_many": 5, "delete": 10, "get": 10, "replace": 25, "increment": 25}
BURST: Final = 4
"""Calls in a row: of three bursts a process only reads in one, and each in another, so that it learns by that alone."""
TAGS: Final = 64
"""More than there are threads: a version tells who wrote it."""
PAUSE_SECONDS: Final = 0.03
"""How long a planted race stays open, so that it is lost in the short form too."""
Tier = CacheTier[Row]


class Plan(NamedTuple):
    """How much is done at once.

    Attributes:
        processes: How many.
        threads: In each.
        calls: By each thread.
        stirred: Whether threads give their turns away between any two lines: see `Stir`.
    """

    processes: int
    threads: int
    calls: int
    stirred: bool


ROUNDS: Final[dict[Effort, tuple[Plan, ...]]] = {
    "short": (Plan(2, 2, 24, stirred=True),),
    "long": (*[Plan(4, 4, 250, stirred=False)] * 4, *[Plan(4, 4, 62, stirred=True)] * 4),
}


class Caller:
    """One thread, and what it was answered.

    Its versions are above all that it knows of: another may know more, so that some are refused.
    """

    def __init__(self, tier: Tier, process: int, tag: int, calls: int) -> None:
        self.tier, self.process, self.tag = tier, process, tag
        self.told: list[Call] = []
        self.won: Counter[str] = Counter()
        self._chance = Random(tag)
        self._calls = calls
        self._seen: defaultdict[str, int] = defaultdict(int)
        self._held: defaultdict[str, int] = defaultdict(int)

    def run(self) -> None:
        for number in range(self._calls):
            reads = (number // BURST + self.process) % 3 == 0
            (what,) = ("get",) if reads else self._chance.choices(tuple(WRITES), tuple(WRITES.values()))
            getattr(self, what)(self._chance.choice(COUNTERS if what == "increment" else KEYS))

    def get(self, key: str) -> Row | None:
        begin = time.monotonic_ns()
        row = self.tier.get(key)
        self._tell(Call(key, "get", 0, 0, _version(row), begin, time.monotonic_ns()))
        self._held[key] = row.version if row else 0
        return row

    def put(self, key: str) -> None:
        row = self._row(key)
        begin = time.monotonic_ns()
        self._put(row, self.tier.put(row), begin)

    def put_many(self, _: str) -> None:
        rows = [self._row(key) for key in KEYS]
        begin = time.monotonic_ns()
        for row, refused in zip(rows, self.tier.put_many(rows), strict=True):
            self._put(row, refused, begin)

    def delete(self, key: str) -> None:
        version = self._seen[key]
        begin = time.monotonic_ns()
        refused = self.tier.delete(key, version)
        self._tell(Call(key, "delete", version, 0, refused or 0, begin, time.monotonic_ns()))
        self._held[key] = 0

    def replace(self, key: str, number: int | None = None) -> bool:
        row, expected = self._row(key, number), self._held[key]
        begin = time.monotonic_ns()
        replaced = self.tier.replace(row, expected)
        self._tell(Call(key, "replace", row.version, expected, int(replaced), begin, time.monotonic_ns()))
        self._held[key] = row.version if replaced else expected
        return replaced

    def increment(self, key: str) -> None:
        row = self.get(key)
        self.won[key] += self.replace(key, 1 + _number(row))

    def _row(self, key: str, number: int | None = None) -> Row:
        version = (self._seen[key] // TAGS + 1) * TAGS + self.tag
        return make_row(key, version, number=version if number is None else number)

    def _put(self, row: Row, refused: int | None, begin: int) -> None:
        self._tell(Call(row.key, "put", row.version, 0, refused or 0, begin, time.monotonic_ns()))
        if refused is None:
            self._held[row.key] = row.version

    def _tell(self, call: Call) -> None:
        self.told.append(call)
        answered = 0 if call.kind == "replace" else call.answer
        self._seen[call.key] = max(self._seen[call.key], call.version, answered)


def _number(row: Row | None) -> int:
    number = row.columns["number"] if row else 0
    assert isinstance(number, int)
    return number


def _version(row: Row | None) -> int:
    if row is None:
        return 0
    return row.version if row == make_row(row.key, row.version, number=row.columns["number"]) else WRONG


class Told(msgspec.Struct):
    """What one process tells at its end."""

    calls: list[Call]
    won: dict[str, int]


def at_once(open_tier: Callable[[Path], Tier], root: Path, plan: Plan) -> list[Told]:
    """Let several processes and threads call a tier in `root`; what each process was answered."""

    def process(number: int, pipe: Connection) -> None:
        with open_tier(root) as tier:
            tags = range(number * plan.threads, (number + 1) * plan.threads)
            callers = [Caller(tier, number, tag, plan.calls) for tag in tags]
            send(pipe, 1)
            receive(pipe)
            run_together([caller.run for caller in callers], stirred=plan.stirred)
        told = Told([call for caller in callers for call in caller.told], sum((c.won for c in callers), Counter()))
        (root / f"told {number}").write_bytes(msgspec.json.encode(told))
        send(pipe, 1)

    with ExitStack() as stack:
        children = [stack.enter_context(forked(partial(process, number))) for number in range(plan.processes)]
        for child in children:
            child.receive()
        for child in children:
            child.send(1)
        for child in children:
            child.receive()
    return [msgspec.json.decode((root / f"told {number}").read_bytes(), type=Told) for number in range(plan.processes)]


def run(open_tier: Callable[[Path], Tier], folder: Path, effort: Effort) -> Outcome:
    """The trial of one kind of tier."""
    outcome = Outcome()
    for number, plan in enumerate(ROUNDS[effort]):
        root = folder / str(number)
        root.mkdir(mode=0o700)
        open_tier(root).close()
        told = at_once(open_tier, root, plan)
        calls = [call for process in told for call in process.calls]
        outcome.count("calls", len(calls))
        outcome.count("of them refused", sum(_is_refused(call) for call in calls))
        outcome.violations += violations(calls)
        with open_tier(root) as tier:
            count_up(outcome, tier, sum((Counter(process.won) for process in told), Counter()))
    return outcome


def _is_refused(call: Call) -> bool:
    return call.kind != "get" and bool(call.answer) != (call.kind == "replace")


def count_up(outcome: Outcome, tier: Tier, won: Counter[str]) -> None:
    """Compare each counter with how often it was incremented."""
    for key in COUNTERS:
        held = _number(tier.get(key))
        outcome.count("increments", won[key])
        outcome.check(held == won[key], f"{key} is {held} after {won[key]} increments")


# -- the tiers, and what could be wrong with them ----------------------------------------------------------------------


def open_jsonl(root: Path) -> Tier:
    return FileCacheTier(TierContext(now=lambda: NOW), root / "store", shards=1, lock_timeout_seconds=60.0)


def open_sqlite(root: Path) -> Tier:
    return SQLiteCacheTier(TierContext(now=lambda: NOW), root / "store.db", busy_timeout_seconds=60.0)


@contextmanager
def unlocked() -> Iterator[None]:
    """A writer of JSON Lines keeps out the threads of its process, and no others."""
    true = files.append

    def append(fd: int, data: bytes) -> None:
        time.sleep(PAUSE_SECONDS)
        true(fd, data)

    with patch.object(Shard, "_lock_file", lambda _: None), patch.object(files, "append", append):
        yield


def compares_first(tier: Tier, record: Row, expected_version: int) -> bool:
    """`replace` that compares before it takes a lock or begins a transaction."""
    held = tier.get(record.key)
    time.sleep(PAUSE_SECONDS)
    return (held.version if held else 0) == expected_version and tier.put(record) is None


def put_anyway(cursor: Any, table: Any, record: Row) -> None:
    """Whatever is held or marked."""
    cursor.execute(table.put_always, table.values(record))


def stale_index() -> AbstractContextManager[object]:
    """A reader of JSON Lines never looks again where the records lie."""
    known: dict[Shard, dict[str, Any]] = {}

    def get(shard: Shard, key: str) -> Row | None:
        log = shard.current()
        if log is None:
            return None
        place = known.setdefault(shard, dict(log.index)).get(key)
        return None if place is None else log.read(place)

    return patch.object(Shard, "get", get)


def stale_snapshot() -> AbstractContextManager[object]:
    """A reader of SQLite answers every second time what it read before."""
    true, known = SQLiteCacheTier.get, dict[str, Row | None]()

    def get(tier: SQLiteCacheTier, key: str) -> Row | None:
        if key in known:
            return known.pop(key)
        known[key] = true(tier, key)
        return known[key]

    return patch.object(SQLiteCacheTier, "get", get)


JSONL: Final = Trial(
    11,
    "processes and threads at once on JSON Lines",
    partial(run, open_jsonl),
    {
        "writers take no lock between processes": unlocked,
        "replace compares before it takes the locks": lambda: patch.object(FileCacheTier, "replace", compares_first),
        "a read goes by a stale index": stale_index,
    },
)
SQLITE: Final = Trial(
    11,
    "processes and threads at once on SQLite",
    partial(run, open_sqlite),
    {
        "replace compares outside its transaction": lambda: patch.object(SQLiteCacheTier, "replace", compares_first),
        "an older record replaces a newer one": lambda: patch.object(work, "weigh", put_anyway),
        "a read goes by a stale snapshot": stale_snapshot,
    },
)
TRIALS: Final = (JSONL, SQLITE)
