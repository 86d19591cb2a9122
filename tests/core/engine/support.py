"""What the tests of the engine share: storages that outlive a cache, and tiers that let a test in between two calls."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict
from tests.tiers import DictBlobTier

from tierkit import (
    ANY_POLICY,
    CacheConfig,
    CacheEntry,
    CacheManager,
    CacheTier,
    Row,
    TierContext,
    TierSpec,
    Trait,
    hookimpl,
)
from tierkit.side import SEPARATOR
from tierkit.testing import FaultyTier
from tierkit.testing.faulty import METHODS
from tierkit_memory import MemoryCacheTier


class Note(CacheEntry):
    """An entry without secrets, so that no test of the engine needs a key."""

    text: str = ""


def note(key: str, text: str = "", **fields: Any) -> Note:
    return Note(key=key, text=text, **fields)


class Disk(DictBlobTier):
    """Rows in a dictionary that stands for a disk: it outlives the tier."""

    traits: ClassVar[Trait] = Trait.PERSISTENT | Trait.CRASH_SAFE

    def __init__(self, context: TierContext, blobs: dict[str, bytes]) -> None:
        super().__init__(context)
        self.blobs = blobs


Call = tuple[str, str, Any]
Act = Callable[[], object]


class ScriptedTier(FaultyTier):
    """Writes down each call, and runs what a test wants to happen just before or after the next one of a method."""

    def __init__(self, tier: CacheTier[Any], calls: list[Call]) -> None:
        super().__init__(tier)
        self.log = calls
        self._before: dict[str, Act] = {}
        self._after: dict[str, Act] = {}

    def before(self, method: str, act: Act) -> None:
        """Run `act` once, before the next call of `method`."""
        self._before[method] = act

    def after(self, method: str, act: Act) -> None:
        """Run `act` once, after the next call of `method`."""
        self._after[method] = act

    def forget(self) -> None:
        """Run nothing of what was wanted and has not happened."""
        self._before.clear()
        self._after.clear()


def _scripted(name: str) -> Any:
    def call(self: ScriptedTier, *args: Any) -> Any:
        self.log.append((self.context.name, name, args[0] if args else None))
        self._before.pop(name, _nothing)()
        answer = getattr(super(ScriptedTier, self), name)(*args)
        self._after.pop(name, _nothing)()
        return answer

    return call


def _nothing() -> None: ...


for _name in METHODS:
    setattr(ScriptedTier, _name, _scripted(_name))


class NoOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")


class World:
    """Disks, a clock, and the caches that a test opens over them, one after another or at once."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.disks: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
        self.calls: list[Call] = []
        self.caches: list[CacheManager[Any]] = []
        self.policies = frozenset({"lru", "fifo"})
        self.before_opening: dict[str, Callable[[ScriptedTier], object]] = {}
        """What is done to the next tier of this name before the cache has it."""

    @hookimpl
    def register_tiers(self) -> list[TierSpec]:
        return [
            TierSpec(
                kind="live",
                factory=self._live,
                options=NoOptions,
                traits=Trait.LIVE,
                api=1,
                eviction_policies=ANY_POLICY,
            ),
            TierSpec(
                kind="disk",
                factory=self._disk,
                options=NoOptions,
                traits=Disk.traits,
                api=1,
                eviction_policies=self.policies,
            ),
        ]

    def _live(self, context: TierContext, options: object) -> CacheTier[Any]:
        return ScriptedTier(MemoryCacheTier(context), self.calls)

    def _disk(self, context: TierContext, options: object) -> CacheTier[Any]:
        made = ScriptedTier(Disk(context, self.disks[disk_of(context)]), self.calls)
        if SEPARATOR not in context.namespace:
            self.before_opening.pop(context.name, id)(made)
        return made

    def hang_opening(self, name: str) -> threading.Event:
        """Let the next opening of this tier hang, until the event is set."""
        go_on = threading.Event()
        self.before_opening[name] = lambda _: go_on.wait(PATIENCE)
        return go_on

    def open(self, *levels: str | tuple[str, int], **settings: Any) -> CacheManager[Any]:
        """A cache over `levels`: "live" or "disk", or one of these with its bound; named L1, L2, ... from the top."""
        pairs = [(level, None) if isinstance(level, str) else level for level in levels]
        return self.open_config([{"backend": kind, "max_entries": bound} for kind, bound in pairs], **settings)

    def open_config(
        self, tiers: list[dict[str, Any]], *, entry_type: Any = Note, read_only: bool = False, **settings: Any
    ) -> CacheManager[Any]:
        """A cache over levels as a configuration gives them."""
        config = CacheConfig(tiers=tuple(tiers), **settings)
        cache: CacheManager[Any] = CacheManager(
            config, entry_type=entry_type, read_only=read_only, clock=self.clock, plugins=[self]
        )
        self.caches.append(cache)
        return cache

    def reopen(self, *levels: str | tuple[str, int], **settings: Any) -> CacheManager[Any]:
        """Close everything, and open a cache over what is on the disks."""
        self.close()
        return self.open(*levels, **settings)

    def close(self) -> None:
        while self.caches:
            self.caches.pop().close()

    def calls_of(self, *methods: str) -> list[tuple[str, str]]:
        """Level and method of each call of one of `methods` since `calls` was cleared."""
        return [(level, method) for level, method, _ in self.calls if method in methods]


def disk_of(context: TierContext) -> str:
    """The disk of a tier: that of its level, and one of its own for what stands beside the records."""
    _, _, side = context.namespace.partition(SEPARATOR)
    return f"{context.name} {side}".rstrip()


def tier(cache: CacheManager[Any], name: str) -> ScriptedTier:
    """The tier of the level with this name."""
    found = next(level.tier for level in cache.levels if level.name == name)
    assert isinstance(found, ScriptedTier)
    return found


def held(cache: CacheManager[Any], name: str, key: str) -> Any:
    """What a level holds for `key`, behind the engine's back: its text, or None."""
    record = tier(cache, name).tier.get(key)
    if isinstance(record, Row):
        return record.columns.get("text", "")
    return None if record is None else record.text


def where(cache: CacheManager[Any], key: str) -> dict[str, str]:
    """Which levels hold `key`, and what."""
    found = {level.name: held(cache, level.name, key) for level in cache.levels}
    return {name: text for name, text in found.items() if text is not None}


PATIENCE = 30.0  # real seconds: only a test that fails waits as long


class Reader(threading.Thread):
    """Reads a key in a thread of its own."""

    def __init__(self, cache: CacheManager[Note], key: str = "a") -> None:
        super().__init__()
        self.cache, self.key = cache, key
        self.found: Note | None = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.found = self.cache.get(self.key)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def text(self) -> str | None:
        self.join(PATIENCE)
        assert not self.is_alive()
        return None if self.found is None else self.found.text


class Gate:
    """Holds up the next read of a level until the test lets it go."""

    def __init__(self, cache: CacheManager[Note], level: str, moment: str = "before") -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        getattr(tier(cache, level), moment)("get", self.pass_through)

    def pass_through(self) -> None:
        self.reached.set()
        assert self.opened.wait(PATIENCE)
