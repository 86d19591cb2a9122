"""Where in a value a part is that cannot be stored, and why. Looked for only after a value was refused."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from math import isnan
from typing import Any, Final

import msgspec
from pydantic import BaseModel, SecretBytes, SecretStr

ROOT: Final = "value"
_SEALED_ELSEWHERE: Final = (
    "a secret cannot be stored in a plain value: keep it in a field of type SecretStr of an entry class"
)

Step = tuple[str, Any]
"""How a part is named within its whole, and the part."""


def unstorable(value: Any, encode: Callable[[Any], bytes], path: str = ROOT) -> str:
    """The path of the first part of `value` that `encode` refuses, and why it cannot be stored."""
    for step, part in parts(value):
        try:
            encode(part)
        except RecursionError:
            return f"{path}{step} nests too deeply, or holds itself"
        except Exception:  # noqa: BLE001 - whatever it is, the part below that causes it is named
            return unstorable(part, encode, path + step)
    return f"{path}: {_why(value)}"


def _why(value: Any) -> str:
    if isinstance(value, (SecretStr, SecretBytes)):
        return _SEALED_ELSEWHERE
    if isinstance(value, dict):
        return "a key of this mapping cannot be stored: keys are text, numbers, bytes or None"
    if isinstance(value, int):
        return "this number does not fit 64 bits"
    if isinstance(value, str):
        return "this text holds a lone surrogate, which cannot be encoded as UTF-8"
    kind = "a function" if inspect.isroutine(value) else f"a value of type {type(value).__name__}"
    return f"{kind} cannot be stored"


def changed(value: Any, back: Any, path: str = ROOT) -> str:
    """The path of the first part of `value` that is not what came `back`, and how it differs; nothing if all are equal.

    A number that is none (NaN) is what comes back as such, though it is not equal to itself.
    """
    if isinstance(value, float) and isinstance(back, float) and isnan(value) and isnan(back):
        return ""
    if type(value) is not type(back) and not equal(value, back):
        return f"{path}: a {type(value).__name__} would come back as a {type(back).__name__}"
    theirs = {} if isinstance(back, (set, frozenset)) else dict(parts(back))
    for step, part in parts(value) if theirs else ():
        if step not in theirs:
            return f"{path}{step} would not come back"
        if difference := changed(part, theirs[step], path + step):
            return difference
    return "" if theirs or equal(value, back) else f"{path} would not come back equal"


def equal(value: Any, back: Any) -> bool:
    """Whether both are equal; what cannot be compared is not."""
    try:
        return bool(value == back)
    except Exception:  # noqa: BLE001 - what cannot be compared is not known to be equal
        return False


def parts(value: Any) -> Iterator[Step]:
    """The parts of `value`, each with its step: `.name` or `[index]`."""
    if isinstance(value, Mapping):
        return ((_of_key(key), part) for key, part in value.items())
    if isinstance(value, (list, tuple)):
        return ((f"[{index}]", part) for index, part in enumerate(value))
    if isinstance(value, (set, frozenset)):
        return (("{...}", part) for part in value)
    return ((f".{name}", getattr(value, name)) for name in _fields(value))


def _fields(value: Any) -> Iterator[str]:
    if isinstance(value, msgspec.Struct):
        return iter(value.__struct_fields__)
    if isinstance(value, BaseModel):
        return iter(type(value).model_fields)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return (field.name for field in dataclasses.fields(value))
    return iter(())


def _of_key(key: Any) -> str:
    if isinstance(key, str) and key.isidentifier() and len(key) <= 80:
        return f".{key}"
    return f"[{key[:80]!r}]" if isinstance(key, (str, bytes)) else f"[{key!r}]"
