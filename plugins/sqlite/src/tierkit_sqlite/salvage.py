# ruff: noqa: S608 - names are quoted, values are bound
"""Bringing over what can still be read of a damaged database.

SQLite stops at the first page that makes no sense. Here reading goes on behind it, by rowid. What a row says is not
judged: its check tells, when it is read.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterator
from typing import Any, Final
from urllib.parse import quote as quoted

from tierkit import Row
from tierkit import files as system
from tierkit_sqlite import failures, schema, work
from tierkit_sqlite.library import sqlite3
from tierkit_sqlite.schema import marks_name, quote
from tierkit_sqlite.statements import Table

_LAST_ROWID: Final = 2**63 - 1


class _Unreadable(Exception):
    """Here SQLite finds a page that makes no sense."""


def bring_over(source: str, cursor: sqlite3.Cursor, table: Table) -> int:
    """Put the rows and marks of the file `source` that can be read. For use in a transaction; answers how many rows.

    Raises:
        sqlite3.Error: The file cannot be opened, or the one that is written to fails.
        TierUnavailable: Its table has another layout than any version wrote.
    """
    with contextlib.closing(_opened(source)) as damaged:
        columns = schema.columns_of(damaged, table.namespace)
        if not columns:
            return 0
        with contextlib.closing(_marks(damaged, marks_name(table.namespace))) as marks:
            cursor.executemany(table.mark_always, marks)
        with contextlib.closing(_rows(damaged, Table(table.namespace, columns))) as rows:
            cursor.executemany(table.put, map(table.values, rows))
        return cursor.rowcount


def rebuild(connection: sqlite3.Connection, table: Table, path: str, aside: str) -> int:
    """Make the table of rows and that of marks anew, of what can be read; how many rows that is.

    All in one transaction, so that other processes may go on meanwhile. The database as it was is kept as `aside`. The
    pages of the old tables are left to `VACUUM`: to free them SQLite would have to read them.

    Raises:
        sqlite3.Error, OSError: The database is as it was, and nothing is kept aside.
    """
    cursor = connection.cursor()
    system.close(system.create(aside))
    try:
        cursor.execute("BEGIN IMMEDIATE")  # first: what is written after the copy would be lost
        keep_copy(path, aside)
        _begin_anew(cursor, table.namespace)
        count = bring_over(aside, cursor, table)
        cursor.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            cursor.execute("ROLLBACK")
        system.unlink(aside)
        raise
    _vacuum(path)
    return count


def _opened(source: str) -> sqlite3.Connection:
    """A connection that reads, and takes a schema or a length that does not fit as it is."""
    mode = "mode=ro" if os.path.exists(source + "-wal") else "mode=ro&immutable=1"
    connection = sqlite3.connect(f"file://{quoted(os.fsencode(source))}?{mode}", uri=True, isolation_level=None)
    connection.execute("PRAGMA writable_schema = ON")
    connection.text_factory = work.text_or_damage
    return connection


def keep_copy(path: str, aside: str) -> None:
    """Copy the pages as they are, with what is in the log, to the file `aside`."""
    if system.stat(aside) is None:
        system.close(system.create(aside))
    with (
        contextlib.closing(sqlite3.connect(path)) as source,
        contextlib.closing(sqlite3.connect(aside)) as target,
    ):
        source.backup(target)
    system.fsync_dir(os.path.dirname(aside))


def _begin_anew(cursor: sqlite3.Cursor, namespace: str) -> None:
    """Put empty tables and indexes in place of those that are there, without reading these."""
    mine = (namespace, marks_name(namespace))
    made_by = "SELECT sql FROM sqlite_master WHERE tbl_name IN (?, ?) AND sql IS NOT NULL ORDER BY type <> 'table'"
    statements = work.fetch(cursor, made_by, mine)
    cursor.execute("PRAGMA writable_schema = ON")
    try:
        cursor.execute("DELETE FROM sqlite_master WHERE tbl_name IN (?, ?)", mine)
    finally:
        cursor.execute("PRAGMA writable_schema = RESET")  # which also has the schema read again
    for (statement,) in statements:
        cursor.execute(statement)


def _vacuum(path: str) -> None:
    """Give back the pages that belong to no table now, if SQLite can."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")


def _rows(damaged: sqlite3.Connection, table: Table) -> Generator[Row, None, None]:
    for _, *columns in _readable(damaged, quote(table.namespace)):
        row = table.row(columns)
        if row is not None:
            yield row


def _readable(damaged: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    """Rowid and columns of each row that can be read, in order."""
    # Not `rowid > ?`: SQLite would look for the row before it, whose page may be the damaged one.
    select = f"SELECT rowid, * FROM {table} NOT INDEXED WHERE rowid >= ?1 ORDER BY rowid"
    at = 0
    while at < _LAST_ROWID:
        for found in _until_damage(damaged, select, (at,)):
            if found[0] < at:  # a page that belongs elsewhere
                break
            at = found[0] + 1
            yield found
        try:
            while one := _next(damaged, select, at):  # the Python module loses a row before one that fails
                at = one[0] + 1
                yield one
        except _Unreadable:
            at = _beyond(damaged, select, at)
        else:
            return


def _until_damage(damaged: sqlite3.Connection, sql: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    with contextlib.closing(damaged.cursor()) as cursor:
        try:
            yield from map(work.blanked, cursor.execute(sql, values))
        except failures.DAMAGE as error:
            if not failures.is_damage(error):
                raise


def _next(damaged: sqlite3.Connection, select: str, at: int) -> tuple[Any, ...] | None:
    """The first row from the rowid `at`, or None if there is none.

    Raises:
        _Unreadable: The page where it would be is damaged.
    """
    try:
        found = work.fetch(damaged.cursor(), f"{select} LIMIT 1", (at,))
    except failures.DAMAGE as error:
        if failures.is_damage(error):
            raise _Unreadable from None
        raise
    if found and found[0][0] < at:
        raise _Unreadable
    return work.blanked(found[0]) if found else None


def _beyond(damaged: sqlite3.Connection, select: str, at: int) -> int:
    """The rowid from which reading goes on behind a damaged one.

    The steps grow by a 64th: exact behind one page, and soon at the end where more is damaged.
    """
    step = 1
    while at + step < _LAST_ROWID:
        try:
            _next(damaged, select, at + step)
        except _Unreadable:
            step += 1 + step // 64
        else:
            return at + step
    return _LAST_ROWID


def _marks(damaged: sqlite3.Connection, marks: str) -> Generator[tuple[Any, ...], None, None]:
    """The marks before the first damaged place, and those behind the last."""
    known = damaged.execute(f"PRAGMA table_info({quote(marks)})").fetchall()
    for order in ("ASC", "DESC") if known else ():
        for mark in _until_damage(damaged, f"SELECT key, mark, marked_at FROM {quote(marks)} ORDER BY key {order}"):
            if tuple(map(type, mark)) == (str, int, float):
                yield mark
