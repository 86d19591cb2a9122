"""`--where`, `--source` and `--health`: filters as a person writes them, read by the types of the fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, TypeVar

import click
import msgspec
from msgspec.structs import replace

from tierkit.entry import CacheEntry, HealthStatus
from tierkit.filters import above, at_least, at_most, below, contains, filters_of, other_than
from tierkit.query import NoneOf, Range
from tierkit.schema import schema_of
from tierkit.shapes import Field
from tierkit.values import KINDS

_FORM: Final = re.compile(r"(\w+)(>=|<=|!=|=|>|<)(.*)", re.DOTALL)
_NO_VALUE: Final = re.compile(r"!(\w+)")
_BOUNDS: Final[dict[str, Callable[[Any], Range]]] = {">=": at_least, "<=": at_most, ">": above, "<": below}
_LOOKS: Final = {
    bool: "true or false is, and !FIELD stands for no value",
    datetime: "a time in ISO 8601 is, such as 2026-12-01T12:00:00Z",
}
_TYPES: Final = {encode: kind for kind, (_, encode, _) in KINDS.items()}

C = TypeVar("C", bound=Callable[..., Any])


def where_options(command: C) -> C:
    """The options that choose records."""
    options = (
        click.option("--source", metavar="NAME", help="Only records from this source."),
        click.option(
            "--health", type=click.Choice([status.value for status in HealthStatus]), help="Only this health."
        ),
        click.option(
            "--where",
            "conditions",
            metavar="CONDITION",
            multiple=True,
            help="Only records of which this holds: FIELD=VALUE, also with !=, >=, <=, > or <, or !FIELD for no value.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def filters_given(
    entry_type: type[CacheEntry], conditions: Iterable[str], source: str | None = None, health: str | None = None
) -> dict[str, Any]:
    """The filters of `select` that these options mean; all of them must hold, and one of several values.

    Raises:
        click.UsageError: A condition is none, or its value not of the field's type.
        CacheValidationError: There is no such field, or it is a secret.
    """
    filters: dict[str, Any] = {}
    named = [("source", source), ("health_status", health)]
    conditions = [_with_one_sign(condition) for condition in conditions]
    for condition in (*(f"{name}={value}" for name, value in named if value is not None), *conditions):
        name, test = _read(entry_type, condition)
        filters[name] = _both(name, filters[name], test) if name in filters else test
    return filters


def _with_one_sign(condition: str) -> str:
    found = _FORM.fullmatch(condition)
    if found and found[2] in ("=", "!=") and found[3].startswith("="):  # `==` looked for texts that begin with `=`
        raise click.UsageError(f"--where {found[1]}: write {found[2]} for {found[2]}=")
    return condition


def _read(entry_type: type[CacheEntry], condition: str) -> tuple[str, Any]:
    reader = filters_of(schema_of(entry_type))
    if no_value := _NO_VALUE.fullmatch(condition):
        return reader.field(no_value[1]).name, [None]
    found = _FORM.fullmatch(condition)
    if found is None:  # not shown: it may be a value alone, and a secret
        raise click.UsageError(
            "--where takes FIELD=VALUE, FIELD!=VALUE, FIELD>=VALUE, FIELD<=VALUE, FIELD>VALUE, FIELD<VALUE or !FIELD"
        )
    name, sign, text = found.groups()
    field = reader.field(name)
    if sign == "!=":
        return name, _other_than(field, text)
    if sign != "=":
        return name, _BOUNDS[sign](_value(field, text))
    return name, contains(_element(field, text)) if field.items else [_value(field, text)]


def _other_than(field: Field, text: str) -> NoneOf:
    if field.items:
        raise click.UsageError(f"--where {field.name}!=...: a tuple has no such condition")
    return other_than([_value(field, text)])


def _both(name: str, one: Any, other: Any) -> Any:
    if isinstance(one, list) and isinstance(other, list):
        return one + other
    if isinstance(one, NoneOf) and isinstance(other, NoneOf):
        return other_than([*one.values, *other.values])
    if isinstance(one, Range) and isinstance(other, Range):
        low, high = (one, other) if other.low is None else (other, one)
        if low.high is None and high.low is None:
            return replace(low, high=high.high, below=high.below)
    raise click.UsageError(f"--where has conditions on {name} that do not go together")


def _value(field: Field, text: str) -> Any:
    kind = str if isinstance(field.decode, type) and issubclass(field.decode, Enum) else _TYPES.get(field.encode)
    if kind is None or kind is bytes:
        raise click.UsageError(f"--where cannot have a value of {field.name}: only texts, numbers, times and truths")
    return _converted(field, text, kind)


def _element(field: Field, text: str) -> Any:
    """The element of a tuple that `text` is, by the first of its types that can be."""
    for item in field.items[:-1]:
        try:
            return msgspec.convert(text, item, strict=False)
        except msgspec.ValidationError:
            continue
    return _converted(field, text, field.items[-1])


def _converted(field: Field, text: str, kind: Any) -> Any:
    try:
        if kind is datetime:
            moment = datetime.fromisoformat(text)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return msgspec.convert(text, kind, strict=False)
    except ValueError as error:
        why = _LOOKS.get(kind, error)
        raise click.UsageError(f"--where {field.name}: {text!r} cannot be its value: {why}") from None
