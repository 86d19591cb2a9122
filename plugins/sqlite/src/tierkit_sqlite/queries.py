# ruff: noqa: S608 - names are quoted, values are bound
"""Queries as SQL.

What SQL cannot say as `Query.matches` means it is left to that: conditions on columns that the table does not have, or
has with another type, and on elements of tuples that SQLite's JSON cannot tell apart. A statement then finds more than
is asked for, and is not `exact`.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from tierkit import ColumnType, ColumnValue, Condition, Contains, NoneOf, OneOf, Query, Range, Row
from tierkit_sqlite import failures
from tierkit_sqlite.handles import temporary_files
from tierkit_sqlite.library import sqlite3
from tierkit_sqlite.schema import FIXED, quote
from tierkit_sqlite.statements import Table
from tierkit_sqlite.work import check_width, fetch

MOST_VALUES: Final = 500
"""Of one condition that are bound: SQLite takes 999 at the least."""
_MOST_WRITTEN: Final = 256
"""Statements that are kept for a table."""
_MOST_SHAPED: Final = 8
"""Values of one condition up to which its statement is kept."""
_OWN: Final = ("key", "version", "access_count", "last_accessed")
_KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "text": (str,),
    "integer": (int, float),
    "real": (int, float),
    "blob": (bytes,),
}
_ELEMENTS: Final = {str: "text", int: "integer"}


class Clause(NamedTuple):
    """A part of a WHERE, with the values that it binds."""

    sql: str
    values: tuple[Any, ...] = ()


_NEVER: Final = Clause("0")


class Statement:
    """A query over one table.

    Attributes:
        exact: Whether the clauses are all that is asked; else what they find has to be looked at.
        ordered: Whether the table can give the order that is asked for, or none is.
        narrow: Whether a clause may leave out most of the table, so that an index may help.
        values: What the clauses bind.
        first: The statement that reads the rows themselves, up to a limit.
    """

    def __init__(self, table: Table, columns: Mapping[str, ColumnType], query: Query) -> None:
        """Write it for `table`, whose entry class declares `columns`."""
        self.types = _types(table, columns)
        clauses = [clause for one in query.conditions if (clause := self._clause(one)) is not None]
        self.exact = len(clauses) == len(query.conditions)
        self.ordered = query.order_by is None or query.order_by in self.types
        self.narrow = not all(_leaves_most(one.test) for one in query.conditions) and bool(clauses)
        self.values = tuple(value for clause in clauses for value in clause.values)
        where = f" WHERE {' AND '.join(clause.sql for clause in clauses)}" if clauses else ""
        self.source = f"FROM {quote(table.namespace)}{where}"
        self.order = _order(query) if self.ordered else ""
        self.first = f"SELECT * {self.source}{self.order} LIMIT ?"

    def _clause(self, condition: Condition) -> Clause | None:
        """What says `condition`; None if nothing does."""
        column, test = condition
        kind = self.types.get(column)
        if kind is None:
            return None
        if isinstance(test, OneOf):
            return _one_of(column, kind, test)
        if isinstance(test, NoneOf):
            return _none_of(column, kind, test)
        return _contains(column, test) if isinstance(test, Contains) else _range(column, kind, test)


def _written(
    table: Table, columns: Mapping[str, ColumnType], query: Query
) -> tuple[Statement, tuple[ColumnValue, ...]]:
    """The statement for `query` and what it binds: written once for all queries that differ in their values alone."""
    shape, given = _shape(query), _given(query)
    held = table.written.get(shape)
    if held is not None:
        return held, given
    statement = Statement(table, columns, query)
    if shape is not None and statement.values == given:  # else it goes by the values
        if len(table.written) >= _MOST_WRITTEN:
            table.written.clear()
        table.written[shape] = statement
    return statement, statement.values


def _shape(query: Query) -> tuple[Any, ...] | None:
    """What `query` is, but for its values and its limit; None where the statement goes by the values."""
    parts: list[Any] = [query.order_by, query.descending]
    for column, test in query.conditions:
        if isinstance(test, Range):
            parts.append((column, type(test.low), type(test.high), test.above, test.below, test.or_none))
        elif isinstance(test, OneOf | NoneOf) and column != "last_accessed" and len(test.values) <= _MOST_SHAPED:
            parts.append((column, type(test), *map(type, test.values)))
        else:
            return None
    return tuple(parts)


def _given(query: Query) -> tuple[ColumnValue, ...]:
    """The values in the conditions of a query that has a shape."""
    given: list[ColumnValue] = []
    for _, test in query.conditions:
        if isinstance(test, OneOf | NoneOf):
            given += test.values
        elif isinstance(test, Range):
            given += (test.low, test.high)
    return tuple([value for value in given if value is not None])


def first(cursor: sqlite3.Cursor, table: Table, columns: Mapping[str, ColumnType], query: Query) -> list[Row] | None:
    """What `query`, which has a limit, asks for; None if that takes more than one statement."""
    statement, values = _written(table, columns, query)
    if not (statement.exact and statement.ordered):
        return None
    found = fetch(cursor, statement.first, (*values, query.limit))
    check_width(found, table.width)
    rows = [row for values in found if (row := table.row(values)) is not None]
    return rows if len(rows) == len(found) else None  # others may be there in place of those that are damaged


def places(cursor: sqlite3.Cursor, table: Table, columns: Mapping[str, ColumnType], query: Query) -> array[int] | None:
    """Where the rows are that may match, in order; None if going over the table finds them as well."""
    statement = Statement(table, columns, query)
    if not statement.ordered or (query.order_by is None and not statement.narrow):
        return None
    sql = f"SELECT rowid {statement.source}{statement.order}"
    try:
        with temporary_files(cursor):
            return _rowids(cursor, sql, statement.values)
    except sqlite3.OperationalError as error:
        if not failures.is_refusal(error):
            raise
    return _rowids(cursor, sql, statement.values)  # there may be no place for such files


def _rowids(cursor: sqlite3.Cursor, sql: str, values: tuple[Any, ...]) -> array[int]:
    # One by one, eight bytes each: a list of tuples would take ten times as much.
    return array("q", (rowid for (rowid,) in cursor.execute(sql, values)))


def rows_at(cursor: sqlite3.Cursor, table: Table, rowids: Sequence[int]) -> list[Row]:
    """The rows that are there now, in the same order."""
    found = fetch(cursor, table.rows_at, (json.dumps(list(rowids)),))
    check_width(found, table.width + 1)
    rows = {rowid: table.row(values) for rowid, *values in found}
    return [row for rowid in rowids if (row := rows.get(rowid)) is not None]


def count(cursor: sqlite3.Cursor, table: Table, columns: Mapping[str, ColumnType], query: Query) -> int | None:
    """How many rows match; None if a row has to be looked at to know."""
    statement = Statement(table, columns, query)
    if not statement.exact:
        return None
    return int(fetch(cursor, f"SELECT count(*) {statement.source}", statement.values)[0][0])


def _types(table: Table, columns: Mapping[str, ColumnType]) -> Mapping[str, ColumnType]:
    """The columns that SQL can speak of: the others are in `undeclared`, or have the type of another class."""
    if not table.spoken:
        own: dict[str, ColumnType] = {name: FIXED[name] for name in _OWN}
        table.spoken = {name: kind for name, kind in columns.items() if table.types.get(name) == kind.upper()} | own
    return table.spoken


def _order(query: Query) -> str:
    if query.order_by is None:
        return ""
    way = " DESC" if query.descending else ""
    by = "" if query.order_by == "key" else f"{quote(query.order_by)}{way}, "
    return f" ORDER BY {by}key{way}"


def _leaves_most(test: OneOf | NoneOf | Range | Contains) -> bool:
    """Whether `test` holds of most of a table, as far as that can be seen."""
    return isinstance(test, NoneOf) or (isinstance(test, Range) and test.or_none)


def _values(column: str, kind: ColumnType, test: OneOf | NoneOf) -> tuple[ColumnValue, ...]:
    """Those that the column can have."""
    values = tuple([value for value in test.values if isinstance(value, _KINDS[kind])])
    return tuple(value for value in values if value != 0.0) if column == "last_accessed" else values


def _none_of(column: str, kind: ColumnType, test: NoneOf) -> Clause | None:
    name = f"+{quote(column)}"  # no index: most of the table is meant
    values = _values(column, kind, test)
    if len(values) > MOST_VALUES:
        return None
    others = f"{name} NOT IN ({', '.join('?' * len(values))})" if values else "1"
    if None in test.values:
        return Clause(f"(NOT {_is_none(column, name)} AND {others})", values)
    return Clause(f"({_is_none(column, name)} OR {others})", values)


def _one_of(column: str, kind: ColumnType, test: OneOf) -> Clause | None:
    name = quote(column)
    values = _values(column, kind, test)
    if len(values) > MOST_VALUES:
        return None
    # Two of the three states of health leave out too little for an index: SQLite would sort the table for ten records.
    several = f"+{name}" if column == "health_status" else name
    parts = [f"{several} IN ({', '.join('?' * len(values))})"] if len(values) > 1 else [f"{name} = ?"] * len(values)
    parts += [_is_none(column, name)] if None in test.values else []
    return Clause(f"({' OR '.join(parts)})", values) if parts else _NEVER


def _range(column: str, kind: ColumnType, test: Range) -> Clause:
    # With a plus no index is used: where no value counts too, most of the table is meant, as with what has not expired.
    name = f"+{quote(column)}" if test.or_none else quote(column)
    bounds = [(test.low, ">" if test.above else ">="), (test.high, "<" if test.below else "<=")]
    given = [(bound, sign) for bound, sign in bounds if bound is not None]
    parts = [f"{name} {sign} ?" for _, sign in given] or [f"{name} IS NOT NULL"]
    parts += [f"{name} > 0.0"] if column == "last_accessed" else []
    if not all(isinstance(bound, _KINDS[kind]) for bound, _ in given):
        return Clause(_is_none(column, name)) if test.or_none else _NEVER
    within = " AND ".join(parts)
    sql = f"({_is_none(column, name)} OR ({within}))" if test.or_none else f"({within})"
    return Clause(sql, tuple(bound for bound, _ in given))


def _is_none(column: str, name: str) -> str:
    return f"{name} = 0.0" if column == "last_accessed" else f"{name} IS NULL"


def _contains(column: str, test: Contains) -> Clause | None:
    kind = _ELEMENTS.get(type(test.value))
    if kind is None or (kind == "text" and "\0" in test.value) or (kind == "integer" and abs(test.value) >= 2**63):
        return None
    name = quote(column)
    there = f"EXISTS (SELECT 1 FROM json_each({name}) AS one WHERE one.type = '{kind}' AND one.value = ?)"
    # CASE is the one way to have the first looked at first: json_each fails where a text is not JSON.
    return Clause(
        f"(CASE WHEN json_valid({name}) AND json_type({name}) = 'array' THEN {there} ELSE 0 END)", (test.value,)
    )
