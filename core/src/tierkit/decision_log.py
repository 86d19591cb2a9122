"""Decisions that outlive the process: what was noted since the last sweep, flush or close, in one row for all of it.

Each process adds rows of its own to a side store, and takes away its oldest beyond `ROWS_KEPT`; so no two processes
write the same row, and nothing is read before it is written. A row is kept for a day. What was noted since the last
row is lost when the process is killed.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from math import isfinite
from typing import Any, ClassVar, Final

import msgspec

from tierkit.clock import CacheTime, VersionClock
from tierkit.decisions import Decisions, Note
from tierkit.entry import CacheEntry
from tierkit.level import Level
from tierkit.side import SideStore, SideTiers

logger: Final = logging.getLogger("tierkit.decisions")

KEPT_SECONDS: Final = 86_400.0
"""How long a decision can be told of by another process."""
ROWS_KEPT: Final = 16
"""Rows of one process."""


class DecisionRow(CacheEntry):
    """What one process decided in some interval: notes, packed."""

    __namespace__: ClassVar[str] = "decisions"

    notes: bytes = b""


class DecisionLog:
    """The rows of all processes that use the storage. All methods block on I/O."""

    def __init__(self, decisions: Decisions, authority: Level, sides: SideTiers, versions: VersionClock) -> None:
        """Keep `decisions` in a side store of `authority`."""
        self._decisions = decisions
        self._level = authority
        self._side = SideStore("decisions", DecisionRow, authority, sides, versions, counted=False)
        self._rows: deque[DecisionRow] = deque()

    def save(self, time: CacheTime) -> None:
        """Keep what was noted since the last time; where the storage does not take it, the next time tries again."""
        notes = self._decisions.unsaved()
        if not notes:
            return
        row = self._row(notes, time.now())
        try:
            self._side.replace(row, 0)  # nobody else has this key
            self._decisions.saved(notes[-1])
            self._rows.append(row)
            while len(self._rows) > ROWS_KEPT:
                self._side.discard(self._rows.popleft())
        except Exception as error:  # noqa: BLE001 - whatever a tier raises: nothing depends on it
            self._level.counters.failures += self._level.counters.step
            logger.warning("decisions could not be kept: %s: %s", type(error).__name__, str(error))

    def of(self, key: str) -> Iterator[Note]:
        """What any process decided of `key` and kept, in no order.

        Raises:
            CacheStorageError: The storage failed.
        """
        for row in self._side.scan():
            yield from (note for note in _unpacked(row.notes) if key in note.keys)

    def _row(self, notes: Iterable[Note], now: float) -> DecisionRow:
        moment = datetime.fromtimestamp(now, UTC)
        return DecisionRow(
            key=f"{os.getpid()}-{secrets.token_hex(8)}",
            notes=_packed(notes),
            fetch_time=moment,
            created_at=moment,
            updated_at=moment,
            ttl_seconds=KEPT_SECONDS,
            expires_at=datetime.fromtimestamp(now + KEPT_SECONDS, UTC),
            version=self._side.version_above(0),
        )


def _packed(notes: Iterable[Note]) -> bytes:
    return msgspec.msgpack.encode([note._replace(keys=_keys(note)) for note in notes])


def _keys(note: Note) -> Any:
    """The keys of `note` as they are packed; until when each was to live, if that is told, and 0 for ever."""
    if not isinstance(note.keys, dict):
        return list(note.keys)
    return {key: until if isfinite(until) else 0.0 for key, until in note.keys.items()}


def _unpacked(packed: bytes) -> Iterator[Note]:
    try:
        yield from map(Note._make, msgspec.msgpack.decode(packed))
    except (msgspec.MsgspecError, TypeError):  # of another version of this library
        return
