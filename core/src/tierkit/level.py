"""A tier in its place: its counters, its failures, and whether it is in service.

Only a tier's own failure counts: `CacheStorageError`, or an exception of another library that a tier let through,
which becomes `TierUnavailable`. After `threshold` failures in a row the level is taken out of service: nothing is
read from it or written to it until `reset_failures`. A record's trouble (`CacheCorruptionError`) never counts.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar

from tierkit.errors import (
    CacheCorruptionError,
    CacheStorageError,
    TierFull,
    TierkitError,
    TierReadOnly,
    TierUnavailable,
)
from tierkit.latency import Histogram
from tierkit.row import Record
from tierkit.statistics import ROOM_CAUSES, TierStatistics, new_counters
from tierkit.tier import CacheTier, TierSpec, Trait

logger = logging.getLogger("tierkit.level")

_PATIENCE_SECONDS = 10.0

P = ParamSpec("P")
T = TypeVar("T")


class Level:
    """A tier in its place in a stack.

    Attributes:
        name: L1, L2, ..., or what the configuration says.
        kind: The kind of its tier.
        tier: The tier.
        live: Whether it holds live entries of this process.
        persistent: Whether what it holds outlives the process.
        max_entries: Its bound, or None.
        policy: The eviction policy of a bounded level.
        cause: What its evictions for room are counted as.
        counters: What was counted since the cache was opened.
        latencies: How long the tier's operations took, where that is measured.
        in_service: Whether it is read and written.
        missed_writes: Whether a write passed it by; then it must be emptied before it is used again.
        on_change: Called when the level goes out of service or comes back.
        returning: What the stack does around the moment in which the level comes back.
    """

    def __init__(
        self,
        name: str,
        spec: TierSpec,
        tier: CacheTier[Any],
        *,
        threshold: int = 3,
        counting: bool = True,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        """Put `tier` in its place; call `on_change` when the level goes out of service or comes back."""
        self.name = name
        self.kind = spec.kind
        self.tier = tier
        self.live = bool(tier.traits & Trait.LIVE)
        self.persistent = bool(tier.traits & Trait.PERSISTENT)
        self.max_entries = tier.context.max_entries
        self.policy = tier.context.eviction_policy
        self.cause = self.policy if self.policy in ROOM_CAUSES else "other"
        self.counters = new_counters(counting)
        self.latencies: Mapping[str, Histogram] = {}
        self.in_service = True
        self.missed_writes = False
        self.on_change = on_change
        self.returning: Callable[[], AbstractContextManager[Any]] = nullcontext
        self._threshold = threshold
        self._failures = 0
        self.renew()

    def renew(self) -> None:
        """Forget whoever is writing: in a forked child they do not exist."""
        self._writes = threading.Condition()
        self._writing = 0

    def call(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the tier, counting its failures.

        Raises:
            CacheStorageError: The tier failed.
        """
        try:
            result = operation(*args, **kwargs)
        except (TierFull, TierReadOnly):
            self.counters.failures += self.counters.step  # what it holds can be read, and room may come back
            raise
        except CacheStorageError as error:
            self.handle_failure(error)
            raise
        except TierkitError:
            raise
        except Exception as error:
            failure = TierUnavailable(f"{self.name} ({self.kind}) failed: {type(error).__name__}: {error}")
            self.handle_failure(failure)
            raise failure from error
        self._failures = 0
        return result

    def scan(self) -> Iterator[Any]:
        """Every record that the tier holds, counting a failure on the way."""
        records = iter(self.call(self.tier.scan))
        end = object()
        while (record := self.call(next, records, end)) is not end:
            yield record

    def handle_failure(self, error: Exception) -> None:
        """Count a failure; take the level out of service when there were enough of them in a row."""
        self.counters.failures += self.counters.step
        self._failures += 1
        if self._failures >= self._threshold:
            self.take_out(error)

    def begin_write(self) -> bool:
        """Whether a write may go to this level; then end it. If not, the level has missed it."""
        with self._writes:
            if self.in_service:
                self._writing += 1
            else:
                self.missed_writes = True
            return self.in_service

    def end_write(self) -> None:
        """A write that was begun is over."""
        with self._writes:
            self._writing -= 1
            self._writes.notify_all()

    def miss(self, error: Exception) -> None:
        """Take the level out of service, since it did not do a write, nor drop what that replaced."""
        self.missed_writes = True
        self.take_out(error)

    def take_out(self, error: Exception) -> None:
        """Take the level out of service, which is logged once at ERROR."""
        with self._writes:  # a write that passes by has to wait until nobody reads here any more
            went, self.in_service = self.in_service, False
            if went:
                self._changed()
        if went:
            times = f" after {self._failures} failures" if self._failures > 1 else ""
            logger.error("%s (%s) is out of service%s: %s", self.name, self.kind, times, error)

    def reset_failures(self) -> None:
        """Bring the level back into service. If writes passed it by, it is emptied first. Blocks until it is quiet.

        Raises:
            CacheStorageError: It had to be emptied and its tier failed to.
        """
        with self.returning():
            with self._writes:  # one that began before the level went out may end after others have passed it by
                self._writes.wait_for(lambda: self.in_service or self._writing == 0, _PATIENCE_SECONDS)
            out, emptied = not self.in_service, False
            while not self._come_back(emptied=emptied):
                self.empty()
                emptied = True
        if out:
            self.counters.recoveries += self.counters.step
            logger.info("%s (%s) is back in service", self.name, self.kind)

    def _come_back(self, *, emptied: bool) -> bool:
        """Answer whether the level is in service; it is not if it has to be emptied first."""
        with self._writes:
            if self.missed_writes and not emptied:
                return False
            self._failures = 0
            if not self.in_service:
                self.in_service = True
                self.missed_writes = False  # what passed by since it was emptied left no copy that it could hold
                self._changed()
            return True

    def empty(self) -> None:
        """Discard every record, each at its version, so that the same may come back.

        Raises:
            CacheStorageError: The tier failed to.
        """
        for record in self.scan():
            self._discard(record)

    def drop(self, key: str, version: int) -> Record | None:
        """Discard what is held for `key` at `version` or older. Answers what was discarded.

        Raises:
            CacheStorageError: The tier failed.
        """
        try:
            held: Record | None = self.call(self.tier.get, key)
        except CacheCorruptionError:
            return None  # the tier has set it aside
        return held if held is not None and held.version <= version and self._discard(held) else None

    def _discard(self, record: Record) -> bool:
        try:
            return self.call(self.tier.discard, record)
        except CacheCorruptionError:
            return False  # the tier has set it aside

    def snapshot(self) -> TierStatistics:
        """The level's statistics as of now. Asks the tier for its size, which may block on I/O."""
        counts = dict(self.counters.totals())
        evictions = {f"evictions_{cause}": count for cause, count in counts.pop("evictions").items()}
        return TierStatistics(
            name=self.name,
            backend=self.kind,
            size=self._size(),
            degraded=not self.in_service,
            state="closed" if self.in_service else "open",
            writable=self.in_service,
            latencies={name: taken for name, held in self.latencies.items() if (taken := held.snapshot()).count},
            **counts,
            **evictions,
        )

    def _size(self) -> int:
        try:
            return self.call(self.tier.size) if self.in_service else -1
        except TierkitError:
            return -1

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()
