"""What an eviction policy is: an order of keys. Values, bounds and locks are the tier's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar, Final, NamedTuple

_READS_RESTORED: Final = 15
"""Of a stored key's reads, how many a policy is told by default: no counter of those here tells more apart."""


class Held(NamedTuple):
    """A key that a tier held before the policy was made, with its stored usage."""

    key: str
    version: int
    """Of the record: the higher, the later it was written."""
    reads: int
    """How often it was read."""
    last_accessed: float
    """When it was last read, in POSIX seconds; 0 for never."""

    @property
    def last_used(self) -> float:
        """When it was last read or, if that is later, written; POSIX seconds."""
        return last_used(self.version, self.last_accessed)


def last_used(version: int, last_accessed: float) -> float:
    """The later of a record's last read and its writing: a version starts with the microseconds of that."""
    return max(version / 1024 / 1_000_000, last_accessed)


class EvictionPolicy(ABC):
    """The order of the keys of one tier, coldest first. Made for a capacity: `Policy(max_entries)`.

    `hit` may be called by any thread at any time, without a lock; the other methods by one thread at a time. A tier
    names victims by `coldest` and removes them one by one: a policy that steps from key to key notes what it has named,
    so that asking twice gives the same.

    Attributes:
        counts_hits: Whether `hit` changes the order. Where it does not, a tier need not call it.
        hit: `key` was read. O(1). It may raise `KeyError` if the key is not there, as it may have gone a moment ago.
    """

    __slots__ = ()
    counts_hits: ClassVar[bool] = True
    hit: Callable[[str], None]

    @abstractmethod
    def admit(self, key: str) -> None:
        """`key` was written, for the first time or again. O(1)."""

    @abstractmethod
    def remove(self, key: str) -> None:
        """`key` is gone, for whatever reason; it need not be there. O(1)."""

    @abstractmethod
    def coldest(self, count: int) -> list[str]:
        """At most `count` keys, fewer only if there are not as many; the first to go first. Removes none.

        Asked again it answers the same, if nothing was written or read meanwhile.
        """

    def pop(self) -> str | None:
        """Take out the key that `coldest(1)` names, and answer it; None if there is none."""
        key = next(iter(self.coldest(1)), None)
        if key is not None:
            self.remove(key)
        return key

    def restore(self, held: Iterable[Held]) -> None:
        """Take up keys that a tier held before. By default as if they were written in the order of their last use."""
        for key, _, reads, _ in sorted(held, key=lambda item: (item.last_used, item.version)):
            self.admit(key)
            for _ in range(min(reads, _READS_RESTORED)):
                self.hit(key)


PolicyFactory = Callable[[int], EvictionPolicy]
"""Makes a policy for as many keys as its argument says, at least one."""
