"""Decisions: what the engine last did with a record in each level, and why, for whoever asks `explain`.

A note costs an append to a bounded deque. What is decided of many at once is one note with all their keys, which costs
next to nothing for each. Refusals are kept apart: a record that is refused with every read must not push out what is
rare. Nothing is noted on a hit in L1.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from itertools import count
from math import inf
from typing import Any, Final, NamedTuple, TypeVar

LONGEST_REASON: Final = 300
"""Characters of a reason: that may be the text of an error."""

T = TypeVar("T")


class Note(NamedTuple):
    """What was decided of one or more records.

    Attributes:
        number: Orders the notes of one process, whose clock may stand still.
        at: When, in POSIX seconds.
        keys: Of which records; a mapping tells until when each was to live, in POSIX seconds.
        level: In which level.
        what: One of `WORDS`.
        why: The reason, if the word does not say it.
    """

    number: int
    at: float
    keys: Collection[str]
    level: str
    what: str
    why: str

    @property
    def sort(self) -> tuple[str, str]:
        """Of each, the last is told."""
        return self.level, self.what

    def until(self, key: str) -> float | None:
        """Until when the record was to live; None if this does not tell."""
        return self.keys[key] if isinstance(self.keys, Mapping) else None


WORDS: Final = {
    "written": "the truth is in this level, the lowest",
    "owed": "a write or deletion waits for the lowest level, which could not be written or is written later",
    "replayed": "the lowest level got what it was owed",
    "changed": "it was changed in place: its health, its deadline, the key that it is sealed with",
    "admitted": "a copy came into this level with a write",
    "promoted": "a copy came into this level with a read",
    "demoted": "a copy came into this level, since the one above had no room for it",
    "put back": "the lowest level had lost it, and got it from a level above",
    "refused": "no copy came into this level",
    "evicted": "it left this level for want of room",
    "expired": "it left this level since its deadline had passed",
    "removed": "it left this level since it had failed too often",
    "deleted": "it was deleted, in every level",
    "dropped": "it left this level for another reason",
    "failed": "a write ended with an error: it may or may not have taken effect",
}
"""What can be decided, and what each word means."""


class Decisions:
    """The last decisions of one process. Thread-safe."""

    def __init__(self, most: int, now: Callable[[], float]) -> None:
        """Keep up to `most` refusals, as many others, and as many that were made in bulk; 0 keeps none."""
        self.most = most
        self._now = now
        self._numbers = count(1)
        self._saved = 0
        self._others: deque[Any] = deque(maxlen=most)
        self._refusals: deque[Any] = deque(maxlen=most)
        self._bulk: deque[Note] = deque()
        self._in_bulk = 0
        self.renew()

    def renew(self) -> None:
        """Make a lock of one's own, and leave what was noted to the parent to save: in a forked child."""
        self._lock = threading.RLock()  # reentrant: a finalizer or a signal handler may use the cache
        self._saved = next(self._numbers)

    def note(self, level: str, what: str, key: str, why: str = "", until: float | None = None) -> None:
        """Note what was decided of one record."""
        if self.most:  # no lock, and no object but a tuple: several come with each put
            notes = self._refusals if what == "refused" else self._others
            notes.append((next(self._numbers), self._now(), key, until, level, what, why))

    def note_many(self, level: str, what: str, keys: Collection[str], why: str = "") -> None:
        """Note what was decided of all of `keys`, which must not be changed any more; a mapping tells until when."""
        if not self.most or not keys:
            return
        with self._lock:
            self._bulk.append(Note(next(self._numbers), self._now(), keys, level, what, why))
            self._in_bulk += len(keys)
            while self._in_bulk > self.most and len(self._bulk) > 1:
                self._in_bulk -= len(self._bulk.popleft().keys)

    def of(self, key: str) -> list[Note]:
        """What was decided of `key`, in order."""
        return [note for note in self._notes(lambda one: one[2] == key) if key in note.keys]

    def unsaved(self) -> list[Note]:
        """What was noted since it was last `saved`, in order."""
        return [note for note in self._notes(lambda one: one[0] > self._saved) if note.number > self._saved]

    def saved(self, last: Note) -> None:
        """All up to `last` is kept elsewhere."""
        self._saved = max(self._saved, last.number)

    def _notes(self, wanted: Callable[[Any], bool]) -> list[Note]:
        """Those of the single notes that are wanted, and all that were made in bulk, in order."""
        single = filter(wanted, _snapshot(self._others) + _snapshot(self._refusals))
        return sorted([*map(_note, single), *_snapshot(self._bulk)])


def _note(single: tuple[int, float, str, float | None, str, str, str]) -> Note:
    number, at, key, until, level, what, why = single
    return Note(number, at, (key,) if until is None else {key: until}, level, what, why)


def _snapshot(notes: deque[T]) -> list[T]:
    while True:
        with suppress(RuntimeError):  # others go on noting meanwhile
            return list(notes)


def last_of_each(notes: Collection[Note], latest: float = inf) -> list[Note]:
    """The last of each sort, in order of time; first those after `latest`, of a clock that has been set back since."""

    def order(note: Note) -> tuple[bool, float, int]:
        return note.at <= latest, note.at, note.number

    kept = {note.sort: note for note in sorted(notes, key=order)}
    return sorted(kept.values(), key=order)


NONE: Final = Decisions(0, float)
"""Keeps none."""
