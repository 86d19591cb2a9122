"""A server that dies, hangs, fills up or takes no writes under a stack, and comes back.

The server is the authority of a stack of three levels. While it is lost, records are put and deleted. Nothing that was
acknowledged is read otherwise at any time; every call returns within its time limit; when the server is back, all
levels agree with it, and what was deleted stays so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Final
from unittest.mock import patch

from pydantic import BaseModel, ConfigDict
from tests.faults.trials import Effort, Outcome, Trial
from tests.tiers import DictBlobTier

from tierkit import (
    CacheConfig,
    CacheEntry,
    CacheManager,
    CacheStorageError,
    CacheTier,
    TierContext,
    TierFull,
    TierReadOnly,
    TierSpec,
    Trait,
    blob,
    hookimpl,
)
from tierkit.breaker import Breaker
from tierkit.owing import Owing
from tierkit.row import Row
from tierkit.testing import FakeClock, FaultyTier
from tierkit.testing.faulty import METHODS, WRITES
from tierkit.workers import Workers

KEYS: Final = tuple(f"key {number}" for number in range(8))
LIMIT_SECONDS: Final[Mapping[Effort, float]] = {"short": 0.02, "long": 1.0}
"""The time limit of the server. In the long form time is measured, and 10 % are more than a busy machine adds."""
OUTAGES: Final[Mapping[Effort, int]] = {"short": 4, "long": 200}
HANGS: Final[Mapping[Effort, int]] = {"short": 1, "long": 5}
WAITS: Final[Mapping[str, int]] = {"put": 1, "get": 1, "delete": 2}
"""How often a call of the cache waits for the server at most: a deletion first looks whether there is a record."""
CALLS: Final = 40
THRESHOLD: Final = 3


class Entry(CacheEntry):
    text: str


class Disk(DictBlobTier):
    """What outlives the stack."""

    traits: ClassVar[Trait] = Trait.PERSISTENT | Trait.CRASH_SAFE

    def __init__(self, context: TierContext, blobs: dict[str, bytes]) -> None:
        super().__init__(context)
        self.blobs = blobs


class Server(FaultyTier):
    """The authority: a tier that fails when it is told to, or answers no call until it is let go."""

    def __init__(self, tier: CacheTier[Any]) -> None:
        super().__init__(tier)
        self._answers = threading.Event()
        self._answers.set()
        self.hung = 0

    def hang(self) -> threading.Event:
        """From now on answer no call. What is returned lets these go."""
        self._answers = threading.Event()
        return self._answers

    def answer(self) -> None:
        """Answer what comes from now on; calls that hang go on hanging."""
        self._answers = threading.Event()
        self._answers.set()

    def raise_if_told(self, method: str) -> None:
        """Hang or fail, before the wrapped tier is called."""
        self.hung += not self._answers.is_set()
        self._answers.wait()
        super().raise_if_told(method)


class NoOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")


class World:
    """A stack over a server, and what must be found in it."""

    def __init__(self, timeout_seconds: float | None = None) -> None:
        self.clock = FakeClock()
        self.server: Server
        self.expected: dict[str, str] = {}
        authority = {"backend": "server"} | ({"timeout_seconds": timeout_seconds} if timeout_seconds else {})
        config = CacheConfig(
            tiers=({"backend": "memory", "max_entries": 4}, {"backend": "disk", "max_entries": 6}, authority),
            tier_failure_threshold=THRESHOLD,
            default_ttl_seconds=1e9,
        )
        self.cache = CacheManager(config, entry_type=Entry, clock=self.clock, plugins=[self])
        self.level = self.cache.levels[-1]

    @hookimpl
    def register_tiers(self) -> list[TierSpec]:
        return [
            TierSpec(kind=kind, factory=factory, options=NoOptions, traits=Disk.traits, api=1)
            for kind, factory in (("disk", lambda context, _: Disk(context, {})), ("server", self._serve))
        ]

    def _serve(self, context: TierContext, _: object) -> CacheTier[Any]:
        self.server = Server(Disk(context, {}))
        return self.server

    def put(self, key: str, text: str) -> None:
        self.cache.put(Entry(key=key, text=text))
        self.expected[key] = text

    def delete(self, key: str) -> None:
        self.cache.delete(key)
        self.expected.pop(key, None)

    def read(self, key: str) -> str | None:
        entry = self.cache.get(key)
        return None if entry is None else entry.text

    def come_back(self) -> None:
        """Let time pass, in which the server is probed."""
        for _ in range(4):
            self.clock.advance(60.0)
            self.cache.recover()

    def held(self, tier: Any, key: str) -> str | None:
        record = tier.get(key)
        text = record.columns.get("text") if isinstance(record, Row) else getattr(record, "text", None)
        return None if text is None else str(text)


Loss = Callable[[Server], None]
LOSSES: Final[Mapping[str, Loss]] = {
    "killed": lambda server: server.fail(),
    "failing now and then": lambda server: server.fail(*METHODS, times=2),
    "out of memory": lambda server: server.fail(
        "put", "put_many", "replace", "replace_many", error=TierFull("no room")
    ),
    "read-only": lambda server: server.fail(*WRITES, error=TierReadOnly("read-only")),
}


class Caller:
    """Puts, deletes and reads keys; what is read must be what was acknowledged."""

    def __init__(self, world: World, outcome: Outcome) -> None:
        self.world, self.outcome = world, outcome
        self._chance = Random(1)
        self._number = 0

    def call(self, *, lost: bool) -> str:
        """Make one call, and say which. While the server is lost, what only it has is not found."""
        self._number += 1
        key = self._chance.choice(KEYS)
        what = self._chance.choice(("put", "put", "delete", "get", "get"))
        try:
            getattr(self, what)(key, lost)
        except CacheStorageError as error:
            self.outcome.violations.append(f"{what} of {key} failed: {error}")
        self.outcome.count("calls")
        return what

    def calls(self, *, lost: bool) -> None:
        for _ in range(CALLS):
            self.call(lost=lost)

    def put(self, key: str, _: bool) -> None:
        self.world.put(key, f"{self._number}")

    def delete(self, key: str, _: bool) -> None:
        self.world.delete(key)

    def get(self, key: str, lost: bool) -> None:
        found, expected = self.world.read(key), self.world.expected.get(key)
        missing = lost and found is None
        self.outcome.check(missing or found == expected, f"{key} is read as {found} and not {expected}")


def compare(world: World, outcome: Outcome) -> None:
    """All is well again: the server has everything, and no other level anything else."""
    outcome.check(world.level.state == "closed", "the breaker stays open")
    outcome.check(not world.cache.get_statistics().intents, "the server is still owed something")
    for key in KEYS:
        expected = world.expected.get(key)
        found = world.held(world.server.tier, key)
        outcome.check(found == expected, f"the server has {found} for {key}, and not {expected}")
        for level in world.cache.levels[:-1]:
            copy = world.held(level.tier, key)
            outcome.check(copy in (None, expected), f"{level.name} has {copy} for {key}, and not {expected}")
        outcome.check(world.read(key) == expected, f"{key} is read as {world.read(key)} and not {expected}")
    outcome.count("keys compared", len(KEYS))


def lost(_: Path, effort: Effort) -> Outcome:
    """The trial of a server that fails, in each way."""
    outcome, world = Outcome(), World()
    caller = Caller(world, outcome)
    for _outage in range(OUTAGES[effort]):
        for name, lose in LOSSES.items():
            caller.calls(lost=False)
            lose(world.server)
            caller.calls(lost=True)
            outcome.check(name != "killed" or world.level.state == "open", "the breaker does not open")
            world.server.heal()
            caller.calls(lost=True)
            world.come_back()
            compare(world, outcome)
            outcome.count(f"times {name}")
    world.cache.close()
    return outcome


def hung(_: Path, effort: Effort) -> Outcome:
    """The trial of a server that hangs, as after SIGSTOP; then it answers again, and what hung lands last."""
    outcome, limit = Outcome(), LIMIT_SECONDS[effort]
    world = World(limit)
    caller = Caller(world, outcome)
    for _hang in range(HANGS[effort]):
        caller.calls(lost=False)
        let_go = world.server.hang()
        for _call in range(CALLS):
            hung, begun = world.server.hung, time.perf_counter()
            waits = WAITS[caller.call(lost=True)]
            seconds = time.perf_counter() - begun
            outcome.check(world.server.hung <= hung + waits, f"a call waits for the server {waits + 1} times")
            outcome.check(effort == "short" or seconds <= 1.1 * waits * limit, f"a call took {seconds:.2f} s")
        outcome.check(world.level.state == "open", "the breaker does not open")
        world.server.answer()
        world.come_back()
        caller.calls(lost=True)
        let_go.set()
        settle(world)
        world.come_back()
        compare(world, outcome)
        outcome.count("hangs")
    outcome.count("calls given up", world.server.hung)
    world.cache.close()
    return outcome


def settle(world: World) -> None:
    """Wait until what hung has ended."""
    assert world.level._workers is not None
    for _ in range(10_000):
        if not world.level._workers._stuck:
            return
        time.sleep(0.001)
    raise AssertionError("what hung does not end")


# -- what could be wrong -----------------------------------------------------------------------------------------------


@contextmanager
def lands_late() -> Iterator[None]:
    """A level is probed while its calls hang, and its tier takes what is older."""
    with patch.object(Workers, "stuck", 0), patch.object(blob, "refusal", lambda *_: None):
        yield


def nothing(*_: object) -> None: ...


def opens_late(breaker: Breaker, kind: Any) -> bool:
    """`Breaker.failed` that never has enough."""
    return False


Faults = Mapping[str, Callable[[], AbstractContextManager[object]]]
LOST_FAULTS: Final[Faults] = {
    "a deletion is not replayed": lambda: patch.object(Disk, "delete_many", lambda *_: {}),
    "a deletion is not held": lambda: patch.object(Owing, "delete", nothing),
    "the breaker never opens": lambda: patch.object(Breaker, "failed", opens_late),
    "the breaker never closes": lambda: patch.object(Breaker, "close", nothing),
    "what is owed is not replayed": lambda: patch.object(Owing, "replay_all", lambda *_, **__: True),
}
HUNG_FAULTS: Final[Faults] = {
    "the breaker never opens": lambda: patch.object(Breaker, "failed", opens_late),
    "a write that was given up lands late and wins": lands_late,
}


TRIALS: Final = (
    Trial(13, "a server that fails, is full, or read-only", lost, LOST_FAULTS),
    Trial(13, "a server that hangs", hung, HUNG_FAULTS),
)
