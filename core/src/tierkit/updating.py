"""Read, change and write as one step: by compare and set, whether there is a record or none.

What is put where none was, and what is put in place of an expired one, is a put in its own right. What is made of a
record that was found goes back to the same put (`row.GOES_BACK_TO`), as every change of a record does.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

from tierkit.clock import written_at
from tierkit.comparing import Comparing
from tierkit.entry import CacheEntry
from tierkit.errors import TierUnavailable
from tierkit.level import Level
from tierkit.stack import Stack
from tierkit.tier import known_version
from tierkit.writing import ATTEMPTS, Write

E = TypeVar("E", bound=CacheEntry)


class Updating(Generic[E]):
    """Changes of a record that may not be there. All of them raise `TierUnavailable` while the authority is out."""

    def __init__(self, comparing: Comparing[E]) -> None:
        """Compare and set as `comparing` does."""
        self._comparing = comparing
        self._stack: Stack[E] = comparing.stack

    def update(self, key: str, made: Callable[[E | None], E | None]) -> E | None:
        """Put what `made` makes of the record, or of None; again, if another writer came first.

        Args:
            key: Names the record.
            made: Called with the entry, or None if there is none that may be returned. Answers what is to be put, or
                the same object, or None, if nothing is.

        Returns:
            The entry as it is now.
        """
        with self._stack.filling.turn(key):
            return self._update(key, made)

    def _update(self, key: str, made: Callable[[E | None], E | None]) -> E | None:
        marked = 0
        for _ in range(ATTEMPTS):
            held, entry, authority = self._held(key)
            new = made(entry)
            if new is None or new is entry:
                return entry
            done = self._comparing.replace(self._prepared(new, held, entry, marked), _version(held))
            if done is not None:
                return done
            if held is None:  # by a mark of a clock that is ahead of ours
                marked = authority.mark(known_version, authority.tier, key)
        raise TierUnavailable(f"{authority.name}: {ATTEMPTS} other writers of one record came first: try again")

    def pop(self, key: str) -> E | None:
        """Remove the record and answer it; None if there is none. No two callers get the same.

        A deletion does not say who was first: the record is replaced by one that has expired, and that is deleted.
        """
        with self._stack.filling.turn(key):
            return self._pop(key)

    def _pop(self, key: str) -> E | None:
        for _ in range(ATTEMPTS):
            held, entry, authority = self._held(key)
            if entry is None:
                return None
            gone = self._comparing.prepare(entry.evolve(expires_at=_LONG_AGO), held)
            done = self._comparing.replace(gone, held.version)
            if done is not None:
                self._comparing.delete_many([done])
                return entry
        raise TierUnavailable(f"{authority.name}: {ATTEMPTS} other writers of one record came first: try again")

    # -- what is slow to make ----------------------------------------------------------------------------------------

    def begin(self, key: str) -> tuple[E | None, int, int]:
        """Before a record is made that `fill` is to put.

        Returns:
            The entry that may be returned, or None; the version of what is held, expired or not, or 0; and a stamp of
            this moment.
        """
        held, entry, authority = self._held(key)
        if held is not None and entry is None:  # it may be gone: what has expired is dropped by who finds it
            held = self._comparing.held(authority, key)
        version = _version(held)
        return entry, version, self._stack.versions.above(version)

    def fill(self, entry: E, expected: int, since: int) -> E | None:
        """Put `entry`, unless someone wrote or deleted its record since `begin`.

        Its version is the stamp of `begin`: a tier that knows of anything newer, and be it the mark of a deletion,
        refuses it. The stamp is not used if it is so old that such a mark may be forgotten.

        Returns:
            The entry as stored, or None.
        """
        held, _, _ = self._held(entry.key)
        if _version(held) != expected:
            return None
        write = self._prepared(entry, held, None)
        if self._stack.time.now() - written_at(since) < self._stack.settings.marks_seconds:
            write = self._comparing.writer.restamp(write, since)
        done = self._comparing.replace(write, expected)
        return self._over_mark(write) if done is None and not expected else done

    def _over_mark(self, write: Write[E]) -> E | None:
        """Put what was refused though nothing was held, if by the mark of a clock too far ahead to tell an order."""
        versions, (authority, key) = self._stack.versions, (self._stack.levels[-1], write.entry.key)
        marked = authority.mark(known_version, authority.tier, key)
        if versions.believes(marked):
            return None
        return self._comparing.replace(self._comparing.writer.restamp(write, versions.above(marked)), 0)

    # -- inside --------------------------------------------------------------------------------------------------------

    def _held(self, key: str) -> tuple[Any, E | None, Level]:
        authority = self._comparing.writer.authority([key])
        held = self._comparing.held(authority, key)
        return held, None if held is None else self._stack.fresh(authority, held), authority

    def _prepared(self, new: E, held: Any, entry: E | None, marked: int = 0) -> Write[E]:
        same = entry is not None and self._same_secrets(new, entry)
        write = self._comparing.prepare(new, held, same_secrets=same, marked=marked)
        self._comparing.writer.refuse_expired(write.entry)
        return write

    def _same_secrets(self, new: E, entry: E) -> bool:
        """Whether the ciphertext of `entry` is that of `new` too."""
        schema = self._stack.sealer.schema
        return all(getattr(new, field.name) == getattr(entry, field.name) for field in schema.secrets + schema.bound)


def _version(held: Any) -> int:
    return 0 if held is None else int(held.version)


_LONG_AGO: Final = datetime.fromtimestamp(0, UTC)
