"""Time and versions.

Inside a process time is the wall clock at open plus the time elapsed since, so that a step of the
wall clock neither ends nor extends a life. Versions are stamps of a hybrid logical clock (Kulkarni et
al., "Logical Physical Clocks", 2014) and order the writes of a key without a lock.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

_BELIEVED: Final = 86_400 * 1_000_000  # microseconds that the clock of another machine may be ahead
_LOOKS: Final = 5  # at both clocks, the quickest of which counts: a process may be held up between the two
_HIGHEST: Final = 2**63 - 1
_SEQUENCE: Final = 1024  # ten random bits per process below the microseconds


class Clock(Protocol):
    """Where a cache gets its time from. Tests inject `tierkit.testing.FakeClock`.

    A clock with an attribute `background` that is False gets no background thread: its time does not pass by itself,
    so whoever moves it calls `CacheManager.recover` and `sweep`.
    """

    def wall(self) -> float:
        """The time of day, in POSIX seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment, never going back."""
        ...


class SystemClock:
    """The clocks of the machine; the monotonic one also counts while the machine is suspended, where it can."""

    wall = staticmethod(time.time)
    monotonic: Callable[[], float] = staticmethod(
        partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
    )


class CacheTime:
    """The time inside one open cache: wall clock at open plus monotonic time since.

    Attributes:
        monotonic: The clock's monotonic reading, in seconds.
        offset: What to add to `monotonic()` to get POSIX seconds.
    """

    __slots__ = ("monotonic", "offset")

    def __init__(self, clock: Clock) -> None:
        """Anchor the time at the clock's present reading."""
        self.monotonic = clock.monotonic
        _, self.offset = min(_looked(clock) for _ in range(_LOOKS))

    def now(self) -> float:
        """The present time, in POSIX seconds."""
        return self.monotonic() + self.offset


def _looked(clock: Clock) -> tuple[float, float]:
    """How long a look at both clocks took, and what lies between them."""
    before, wall, after = clock.monotonic(), clock.wall(), clock.monotonic()
    return after - before, wall - (before + after) / 2


def written_at(version: int) -> float:
    """When a write with this version was stamped, in POSIX seconds, by the clock of who made it."""
    return version // _SEQUENCE / 1_000_000


class VersionClock:
    """Stamps for writes: wall microseconds times 1024 plus ten random bits per process.

    Every stamp is above the one before and above every version observed. Thread-safe.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        """Stamp by `now`, which gives POSIX seconds."""
        self._now = now
        self._last = 0
        self.renew()

    def renew(self) -> None:
        """Take another tag and lock: a forked child must not stamp as its parent does."""
        self._tag = secrets.randbelow(_SEQUENCE)
        self._lock = threading.RLock()  # a signal handler may stamp in the midst of a stamp

    def next(self) -> int:
        """A stamp that no other process gives and that is above all before it."""
        with self._lock:
            micros = int(self._now() * 1_000_000)
            self._last = micros = max(micros, self._last + 1)
            return micros * _SEQUENCE + self._tag

    def above(self, version: int) -> int:
        """A stamp above `version`, even where that is the version of a damaged record, which no clock follows.

        Only where there is none above it the stamp is one of now.
        """
        self.observe(version)
        stamp = self.next()
        raised = (version // _SEQUENCE + 1) * _SEQUENCE + stamp % _SEQUENCE
        return stamp if stamp > version or raised > _HIGHEST else raised

    def observe(self, version: int) -> None:
        """Make every later stamp larger than `version`, unless that is more than a day ahead: then it is damage.

        One flipped bit would else take every later stamp centuries ahead.
        """
        micros = version // _SEQUENCE
        if micros > self._last and self.believes(version):
            with self._lock:
                self._last = max(self._last, micros)

    def believes(self, version: int) -> bool:
        """Whether a clock of today may have made `version`: it is at most a day ahead."""
        return version // _SEQUENCE <= self._now() * 1_000_000 + _BELIEVED
