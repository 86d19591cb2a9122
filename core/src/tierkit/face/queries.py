"""Reading many records: what there is, and how much."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from tierkit.entry import CacheEntry
from tierkit.errors import TierUnavailable
from tierkit.face.base import Face

E = TypeVar("E", bound=CacheEntry)


class QueryMethods(Face[E]):
    """Going over the records."""

    def keys(self) -> Iterator[str]:
        """The keys of the records that may be returned: of what `scan` finds, and at the cost of that.

        Every row is read and opened, since what has expired or is damaged is left out.

        Raises:
            CacheStorageError: On the way: the level failed.
        """
        return (entry.key for entry in self.scan())

    def scan(self, *, include_expired: bool = False) -> Iterator[E]:
        """Every entry, in any order, from the authority or, while that is out, the lowest level in service.

        Touches neither usage nor statistics. Blocks on I/O at each step and holds no lock between two. What is written
        or removed meanwhile may or may not be seen. Damaged records are evicted, unless the cache is read-only, and
        left out.

        Args:
            include_expired: Also those that expired and are still held.

        Raises:
            CacheStorageError: On the way: the level failed.
        """
        self._check_open()
        now = self._time.now
        return (entry for entry in self._stack.scan() if include_expired or now() < entry._deadline)

    def size(self) -> int:
        """How many records the authority holds, expired ones that were not swept yet included. Blocks on I/O.

        What waits for the authority, under write-behind and demote-only or after an outage, is not counted before it
        has it.

        Raises:
            CacheStorageError: The authority failed.
        """
        self._check_open()
        authority = self._stack.authority
        if authority is None:
            return 0
        if not authority.in_service:
            raise TierUnavailable(f"{authority.name} ({authority.kind}) is out of service; it is tried again by itself")
        return authority.call(authority.tier.size)
