"""The circuit breaker of a level (Nygard, "Release It!", 2007): when to stop asking, and when to try again.

Closed, calls go through. Enough failures in a row open it, and nothing is asked. When the back-off is over it is half
open for one probe: if that succeeds it closes, else it opens again for twice as long, up to a limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

State = Literal["closed", "open", "half-open"]
Kind = Literal["read", "write", "mark"]
"""What a call does to a storage: "write" for what needs room, "mark" for a deletion, "read" for all else."""
KINDS: Final[tuple[Kind, ...]] = ("read", "write", "mark")


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

    The kinds are counted apart: a storage that can be read and not written must not look well in between, nor one that
    takes deletions and no records.

    Attributes:
        state: "closed", "open" or "half-open".
    """

    __slots__ = ("_backoff", "_in_a_row", "_monotonic", "_retry_at", "_threshold", "_wait_seconds", "state")

    def __init__(self, threshold: int, backoff: Backoff, monotonic: Callable[[], float]) -> None:
        """Closed; it opens after `threshold` failures of a kind in a row."""
        self.state: State = "closed"
        self._in_a_row = dict.fromkeys(KINDS, 0)
        self._threshold = threshold
        self._backoff = backoff
        self._monotonic = monotonic
        self._wait_seconds = backoff.initial_seconds
        self._retry_at = 0.0

    @property
    def failures(self) -> int:
        """Failures in a row, of the kind that has most."""
        return max(self._in_a_row.values())

    def failed(self, kind: Kind) -> bool:
        """Count a failure. Answers whether there were enough of its kind in a row to open."""
        self._in_a_row[kind] += 1
        return self._in_a_row[kind] >= self._threshold

    def succeeded(self, kind: Kind) -> None:
        """A call did not fail."""
        self._in_a_row[kind] = 0

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
        self._in_a_row = dict.fromkeys(KINDS, 0)
        self._wait_seconds = self._backoff.initial_seconds

    @property
    def due_in(self) -> float:
        """Seconds until a probe is allowed: 0.0 or less if it is now, infinite if none is needed."""
        return float("inf") if self.state == "closed" else self._retry_at - self._monotonic()
