"""When the levels of this process may be filled, and who reads a key for whom.

A read that fills L1 may be slower than a write of the same key: without a rule it would put back what the write
replaced. So every key belongs to a stripe with a counter. A write bumps it when it starts and, in one step with its
own fill, when it ends. A read fills L1 only if the counter is as it was when the read began; a write that finds it
changed by another drops the L1 copy up to its version instead, and the next read fetches the truth.

A flight is one read of one key below L1 that others who want the same key wait for. A write detaches the key's flight
when it starts and when it ends, so that no read that begins after a write returned joins a flight that began before.

Stored levels need no counter against a write that reaches them, since versions order the two. What they do not hear of
are the writes of their time out of service. While that ends, promotions into stored levels stand aside, and one that
began before is given up.

Locks are reentrant: a signal handler or a finalizer that uses the cache may run while its thread holds one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

T = TypeVar("T")

STRIPES: Final = 64
TURN_SECONDS: Final = 0.1


class Flight(Generic[T]):
    """One read that several callers share. The leader makes it, holding its lock, and lands it.

    Attributes:
        started: When it began, by the monotonic clock.
        leader: The thread that makes it.
        landed: Whether `result` is what the leader found.
        result: What it found.
    """

    __slots__ = ("_lock", "landed", "leader", "result", "started")

    def __init__(self, started: float) -> None:
        """A flight that began at `started`, by the monotonic clock."""
        self.started = started
        self.leader = threading.get_ident()
        self.landed = False
        self.result: T | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def release(self) -> None:
        """Let those who wait go on: the flight has landed or was given up."""
        self._lock.release()

    def wait(self, patience_seconds: float) -> bool:
        """Wait for the leader, but not for ever. Answers whether the flight landed."""
        if self.leader == threading.get_ident():
            return False  # the leader itself, called back from within its own read
        if self._lock.acquire(timeout=min(patience_seconds, threading.TIMEOUT_MAX)):
            self._lock.release()
        return self.landed


class Filling(Generic[T]):
    """The counters, their locks, and the flights of one cache."""

    def __init__(self, patience_seconds: float = 10.0) -> None:
        """All stripes at zero. Nobody waits longer than `patience_seconds` for a promotion."""
        self.counters = [0] * STRIPES
        self._patience_seconds = patience_seconds
        self.renew()

    def renew(self) -> None:
        """Forget everyone who is under way: in a forked child they do not exist."""
        self.locks = tuple(threading.RLock() for _ in range(STRIPES))
        self._turns = tuple(threading.RLock() for _ in range(STRIPES))
        self.flights: dict[str, Flight[T]] = {}
        self._aside_lock = threading.RLock()  # taken itself: an interrupt within a condition's `with` leaves it held
        self._promotions = threading.Condition(self._aside_lock)
        self._promoting = 0
        self._aside = 0

    def stripe(self, key: str) -> int:
        """The stripe of `key`."""
        return hash(key) % STRIPES

    def begin(self, key: str) -> int:
        """A write starts: bump and detach. Answers the counter to compare with at the end."""
        stripe = self.stripe(key)
        with self.locks[stripe]:
            return self.bump(stripe, key)

    def bump(self, stripe: int, key: str) -> int:
        """Bump the stripe's counter and detach the key's flight. The stripe's lock is held."""
        self.counters[stripe] += 1
        self.flights.pop(key, None)
        return self.counters[stripe]

    def detach(self, key: str, flight: Flight[T]) -> None:
        """Let nobody join `flight` any more."""
        with self.locks[self.stripe(key)]:
            if self.flights.get(key) is flight:
                self.flights.pop(key, None)

    @contextmanager
    def turn(self, key: str) -> Iterator[None]:
        """Within, threads that change a record by compare and set take turns: none loses to the others again and again.

        It is for fairness alone: who has waited for `TURN_SECONDS` goes on all the same.
        """
        lock = self._turns[self.stripe(key)]
        taken = lock.acquire(timeout=TURN_SECONDS)
        try:
            yield
        finally:
            if taken:
                lock.release()

    def snapshot(self) -> list[int]:
        """All counters as they are, for a bulk write, which adds its own bumps to the copy."""
        return list(self.counters)

    def begin_many(self, keys: Iterable[str], expected: list[int]) -> None:
        """A bulk write of `keys` starts: as `begin`, noting its own bumps in `expected`."""
        for key in keys:
            self.begin(key)
            expected[self.stripe(key)] += 1

    def reset(self) -> None:
        """Bump every stripe and detach every flight: nothing under way may fill or be joined."""
        for stripe, lock in enumerate(self.locks):
            with lock:
                self.counters[stripe] += 1
        self.flights.clear()

    # -- promotions into stored levels ---------------------------------------------------------------------------------

    def begin_promotion(self, key: str, expected: int) -> bool:
        """Whether a read that began at counter `expected` may copy up into a stored level; then end it."""
        with self._aside_lock:
            if self._aside or self.counters[self.stripe(key)] != expected:
                return False
            self._promoting += 1
            return True

    def end_promotion(self) -> None:
        """A promotion that was begun is over."""
        with self._aside_lock:
            self._promoting -= 1
            self._promotions.notify_all()

    @contextmanager
    def promotions_aside(self) -> Iterator[None]:
        """Within, no promotion into a stored level is under way or begins."""
        with self._aside_lock:
            self._aside += 1
        try:
            with self._aside_lock:
                self._promotions.wait_for(lambda: self._promoting == 0, self._patience_seconds)
            yield
        finally:
            with self._aside_lock:
                self._aside -= 1
