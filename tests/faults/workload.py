"""The work during which calls fail, power is cut and disks fill up: a few steps of every kind, on three stores."""

from __future__ import annotations

import base64
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Final, Literal
from unittest.mock import patch

from pydantic import SecretStr
from tests.faults import kills
from tests.faults.kills import WRONG, Numbered, Value, compact_database

from tierkit import CacheConfig, CacheManager, CacheTier, Delta, Row, TierContext, files, manager
from tierkit.plugins import discover
from tierkit.testing import FakeClock
from tierkit_jsonl import FileCacheTier
from tierkit_sqlite import SQLiteCacheTier, failures, opening
from tierkit_sqlite.library import sqlite3

Durability = Literal["full", "process", "none"]
Values = dict[str, Value]


@dataclass(frozen=True)
class Step:
    """One call.

    Attributes:
        number: From 1; it is in what is written.
        what: A method of `Store`.
        keys: What it is done to.
        expected: What the first of them holds before, if nothing has failed.
        value: What it leaves for each of its keys.
    """

    number: int
    what: str
    keys: tuple[str, ...]
    expected: int
    value: Value


def plan(calls: Sequence[tuple[str, str]]) -> tuple[Step, ...]:
    """Steps of these kinds on these keys, each a letter."""
    steps: list[Step] = []
    held: Values = {}
    for number, (what, letters) in enumerate(calls, 1):
        expected = held.get(letters[0]) or 0 if letters else 0
        if what in {"touch", "compact", "read"}:
            value: Value = expected
        else:
            value = None if what in {"delete", "discard", "clear"} else number
            held |= dict.fromkeys(letters, value)
        changed = letters if what not in {"touch", "read"} else letters[:1]
        steps.append(Step(number, what, tuple(changed), expected, value))
    return tuple(steps)


STEPS: Final = plan(
    [
        ("put", "a"),
        ("put_many", "bcd"),
        ("replace", "a"),
        ("delete", "b"),
        ("put", "e"),
        ("touch", "c"),
        ("compact", ""),
        ("put", "f"),
        ("discard", "f"),
        ("put_many", "bg"),
        ("read", "g"),
        ("clear", "abcdefg"),
        ("put", "a"),
        ("put", "h"),
    ]
)
KEYS: Final = tuple("abcdefghijklmnopqr")
SECRET, SECRET_TO_BE = (base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in range(2))
"""The key of the stack, and the one that it is rotated to."""
NEXT: Final = Step(90, "put", ("next",), 0, 90)
READ: Final = (*KEYS, *NEXT.keys)


def vacuum(file: Path) -> None:
    """As `compact_database`, with the errors of a tier."""
    try:
        compact_database(file)
    except sqlite3.Error as error:
        raise failures.translated(error, "vacuum") from error


class Store(AbstractContextManager["Store"]):
    """What the steps are taken on."""

    name: ClassVar[str]

    @abstractmethod
    def __init__(self, root: Path, durability: Durability) -> None:
        """Open what is in `root`."""

    @abstractmethod
    def do(self, step: Step) -> bool:
        """Take a step. Answers whether it took effect: one that looks at what is held may have nothing to act on.

        Raises:
            TierkitError: It is not acknowledged.
        """

    @abstractmethod
    def found(self) -> tuple[Values, Values]:
        """What is held, read one by one and by a scan. A wrong content is the value `WRONG`."""

    @abstractmethod
    def told(self) -> int:
        """How many failures were counted, and levels are not well."""

    def degraded(self) -> str:
        """What is not in service, if anything."""
        return ""

    def out_of_service(self) -> str:
        """What cannot even be read, if anything."""
        return ""

    def recover(self) -> None:
        """Let the time pass after which what failed is tried again."""


class TierStore(Store):
    """A tier alone. The versions are the numbers of the steps."""

    tier: CacheTier[Row]

    def __exit__(self, *_: object) -> None:
        self.tier.close()

    def do(self, step: Step) -> bool:
        if step.what == "touch":
            self.tier.touch_many(dict.fromkeys(step.keys, Delta(1, 1.0)))
        elif step.what == "read":
            return self.tier.get(step.keys[0]) is not None
        elif step.what == "compact":
            self.compact()
        elif step.what == "clear":
            self.tier.clear()
        else:
            return self._write(step)
        return True

    def _write(self, step: Step) -> bool:
        rows = [kills.TierStore.row(key, step.number) for key in step.keys]
        if step.what == "put":
            return self.tier.put(rows[0]) is None
        if step.what == "put_many":
            return self.tier.put_many(rows) == [None] * len(rows)
        if step.what == "replace":
            return self.tier.replace(rows[0], step.expected)
        if step.what == "delete":
            return self.tier.delete(step.keys[0], step.number) is None
        return self.tier.discard(kills.TierStore.row(step.keys[0], step.expected))

    @abstractmethod
    def compact(self) -> None: ...

    def found(self) -> tuple[Values, Values]:
        read = [row for key in READ if (row := self.tier.get(key)) is not None]
        return _values_of(read), _values_of(self.tier.scan())

    def told(self) -> int:
        return 0


class JsonlStore(TierStore):
    name = "jsonl"

    def __init__(self, root: Path, durability: Durability) -> None:
        self.tier: FileCacheTier = FileCacheTier(TierContext(durability=durability), root / "store", shards=1)

    def compact(self) -> None:
        self.tier.compact()


class SqliteStore(TierStore):
    name = "sqlite"

    def __init__(self, root: Path, durability: Durability) -> None:
        self.file = root / "store" / "store.db"
        self.tier = SQLiteCacheTier(TierContext(durability=durability), self.file)

    def compact(self) -> None:
        vacuum(self.file)


class StackStore(Store):
    """Memory over JSON Lines over SQLite."""

    name = "memory, jsonl, sqlite"

    def __init__(self, root: Path, durability: Durability) -> None:
        self.root = root
        self.durability = durability
        self.file = root / "base" / "store.db"
        self.clock = FakeClock()
        self.cache = self._opened(SECRET, SECRET_TO_BE)

    def _opened(self, *keys: str) -> CacheManager[Numbered]:
        config = CacheConfig(
            encryption_key=SecretStr(",".join(keys)),
            durability=self.durability,
            tiers=[
                {"backend": "memory", "max_entries": 2},
                {"backend": "jsonl", "path": self.root / "store", "shards": 1},
                {"backend": "sqlite", "path": self.file},
            ],
        )
        return CacheManager(config, entry_type=Numbered, clock=self.clock)

    def __exit__(self, *_: object) -> None:
        self.cache.close()

    def do(self, step: Step) -> bool:
        entries = [kills.StackStore.entry(key, step.number) for key in step.keys]
        if step.what in {"put", "replace"}:
            self.cache.put(entries[0])
        elif step.what == "put_many":
            self.cache.put_many(entries)
        elif step.what in {"delete", "discard"}:
            self.cache.delete(step.keys[0])
        elif step.what == "clear":
            self.cache.clear()
        elif step.what == "compact":
            vacuum(self.file)
        elif step.what == "rotate":
            with self._opened(SECRET_TO_BE, SECRET) as beside:
                beside.rotate()
        else:
            self.cache.get(step.keys[0])
            self.cache.flush()
        return True

    def found(self) -> tuple[Values, Values]:
        read = [entry for key in READ if (entry := self.cache.get(key)) is not None]
        return _numbers_of(read), _numbers_of(self.cache.scan())

    def told(self) -> int:
        return sum(tier.failures + tier.degraded for tier in self.cache.get_statistics().tiers)

    def degraded(self) -> str:
        tiers = self.cache.get_statistics().tiers
        return ", ".join(f"{tier.name} is {tier.state}" for tier in tiers if tier.degraded)

    def out_of_service(self) -> str:
        lowest = self.cache.get_statistics().tiers[-1]  # one above leaves service if it cannot even drop its copy
        return "" if lowest.state == "closed" else f"{lowest.name} is out of service"

    def recover(self) -> None:
        for _ in range(8):
            self.clock.advance(61.0)
            self.cache.recover()


def _values_of(rows: Iterable[Row]) -> Values:
    return {row.key: row.version if row == kills.TierStore.row(row.key, row.version) else WRONG for row in rows}


def _numbers_of(entries: Iterable[Numbered]) -> Values:
    return {entry.key: entry.number if _is_whole(entry) else WRONG for entry in entries}


def _is_whole(found: Numbered) -> bool:
    written = kills.StackStore.entry(found.key, found.number)
    return (found.text, found.token) == (written.text, written.token)


STORES: Final[tuple[type[Store], ...]] = (JsonlStore, SqliteStore, StackStore)


@dataclass
class Allowed:
    """What may be held for each key, by what was acknowledged and what was not."""

    values: dict[str, set[Value]] = field(default_factory=dict)

    def is_sure(self, step: Step) -> bool:
        """Whether it is known what each of its keys holds."""
        return all(len(self.values.get(key, {None})) == 1 for key in step.keys)

    def begun(self, step: Step) -> None:
        """It may take effect from now on, or not."""
        for key in step.keys:
            self.values.setdefault(key, {None}).add(step.value)

    def acknowledged(self, step: Step) -> None:
        """It has taken effect."""
        self.values.update((key, {step.value}) for key in step.keys)

    def wrong(self, found: tuple[Values, Values]) -> str:
        """What is found and must not be, or missed, if anything."""
        for values in found:
            for key in sorted({*self.values, *values}):
                allowed = self.values.get(key, {None})
                if values.get(key) not in allowed:
                    return f"{key} is {values.get(key)}, not {' or '.join(sorted(map(str, allowed)))}"
        return ""


def wrong(store: type[Store], folder: Path, allowed: Allowed) -> str:
    """What is wrong with the store that is left in `folder`, if anything."""
    try:
        with store(folder, "none") as opened:
            if found := allowed.wrong(opened.found()):
                return found
            opened.do(NEXT)
            allowed.acknowledged(NEXT)
            return allowed.wrong(opened.found())
    except Exception as error:  # noqa: BLE001 - whatever it is, nothing may go wrong
        return f"{type(error).__name__}: {error}"


@contextmanager
def at_once() -> Iterator[None]:
    """Flush nothing, look for plugins once, and wait for nobody who may be making the database."""
    with ExitStack() as patches:
        for name in ("fsync", "fsync_dir"):
            patches.enter_context(patch.object(files, name, lambda _: None))
        patches.enter_context(patch.object(opening, "_MAKING_SECONDS", 0.0))
        registry = discover(())
        patches.enter_context(patch.object(manager, "discover", lambda _: registry))
        yield


@contextmanager
def in_memory(folder: Path) -> Iterator[Path]:
    """A folder in memory where there is a file system for that: to make and remove files there costs little."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else folder) as quick:
        yield Path(quick)
