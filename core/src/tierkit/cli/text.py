"""Values as text: safe to print, short to read."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

from pydantic import SecretStr

from tierkit.duration import UNITS

MASK: Final = "**********"
"""What is shown of a secret."""


def clean(text: str) -> str:
    """`text` with everything that a terminal could take as a command, or that would break a line, escaped."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def duration(seconds: float) -> str:
    """`seconds` in the one or two largest units: `2 h 5 m`."""
    whole = int(abs(seconds))
    for unit, below in (("d", "h"), ("h", "m"), ("m", "s")):
        length = int(UNITS[unit])
        if whole >= length:
            rest = whole % length // int(UNITS[below])
            return f"{whole // length} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s" if whole or not seconds else "< 1 s"


def deadline(expires_at: datetime | None, now: datetime) -> str:
    """When a record expires, as seen from `now`."""
    if expires_at is None:
        return "never"
    return when((expires_at - now).total_seconds())


def when(left: float) -> str:
    """A moment that comes in `left` seconds, or has been."""
    return f"in {duration(left)}" if left > 0 else f"{duration(left)} ago"


def size(count: int | None) -> str:
    """`count` bytes, readable; a dash for None."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def latency(seconds: float) -> str:
    """A short time, readable: `12 µs`."""
    for unit, factor in (("µs", 1e6), ("ms", 1e3)):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.2f} s"


def moment(value: datetime) -> str:
    """A time in ISO 8601, UTC."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def as_json(value: Any, *, reveal: bool = False) -> Any:
    """`value` as JSON can hold it; secrets masked unless `reveal`."""
    if isinstance(value, SecretStr):
        return value.get_secret_value() if reveal else MASK
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, (str, int, float)):
        return value
    import msgspec

    return msgspec.to_builtins(value, str_keys=True)
