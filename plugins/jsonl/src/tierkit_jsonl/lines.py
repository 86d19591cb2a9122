"""The lines of a shard file: from rows to bytes and back.

`docs/reference/formats.md` describes them. The checksum stands at a fixed place, so that a line is verified before
anything in it is parsed: `{"crc":"LLLLLLLL.KKKKKKKK",...` with the CRC-32 of all that follows L, and that of the key.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from itertools import pairwise
from math import inf, isfinite
from typing import Annotated, Any, Final
from zlib import crc32

import msgspec

from tierkit import CacheValidationError, ColumnValue, Row

FORMAT: Final = 1
HEAD: Final = b'{"crc":"'
"""How each line starts. JSON escapes quotes inside strings, so a line holds this nowhere else."""
HEAD_LENGTH: Final = 16
MAX_LINE: Final = 8 * 1024 * 1024
MAX_SHARDS: Final = 256

_FIXED: Final = frozenset(
    {"crc", "op", "key", "version", "purge_at", "check", "access_count", "last_accessed", "blobs", "renamed"}
    | {"mark", "marked_at"}
)
"""Names that a column cannot have in a line; such a column gets `_ESCAPE` in front."""
_ESCAPE: Final = "column:"
_BASE64: Final = "base64:"
_VERSIONS: Final = range(2**63)
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
_Moment = Annotated[float, msgspec.Meta(ge=0.0, le=253402300799.0)]  # to the end of the year 9999
_INTEGERS: Final = range(-(2**63), 2**63)
_SALVAGE: Final = re.compile(
    rb'.{16}\.([0-9a-f]{8})",(?:"op":"(?:mark|quarantine)",)?"key":("(?:[^"\\]|\\.)*"),', re.DOTALL
)
_USAGE: Final = re.compile(rb'"access_count":[^,]*,"last_accessed":[^,}]*')


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where the record of a key lies, and what is asked of it without reading."""

    key: str
    offset: int
    length: int
    version: int
    purge_at: float
    access_count: int
    last_accessed: float


class Mark(msgspec.Struct, frozen=True, gc=False):
    """The lowest version that is still taken for a key."""

    key: str
    version: int
    marked_at: float
    length: int


class Note(msgspec.Struct, gc=False):
    """What the index needs of a line. `op` is empty for a record."""

    op: str = ""
    key: str = ""
    version: str = "0"
    purge_at: float | None = None
    access_count: _Count = 0
    last_accessed: _Moment = 0.0
    mark: str = "0"
    marked_at: float = 0.0


class Header(msgspec.Struct):
    """The first line of a shard file, and the only one of `meta.json`."""

    format: int
    shards: int = 0
    generation: int = 0

    def is_possible(self) -> bool:
        """Whether a store can be so."""
        return 1 <= self.shards <= MAX_SHARDS and self.generation >= 0


def key_crc(key: str) -> int:
    """What the shard is chosen by. Any string has one, also one that cannot be stored."""
    return crc32(key.encode("utf-8", "surrogatepass"))


def is_intact(line: bytes) -> bool:
    """Whether the checksum of `line`, without its newline, is right."""
    return line[:16] == b'{"crc":"%08x' % crc32(line[16:])


def number_of(version: str) -> int:
    """The version in a note.

    Raises:
        ValueError: It is none that was ever written.
    """
    return _version(int(version))


def encode_header(header: Header, shard: int | None = None) -> bytes:
    """The line that names format and number of shards, and which of them this is."""
    fields = {"op": "shard", "format": header.format, "shards": header.shards}
    if header.generation:
        fields["generation"] = header.generation
    if shard is not None:
        fields["shard"] = shard
    return _frame(0, fields)


def decode_header(line: bytes) -> Header | None:
    """What `encode_header` wrote, or None."""
    try:
        return _decode_header(line) if is_intact(line) else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def encode_row(row: Row, crc: int) -> bytes:
    """The line for `row`, whose key has the checksum `crc`.

    Raises:
        CacheValidationError: It has a value that a line cannot hold.
    """
    fields: dict[str, Any] = {
        "key": row.key,
        "version": f"{_version(row.version):019d}",
        "purge_at": _deadline(row.purge_at),
        "check": row.check,
        "access_count": row.access_count,
        "last_accessed": _finite(row.last_accessed),
    }
    blobs, renamed = [], []
    for column, value in row.columns.items():
        if value is None:
            continue
        name = column
        if column not in _plain_names and _is_taken(column):
            name = _ESCAPE + column
            renamed.append(name)
        kind = type(value)
        if kind is str or (kind is float and isfinite(value)) or (kind is int and value in _INTEGERS):
            fields[name] = value
        elif kind is bytes:
            blobs.append(name)
            fields[name] = _text(value)
        else:
            fields[name] = _plain(value)
    if blobs:
        fields["blobs"] = blobs
    if renamed:
        fields["renamed"] = renamed
    return _frame(crc, fields)


def decode_row(line: bytes, place: Place) -> Row | None:
    """The row in `line`, with the usage that `place` knows, or None if that is not what lies there."""
    if line[:16] != b'{"crc":"%08x' % crc32(line[16:]):
        return None
    try:
        fields = _decode_fields(line)
        del fields["crc"], fields["purge_at"], fields["access_count"], fields["last_accessed"]
        if fields.pop("key") != place.key or int(fields.pop("version")) != place.version:
            return None
        check = fields.pop("check")
        blobs = fields.pop("blobs", None)
        if blobs is not None:
            for name in blobs:
                text = fields[name]
                fields[name] = _from_base64(text) if text.startswith(_BASE64) else text.encode()
        renamed = fields.pop("renamed", None)
        if renamed is not None:
            fields.update({name.removeprefix(_ESCAPE): fields.pop(name) for name in renamed})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return Row(place.key, place.version, place.purge_at, check, fields, place.access_count, place.last_accessed)


def encode_mark(key: str, version: int, marked_at: float, op: str = "mark") -> bytes:
    """The line that removes what is held for `key`, and refuses versions below `version` from now on."""
    return _frame(key_crc(key), {"op": op, "key": key, "mark": f"{_version(version):019d}", "marked_at": marked_at})


def encode_usage(place: Place) -> bytes:
    """The line that says how often, and when last, the record at `place` was read."""
    usage = {"access_count": place.access_count, "last_accessed": _finite(place.last_accessed)}
    return _frame(key_crc(place.key), {"op": "usage", "key": place.key, **usage})


def with_usage_of(line: bytes, place: Place) -> bytes:
    """The intact `line` of a record, with its newline, telling the usage that `place` knows."""
    usage = _encode({"access_count": place.access_count, "last_accessed": place.last_accessed})[1:-1]
    covered = _USAGE.sub(usage, line[HEAD_LENGTH:], count=1)
    return b'{"crc":"%08x' % crc32(covered) + covered + b"\n"


decode_note: Final = msgspec.json.Decoder(Note).decode


def pieces(line: bytes) -> Iterator[tuple[int, bytes]]:
    """Offset and content of what may be lines of their own in a damaged `line`: a newline may have been lost."""
    starts = [found.start() for found in re.finditer(re.escape(HEAD), line[1:])]
    for start, end in pairwise([0, *(start + 1 for start in starts), len(line) + 1]):
        yield start, line[start : end - 1]


def salvage(line: bytes) -> str | None:
    """The key of a damaged record or mark, if it is beyond doubt."""
    found = _SALVAGE.match(line)
    if found is None:
        return None
    try:
        key: str = msgspec.json.decode(found[2], type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return key if b"%08x" % key_crc(key) == found[1] else None


def _frame(crc: int, fields: dict[str, Any]) -> bytes:
    try:
        covered = b'.%08x",' % crc + _encode(fields)[1:]
    except UnicodeEncodeError:  # it carries the whole text along: a secret may be in it
        raise CacheValidationError("a record holds text that is not valid Unicode") from None
    except (TypeError, ValueError, OverflowError) as error:
        raise CacheValidationError(f"a record cannot be written as JSON: {error}") from None
    if len(covered) + HEAD_LENGTH > MAX_LINE:
        raise CacheValidationError(f"a record takes {len(covered)} bytes; a line holds {MAX_LINE}")
    return b'{"crc":"%08x' % crc32(covered) + covered + b"\n"


def _version(version: int) -> int:
    if version not in _VERSIONS:
        raise CacheValidationError(f"version {version} does not fit 63 bits")
    return version


def _deadline(purge_at: float) -> float | None:
    if isfinite(purge_at):
        return float(purge_at)
    if purge_at != inf:
        raise CacheValidationError(f"purge_at is {purge_at}; it must be a time, or infinite for never")
    return None


def _finite(seconds: float) -> float:
    if isfinite(seconds):
        return float(seconds)
    raise CacheValidationError(f"last_accessed is {seconds}; it must be a time")


def _plain(value: Any) -> ColumnValue:
    """`value` as JSON keeps it, a bool as the integer it is."""
    if isinstance(value, float) and isfinite(value):
        return float(value)
    if isinstance(value, int) and value in _INTEGERS:
        return int(value)
    if isinstance(value, str):
        return str(value)
    raise CacheValidationError(f"a column cannot hold {type(value).__name__} of this kind or size")


def _is_taken(column: str) -> bool:
    """Whether a line needs another name for `column`. Remembered if not, since few names come again and again."""
    if column in _FIXED or column.startswith(_ESCAPE):
        return True
    if len(_plain_names) < 10_000:
        _plain_names.add(column)
    return False


def _text(value: bytes) -> str:
    if value.isascii() and not value.startswith(b"base64:"):
        return value.decode("ascii")
    return _BASE64 + base64.b64encode(value).decode("ascii")


def _from_base64(text: str) -> bytes:
    return binascii.a2b_base64(text[len(_BASE64) :], strict_mode=True)


_plain_names: set[str] = set()
_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, Any]).decode
_decode_header = msgspec.json.Decoder(Header).decode
