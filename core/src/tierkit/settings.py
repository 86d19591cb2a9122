"""Settings one by one: where each came from, how it is shown, and how a wrong one is reported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import SecretBytes, SecretStr, ValidationError

from tierkit.errors import CacheConfigError
from tierkit.keys import is_key

Where = tuple[str | int, ...]
"""A setting's place: ("durability",), ("per_source_ttl", "free-list"), ("tiers", 0, "max_entries")."""

MASK: Final = "**********"


@dataclass(frozen=True, slots=True)
class Given:
    """A value as somebody gave it.

    Attributes:
        value: The value; not shown, since it may be a secret.
        origin: "default", "code", "environment variable NAME" or "file PATH".
        spelled: The name by which it was given.
        base: The folder that a relative path in it starts from; None for the working directory.
    """

    value: Any = field(repr=False)
    origin: str
    spelled: str
    base: Path | None = None


Givens = Mapping[Where, Given]


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting in effect, as `tierkit config` prints it.

    Attributes:
        name: Dotted: `tiers.0.max_entries`.
        value_text: The value; a secret is masked.
        origin: "default", "code", "environment variable NAME" or "file PATH".
    """

    name: str
    value_text: str
    origin: str


def dotted(where: Where) -> str:
    """`where` as people write it."""
    return masked(".".join(map(str, where)))


def masked(text: str) -> str:
    """`text` without the credentials of a URL in it."""
    return _USERINFO.sub(f"//{MASK}@", text)


def given_for(where: Where, givens: Givens) -> Given | None:
    """What was given for `where`, or for the whole that it is a part of."""
    parts = (where[:length] for length in range(len(where), 0, -1))
    return next((givens[part] for part in parts if part in givens), None)


def origin_of(where: Where, givens: Givens) -> str:
    """Where the value in effect at `where` came from."""
    given = given_for(where, givens)
    return given.origin if given else "default"


def is_secret(name: str, value: object = None) -> bool:
    """Whether a setting of this name, or this value, must not be shown."""
    return bool(_SECRET_NAME.search(name)) or isinstance(value, SecretStr | SecretBytes)


def shown(where: Where, value: object) -> str:
    """`value` as it may stand in a message or a listing: never a secret, never long."""
    if value is None:
        return "unlimited" if where[-1] == "max_entries" else "none"
    if callable(value):
        return "a callable"
    if is_secret(str(where[-1]), value):
        return MASK
    if isinstance(value, Sequence | Mapping) and not isinstance(value, str | bytes):
        return ", ".join(shown(where, item) for item in value) or "none"
    if not isinstance(value, _SCALARS):
        return f"({type(value).__name__})"
    text = _written(value)
    text = MASK if is_key(text.rpartition("/")[2]) else masked(text)
    return text if len(text) <= 200 else f"{text[:200]}..."


def problem(where: Where, givens: Givens, text: str, value: object = ...) -> str:
    """One line: which setting, which value, from where, and what is allowed."""
    given = given_for(where, givens)
    name = given.spelled if given and where in givens else dotted(where)
    if given is None and where[:1] == ("tiers",):
        given = next((given for place, given in givens.items() if place[:2] == where[:2]), None)
    value_text = "" if value is ... else f" = {_quoted(shown(where, value), value)}"
    return f"{name}{value_text} ({given.origin if given else 'default'}): {text}"


def refuse(problems: Sequence[str]) -> None:
    """Raise one error that lists all of `problems`, if there are any.

    Raises:
        CacheConfigError: There are some.
    """
    if problems:
        listed = "\n".join(f"- {line}" for line in problems)
        several = f"{len(problems)} settings are wrong:\n{listed}"
        raise CacheConfigError(problems[0] if len(problems) == 1 else several)


def problems_of(
    error: ValidationError, at: Where, givens: Givens, *, hidden: AbstractSet[str] = frozenset()
) -> Iterator[str]:
    """What pydantic found wrong below `at`, a line for each setting; no value of those that are `hidden`."""
    seen = set()
    for found in error.errors(include_url=False):
        where = _setting_of((*at, *found["loc"]))
        if where not in seen:
            seen.add(where)
            is_shown = found["type"] != "missing" and isinstance(found["input"], _SCALARS)
            value = found["input"] if is_shown and not hidden & set(where) else ...
            yield problem(where, givens, _allowed(found), value)


def _setting_of(where: Where) -> Where:
    """Without what pydantic adds to it: the branches of a union, the places in a list."""
    depth = {"tiers": 3, "per_source_ttl": 2, "observer_options": 3}.get(str(where[0]), 1) if where else 0
    return where[:depth]


def _allowed(found: Mapping[str, Any]) -> str:
    context = found.get("ctx", {})
    template = _ALLOWED.get(found["type"])
    return template.format(**context) if template else str(found["msg"])


def _written(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value.bit_length() > 1000:  # Python refuses to write very long ones
        return f"a number of {value.bit_length()} bits"
    return f"{value}".removesuffix(".0")


def _quoted(text: str, value: object) -> str:
    return repr(text) if isinstance(value, str) and text != MASK else text


_SCALARS = (str, bool, int, float, Path, type(None))
_SECRET_NAME = re.compile(r"secret|passw|token|credential|auth|(^|_)key$|apikey", re.IGNORECASE)
# Up to the last @: a password may hold anything. A Path has one of the two slashes.
_USERINFO = re.compile(r"(//|(?<=:)/).*@", re.DOTALL)
_ALLOWED: Final = {
    "bool_parsing": "must be true or false (or 1/0, yes/no, on/off)",
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "extra_forbidden": "there is no such option",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "list_type": "must be a list",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "mapping_type": "must be a table",
    "missing": "is missing",
    "path_type": "must be a path",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "value_error": "{error}",
}
