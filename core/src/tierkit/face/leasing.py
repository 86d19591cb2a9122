"""Leases: records handed out, each to one worker at a time."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tierkit.checks import check_key
from tierkit.entry import CacheEntry, HealthStatus
from tierkit.errors import CacheValidationError
from tierkit.face.base import Face
from tierkit.filters import filters_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tierkit.duration import Duration
    from tierkit.leases import Lease
    from tierkit.leasing import LeasedEntry, Leasing

_USABLE: Final = (HealthStatus.HEALTHY, HealthStatus.UNKNOWN)

E = TypeVar("E", bound=CacheEntry)


class LeaseMethods(Face[E]):
    """Handing out records."""

    def lease(
        self,
        *,
        order_by: str | None = "last_accessed",
        ttl: Duration = 60.0,
        timeout: Duration | None = 0.0,
        where: Mapping[str, Any] | None = None,
        **filters: Any,
    ) -> LeasedEntry[E]:
        """Take one record that nobody else holds: `with cache.lease(source="paid") as entry`.

        No other worker gets it, in no thread or process that uses the same storage, until it is returned or `ttl` is
        over. Taking it counts as a use. The end of the `with` block returns it and counts a success or, after an
        exception, a failure: see `LeasedEntry`.

        Blocks on I/O. Reads no more records than are leased and a few beside, where the tier can order them by itself.

        Args:
            order_by: The first in this order is taken, as for `select`; by default what was used longest ago.
            ttl: After which time, in seconds or as "5m", it is taken to be lost, since its holder may have been killed;
                renew it to hold it for longer. At most a day.
            timeout: How long to wait for a record if none is free, in seconds or as "5m"; None to wait for ever. A
                return in this process is noticed at once, others within a quarter of a second.
            where: Filters by name, for fields that are called like an argument.
            filters: As for `select`. Without one of `health_status`, UNHEALTHY records are left out.

        Returns:
            The record in hand; false, with an `entry` of None, if none was free in time, or the cache is turned off.

        Raises:
            CacheValidationError: `ttl` or `timeout` is out of its bounds, or a filter is wrong.
            TierUnavailable: The authority is out of service.
            CacheStorageError: It failed. If a lease was taken, it runs out.
        """
        from tierkit.duration import in_seconds
        from tierkit.leases import check_lease_seconds
        from tierkit.leasing import LeasedEntry

        self._check_writable()
        seconds, patience = in_seconds("ttl", ttl), in_seconds("timeout", timeout)
        check_lease_seconds(seconds)
        _check_timeout(patience)
        wanted = {"health_status": _USABLE, **(where or {}), **filters}
        query = filters_of(self._stack.sealer.schema).query(wanted, order_by=order_by)
        if not self._stack.levels:
            return LeasedEntry()
        return self._leases().lease(query, seconds, patience, self._check_open)

    def leased(self) -> list[Lease]:
        """The leases that run now, of all workers, by key: who holds what, since when, until when. Blocks on I/O.

        Raises:
            TierUnavailable: The authority is out of service.
            CacheStorageError: It failed.
        """
        self._check_open()
        return sorted(self._leases().store.held(), key=lambda lease: lease.key) if self._stack.levels else []

    def end_lease(self, key: str) -> Lease | None:
        """End the lease of a record, whoever holds it, so that others can have it at once.

        For a holder that will not return it. If it still runs it has the record in hand, and so may another.

        Returns:
            The lease that was ended, or None if there was none.

        Raises:
            CacheStorageError: The storage failed.
        """
        self._check_writable()
        check_key(key)
        if not self._stack.levels:
            return None
        leasing = self._leases()
        ended = leasing.store.free(key)
        leasing.wake()
        return ended

    def _leases(self) -> Leasing[E]:
        from tierkit.leasing import Leasing

        with self._lease_lock:
            if self._leasing is None:
                self._leasing = Leasing(self._health)
            return self._leasing


def _check_timeout(timeout: Any) -> None:
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool) and not isnan(timeout)
    if timeout is not None and not (number and timeout >= 0):
        raise CacheValidationError(
            f"timeout = {timeout!r}: must be seconds from 0 on, or as '5m'; or None to wait for ever"
        )
