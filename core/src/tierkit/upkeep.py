"""The levels of a stack, and what keeps them in order: dropping, settling, usage, sweeping, closing.

The rules are at the head of `stack`.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Final

from tierkit.clock import CacheTime, VersionClock
from tierkit.decision_log import DecisionLog
from tierkit.decisions import Decisions
from tierkit.errors import PluginError, TierkitError, TierUnavailable
from tierkit.filling import Filling
from tierkit.forking import open_stacks
from tierkit.level import ANY_VERSION, Level
from tierkit.observers import Observers
from tierkit.owing import Owing
from tierkit.row import GOES_BACK_TO, Record, Row, comes_after, is_owed, key_digest, with_usage
from tierkit.sealing import Sealer
from tierkit.side import SideTiers
from tierkit.tier import CacheTier, purge_steps
from tierkit.usage import UsageLedger

logger = logging.getLogger("tierkit.stack")

_ROUNDS: Final = 16  # others may fill the level meanwhile; a tier that names what it does not discard must not hold us
_REST_SECONDS: Final = 0.001  # between two steps of a sweep
LEDGER_KEYS: Final = 512
"""The ledger is flushed, in one transaction, when it holds as many."""
MOST_OUTDATED: Final = 1000
"""Records that were read, and are sealed with the current key at the next sweep."""
_RESEALED: Final = 64
"""Of these, how many go in one write."""


@dataclass(frozen=True, kw_only=True)
class StackSettings:
    """What the configuration says to the stack. Times in seconds."""

    late_seconds: float = 10.0
    staleness_seconds: float | None = None
    grace_seconds: float = 0.0
    read_only: bool = False
    counting: bool = True
    volatile: bool = False
    flush_interval_seconds: float = 1.0
    decisions_kept: int = 0
    decisions_persisted: bool = False
    marks_seconds: float = inf
    """For how long every level knows what was deleted, whatever its clock says."""


class Upkeep:
    """Levels in order, and what is done to them besides reading and writing records.

    Attributes:
        alarm: Wakes the background thread: there is something to do.
        reseal: Seals what the authority holds of some keys with the current key.
        sides: The tiers beside the authority's, for what is not a record.
    """

    def __init__(
        self, levels: Sequence[Level], sealer: Sealer, time: CacheTime, versions: VersionClock, settings: StackSettings
    ) -> None:
        """Put the levels in order."""
        self.sealer = sealer
        self.levels = tuple(levels)
        self.live = tuple(level for level in levels if level.live)
        self.stored = tuple(level for level in levels if not level.live)
        self.time = time
        self.versions = versions
        self.settings = settings
        self._bounded = tuple(level for level in levels if level.max_entries is not None)
        self._demoting = any(level.write_policy == "demote" for level in levels)
        self.filling: Filling[Any] = Filling(settings.late_seconds)
        self.ledger = UsageLedger()
        self.observers = Observers()
        self.decisions = Decisions(0 if settings.read_only else settings.decisions_kept, time.now)
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
        self.halt = threading.Event()
        self.alarm: Callable[[], None] = _nobody
        self.reseal: Callable[[list[str]], object] | None = None
        self.sides = SideTiers()
        self._decision_log: DecisionLog | None = None
        self._outdated: dict[str, None] = {}
        for level in self.levels:
            level.returning = partial(self._returning, level)
            level.decisions = self.decisions
        open_stacks.add(self)

    def _wake(self) -> None:
        self.alarm()

    def forget_copies(self, key: str) -> None:
        """Let no level above the authority hold a copy of `key`, nor a live one be filled by who reads it now."""
        for level in self.stored[:-1]:
            with suppress(TierkitError):
                if level.in_service:
                    level.drop_copy(key)
        stripe = self.filling.stripe(key)
        with self.filling.locks[stripe]:
            for level in self.live:
                with suppress(TierkitError):  # then it leaves service soon
                    self.drop(level, key, ANY_VERSION)
            self.filling.bump(stripe, key)

    @property
    def authority(self) -> Level | None:
        """The level that has everything; None for a cache that is turned off."""
        return self.levels[-1] if self.levels else None

    def observe(self, observers: Observers) -> None:
        """Tell `observers` from now on, until the stack is closed."""
        self.observers = observers
        for level in self.levels:
            level.observers = observers

    def late(self, started: float) -> bool:
        """Whether work that began at `started` has taken too long."""
        return self.time.monotonic() - started > self.settings.late_seconds

    @contextmanager
    def _returning(self, returning: Level) -> Iterator[None]:
        """Around a level's return: what was read before a write that it missed must not be copied up into it.

        The authority gets what it is owed before it is read.
        """
        owes = returning is self.authority and not self.settings.read_only
        if owes and not self.owing.replay_all(probing=True):
            raise TierUnavailable(
                f"{returning.name} is not well yet: {len(self.owing.intents)} writes that it is owed cannot be brought "
                f"there, held by {', '.join(self.owing.holders())}"
            )
        for level in self.live if self.stored else ():
            self._collect(level)  # it may be about to be emptied
        with self.filling.promotions_aside():
            self.filling.reset()  # what was read before it is emptied must not fill it afterwards,
            yield
            self.filling.reset()  # nor what was read within a write that passed it by
        if not self.settings.read_only:
            self.settle()  # what was pinned is owed no more

    # -- dropping ----------------------------------------------------------------------------------------------------

    def expire(self, level: Level, record: Record) -> None:
        """Discard an expired copy, at its version."""
        if self.discard(level, record):
            level.counters.evictions["ttl"] += level.counters.step
            level.tell("on_eviction", "ttl")
            level.note("expired", record.key)
            logger.debug("%s: %s expired", level.name, key_digest(record.key))

    def discard(self, level: Level, record: Record) -> bool:
        """Discard `record` at its version, if it can be; its usage is kept. Answers whether it was there."""
        if self.settings.read_only:
            return False
        try:
            discarded = level.call(level.tier.discard, record)
        except TierkitError as error:
            logger.debug("%s could not discard: %s", level.name, str(error))
            return False
        if discarded:
            self._keep_usage(level, record)
        return discarded

    def drop(self, level: Level, key: str, version: int) -> None:
        """Discard what `level` holds for `key` at `version` or older; its usage is kept.

        Raises:
            CacheStorageError: The tier failed.
        """
        dropped = level.drop(key, version)
        if dropped is not None:
            self._keep_usage(level, dropped)

    def _keep_usage(self, level: Level, record: Any) -> None:
        if level.live and self.stored:
            self.ledger.collect(record.key, record._usage)

    # -- room --------------------------------------------------------------------------------------------------------

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

    # -- usage -------------------------------------------------------------------------------------------------------

    def flush_full_ledger(self) -> None:
        """Flush the ledger if it holds many keys."""
        if len(self.ledger) >= LEDGER_KEYS + len(self.owing.intents):
            self.flush_ledger()

    def flush(self) -> None:
        """Bring all usage to the stored levels, the authority first. Blocks on I/O."""
        if self.settings.read_only or not self.stored:
            return
        for level in self.live:
            if level.in_service:
                self._collect(level)
        self.flush_ledger()
        self._save_decisions()

    def _save_decisions(self) -> None:
        if self.settings.decisions_persisted and self.stored[-1].in_service:
            if self._decision_log is None:
                self._decision_log = DecisionLog(self.decisions, self.stored[-1], self.sides, self.versions)
            self._decision_log.save(self.time)

    def _collect(self, level: Level) -> None:
        try:
            for entry in level.scan():
                self.ledger.collect(entry.key, entry._usage)
        except TierkitError as error:
            logger.debug("%s could not tell its usage: %s", level.name, str(error))

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

    # -- sweeping, closing -------------------------------------------------------------------------------------------

    def sweep(self, *, paced: bool = True, on_step: Callable[[int], object] = lambda _: None) -> int:
        """Flush usage, and remove what expired from every level, in short steps. Blocks on I/O.

        Args:
            paced: Rest after each step, so that readers and writers find the locks and the interpreter free, and end
                early once `halt` is set.
            on_step: Told after each step how many records it removed.

        Returns:
            How many records were removed, over all levels.
        """
        if self.settings.read_only:
            return 0
        self.flush()
        self.owing.replay_expired(self.time.now())
        self._reseal_outdated(paced)
        removed = sum([self._sweep_level(level, paced, on_step) for level in self.levels if level.in_service])
        if self.levels and self.levels[-1].in_service:
            self._sweep_sides(self.levels[-1], paced)
        return removed

    def _sweep_level(self, level: Level, paced: bool, on_step: Callable[[int], object]) -> int:
        removed = 0
        try:
            for step in self._purged(level, level.tier, paced):
                level.counters.evictions["ttl"] += step * level.counters.step
                removed += step
                on_step(step)
        except TierkitError as error:
            logger.warning("%s could not be swept: %s", level.name, str(error))
        level.tell("on_sweep", removed)
        if removed:
            logger.debug("%s: swept %d expired records", level.name, removed)
        return removed

    def _purged(self, level: Level, tier: CacheTier[Any], paced: bool) -> Iterator[int]:
        """Purge `tier`, which is of `level`; how many went in each step."""
        steps = purge_steps(tier, self.time.now())
        while (step := level.call(next, steps, None)) is not None:
            yield step
            if paced and self.halt.wait(_REST_SECONDS):
                break

    def _sweep_sides(self, authority: Level, paced: bool) -> None:
        try:
            for tier in self.sides.opened():
                deque(self._purged(authority, tier, paced), 0)
        except TierkitError as error:
            logger.warning("what is beside the records of %s could not be swept: %s", authority.name, str(error))

    def note_outdated(self, row: Row) -> None:
        """Have a row that was read sealed with the current key at the next sweep, if it names an older one."""
        if self.reseal is not None and len(self._outdated) < MOST_OUTDATED and self.sealer.is_outdated(row):
            self._outdated[row.key] = None

    def _reseal_outdated(self, paced: bool) -> None:
        keys, self._outdated = list(self._outdated), {}
        for start in range(0, len(keys), _RESEALED):
            try:
                if self.reseal is not None:
                    self.reseal(keys[start : start + _RESEALED])
            except TierkitError as error:
                logger.debug("what was read could not be sealed with the current key: %s", str(error))
                break
            if paced and self.halt.wait(_REST_SECONDS):
                break

    def close(self) -> None:
        """Flush, empty persistent levels that missed writes, and close every tier, the authority last.

        Raises:
            CacheStorageError: A tier could not be closed; the others are.
        """
        open_stacks.discard(self)
        self.observers.close()
        failures = []
        try:
            self._pay()  # first: there is no usage of what the authority does not have
            self.flush()
            for level in () if self.settings.read_only else self.stored[:-1]:
                self._leave(level)
        finally:
            for name, close in self._closings():
                try:
                    close()
                except TierkitError as error:
                    logger.error("%s could not be closed: %s", name, str(error))  # noqa: TRY400 - it is raised below
                    failures.append(error)
        if failures:
            raise failures[0]

    def _closings(self) -> Iterator[tuple[str, Callable[[], object]]]:
        if self.levels and self.sides.opened():
            yield "what is beside the records", partial(self.levels[-1].call, self.sides.close)
        yield from ((level.name, level.close) for level in self.levels)

    def _pay(self) -> None:
        """Replay all that is owed; say what is left."""
        if self.settings.read_only or self.owing.replay_all() or self._pays_after_a_probe():
            return
        left = [intent.level for _, intent in self.owing.intents.items()]
        lost = sum(level is None for level in left)
        if lost:
            logger.error("%d writes that were held in memory are lost: the authority could not be written", lost)
        if len(left) > lost:
            logger.warning("%d writes wait for the authority; the next opening brings them there", len(left) - lost)

    def _pays_after_a_probe(self) -> bool:
        authority = self.stored[-1]
        return not authority.in_service and authority.probe() and self.owing.replay_all()

    def _leave(self, level: Level) -> None:
        try:
            level.catch_up()
        except TierkitError as error:
            # A traceback would add nothing.
            logger.error("%s: %s; what it holds may be older than the authority", level.name, str(error))  # noqa: TRY400 - the message says it

    # -- fork --------------------------------------------------------------------------------------------------------

    def kept_still(self) -> list[CacheTier[Any]]:
        """The tiers in memory, which a fork must find whole."""
        return [level.tier for level in self.live] + (
            self.sides.opened() if self.levels and self.levels[-1].live else []
        )

    def leave_parent(self) -> None:
        """In a forked child: make locks of one's own, and drop what belongs to the parent or may be half done.

        Usage in L1 and in the ledger is the parent's to flush. L1 may lack what another thread of the parent was about
        to fill in; it is emptied if a stored level has the records.
        """
        self.filling.renew()
        self.ledger.renew()
        self.owing.intents.renew()
        self.halt = threading.Event()
        self.versions.renew()
        self.decisions.renew()
        for level in self.levels:
            level.renew()
            level.tier.lock = threading.RLock()
        self.sides.renew()
        for level in self.live if self.stored else ():
            with suppress(TierkitError):
                level.empty()


def _nobody() -> None: ...


def _last_used(record: Any) -> float:
    return float(record.last_accessed if isinstance(record, Row) else record._usage.last_accessed)
