"""JSON Lines: one object a line. Blank lines are allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from typing import Any, Final

import msgspec

from tierkit.transfer.convert import word_for
from tierkit.transfer.files import TOO_LONG, count_lines, numbered_lines, open_bytes
from tierkit.transfer.reading import Intake, Reader, Row
from tierkit.values import Unfit

MAX_DEPTH: Final = 64
"""How deep arrays and objects may be nested in a row."""

_STRING: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_SPACED_COLON: Final = re.compile(rb'"[ \t\r\n]+:')
_decode: Final = msgspec.json.Decoder().decode


class JsonLines(Reader):
    """A file with one JSON object a line."""

    def total(self) -> int:
        """The number of lines that are not blank."""
        return count_lines(self.path)

    def rows(self, intake: Intake) -> Generator[Row, None, None]:
        """Yield the objects."""
        with open_bytes(self.path) as stream:
            for number, line in numbered_lines(self.path, stream, intake.reject):
                if not line or line.isspace():
                    if line is None:
                        intake.reject(number, TOO_LONG)
                    continue
                try:
                    row = parse_object(line)
                except Unfit as unfit:
                    intake.reject(number, str(unfit))
                else:
                    yield number, tuple(row), list(row.values())


def parse_object(data: bytes) -> dict[str, Any]:
    """The JSON object in `data`.

    Raises:
        Unfit: It is not valid JSON or not an object, names a member twice, or is nested too deep.
    """
    try:
        row = _decode(data)
    except UnicodeDecodeError as error:
        raise Unfit(f"is not UTF-8 at byte {error.start} of a text") from None
    except msgspec.DecodeError as error:
        if _SURROGATE.search(data):
            raise Unfit("holds a lone surrogate, or is not JSON") from None
        raise Unfit(f"is not JSON: {fault_of(error)}") from None
    except RecursionError:
        raise Unfit(f"is nested deeper than {MAX_DEPTH} levels") from None
    if type(row) is not dict:
        raise Unfit(f"is {word_for(row)}, not an object")
    # Nearly free, and sure for a flat row: as many names as members, so none is there twice.
    if data.count(b'":') != len(row) or data.count(b"[") > MAX_DEPTH or _SPACED_COLON.search(data):
        _look_closer(data)
    return row


def fault_of(error: msgspec.DecodeError) -> str:
    """What is wrong, without the way there, which is as long as the row is deep."""
    return str(error).partition(" - at `$")[0]


def _look_closer(data: bytes) -> None:
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH:
        _check_depth(data)
    json.loads(data, object_pairs_hook=_unique)


def _check_depth(data: bytes) -> None:
    depth = 0
    for byte in _STRING.sub(b"", data):
        if byte in b"{[":
            depth += 1
        elif byte in b"}]":
            depth -= 1
        if depth > MAX_DEPTH:
            raise Unfit(f"is nested deeper than {MAX_DEPTH} levels")


def _unique(members: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in members}) != len(members):
        raise Unfit("names a member twice")
