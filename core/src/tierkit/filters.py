"""What a user asks for, by the names and types of fields, as a query on columns.

A filter is a value (equal to it), a list or set of values (equal to one of them), None (has no value), or one of
`at_least`, `at_most`, `above`, `below`, `between`, `other_than` and `contains`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from tierkit.entry import CacheEntry
from tierkit.errors import CacheValidationError
from tierkit.offers import nearest
from tierkit.query import Condition, Contains, NoneOf, OneOf, Query, Range, Test
from tierkit.schema import EntrySchema
from tierkit.shapes import Field
from tierkit.values import KINDS, NORMALISE, Unfit

_UNORDERED: Final = "holds JSON, which has no order"


def at_least(value: Any) -> Range:
    """A filter: the field is `value` or more. Text goes by code point; a field without a value is left out."""
    return Range(low=_given(value))


def at_most(value: Any) -> Range:
    """A filter: the field is `value` or less."""
    return Range(high=_given(value))


def above(value: Any) -> Range:
    """A filter: the field is more than `value`."""
    return Range(low=_given(value), above=True)


def below(value: Any) -> Range:
    """A filter: the field is less than `value`."""
    return Range(high=_given(value), below=True)


def between(low: Any, high: Any) -> Range:
    """A filter: the field is `low`, `high` or between them."""
    return Range(low=_given(low), high=_given(high))


def other_than(value: Any) -> NoneOf:
    """A filter: all that `value` does not find, which is a value, a list or set of values, or None.

    Unlike `!=` in SQL it finds a field without a value too, unless None is among them.
    """
    return NoneOf(value)


def contains(element: Any) -> Contains:
    """A filter: the field is a tuple, and `element` is in it."""
    return Contains(element)


class Filters:
    """Reads filters on the entries of one class."""

    def __init__(self, schema: EntrySchema) -> None:
        """Know the fields of the class, and the four that a row has beside its columns."""
        self._class = schema.entry_type.__name__
        self._fields = {field.name: field for field in (*schema.fields, *_own_fields())}
        self._defaults = _defaults(schema)

    def query(
        self,
        filters: Mapping[str, Any],
        *,
        order_by: str | None = None,
        descending: bool = False,
        limit: int | None = None,
        also: tuple[Condition, ...] = (),
    ) -> Query:
        """The query that is meant, with the conditions `also` after those of the filters.

        Raises:
            CacheValidationError: There is no such field, it is a secret or has no order, a value is not of its type, or
                the limit is no number from 0 on. No value is shown.
        """
        if limit is not None and (type(limit) is not int or limit < 0):
            raise CacheValidationError(f"limit must be a whole number from 0 on, or None for all, not {limit!r}")
        conditions = (*[self._condition(name, given) for name, given in filters.items()], *also)
        if order_by is None:
            return Query(conditions=conditions, limit=limit)
        if not isinstance(order_by, str):
            raise CacheValidationError(f"order_by names one field, as a text such as '-score', not {order_by!r}")
        name = str(order_by)
        ordered = self._ordered(name.removeprefix("-"))
        descending = descending or name.startswith("-")
        return Query(conditions=conditions, order_by=ordered.column, descending=descending, limit=limit)

    def field(self, name: str) -> Field:
        """The field of this name, which may be filtered by.

        Raises:
            CacheValidationError: There is none, or it is a secret.
        """
        field = self._fields.get(name)
        if field is None:
            raise CacheValidationError(f"{self._class} has no field {name!r}{self._guess(name)}")
        if field.secret:
            raise CacheValidationError(
                f"{self._class}.{name} is a secret: it is stored sealed, and cannot be filtered or ordered by"
            )
        return field

    def _guess(self, name: object) -> str:
        public = [field.name for field in self._fields.values() if not field.secret]
        meant = nearest(str(name), public)
        return f": did you mean {meant!r}?" if meant else f"; there are {', '.join(sorted(public))}"

    def _ordered(self, name: str) -> Field:
        field = self.field(name)
        if field.nested:
            raise CacheValidationError(f"{self._class}.{name} {_UNORDERED}: it cannot be ordered by")
        return field

    def _condition(self, name: str, given: Any) -> Condition:
        field = self.field(name)
        try:
            test = _test(field, given)
        except Unfit as unfit:
            given = None
            raise CacheValidationError(f"the filter on {self._class}.{name} {unfit}") from None
        return Condition(field.column, self._or_default(name, test))

    def _or_default(self, name: str, test: Test) -> Test:
        """`test`, which holds of a row without the column if it does of the default: the row was written before."""
        if name not in self._defaults or isinstance(test, Contains):
            return test
        holds = test.holds(self._defaults[name])
        if isinstance(test, NoneOf):
            return test if holds else NoneOf(test.values | {None})
        if not holds:
            return test
        return replace(test, or_none=True) if isinstance(test, Range) else OneOf(test.values | {None})


@lru_cache(maxsize=256)
def filters_of(schema: EntrySchema) -> Filters:
    """The reader of filters for `schema`, made once."""
    return Filters(schema)


def fresh_at(now: float) -> Condition:
    """That a record has not expired at `now`, in POSIX seconds."""
    return Condition("expires_at", Range(low=now, above=True, or_none=True))


def _own_fields() -> list[Field]:
    def own(name: str, kind: type, optional: bool = False) -> Field:
        column, encode, decode = KINDS[kind]
        return Field(
            name=name,
            column=name,
            type=column,
            encode=encode,
            decode=decode,
            normalise=NORMALISE[column],
            items=(),
            nested=False,
            secret=False,
            optional=optional,
            required=False,
        )

    return [own("key", str), own("version", int), own("access_count", int), own("last_accessed", datetime, True)]


def _defaults(schema: EntrySchema) -> dict[str, Any]:
    """What rows hold without a column of these fields, which were written before the class had the field."""
    declared = {info.name: info for info in msgspec.structs.fields(schema.entry_type)}
    added = [field for field in schema.fields if field.name not in CacheEntry.__struct_fields__]
    return {
        field.name: field.encode(_default(declared[field.name]))
        for field in added
        if not (field.required or field.optional or field.secret)
    }


def _default(info: msgspec.structs.FieldInfo) -> Any:
    return info.default if info.default_factory is msgspec.NODEFAULT else info.default_factory()


def _test(field: Field, given: Any) -> Test:
    if isinstance(given, Contains):
        return Contains(_element(field, given.value))
    if isinstance(given, Range):
        return _range(field, given)
    if isinstance(given, NoneOf):
        return NoneOf(_values(field, given.values))
    return OneOf(_values(field, given))


def _values(field: Field, given: Any) -> frozenset[Any]:
    several = isinstance(given, list | set | frozenset) or (isinstance(given, tuple) and not field.nested)
    return frozenset([_encoded(field, value) for value in (given if several else [given])])


def _encoded(field: Field, value: Any) -> Any:
    if value is None:
        if not field.optional:
            raise Unfit("must not be None: every record has a value")
        return None
    decode = field.decode
    if type(value) is str and isinstance(decode, type) and issubclass(decode, Enum):
        return _member(decode, value)
    return field.encode(value)


def _member(enum: type[Enum], value: str) -> str:
    try:
        enum(value)
    except ValueError:
        known = ", ".join(str(member.value) for member in enum)
        raise Unfit(f"must be one of {known}, not {value!r}") from None
    return value


def _range(field: Field, given: Range) -> Range:
    if field.nested:
        raise Unfit(f"has bounds, and the field {_UNORDERED}")
    low, high = (None if bound is None else _encoded(field, bound) for bound in (given.low, given.high))
    return replace(given, low=low, high=high)


def _element(field: Field, element: Any) -> Any:
    if not field.items:
        raise Unfit("is `contains`, which is for tuples: give the value itself")
    for item in field.items:
        try:
            found = msgspec.convert(element, item, strict=True)
        except msgspec.ValidationError:
            continue
        return msgspec.json.decode(msgspec.json.encode(found))
    raise Unfit(f"has an element of type {type(element).__name__}, which the tuple cannot hold")


def _given(bound: Any) -> Any:
    if bound is None:
        raise CacheValidationError("a bound must not be None: leave the filter out, or give None alone for no value")
    return bound
