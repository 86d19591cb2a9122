"""Compare and set on the authority: changes of a record that count only if nobody else changed it meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from tierkit.copies import ComparedCopies
from tierkit.entry import CacheEntry, Usage
from tierkit.errors import CacheCorruptionError, TierUnavailable
from tierkit.level import Level
from tierkit.row import GOES_BACK_TO, ColumnValue, Row, goes_back_to
from tierkit.stack import Stack
from tierkit.tier import known_version
from tierkit.writing import ATTEMPTS, Write, Writer

E = TypeVar("E", bound=CacheEntry)


class Comparing(Generic[E]):
    """Changes by compare and set. All of them raise `TierUnavailable` while the authority is out of service."""

    def __init__(self, writer: Writer[E]) -> None:
        """Compare with what the authority of `writer` holds, and write as it does."""
        self.writer = writer
        self.stack: Stack[E] = writer.stack
        self.copies: ComparedCopies[E] = ComparedCopies(writer)

    def change(self, key: str, changed: Callable[[E], E]) -> E | None:
        """Put what `changed` makes of the record in its place; again, if another writer came first.

        Args:
            key: Names the record.
            changed: Called with the entry; answers the same object if there is nothing to change.

        Returns:
            The entry as it is now, or None if there is none that may be returned.
        """
        with self.stack.filling.turn(key):
            return self._change(key, changed)

    def _change(self, key: str, changed: Callable[[E], E]) -> E | None:
        authority = self.writer.authority([key])
        for _ in range(ATTEMPTS):
            held = self.held(authority, key)
            entry = None if held is None else self.stack.fresh(authority, held)
            if held is None or entry is None:
                return None
            new = changed(entry)
            done = entry if new is entry else self.replace(self.prepare(new, held), held.version)
            if done is not None:
                return done
        raise TierUnavailable(f"{authority.name}: {ATTEMPTS} other writers of one record came first")

    def held(self, authority: Level, key: str) -> Any:
        """What the authority holds for `key`, or None; damage is counted."""
        try:
            return authority.call(authority.tier.get, key)
        except CacheCorruptionError as error:
            self.stack.damaged(authority, key, error)
            return None

    def held_many(self, keys: Sequence[str]) -> dict[str, tuple[Any, E]]:
        """What the authority holds of `keys`: the records and their entries, those that may be returned, by key."""
        authority = self.writer.authority(keys)
        records: dict[str, Any] = authority.call(authority.tier.get_many, keys)
        opened = ((record, self.stack.fresh(authority, record)) for key, record in records.items() if record.key == key)
        return {entry.key: (record, entry) for record, entry in opened if entry is not None}

    def upsert(self, authority: Level, key: str, made: Callable[[E | None], E]) -> Write[E]:
        """Put what `made` makes of the record, or of None, into the authority; again, if another writer came first."""
        with self.stack.filling.turn(key):
            return self._upsert(authority, key, made)

    def _upsert(self, authority: Level, key: str, made: Callable[[E | None], E]) -> Write[E]:
        marked = 0
        for _ in range(ATTEMPTS):
            held = self.held(authority, key)
            entry = None if held is None else self.stack.fresh(authority, held)
            write = self.prepare(made(entry), held, same_secrets=False, marked=marked)
            if authority.write(authority.tier.replace, write.row or write.entry, held.version if held else 0):
                authority.note("written", key, until=write.entry._deadline)
                return write
            if held is None:  # by a mark of a clock that is ahead of ours
                marked = authority.mark(known_version, authority.tier, key)
        raise TierUnavailable(f"{authority.name}: {ATTEMPTS} other writers of one record came first")

    def prepare(self, entry: E, held: Any, *, same_secrets: bool = True, marked: int = 0) -> Write[E]:
        """`entry` stamped, with the usage of the record `held`, in whose place it is to be put; None for none.

        With `same_secrets` it keeps the ciphertext too, and columns that the class does not declare. Where none is held
        its version is above `marked`.
        """
        stack = self.stack
        stamped = self.writer.stamp(entry, self._usage_of(held), marked if held is None else held.version)
        if not stack.stored:
            stack.sealer.schema.encode(stamped)  # refuses what no tier could hold
            return Write(stamped, None)
        return Write(stamped, stack.sealer.seal(stamped, ciphertext_of=_marked(held) if same_secrets else None))

    def _usage_of(self, held: Any) -> Usage:
        if held is None:
            return Usage()
        return Usage(held.access_count, held.last_accessed) if self.stack.stored else held._usage

    def replace(self, write: Write[E], expected_version: int) -> E | None:
        """Put a write that was prepared if the authority holds `expected_version` (0: nothing); None if it does not."""
        stack = self.stack
        started = stack.time.monotonic()
        stamped, row = write
        expected = stack.filling.begin(stamped.key)
        try:
            authority = self.writer.authority([stamped.key])
            if not authority.write(authority.tier.replace, stamped if row is None else row, expected_version):
                self.writer.drop_live(stamped.key)
                return None
            for level in reversed(stack.stored[:-1]):
                self.copies.put(level, [row] if row else [], started)
            self.writer.fill_live(stamped, expected, started, done=authority)
        except BaseException:
            self.writer.doubt(stamped.key)
            raise
        authority.note("changed", stamped.key, until=stamped._deadline)
        stack.settle()
        return stamped

    def delete_many(self, entries: Sequence[E], why: str = "") -> set[str]:
        """As `remove_many`, for who asked for it: `explain` tells of the deletion, and `why`."""
        removed = self.remove_many(entries)
        self.stack.decisions.note_many(self.stack.levels[-1].name, "deleted", removed, why)
        return removed

    def remove(self, entry: E) -> bool:
        """Delete `entry` at its own version: a record that was put meanwhile stays. Answers whether it was removed."""
        return entry.key in self.remove_many([entry])

    def remove_many(self, entries: Sequence[E]) -> set[str]:
        """As `remove`, for each of `entries`. Answers the keys of those that were removed.

        The levels above come first: once they have the mark, no write that the authority is owed can be older.
        """
        stack, versions = self.stack, {entry.key: entry.version for entry in entries}
        for key in versions:
            stack.filling.begin(key)
        try:
            authority = self.writer.authority()
            if stack.stored[:-1]:
                versions = self._drop_above(authority, versions)
            refused = authority.mark(authority.tier.delete_many, versions) if versions else {}
            for entry in entries:
                self._end_removal(entry)
        except BaseException:
            for entry in entries:
                self.writer.doubt(entry.key)
            raise
        return versions.keys() - refused.keys()

    def _drop_above(self, authority: Level, versions: dict[str, int]) -> dict[str, int]:
        """Drop the copies above of what is to be removed; answers what is left to be removed."""
        held: dict[str, Row] = authority.call(authority.tier.get_many, list(versions))
        rows = [_named(key, version, held.get(key)) for key, version in versions.items()]
        left: set[str] = set()
        for level in reversed(self.stack.stored[:-1]):
            left |= self.copies.drop(level, rows)
        return {key: version for key, version in versions.items() if key not in left}

    def _end_removal(self, entry: E) -> None:
        self.writer.in_live(entry.key, lambda level: level.call(level.tier.delete, entry.key, entry.version))
        self.stack.ledger.pop(entry.key)


def _named(key: str, version: int, held: Row | None) -> Row:
    """A row that stands for a record: its version, and which put that goes back to, as far as is known."""
    columns: dict[str, ColumnValue] = {GOES_BACK_TO: 0 if held is None else goes_back_to(held)}
    return Row(key=key, version=version, purge_at=0.0, check="", columns=columns)


def _marked(held: Row) -> Row:
    """`held` with a column that says which put it goes back to, which what takes its place keeps."""
    return msgspec.structs.replace(held, columns={**held.columns, GOES_BACK_TO: goes_back_to(held)})


def replace_all(authority: Level, replacements: Sequence[tuple[Row | None, int]]) -> list[bool]:
    """Compare and set many rows, each with the version expected; the answers in the same order.

    Raises:
        TierUnavailable: The tier failed, or answered for fewer or more.
    """

    def replace(level: Level) -> list[bool]:
        answers: list[bool] = level.tier.replace_many(replacements)
        if len(answers) != len(replacements):
            raise TierUnavailable(
                f"{level.name} ({level.kind}): replace_many was given {len(replacements)} rows, answered {len(answers)}"
            )
        return answers

    return authority.write(replace, authority)
