"""One file of a shard, as far as it was read: its descriptor and the index of what it holds."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from math import inf
from zlib import crc32

import msgspec

from tierkit import Row, TierUnavailable, files
from tierkit_jsonl.lines import (
    FORMAT,
    HEAD_LENGTH,
    MAX_LINE,
    Mark,
    Note,
    Place,
    decode_header,
    decode_note,
    decode_row,
    is_intact,
    number_of,
    pieces,
    salvage,
)
from tierkit_jsonl.order import Order, Rank

_BLOCK = 1024 * 1024


class Log:
    """One file (an inode, not a name) and its index. A rewrite makes a new file and a new `Log`.

    Readers use it without a lock; what changes it holds the lock of its shard. The descriptor is closed when the last
    who uses the log lets go of it, so that a reader never reads from a number that has been given to another file.

    Attributes:
        fd: The descriptor.
        inode: What tells this file from one that has taken its name.
        writable: Whether `fd` can append.
        index: Where the record of each key lies.
        marks: The marks of keys that hold no record; a record refuses older versions by itself.
        end: Where the last whole line that was read ends.
        live: Bytes that a rewrite would keep.
        intact: How many lines were good.
        damage: The offsets of those that were not.
    """

    fd = -1  # for `__del__`, where an interrupt came before `__init__`

    def __init__(self, fd: int, *, writable: bool) -> None:
        """Own `fd`, with nothing read yet."""
        self.fd = fd
        self.inode = files.fstat(fd).st_ino
        self.writable = writable
        self.index: dict[str, Place] = {}
        self.marks: dict[str, Mark] = {}
        self.end = 0
        self.live = 0
        self.intact = 0
        self.damage: list[int] = []
        self._last = b"", 0  # how the last line starts, and where
        self._order: Order | None = None

    def __del__(
        self,
        close: Callable[[int], None] = files.close,  # bound here: when the interpreter ends, modules go before objects
        failures: contextlib.suppress = contextlib.suppress(OSError),  # noqa: B008 - it has no state
    ) -> None:
        with failures:
            close(self.fd)

    def is_file(self, status: os.stat_result) -> bool:
        """Whether this is the file that has `status`, and not one that has lost lines since."""
        return self.inode == status.st_ino and self.end <= status.st_size

    def read(self, place: Place) -> Row | None:
        """The row at `place`, or None if it is not there or damaged."""
        return decode_row(files.pread(self.fd, place.length, place.offset), place)

    def catch_up(self, horizon: float) -> bool:
        """Index the whole lines that were appended; forget marks made before `horizon`.

        Returns:
            False if the file does not continue what was read: a failed write was taken back, and another followed.

        Raises:
            TierUnavailable: A newer format.
        """
        head, at = self._last
        if files.pread(self.fd, len(head), at) != head:
            return False
        size = _BLOCK
        while block := files.pread(self.fd, size, self.end):
            cut = block.rfind(b"\n") + 1
            if cut:
                self._read_block(block[:cut], horizon)
                size = _BLOCK
            elif len(block) < size:  # a torn tail, or a line that another process is writing
                break
            elif size < MAX_LINE:
                size *= 2
            else:
                self.damage.append(self.end)
                self.end += len(block)
        return True

    def hold(self, place: Place) -> None:
        """The record of this key now lies at `place`."""
        old = self.index.get(place.key) or self.marks.pop(place.key, None)
        self.index[place.key] = place
        self.live += place.length - (old.length if old else -1)
        if self._order is not None:
            self._order.push(place)

    def drop(self, key: str) -> None:
        """Nothing is held for `key`, and no mark kept."""
        old = self.index.pop(key, None) or self.marks.pop(key, None)
        if old is not None:
            self.live -= old.length + 1

    def mark(self, mark: Mark) -> None:
        """Nothing is held for this key, and no version below the mark is taken."""
        self.drop(mark.key)
        self.marks[mark.key] = mark
        self.live += mark.length + 1

    def appended(self, start: int, line: bytes) -> None:
        """`line` is now the last one, at `start`, and everything up to its end is indexed."""
        self._last = line[:HEAD_LENGTH], start
        self.end = start + len(line)

    def coldest(self, count: int, rank: Callable[[Place], Rank]) -> list[Place]:
        """Up to `count` records, coldest first."""
        if self._order is None:
            self._order = Order(self.index, rank)
        return self._order.coldest(count)

    def _read_block(self, block: bytes, horizon: float) -> None:
        """Index whole lines. One function, since opening a store is a loop over this."""
        lines = block.split(b"\n")
        lines.pop()
        offset = self.end
        for line in lines:
            if line[:16] != b'{"crc":"%08x' % crc32(line[16:]):
                self._read_damaged(line, offset, horizon)
            else:
                self._read_line(line, offset, horizon)
            offset += len(line) + 1
        self.appended(offset - len(line) - 1, line + b"\n")

    def _read_damaged(self, line: bytes, offset: int, horizon: float) -> None:
        for start, piece in pieces(line):
            if is_intact(piece):
                self._read_line(piece, offset + start, horizon)
            else:
                self._note_damage(piece, offset + start)

    def _read_line(self, line: bytes, offset: int, horizon: float) -> None:
        try:
            note = decode_note(line)
            if not note.op:
                self._read_record(note, offset, len(line))
            elif note.op == "shard":
                self._read_header(line)
            else:
                self._read_change(note, len(line), horizon)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self._note_damage(line, offset)
        else:
            self.intact += 1

    def _read_record(self, note: Note, offset: int, length: int) -> None:
        purge_at = inf if note.purge_at is None else note.purge_at
        version = number_of(note.version)
        self.hold(Place(note.key, offset, length, version, purge_at, note.access_count, note.last_accessed))

    def _read_change(self, note: Note, length: int, horizon: float) -> None:
        """Apply a line that changes what is held. Unknown ones are left alone."""
        if note.op in {"mark", "quarantine"}:
            version = number_of(note.mark)
            self.drop(note.key)
            if note.marked_at > horizon:
                self.mark(Mark(note.key, version, note.marked_at, length))
        elif note.op == "usage" and (place := self.index.get(note.key)):
            self.hold(used(place, note.access_count, note.last_accessed))

    def _read_header(self, line: bytes) -> None:
        header = decode_header(line)
        if header is not None and header.format > FORMAT:
            raise TierUnavailable(f"a file has format {header.format}, newer than {FORMAT}: upgrade tierkit-jsonl")
        self.live += len(line) + 1

    def _note_damage(self, line: bytes, offset: int) -> None:
        """Skip a damaged line. An older record of its key must not come back in its place."""
        self.damage.append(offset)
        key = salvage(line)
        if key is not None and key in self.index:
            self.drop(key)


def used(place: Place, access_count: int, last_accessed: float) -> Place:
    """`place` with at least this usage."""
    count, last = max(place.access_count, access_count), max(place.last_accessed, last_accessed)
    return Place(place.key, place.offset, place.length, place.version, place.purge_at, count, last)
