"""What is done to all records that a query finds: deleting them, and counting a failure against them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

from tierkit.entry import CacheEntry
from tierkit.errors import CacheValidationError
from tierkit.face.health import HealthMethods
from tierkit.health import HealthResult
from tierkit.query import Query
from tierkit.querying import Querying
from tierkit.removing import remove_matching
from tierkit.writing import BATCH

E = TypeVar("E", bound=CacheEntry)


class FilterMethods(HealthMethods[E]):
    """Deleting and invalidating by the filters of `select`."""

    def delete_where(
        self, *, include_expired: bool = False, where: Mapping[str, Any] | None = None, **filters: Any
    ) -> int:
        """Delete the records that `select` finds with these filters, from every level.

        Each by compare and set at its own version: one that changes meanwhile stays, unless the filters still hold of
        it. In batches of 1000; atomic one by one, not as a whole. Blocks on I/O.

        Returns:
            How many were deleted.

        Raises:
            CacheValidationError: As for `select`; or there is no filter: `clear` removes every record.
            TierUnavailable: The authority is out of service. Nothing was deleted.
            CacheStorageError: It failed on the way. Some records may be gone.
        """
        query = self._bulk_query("delete_where", "clear() removes every record", where, filters, include_expired)
        return sum(remove_matching(self._comparing, query, entries) for entries in self._batches(query))

    def invalidate_where(self, *, where: Mapping[str, Any] | None = None, **filters: Any) -> HealthResult:
        """Count a failure of each record that `select` finds with these filters, as `invalidate_by_health` does.

        In the sweeps of `record_health`: at the threshold records are removed. Blocks on I/O.

        Returns:
            How many are unhealthy now, were removed, or went missing; and what the storage did not take.

        Raises:
            CacheValidationError: As for `select`; or there is no filter.
            TierUnavailable: The authority is out of service. Nothing was counted.
        """
        query = self._bulk_query("invalidate_where", "record_health takes all keys", where, filters)
        result = HealthResult()
        for entries in self._batches(query):
            result += self._health.sweep(dict.fromkeys([entry.key for entry in entries], False))
            if result.error is not None:
                break
        return result

    def _bulk_query(
        self,
        method: str,
        instead: str,
        where: Mapping[str, Any] | None,
        filters: Mapping[str, Any],
        include_expired: bool = False,
    ) -> Query:
        self._check_writable()
        if not filters and not where:
            raise CacheValidationError(f"{method} without a filter would mean every record: {instead}")
        query = self._query(where, filters, include_expired)
        if self._stack.levels:
            self._stack.owing.adopt_shared()
            self._stack.owing.replay_all()  # it is found, and compared, where it is
        return query

    def _batches(self, query: Query) -> Iterator[list[E]]:
        level = self._writer.authority() if self._stack.levels else None  # a level above it would find a part
        found = Querying(self._stack).select(query, level)
        while batch := list(islice(found, BATCH)):
            yield batch
