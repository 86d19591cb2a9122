"""Handing out records: each to one worker at a time.

A worker gets the first record, in the order that it asks for, that matches, is not expired and not leased. The lease is
taken by compare and set before the record is looked at again: whoever came first wins, the others go on to the next
candidate. A lease counts as a use of the record, which is told to the authority at once, so that workers in all
processes go round. What a worker learnt about the record is counted before the lease is returned: the next one to get
it knows.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, repeat
from types import TracebackType
from typing import Final, Generic, TypeVar

from tierkit.duration import Duration, in_seconds
from tierkit.entry import CacheEntry
from tierkit.errors import TierkitError
from tierkit.filters import fresh_at
from tierkit.forking import in_child
from tierkit.health import Health
from tierkit.leases import Lease, LeaseStore
from tierkit.query import Condition, Query
from tierkit.querying import Querying
from tierkit.row import key_digest
from tierkit.statistics import LEASE_COUNTS

logger: Final = logging.getLogger("tierkit.lease")

SPARE: Final = 8
"""Candidates that are read beside those that are leased: others may take the first ones meanwhile."""
PAUSES_SECONDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25)
"""Between two looks of one who waits, if nothing is returned in this process; the last goes on."""

E = TypeVar("E", bound=CacheEntry)


class Leasing(Generic[E]):
    """Hands out the records of one cache.

    Attributes:
        store: Who holds what.
        counts: What was counted since the cache was opened: see `CacheStatistics`.
    """

    def __init__(self, health: Health[E]) -> None:
        """Take the records of the stack of `health`, and count there what becomes of them."""
        self.stack = health.stack
        self.store = LeaseStore(self.stack)
        self.counts = dict.fromkeys(LEASE_COUNTS, 0)
        self._health = health
        self._comparing = health.comparing
        self._querying: Querying[E] = Querying(self.stack)
        self.renew()
        in_child(self, Leasing.renew)

    def renew(self) -> None:
        """In a forked child: the leases are the parent's."""
        self._lock = threading.RLock()  # taken itself: an interrupt within a condition's `with` leaves it held
        self._returned = threading.Condition(self._lock)
        self._returns = 0
        self._held: weakref.WeakSet[LeasedEntry[E]] = weakref.WeakSet()

    def lease(
        self, query: Query, ttl_seconds: float, timeout_seconds: float | None, check_open: Callable[[], object]
    ) -> LeasedEntry[E]:
        """A record that `query` finds and that has not expired, or none after `timeout_seconds` (None: wait on).

        Blocks on I/O. Before each look `check_open` is called: what it raises ends the waiting.
        """
        began, pauses = self.stack.time.monotonic(), chain(PAUSES_SECONDS, repeat(PAUSES_SECONDS[-1]))
        while True:
            check_open()
            returns = self._returns
            found = self._first_free(_with(query, fresh_at(self.stack.time.now())), ttl_seconds)
            if found is not None:
                return self._handed_out(LeasedEntry(*found, self, ttl_seconds))
            waited = self.stack.time.monotonic() - began
            if timeout_seconds is not None and waited >= timeout_seconds:
                self._count("leases_missed")
                return LeasedEntry()
            left = next(pauses) if timeout_seconds is None else min(next(pauses), timeout_seconds - waited)
            self.wait(left, returns)

    def wait(self, seconds: float, returns: int) -> None:
        """Wait until a lease is returned in this process, if none was since there were `returns`; or so long."""
        with self._lock:
            if self._returns == returns:
                self._returned.wait(seconds)

    def wake(self) -> None:
        """Have those who wait look again."""
        with self._lock:
            self._returns += 1
            self._returned.notify_all()

    def close(self) -> None:
        """Return every lease that this cache still holds, and wake those who wait."""
        with self._lock:
            in_hand = list(self._held)
        for held in in_hand:
            try:
                held.release()
            except TierkitError as error:
                logger.warning("the lease of %s could not be returned; it runs out: %s", held.name, str(error))
        self.wake()

    def give_back(self, held: LeasedEntry[E], lease: Lease, healthy: bool | None, *, lost: bool) -> bool:
        """Count what was learnt and return `lease`. Answers whether it was still held; if not nothing is counted.

        Args:
            held: What is in hand.
            lease: Its lease.
            healthy: What was learnt; None for nothing.
            lost: Whether it is known to be lost, and was said to be.
        """
        with self._lock:
            self._held.discard(held)
        if lost:
            return False
        try:
            kept = self.store.holds(lease)
            if kept and healthy is not None:
                self._health.judge(lease.key, healthy)
        finally:
            returned = self.store.release(lease)
            self.wake()
        if not (kept and returned):
            self.note_lost(lease)
        return kept and returned

    def has_run_out(self, lease: Lease) -> bool:
        """Whether `lease` is over by the clock."""
        return self.stack.time.now() >= lease._deadline

    def note_lost(self, lease: Lease) -> None:
        """Count and say that a lease was lost."""
        self._count("leases_lost")
        logger.warning("the lease of %s was lost: it ran out, or others ended it", key_digest(lease.key))

    def _handed_out(self, leased: LeasedEntry[E]) -> LeasedEntry[E]:
        self._count("leases_taken")
        with self._lock:
            self._held.add(leased)
        return leased

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += self.stack.counters.step

    # -- finding -----------------------------------------------------------------------------------------------------

    def _first_free(self, query: Query, ttl_seconds: float) -> tuple[E, Lease] | None:
        passed = {lease.key for lease in self.store.held()}
        while True:
            asked, seen = len(passed) + SPARE, 0
            for entry in self._querying.select(_with(query, limit=asked)):
                seen += 1
                if entry.key not in passed and (taken := self._take(entry.key, query, ttl_seconds)):
                    return taken
                passed.add(entry.key)
            if seen < asked:
                return None

    def _take(self, key: str, query: Query, ttl_seconds: float) -> tuple[E, Lease] | None:
        """The record of `key` and a lease of it; None if another has it, or it is not what is asked for any more."""
        lease = self.store.acquire(key, ttl_seconds)
        if lease is None:
            return None
        entry = None
        try:
            entry = self._now(key, query)  # whoever had it until now may have changed it
        finally:
            if entry is None:
                with suppress(TierkitError):  # then it runs out
                    self.store.release(lease)
        if entry is None:
            return None
        self.stack.note_use(entry)
        return entry, lease

    def _now(self, key: str, query: Query) -> E | None:
        authority = self._comparing.writer.authority([key])
        held = self._comparing.held(authority, key)
        entry = None if held is None else self.stack.fresh(authority, held)
        return entry if entry is not None and query.matches(entry) else None


class LeasedEntry(Generic[E]):
    """A record in hand, or nothing where none was free: then it is false, and `entry` is None.

    In a `with` statement the entry is what `as` names. At the end of the block the lease is returned, and the record
    gets a success, or a failure if the block ends with an exception. Exceptions that say nothing of the record count
    neither way: `KeyboardInterrupt`, `SystemExit`, `GeneratorExit`, `asyncio.CancelledError` (whatever is no
    `Exception`), and the errors of the cache itself.

    It may be used without `with`: call `release`. One that is dropped instead runs out. In a forked child it is the
    parent's, and `renew` and `release` do nothing. Thread-safe.

    Attributes:
        entry: The entry as it was when the lease was taken, or None.
    """

    def __init__(
        self,
        entry: E | None = None,
        lease: Lease | None = None,
        leasing: Leasing[E] | None = None,
        ttl_seconds: float = 0.0,
    ) -> None:
        """For `CacheManager.lease`; without arguments nothing is in hand."""
        self.entry = entry
        self._lease = lease
        self._leasing = leasing
        self._ttl_seconds = ttl_seconds
        self._over = False
        self._lost = False
        self._process = os.getpid()
        self._lock = threading.RLock()

    @property
    def lease(self) -> Lease | None:
        """Who holds it, since when and until when, and its token; None if nothing was free."""
        return self._lease

    @property
    def token(self) -> int:
        """Grows, for one record, with each lease and renewal; 0 if nothing was free. See `Lease.token`."""
        return self._lease.token if self._lease else 0

    @property
    def lost(self) -> bool:
        """Whether it ran out or was ended by others, as far as is known: by the clock, a renewal, or the return."""
        held = self._in_hand()
        return self._lost or (held is not None and held[0].has_run_out(held[1]))

    def __repr__(self) -> str:
        """The record by its digest, who has it and until when; no field of it."""
        if self._lease is None:
            return f"<{type(self).__name__}: nothing was free>"
        return f"<{type(self).__name__} {self.name}: {self._lease.holder}, until {self._lease.until.isoformat()}>"

    @property
    def name(self) -> str:
        """The digest of the record's key, for a log."""
        return key_digest(self._lease.key) if self._lease else ""

    def renew(self, ttl: Duration | None = None) -> bool:
        """Let it run for `ttl` from now on, in seconds or as "5m"; by default as long as it was taken for.

        Blocks on I/O.

        Returns:
            Whether it is still held. If not it is lost: another may have the record.

        Raises:
            CacheValidationError: `ttl` is out of its bounds.
            CacheStorageError: The storage failed. It may or may not be renewed.
        """
        seconds: float = self._ttl_seconds if ttl is None else in_seconds("ttl", ttl)
        with self._lock:
            held = self._in_hand()
            if held is None or self._lost:
                return False
            renewed = held[0].store.renew(held[1], seconds)
            if renewed is None:
                self._lost = True
                held[0].note_lost(held[1])
                return False
            self._lease = renewed
            return True

    def release(self, healthy: bool | None = None) -> bool:
        """Return the record, so that others can have it. A second call does nothing. Blocks on I/O.

        Args:
            healthy: What was learnt of it: True counts a success, False a failure, None nothing. If the lease was lost
                nothing is counted: another may have the record.

        Returns:
            Whether it was held until now.

        Raises:
            CacheStorageError: The storage failed. If it is not returned it runs out.
        """
        with self._lock:
            held = self._in_hand()
            if held is None:
                return False
            self._over = True
            kept = held[0].give_back(self, held[1], healthy, lost=self._lost)
            self._lost = not kept
            return kept

    def __bool__(self) -> bool:
        """Whether there is a record."""
        return self.entry is not None

    def __enter__(self) -> E | None:
        """The entry, or None."""
        return self.entry

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Count a success or a failure, and return the record."""
        try:
            self.release(_verdict(error))
        except TierkitError as trouble:
            if error is None:
                raise
            logger.warning("the lease of %s could not be returned; it runs out: %s", self.name, str(trouble))

    def _in_hand(self) -> tuple[Leasing[E], Lease] | None:
        """What hands out, and the lease; None if there is none, it is over, or it is the parent's."""
        if self._leasing is None or self._lease is None or self._over or self._process != os.getpid():
            return None
        return self._leasing, self._lease


def _with(query: Query, *conditions: Condition, limit: int | None = None) -> Query:
    """`query` with more conditions, for so many records."""
    return Query(
        conditions=(*query.conditions, *conditions),
        order_by=query.order_by,
        descending=query.descending,
        limit=limit,
    )


def _verdict(error: BaseException | None) -> bool | None:
    """What the end of a block says of the record."""
    if error is None:
        return True
    return False if isinstance(error, Exception) and not isinstance(error, TierkitError) else None
