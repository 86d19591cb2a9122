"""Looking at a database as it lies there, whether anybody has it open or could. Changes nothing, and makes nothing.

It is read over a connection for reading, within one transaction; where nobody has it open without locks, and then once
more if it has changed meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from tierkit import Finding, TierContext, TierTimeout, TierUnavailable, storage_checks
from tierkit import files as system
from tierkit_sqlite import failures, files, library, schema, work
from tierkit_sqlite import findings as kinds
from tierkit_sqlite.library import sqlite3
from tierkit_sqlite.opening import Settings, connect_for_reading
from tierkit_sqlite.repairing import Repairs
from tierkit_sqlite.statements import Table

if TYPE_CHECKING:
    from tierkit_sqlite import SQLiteOptions

LONGEST_LOG_BYTES: Final = 128 * 1024 * 1024
"""A log is brought into the database at 8 MB, and a large transaction makes it longer."""
_MOST_MESSAGES: Final = 20
_TRIES: Final = 8
_ASIDE: Final = re.compile(r"\.corrupt-\d{8}T\d{6}Z(\.\d+)?(-wal|-shm|-journal)?")


def examine(context: TierContext, options: SQLiteOptions) -> Iterator[Finding]:
    """What is wrong with the database that `options` name; nothing if it is not there."""
    path = os.path.abspath(options.path)
    if not os.path.isdir(os.path.dirname(path)):
        return
    settings = Settings(
        context=context,
        path=path,
        busy_timeout_seconds=options.busy_timeout_seconds,
        cache_size_mb=options.cache_size_mb,
        gated=library.has_wal_fault(),
        indexes=schema.check_indexes(context, options.indexes),
    )
    yield from _Database(settings).findings()


class _Database:
    """A database that lies there."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.path
        self._repairs = Repairs(settings)

    def findings(self) -> Iterator[Finding]:
        yield from self._around()
        status = system.stat(self._path)
        if status is None:
            yield from self._without_database()
        elif os.path.isfile(self._path) and not os.path.islink(self._path):
            yield from storage_checks.check_room(os.path.dirname(self._path), status.st_size)
            yield from self._file()

    # -- the folder ---------------------------------------------------------------------------------------------------

    def _around(self) -> Iterator[Finding]:
        folder, name = os.path.split(self._path)
        yield from storage_checks.check_folder(folder, own=False)
        ours = sorted(found for found in system.listdir(folder) if found.startswith(name))
        known = {name + suffix for suffix in ("", "-wal", "-shm", ".lock")}
        aside = [found for found in ours if _ASIDE.fullmatch(found[len(name) :])]
        paths = [os.path.join(folder, found) for found in [*filter(known.__contains__, ours), *aside]]
        yield from storage_checks.check_files(paths)
        yield from storage_checks.check_writable(folder, [self._path, self._path + "-wal"])
        yield from (storage_checks.SET_ASIDE.at(os.path.join(folder, found)) for found in aside)
        if name + ".rescue" in ours and not self._repairs.is_locked():
            yield kinds.LEFT_OVER.at(self._path + ".rescue", repair=self._repairs.remove_rescue)

    def _without_database(self) -> Iterator[Finding]:
        for suffix in ("-wal", "-journal"):
            path = self._path + suffix
            if files.size(path):
                yield kinds.LOST_DATABASE.at(path, f"{files.size(path)} bytes", self._repairs.moving_aside(suffix))

    # -- the file -----------------------------------------------------------------------------------------------------

    def _file(self) -> Iterator[Finding]:
        if library.has_wal_fault():
            yield kinds.WAL_FAULT.at(f"SQLite {'.'.join(map(str, library.VERSION))}")
        if self._settings.stays_empty():
            if not files.size(self._path + "-wal"):
                yield kinds.EMPTY.at(self._path, repair=self._repairs.reopen)
            return
        if files.size(self._path + "-wal") > LONGEST_LOG_BYTES:
            size = f"{files.size(self._path + '-wal') // 2**20} MiB"
            yield kinds.LOG_GROWN.at(self._path + "-wal", size, self._repairs.empty_log)
        yield from self._content()

    def _content(self) -> Iterator[Finding]:
        """What is found inside, of one state of the database.

        Raises:
            TierTimeout: It changes all the time.
        """
        try:
            yield from self._unchanged()
        except failures.DAMAGE as error:
            if not (failures.is_damage(error) or failures.is_misfit(error)):
                raise failures.translated(error, self._path) from None
            yield kinds.NOT_A_DATABASE.at(self._path, _said(error), self._repairs.reopen)

    def _unchanged(self) -> list[Finding]:
        for _ in range(_TRIES):
            connection, stamp = connect_for_reading(self._settings)
            with contextlib.closing(connection):
                found = list(self._tables(connection))
            if stamp is None or files.stamp(self._path) == stamp:
                return found
        raise TierTimeout(f"{self._path} keeps changing while it is read")

    def _tables(self, connection: sqlite3.Connection) -> Iterator[Finding]:
        refused = self._refused(connection)
        if refused is not None:
            yield refused
            return
        connection.execute("BEGIN")
        namespace = self._settings.context.namespace
        try:
            held = schema.columns_of(connection, namespace)
        except TierUnavailable as error:
            yield kinds.LAYOUT.at(self._path, str(error))
            return
        if not held:
            return
        yield from self._lacking(connection, held)
        yield from self._integrity(connection, Table(namespace, held))

    def _refused(self, connection: sqlite3.Connection) -> Finding | None:
        try:
            schema.check_format(connection, self._path)
        except TierUnavailable as error:
            kind = kinds.NEWER_FORMAT if schema.is_ours(connection) else kinds.FOREIGN
            return kind.at(self._path, str(error).removeprefix(f"{self._path} "))
        return None

    def _lacking(self, connection: sqlite3.Connection, held: Mapping[str, str]) -> Iterator[Finding]:
        context = self._settings.context
        if not schema.has_marks(connection, context.namespace):
            yield kinds.MARKS_MISSING.at(self._path, repair=self._repairs.make_marks)
            return
        for name in schema.lacking_indexes(connection, context, held, self._settings.indexes):
            yield kinds.INDEX_MISSING.at(f"{self._path} {name}", repair=self._repairs.reopen)

    def _integrity(self, connection: sqlite3.Connection, table: Table) -> Iterator[Finding]:
        try:
            said = [text for (text,) in connection.execute(f"PRAGMA integrity_check({_MOST_MESSAGES})")]
            rows = list(self._rows(connection, table))
        except failures.DAMAGE as error:
            if not (failures.is_damage(error) or failures.is_not_text(error)):
                raise
            said, rows = [_said(error)], []
        except failures.Disorder as error:
            said, rows = [str(error)], []
        wrong = [text for text in said if text != "ok" and not _is_of_values(text)]
        pages = [text for text in wrong if "index" not in text]
        if pages:
            yield kinds.PAGE_DAMAGED.at(self._path, pages[0], self._repairs.rebuild)
        elif wrong:
            yield kinds.INDEX_DAMAGED.at(self._path, wrong[0], self._repairs.reindex)
        yield from rows

    def _rows(self, connection: sqlite3.Connection, table: Table) -> Iterator[Finding]:
        """Rows that a scan leaves out; others are judged by their checks."""
        cursor = connection.cursor()
        after, last = work.bounds(cursor, table)
        while after < last:
            for rowid in work.undecodable(cursor, table, after, last):
                yield kinds.ROW_DAMAGED.at(f"{self._path} row {rowid}", repair=self._repairs.remove_rows)
            _, after = work.key_page(cursor, table, after, last)


def _said(error: BaseException) -> str:
    """What SQLite says; the Python module's own errors may quote what is stored."""
    return "not text" if isinstance(error, UnicodeDecodeError) else str(error)


def _is_of_values(text: str) -> bool:
    """Whether it is a single value that has a type it was not written with: such rows are told one by one."""
    return " value in " in text
