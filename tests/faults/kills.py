"""Kill -9 of a writer, again and again, and what is found afterwards: on each persistent tier and on the default stack.

The writer is killed at a random moment of an endless sequence of puts, bulk puts, deletes, loads from a file and
compactions; each writer goes on in the store that the one before left behind.
"""

from __future__ import annotations

import base64
import json
import random
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter
from typing import ClassVar, Final
from unittest.mock import patch

from pydantic import SecretStr
from tests.faults.trials import Effort, Outcome, Trial

from tierkit import CacheConfig, CacheEntry, CacheManager, CacheTier, Row, TierContext
from tierkit.testing import make_row
from tierkit.testing.suite.processes import forked, send
from tierkit_jsonl import FileCacheTier
from tierkit_sqlite import SQLiteCacheTier
from tierkit_sqlite.library import sqlite3

KEYS: Final = tuple(f"key {number}" for number in range(60))
STEPS_PER_WRITER: Final = 100_000
MOST_SECONDS: Final = 0.008
"""The longest wait between the last acknowledgement that is asked for and the kill."""
WHAT: Final = {"put": 45, "put_many": 15, "warm": 10, "delete": 25, "compact": 15}
MANY: Final = {"put": 1, "put_many": 30, "warm": 30, "delete": 1, "compact": 0}
OPENING: Final = -1
WRONG: Final = -1
Value = int | None
"""The number of the step that wrote a record, or None if there is none."""
Values = dict[str, Value]


@dataclass(frozen=True)
class Step:
    """One call of the writer: what it does, to which keys."""

    number: int
    what: str
    keys: tuple[str, ...]

    @property
    def value(self) -> Value:
        """What it leaves for each of its keys."""
        return None if self.what == "delete" else self.number


def steps(seed: int, first: int) -> Iterator[Step]:
    """The calls of a writer, which its killer knows too."""
    chance = random.Random(seed)
    for number in range(first, first + STEPS_PER_WRITER):
        (what,) = chance.choices(tuple(WHAT), tuple(WHAT.values()))
        yield Step(number, what, tuple(chance.sample(KEYS, MANY[what])))


def text_of(number: int) -> str:
    """The content of a record that step `number` writes: some are long, so that files are rewritten often."""
    return f"{number} " * (number % 7 * 60)


class Store(AbstractContextManager["Store"]):
    """What is written to and read again."""

    name: ClassVar[str]

    @abstractmethod
    def __init__(self, root: Path) -> None:
        """Open what is in `root`."""

    @abstractmethod
    def do(self, step: Step) -> None:
        """Take a step; when this returns it is acknowledged."""

    @abstractmethod
    def found(self) -> tuple[Values, Values]:
        """What is held, read one by one and by a scan. A wrong content is the value `WRONG`."""


class TierStore(Store):
    """A tier alone. The versions are the numbers of the steps."""

    tier: CacheTier[Row]

    def __exit__(self, *_: object) -> None:
        self.tier.close()

    @staticmethod
    def row(key: str, number: int) -> Row:
        return make_row(key, number, number=number, text=text_of(number), token_encrypted=f"s1.{number}".encode())

    def do(self, step: Step) -> None:
        rows = [self.row(key, step.number) for key in step.keys]
        if step.what == "put":
            assert self.tier.put(rows[0]) is None
        elif step.what in {"put_many", "warm"}:
            assert self.tier.put_many(rows) == [None] * len(rows)
        elif step.what == "delete":
            assert self.tier.delete(step.keys[0], step.number) is None
        else:
            self.compact()

    @abstractmethod
    def compact(self) -> None: ...

    def found(self) -> tuple[Values, Values]:
        read = (row for key in KEYS if (row := self.tier.get(key)) is not None)
        return self.values(read), self.values(self.tier.scan())

    def values(self, rows: Iterable[Row]) -> Values:
        return {row.key: row.version if row == self.row(row.key, row.version) else WRONG for row in rows}


class JsonlStore(TierStore):
    name = "jsonl"

    def __init__(self, root: Path) -> None:
        self.tier: FileCacheTier = FileCacheTier(TierContext(), root / "store", shards=2)

    def compact(self) -> None:
        self.tier.compact()


class SqliteStore(TierStore):
    name = "sqlite"

    def __init__(self, root: Path) -> None:
        self.file = root / "store.db"
        self.tier = SQLiteCacheTier(TierContext(), self.file)

    def compact(self) -> None:
        compact_database(self.file)


class StackStore(Store):
    """Memory over JSON Lines over SQLite, with small bounds: records are evicted, and come back up."""

    name = "memory, jsonl, sqlite"

    def __init__(self, root: Path) -> None:
        self.file, self.list = root / "store.db", root / "list.jsonl"
        jsonl = {"backend": "jsonl", "path": root / "store", "shards": 1, "max_entries": 25, "compact_ratio": 0.2}
        config = CacheConfig(
            encryption_key=SecretStr(base64.urlsafe_b64encode(bytes(32)).decode()),
            tiers=[{"backend": "memory", "max_entries": 5}, jsonl, {"backend": "sqlite", "path": self.file}],
        )
        self.cache = CacheManager(config, entry_type=Numbered)

    def __exit__(self, *_: object) -> None:
        self.cache.close()

    @staticmethod
    def entry(key: str, number: int) -> Numbered:
        return Numbered(key=key, number=number, text=text_of(number), token=SecretStr(f"token {number}"))

    def do(self, step: Step) -> None:
        entries = [self.entry(key, step.number) for key in step.keys]
        if step.what == "put":
            self.cache.put(entries[0])
        elif step.what == "put_many":
            assert self.cache.put_many(entries) == len(entries)
        elif step.what == "warm":
            assert self.warm(entries) == len(entries)
        elif step.what == "delete":
            self.cache.delete(step.keys[0])
        else:
            compact_database(self.file)

    def warm(self, entries: Iterable[Numbered]) -> int:
        """Load `entries` from a file. Answers how many were loaded."""
        self.list.write_text(
            "".join(
                json.dumps({"key": e.key, "number": e.number, "text": e.text, "token": e.token.get_secret_value()})
                + "\n"
                for e in entries
            )
        )
        return self.cache.warm_from_file(self.list).loaded

    def found(self) -> tuple[Values, Values]:
        read = (entry for key in KEYS if (entry := self.cache.get(key)) is not None)
        return self.values(read), self.values(self.cache.scan())

    def values(self, entries: Iterable[Numbered]) -> Values:
        return {entry.key: entry.number if self.is_whole(entry) else WRONG for entry in entries}

    def is_whole(self, found: Numbered) -> bool:
        written = self.entry(found.key, found.number)
        return (found.text, found.token) == (written.text, written.token)


class Numbered(CacheEntry):
    number: int
    text: str
    token: SecretStr


def compact_database(file: Path) -> None:
    """Bring the log into the database and write that anew, as an administrator would."""
    with closing(sqlite3.connect(file, timeout=5.0, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        connection.execute("VACUUM")


STORES: Final[tuple[type[Store], ...]] = (JsonlStore, SqliteStore, StackStore)
SHORT, LONG = 6, 200


@dataclass
class Tally:
    """What came of the kills so far.

    Attributes:
        kills: How many writers were killed.
        acknowledged: How many calls had returned, of all writers.
        during: What the writers were doing when they were killed.
        survived: How many records with an acknowledged value were looked for and found, over all kills.
        unheard: How many keys were found as the call that was cut off would have left them.
        apart: How many keys a read and a scan told of differently: one of them as the call that was cut off left it.
        lost: Acknowledged writes and deletes that were not there.
        wrong: Values that nobody wrote for this key.
    """

    kills: int = 0
    acknowledged: int = 0
    during: Counter[str] = field(default_factory=Counter)
    survived: int = 0
    unheard: int = 0
    apart: int = 0
    lost: int = 0
    wrong: int = 0

    def compare(self, allowed: Mapping[str, set[Value]], cut_off: Step, found: tuple[Values, Values]) -> None:
        """Count what is found, where `cut_off` was not acknowledged: it may have been done, for each key by itself."""
        for key in {*KEYS, *found[0], *found[1]}:
            values = {values.get(key) for values in found}
            also = {cut_off.value} if key in cut_off.keys else set()
            if WRONG in values or key not in KEYS:
                self.wrong += 1
            elif not values <= allowed.get(key, {None}) | also:
                self.lost += 1
            elif len(values) > 1:
                self.apart += 1
            elif values <= allowed.get(key, {None}):
                self.survived += None not in values
            else:
                self.unheard += 1


Opener = Callable[[Path], Store]


def killed(
    opener: Opener, root: Path, todo: Callable[[], Iterator[Step]], heard: int, wait: Callable[[], object]
) -> int:
    """Have a writer killed as soon as `wait` returns, which begins with its acknowledgement number `heard`.

    Answers the last that it gave. Number 0 says that the store is open.
    """

    def write(pipe: Connection) -> None:
        with opener(root) as opened:
            send(pipe, 0)
            for done, step in enumerate(todo(), 1):
                opened.do(step)
                send(pipe, done)

    with forked(write) as child:
        last = OPENING
        while last < heard:
            last = child.receive()
        wait()
        return max([last, *child.kill()])


@dataclass
class Hunt:
    """Writers in one folder that are killed, one after the other.

    Attributes:
        root: The folder.
        seed: Of all that is drawn.
        most_seconds: The longest wait between the last acknowledgement that is asked for and the kill.
        tally: What came of the kills so far.
        allowed: What each key may be found with.
        first: The number of the next step.
    """

    root: Path
    seed: int = 1
    most_seconds: float = MOST_SECONDS
    tally: Tally = field(default_factory=Tally)
    allowed: dict[str, set[Value]] = field(default_factory=dict)
    first: int = 1

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)

    def kill(self, writer: Opener, reader: Opener, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Have `writer` killed, and count what `reader` finds; until the kill do `meanwhile`, again and again."""
        heard, seconds = self.chance.randrange(OPENING, 12), self.chance.uniform(0.0, self.most_seconds)
        number, first = self.seed * 1_000_000 + self.tally.kills, self.first

        def todo() -> Iterator[Step]:
            return steps(number, first)

        def wait() -> None:
            until = perf_counter() + seconds
            while perf_counter() < until:
                meanwhile()

        last = killed(writer, self.root, todo, heard, wait)
        for step in todo():
            if step.number == first + max(last, 0):
                break
            self.allowed.update((key, {step.value}) for key in step.keys)
        with reader(self.root) as opened:
            found = opened.found()
        self.tally.kills += 1
        self.tally.acknowledged += max(last, 0)
        self.tally.during["open" if last == OPENING else step.what] += 1
        self.tally.compare(self.allowed, step, found)
        self.allowed = {key: {values.get(key) for values in found} for key in KEYS}
        self.first = step.number + 1


def run(store: type[Store], root: Path, count: int, seed: int = 1) -> Tally:
    """Kill `count` writers, one after the other, in `root`."""
    hunt = Hunt(root, seed)
    for _ in range(count):
        hunt.kill(store, store)
    return hunt.tally


def too_early(store: type[Store]) -> AbstractContextManager[object]:
    """A fault: what is written is acknowledged up to three calls before it is done."""
    true, waiting = store.do, list[Step]()

    def do(self: Store, step: Step) -> None:
        waiting.append(step)
        if len(waiting) == 4:
            for late in waiting:
                true(self, late)
            waiting.clear()

    return patch.object(store, "do", do)


def trial(store: type[Store]) -> Trial:
    """The trial of a store."""

    def tried(folder: Path, effort: Effort) -> Outcome:
        tally = run(store, folder, LONG if effort == "long" else SHORT)
        lost = [f"{tally.lost} acknowledged writes lost"] * bool(tally.lost)
        wrong = [f"{tally.wrong} wrong values"] * bool(tally.wrong)
        return Outcome(
            {"kills": tally.kills}
            | {f"in {what}": count for what, count in sorted(tally.during.items())}
            | {
                "acknowledged calls": tally.acknowledged,
                "records found as acknowledged": tally.survived,
                "keys changed by calls cut off": tally.unheard,
                "told differently by read and scan": tally.apart,
            },
            lost + wrong,
        )

    return Trial(
        1,
        f"kill -9 of a writer of {store.name}",
        tried,
        {"a write is acknowledged too early": lambda: too_early(store)},
    )


TRIALS: Final = tuple(map(trial, STORES))
