"""What is asked of a tier: conditions on columns, an order and a limit, with one meaning for all tiers.

A condition speaks of a column as a row holds it: a time is POSIX seconds, a tuple is JSON. `Query.matches` and
`Query.position` say what it means; a tier that answers by other means, such as SQL, answers the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from tierkit.entry import CacheEntry
from tierkit.row import ColumnValue, Record, Row
from tierkit.schema import schema_of

HELD_WHOLE: Final = 1000
"""Up to this limit the records of an ordered answer are held in memory; above, only what orders them."""

_OWN: Final = frozenset({"key", "version", "access_count", "last_accessed"})
_USAGE: Final = frozenset({"access_count", "last_accessed"})
_RANKS: Final = {type(None): 0, bool: 1, int: 1, float: 1, str: 2, bytes: 3}

R = TypeVar("R", bound=Record)


class OneOf(msgspec.Struct, frozen=True):
    """The column has one of these values; None among them stands for no value.

    Attributes:
        values: As a row holds them.
    """

    values: frozenset[ColumnValue]

    def holds(self, value: Any) -> bool:
        """Whether a column with this value is meant."""
        return value in self.values


class NoneOf(msgspec.Struct, frozen=True):
    """The column has none of these values; None among them stands for no value, which is else meant too.

    Attributes:
        values: As a row holds them.
    """

    values: frozenset[ColumnValue]

    def holds(self, value: Any) -> bool:
        """Whether a column with this value is meant."""
        return value not in self.values


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """The column has a value between two bounds, each of which may be left out.

    Attributes:
        low: The lower bound, or None.
        high: The upper bound, or None.
        above: Whether `low` itself is left out.
        below: Whether `high` itself is left out.
        or_none: Whether a column without a value is meant too.
    """

    low: Any = None
    high: Any = None
    above: bool = False
    below: bool = False
    or_none: bool = False

    def holds(self, value: Any) -> bool:
        """Whether a column with this value is meant."""
        if value is None:
            return self.or_none
        try:
            return self._reaches(value) and self._stays(value)
        except TypeError:  # a column that rotted
            return False

    def _reaches(self, value: Any) -> bool:
        return self.low is None or value > self.low or (value == self.low and not self.above)

    def _stays(self, value: Any) -> bool:
        return self.high is None or value < self.high or (value == self.high and not self.below)


class Contains(msgspec.Struct, frozen=True):
    """The column holds a tuple, as JSON, with this element.

    Attributes:
        value: The element, as JSON has it.
    """

    value: Any

    def holds(self, value: Any) -> bool:
        """Whether a column with this value is meant."""
        try:
            elements = msgspec.json.decode(value)
        except (msgspec.DecodeError, TypeError):  # no value, or one that rotted
            return False
        wanted = self.value
        return type(elements) is list and any(type(one) is type(wanted) and one == wanted for one in elements)


Test = OneOf | NoneOf | Range | Contains


class Condition(NamedTuple):
    """What must hold of a column.

    Attributes:
        column: Its name. Beside those of `TierContext.columns` there are `key`, `version`, `access_count` and
            `last_accessed`, which has no value in a record that was never read.
        test: What must hold.
    """

    column: str
    test: Test


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which records are asked for, in which order, and how many.

    Attributes:
        conditions: All of them must hold.
        order_by: The column that orders the answer; None for any order. No value comes first, text goes by code point,
            and the key decides between equals, so that there is one order.
        descending: The same order from its end.
        limit: The most records to answer; None for all.
    """

    conditions: tuple[Condition, ...] = ()
    order_by: str | None = None
    descending: bool = False
    limit: int | None = None

    def matches(self, record: Record) -> bool:
        """Whether every condition holds of `record`."""
        return all(test.holds(column_of(record, column)) for column, test in self.conditions)

    def position(self, record: Record) -> tuple[Any, ...]:
        """Where `record` stands in the order, as a sort key (of the ascending one)."""
        if self.order_by is None:
            return ()
        value = column_of(record, self.order_by)
        return _RANKS.get(type(value), 4), value, record.key

    def answer(self, records: Iterable[R]) -> Iterator[R]:
        """What this asks for among `records`: the meaning of a query, at the cost of holding what is to be ordered."""
        matching = filter(self.matches, records)
        if self.order_by is None:
            return islice(matching, self.limit)
        if self.limit is None:
            return iter(sorted(matching, key=self.position, reverse=self.descending))
        first = heapq.nlargest if self.descending else heapq.nsmallest
        return iter(first(self.limit, matching, key=self.position))

    @property
    def goes_by_usage(self) -> bool:
        """Whether reads of a record change the answer."""
        return self.order_by in _USAGE or not _USAGE.isdisjoint([column for column, _ in self.conditions])

    @property
    def is_held_whole(self) -> bool:
        """Whether `answer` holds few records at most."""
        return self.order_by is None or (self.limit is not None and self.limit <= HELD_WHOLE)


def column_of(record: Record, column: str) -> ColumnValue:
    """What `record` holds in `column`, as a row does, or None."""
    if isinstance(record, Row):
        return _of_row(record, column)
    return _of_entry(record, column) if isinstance(record, CacheEntry) else None


def _of_row(row: Row, column: str) -> ColumnValue:
    if column not in _OWN:
        return row.columns.get(column)
    value: ColumnValue = getattr(row, column)
    return None if column == "last_accessed" and value == 0.0 else value


def _of_entry(entry: CacheEntry, column: str) -> ColumnValue:
    if column == "last_accessed":
        return entry._usage.last_accessed or None
    return getattr(entry, column) if column in _OWN else schema_of(type(entry)).column_of(entry, column)
