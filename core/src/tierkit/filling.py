"""When the levels of this process may be filled, and who reads a key for whom.

A read that fills L1 may be slower than a write of the same key: without a rule it would put back what the write
replaced. So every key belongs to a stripe with a counter. A write bumps it when it starts and, in one step with its
own fill, when it ends. A read fills L1 only if the counter is as it was when the read began; a write that finds it
changed by another drops the L1 copy up to its version instead, and the next read fetches the truth.

A flight is one read of one key below L1 that others who want the same key wait for. A write detaches the key's flight
when it starts and when it ends, so that no read that begins after a write returned joins a flight that began before.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

STRIPES: Final = 64


class Flight(Generic[T]):
    """One read that several callers share. The leader makes it, holding its lock, and lands it."""

    __slots__ = ("_lock", "failed", "result", "started")

    def __init__(self, started: float) -> None:
        """A flight that began at `started`, by the monotonic clock."""
        self.started = started
        self.failed = False
        self.result: T | None = None
        self._lock = threading.Lock()
        self._lock.acquire()

    def land(self, result: T | None, failed: bool = False) -> None:
        """Give `result` to everyone who waits."""
        self.result = result
        self.failed = failed
        self._lock.release()

    def wait(self) -> T | None:
        """Wait for the leader and take its result."""
        with self._lock:
            return self.result


class Filling(Generic[T]):
    """The counters, their locks, and the flights of one cache."""

    def __init__(self) -> None:
        """All stripes at zero."""
        self.locks = tuple(threading.Lock() for _ in range(STRIPES))
        self.counters = [0] * STRIPES
        self.flights: dict[str, Flight[T]] = {}

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

    def snapshot(self) -> list[int]:
        """All counters as they are, for a bulk write, which adds its own bumps to the copy."""
        return list(self.counters)

    def begin_many(self, keys: Iterable[str], expected: list[int]) -> None:
        """A bulk write of `keys` starts: as `begin`, noting its own bumps in `expected`."""
        for key in keys:
            stripe = self.stripe(key)
            with self.locks[stripe]:
                self.bump(stripe, key)
            expected[stripe] += 1

    def reset(self) -> None:
        """Bump every stripe and detach every flight: nothing under way may fill or be joined."""
        for stripe, lock in enumerate(self.locks):
            with lock:
                self.counters[stripe] += 1
        self.flights.clear()
