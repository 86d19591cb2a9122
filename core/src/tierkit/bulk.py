"""Bulk puts: as many single puts as there are entries, through the bulk methods of the tiers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

from tierkit.checks import check_entry
from tierkit.copies import Copies
from tierkit.entry import CacheEntry
from tierkit.errors import CacheValidationError, TierkitError, TierUnavailable
from tierkit.level import Level
from tierkit.row import Row
from tierkit.writing import BATCH, Write, Writer

E = TypeVar("E", bound=CacheEntry)
OnInvalid = Callable[[int, CacheValidationError], None]


class Waiting(Generic[E]):
    """The last writes, the last of each key, and when each began: as many as a bounded level will keep."""

    def __init__(self, most: int) -> None:
        """None, of `most`."""
        self._most = most
        self._writes: OrderedDict[str, tuple[Write[E], float]] = OrderedDict()

    def __iter__(self) -> Iterator[tuple[Write[E], float]]:
        """Each write and when it began, the oldest first."""
        return iter(self._writes.values())

    def add(self, write: Write[E], started: float) -> Write[E] | None:
        """Let `write` wait. Answers the one for which there is no room any more."""
        self._writes[write.entry.key] = (write, started)
        return self._writes.popitem(last=False)[1][0] if len(self._writes) > self._most else None

    def forget(self, keys: Iterable[str]) -> None:
        """Let what is written anew wait no longer."""
        for key in keys:
            self._writes.pop(key, None)


class WaitedCopies(Copies[E]):
    """Copies of what waited: by version alone.

    When it was written the level had nothing of its key. What it holds now and the authority is owed came later.
    """

    def _outdo(self, level: Level, refused: Mapping[str, Row]) -> None: ...


class Bulk(Generic[E]):
    """One bulk put.

    For each bounded level above the authority it keeps the last records, as many as the level will keep, and writes
    them at the end. The others only leave a mark in such a stored level, against older copies that are on their way.
    """

    def __init__(self, writer: Writer[E], on_invalid: OnInvalid | None) -> None:
        """Write through `writer`; tell `on_invalid` of what cannot be stored."""
        self.writer = writer
        self.stack = writer.stack
        self.on_invalid = on_invalid
        self.copies: Copies[E] = Copies(writer)
        self.waited: Copies[E] = WaitedCopies(writer)
        self.written = 0
        self.waiting: dict[Level, Waiting[E]] = {
            level: Waiting(level.max_entries) for level in self.stack.levels[:-1] if level.max_entries is not None
        }
        self.expected: list[int] = []

    def put(self, entries: Iterable[E]) -> int:
        """Put `entries`; what came before an error is written. Answers how many were."""
        self.note_counters()
        try:
            self._put_in_batches(entries)
        finally:
            self._finish()
        return self.written

    def note_counters(self) -> None:
        """From here on writes of others are noticed."""
        self.expected = self.stack.filling.snapshot()

    def _put_in_batches(self, entries: Iterable[E]) -> None:
        batch: list[tuple[int, E]] = []
        try:
            for numbered in enumerate(entries):
                batch.append(numbered)
                if len(batch) == BATCH:
                    full, batch = batch, []
                    self._put_batch(full)
        finally:
            self._put_batch(batch)

    def _put_batch(self, batch: Sequence[tuple[int, E]]) -> None:
        writes: dict[str, Write[E]] = {}
        valid = 0
        started = self.stack.time.monotonic()
        try:
            for index, entry in self.arriving(batch):
                write = self.prepared(index, entry)
                if write is not None:
                    valid += 1
                    writes.pop(write.entry.key, None)  # the last of a key is the one that stays, and in its own place
                    writes[write.entry.key] = write
        finally:
            self._write(list(writes.values()), started)
            self.written += valid

    def arriving(self, batch: Sequence[tuple[int, E]]) -> Iterable[tuple[int, E]]:
        """The entries of a batch as they are to be put, each with its position."""
        return batch

    def prepared(self, index: int, entry: E) -> Write[E] | None:
        """`entry` stamped and sealed, or None if it cannot be stored."""
        try:
            return self.writer.prepare(check_entry(entry, self.stack.sealer.schema.entry_type))
        except CacheValidationError as error:
            if self.on_invalid is None:
                raise
            self.on_invalid(index, error)
            return None

    def _finish(self) -> None:
        for level in reversed(list(self.waiting)):
            if level.live:
                for write, started in self.waiting[level]:
                    self._fill(level, write.entry, started)
            else:
                self._store_waiting(level)
        self.stack.settle()

    def _write(self, writes: list[Write[E]], started: float) -> None:
        if not writes or not self.stack.levels:
            return
        self.writer.check_writable()
        keys = [write.entry.key for write in writes]
        self.stack.filling.begin_many(keys, self.expected)
        for waiting in self.waiting.values():
            waiting.forget(keys)
        try:
            self.store(writes, started)
            for write in writes:
                self.end(write, started)
        except BaseException:
            for key in keys:
                self.writer.doubt(key)
            raise
        if not self.waiting:  # else at the end, when what waits is there: what the authority evicts leaves all levels
            self.stack.settle()

    # -- stored levels -----------------------------------------------------------------------------------------------

    def store(self, writes: list[Write[E]], started: float) -> None:
        """Write to the stored levels, the authority first."""
        authority = self.stack.levels[-1]
        if authority.live:
            self.writer.authority()
            return
        self.store_copies(writes, started, self._store_truth(authority, writes, started))

    def _store_truth(self, authority: Level, writes: list[Write[E]], started: float) -> Level | None:
        """Write to the authority, or to who holds writes for it; answers the level that has them."""
        owing = self.stack.owing
        refusals: Sequence[int | None] = ()

        def write(place: Level | None) -> None:
            nonlocal refusals
            if self.stack.late(started):
                writes[:] = [self.writer.restamp(write, self.stack.versions.next()) for write in writes]
            rows = _rows(writes)
            if place is not authority:
                refusals = owing.put_many(place, rows)
                return
            refusals = authority.write(_put_all, authority, rows)
            for row, refused in zip(rows, refusals, strict=True) if owing.intents else ():
                if refused is None:
                    owing.intents.settle(row.key, row.version)

        holder = self.writer.in_truth(write)
        self.note_truth(writes, holder)
        self._repeat(writes, refusals, started)
        return holder

    def note_truth(self, writes: Iterable[Write[E]], holder: Level | None) -> None:
        """Note that the authority has `writes`, or who holds them for it."""
        decisions, authority = self.stack.decisions, self.stack.levels[-1]
        until = {write.entry.key: write.entry._deadline for write in writes} if decisions.most else {}
        if holder is authority:
            decisions.note_many(authority.name, "written", until)
        else:
            decisions.note_many(
                authority.name, "owed", until, f"written, and held by {holder.name if holder else 'this process'}"
            )

    def _repeat(self, writes: list[Write[E]], refusals: Sequence[int | None], started: float) -> None:
        """Put again, with a newer stamp, what was refused; `writes` is changed accordingly."""
        for index, refused in enumerate(refusals):
            if refused is not None:
                again = self.writer.restamp(writes[index], self.stack.versions.above(refused))
                writes[index] = self.writer.store(again, started)

    def store_copies(self, writes: list[Write[E]], started: float, holder: Level | None = None) -> None:
        """Write to the stored levels above the authority but for `holder`, or note it for the end."""
        for level in reversed(self.stack.stored[:-1]) if writes else ():
            if level is holder:
                continue
            if level in self.waiting:
                self._refresh(level, writes, started)
            else:
                self.copies.put(level, _rows(writes), started)

    def _refresh(self, level: Level, writes: list[Write[E]], started: float) -> None:
        """Write at once what the level holds already, so that it is never the older one; let the rest wait."""
        rows = _rows(writes)
        held = self._held_in(level, rows)
        if held is None:
            self.copies.keep_out(level, rows)
            return
        self.copies.put(level, [row for row in rows if row.key in held], started)
        absent = [write for write in writes if write.entry.key not in held]
        self.waited.keep_out(level, _rows(self._make_wait(level, absent, started)))

    def _held_in(self, level: Level, rows: Sequence[Row]) -> Mapping[str, Row] | None:
        """What `level` holds of the keys of `rows`; None if it cannot tell, or is out of service and misses them."""
        try:
            return level.call(level.tier.get_many, [row.key for row in rows]) if level.in_service else None
        except TierkitError:
            return None

    def _make_wait(self, level: Level, writes: Sequence[Write[E]], started: float) -> list[Write[E]]:
        """Let `writes` wait for the end; answers those for which there is no room any more."""
        pushed_out = [self.waiting[level].add(write, started) for write in writes]
        return [write for write in pushed_out if write is not None]

    def _store_waiting(self, level: Level) -> None:
        by_start: dict[float, list[Write[E]]] = {}
        for write, started in self.waiting[level]:
            by_start.setdefault(started, []).append(write)
        for started, writes in by_start.items():
            self.waited.put(level, _rows(writes), started)

    # -- live levels -------------------------------------------------------------------------------------------------

    def end(self, write: Write[E], started: float) -> None:
        """End the write of one record: the live levels and the counter in one step, as a single put does."""
        entry = write.entry
        stripe = self.stack.filling.stripe(entry.key)

        def step(level: Level) -> None:
            raced = self.stack.filling.counters[stripe] != self.expected[stripe]
            self.end_in(level, write, raced, started)

        self.writer.in_live(entry.key, step)
        self.expected[stripe] += 1

    def end_in(self, level: Level, write: Write[E], raced: bool, started: float) -> None:
        """What the end of a write does in a live level."""
        waiting = self.waiting.get(level)
        if waiting is None:
            self.writer.fill_or_drop(level, write.entry, raced, started)
        else:
            self.writer.drop_older(level, write.entry.key, write.entry.version)
            waiting.add(write, started)

    def _fill(self, level: Level, entry: E, started: float) -> None:
        stack = self.stack
        stripe = stack.filling.stripe(entry.key)

        def step(level: Level) -> None:
            raced = stack.filling.counters[stripe] != self.expected[stripe]
            self.writer.fill_or_drop(level, entry, raced, started)

        with stack.filling.locks[stripe]:
            self.writer.guarded_step(level, entry.key, step)


def _put_all(level: Level, rows: list[Row]) -> list[int | None]:
    answers: list[int | None] = level.tier.put_many(rows)
    if len(answers) != len(rows):
        raise TierUnavailable(
            f"{level.name} ({level.kind}): put_many was given {len(rows)} rows, answered {len(answers)}"
        )
    return answers


def _rows(writes: Iterable[Write[E]]) -> list[Row]:
    return [row for _, row in writes if row is not None]
