"""A JSON document: an array of objects, or an object that has one such array among its members."""

from __future__ import annotations

import re
from array import array
from collections.abc import Generator, Sequence
from functools import cached_property
from typing import Final

import msgspec

from tierkit.transfer.files import MAX_LINE_BYTES, read_document, trouble
from tierkit.transfer.jsonl_lines import fault_of, parse_object
from tierkit.transfer.reading import Intake, Reader, Row
from tierkit.values import Unfit

MAX_COMMAS: Final = 10_000_000
"""A document with more is refused: each number between two of them takes a hundred times its two bytes when cut out."""

_TOKEN: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},"]', re.DOTALL)
_items: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode

Records = Sequence[bytes | msgspec.Raw]
"""Objects, not parsed yet, so that a bad one costs no other."""


class JsonDocument(Reader):
    """A file that is one JSON document. Positions are the numbers of the records, from 1."""

    def total(self) -> int:
        """The number of records. The document is read now."""
        return len(self._records)

    def rows(self, intake: Intake) -> Generator[Row, None, None]:
        """Yield the objects."""
        for position, record in enumerate(self._records, start=1):
            try:
                row = parse_object(_short_enough(bytes(record)))
            except Unfit as unfit:
                intake.reject(position, str(unfit))
            else:
                yield position, tuple(row), list(row.values())

    def place(self, position: int) -> tuple[int, int | None]:
        """The line on which a record starts, and its number."""
        return self._lines[position - 1], position

    @cached_property
    def _data(self) -> bytes:
        return read_document(self.path)

    @cached_property
    def _records(self) -> Records:
        lists = self._lists()
        with_objects = [records for records in lists if any(bytes(item)[:1] == b"{" for item in records)]
        if len(with_objects) == 1:
            return with_objects[0]
        if with_objects:
            raise trouble(self.path, f"holds {len(with_objects)} arrays of objects: one is expected")
        if not any(len(records) == 0 for records in lists):
            raise trouble(self.path, "holds no array of objects")
        return []

    def _lists(self) -> list[Records]:
        """The arrays at the top of the document or directly inside its top object."""
        first = self._data.lstrip()[:1]
        if first not in {b"[", b"{"}:
            raise trouble(self.path, "is not a JSON array of objects")
        if self._data.count(b",") > MAX_COMMAS:
            raise trouble(self.path, f"has more than {MAX_COMMAS} commas: use JSON Lines")
        try:
            if first == b"[":
                return [_items(self._data)]
            return [_items(raw) for raw in _members(self._data).values() if bytes(raw)[:1] == b"["]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return self._cut_out(error)

    def _cut_out(self, error: Exception) -> list[Records]:
        """The same, told by brackets and quotes alone: a record that is no JSON then costs only itself."""
        try:
            return cut_out_arrays(self._data)
        except Unfit as unfit:
            said = f" ({fault_of(error)})" if isinstance(error, msgspec.DecodeError) else ""
            raise trouble(self.path, f"is not a whole JSON document: {unfit}{said}") from None

    @cached_property
    def _lines(self) -> array[int]:
        lines = array("q")
        line, counted, searched = 1, 0, 0
        for record in self._records:
            start = self._data.index(record, searched)
            line += self._data.count(b"\n", counted, start)
            lines.append(line)
            counted, searched = start, start + len(bytes(record))
        return lines


def cut_out_arrays(data: bytes) -> list[Records]:
    """The items of the array that `data` is, or of each that is a member of the object that `data` is.

    Raises:
        Unfit: Brackets are left open, or something follows the document.
    """
    level = 1 if data.lstrip()[:1] == b"[" else 2  # how deep inside are the items
    arrays: list[list[bytes]] = []
    depth, start = 0, -1
    for token in _TOKEN.finditer(data):
        mark = token.group()
        if mark in {b"[", b"{"}:
            depth += 1
            if depth == level and mark == b"[":
                arrays.append([])
                start = token.end()
        elif mark in {b"]", b"}", b","}:
            if depth == level and start >= 0:
                if item := data[start : token.start()].strip():
                    arrays[-1].append(item)
                start = token.end() if mark == b"," else -1
            depth -= mark != b","
            if depth == 0:
                return _nothing_after(data, token.end(), arrays)
        elif mark == b'"':
            break
    raise Unfit("it is cut off")


def _nothing_after(data: bytes, end: int, arrays: list[list[bytes]]) -> list[Records]:
    if data[end:].strip():
        raise Unfit("something follows it; a file with one object a line must be named .jsonl")
    return list(arrays)


def _short_enough(record: bytes) -> bytes:
    if len(record) > MAX_LINE_BYTES:
        raise Unfit(f"the record is longer than {MAX_LINE_BYTES} bytes")
    return record
