"""Lines to append to a log, staged: what is staged is in the file, or not at all, and only then in the index."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

from tierkit import Delta, Row, delete_refusal, files, refusal, with_usage
from tierkit_jsonl.lines import Mark, Place, encode_mark, encode_row, encode_usage, key_crc
from tierkit_jsonl.log import Log, used

T = TypeVar("T")

_CHUNK = 4 * 1024 * 1024


class Batch:
    """Writes to one log, by who holds its locks.

    Attributes:
        log: The log.
        now: The time that marks get, in POSIX seconds.
        start: Where the file ended before.
        wrote: Whether anything may have been written.
    """

    def __init__(self, log: Log, now: float, horizon: float) -> None:
        """Stage nothing yet. Marks made before `horizon` count no more."""
        self.log = log
        self.now = now
        self._horizon = horizon
        self.start = log.end
        self.wrote = False
        self._end = log.end
        self._lines: list[bytes] = []
        self._size = 0
        self._last = b""
        self._staged: dict[str, Place | Mark] = {}
        self._rows: dict[str, Row] = {}

    def put(self, row: Row, line: bytes) -> int | None:
        """Stage `row`, whose line is `line`, or answer the version that refuses it."""
        held = self.held(row.key)
        same = self._row(held) if held is not None and held.version == row.version else None
        newer = held if held is not None and held.version != row.version else same
        refused = refusal(row, newer, self._mark_of(row.key))
        if refused is not None:
            return refused
        if held is not None and (held.access_count or held.last_accessed):
            merged = with_usage(row, held.access_count, held.last_accessed)
            if merged is not row:
                row, line = merged, encode_row(merged, key_crc(row.key))
        if held is None or same is None or not _same_usage(row, held):
            self.add(row, line)
        return None

    def replace(self, row: Row, line: bytes, expected_version: int) -> bool:
        """Stage `row` if the version held or staged for its key is the expected one (0: none); whether that was so."""
        held = self.held(row.key)
        return (held.version if held else 0) == expected_version and self.put(row, line) is None

    def delete(self, key: str, version: int) -> int | None:
        """Stage a deletion, or answer the newer version that refuses it."""
        refused = delete_refusal(version, self.held(key), self._mark_of(key))
        if refused is None:
            self.mark(key, version + 1)
        return refused

    def discard(self, key: str, version: int) -> bool:
        """Stage the removal of the record if it still has `version`; whether that was so."""
        held = self.held(key)
        if held is None or held.version != version:
            return False
        self.mark(key, version)
        return True

    def touch(self, deltas: Mapping[str, Delta]) -> None:
        """Stage more usage of records that are held."""
        for key, delta in deltas.items():
            held = self.held(key)
            if held is not None:
                place = used(held, held.access_count + delta.count, delta.last_accessed)
                if place != held:
                    self._stage(place, encode_usage(place))

    def purge(self, places: Iterable[Place]) -> int:
        """Stage the removal of the records that lay at `places`, if they have the same versions; how many have."""
        return sum([self.discard(place.key, place.version) for place in places])

    def forget(self, marks: Iterable[Mark]) -> None:
        """Forget `marks`, but for those in whose place there is another by now."""
        for mark in marks:
            if self.log.marks.get(mark.key) == mark:
                self.log.drop(mark.key)

    def clear(self) -> None:
        """Stage the deletion of every record."""
        for place in self.log.index.values():
            self.mark(place.key, place.version + 1)

    def held(self, key: str) -> Place | None:
        """Where the record of `key` lies or will lie."""
        staged = self._staged.get(key)
        if staged is None:
            return self.log.index.get(key)
        return staged if isinstance(staged, Place) else None

    def add(self, row: Row, line: bytes) -> None:
        """Stage `row` as it is."""
        length = len(line) - 1
        self._rows[row.key] = row
        place = Place(row.key, self._end, length, row.version, row.purge_at, row.access_count, row.last_accessed)
        self._stage(place, line)

    def move(self, place: Place, line: bytes) -> None:
        """Stage the `line` of a record that lies at `place` in another file."""
        self._stage(msgspec.structs.replace(place, offset=self._end, length=len(line) - 1), line)

    def mark(self, key: str, version: int, op: str = "mark") -> None:
        """Stage a mark."""
        line = encode_mark(key, version, self.now, op)
        self._stage(Mark(key, version, self.now, len(line) - 1), line)

    def keep(self, mark: Mark) -> None:
        """Stage a mark that was made before, for a rewrite."""
        self._stage(mark, encode_mark(mark.key, mark.version, mark.marked_at))

    def header(self, line: bytes) -> None:
        """Stage the first line of a file."""
        self.log.live += len(line)
        self._append(line)

    def commit(self, *, sync: bool) -> None:
        """Write what is staged, flush it to the medium if asked, and index it.

        Raises:
            OSError: The caller takes back what was written.
        """
        if not self._last:
            return
        self._write()
        if sync:
            files.fsync(self.log.fd)
        log = self.log
        log.intact += 1
        for item in self._staged.values():
            if isinstance(item, Place):
                log.hold(item)
            else:
                log.mark(item)
        log.appended(self._end - len(self._last), self._last)

    def _row(self, place: Place) -> Row | None:
        return self._rows[place.key] if place.offset >= self.start else self.log.read(place)

    def _mark_of(self, key: str) -> int:
        staged = self._staged.get(key) or self.log.marks.get(key)
        return staged.version if isinstance(staged, Mark) and staged.marked_at > self._horizon else 0

    def _stage(self, item: Place | Mark, line: bytes) -> None:
        self._staged[item.key] = item
        self._append(line)

    def _append(self, line: bytes) -> None:
        self._lines.append(line)
        self._last = line
        self._end += len(line)
        self._size += len(line)
        if self._size >= _CHUNK:
            self._write()

    def _write(self) -> None:
        self.wrote = True
        files.append(self.log.fd, b"".join(self._lines))
        self._lines.clear()
        self._size = 0


def parts(items: list[T], length: int) -> Iterator[list[T]]:
    """`items`, so many at a time: what one batch takes."""
    return (items[start : start + length] for start in range(0, len(items), length))


def _same_usage(row: Row, place: Place) -> bool:
    return (row.access_count, row.last_accessed) == (place.access_count, place.last_accessed)
