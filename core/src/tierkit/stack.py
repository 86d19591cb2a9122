"""The stack: levels in order, and how a record is found, kept and dropped.

Order. Levels stand from L1 down. Those that hold live entries of this process stand on top; below them are the stored
levels, which hold rows. The lowest is the authority: it has everything, a level above has a part of it. A write goes
bottom-up, the authority first, so that a crash leaves the truth below and never only above. A read goes top-down; what
answers is promoted to the levels above.

Versions. Every write is stamped (`clock.VersionClock`), and a tier takes a record only if it knows of nothing newer.
So no order of arrival can lose a newer write: a late promotion, a late write, a copy that comes back. What a version
cannot order is a fill of L1 against a write of this process, for which there are counters (`filling`).

Locks. An L1 hit takes none. Below L1 there is one flight per key, and no lock is held during I/O, but for the
stripe's lock during a fill of L1, which is memory. A slow disk delays those who wait for it and nobody else. Nobody
waits for a flight longer than `late_seconds`: then he reads for himself.

Expiry. The deadline is part of the record and is never computed again on the way. A copy that is found expired is
discarded at its version, or left where it is while its grace period lasts, and the search goes on below, since another
process may have renewed the record. The sweeper discards what nobody asks for.

Late work. A write that took longer than `late_seconds` is stamped again before it reaches the authority; above the
authority it drops what is older instead of writing, and a promotion is given up. So nothing arrives after the marks of
deletions are forgotten.

Room. A put never evicts. After it the stack settles: each bounded level names its victims, their usage is kept for the
authority, and they are discarded. The bound holds when the put returns.

Usage. A hit counts on the entry in L1 (`entry.Usage`), elsewhere in the ledger. Both reach the stored levels as sums:
when the ledger is full, at a sweep, and at close.

Failure. A level whose tier fails is skipped (`level`), and brought back (`recovery`). A read that no level could answer
is a miss. A write that the authority did not take is held for it by the next persistent level (`owing`), or raises. A
level above that missed a write drops what is older, with a mark against a promotion that is on its way, or else goes
out of service.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from math import inf
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from tierkit.clock import CacheTime, VersionClock
from tierkit.entry import CacheEntry
from tierkit.errors import (
    CacheCorruptionError,
    KeyNotHeldError,
    SchemaMismatchError,
    TierkitError,
    TierUnavailable,
)
from tierkit.filling import Filling, Flight
from tierkit.level import Level
from tierkit.levels import StackSettings
from tierkit.owing import Owed
from tierkit.row import Row, is_owed, key_digest, with_usage
from tierkit.sealing import Sealer
from tierkit.statistics import new_counters
from tierkit.upkeep import Upkeep
from tierkit.usage import merge_usage

__all__ = ["Found", "Stack"]

logger: Final = logging.getLogger("tierkit.stack")

E = TypeVar("E", bound=CacheEntry)

LATE: Final = "it came too late: what was read or written took longer than late_seconds"
OVERTAKEN: Final = "another write or deletion of it came first"

_force = msgspec.structs.force_setattr


class Found(Generic[E]):
    """An entry, the level that answered, and whether it has expired and is in its grace period."""

    __slots__ = ("entry", "level", "stale")

    def __init__(self, entry: E, level: Level, stale: bool = False) -> None:
        """What a read found."""
        self.entry = entry
        self.level = level
        self.stale = stale


class Stack(Upkeep, Generic[E]):
    """Levels in order: reading and promotion. Writing is in `writing`, the rest in `upkeep`."""

    def __init__(
        self,
        levels: Sequence[Level],
        sealer: Sealer,
        time: CacheTime,
        versions: VersionClock,
        settings: StackSettings,
    ) -> None:
        """Put the levels in order and resume above the highest version that any of them holds."""
        super().__init__(levels, sealer, time, versions, settings)
        self.filling: Filling[Found[E]]
        self.counters = new_counters(settings.counting)  # of the whole: its misses are those of every level
        self._told: set[tuple[str, str]] = set()
        for level in self.stored:
            if level.in_service:
                self._observe_highest(level)

    def _observe_highest(self, level: Level) -> None:
        try:
            self.versions.observe(level.call(level.tier.highest_version))
        except TierkitError as error:
            logger.warning("%s could not tell its highest version: %s", level.name, str(error))

    # -- reading -----------------------------------------------------------------------------------------------------

    def find(self, key: str, *, allow_stale: bool = False) -> Found[E] | None:
        """Search every level for `key`; callers who come meanwhile share the search. Blocks on I/O.

        What has expired is found only with `allow_stale`, within the grace period, and if nothing fresh was found.
        """
        found = self._find(key)
        if found is None or not found.stale:
            return found
        return self._serve_stale(found) if allow_stale else None

    def _serve_stale(self, found: Found[E]) -> Found[E] | None:
        entry, level = found.entry, found.level
        if self.time.now() >= entry._deadline + self.settings.grace_seconds:
            return None
        level.counters.stale_hits += level.counters.step
        self._use(entry)
        if self.stored and not self.settings.read_only:
            self.ledger.collect(entry.key, entry._usage)
            self.flush_full_ledger()
        return Found(msgspec.structs.replace(entry, _stale=True), level, stale=True)

    def _find(self, key: str) -> Found[E] | None:
        started = self.time.monotonic()
        own: Flight[Found[E]] = Flight(started)
        flight = self.filling.flights.setdefault(key, own)
        if flight is own:
            return self._lead(key, own)
        if not self._stale_flight(flight, started):
            if not flight.wait(self.settings.late_seconds):
                self.filling.detach(key, flight)
            elif flight.result is None or flight.result.stale or self._is_fresh(flight.result.entry):
                return self._share(key, flight.result)
        return self._search(key, started)

    def _lead(self, key: str, flight: Flight[Found[E]]) -> Found[E] | None:
        try:
            flight.result = self._search(key, flight.started)
            flight.landed = True
        finally:
            try:
                self.filling.detach(key, flight)
            finally:
                flight.release()
        return flight.result

    def _stale_flight(self, flight: Flight[Any], now: float) -> bool:
        bound = self.settings.staleness_seconds
        return bound is not None and now - flight.started > bound

    def _is_fresh(self, entry: E) -> bool:
        return self.time.now() < entry._fresh_until

    def _share(self, key: str, found: Found[E] | None) -> Found[E] | None:
        """Count a read that another caller made for us."""
        if found is None or found.stale:
            self.counters.misses += self.counters.step
            return found
        found.level.counters.hits += found.level.counters.step
        self._use(found.entry)
        if self.stored and not self.settings.read_only:
            self.ledger.collect(key, found.entry._usage)  # whatever carries it may have left L1 by now
        return found

    def _search(self, key: str, started: float) -> Found[E] | None:
        expected = self.filling.counters[self.filling.stripe(key)]
        floor, stale = 0, None
        for depth, level in enumerate(self.levels):
            in_service = level.in_service
            record, owed = self._read(level, key)
            if owed is not None:
                return self._answer_owed(owed, depth, (floor, stale), expected, started)
            if not in_service:
                continue
            entry = None if record is None else self._kept(level, record)
            fresh = entry is not None and self._is_fresh(entry)
            if entry is not None and fresh and entry.version >= floor:
                level.counters.hits += level.counters.step
                row = None if level.live else cast("Row", record)
                return self._answer(entry, row, depth, expected, started)
            if fresh:
                self.expire(level, record)
            elif record is not None:
                expired = self._expired_version(level, record, entry)
                if entry is not None and expired > floor:
                    stale = Found(entry, level, stale=True)
                floor = max(floor, expired)
            level.counters.misses += level.counters.step
        self.counters.misses += self.counters.step
        return stale if stale is not None and stale.entry.version == floor else None

    def _read(self, level: Level, key: str) -> tuple[Any, Owed | None]:
        """What `level` holds for `key`, or what is owed for it instead."""
        if level is self.authority and key in self.owing.intents:
            owed = self.owing.look(key)
            if owed is not None:
                return None, owed
        record = self.fetch(level, key) if level.in_service else None
        if record is None or level.live or not is_owed(record):
            return record, None
        return None, self._owed(level, record)

    def _owed(self, level: Level, row: Row) -> Owed | None:
        """What an owed row in `level` says of its key; None if it is damaged, and gone."""
        try:
            self.sealer.verify(row)
        except CacheCorruptionError as error:
            self.discard(level, row)
            self.damaged(level, row.key, error)
            return None
        except TierkitError as error:
            self._unreadable(level, error)
            return Owed(level, None)
        if not self.settings.read_only:
            self.owing.adopt(level, row)
        return self.owing.owed(level, row)

    def _answer_owed(
        self, held: Owed, depth: int, above: tuple[int, Found[E] | None], expected: int, started: float
    ) -> Found[E] | None:
        """Answer with a write that the authority is owed: what lies below is older, and is not asked.

        `above` is what the levels above had: the version below which nothing may be returned, and what is stale.
        """
        floor, stale = above
        holder = held.holder or self.levels[depth]
        entry = None if held.row is None else self.open_row(holder, held.row)
        if entry is not None and entry.version >= floor:
            if self._is_fresh(entry):
                holder.counters.hits += holder.counters.step
                return self._answer(entry, held.row, depth, expected, started)
            floor, stale = entry.version, Found(entry, holder, stale=True)
        self.counters.misses += self.counters.step
        return stale if entry is not None and stale is not None and stale.entry.version == floor else None

    def _expired_version(self, level: Level, record: Any, entry: E | None) -> int:
        """The version below which nothing may be returned, since this newer record has expired; 0 if it has not."""
        if (record.purge_at if entry is None else entry._deadline) > self.time.now():
            return 0
        if entry is not None:
            return entry.version
        if not level.live:
            try:
                self.sealer.verify(record)
            except TierkitError:
                return 0  # who knows what it was
        return cast("int", record.version)

    def _answer(self, entry: E, row: Row | None, depth: int, expected: int, started: float) -> Found[E]:
        level = self.levels[depth]
        if not level.live:  # a live entry counts what was taken from it already
            self.ledger.add_pending(entry.key, entry._usage)
        self._use(entry)
        if not self.settings.read_only:
            carried = level.live
            if depth:
                carried = self._promote(entry, row, depth, expected, started) or carried
            if not carried:
                self.ledger.collect(entry.key, entry._usage)
                self.flush_full_ledger()
        logger.debug("get %s: %s answered", key_digest(entry.key), level.name)
        return Found(entry, level)

    def _use(self, entry: E) -> None:
        entry._usage.hits += 1
        entry._usage.last_accessed = self.time.now()

    def note_use(self, entry: E) -> None:
        """Count a use of `entry`, which the authority holds, and tell it at once. Blocks on I/O."""
        self._use(entry)
        if self.stored:
            self.ledger.collect(entry.key, entry._usage)
            self.flush_ledger()

    def fetch(self, level: Level, key: str) -> Any:
        """What `level` holds for `key`; None if nothing, or if it failed or holds something that cannot be decoded."""
        try:
            record = level.call(_get, level, key)
        except CacheCorruptionError as error:
            self.damaged(level, key, error)
        except TierkitError as error:
            logger.debug("%s could not be read: %s", level.name, str(error))
        else:
            if record is None or record.key == key:
                return record
            self.damaged(level, key, CacheCorruptionError("another record is stored in its place"))
        return None

    def fresh(self, level: Level, record: Any) -> E | None:
        """The entry of `record` if it may be returned; else None, and what is damaged, or expired for good, is gone."""
        entry = self._kept(level, record)
        return entry if entry is not None and self._is_fresh(entry) else None

    def _kept(self, level: Level, record: Any) -> E | None:
        """The entry of `record`, which may be stale; None if it is damaged or past its grace period, and gone."""
        if record.purge_at <= self.time.now():
            self.expire(level, record)
            return None
        return cast("E", record) if level.live else self.open_row(level, record)

    def open_row(self, level: Level, row: Row) -> E | None:
        """The entry in `row`; None if it is damaged (it is evicted) or cannot be read with our keys (it stays)."""
        try:
            entry = self.sealer.open(row)
        except CacheCorruptionError as error:
            self.discard(level, row)
            self.damaged(level, row.key, error)
        except (KeyNotHeldError, SchemaMismatchError) as error:
            self._unreadable(level, error)
        else:
            self.versions.observe(row.version)
            self.note_outdated(row)
            return cast("E", entry)
        return None

    def damaged(self, level: Level, key: str, error: Exception) -> None:
        """Count and report a damaged record, which is gone."""
        level.counters.corruptions += level.counters.step
        level.tell("on_corruption")
        fate = "left, since the cache is read-only" if self.settings.read_only else "evicted"
        if not self.settings.read_only:
            level.counters.evictions["corruption"] += level.counters.step
            level.tell("on_eviction", "corruption")
            level.note("dropped", key, f"it was damaged: {error}")
        logger.warning("%s: record %s is damaged and was %s: %s", level.name, key_digest(key), fate, str(error))
        if level is self.authority and self.stored and not self.settings.read_only:
            self._heal(level, key)

    def _heal(self, authority: Level, key: str) -> None:
        """Put a good copy of a record that the authority has lost down from a level above."""
        for level in reversed(self.levels[:-1]):
            record = self.fetch(level, key) if level.in_service else None
            entry = None if record is None else self.fresh(level, record)
            if entry is not None:
                with suppress(TierkitError):  # it stays above, where it was found
                    authority.call(authority.tier.put, self.sealer.seal(entry) if level.live else record)
                    authority.note("put back", key, f"from {level.name}")
                    if level.live:
                        self.ledger.pop(key)  # the row that was sealed counts these reads
                    logger.info("%s: record %s was put back from %s", authority.name, key_digest(key), level.name)
                return

    def _unreadable(self, level: Level, error: Exception) -> None:
        level.counters.unreadable += level.counters.step
        if (level.name, type(error).__name__) not in self._told:
            self._told.add((level.name, type(error).__name__))
            logger.warning("%s: a record cannot be read and is left as it is: %s", level.name, str(error))

    def peek(self, key: str) -> E | None:
        """The entry that `scan` would find for `key`, if it is fresh, without touching usage or statistics."""
        level = self.lowest()
        self.owing.adopt_shared(key)
        record, owed = (None, None) if level is None else self._read(level, key)
        record = record if owed is None else owed.row
        return None if level is None or record is None else self.fresh(level, record)

    def scan(self) -> Iterator[E]:
        """Every entry of the lowest level in service, expired ones too, without touching usage or statistics.

        Where writes are owed to the authority they count, and not what it holds.
        """
        self.owing.adopt_shared()
        level = self.lowest()
        owed = set(self.owing.intents)
        if level is not None:
            records = (record for record in level.scan() if record.key not in owed)
            yield from filter(None, (self.opened(level, record) for record in records))
            yield from filter(None, (self.opened(level, record) for record in self.owed_or_paid(level, owed)))

    def lowest(self) -> Level | None:
        """The lowest level in service, if any is."""
        return next((level for level in reversed(self.levels) if level.in_service), None)

    def owed_or_paid(self, level: Level, keys: Iterable[str]) -> Iterator[Any]:
        """The records of `keys`, which `level` was owed when a scan of it began."""
        for key in keys:
            owed = self.owing.look(key)
            record = self.fetch(level, key) if owed is None else owed.row
            if record is not None:
                yield record

    def opened(self, level: Level, record: Any) -> E | None:
        """The entry of what a scan of `level` found; None if that is damaged (it is evicted), or nothing to return."""
        if isinstance(record, CacheEntry):
            return cast("E", record)
        if is_owed(record):
            held = self._owed(level, record)
            record = None if held is None else held.row
        return None if record is None else self.open_row(level, record)

    def all_opened(self, level: Level, records: Sequence[Any]) -> list[E]:
        """The entries of what a query of `level` found: as `opened`, without those that are None."""
        if not level.live and not any(map(is_owed, records)):
            with suppress(CacheCorruptionError, KeyNotHeldError, SchemaMismatchError):  # then one by one, to see which
                return self._all_read(records)
        opened = self.opened
        return [entry for record in records if (entry := opened(level, record)) is not None]

    def _all_read(self, rows: Sequence[Row]) -> list[E]:
        entries = [*map(self.sealer.open, rows)]
        for row in rows:
            self.versions.observe(row.version)
            self.note_outdated(row)
        return cast("list[E]", entries)

    # -- promotion ---------------------------------------------------------------------------------------------------

    def _promote(self, entry: E, row: Row | None, depth: int, expected: int, started: float) -> bool:
        """Copy up to the levels above `depth`; answer whether an entry in L1 carries the usage now."""
        above = reversed(self.levels[:depth])
        taken = [level for level in above if level.in_service and self._copy_up(level, entry, row, expected, started)]
        for level in taken:
            level.counters.promotions += level.counters.step
            level.tell("on_promotion")
            level.note("promoted", entry.key, f"from {self.levels[depth].name}")
        self.settle(taken)
        return any(level.live for level in taken)

    def _copy_up(self, level: Level, entry: E, row: Row | None, expected: int, started: float) -> bool:
        against = LATE if self.late(started) else level.against(entry.key)
        if not against:
            against = self._try_copy_up(level, entry, row, expected, started)
        if against:
            level.note("refused", entry.key, against)
        return not against

    def _try_copy_up(self, level: Level, entry: E, row: Row | None, expected: int, started: float) -> str:
        """Copy up. Answers why it was not taken, or nothing."""
        try:
            if level.live:
                taken = self._fill_if(level, entry, expected, None if row is None else started)
            else:
                taken = self._store_if(level, row, expected, started)
        except TierkitError as error:
            logger.debug("%s did not take a promotion: %s", level.name, str(error))
            return str(error)
        return "" if taken else OVERTAKEN

    def _store_if(self, level: Level, row: Any, expected: int, started: float) -> bool:
        if not self.filling.begin_promotion(row.key, expected):
            return False
        try:
            # As just read: else it would be the coldest there, and the first to go.
            return self.put_copy(level, with_usage(row, row.access_count, self.time.now()), started)
        finally:
            self.filling.end_promotion()

    def _fill_if(self, level: Level, entry: E, expected: int, started: float | None) -> bool:
        stripe = self.filling.stripe(entry.key)
        with self.filling.locks[stripe]:
            taken = self.filling.counters[stripe] == expected and self.fill(level, entry, started)
            if taken and self.filling.counters[stripe] != expected:  # a signal handler wrote, in the midst of it
                self.drop(level, entry.key, entry.version)
                return False
            return taken

    def fill(self, level: Level, entry: E, started: float | None) -> bool:
        """Put `entry` into a live level; the stripe's lock is held.

        Its age counts from `started`; None if it comes from another live level, where its age has begun to count.
        """
        held = level.call(level.tier.get, entry.key)
        if held is not None and held._usage is not entry._usage:
            merge_usage(held._usage, entry._usage)
            _force(entry, "_usage", held._usage)
        if started is not None:
            bound = self.settings.staleness_seconds if self.stored else None  # nobody else writes what is only here
            stale_at = inf if bound is None else started + self.time.offset + bound
            _force(entry, "_fresh_until", min(entry._deadline, stale_at))
        return level.call(level.tier.put, entry) is None


def _get(level: Level, key: str) -> Any:
    record = level.tier.get(key)
    if record is not None and not isinstance(record, CacheEntry if level.live else Row):
        raise TierUnavailable(
            f"{level.name} ({level.kind}): get answered a {type(record).__name__}, which is no record"
        )
    return record
