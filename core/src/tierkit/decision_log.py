"""Decisions that outlive the process: what was noted since the last sweep, flush or close, in one row or several.

Each process adds rows of its own to a side store, and takes away its oldest beyond `ROWS_KEPT`; so no two processes
write the same row, and nothing is read before it is written. A row is kept for a day. What was noted since the last
row is lost when the process is killed.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
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
MOST_BYTES: Final = 512 * 1024
"""In one row: a record has a limit, and more was decided than it can hold."""


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
        try:
            for packed in deque(_parts(notes), ROWS_KEPT):
                self._keep(self._row(packed, time.now()))
            self._decisions.saved(notes[-1])
        except Exception as error:  # noqa: BLE001 - whatever a tier raises: nothing depends on it
            self._level.counters.failures += self._level.counters.step
            logger.warning("decisions could not be kept: %s: %s", type(error).__name__, str(error))

    def _keep(self, row: DecisionRow) -> None:
        """Have `row` in place of the oldest: each time, since the storage may never take all that was noted."""
        self._side.replace(row, 0)  # nobody else has this key
        self._rows.append(row)
        while len(self._rows) > ROWS_KEPT:
            self._side.discard(self._rows.popleft())

    def of(self, key: str) -> Iterator[Note]:
        """What any process decided of `key` and kept, in no order.

        Raises:
            CacheStorageError: The storage failed.
        """
        for row in self._side.scan():
            yield from (note for note in _unpacked(row.notes) if key in note.keys)

    def _row(self, packed: bytes, now: float) -> DecisionRow:
        moment = datetime.fromtimestamp(now, UTC)
        return DecisionRow(
            key=f"{os.getpid()}-{secrets.token_hex(8)}",
            notes=packed,
            fetch_time=moment,
            created_at=moment,
            updated_at=moment,
            ttl_seconds=KEPT_SECONDS,
            expires_at=datetime.fromtimestamp(now + KEPT_SECONDS, UTC),
            version=self._side.version_above(0),
        )


def _parts(notes: Sequence[Note]) -> Iterator[bytes]:
    """`notes`, packed, in as many parts as it takes."""
    packed = _packed(notes)
    if len(packed) <= MOST_BYTES:
        yield packed
    elif len(notes) > 1:
        yield from chain(_parts(notes[: len(notes) // 2]), _parts(notes[len(notes) // 2 :]))
    else:
        yield from chain.from_iterable(_parts([half]) for half in _halves(notes[0]))


def _halves(note: Note) -> Iterator[Note]:
    """What was decided of many at once, of half of them each."""
    keys = [*(note.keys.items() if isinstance(note.keys, Mapping) else note.keys)]
    for some in (keys[: len(keys) // 2], keys[len(keys) // 2 :]):
        yield note._replace(keys=dict(some) if isinstance(note.keys, Mapping) else some)


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
