"""What keeps the levels of a stack in order: their return, usage, sweeping, closing.

The rules are at the head of `stack`.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final

from tierkit.clock import CacheTime, VersionClock
from tierkit.decision_log import DecisionLog
from tierkit.errors import TierkitError, TierUnavailable
from tierkit.forking import open_stacks
from tierkit.level import Level
from tierkit.levels import StackSettings
from tierkit.room import Room
from tierkit.row import Row
from tierkit.sealing import Sealer
from tierkit.side import SideTiers
from tierkit.tier import CacheTier, purge_steps

logger = logging.getLogger("tierkit.stack")

_REST_SECONDS: Final = 0.001  # between two steps of a sweep
MOST_OUTDATED: Final = 1000
"""Records that were read, and are sealed with the current key at the next sweep."""
_RESEALED: Final = 64
"""Of these, how many go in one write."""


class Upkeep(Room):
    """What is done to the levels besides reading and writing records.

    Attributes:
        reseal: Seals what the authority holds of some keys with the current key.
        sides: The tiers beside the authority's, for what is not a record.
    """

    def __init__(
        self, levels: Sequence[Level], sealer: Sealer, time: CacheTime, versions: VersionClock, settings: StackSettings
    ) -> None:
        """Put the levels in order."""
        super().__init__(levels, sealer, time, versions, settings)
        self.halt = threading.Event()
        self.reseal: Callable[[list[str]], object] | None = None
        self.sides = SideTiers()
        self._decision_log: DecisionLog | None = None
        self._outdated: dict[str, None] = {}
        for level in self.levels:
            level.returning = partial(self._returning, level)
        open_stacks.add(self)

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

    # -- usage -------------------------------------------------------------------------------------------------------

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
