"""Durations as people give them: seconds, a timedelta, or text such as "15m" and "2h30m"."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, Final

from tierkit.errors import CacheValidationError
from tierkit.expiry import rule_seconds

UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")

Duration = float | timedelta | str
"""A number of seconds, a timedelta, or text such as "90s", "15m", "2h30m" and "1d"."""


def parse_duration(text: str) -> float:
    """The seconds in `text`: a number of seconds, or parts such as `15m` and `2h5m`.

    Raises:
        ValueError: It is neither.
    """
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is neither seconds nor a duration such as 90s, 15m or 2h5m")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def seconds_of(name: str, value: Duration) -> float:
    """`value` in seconds, more than 0 and at most 100 years.

    Args:
        name: What it is, for the message of an error.
        value: The duration.

    Raises:
        CacheValidationError: It is none, or not within these bounds.
    """
    return rule_seconds(name, in_seconds(name, value))


def in_seconds(name: str, value: Any) -> Any:
    """`value` in seconds if it is text or a timedelta, else as it is: for whoever checks the number.

    Raises:
        CacheValidationError: It is text that is no duration.
    """
    if isinstance(value, timedelta):
        return value.total_seconds()
    if not isinstance(value, str):
        return value
    try:
        return parse_duration(value)
    except ValueError as error:
        raise CacheValidationError(f"{name}: {error}") from None
