"""The formats of exported files that ship: JSON Lines, JSON and CSV. docs/reference/formats.md describes each."""

from __future__ import annotations

import base64
import binascii
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import isfinite
from typing import Annotated, Any, BinaryIO, Final

import msgspec

from tierkit.export_format import ExportFormat, FlatRecord, Unreadable
from tierkit.row import ColumnValue

MOST_BYTES: Final = 8 * 1024 * 1024
"""The longest record in a file: more than the largest that a cache holds takes, however it is escaped."""
MORE: Final = "tierkit.more"
"""The last column of a CSV file: what a record has beyond the other columns, as JSON."""

_BATCH: Final = 64
"""Records that are encoded at once: an export took a tenth more with 500."""
_SHOWN: Final = 1000  # bytes that are kept of what is too long
_encoder: Final = msgspec.json.Encoder()
_Whole = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_decode: Final = msgspec.json.Decoder(dict[str, str | _Whole | float | dict[str, str] | None]).decode


def lines_of(file: BinaryIO) -> Iterator[bytes | Unreadable]:
    """The lines of `file` with their ends; one that is too long or not ended is none.

    A byte order mark, which spreadsheets and some editors put before a text, is no part of the first.
    """
    mark = BOM_UTF8
    while line := file.readline(MOST_BYTES):
        line, mark = line.removeprefix(mark), b""
        if line.endswith(b"\n"):
            yield line
        elif len(line) < MOST_BYTES:
            yield Unreadable("is cut off", line)
        else:
            while (rest := file.readline(MOST_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield Unreadable(f"is longer than {MOST_BYTES} bytes", line[:_SHOWN])


# -- JSON --------------------------------------------------------------------------------------------------------------


class JsonLinesFormat(ExportFormat):
    """One object a line. Bytes are `{"bytes": text}` if they are ASCII, else `{"base64": text}`."""

    def write(self, records: Iterable[FlatRecord], names: Sequence[str]) -> Iterator[bytes]:  # noqa: ARG002 - tables need them
        """The lines, some dozens at a time."""
        rows = iter(records)
        while some := list(islice(rows, _BATCH)):
            lines = _encoder.encode_lines(list(map(_to_json, some)))
            # What is infinite became null, of which there is none else; to look for it in each record costs more.
            yield lines if b"null" not in lines else _encoder.encode_lines(list(map(_finite, some)))

    def read(self, file: BinaryIO) -> Iterator[FlatRecord | Unreadable]:
        """The records; blank lines are passed over."""
        for line in lines_of(file):
            if isinstance(line, Unreadable):
                yield line
            elif not line.isspace():
                yield _record_of(line)


class JsonFormat(ExportFormat):
    """One array of objects, each on a line of its own, so that it can be read as a stream."""

    def write(self, records: Iterable[FlatRecord], names: Sequence[str]) -> Iterator[bytes]:  # noqa: ARG002 - tables need them
        """The lines, some dozens at a time."""
        objects, before = map(_finite, records), b"[\n"
        while some := list(islice(objects, _BATCH)):
            yield before + b",\n".join(map(_encoder.encode, some))
            before = b",\n"
        yield b"\n]\n"

    def read(self, file: BinaryIO) -> Iterator[FlatRecord | Unreadable]:
        """The records; the lines of the brackets are passed over."""
        for line in lines_of(file):
            if isinstance(line, Unreadable):
                yield line
            elif (item := line.strip().removesuffix(b",")) not in (b"[", b"]", b""):
                yield _record_of(item)


def _to_json(record: FlatRecord) -> FlatRecord:
    tagged = {name: _tagged(value) for name, value in record.items() if type(value) is bytes}
    return {**record, **tagged} if tagged else record


def _finite(record: FlatRecord) -> FlatRecord:
    return {name: _tagged(value) if _is_infinite(value) else value for name, value in _to_json(record).items()}


def _is_infinite(value: object) -> bool:
    return type(value) is float and not isfinite(value)


def _tagged(value: Any) -> Any:
    if type(value) is float:
        return {"float": str(value)}
    return {"bytes": value.decode()} if value.isascii() else {"base64": base64.b64encode(value).decode()}


def _record_of(line: bytes) -> FlatRecord | Unreadable:
    try:
        record: dict[str, Any] = _decode(line)
        for name, value in record.items():
            if type(value) is dict:
                record[name] = _untagged(value)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Unreadable("is not a JSON object of plain values on one line", line)
    return record


def _untagged(value: Mapping[str, Any]) -> ColumnValue:
    ((tag, text),) = value.items()
    return _UNTAG[tag](text) if tag in _UNTAG and isinstance(text, str) else _refuse()


def _refuse() -> ColumnValue:
    raise ValueError("no value of a column")


def _whole(number: int) -> int:
    return number if -(2**63) <= number < 2**63 else int(_refuse() or 0)


def _ascii(text: str) -> bytes:
    return text.encode("ascii")


def _base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


_UNTAG: Final[Mapping[str, Callable[[str], ColumnValue]]] = {"bytes": _ascii, "base64": _base64, "float": float}


# -- CSV ---------------------------------------------------------------------------------------------------------------

_MARKED: Final = re.compile(r"\Z|[=+@\t\r\n'＝＋－＠-]|bytes:|base64:|[0-9.][0-9.eE+-]*\Z")  # noqa: RUF001 - wide ones
_QUOTED: Final = re.compile(r'[",\r\n]')
_CELL: Final = re.compile(r'(?:"((?:[^"]++|"")*+)"|([^",]*+))(,|\Z)')  # no way back is kept: it takes much memory
_WHOLE: Final = re.compile(r"-?[0-9]{1,20}")
_FLOAT: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class CsvFormat(ExportFormat):
    """A table with a header line. What a cell holds can be told from the cell.

    An empty cell is no value, a number stands as it is, bytes are `bytes:` and printable ASCII, or `base64:`. Text
    stands as it is, but with an apostrophe before it where it would be taken for one of these, or by a spreadsheet for
    a formula.
    """

    def write(self, records: Iterable[FlatRecord], names: Sequence[str]) -> Iterator[bytes]:
        """The rows, some dozens at a time."""
        yield _row([*names, MORE])
        known, rows = frozenset(names), iter(records)
        while some := list(islice(rows, _BATCH)):
            yield b"".join([_row([*map(_cell, map(record.get, names)), _more(record, known)]) for record in some])

    def read(self, file: BinaryIO) -> Iterator[FlatRecord | Unreadable]:
        """The records; blank lines are passed over."""
        names: list[str] | None = None
        for row in _rows(file):
            cells = row if isinstance(row, Unreadable) else _cells(row)
            if isinstance(cells, Unreadable):
                yield cells
            elif names is None:
                names = cells
            else:
                yield _of_cells(names, cells, row)


def _row(cells: Iterable[str]) -> bytes:
    quoted = [f'"{cell.replace(chr(34), chr(34) * 2)}"' if _QUOTED.search(cell) else cell for cell in cells]
    return (",".join(quoted) + "\n").encode()


def _cell(value: ColumnValue) -> str:
    if type(value) is str:
        return f"'{value}" if _MARKED.match(value) else value
    if value is None:
        return ""
    if type(value) is bytes:
        return _cell_of_bytes(value)
    return repr(value) if type(value) is int or isfinite(value) else f"{'-' * (value < 0)}1e999"  # type: ignore[arg-type,operator]  # a float


def _cell_of_bytes(value: bytes) -> str:
    if value.isascii() and (text := value.decode()).isprintable():  # no spreadsheet keeps a NUL
        return f"bytes:{text}"
    return f"base64:{base64.b64encode(value).decode()}"


def _more(record: FlatRecord, known: frozenset[str]) -> str:
    if record.keys() <= known:
        return ""
    rest = {name: value for name, value in record.items() if name not in known}
    return _encoder.encode(_finite(rest)).decode()


def _rows(file: BinaryIO) -> Iterator[bytes | Unreadable]:
    """The rows of the table: lines, and more than one where a quoted cell holds line breaks."""
    parts: list[bytes] = []
    quotes = size = 0
    for line in lines_of(file):
        if isinstance(line, Unreadable):
            yield line if not parts else Unreadable(line.reason, b"".join(parts))
            parts, quotes, size = [], 0, 0
            continue
        parts.append(line)
        quotes, size = quotes + line.count(b'"'), size + len(line)
        if quotes % 2 == 0:
            row = b"".join(parts)
            if not row.isspace():
                yield row
        elif size <= MOST_BYTES:
            continue
        else:
            yield Unreadable(f"is longer than {MOST_BYTES} bytes: a quote is not closed", parts[0][:_SHOWN])
        parts, quotes, size = [], 0, 0
    if parts:
        yield Unreadable("has a quote that is not closed", parts[0][:_SHOWN])


def _cells(row: bytes) -> list[str] | Unreadable:
    try:
        text = row.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        return Unreadable("is not UTF-8", row)
    if '"' not in text:
        return text.split(",")
    cells, place = [], 0
    while (found := _CELL.match(text, place)) is not None:
        cells.append(found[2] if found[1] is None else found[1].replace('""', '"'))
        place = found.end()
        if not found[3]:
            return cells
    return Unreadable("is not valid CSV: a quoted cell must end before the next comma", row)


def _of_cells(names: Sequence[str], cells: Sequence[str], row: bytes | Unreadable) -> FlatRecord | Unreadable:
    raw = row if isinstance(row, bytes) else row.raw
    if len(cells) != len(names):
        return Unreadable(f"has {len(cells)} cells where the header has {len(names)}", raw)
    record: dict[str, ColumnValue] = {}
    try:
        for name, cell in zip(names, cells, strict=True):
            if cell and name != MORE:
                record[name] = _value(cell)
    except (ValueError, binascii.Error):
        return Unreadable("has a cell that holds no value: text that looks so begins with an apostrophe", raw)
    if names[-1] == MORE and cells[-1]:
        rest = _record_of(cells[-1].encode())
        return rest if isinstance(rest, Unreadable) else {**record, **rest}
    return record


def _value(cell: str) -> ColumnValue:
    first = cell[0]
    if first == "'":
        return cell[1:]
    if first in "-0123456789":
        if _WHOLE.fullmatch(cell):
            return _whole(int(cell))
        return float(cell) if _FLOAT.fullmatch(cell) else cell
    if first == "b":
        if cell.startswith("bytes:"):
            return _ascii(cell[6:])
        if cell.startswith("base64:"):
            return _base64(cell[7:])
    return cell
