# ruff: noqa: S608 - names are quoted, values are bound
"""The statements over one table, and the way between rows and tuples.

Each statement is one constant string per table, so that the connection's cache of prepared statements finds it. Inserts
name no columns and reads ask for all: a table that another process has given a new column is noticed at no cost, the
first by SQLite, the second by the length of the tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from sys import intern
from typing import Any, Final

from tierkit import ColumnType, Row
from tierkit_sqlite.schema import COLDNESS, FIXED, marks_name, quote
from tierkit_sqlite.undeclared import decode, encode

MANY: Final = 100
"""Rows that are read by their keys at once."""
PAGE: Final = 100
"""Rows that a scan reads at once."""
BATCH: Final = 512
"""Rows that a clearing removes in one transaction."""
STEP: Final = 32
"""Rows, or marks, that a purge removes by one statement, which keeps other writers waiting."""
_MOST_USES: Final = 2**62
_LATEST_USE: Final = 253402300799.0
"""The last second of the year 9999."""


class Table:
    """The statements over the table of one namespace, as its columns are now.

    Attributes:
        namespace: The table's name.
        names: The columns after the fixed ones, in the table's order.
        types: The declared type of each column.
        spoken: Those of the columns that queries can speak of, once one has looked.
        written: Statements of queries, by the shape of these.
        width: How many columns the table has.
    """

    def __init__(self, namespace: str, columns: Mapping[str, str]) -> None:
        """Write the statements.

        Args:
            namespace: The table's name.
            columns: Declared types by name, in the table's order, the fixed ones first.
        """
        self.namespace = namespace
        # Interned, as the names of an entry's fields are: those are found by identity, not letter by letter.
        self.names = tuple(map(intern, columns))[len(FIXED) :]
        self.types = columns
        self.spoken: Mapping[str, ColumnType] = {}
        self.written: dict[Any, Any] = {}
        self.width = len(columns)
        self._known = frozenset(self.names)
        self._pick = _picker(self.names)
        table, marks = quote(namespace), quote(marks_name(namespace))
        self._write_puts(table, marks)
        self._write_removals(table, marks)
        self._write_scans(table)
        self.due = _due(table, columns)
        self.reindex = f"REINDEX {table}"

    def _write_puts(self, table: str, marks: str) -> None:
        slots = ", ".join(f"?{n}" for n in range(1, self.width + 1))
        merged = {
            "access_count": _larger(table, "access_count", "integer", _MOST_USES),
            "last_accessed": _larger(table, "last_accessed", "real", _LATEST_USE),
        }
        changes = ", ".join(
            f"{quote(name)} = {merged.get(name) or f'excluded.{quote(name)}'}"
            for name in (*list(FIXED)[1:], *self.names)
        )
        upsert = f" ON CONFLICT(key) DO UPDATE SET {changes}"
        newer = f" WHERE excluded.version > {table}.version"
        unmarked = f"NOT EXISTS (SELECT 1 FROM {marks} WHERE key = ?1 AND mark > ?2)"
        self.get = f"SELECT * FROM {table} WHERE key = ?1"
        self.get_many = f"SELECT * FROM {table} WHERE key IN ({', '.join('?' * MANY)})"
        self.put = f"INSERT INTO {table} SELECT {slots} WHERE {unmarked}{upsert}{newer}"
        self.put_unless_older = f"INSERT INTO {table} VALUES ({slots}){upsert}{newer}"
        self.add = f"INSERT INTO {table} SELECT {slots} WHERE {unmarked} ON CONFLICT(key) DO NOTHING"
        self.add_unless_held = f"INSERT INTO {table} VALUES ({slots}) ON CONFLICT(key) DO NOTHING"
        expected = f"EXISTS (SELECT 1 FROM {table} WHERE key = ?1 AND version = ?{self.width + 1})"
        self.replace = f"INSERT INTO {table} SELECT {slots} WHERE {expected}{upsert}{newer}"
        self.put_always = f"INSERT INTO {table} VALUES ({slots}){upsert}"
        self.touch = (
            f"UPDATE {table} SET access_count = min(access_count + ?2, {_MOST_USES}),"
            " last_accessed = max(last_accessed, ?3) WHERE key = ?1"
        )

    def _write_removals(self, table: str, marks: str) -> None:
        newer = f"SELECT 1 FROM {table} WHERE key = ?1 AND version >= ?2"
        remark = " ON CONFLICT(key) DO UPDATE SET mark = max(mark, excluded.mark), marked_at = excluded.marked_at"
        self.mark = f"SELECT mark FROM {marks} WHERE key = ?1"
        self.mark_deleted = (
            f"INSERT INTO {marks} SELECT ?1, ?2, ?3 WHERE NOT EXISTS ({newer}){remark} WHERE excluded.mark >= mark"
        )
        self.mark_always = f"INSERT INTO {marks} VALUES (?1, ?2, ?3){remark}"
        self.remove = f"DELETE FROM {table} WHERE key = ?1"
        self.remove_version = f"DELETE FROM {table} WHERE key = ?1 AND version = ?2"
        listed = "rowid IN (SELECT value FROM json_each(?1))"
        sound = "typeof(version) = 'integer'"
        select = f"INSERT INTO {marks} SELECT key, version"
        due = f"{listed} AND purge_at <= ?2"
        self.mark_due = f"{select}, ?3 FROM {table} WHERE {due} AND {sound}{remark}"
        self.mark_deleted_rows = f"{select} + 1, ?2 FROM {table} WHERE {listed} AND {sound}{remark}"
        marked = f"EXISTS (SELECT 1 FROM {marks} WHERE key = {table}.key AND mark >= {table}.version)"
        # Each is a transaction of its own, with no step of the interpreter in it, for which others would wait too.
        self.remove_due = f"DELETE FROM {table} WHERE {due} AND ({marked} OR NOT {sound})"
        self.remove_rows = f"DELETE FROM {table} WHERE {listed}"
        old = f"SELECT key FROM {marks} WHERE marked_at <= ?1 LIMIT"
        self.old_marks = f"{old} 1"
        self.forget = f"DELETE FROM {marks} WHERE key IN ({old} {STEP})"
        self.highest_mark = f"SELECT max(mark) FROM {marks} WHERE typeof(mark) = 'integer'"

    def _write_scans(self, table: str) -> None:
        page = f"FROM {table} WHERE rowid > ?1 AND rowid <= ?2 ORDER BY rowid LIMIT {PAGE}"
        self.page = f"SELECT *, rowid {page}"
        self.key_page = f"SELECT key, rowid {page}"
        self.usage_page = f"SELECT key, version, access_count, last_accessed, rowid {page}"
        self.rows_at = f"SELECT rowid, * FROM {table} WHERE rowid IN (SELECT value FROM json_each(?1))"
        self.last_rowid = f"SELECT max(rowid) FROM {table}"
        self.rowids = f"SELECT rowid FROM {table} WHERE rowid <= ?1 LIMIT ?2"
        self.count = f"SELECT count(*) FROM {table}"
        self.coldest = f"SELECT * FROM {table} ORDER BY {COLDNESS}, version LIMIT ?1"
        self.oldest = f"SELECT * FROM {table} ORDER BY version LIMIT ?1"
        # A version that rotted into text would sort above every other.
        self.highest = f"SELECT max(version) FROM {table} WHERE typeof(version) = 'integer'"

    def values(self, row: Row) -> tuple[Any, ...]:
        """What the put statements take."""
        columns = row.columns
        undeclared = None
        try:
            values = self._pick(columns)
        except KeyError:  # None equals absent
            values = tuple(map(columns.get, self.names))
            undeclared = self._undeclared(columns)
        else:
            if len(columns) > len(values):
                undeclared = self._undeclared(columns)
        return (
            row.key,
            row.version,
            row.purge_at,
            row.check,
            row.access_count,
            row.last_accessed,
            undeclared,
            *values,
        )

    def row(self, found: Sequence[Any]) -> Row | None:
        """The row whose columns `found` begins with, or None if they cannot be what was written."""
        key, version, purge_at, check, count, last_accessed, undeclared, *values = found
        if not (
            type(version) is int
            and type(purge_at) is float
            and type(last_accessed) is float
            and type(count) is int
            and type(check) is str
            and type(key) is str
        ):
            return None
        # Callers looked at the width; a rowid may follow. Being strict costs a fifth.
        columns = dict(zip(self.names, values))  # noqa: B905 - as said
        if undeclared is not None:
            more = decode(undeclared)
            if more is None:
                return None
            columns.update(more)
        if not (0 <= count <= _MOST_USES and 0.0 <= last_accessed <= _LATEST_USE):
            count, last_accessed = _usage(count, last_accessed)
        return Row(key, version, purge_at, check, columns, count, last_accessed)

    def _undeclared(self, columns: Mapping[str, Any]) -> str | None:
        return encode({name: value for name, value in columns.items() if name not in self._known})


def _picker(names: Sequence[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """Picks the values of `names`; raises `KeyError` if one is absent. An `itemgetter` of one name makes no tuple."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda columns: tuple(columns[name] for name in names)


def _usage(count: int, last_accessed: float) -> tuple[int, float]:
    """Usage as it may be; what rotted counts for nothing."""
    return (
        count if 0 <= count <= _MOST_USES else 0,
        last_accessed if 0.0 <= last_accessed <= _LATEST_USE else 0.0,
    )


def _larger(table: str, name: str, kind: str, most: float) -> str:
    """The larger of the usage held and that put; what rotted counts for nothing: it would spoil the new row."""
    held, put = f"{table}.{name}", f"excluded.{name}"
    return f"CASE WHEN {held} BETWEEN {put} AND {most!r} AND typeof({held}) = '{kind}' THEN {held} ELSE {put} END"


def _due(table: str, columns: Mapping[str, str]) -> str:
    """The query for what may be purged; each half goes by an index."""
    select = f"SELECT rowid FROM {table} WHERE"
    if columns.get("expires_at") != "REAL":
        return f"{select} purge_at <= ?1 LIMIT ?2"
    return (
        f"{select} expires_at <= ?1 AND purge_at IS expires_at"
        f" UNION ALL {select} purge_at <= ?1 AND purge_at IS NOT expires_at LIMIT ?2"
    )
