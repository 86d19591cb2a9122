"""What the rows of one level tell: damage, keys that are not held, clocks, what waits, what should be gone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from math import inf
from typing import Any, Final

from tierkit.clock import written_at
from tierkit.config import CLOCK_DIFFERENCE_SECONDS
from tierkit.doctor import kinds
from tierkit.errors import CacheCorruptionError, KeyNotHeldError, SchemaMismatchError
from tierkit.findings import Finding, FindingKind
from tierkit.level import Level
from tierkit.row import Row, is_owed, key_digest
from tierkit.sealing import Sealer
from tierkit.stack import Stack

DAY_SECONDS: Final = 86_400.0
HOUR_SECONDS: Final = 3_600.0
_SLACK: Final = 16
"""Records above the bound that writers may just be about to evict."""


class RowChecks:
    """Looks at each row of one level.

    Attributes:
        keys: How many rows name each key, by its id.
    """

    def __init__(self, stack: Stack[Any], level: Level, *, key_usable: bool) -> None:
        """Nothing was looked at yet. Without a usable key nothing is said of rows that need one."""
        self.keys: Counter[str] = Counter()
        self._sealer: Sealer = stack.sealer
        self._level = level
        self._now = stack.time.now()
        self._key_usable = key_usable
        self._not_held: Counter[str] = Counter()
        self._counts: Counter[FindingKind] = Counter()
        self._oldest_owed = inf
        self._may_not_wait = stack.owing.write_policy != "demote"  # which leaves them above until they are evicted
        self._bounded = 0

    def of(self, rows: Sequence[Row]) -> Iterator[Finding]:
        """What is wrong with single ones of `rows`; the rest is counted."""
        for row in rows:
            self.keys.update(self._sealer.named_keys(row))
            self._look(row)
            kind = self._judged(row)
            if kind is not None:
                yield kind.at(f"the record {key_digest(row.key)}")

    def at_the_end(self) -> Iterator[Finding]:
        """What was counted."""
        for key, count in self._not_held.items():
            yield kinds.KEY_NOT_HELD.at(f"the key {key}", f"{count} records")
        if self._may_not_wait and self._oldest_owed < self._now - HOUR_SECONDS:
            self._counts[kinds.OWED_LONG] = self._counts.pop(kinds.OWED)
        limit = self._level.max_entries
        if limit is not None and self._bounded > limit + max(_SLACK, limit // 20):
            yield kinds.OVERFULL.at("its records", f"{self._bounded} of at most {limit}")
        for kind, count in self._counts.items():
            yield kind.at("its records", f"{count} of them")

    def _look(self, row: Row) -> None:
        """Count what the row says by itself, damaged or not."""
        written = written_at(row.version)
        if is_owed(row):
            self._counts[kinds.OWED] += 1
            self._oldest_owed = min(self._oldest_owed, written)
        else:
            self._bounded += 1
        if written > self._now + CLOCK_DIFFERENCE_SECONDS:
            self._counts[kinds.VERSION_AHEAD] += 1
        if row.purge_at < self._now - DAY_SECONDS:
            self._counts[kinds.UNSWEPT] += 1

    def _judged(self, row: Row) -> FindingKind | None:
        try:
            self._sealer.verify(row) if is_owed(row) else self._sealer.open(row)
        except KeyNotHeldError:
            if self._key_usable:
                self._not_held[self._sealer.key_not_held(row)] += 1
        except CacheCorruptionError:
            return kinds.ROW_DAMAGED
        except SchemaMismatchError:
            return kinds.ROW_OF_OTHER_CLASS
        return None
