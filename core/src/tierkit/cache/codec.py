"""Plain values as MessagePack and back: what does not come back equal is refused."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

import msgspec
from pydantic import BaseModel, ValidationError

from tierkit.cache.paths import ROOT, changed, equal, unstorable
from tierkit.errors import CacheValidationError, SchemaMismatchError
from tierkit.values import type_name

V = TypeVar("V")

_TYPED: Final = "; a cache that is given the type of its values, such as Cache[{0}], keeps it"


class Codec(Generic[V]):
    """Encodes and decodes the values of one cache. Thread-safe.

    Without a type, values are what MessagePack knows: None, bool, int, float, str, bytes, aware datetimes, and lists
    and dicts of these. With one they are what msgspec can decode as that type (structs, dataclasses, typed dicts,
    tuples, sets, enums, ...), and pydantic models.

    Attributes:
        value_type: The type; `Any` for none.
    """

    def __init__(self, value_type: Any = Any) -> None:
        """Encode values of `value_type`.

        Raises:
            CacheValidationError: It is no type that can be decoded.
        """
        self.value_type = value_type
        self._encode = msgspec.msgpack.Encoder(enc_hook=_plain).encode
        try:
            self._decode = msgspec.msgpack.Decoder(value_type, dec_hook=_made).decode
        except (TypeError, NameError) as error:
            raise CacheValidationError(f"values of type {type_name(value_type)} cannot be stored: {error}") from None

    def encode(self, key: str, value: V) -> bytes:
        """`value`, which is for `key`, encoded.

        Raises:
            CacheValidationError: It does not fit the type, or a part of it cannot be stored. Its path is named.
        """
        try:
            encoded = self._encode(value)
            back = self._decode(encoded)
            if equal(value, back):
                return encoded
            problem = self._difference(value, back)
        except msgspec.ValidationError as error:
            problem = f"it is no {type_name(self.value_type)}: {_with_path(error)}"
        except RecursionError:
            problem = f"{ROOT} nests too deeply, or holds itself"
        except Exception:  # noqa: BLE001 - of msgspec, or of a class of the value: the part that causes it is named
            problem = unstorable(value, self._encode)
        if not problem:
            return encoded
        raise CacheValidationError(f"the value for {key[:80]!r} cannot be stored: {problem}", reason=problem)

    def _difference(self, value: Any, back: Any) -> str:
        difference = changed(value, back)
        return difference + _TYPED.format(type(value).__name__) if difference and self.value_type is Any else difference

    def decode(self, key: str, encoded: bytes) -> V:
        """A fresh copy of the value that is held for `key`.

        Raises:
            SchemaMismatchError: It does not fit the type.
        """
        try:
            value: V = self._decode(encoded)
        except (ValueError, TypeError, RecursionError) as error:  # msgspec's own is a ValueError
            raise SchemaMismatchError(
                f"the value of {key[:80]!r} is no {type_name(self.value_type)}: {_with_path(error)}; "
                "another program has written it, or the type has changed: delete it"
            ) from None
        return value


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=True, round_trip=True)
    raise TypeError(type(value).__name__)


def _made(wanted: type, given: Any) -> Any:
    if not issubclass(wanted, BaseModel):
        raise TypeError(f"values of type {wanted.__name__} cannot be stored")
    try:
        return wanted.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in first["loc"])
        raise ValueError(f"{where or 'it'}: {first['msg']}") from None  # without the values


def _with_path(error: BaseException) -> str:
    """What msgspec says, with the path as everywhere: `value.items[3].price`."""
    return str(error).replace("`$", f"`{ROOT}")
