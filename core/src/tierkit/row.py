"""Rows: what a persistent tier stores.

A row is an entry sealed: flat, encoded, its secrets already ciphertext. A tier author never holds a plaintext secret.
A tier that stores plain bytes uses `pack_row` and `unpack_row`; a rich tier keeps the columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Any, Final, Literal, Protocol

import msgspec

from tierkit.errors import TierCorrupt

ColumnType = Literal["text", "integer", "real", "blob"]
"""How a column is kept: the names are SQLite's."""
ColumnValue = str | int | float | bytes | None
"""What a column holds. A tier that cannot tell 1.0 from 1 may hand either back."""


def key_digest(key: str) -> str:
    """A name for `key` that is safe as a file name and tells nothing of it: 32 hexadecimal digits."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class Record(Protocol):
    """What rows and live entries have in common, and all that a tier needs to order them."""

    @property
    def key(self) -> str:
        """Names the record: 1 to 4096 characters of any kind."""
        ...

    @property
    def version(self) -> int:
        """The stamp of the write that made it; fits a signed 64-bit integer."""
        ...

    @property
    def purge_at(self) -> float:
        """When a tier may drop it, in POSIX seconds; kept exactly. Infinite for never."""
        ...


_Version = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
_Moment = Annotated[float, msgspec.Meta(ge=0.0, le=253402300799.0)]
"""To the end of the year 9999. All three are looked at when a packed row is read: a bit of it may have rotted."""


class Row(msgspec.Struct, frozen=True, eq=False, array_like=True):
    """An entry as a persistent tier stores it.

    Attributes:
        key: Names the record: 1 to 4096 characters of any kind.
        version: The stamp of the write that made it; fits a signed 64-bit integer.
        purge_at: When a tier may drop it, in POSIX seconds; kept exactly. Infinite for never: a row that the authority
            is owed has no end.
        check: Covers key, version, purge_at and columns; written and verified by the core.
        columns: By name, secrets as ciphertext. None and absent mean the same.
        access_count: Usage, outside version and check: how often the record was read.
        last_accessed: Usage: when it was last read, in POSIX seconds, or 0.0.
    """

    key: str
    version: _Version
    purge_at: float
    check: str
    columns: Mapping[str, Any]  # of ColumnValue: msgspec cannot decode a union of str and bytes
    access_count: _Count = 0
    last_accessed: _Moment = 0.0

    def same_content(self, other: Row) -> bool:
        """Whether both hold the same, usage aside. Tiers ask this of two rows of one version."""
        return self.purge_at == other.purge_at and _present(self.columns) == _present(other.columns)

    def __eq__(self, other: object) -> bool:
        """Equal in everything, usage aside; None equals absent."""
        if not isinstance(other, Row):
            return NotImplemented
        same = (self.key, self.version, self.check) == (other.key, other.version, other.check)
        return same and self.same_content(other)

    def __ne__(self, other: object) -> bool:
        """The opposite; msgspec's own compares identity."""
        return not self == other

    def __hash__(self) -> int:
        """By key and version."""
        return hash((self.key, self.version))


class Delta(msgspec.Struct, frozen=True):
    """Usage to add to a record: `count` more reads, the last of them at `last_accessed` (POSIX seconds)."""

    count: int
    last_accessed: float


OWED: Final = "tierkit.owed"
"""The column of a row that the authority may not have yet: "put" or "delete". No field can have a name with a dot."""
OWED_PURGE_AT: Final = "tierkit.purge_at"
"""The column that keeps the `purge_at` of such a row, whose own is infinite: no tier drops it before it is paid."""

GOES_BACK_TO: Final = "tierkit.put"
"""The column with the version of the put that a record goes back to, which was changed by compare and set since."""


def is_owed(row: Row) -> bool:
    """Whether the authority may not have `row` yet: see `owing`."""
    return row.columns.get(OWED) is not None


def goes_back_to(row: Row) -> int:
    """The version of the put that the content of `row` is of: what was owed and is newer was not compared with it."""
    version = row.columns.get(GOES_BACK_TO)
    return version if isinstance(version, int) else row.version


def comes_after(held: Row, row: Row) -> bool:
    """Whether `held` is a write that the authority is owed, and `row` was compared and set without it."""
    return is_owed(held) and GOES_BACK_TO in row.columns and held.version > goes_back_to(row)


def is_owed_deletion(row: Row) -> bool:
    """Whether `row` stands for a deletion that the authority may not know of yet."""
    return row.columns.get(OWED) == "delete"


def with_usage(row: Row, count: int, last_accessed: float) -> Row:
    """`row` with at least this usage. Merging by the larger value can be repeated without counting twice."""
    if count <= row.access_count and last_accessed <= row.last_accessed:
        return row
    return msgspec.structs.replace(
        row,
        access_count=max(row.access_count, count),
        last_accessed=max(row.last_accessed, last_accessed),
    )


def pack_row(row: Row) -> bytes:
    """`row` as bytes (MessagePack), for tiers that store blobs."""
    return _encoder.encode(row)


def unpack_row(blob: bytes) -> Row:
    """The row that `pack_row` packed.

    Raises:
        TierCorrupt: The bytes are not a packed row.
    """
    try:
        return _decoder.decode(blob)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        fault = str(error).partition(" - at `$")[0]  # the way there is as long as the row is deep
        raise TierCorrupt(f"{len(blob)} bytes are not a packed row: {fault}") from None


def _present(columns: Mapping[str, Any]) -> dict[str, ColumnValue]:
    return {name: value for name, value in columns.items() if value is not None}


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Row)
