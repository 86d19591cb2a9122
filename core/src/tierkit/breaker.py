"""The circuit breaker of a level (Nygard, "Release It!", 2007): when to stop asking, and when to try again.

Closed, calls go through. Enough failures in a row open it, and nothing is asked. When the back-off is over it is half
open for one probe: if that succeeds it closes, else it opens again for twice as long, up to a limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "open", "half-open"]


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """How long a breaker stays open.

    Attributes:
        initial_seconds: The first time.
        longest_seconds: The longest: each time is twice the one before, up to this.
    """

    initial_seconds: float = 1.0
    longest_seconds: float = 60.0


class Breaker:
    """One breaker. Not thread-safe: its level holds a lock where it matters.

    Attributes:
        state: "closed", "open" or "half-open".
        failures: Failures in a row.
    """

    __slots__ = ("_backoff", "_monotonic", "_retry_at", "_threshold", "_wait_seconds", "failures", "state")

    def __init__(self, threshold: int, backoff: Backoff, monotonic: Callable[[], float]) -> None:
        """Closed; it opens after `threshold` failures in a row."""
        self.state: State = "closed"
        self.failures = 0
        self._threshold = threshold
        self._backoff = backoff
        self._monotonic = monotonic
        self._wait_seconds = backoff.initial_seconds
        self._retry_at = 0.0

    def failed(self) -> bool:
        """Count a failure. Answers whether there were enough of them in a row to open."""
        self.failures += 1
        return self.failures >= self._threshold

    def open(self) -> None:
        """Ask nothing until the back-off is over; after a probe that failed, twice as long as before."""
        if self.state == "half-open":
            self._wait_seconds = min(2 * self._wait_seconds, self._backoff.longest_seconds)
        self.state = "open"
        self._retry_at = self._monotonic() + self._wait_seconds

    def half_open(self) -> None:
        """Allow one probe."""
        self.state = "half-open"

    def close(self) -> None:
        """Let calls through, and forget the past."""
        self.state = "closed"
        self.failures = 0
        self._wait_seconds = self._backoff.initial_seconds

    @property
    def due_in(self) -> float:
        """Seconds until a probe is allowed: 0.0 or less if it is now, infinite if none is needed."""
        return float("inf") if self.state == "closed" else self._retry_at - self._monotonic()
