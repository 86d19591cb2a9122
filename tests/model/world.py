"""Two processes, the storages that they share, and time: everything that a schedule happens in."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from random import Random
from typing import Any
from unittest.mock import patch

from pydantic import BaseModel
from tests.core.engine.support import Note
from tests.model.cooperative import Scheduler
from tests.model.history import FAILURE_THRESHOLD, History, Operation, Write
from tests.model.locks import installed
from tests.model.shapes import Shape
from tests.model.storage import SharedDisk, StepTier

from tierkit import CacheConfig, CacheManager, TierContext, TierSpec, hookimpl
from tierkit.plugins import PluginRegistry, discover
from tierkit.testing.clock import NOW
from tierkit.upkeep import Upkeep

LATE_SECONDS = 10.0
TOMBSTONE_SECONDS = 100.0
SKEW_SECONDS = 30.0
BACKOFF_SECONDS = 0.008
REPLAY_SECONDS = 1.001
"""A replay that failed is tried again a second later."""


class Process:
    """One life of a process: from its start to its crash, or to the closing of its cache.

    Attributes:
        index: Which of the machines it runs on.
        skew: How far its wall clock is ahead.
        dead: Whether it has crashed.
        manager: Its cache, once it is open.
        background: Whether its cache has a thread that sweeps and recovers: these are operations of the schedule.
        deferred: Acknowledged writes that a level above the authority has missed.
    """

    background = False

    def __init__(self, world: World, index: int, skew: float) -> None:
        self.world, self.index, self.skew = world, index, skew
        self.dead = False
        self.manager: CacheManager[Note] | None = None
        self.deferred: list[Write] = []
        self.gets = 0
        self._cut_off: dict[str, float] = {}

    def wall_at(self, now: float) -> float:
        return NOW + now + self.skew

    def wall(self) -> float:
        return NOW + self.world.scheduler.now + self.skew

    def monotonic(self) -> float:
        return 1000.0 * (self.index + 1) + self.world.scheduler.now

    def failed(self, disk: SharedDisk) -> None:
        """A call of it failed."""
        self._cut_off[disk.name] = self.world.scheduler.now
        disk.overfull = True

    def is_well(self, since: float) -> bool:
        """Whether no call has failed since then, and every level is in service and takes writes."""
        manager = self.manager
        well = manager is None or (
            not manager._closed and all(level.in_service and level.writable for level in manager.levels)
        )
        return well and all(failed < since for failed in self._cut_off.values())

    def was_cut_off(self, disk: SharedDisk, since: float) -> bool:
        """Whether a call failed since then, or the level is out of service."""
        out = self.manager is not None and not self.level(disk).in_service
        return out or self._cut_off.get(disk.name, -1.0) >= since

    def level(self, disk: SharedDisk) -> Any:
        assert self.manager is not None
        return next(level for level in self.manager.levels if level.name == disk.name)

    @property
    def missed_writes(self) -> bool:
        """Whether a level that others read as well may have missed what this process wrote."""
        levels = self.manager.levels if self.manager is not None else ()
        return any(
            not level.in_service or level.missed_writes or level._missed or level._doubtful
            for level in levels
            if not level.live
        )

    def catch_up(self) -> None:
        """What was deferred is visible to others once no level misses it."""
        if self.deferred and not self.missed_writes:
            for write in self.deferred:
                write.visible = (self.world.scheduler.steps, self.world.scheduler.now)
            self.deferred.clear()


class World:
    """A schedule's own world. All that is drawn is drawn from `random`."""

    def __init__(self, shape: Shape, staleness: float | None, random: Random, *, trace: bool = False) -> None:
        self.shape, self.staleness, self.random = shape, staleness, random
        self.scheduler = Scheduler(random)
        self.history = History(self)
        self.disks = {f"L{place}": SharedDisk(f"L{place}") for place in shape.stored}
        self.authority = self.disks[f"L{len(shape.levels)}"]
        self.authority_bounded = shape.levels[-1].bound is not None
        skew = random.choice((0.0, 0.0, SKEW_SECONDS, -SKEW_SECONDS))
        self.processes = [Process(self, 0, skew), Process(self, 1, -skew)]
        self.lives = list(self.processes)
        self.work: list[deque[Any]] = [deque(), deque()]
        self.trace: list[str] | None = [] if trace else None
        self.threshold = random.choice((1, 1, 3))
        self.opening = self.processes[0]
        self.texts = 0

    @property
    def operation(self) -> Operation | None:
        """What the running task is doing."""
        task = self.scheduler.current
        return self.idle if task is None else task.operation

    idle: Operation | None = None
    """What is done while no task runs."""

    def fastest_clock(self) -> float:
        return max(process.wall() for process in self.processes)

    def tell(self, line: str) -> None:
        """Add a line to the trace."""
        if self.trace is None:
            return
        operation = self.operation
        who = "" if operation is None else f"{operation.process.index}:{operation.name} {operation.key}"
        self.trace.append(f"{self.scheduler.now:9.4f}  {who:<18} {line}")

    # -- processes ---------------------------------------------------------------------------------------------------

    def open(self, process: Process) -> None:
        """Open the cache of a process, which is read by others meanwhile."""
        self.opening = process
        process.manager = CacheManager(
            config_of(self.shape, self.staleness, self.threshold), entry_type=Note, clock=process
        )
        process.manager._finalizer.detach()  # a dead process closes nothing
        process.catch_up()

    def start_again(self, index: int) -> Process:
        """The next life of a process; its cache is not open yet."""
        before = self.processes[index]
        after = self.processes[index] = Process(self, index, before.skew)
        after.deferred = before.deferred
        self.lives.append(after)
        return after

    def crash(self, index: int) -> Process:
        """Kill a process where it stands; answer its next life."""
        self.history.uncounted = True
        tasks = [task for task in self.scheduler.tasks if task.process.index == index]  # type: ignore[attr-defined]  # the tasks of a world have one
        for task in tasks:
            task.process.dead = True
        self.processes[index].dead = True
        for task in tasks:
            if task.operation is not None:
                self.history.cut_off(task.operation)
            self.scheduler.kill(task)
        for disk in self.disks.values():
            disk.overfull = True
        return self.start_again(index)

    def make_tier(self, context: TierContext) -> StepTier:
        return StepTier(context, self.disks[context.name], self.opening, self)


class _NoOptions(BaseModel):
    pass


class _Plugin:
    """Offers the tier "step", of the world that is in force."""

    world: World | None = None

    @hookimpl
    def register_tiers(self) -> list[TierSpec]:
        return [TierSpec(kind="step", factory=self._make, options=_NoOptions, traits=StepTier.traits, api=1)]

    def _make(self, context: TierContext, options: object) -> StepTier:
        assert _Plugin.world is not None
        return _Plugin.world.make_tier(context)


@cache
def _registry() -> PluginRegistry:
    return discover([_Plugin()])


@cache
def config_of(shape: Shape, staleness: float | None, threshold: int) -> CacheConfig:
    """The configuration of both processes."""
    return CacheConfig(
        tiers=tuple(level.settings() for level in shape.levels),
        staleness_seconds=staleness,
        late_seconds=LATE_SECONDS,
        tombstone_seconds=TOMBSTONE_SECONDS,
        failure_threshold=FAILURE_THRESHOLD,
        tier_failure_threshold=threshold,
        recovery_initial_seconds=BACKOFF_SECONDS / 4,
        recovery_longest_seconds=BACKOFF_SECONDS,
        decisions_persisted=False,  # its rows have random keys, and nothing goes by them
    )


def _stripe_hash(key: object) -> int:
    """The same in every run: a and b share a stripe."""
    return {"a": 1, "b": 1}.get(str(key), 2)


def _deciding(scheduler: Scheduler, late: Callable[[Upkeep, float], bool]) -> Callable[[Upkeep, float], bool]:
    """`late`, noting when a task has found that it is not."""

    def deciding(stack: Upkeep, started: float) -> bool:
        answer = late(stack, started)
        if not answer:
            scheduler.decide()
        return answer

    return deciding


@contextmanager
def in_force(world: World) -> Iterator[World]:
    """Let the engine run in `world`."""
    tags = iter(range(1, 1000))
    _Plugin.world = world
    with ExitStack() as stack:
        stack.enter_context(installed(world.scheduler))
        stack.enter_context(patch("tierkit.manager.discover", lambda _: _registry()))
        stack.enter_context(patch.object(Upkeep, "late", _deciding(world.scheduler, Upkeep.late)))
        stack.enter_context(patch("tierkit.filling.hash", _stripe_hash, create=True))
        stack.enter_context(patch("tierkit.clock.secrets.randbelow", lambda _: next(tags)))
        yield world
    _Plugin.world = None
