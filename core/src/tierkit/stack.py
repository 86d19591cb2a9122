"""The stack: levels in order, and how a record is found, kept and dropped.

Order. Levels stand from L1 down. Those that hold live entries of this process stand on top; below them are the stored
levels, which hold rows. The lowest is the authority: it has everything, a level above has a part of it. A write goes
bottom-up, the authority first, so that a crash leaves the truth below and never only above. A read goes top-down; what
answers is promoted to the levels above.

Versions. Every write is stamped (`clock.VersionClock`), and a tier takes a record only if it knows of nothing newer.
So no order of arrival can lose a newer write: a late promotion, a late write, a copy that comes back. What a version
cannot order is a fill of L1 against a write of this process, for which there are counters (`filling`).

Locks. An L1 hit takes none. Below L1 there is one flight per key, and no lock is held during I/O, but for the
stripe's lock during a fill of L1, which is memory. A slow disk delays those who wait for it and nobody else.

Expiry. The deadline is part of the record and is never computed again on the way. A copy that is found expired is
discarded at its version, and the search goes on below, since another process may have renewed the record. The sweeper
does the same for what nobody asks for.

Late work. A write that took longer than `late_seconds` is stamped again before it reaches the authority; above the
authority it drops its version or older instead of writing, and a promotion is given up. So nothing arrives after the
marks of deletions are forgotten.

Room. A put never evicts. After it the stack settles: each bounded level names its victims, their usage is kept for the
authority, and they are discarded. The bound holds when the put returns.

Usage. A hit counts on the entry in L1 (`entry.Usage`), elsewhere in the ledger. Both reach the stored levels as sums:
when the ledger is full, at a sweep, and at close.

Failure. A level whose tier fails is skipped (`level`). A read that no level could answer is a miss. A write that the
authority did not take raises. A level above that missed a write drops its copy, or else goes out of service.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from tierkit.clock import CacheTime, VersionClock
from tierkit.entry import CacheEntry
from tierkit.errors import (
    CacheCorruptionError,
    CacheStorageError,
    KeyNotHeldError,
    SchemaMismatchError,
    TierUnavailable,
)
from tierkit.filling import Filling, Flight
from tierkit.level import Level
from tierkit.row import Record, Row
from tierkit.sealing import Sealer
from tierkit.tier import key_digest
from tierkit.usage import UsageLedger

logger = logging.getLogger("tierkit.stack")

E = TypeVar("E", bound=CacheEntry)

_LEDGER_KEYS: Final = 512  # flushed in one transaction when there are as many
_force = msgspec.structs.force_setattr


@dataclass(frozen=True, kw_only=True)
class StackSettings:
    """What the configuration says to the stack. Times in seconds."""

    late_seconds: float = 10.0
    staleness_seconds: float | None = None
    read_only: bool = False


class Found(Generic[E]):
    """An entry, the level that answered, and whether an entry in L1 carries its usage."""

    __slots__ = ("carried", "entry", "level")

    def __init__(self, entry: E, level: Level, carried: bool) -> None:
        """What a read found."""
        self.entry = entry
        self.level = level
        self.carried = carried


class Stack(Generic[E]):
    """Levels in order: reading, promotion, settling, sweeping. Writing is in `writing`."""

    def __init__(
        self,
        levels: Sequence[Level],
        sealer: Sealer,
        time: CacheTime,
        versions: VersionClock,
        settings: StackSettings,
    ) -> None:
        """Put the levels in order and resume above the highest version that any of them holds."""
        self.levels = tuple(levels)
        self.live = tuple(level for level in levels if level.live)
        self.stored = tuple(level for level in levels if not level.live)
        self.sealer = sealer
        self.time = time
        self.versions = versions
        self.settings = settings
        self.filling: Filling[Found[E]] = Filling()
        self.ledger = UsageLedger()
        self.misses = 0
        self._step = levels[0].counters.step if levels else 0
        self._told: set[tuple[str, str]] = set()
        for level in self.stored:
            self._observe_highest(level)

    @property
    def authority(self) -> Level | None:
        """The level that has everything; None for a cache that is turned off."""
        return self.levels[-1] if self.levels else None

    # -- reading -----------------------------------------------------------------------------------------------------

    def find(self, key: str) -> Found[E] | None:
        """Search every level for `key`; callers who come meanwhile share the search. Blocks on I/O."""
        started = self.time.monotonic()
        own: Flight[Found[E]] = Flight(started)
        flight = self.filling.flights.setdefault(key, own)
        if flight is own:
            return self._lead(key, own)
        if not self._stale_flight(flight, started):
            found = flight.wait()
            if not flight.failed:
                return self._share(key, found)
        return self._search(key, started)

    def _lead(self, key: str, flight: Flight[Found[E]]) -> Found[E] | None:
        try:
            found = self._search(key, flight.started)
        except BaseException:
            self._land(key, flight, None, failed=True)
            raise
        self._land(key, flight, found)
        return found

    def _land(self, key: str, flight: Flight[Found[E]], found: Found[E] | None, failed: bool = False) -> None:
        with self.filling.locks[self.filling.stripe(key)]:
            if self.filling.flights.get(key) is flight:
                del self.filling.flights[key]
        flight.land(found, failed)

    def _stale_flight(self, flight: Flight[Any], now: float) -> bool:
        bound = self.settings.staleness_seconds
        return bound is not None and now - flight.started > bound

    def _share(self, key: str, found: Found[E] | None) -> Found[E] | None:
        """Count a read that another caller made for us."""
        if found is None:
            self.misses += self._step
            return None
        found.level.counters.hits += found.level.counters.step
        self._use(found.entry)
        if not found.carried:
            self.ledger.collect(key, found.entry._usage)
        return found

    def _search(self, key: str, started: float) -> Found[E] | None:
        expected = self.filling.counters[self.filling.stripe(key)]
        now = self.time.now()
        for depth, level in enumerate(self.levels):
            if not level.in_service:
                continue
            record = self.fetch(level, key)
            entry = self._fresh(level, record, now) if record is not None else None
            if entry is None:
                level.counters.misses += level.counters.step
                continue
            level.counters.hits += level.counters.step
            row = None if level.live else cast("Row", record)
            return self._answer(entry, row, depth, expected, started)
        self.misses += self._step
        return None

    def _answer(self, entry: E, row: Row | None, depth: int, expected: int, started: float) -> Found[E]:
        level = self.levels[depth]
        self.ledger.hand_over(entry.key, entry._usage)
        self._use(entry)
        carried = level.live
        if depth and not self.settings.read_only:
            carried = self._promote(entry, row, depth, expected, started) or carried
        if not carried and not self.settings.read_only:
            self.ledger.collect(entry.key, entry._usage)
            self.flush_full_ledger()
        logger.debug("get %s: %s answered", key_digest(entry.key), level.name)
        return Found(entry, level, carried)

    def _use(self, entry: E) -> None:
        entry._usage.hits += 1
        entry._usage.last_accessed = self.time.now()

    def fetch(self, level: Level, key: str) -> Any:
        """What `level` holds for `key`; None if nothing, or if it failed or holds something that cannot be decoded."""
        try:
            return level.call(level.tier.get, key)
        except CacheStorageError as error:
            logger.debug("%s could not be read: %s", level.name, error)
        except CacheCorruptionError as error:
            self._damaged(level, key, error)
        return None

    def _fresh(self, level: Level, record: Any, now: float) -> E | None:
        """The entry of `record` if it may be returned; else None, and what is expired or damaged is gone."""
        if record.purge_at <= now:
            self.expire(level, record)
            return None
        if level.live:
            return cast("E", record) if now < record._fresh_until else None
        return self.open_row(level, record)

    def open_row(self, level: Level, row: Row) -> E | None:
        """The entry in `row`; None if it is damaged (it is evicted) or cannot be read with our keys (it stays)."""
        try:
            entry = self.sealer.open(row)
        except CacheCorruptionError as error:
            self._discard(level, row)
            self._damaged(level, row.key, error)
        except (KeyNotHeldError, SchemaMismatchError) as error:
            self._unreadable(level, error)
        else:
            self.versions.observe(row.version)
            return cast("E", entry)
        return None

    def _damaged(self, level: Level, key: str, error: Exception) -> None:
        level.counters.corruptions += level.counters.step
        if not self.settings.read_only:
            level.counters.evictions["corruption"] += level.counters.step
        logger.warning("%s: record %s is damaged and was evicted: %s", level.name, key_digest(key), error)

    def _unreadable(self, level: Level, error: Exception) -> None:
        level.counters.unreadable += level.counters.step
        if (level.name, type(error).__name__) not in self._told:
            self._told.add((level.name, type(error).__name__))
            logger.warning("%s: a record cannot be read and is left as it is: %s", level.name, error)

    # -- promotion ---------------------------------------------------------------------------------------------------

    def _promote(self, entry: E, row: Row | None, depth: int, expected: int, started: float) -> bool:
        """Copy up to the levels above `depth`; answer whether an entry in L1 carries the usage now."""
        carried = False
        if not self.late(started):
            for level in reversed(self.levels[:depth]):
                if level.in_service:
                    carried = self._promote_to(level, entry, row, expected, started) or carried
            self.settle(self.levels[:depth])
        return carried

    def _promote_to(self, level: Level, entry: E, row: Row | None, expected: int, started: float) -> bool:
        try:
            if level.live:
                taken = self._fill_if(level, entry, expected, started)
            else:
                taken = level.call(level.tier.put, row) is None
        except CacheStorageError as error:
            logger.debug("%s did not take a promotion: %s", level.name, error)
            return False
        level.counters.promotions += level.counters.step * taken
        return taken and level.live

    def _fill_if(self, level: Level, entry: E, expected: int, started: float) -> bool:
        stripe = self.filling.stripe(entry.key)
        with self.filling.locks[stripe]:
            return self.filling.counters[stripe] == expected and self.fill(level, entry, started)

    def fill(self, level: Level, entry: E, started: float) -> bool:
        """Put `entry` into a live level; the stripe's lock is held. Its age counts from `started`."""
        held = level.call(level.tier.get, entry.key)
        if held is not None and held._usage is not entry._usage:
            held._usage.hits += entry._usage.take()
            held._usage.flushed = max(held._usage.flushed, entry._usage.flushed)
            _force(entry, "_usage", held._usage)
        bound = self.settings.staleness_seconds
        stale_at = inf if bound is None else started + self.time.offset + bound
        _force(entry, "_fresh_until", min(entry.purge_at, stale_at))
        return level.call(level.tier.put, entry) is None

    # -- dropping ----------------------------------------------------------------------------------------------------

    def late(self, started: float) -> bool:
        """Whether work that began at `started` has taken too long."""
        return self.time.monotonic() - started > self.settings.late_seconds

    def expire(self, level: Level, record: Record) -> None:
        """Discard an expired copy, at its version."""
        if self._discard(level, record):
            level.counters.evictions["ttl"] += level.counters.step
            logger.debug("%s: %s expired", level.name, key_digest(record.key))

    def _discard(self, level: Level, record: Record) -> bool:
        if self.settings.read_only:
            return False
        try:
            return level.call(level.tier.discard, record)
        except CacheStorageError as error:
            logger.debug("%s could not discard: %s", level.name, error)
            return False

    def settle(self, levels: Sequence[Level] | None = None) -> None:
        """Make the bounds hold: evict what each level names. Blocks on I/O."""
        for level in self.levels if levels is None else levels:
            if level.max_entries is not None and level.in_service:
                self._settle_level(level)
        self.flush_full_ledger()

    def _settle_level(self, level: Level) -> None:
        try:
            while victims := level.call(level.tier.overflow):
                if not sum(self._evict(level, victim) for victim in victims):
                    break  # others are evicting them
        except CacheStorageError as error:
            logger.warning("%s could not be settled: %s", level.name, error)

    def _evict(self, level: Level, victim: Any) -> bool:
        if not level.call(level.tier.discard, victim):
            return False
        level.counters.evictions[level.policy] += level.counters.step
        if level is self.authority:
            for above in self.levels[:-1]:
                above.drop(victim.key, victim.version)
            return True
        level.counters.demotions += level.counters.step
        if level.live:
            self.ledger.collect(victim.key, victim._usage)
        return True

    # -- usage, sweeping, closing --------------------------------------------------------------------------------------

    def flush_full_ledger(self) -> None:
        """Flush the ledger if it holds many keys."""
        if len(self.ledger) >= _LEDGER_KEYS:
            self.flush_ledger()

    def flush(self) -> None:
        """Bring all usage to the stored levels, the authority first. Blocks on I/O."""
        if self.settings.read_only or not self.stored:
            return
        for level in self.live:
            for entry in level.scan():
                self.ledger.collect(entry.key, entry._usage)
        self.flush_ledger()

    def flush_ledger(self) -> None:
        """Bring the ledger to the stored levels; what the authority does not take stays in it."""
        if not self.stored or not len(self.ledger):
            return
        deltas = self.ledger.take()
        authority, *above = reversed(self.stored)
        try:
            if not authority.in_service:
                raise TierUnavailable(f"{authority.name} is out of service")
            authority.call(authority.tier.touch_many, deltas)
        except CacheStorageError as error:
            self.ledger.put_back(deltas)
            logger.debug("usage could not be flushed: %s", error)
            return
        for level in above:
            try:
                if level.in_service:
                    level.call(level.tier.touch_many, deltas)
            except CacheStorageError as error:
                logger.debug("%s could not take usage: %s", level.name, error)

    def sweep(self) -> int:
        """Remove what expired from every level, and flush usage. Blocks on I/O.

        Returns:
            How many records were removed, over all levels.
        """
        if self.settings.read_only:
            return 0
        removed = sum(self._sweep_level(level) for level in self.levels if level.in_service)
        self.flush()
        return removed

    def _sweep_level(self, level: Level) -> int:
        try:
            removed = level.call(level.tier.purge, self.time.now())
        except CacheStorageError as error:
            logger.warning("%s could not be swept: %s", level.name, error)
            return 0
        level.counters.evictions["ttl"] += removed * level.counters.step
        if removed:
            logger.debug("%s: swept %d expired records", level.name, removed)
        return removed

    def close(self) -> None:
        """Flush, empty persistent levels that missed writes, and close every tier, the authority last."""
        try:
            self.flush()
            for level in self.stored[:-1]:
                if level.missed_writes:
                    level.reset_failures()
        except CacheStorageError as error:
            logger.error("closing: %s; what this level holds may be older than the authority", error)
        finally:
            for level in self.levels:
                level.tier.close()

    def scan(self) -> Iterator[E]:
        """Every entry of the lowest level in service, expired ones too, without touching usage or statistics."""
        for level in reversed(self.levels):
            if level.in_service:
                opened = level.scan() if level.live else (self.open_row(level, row) for row in level.scan())
                yield from (entry for entry in opened if entry is not None)
                return

    def _observe_highest(self, level: Level) -> None:
        try:
            self.versions.observe(level.call(level.tier.highest_version))
        except CacheStorageError as error:
            logger.warning("%s could not tell its highest version: %s", level.name, error)
