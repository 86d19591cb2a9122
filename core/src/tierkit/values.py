"""How single values are stored: which types, how they are checked, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from math import isfinite
from typing import Any, Final, NoReturn

import msgspec
from pydantic import SecretStr

from tierkit.row import ColumnType

_INT64: Final = range(-(2**63), 2**63)

Codec = Callable[[Any], Any]


class Unfit(Exception):
    """Why a value cannot be stored; never holds the value of a secret."""


def type_name(annotation: Any) -> str:
    """`annotation` as a person would write it."""
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def refuse_none() -> NoReturn:
    """Refuse None in a field that must have a value."""
    raise Unfit("must not be None")


def _exactly(wanted: type, value: Any) -> Any:
    if type(value) is not wanted:
        raise Unfit(f"must be {wanted.__name__}, not {type(value).__name__}")
    return value


def check_text(value: Any) -> str:
    """`value` if it is a string that can be encoded as UTF-8."""
    if not isinstance(value, str):
        raise Unfit(f"must be str, not {type(value).__name__}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Unfit(f"holds a lone surrogate at position {error.start}, which no file can hold") from None
    return value if type(value) is str else str(value)


def secret_problem(secret: SecretStr) -> str:
    """Why `secret` cannot be stored, or nothing.

    Answers instead of raising: the error of an encoder carries the whole text along.
    """
    try:
        secret.get_secret_value().encode()
    except UnicodeEncodeError as error:
        return f"holds a lone surrogate at position {error.start}, which no file can hold"
    except AttributeError:
        return "must hold a str"
    return ""


def _secret(value: Any) -> SecretStr:
    problem = secret_problem(value) if type(value) is SecretStr else f"must be SecretStr, not {type(value).__name__}"
    if problem:
        del value  # a traceback may show the locals of the frame that raises
        raise Unfit(problem)
    return value  # type: ignore[no-any-return]  # anything else is a problem


def _integer(value: Any) -> int:
    if _exactly(int, value) not in _INT64:
        raise Unfit("does not fit 64 bits")
    return int(value)


def _real(value: Any) -> float:
    if type(value) is float and isfinite(value):
        return value + 0.0  # no -0.0: storages do not keep it
    if type(value) is not int and type(value) is not float:
        raise Unfit(f"must be a number, not {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        raise Unfit("is too large a number") from None
    if not isfinite(number):
        raise Unfit(f"must be finite, not {number}")
    return number


def _boolean(value: Any) -> int:
    return int(_exactly(bool, value))


def _moment(value: Any) -> float:
    if not isinstance(value, datetime):
        raise Unfit(f"must be a datetime, not {type(value).__name__}")
    if value.utcoffset() is None:
        raise Unfit(f"is {value.isoformat()} without a time zone: use datetime.now(UTC) or replace(tzinfo=UTC)")
    return value.timestamp()


@lru_cache(maxsize=1024)  # times of one record, and of records that were put together, are often equal
def _from_moment(value: float) -> datetime:
    return datetime.fromtimestamp(value, UTC)


def enum_encoder(enum: type[Enum]) -> Codec:
    """Encodes members of `enum` by value."""

    def encode(value: Any) -> str:
        if not isinstance(value, enum):
            raise Unfit(f"must be {enum.__name__}, not {type(value).__name__}")
        return value._value_  # type: ignore[no-any-return]  # `.value` goes through a descriptor, five times slower

    return encode


class _Members(dict[Any, Any]):
    """The members of an enum by value: a look-up takes a fifth of what a call of the enum does."""

    def __init__(self, enum: type[Enum]) -> None:
        super().__init__({member.value: member for member in enum})
        self.enum = enum

    def __missing__(self, value: Any) -> Any:
        return self.enum(value)  # it may know the value all the same, and else says what is wrong


def decoder_of(decode: Codec) -> Codec:
    """`decode`, or what does the same in less time."""
    return _Members(decode).__getitem__ if isinstance(decode, type) and issubclass(decode, Enum) else decode


def json_encoder(core: Any) -> Codec:
    """Encodes values of type `core` as JSON, refusing what would not come back equal."""
    decoder = msgspec.json.Decoder(core)

    def encode(value: Any) -> str:
        try:
            text = msgspec.json.encode(value).decode()
            same = decoder.decode(text) == value
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Unfit(f"cannot be stored as {type_name(core)}: {error}") from None
        if not same:
            raise Unfit("does not come back equal: a value in it is not finite or not of the declared type")
        return text

    return encode


def _same(value: Any) -> Any:
    return value


def _strictly(wanted: type) -> Codec:
    def normalise(value: Any) -> Any:
        if type(value) is not wanted:
            raise TypeError(f"expected {wanted.__name__}, found {type(value).__name__}")
        return value

    return normalise


def _whole(value: Any) -> int:
    if int(value) != value:
        raise ValueError("expected a whole number")
    return int(value)


KINDS: Final[dict[Any, tuple[ColumnType, Codec, Codec]]] = {
    str: ("text", check_text, _same),
    int: ("integer", _integer, _same),
    float: ("real", _real, _same),
    bool: ("integer", _boolean, bool),
    bytes: ("blob", lambda value: _exactly(bytes, value), _same),
    datetime: ("real", _moment, _from_moment),
    SecretStr: ("blob", _secret, _same),
}
AS_IT_IS: Final[Codec] = _same
"""The way back for what is stored as it is."""
PYTHON: Final[dict[ColumnType, type]] = {"text": str, "integer": int, "real": float, "blob": bytes}
"""What a column of each type holds."""
NORMALISE: Final[dict[ColumnType, Codec]] = {
    "text": _strictly(str),
    "integer": _whole,
    "real": float,
    "blob": _strictly(bytes),
}
