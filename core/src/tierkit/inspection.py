"""A survey of persistent levels: what they hold, by source, health and age.

It reads the public columns of the rows and opens no secret, so that it needs no encryption key.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

from tierkit.errors import CacheCorruptionError, CacheStorageError
from tierkit.expiry import deadline_of
from tierkit.level import Level
from tierkit.progress import Meter, OnProgress
from tierkit.row import Row

logger: Final = logging.getLogger("tierkit.inspection")

AGES: Final = (("1m", 60.0), ("1h", 3600.0), ("1d", 86400.0), ("7d", 604800.0), ("older", inf))
"""Age buckets, each with the seconds since the fetch that a record in it is younger than."""

_KEYED: Final = re.compile(r"k1\.([0-9a-f]{8})\.")  # a row's check, made with the key of this id


@dataclass
class LevelSurvey:
    """What one persistent level holds.

    Attributes:
        name: The level's name.
        kind: The kind of its tier.
        max_entries: Its bound, or None.
        records: How many records it holds, expired ones included.
        expired: How many of them have expired and were not swept yet.
        bytes_on_disk: What its storage occupies, or None where that is unknown.
        sources: Records by source.
        health: Records by health.
        ages: Records by age: see `AGES`.
        error: Why it could not be read, or empty. The counts are then those up to the failure.
    """

    name: str
    kind: str
    max_entries: int | None
    records: int = 0
    expired: int = 0
    bytes_on_disk: int | None = None
    sources: Counter[str] = field(default_factory=Counter)
    health: Counter[str] = field(default_factory=Counter)
    ages: Counter[str] = field(default_factory=Counter)
    error: str = ""

    def count(self, row: Row, now: float) -> None:
        """Add one record, as seen at `now` (POSIX seconds)."""
        self.records += 1
        self.expired += deadline_of(row) <= now
        self.sources[str(row.columns.get("source", "unknown"))] += 1
        self.health[str(row.columns.get("health_status", "unknown"))] += 1
        self.ages[_bucket(row.columns.get("fetch_time"), now)] += 1


def survey(levels: Iterable[Level], now: float, on_progress: OnProgress | None = None) -> list[LevelSurvey]:
    """Survey the persistent ones of `levels`, from the top. Reads every row; one broken level spoils no other.

    Args:
        levels: Those of an open cache.
        now: The time that ages and expiry are counted by, in POSIX seconds.
        on_progress: Told of the records read so far, over all levels, and how many there seem to be.
    """
    surveyed = [level for level in levels if level.persistent and not level.live]
    meter = Meter("counting records", size_of(surveyed), on_progress=on_progress, log=logger)
    found = [_survey(level, now, meter) for level in surveyed]
    meter.finish()
    return found


def size_of(levels: Iterable[Level]) -> int | None:
    """How many records `levels` seem to hold together; None if one that is in service cannot tell."""
    try:
        return sum(level.call(level.tier.size) for level in levels if level.in_service)
    except CacheStorageError:
        return None


def unheld_keys(levels: Iterable[Level], key: str | None, held: Collection[str]) -> list[str]:
    """The ids of the keys, other than those `held`, that records were sealed with: that of `key`, or all."""
    found: set[str] = set()
    for level in levels:
        if level.live:
            continue
        with suppress(CacheStorageError, CacheCorruptionError):
            rows = level.scan() if key is None else [level.call(level.tier.get, key)]
            found.update(keyed[1] for row in rows if row and (keyed := _KEYED.match(str(row.check))))
    return sorted(found.difference(held))


def _survey(level: Level, now: float, meter: Meter) -> LevelSurvey:
    found = LevelSurvey(level.name, level.kind, level.max_entries)
    try:
        for row in level.scan():
            found.count(row, now)
            meter.advance()
        found.bytes_on_disk = level.call(level.tier.bytes_on_disk)
    except CacheStorageError as error:
        found.error = str(error)
    return found


def _bucket(fetch_time: Any, now: float) -> str:
    if not isinstance(fetch_time, (int, float)):
        return "unknown"
    return next(name for name, seconds in AGES if now - fetch_time < seconds or seconds == inf)
