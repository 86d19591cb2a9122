"""Health: failures counted per record, and removal at a threshold.

Health is a second axis of expiry, and comes after it: a record that has expired is gone, whatever its health. Counts
are kept by compare and set on the authority, so that none is lost between threads and processes. Many results are
applied in one sweep: for each batch one bulk read, one bulk compare and set, one bulk deletion. Where another writer
came first the record is judged again by itself. The levels above hear of what they hold.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Generic, Literal, TypeVar

from tierkit.comparing import Comparing
from tierkit.entry import CacheEntry, HealthStatus
from tierkit.errors import CacheStorageError
from tierkit.level import Level
from tierkit.revising import Change, Revision
from tierkit.row import key_digest
from tierkit.writing import BATCH, Write

logger: Final = logging.getLogger("tierkit.health")

E = TypeVar("E", bound=CacheEntry)
Outcome = Literal["healthy", "unhealthy", "removed", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthResult:
    """What became of the results of checks, in records.

    Attributes:
        healthy: Marked HEALTHY, or so already.
        unhealthy: A failure was counted, and the record stays.
        removed: The failure that was counted was the last one: the record is gone from every level.
        missing: There was no such record any more, or it has expired.
        unapplied: Results that the storage did not take, by key: give them to `record_health` when it is well. The
            count of a batch whose write failed half way may be there in part.
        error: Why; None if all were applied.
    """

    healthy: int = 0
    unhealthy: int = 0
    removed: int = 0
    missing: int = 0
    unapplied: Mapping[str, bool] = field(default_factory=dict)
    error: CacheStorageError | None = None

    @property
    def applied(self) -> int:
        """How many results were applied, of records that are missing too."""
        return self.healthy + self.unhealthy + self.removed + self.missing

    def __add__(self, other: HealthResult) -> HealthResult:
        """Both together; the error is the first."""
        return HealthResult(
            healthy=self.healthy + other.healthy,
            unhealthy=self.unhealthy + other.unhealthy,
            removed=self.removed + other.removed,
            missing=self.missing + other.missing,
            unapplied={**self.unapplied, **other.unapplied},
            error=self.error or other.error,
        )

    def __str__(self) -> str:
        """One line for a person."""
        counts = f"{self.healthy} healthy, {self.unhealthy} unhealthy, {self.removed} removed, {self.missing} missing"
        return counts if self.error is None else f"{counts}, {len(self.unapplied)} not applied: {self.error}"


class Health(Generic[E]):
    """Judges records by the results of checks."""

    def __init__(self, comparing: Comparing[E], threshold: int, remove: bool) -> None:
        """Remove a record at `threshold` failures, if it is to be removed at all."""
        self.comparing = comparing
        self.stack = comparing.stack
        self._threshold = threshold
        self._remove = remove

    def judge(self, key: str, healthy: bool) -> tuple[Outcome, E | None]:
        """Apply one result. Answers what became of the record, and the entry as it is now, or was when it went."""
        entry = self.comparing.change(key, verdict(healthy))
        if entry is None:
            return "missing", None
        if healthy:
            return "healthy", entry
        if self.ends(entry):
            holding = self.holding([key])
            if self.comparing.remove(entry):
                self.count_removed(entry, holding)
                return "removed", entry
        return "unhealthy", entry

    def ends(self, entry: E) -> bool:
        """Whether the failures of `entry` are enough to remove it."""
        return self._remove and entry.failure_count >= self._threshold

    def holding(self, keys: Sequence[str]) -> Mapping[Level, Container[str]]:
        """Which of `keys` each level holds; the authority has them all."""
        held: dict[Level, Container[str]] = {}
        for level in self.stack.levels[:-1]:
            with suppress(CacheStorageError):  # then nothing is known to have left it
                held[level] = level.call(level.tier.get_many, keys) if level.in_service else ()
        return {**held, self.stack.levels[-1]: keys}

    def count_removed(self, entry: E, holding: Mapping[Level, Container[str]]) -> None:
        """Count a removal in each level that held the record, and log it."""
        for level, keys in holding.items():
            if entry.key in keys:
                level.counters.evictions["health"] += level.counters.step
                level.tell("on_eviction", "health")
                level.note("removed", entry.key, f"{entry.failure_count} failures")
        logger.info("%s was removed: %d failures", key_digest(entry.key), entry.failure_count)

    def judge_all(self, results: Mapping[str, bool]) -> HealthResult:
        """Apply many results. Blocks on I/O.

        Raises:
            TierUnavailable: The authority is out of service: nothing was applied.
        """
        self.comparing.writer.authority()
        return self.sweep(results)

    def sweep(self, results: Mapping[str, bool]) -> HealthResult:
        """As `judge_all`; if the authority is out of service everything is unapplied."""
        sweep = HealthSweep(self, results)
        try:
            sweep.run()
        except CacheStorageError as error:
            logger.warning("%d results of checks could not be applied: %s", len(sweep.pending), str(error))
            return sweep.result(error)
        return sweep.result()


class HealthSweep(Revision[E]):
    """Many results on their way to the records."""

    def __init__(self, health: Health[E], results: Mapping[str, bool]) -> None:
        """Judge as `health` does."""
        super().__init__(health.comparing)
        self.health = health
        self.pending = dict(results)
        self._outcomes: Counter[str] = Counter()

    def run(self) -> None:
        """Apply everything that is pending, in batches."""
        results = iter(list(self.pending.items()))
        while batch := dict(islice(results, BATCH)):
            if self.stack.stored:
                self.note_counters()
                self._judge_batch(batch)
            for key in [key for key in batch if key in self.pending]:  # another writer came first
                self._note(key, self.health.judge(key, batch[key])[0])
        self.stack.settle()  # a copy that was evicted meanwhile may have come back

    def result(self, error: CacheStorageError | None = None) -> HealthResult:
        """What became of them."""
        counts: dict[str, int] = dict(self._outcomes)
        return HealthResult(**counts, unapplied=self.pending if error else {}, error=error)

    def _note(self, key: str, outcome: Outcome) -> None:
        self._outcomes[outcome] += 1
        del self.pending[key]

    def _judge_batch(self, batch: Mapping[str, bool]) -> None:
        held = self.health.comparing.held_many(list(batch))
        changes: list[Change[E]] = []
        for key, healthy in batch.items():
            if key not in held:
                self._note(key, "missing")
                continue
            record, entry = held[key]
            changed = verdict(healthy)(entry)
            if changed is entry:
                self._note(key, "healthy")
            else:
                changes.append((self.health.comparing.prepare(changed, record), record.version))
        if changes:
            self.revise(changes)

    def spread(self, writes: list[Write[E]], started: float) -> None:
        """Bring what was changed to the levels above, or delete it from all of them if it is to end."""
        staying = [write for write in writes if not self.health.ends(write.entry)]
        super().spread(staying, started)
        for write in staying:
            self._note(write.entry.key, "healthy" if write.entry.is_healthy else "unhealthy")
        self._delete([write.entry for write in writes if self.health.ends(write.entry)])

    def _delete(self, entries: list[E]) -> None:
        """Delete each at its own version: a record that was put meanwhile stays."""
        if not entries:
            return
        holding = self.health.holding([entry.key for entry in entries])
        removed = self.health.comparing.remove_many(entries)
        for entry in entries:
            if entry.key in removed:
                self.health.count_removed(entry, holding)
            self._note(entry.key, "removed" if entry.key in removed else "unhealthy")


def verdict(healthy: bool) -> Callable[[E], E]:
    """What a check does to an entry, as a function."""
    return _succeeded if healthy else _failed


def _succeeded(entry: E) -> E:
    if entry.is_healthy and not entry.failure_count:
        return entry
    return entry.evolve(health_status=HealthStatus.HEALTHY, failure_count=0)


def _failed(entry: E) -> E:
    return entry.evolve(health_status=HealthStatus.UNHEALTHY, failure_count=entry.failure_count + 1)
