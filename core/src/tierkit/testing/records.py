"""Records to test a tier with: awkward keys, values and times, and builders of rows and entries."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from math import inf
from types import MappingProxyType
from typing import Any, Final

import msgspec

from tierkit.entry import CacheEntry
from tierkit.row import ColumnType, ColumnValue, Row
from tierkit.testing.clock import NOW

COLUMNS: Final[Mapping[str, ColumnType]] = MappingProxyType(
    {"text": "text", "number": "integer", "amount": "real", "data": "blob", "order": "text"}
)
"""The columns that the contract declares. `order` is a word of SQL."""

FAR: Final = NOW + 1_000_000.0
"""A deadline that no test reaches unless it means to, in POSIX seconds."""

# fmt: off
AWKWARD_KEYS: Final = (
    "a", "A", "b", " a", "a ", " ", "  ", "\t", "a\t", "\n", "a\n", "a\r", "a\r\n", "a\nb", "a\u2028b",
    "a\x85b", "\0", "a\0", "a\0b", "\x1b[31m", "\x7f", "\ufeff", "\ufeffa", "\u200b", "\u202ea", "\ud7ff",
    "\ufffd", "'", '"', "''", '""', "`", "\\", "\\n", "\\0", "\\u0000", "a\\", "'; DROP TABLE entries; --",
    "${HOME}", "$(id)", ".", "..", "../a", "../../../../etc/passwd", "/etc/passwd", "a/b", "a//b", "/", "~",
    "-rf", "con", "C:\\a", "a:b", "%", "%%", "%s", "%00", "%2e%2e%2f", "a%", "_", "a_", "*", "?", "a*",
    "[a]", "{}", "{a}", "{0}", "#", "&", "=a", "0", "00", "1", "1.0", "1e0", "-1", "+1", "null", "None",
    "NULL", "true", "nan", "[]", "{'a'}", '{"a": 1}', "\u00e9", "e\u0301", "\u00c9", "\u212b", "\u00c5",
    "A\u030a", "\ufb01", "fi", "\u00df", "ss", "\u0130", "\u0131", "\u1e9b\u0323", "\u0323\u1e9b", "\uac00",
    "\u1100\u1161", "\uff21", "\u03c3", "\u03c2", "\u03a3", "\u0639\u0631", "\U0001f600", "\U0010ffff",
    "\u65e5\u672c\u8a9e", "https://h\u00f6st.example:1/?q=a#f", "k" * 255, "k" * 256, "k" * 20_000,
    "k" * 19_999 + "l", "\U0001f600" * 5_000,
)
"""Keys that differ and must stay apart; some are equal once trimmed, folded, normalised or cut off."""

AWKWARD_TEXTS: Final = (
    "", " ", " a ", "a\n", "a\nb\r\nc\r", "\0", "a\0b", "\x1a", "\ufeffa", "\u2028", "'", '"', "\\", "\\n",
    "\\u0041", "007", "1", "1.0", "1e5", "0x1f", "-0", "inf", "NaN", "null", "None", "true", "=1+1", "@a",
    "%s", "{}", "[]", "\u00e9", "e\u0301", "\u00df", "\ufb01", "\U0001f600", "\U0010ffff", "\ud7ff\ue000",
    "x" * 100_000, "\u20ac" * 30_000,
)
AWKWARD_NUMBERS: Final = (0, 1, -1, 255, 2**31, -(2**31) - 1, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63))
AWKWARD_AMOUNTS: Final = (
    0.0, -0.0, 1.0, 3600.0, 0.1, 0.1 + 0.2, -1.5, 1e15 + 0.3, 1.7e9 + 1e-6, 2.0**53, 1e22, 1e23, 5e-324,
    -5e-324, 2.2250738585072014e-308, 1e-300, 1e308, -1.7976931348623157e308,
)
AWKWARD_DATA: Final = (
    b"", b"\0", b"\0" * 9, b"a", b"text", b"\n", b"'", b"\xff\xfe", b"\x80", b"\xc0\xaf", b"\xed\xa0\x80",
    b"{}", bytes(range(256)), bytes(range(256)) * 400,
)
# fmt: on
AWKWARD_VALUES: Final[tuple[Mapping[str, ColumnValue], ...]] = (
    {},
    *({"text": text} for text in AWKWARD_TEXTS),
    *({"number": number} for number in AWKWARD_NUMBERS),
    *({"amount": amount} for amount in AWKWARD_AMOUNTS),
    *({"data": data} for data in AWKWARD_DATA),
    {"text": None, "number": None, "amount": None, "data": None, "order": None},
    {"text": "", "number": 0, "amount": 0.0, "data": b"", "order": "by"},
    {"text": "a", "number": None, "data": b"a"},
)
"""Values of the declared columns. Those of one column differ from one another, but for 0.0 and -0.0."""

UNDECLARED_VALUES: Final[tuple[Mapping[str, ColumnValue], ...]] = (
    {"gone": "text"},
    {"gone": "007"},
    {"gone": 2**63 - 1},
    {"gone": -0.1},
    {"gone": bytes(range(256))},
    {"gone": ""},
    {"gone": b""},
    {"gone": None},
    {"Gone": "a", "gone": "b", "GONE": 1, "Text": "c", "text": "d"},
    {
        "text": "a",
        "select": "b",
        "gr\u00f6\u00dfe": 1,
        "_gone": 2.5,
        "password_encrypted": b"\0\xff",
        "class_": "c",
    },
)
"""Rows with columns that an earlier class declared and the present one does not."""

# fmt: off
AWKWARD_TIMES: Final = (
    0.0, 1.0, NOW, NOW + 0.1, NOW + 1e-6, 1_699_999_999.9999998, 4102444800.123456, 2.0**53 + 2, 0.1 + 0.2,
    5e-324, 1e-9, 1e308, inf,
)
# fmt: on
"""Deadlines: any float that is not negative or NaN. `inf` is the one of a record without end."""


class Sample(CacheEntry):
    """The entry that the contract gives to tiers with the trait `LIVE`."""

    text: str | None = None
    number: int | None = None
    amount: float | None = None
    data: bytes | None = None
    order: str | None = None


def stamp(seconds: float = 0.0, tag: int = 0) -> int:
    """The version of a write `seconds` after the fake clock's start; `tag` tells processes apart."""
    return int((NOW + seconds) * 1_000_000) * 1024 + tag


def make_row(
    key: str = "key",
    version: int = 1,
    *,
    purge_at: float = FAR,
    access_count: int = 0,
    last_accessed: float = 0.0,
    columns: Mapping[str, ColumnValue] | None = None,
    **more: ColumnValue,
) -> Row:
    """A row with a check over its content. `more` are columns too."""
    columns = {**(columns or {}), **more}
    present = sorted((name, repr(value)) for name, value in columns.items() if value is not None)
    content = msgspec.json.encode([key, version, repr(purge_at), present])
    check = f"c1.{zlib.crc32(content):08x}"
    return Row(key, version, purge_at, check, columns, access_count, last_accessed)


def make_entry(key: str = "key", version: int = 1, *, purge_at: float = FAR, **fields: Any) -> Sample:
    """A live entry; `inf` as `purge_at` gives one without a deadline."""
    deadline = None if purge_at == inf else datetime.fromtimestamp(purge_at, UTC)
    return Sample(key=key, version=version, expires_at=deadline, **fields)
