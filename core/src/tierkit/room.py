"""Room in the levels of a stack: who has to leave, and where to.

The rules are at the head of `stack`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from tierkit.clock import CacheTime, VersionClock
from tierkit.errors import PluginError, TierkitError
from tierkit.level import Level
from tierkit.levels import Levels, StackSettings
from tierkit.owing import Owing
from tierkit.row import GOES_BACK_TO, Record, Row, comes_after, is_owed, with_usage
from tierkit.sealing import Sealer

logger = logging.getLogger("tierkit.stack")

_ROUNDS: Final = 16  # others may fill the level meanwhile; a tier that names what it does not discard must not hold us
LEDGER_KEYS: Final = 512
"""The ledger is flushed, in one transaction, when it holds as many."""


class Room(Levels):
    """Levels that hold no more than they may, and owe the authority what they hold for it.

    Attributes:
        alarm: Wakes the background thread: there is something to do.
    """

    def __init__(
        self, levels: Sequence[Level], sealer: Sealer, time: CacheTime, versions: VersionClock, settings: StackSettings
    ) -> None:
        """Put the levels in order."""
        super().__init__(levels, sealer, time, versions, settings)
        self._bounded = tuple(level for level in levels if level.max_entries is not None)
        self._demoting = any(level.write_policy == "demote" for level in levels)
        self.alarm: Callable[[], None] = _nobody
        self.owing = Owing(
            self.stored,
            sealer,
            time,
            versions,
            volatile=settings.volatile,
            late_seconds=settings.late_seconds,
            flush_interval_seconds=settings.flush_interval_seconds,
            on_first=self._wake,
            on_came_after=self.forget_copies,
            on_paid=self._settle_authority,
        )

    def _wake(self) -> None:
        self.alarm()

    def settle(self, levels: Sequence[Level] | None = None) -> None:
        """Make the bounds hold: evict what each level names. Blocks on I/O."""
        for level in self._bounded:
            if level.in_service and (levels is None or level in levels):
                self._settle_level(level)
        self.flush_full_ledger()

    def _settle_authority(self) -> None:
        """After it got what it was owed."""
        self.settle(self.levels[-1:])

    def _settle_level(self, level: Level) -> None:
        try:
            if level.live and not self._demoting:  # nothing is to be done with a victim before it goes
                for victim in level.call(level.tier.evict):
                    self._evicted(level, victim)
            else:
                self._settle_one_by_one(level)
                if level.live and self.owing.write_policy == "demote":  # what was pinned below has become copies
                    self.settle(self.stored[:-1])
        except PluginError as error:
            if not level.policy_failed:  # it fails again with each put
                logger.warning("%s holds too many entries: %s", level.name, str(error))
            level.policy_failed = True
        except TierkitError as error:
            logger.warning("%s could not be settled: %s", level.name, str(error))

    def _settle_one_by_one(self, level: Level) -> None:
        below = self._takes_victims_of(level)
        for _ in range(_ROUNDS):
            expected = self.filling.snapshot() if below else []
            named = level.call(level.tier.overflow)
            victims = named and [victim for victim in named if not self._pinned(level, victim)]
            if not victims:
                break
            if below is not None:
                self._demote(below, victims, expected)
            evicted = [self._evict(level, victim) for victim in victims]
            if all(evicted):
                break  # else another has evicted one, or has written it anew: ask again

    def _takes_victims_of(self, level: Level) -> Level | None:
        """The level below that is filled only by what others evict, and not the authority, which is owed writes."""
        if not self._demoting:
            return None
        below = next((low for low in self.levels[self.levels.index(level) + 1 :] if low.in_service), None)
        return below if below and below is not self.authority and below.write_policy == "demote" else None

    def _demote(self, below: Level, victims: Sequence[Any], expected: Sequence[int]) -> None:
        """Copy `victims` down, each unless a write came since it was named; if that fails they are only evicted."""
        try:
            started = self.time.monotonic()
            for row in self._current(victims):
                if self._copy_down(below, row, expected[self.filling.stripe(row.key)], started):
                    below.note("demoted", row.key)
        except TierkitError as error:
            logger.debug("%s did not take a victim: %s", below.name, str(error))
        if below.max_entries is not None:
            self._settle_level(below)

    def _copy_down(self, below: Level, row: Row, expected: int, started: float) -> bool:
        if not self.filling.begin_promotion(row.key, expected):
            return False
        try:
            return self.put_copy(below, row, started)
        finally:
            self.filling.end_promotion()

    def put_copy(self, level: Level, row: Row, started: float) -> bool:
        """Put a copy of what the authority has into a level above it, unless that holds a write that comes after.

        Given up if it is late, by `started`: a mark that another process has left against it may be forgotten by then.

        Returns:
            Whether it was taken.

        Raises:
            CacheStorageError: The tier failed.
        """
        compared = GOES_BACK_TO in row.columns
        held: Row | None = level.call(level.tier.get, row.key) if compared else None
        if self.late(started) or (held is not None and comes_after(held, row)):
            return False
        if compared:
            return level.write(level.tier.replace, row, 0 if held is None else held.version)
        return level.write(level.tier.put, row) is None

    def _current(self, victims: Sequence[Any]) -> list[Row]:
        """What the authority has of `victims`, those that are still what it has.

        A copy of this process may be older than that, for as long as its age is allowed; in a level that others read
        it would be for ever.
        """
        authority = self.stored[-1]
        if not authority.in_service:
            return []
        used = {victim.key: victim for victim in victims}
        held: dict[str, Row] = authority.call(authority.tier.get_many, list(used))
        return [
            with_usage(row, row.access_count, _last_used(used[key]))
            for key, row in held.items()
            if row.version == used[key].version
        ]

    def _evict(self, level: Level, victim: Any) -> bool:
        held = level.call(level.tier.get, victim.key) if level.live else victim
        if not level.call(level.tier.discard, victim):
            return False
        if held is not None and held is not victim:  # it went and came back since it was named, and counts the reads
            self._keep_usage(level, held)
        self._evicted(level, victim)
        return True

    def _evicted(self, level: Level, victim: Any) -> None:
        """Count that `victim` has left `level` for want of room, and keep its usage."""
        counters = level.counters
        counters.evictions[level.cause] += counters.step
        if level.observers:
            level.tell("on_eviction", level.policy)
        if level is self.levels[-1]:
            level.note("evicted", victim.key, f"{level.bound}; it left the levels above, too")
            self._drop_above(victim)
        else:
            level.note("evicted", victim.key, level.bound)
            counters.demotions += counters.step
            self._keep_usage(level, victim)

    def _pinned(self, level: Level, victim: Any) -> bool:
        """Whether the authority is owed `victim` and cannot take it now: then it stays, beyond the bound."""
        owing = self.owing
        if level.live:
            if owing.write_policy == "demote":
                owing.replay([victim.key])
            return False  # what is owed is held by the intent itself
        return is_owed(victim) and not owing.pay(level, victim)

    def _drop_above(self, victim: Record) -> None:
        """The authority has no room for `victim`: let no copy of it remain."""
        for level in self.levels[:-1]:
            with suppress(TierkitError):  # a copy that stays is not wrong: nothing newer was written
                if level.in_service:
                    level.drop(victim.key, victim.version)

    # -- usage --------------------------------------------------------------------------------------------------------

    def flush_full_ledger(self) -> None:
        """Flush the ledger if it holds many keys."""
        if len(self.ledger) >= LEDGER_KEYS + len(self.owing.intents):
            self.flush_ledger()

    def flush_ledger(self) -> None:
        """Bring the ledger to the stored levels; what the authority does not take, or is owed itself, stays in it."""
        if not self.stored or not self.stored[-1].in_service or not len(self.ledger):
            return
        deltas = self.ledger.take()
        if owed := {key: delta for key, delta in deltas.items() if key in self.owing.intents}:
            self.ledger.put_back(owed)
            deltas = {key: delta for key, delta in deltas.items() if key not in owed}
        authority, *above = reversed(self.stored)
        taken = False
        try:
            authority.call(authority.tier.touch_many, deltas)
            taken = True
        except TierkitError as error:
            logger.debug("usage could not be flushed: %s", str(error))
        finally:
            if not taken:
                self.ledger.put_back(deltas)
        for level in above if taken else ():
            with suppress(TierkitError):  # it is a copy, and failures are counted
                if level.in_service:
                    level.call(level.tier.touch_many, deltas)


def _nobody() -> None: ...


def _last_used(record: Any) -> float:
    return float(record.last_accessed if isinstance(record, Row) else record._usage.last_accessed)
