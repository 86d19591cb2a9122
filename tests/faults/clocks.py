"""A wall clock that is set by ten years or a second, or stands still, while caches are open and between them.

Inside a process time is the wall clock at open plus the time elapsed: no step is seen. A deadline is a moment of the
wall clock, so a cache that is opened anew goes by what that says then. Once it was set back, a record that had expired
may be there again, if nobody swept it; and it lives no longer than the clock of that opening allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple
from unittest.mock import patch

import msgspec
from tests.faults.trials import Effort, Outcome, Trial

from tierkit import CacheConfig, CacheEntry, CacheManager
from tierkit.clock import CacheTime, Clock
from tierkit.expiry import TTLManager
from tierkit.level import Level
from tierkit.stack import Found, Stack
from tierkit.testing import FakeClock

KEYS: Final = tuple(f"key {number}" for number in range(6))
YEARS: Final = 10 * 365.25 * 86400
STEPS: Final = (-YEARS, YEARS, -1.0, 1.0, -86400.0, 86400.0)
GRACE_SECONDS: Final = 40.0
CALLS: Final[Mapping[Effort, int]] = {"short": 120, "long": 20_000}
WHAT: Final = {
    "put": 25,
    "delete": 5,
    "outlive": 5,
    "get": 40,
    "pass": 15,
    "step": 15,
    "stand_still": 3,
    "sweep": 3,
    "reopen": 4,
}


class Entry(CacheEntry):
    text: str


class Life(NamedTuple):
    """What was put for a key.

    Attributes:
        text: The content.
        deadline: When it expires, in POSIX seconds.
        sure: Whether it must be there: nobody has had occasion to drop it.
    """

    text: str
    deadline: float
    sure: bool = True


class Watched:
    """A cache whose clock is set, and what it may answer."""

    def __init__(self, folder: Path, outcome: Outcome) -> None:
        self.clock = FakeClock()
        self.outcome = outcome
        self.lives: dict[str, Life] = {}
        self._folder = folder
        self._chance = Random(1)
        self._number = 0
        self._open()

    def _open(self) -> None:
        tiers: list[dict[str, Any]] = [
            {"backend": "memory", "max_entries": 2},
            {"backend": "jsonl", "path": self._folder / "store", "shards": 1, "max_entries": 4},
            {"backend": "sqlite", "path": self._folder / "store.db"},
        ]
        config = CacheConfig(tiers=tiers, grace_seconds=GRACE_SECONDS)
        self.cache = CacheManager(config, entry_type=Entry, clock=self.clock)
        self._offset = self.clock.wall() - self.clock.monotonic()

    @property
    def now(self) -> float:
        """The time inside the cache, as it must be."""
        return self.clock.monotonic() + self._offset

    def run(self, calls: int) -> None:
        for what in self._chance.choices(tuple(WHAT), tuple(WHAT.values()), k=calls):
            self._number += 1
            getattr(self, what)(self._chance.choice(KEYS))
            self._forget()

    def _forget(self) -> None:
        """What has expired for good may be dropped, by a read, a sweep or an opening."""
        for key, life in self.lives.items():
            if self.now >= life.deadline:
                self.lives[key] = life._replace(sure=False)

    def put(self, key: str, ttl: float | None = None) -> None:
        ttl = self._chance.choice((1.0, 30.0, 300.0, 86400.0, YEARS)) if ttl is None else ttl
        stored = self.cache.put(Entry(key=key, text=f"{self._number}", ttl_seconds=ttl))
        assert stored.expires_at is not None
        deadline = stored.expires_at.timestamp()
        self.lives[key] = Life(stored.text, deadline)
        self.outcome.check(abs(deadline - self.now - ttl) < 1e-4, f"{key} lives {deadline - self.now} s and not {ttl}")
        self.outcome.count("puts")

    def outlive(self, key: str) -> None:
        """Look at a record just before and after its deadline, and the end of its grace, while the clock is set."""
        self.put(key, 30.0)
        for seconds in (29.99, 0.02, GRACE_SECONDS - 0.02, 0.02):
            self.step(key)
            self.clock.advance(seconds)
            for stale in (False, True):
                self.get(key, stale=stale)

    def delete(self, key: str) -> None:
        self.cache.delete(key)
        self.lives.pop(key, None)

    def get(self, key: str, *, stale: bool = False) -> None:
        entry, life = self.cache.get(key, allow_stale=stale), self.lives.get(key)
        found = None if entry is None else entry.text
        self.outcome.count("reads")
        if life is None or self.now >= life.deadline + GRACE_SECONDS * stale:
            self.outcome.check(found is None, f"{key} = {found} is served though {self._why(life)}")
        elif found is None:
            self.outcome.check(
                not life.sure or self.now >= life.deadline, f"{key} = {life.text} is gone before its time"
            )
        else:
            self.outcome.check(found == life.text, f"{key} = {found} is served and not {life.text}")
            self.outcome.count("of them found")

    def _why(self, life: Life | None) -> str:
        return "there is none" if life is None else f"it expired {self.now - life.deadline:.1f} s ago"

    def step(self, _: str) -> None:
        seconds = self._chance.choice(STEPS)
        # A datetime holds no more: the clock is set, but not for ever in one direction.
        if abs(self.clock.wall() + seconds - self.clock.monotonic() - START) <= 3 * YEARS:
            self.clock.step_wall(seconds)
            self.outcome.count("steps of the clock")

    def stand_still(self, key: str) -> None:
        """The wall clock does not go on while time passes."""
        seconds = self._chance.choice((1.0, 100.0))
        self.clock.advance(seconds)
        self.clock.step_wall(-seconds)
        self.get(key)

    def sweep(self, _: str) -> None:
        self.cache.sweep()

    def reopen(self, _: str) -> None:
        self.cache.close()
        self._open()
        self.outcome.count("openings")


# `pass` is a word of Python.
setattr(Watched, "pass", lambda self, _: self.clock.advance(self._chance.choice((0.1, 1.0, 29.0, 300.0))))
START: Final = FakeClock().wall() - FakeClock().monotonic()


def run(folder: Path, effort: Effort) -> Outcome:
    """The trial."""
    outcome = Outcome()
    watched = Watched(folder, outcome)
    watched.run(CALLS[effort])
    watched.cache.close()
    return outcome


# -- what could be wrong -----------------------------------------------------------------------------------------------


def by_wall(time: CacheTime, clock: Clock) -> None:
    """`CacheTime` that asks the wall clock each time."""
    time.monotonic, time.offset = clock.wall, 0.0


def by_monotonic(time: CacheTime, clock: Clock) -> None:
    """`CacheTime` that begins where every process does."""
    time.monotonic, time.offset = clock.monotonic, START


def serves_stale(_: Stack[Any], found: Found[Any]) -> Found[Any]:
    """`Stack._serve_stale` that leaves it to the tiers to drop what is too old."""
    return found


@contextmanager
def grace_twice() -> Iterator[None]:
    """A record is kept for two periods of grace, and served as long as it is kept."""
    true = TTLManager.stamp

    def stamp(ttl: TTLManager, entry: Any, now: float, **changes: Any) -> Any:
        stamped = true(ttl, entry, now, **changes)
        return msgspec.structs.replace(stamped, _purge_at=stamped._purge_at + GRACE_SECONDS)

    with patch.object(TTLManager, "stamp", stamp), patch.object(Stack, "_serve_stale", serves_stale):
        yield


@contextmanager
def fresh_in_grace() -> Iterator[None]:
    """A record in the first level is fresh until it is dropped."""
    true = Stack.fill

    def fill(stack: Stack[Any], level: Level, entry: Any, started: float | None) -> bool:
        filled = true(stack, level, entry, started)
        msgspec.structs.force_setattr(entry, "_fresh_until", entry._purge_at)
        return filled

    with patch.object(Stack, "fill", fill):
        yield


FAULTS: Final[Mapping[str, Callable[[], AbstractContextManager[object]]]] = {
    "time goes by the wall clock": lambda: patch.object(CacheTime, "__init__", by_wall),
    "an opening does not ask the wall clock": lambda: patch.object(CacheTime, "__init__", by_monotonic),
    "the grace is added twice": grace_twice,
    "a record in L1 is served through its grace": fresh_in_grace,
}
TRIALS: Final = (Trial(14, "a wall clock that is set, or stands still", run, FAULTS),)
