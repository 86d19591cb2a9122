"""Bulk puts that merge with what is held: warming refreshes a record without forgetting what was found out about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from tierkit.bulk import Bulk, OnInvalid
from tierkit.checks import is_key
from tierkit.comparing import Comparing, replace_all
from tierkit.copies import MergedCopies
from tierkit.entry import CacheEntry, HealthStatus, Usage
from tierkit.level import Level
from tierkit.writing import Write

E = TypeVar("E", bound=CacheEntry)


def merged(new: E, held: E | None) -> E:
    """`new` as it is put where `held` is held; None if nothing is, or it has expired.

    `created_at` stays. So does the health that this cache has found out; where it has found out nothing, what `new`
    says of it is taken. Everything else is as `new` says. (Usage is outside the record, and stays in any case.)
    """
    if held is None:
        return new
    known = new if held.health_status is HealthStatus.UNKNOWN and not held.failure_count else held
    return new.evolve(created_at=held.created_at, health_status=known.health_status, failure_count=known.failure_count)


class Merging(Bulk[E]):
    """A bulk put in which each batch is read first, merged, and put by compare and set."""

    def __init__(self, comparing: Comparing[E], on_invalid: OnInvalid | None) -> None:
        """Write as the writer of `comparing` does; tell `on_invalid` of what cannot be stored."""
        super().__init__(comparing.writer, on_invalid)
        self.comparing = comparing
        self.copies = MergedCopies(comparing.writer)
        self._given: dict[str, E] = {}
        self._held: dict[str, tuple[Any, E]] = {}

    def arriving(self, batch: Sequence[tuple[int, E]]) -> Iterable[tuple[int, E]]:
        """The entries of a batch, merged with what is held."""
        self._given = {key: entry for _, entry in batch if (key := _key_of(entry))}
        held = self._held = self.comparing.held_many(list(self._given)) if self.stack.stored and self._given else {}
        if not held:
            return batch
        found = ((index, entry, held.get(_key_of(entry))) for index, entry in batch)
        return ((index, entry if there is None else merged(entry, there[1])) for index, entry, there in found)

    def prepared(self, index: int, entry: E) -> Write[E] | None:
        """`entry` stamped and sealed, with the usage of what is held."""
        write = super().prepared(index, entry)
        if write is not None and (held := self._held.get(entry.key)) is not None:
            record = held[0]
            msgspec.structs.force_setattr(write.entry, "_usage", Usage(record.access_count, record.last_accessed))
        return write

    def store(self, writes: list[Write[E]], started: float) -> None:
        """Write to the authority by compare and set, and to the stored levels above it."""
        authority = self.writer.authority([entry.key for entry, _ in writes])
        if authority.live:
            self._upsert(authority, writes, range(len(writes)))
        else:
            self._replace_in(authority, writes)
            self.store_copies(writes, started)

    def _replace_in(self, authority: Level, writes: list[Write[E]]) -> None:
        """Compare and set all at once; what another writer changed meanwhile is merged again by itself."""
        expected = {key: record.version for key, (record, _) in self._held.items()}
        replacements = [(row, expected.get(entry.key, 0)) for entry, row in writes]
        answers = replace_all(authority, replacements)
        self.note_truth((write for write, replaced in zip(writes, answers, strict=True) if replaced), authority)
        self._upsert(authority, writes, [index for index, replaced in enumerate(answers) if not replaced])

    def _upsert(self, authority: Level, writes: list[Write[E]], indexes: Sequence[int]) -> None:
        for index in indexes:
            key = writes[index].entry.key
            writes[index] = self.comparing.upsert(authority, key, partial(merged, self._given[key]))


def _key_of(entry: object) -> str:
    """The key of what may be no entry, and may have none that can be one: it is refused later."""
    return entry.key if isinstance(entry, CacheEntry) and is_key(entry.key) else ""
