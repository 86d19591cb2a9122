"""What stands where the engine says `threading`: locks and conditions whose waiters let other tasks go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

from tests.model.cooperative import Scheduler

from tierkit import clock, filling, level, manager, tier, upkeep, usage


class Lock:
    """A lock whose holder lets others go on while he waits; reentrant or not."""

    __slots__ = ("count", "owner", "points", "reentrant", "scheduler")

    def __init__(self, scheduler: Scheduler, *, reentrant: bool, points: bool) -> None:
        self.scheduler = scheduler
        self.reentrant = reentrant
        self.points = points
        self.owner: object = None
        self.count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        scheduler = self.scheduler
        task = scheduler.current or scheduler
        if self.count:
            if self.reentrant and self.owner is task:
                self.count += 1
                return True
            if not blocking or not scheduler.wait_until(self._free, None if timeout < 0 else timeout):
                return False
        elif self.points:
            scheduler.light_point()
            if not self._free():  # others were here meanwhile
                return self.acquire(blocking, timeout)
        self.owner, self.count = task, 1
        return True

    def _free(self) -> bool:
        return not self.count

    def release(self) -> None:
        assert self.count, "released and not held"
        self.count -= 1

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.count -= 1


class Condition:
    """A condition over a reentrant lock. Nobody wakes who was not notified or whose time is not over."""

    def __init__(self, lock: Lock) -> None:
        self.scheduler = lock.scheduler
        self.lock = lock
        self.round = 0

    def wait(self, timeout: float | None = None) -> bool:
        held, now = self.lock.count, self.round
        self.lock.count = 0
        try:
            return self.scheduler.wait_until(lambda: self.round != now, timeout)
        finally:
            if self.lock.count:
                self.scheduler.wait_until(lambda: not self.lock.count, None)
            self.lock.owner, self.lock.count = self.scheduler.current or self.scheduler, held

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        until = None if timeout is None else self.scheduler.now + timeout
        while not predicate():
            left = None if until is None else until - self.scheduler.now
            if left is not None and left <= 0:
                break
            self.wait(left)
        return predicate()

    def notify_all(self) -> None:
        self.round += 1

    notify = notify_all


class Threading:
    """Stands where a module of the engine says `threading`."""

    TIMEOUT_MAX: Final = 1e9
    Event = threading.Event  # the engine asks these whether they are set, and does not wait for them here

    def __init__(self, scheduler: Scheduler, *, points: bool) -> None:
        self.scheduler = scheduler
        self.points = points

    def RLock(self) -> Lock:  # noqa: N802 - the name in `threading`
        return Lock(self.scheduler, reentrant=True, points=self.points)

    def Lock(self) -> Lock:  # noqa: N802 - likewise
        return Lock(self.scheduler, reentrant=False, points=self.points)

    def Condition(self, lock: Any) -> Condition:  # noqa: N802 - likewise
        return Condition(lock)

    def get_ident(self) -> int:
        return id(self.scheduler.current)


LOCKING: Final[dict[Any, bool]] = {
    filling: True, level: True, usage: False, clock: False, manager: False, upkeep: False, tier: False
}  # fmt: skip
"""The modules that take locks, and whether taking one is a point there: not where no other's work comes between."""


@contextmanager
def installed(scheduler: Scheduler) -> Iterator[None]:
    """Let every lock that the engine makes meanwhile be one of `scheduler`."""
    real = {module: module.threading for module in LOCKING}
    for module, points in LOCKING.items():
        module.threading = Threading(scheduler, points=points)
    try:
        yield
    finally:
        for module, own in real.items():
            module.threading = own
