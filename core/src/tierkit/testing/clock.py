"""A clock that goes when it is told to."""

from __future__ import annotations

from typing import ClassVar, Final

NOW: Final = 1_700_000_000.0
"""Where a fake clock starts, in POSIX seconds: 14 November 2023."""


class FakeClock:
    """A `tierkit.clock.Clock` that stands still until it is moved.

    A cache with this clock runs no thread of its own: what it does in the background is done by `CacheManager.recover`
    and `CacheManager.sweep`.
    """

    background: ClassVar[bool] = False

    def __init__(self, wall: float = NOW, monotonic: float = 1000.0) -> None:
        """Start at these readings, in seconds."""
        self._wall = wall
        self._monotonic = monotonic

    def wall(self) -> float:
        """The time of day, in POSIX seconds."""
        return self._wall

    def monotonic(self) -> float:
        """Seconds since some fixed moment, never going back."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass: both readings go forward.

        Raises:
            ValueError: `seconds` is negative; to set the wall clock back use `step_wall`.
        """
        if seconds < 0:
            raise ValueError(f"time cannot pass by {seconds} seconds: use step_wall to set the wall clock back")
        self._wall += seconds
        self._monotonic += seconds

    def step_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator would; no time passes."""
        self._wall += seconds
