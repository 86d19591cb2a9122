"""Copies of a write in the stored levels above the authority, and writes there that the authority is owed.

A put or a deletion is stamped when it is made, and what it finds in a level is older or newer by version alone. Where a
level refuses since it holds a newer write that the authority is owed, and that another process made, the write is made
again, stamped above that: the clock of the other may be ahead.

Compare and set is another matter: it goes by what the authority holds, and a write that is owed to it was not compared
with. That write comes after, whatever the versions say: it is newer than the put that the record goes back to. So what
was compared and set neither replaces nor deletes it here: each step is a compare and set on the level itself. When it
is replayed and refused, it is stamped anew (`owing`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Generic, TypeVar, cast

from tierkit.entry import CacheEntry
from tierkit.errors import TierkitError, TierUnavailable
from tierkit.level import Level
from tierkit.row import GOES_BACK_TO, ColumnValue, Row, comes_after, goes_back_to, is_owed
from tierkit.stack import LATE, OVERTAKEN
from tierkit.tier import Trait
from tierkit.writing import ATTEMPTS, Write, Writer

E = TypeVar("E", bound=CacheEntry)

NO_ROOM_FOR_ALL: Final = "of many that come at once it takes the last, as many as it has room for, and what it held"


class Copies(Generic[E]):
    """Copies of puts and deletions. A level that fails is left without older ones, or taken out of service."""

    def __init__(self, writer: Writer[E]) -> None:
        """Of what `writer` writes."""
        self.writer = writer
        self.stack = writer.stack

    def put(self, level: Level, rows: Sequence[Row], started: float) -> None:
        """Put `rows` into `level`, or only drop what is older if that is late or the level does not admit them."""
        late = self.stack.late(started)
        taken = [] if late else [row for row in rows if self._wanted(level, row)]
        kept_out = {row.key for row in rows} - {row.key for row in taken}
        self._note(level, "refused", kept_out, LATE if late else level.against_copies())

        def put() -> None:
            if taken:
                self._put(level, taken, started)
            if kept_out:
                self._drop(level, [row for row in rows if row.key in kept_out], 1)

        self._guarded(level, rows, 1, put)

    def _wanted(self, level: Level, row: Row) -> bool:
        return level.takes_copy(row.key)

    def keep_out(self, level: Level, rows: Sequence[Row]) -> None:
        """Put none of `rows` into `level`: drop what is older, and leave marks against older copies on their way."""
        self._note(level, "refused", [row.key for row in rows], NO_ROOM_FOR_ALL)
        self._guarded(level, rows, 1, lambda: self._drop(level, rows, 1))

    def _note(self, level: Level, what: str, keys: Collection[str], why: str = "") -> None:
        self.stack.decisions.note_many(level.name, what, keys, why)

    def _guarded(self, level: Level, rows: Sequence[Row], before: int, act: Callable[[], object]) -> None:
        if not level.begin_write(_versions(rows, before)):
            self._note(level, "refused", [row.key for row in rows], "it is out of service")
            return
        try:
            act()
        except TierkitError as error:
            self._failed(level, rows, before, error)
        finally:
            level.end_write()

    def _failed(self, level: Level, rows: Sequence[Row], before: int, failure: TierkitError) -> None:
        self._note(level, "dropped", [row.key for row in rows], f"it could not be written: {failure}")
        try:
            self._drop(level, rows, before)
        except TierkitError as error:
            level.miss(error, _versions(rows, before))

    def _put(self, level: Level, rows: Sequence[Row], _: float) -> None:
        answers = level.write(level.tier.put_many, rows)
        refused = {row.key: row for row, answer in zip(rows, answers, strict=True) if answer is not None}
        self._note(level, "admitted", [row.key for row in rows if row.key not in refused])
        self._note(level, "refused", refused.keys(), OVERTAKEN)
        self._outdo(level, refused)

    def _outdo(self, level: Level, refused: Mapping[str, Row]) -> None:
        """Write again, above it, what `level` refused since it holds what `Writer.came_before` is about."""
        held = level.call(level.tier.get_many, list(refused)) if refused else {}
        for key, owed in held.items():
            ours = is_owed(owed) and self.stack.owing.intents.made_since(key, owed.version)
            if not ours and (is_owed(owed) or self.writer.is_of_no_order(owed)):
                entry = cast("E", self.stack.sealer.open(refused[key]))
                again = self.writer.restamp(Write(entry, refused[key]), self.stack.versions.above(owed.version))
                self.writer.store(again, self.stack.time.monotonic())
                self.writer.drop_live(key)  # so that L1 is not filled with the stamp that was refused

    def _drop(self, level: Level, rows: Sequence[Row], before: int) -> set[str]:
        """Drop what is as old as `rows`, or older by as much, and let nothing so old come back."""
        refused = level.mark(level.tier.delete_many, _versions(rows, before))
        self._outdo(level, {row.key: row for row in rows if row.key in refused})
        return set()


class ComparedCopies(Copies[E]):
    """Copies of what was compared and set: they give way to writes that the authority is owed."""

    def drop(self, level: Level, rows: Sequence[Row]) -> set[str]:
        """Drop copies of `rows` and older ones from `level`, and let none come back.

        Returns:
            The keys of writes that were left there, since they come after.
        """
        left: set[str] = set()
        self._guarded(level, rows, 0, lambda: left.update(self._drop(level, rows, 0)))
        return left

    def _nothing_waits(self, level: Level) -> bool:
        """Whether `level` holds no write for the authority, neither of this process nor of another."""
        owing = self.stack.owing
        return owing.write_policy == "through" and not owing.intents and not level.tier.traits & Trait.SHARED

    def _failed(self, level: Level, rows: Sequence[Row], before: int, error: TierkitError) -> None:
        if self._nothing_waits(level):
            super()._failed(level, rows, before, error)
        else:
            level.miss(error, _versions(rows, before))

    def _wanted(self, level: Level, row: Row) -> bool:
        after = self.stack.owing.intents.get(row.key)  # as a level below has shown
        return (after is None or after.version < row.version) and super()._wanted(level, row)

    def _put(self, level: Level, rows: Sequence[Row], started: float) -> None:
        left = self._replace(level, {row.key: row for row in rows}, started)
        self._note(level, "admitted", [row.key for row in rows if row.key not in left])
        self._note(level, "refused", left, "it holds a write that the lowest level is owed, and that comes after")

    def _drop(self, level: Level, rows: Sequence[Row], before: int) -> set[str]:
        """With marks: a row that has expired takes the place of what is there, and is discarded.

        Where nothing waits for the authority a deletion does it in one step.
        """
        if self._nothing_waits(level):
            level.mark(level.tier.delete_many, _versions(rows, before))
            return set()
        stubs = {row.key: self._stub(row, row.version - before + 1) for row in rows}
        left = self._replace(level, stubs, None)
        for key, stub in stubs.items():
            if key not in left:
                level.call(level.tier.discard, stub)
        return left

    def _stub(self, row: Row, version: int) -> Row:
        columns: dict[str, ColumnValue] = {GOES_BACK_TO: goes_back_to(row)}
        return self.stack.sealer.remade(Row(key=row.key, version=version, purge_at=0.0, check="", columns=columns))

    def _replace(self, level: Level, rows: Mapping[str, Row], started: float | None) -> set[str]:
        """Let `rows` take the place of older copies, but of no write that comes after. Answers the keys of such.

        Raises:
            TierUnavailable: It is too late for that, by `started`; or others write the same all the time.
        """
        left: set[str] = set()
        absent: set[str] = set()
        for _ in range(ATTEMPTS):
            held: dict[str, Row] = level.call(level.tier.get_many, list(rows))
            left |= {key for key, row in held.items() if self._comes_after(level, row, rows[key])}
            older = [row for key, row in rows.items() if key not in left and _version(held, key) < row.version]
            replacements = [(row, _version(held, row.key)) for row in older]
            if started is not None and self.stack.late(started):
                raise TierUnavailable(f"{level.name}: what it holds could not be read in time to be replaced")
            done = level.write(level.tier.replace_many, replacements) if replacements else []
            pending = {row.key: row for row, replaced in zip(older, done, strict=True) if not replaced}
            marked = absent - held.keys()  # twice there was nothing, and it was refused: by a mark that is newer
            absent = pending.keys() - held.keys()
            rows = {key: row for key, row in pending.items() if key not in marked}
            if not rows:
                return left
        raise TierUnavailable(f"{level.name}: {ATTEMPTS} other writers of one record came first: try again")

    def _comes_after(self, level: Level, held: Row, row: Row) -> bool:
        """Whether `held` can be trusted to be a write that `row` was not compared with."""
        if not comes_after(held, row):
            return False
        try:
            self.stack.sealer.verify(held)
        except TierkitError:
            return False  # found, counted and evicted when it is read
        owed = held
        if held.version < row.version:  # at once: `row` may be gone when it is replayed, and leave nothing but a mark
            again = self.stack.sealer.restamp(held, self.stack.versions.above(row.version))
            owed = again if level.write(level.tier.replace, again, held.version) else held
        self.stack.owing.adopt(level, owed)
        self.stack.forget_copies(held.key)  # and L1 is not filled with `row`
        return True


class MergedCopies(ComparedCopies[E]):
    """Copies of merged records, each a put in its own right: where nothing waits for the authority they go as puts."""

    def _nothing_waits(self, level: Level) -> bool:  # noqa: ARG002 - what another process holds there is older or newer
        return self.stack.owing.write_policy == "through" and not self.stack.owing.intents

    def _put(self, level: Level, rows: Sequence[Row], started: float) -> None:
        if self._nothing_waits(level):
            Copies._put(self, level, rows, started)
        else:
            super()._put(level, rows, started)


def _version(held: Mapping[str, Row], key: str) -> int:
    return held[key].version if key in held else 0


def _versions(rows: Sequence[Row], before: int) -> dict[str, int]:
    return {row.key: row.version - before for row in rows}
