"""From what a file holds to what a field declares.

No message here names a value: a row whose cells have shifted may hold a password anywhere.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from math import isfinite
from typing import Any, Final, NoReturn

import msgspec
from pydantic import SecretStr

from tierkit.values import Unfit, type_name

Converter = Callable[[Any], Any]

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_CONTROL_OR_BREAK: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_EPOCH: Final = re.compile(r"[0-9]{9,13}(?:\.[0-9]{1,9})?")
_MILLISECONDS: Final = 1e11  # as seconds this would be the year 5138
_WORDS: Final = {
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def word_for(value: object) -> str:
    """What kind of JSON value this is."""
    return _WORDS.get(type(value), type(value).__name__)


def converter_for(annotation: Any) -> Converter:
    """The function that makes a value from a file one of type `annotation`, or raises `Unfit`.

    Text becomes numbers, truth values, members of an enum and bytes (base64); ISO 8601 text and epoch numbers become
    aware datetimes (naive ones are UTC); arrays become tuples and objects become Structs, also from JSON text in a
    cell.
    """
    core = _core_of(annotation)
    known = _CONVERTERS.get(core)
    if known is not None:
        return known
    if isinstance(core, type) and issubclass(core, (int, float, str, bytes)):
        return partial(_plain, core)
    return partial(_nested, core)


def _core_of(annotation: Any) -> Any:
    """`annotation` without `| None`."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [part for part in typing.get_args(annotation) if part is not type(None)]
        return rest[0] if len(rest) == 1 else annotation
    return annotation


def text(value: Any) -> str:
    """Text, which may have line breaks but no other control character."""
    if type(value) is not str:
        raise Unfit(f"must be text, not {word_for(value)}")
    if not value.isprintable():
        _refuse_controls(value, _CONTROL)
    return value


def name(value: Any) -> str:
    """Text on one line that is not blank: a key, a source, a URL."""
    if type(value) is not str:
        raise Unfit(f"must be text, not {word_for(value)}")
    if not value.isprintable():
        _refuse_controls(value, _CONTROL_OR_BREAK)
    if not value or value.isspace():
        raise Unfit("is blank")
    return value


def secret(value: Any) -> SecretStr | None:
    """A secret from text; None from empty text."""
    if type(value) is not str:
        raise Unfit(f"must be text, not {word_for(value)}")
    if not value.isprintable():
        _refuse_controls(value, _CONTROL)
    return SecretStr(value) if value else None


def credential(value: Any) -> SecretStr | None:
    """A secret on one line: a user name, a password."""
    if type(value) is not str:
        raise Unfit(f"must be text, not {word_for(value)}")
    if not value.isprintable():
        _refuse_controls(value, _CONTROL_OR_BREAK)
    return SecretStr(value) if value else None


def opened(open_plain: Callable[[bytes], SecretStr | None], plain: Converter, value: Any) -> Any:
    """What `plain` makes of the secret in a plain Fernet token of another tool."""
    secret = open_plain(name(value).strip().encode())
    if secret is None:
        raise Unfit("is encrypted, and not as a plain Fernet token of a key that is held")
    return plain(secret.get_secret_value())


def refused(_: Any) -> NoReturn:
    """No secret: who opens no tokens of other tools must not take a record without its secret for the whole."""
    raise Unfit('is encrypted: accept = ["fernet"] in the configuration opens plain Fernet tokens')


def moment(value: Any) -> datetime:
    """An aware datetime in UTC from ISO 8601 text or an epoch number (seconds, or milliseconds if large)."""
    try:
        if isinstance(value, str):
            value = value.strip()
            if not _EPOCH.fullmatch(value):
                return _in_utc(datetime.fromisoformat(value))
            value = float(value)
        if type(value) in (int, float):
            return datetime.fromtimestamp(value / 1000 if value >= _MILLISECONDS else value, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise Unfit("must be a time: ISO 8601 text, or seconds since 1970")


def finite(value: Any) -> float:
    """A number that is neither infinite nor none."""
    number: float = _plain(float, value)
    if not isfinite(number):
        raise Unfit("must be a finite number")
    return number


def positive(value: Any) -> float:
    """A number of seconds to live."""
    number: float = _plain(float, value)
    if not (isfinite(number) and number > 0):
        raise Unfit("must be a number above 0")
    return number


def count(value: Any) -> int:
    """A whole number that is not negative."""
    number: int = _plain(int, value)
    if number < 0:
        raise Unfit("must not be negative")
    return number


def packed(value: Any) -> bytes:
    """Any value as MessagePack, as `ValueEntry` holds it."""
    try:
        return msgspec.msgpack.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise Unfit("cannot be stored") from None


def _in_utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _plain(core: Any, value: Any) -> Any:
    try:
        return msgspec.convert(value, core, strict=False)
    except (msgspec.ValidationError, ValueError, TypeError, OverflowError):
        raise Unfit(f"is {word_for(value)} that cannot be read as {type_name(core)}") from None


def _nested(core: Any, value: Any) -> Any:
    try:
        if isinstance(value, str):
            return msgspec.json.decode(value, type=core)
        return msgspec.convert(value, core, strict=False)
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError):
        raise Unfit(f"is {word_for(value)} that cannot be read as {type_name(core)}") from None


def _refuse_controls(value: str, refused: re.Pattern[str]) -> None:
    if found := refused.search(value):
        raise Unfit(f"holds the control character U+{ord(found.group()):04X}")


_CONVERTERS: Final[dict[Any, Converter]] = {str: text, float: finite, SecretStr: secret, datetime: moment}
