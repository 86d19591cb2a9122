"""The levels of a stack, in order, and how a record leaves one.

The rules are at the head of `stack`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Any

from tierkit.clock import CacheTime, VersionClock
from tierkit.decisions import Decisions
from tierkit.errors import TierkitError
from tierkit.filling import Filling
from tierkit.level import ANY_VERSION, Level
from tierkit.observers import Observers
from tierkit.row import Record, key_digest
from tierkit.sealing import Sealer
from tierkit.usage import UsageLedger

logger = logging.getLogger("tierkit.stack")


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


class Levels:
    """Levels in order: those of live entries on top, the authority at the bottom."""

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
        self.filling: Filling[Any] = Filling(settings.late_seconds)
        self.ledger = UsageLedger()
        self.observers = Observers()
        self.decisions = Decisions(0 if settings.read_only else settings.decisions_kept, time.now)
        for level in self.levels:
            level.decisions = self.decisions

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
