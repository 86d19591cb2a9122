"""Reading many records: what there is, and how much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from tierkit.entry import CacheEntry
from tierkit.errors import TierUnavailable
from tierkit.face.base import Face
from tierkit.filters import filters_of, fresh_at
from tierkit.query import Query
from tierkit.querying import Querying

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

    def select(
        self,
        *,
        order_by: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        include_expired: bool = False,
        where: Mapping[str, Any] | None = None,
        **filters: Any,
    ) -> Iterator[E]:
        """The entries of which every filter holds: `select(source="paid", failure_count=at_most(2), limit=10)`.

        Asks the authority or, while that is out, the lowest level in service. A tier with the trait `QUERYABLE`, as
        SQLite, answers by itself, by an index where there is one; another is gone over. Else like `scan`: neither usage
        nor statistics are touched, and memory does not grow with the number of records: only, where they are ordered
        and many, with what orders them.

        Args:
            order_by: A field; with a `-` before it, descending. No value comes first, text goes by code point, and the
                key decides between equals.
            descending: The same order from its end.
            limit: The most entries to answer. Without `order_by` it is open which.
            include_expired: Also those that expired and are still held.
            where: Filters by name, for fields that are called like an argument.
            filters: By field: a value, a list or set of values, None for no value, or `at_least`, `at_most`, `above`,
                `below`, `between`, `other_than` and `contains`. Values have the field's type; of an enum its value will
                do.

        Raises:
            CacheValidationError: There is no such field, it is a secret, or a value is not of its type.
            CacheStorageError: On the way: the level failed.
        """
        query = self._query(where, filters, include_expired, order_by=order_by, descending=descending, limit=limit)
        found = Querying(self._stack).select(query)
        if include_expired:
            return found
        now, monotonic, offset = self._time.now, self._time.monotonic, self._time.offset
        # The deadline has to be computed; what was just opened has it at hand.
        return (entry for entry in found if monotonic() + offset < entry._fresh_until or now() < entry._deadline)

    def count(self, *, include_expired: bool = False, where: Mapping[str, Any] | None = None, **filters: Any) -> int:
        """How many records `select` would find with these filters, at the cost of finding and not of reading them.

        As `size`, it may count damaged records that nobody has come upon yet.

        Raises:
            CacheValidationError: As for `select`.
            CacheStorageError: The level failed.
        """
        return Querying(self._stack).count(self._query(where, filters, include_expired))

    def _query(
        self, where: Mapping[str, Any] | None, filters: Mapping[str, Any], include_expired: bool, **order: Any
    ) -> Query:
        self._check_open()
        fresh = () if include_expired else (fresh_at(self._time.now()),)
        asked = {**where, **filters} if where else filters
        query = filters_of(self._stack.sealer.schema).query(asked, also=fresh, **order)
        if query.goes_by_usage:
            self._stack.flush()
        return query

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
