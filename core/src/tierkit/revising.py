"""Revisions: many records changed at once by compare and set on the authority, each unless another writer came first.

The waiting lists of bounded levels have no room: what such a level holds is written at once, and the rest only leaves a
mark there, so that a revision of everything does not evict what is in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from tierkit.bulk import Bulk, Waiting
from tierkit.comparing import Comparing, replace_all
from tierkit.entry import CacheEntry
from tierkit.level import Level
from tierkit.writing import Write

E = TypeVar("E", bound=CacheEntry)
Change = tuple[Write[E], int]
"""What is to take the place of a record, and the version that this must still have."""


class Revision(Bulk[E]):
    """Changes of many records."""

    def __init__(self, comparing: Comparing[E]) -> None:
        """Compare as `comparing` does."""
        super().__init__(comparing.writer, None)
        self.comparing = comparing
        self.copies = self.waited = comparing.copies
        self.waiting = {level: Waiting(0) for level in self.waiting}

    def revise(self, changes: Sequence[Change[E]]) -> set[str]:
        """Compare and set; what was changed goes to the levels above.

        Returns:
            The keys of the records that were changed. Of the others no live copy remains: another writer came first.

        Raises:
            CacheStorageError: The authority failed. Each record may or may not be changed.
        """
        started = self.stack.time.monotonic()
        keys = [write.entry.key for write, _ in changes]
        self.stack.filling.begin_many(keys, self.expected)
        try:
            writes = self._replace_in_authority(changes)
            self._note_changed(writes)
            self.spread(writes, started)
            done = {write.entry.key for write in writes}
            for key in keys:
                if key not in done:
                    self._give_up(key)
        except BaseException:
            for key in keys:
                self.writer.doubt(key)
            raise
        return done

    def spread(self, writes: list[Write[E]], started: float) -> None:
        """Bring what the authority has taken to the levels above."""
        self.store_copies(writes, started)
        for write in writes:
            self.end(write, started)

    def _note_changed(self, writes: Sequence[Write[E]]) -> None:
        until = {write.entry.key: write.entry._deadline for write in writes}
        self.stack.decisions.note_many(self.stack.levels[-1].name, "changed", until)

    def _replace_in_authority(self, changes: Sequence[Change[E]]) -> list[Write[E]]:
        authority = self.writer.authority([write.entry.key for write, _ in changes])
        replacements = [(write.row, expected) for write, expected in changes]
        answers = replace_all(authority, replacements)
        return [write for (write, _), replaced in zip(changes, answers, strict=True) if replaced]

    def _give_up(self, key: str) -> None:
        """Another writer came first: let the next read fetch what he wrote."""
        self.writer.drop_live(key)
        self.expected[self.stack.filling.stripe(key)] += 1

    def end_in(self, level: Level, write: Write[E], raced: bool, started: float) -> None:
        """Refresh the copy in a live level, if there is one."""
        if level.call(level.tier.get, write.entry.key) is not None:
            self.writer.fill_or_drop(level, write.entry, raced, started)
