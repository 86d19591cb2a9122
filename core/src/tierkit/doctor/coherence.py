"""Copies in a level, compared with what the authority has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import sleep
from typing import Any, Final

from tierkit.doctor import kinds
from tierkit.errors import TierkitError
from tierkit.findings import Finding, FindingKind
from tierkit.level import Level
from tierkit.row import Row, is_owed, is_owed_deletion, key_digest
from tierkit.sealing import Sealer
from tierkit.stack import Stack

MOST_SUSPECTS: Final = 10_000
SETTLE_SECONDS: Final = 0.2
"""How long a write may be between the authority and the copies, before a difference is told."""

_Versions = tuple[int, int]  # of the copy and of what the authority has


class Comparison:
    """The copies of one level. One that differs is looked at again at the end: a write may be on its way."""

    def __init__(self, stack: Stack[Any], level: Level) -> None:
        """Compare nothing yet; the authority itself, and a level that holds nothing for long, are not compared."""
        authority = stack.authority
        self._stack = stack
        reads = authority is not None and authority is not level and authority.in_service and level.persistent
        self._authority = authority if reads else None
        self._level = level
        self._sealer: Sealer = stack.sealer
        self._now = stack.time.now()
        self._suspects: dict[str, _Versions] = {}

    def take(self, rows: Sequence[Row]) -> None:
        """Compare `rows`."""
        if self._authority is None or len(self._suspects) >= MOST_SUSPECTS:
            return
        copies = {row.key: row for row in rows if not is_owed(row) and row.purge_at > self._now}
        self._suspects.update({key: versions for key, versions, _ in self._differing(self._authority, copies)})

    def findings(self) -> Iterator[Finding]:
        """What differs still, and in the same way."""
        if self._authority is None or not self._suspects:
            return
        sleep(SETTLE_SECONDS)
        keys = list(self._suspects)
        copies = {
            key: row for key, row in self._level.call(self._level.tier.get_many, keys).items() if not is_owed(row)
        }
        for key, versions, kind in self._differing(self._authority, copies):
            if versions == self._suspects[key]:
                yield kind.at(f"the record {key_digest(key)}")

    def contradicted(self, rows: Sequence[Row]) -> set[str]:
        """The keys of those of `rows` at whose version the authority has another content."""
        if self._authority is None:
            return set()
        copies = {row.key: row for row in rows if not is_owed(row)}
        return {key for key, _, kind in self._differing(self._authority, copies) if kind is kinds.COPY_DIFFERS}

    def _differing(self, authority: Level, copies: dict[str, Row]) -> Iterator[tuple[str, _Versions, FindingKind]]:
        held = authority.call(authority.tier.get_many, list(copies))
        held |= self._owed([key for key, copy in copies.items() if self._judged(copy, held.get(key)) is not None])
        for key, copy in copies.items():
            there = held.get(key)
            kind = self._judged(copy, there)
            if kind is not None and self._is_sound(copy) and (there is None or self._is_sound(there)):
                yield key, (copy.version, there.version if there else 0), kind

    def _owed(self, keys: Sequence[str]) -> dict[str, Row]:
        """What the authority is to get for `keys`, which another level holds for it."""
        found: dict[str, Row] = {}
        for level in self._stack.stored[:-1] if keys else ():
            rows = level.call(level.tier.get_many, keys).values() if level.in_service else ()
            puts = (row for row in rows if is_owed(row) and not is_owed_deletion(row) and self._is_sound(row))
            found |= {row.key: self._stack.owing.paid(row) for row in puts}
        return found

    def _judged(self, copy: Row, there: Row | None) -> FindingKind | None:
        if there is None:
            bounded = self._authority is not None and self._authority.max_entries is not None
            return None if bounded else kinds.COPY_ALONE  # one with a bound has evicted it
        if copy.version == there.version:
            return None if copy.same_content(there) else kinds.COPY_DIFFERS
        return kinds.COPY_STALE if copy.version < there.version else kinds.COPY_AHEAD

    def _is_sound(self, row: Row) -> bool:
        """Whether it can be told that the row is what was written: else that is what is found."""
        try:
            self._sealer.verify(row)
        except TierkitError:
            return False
        return True
