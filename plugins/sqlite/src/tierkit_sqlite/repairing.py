# ruff: noqa: S608 - names are quoted, values are bound
"""Repairs of what `examining` finds. Each opens the database as a writer does, which mends much by itself."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from functools import cached_property, partial

from tierkit import TierTimeout, TierUnavailable
from tierkit import files as system
from tierkit_sqlite import files, salvage, schema, work
from tierkit_sqlite.handles import EMPTY_LOG, Gate, Opened
from tierkit_sqlite.library import sqlite3
from tierkit_sqlite.opening import Settings


class Repairs:
    """The repairs of one database: each is one object, so that it is done once however often it is asked for.

    Attributes:
        reopen: Open it, as a writer.
        reindex: Make its indexes anew.
        rebuild: Make its tables anew of what can be read.
        make_marks: Make the table of marks.
        remove_rows: Remove the rows that cannot be decoded; a copy of the database is kept.
        empty_log: Bring the log into the database.
        remove_rescue: Remove what a process left that was repairing it.
    """

    def __init__(self, settings: Settings) -> None:
        """Open nothing yet."""
        self._settings = dataclasses.replace(settings, context=dataclasses.replace(settings.context, read_only=False))
        self._path = settings.path
        self.reopen = partial(self._opened, _nothing)
        self.reindex = partial(self._opened, _reindex)
        self.rebuild = partial(self._opened, self._rebuild)
        self.make_marks = partial(self._opened, self._make_marks)
        self.remove_rows = partial(self._opened, self._remove_rows)
        self.empty_log = partial(self._opened, _empty_log)
        self.remove_rescue = self._remove_rescue

    def moving_aside(self, suffix: str) -> Callable[[], None]:
        """A repair that gives what is beside the database under `suffix` another name."""
        return partial(self._move_aside, suffix)

    def is_locked(self) -> bool:
        """Whether a process holds the lock of those that repair or, with the WAL fault, write. Makes no file."""
        if system.stat(self._lock.path) is None:
            return False
        try:
            with self._lock:
                return False
        except (TierTimeout, OSError):
            return True
        finally:
            self._lock.close()

    @cached_property
    def _lock(self) -> files.LockFile:
        return files.LockFile(self._path + ".lock", 0.0)

    def _opened(self, work_on: Callable[[Opened], object]) -> None:
        with self._gate() as gate:
            opened = self._settings.open(gate)
            with gate, contextlib.closing(opened.connection):
                work_on(opened)

    @contextlib.contextmanager
    def _gate(self) -> Iterator[Gate]:
        """What writes go through."""
        if not self._settings.gated:
            yield contextlib.nullcontext()
            return
        files.prepare(self._path)
        lock = self._settings.make_lock_file()
        try:
            yield lock
        finally:
            lock.close()

    def _rebuild(self, opened: Opened) -> None:
        if not self._settings.rebuild(opened):
            raise TierUnavailable(f"{self._path} is damaged and could not be repaired: the log says why")

    def _make_marks(self, opened: Opened) -> None:
        schema.make_marks(opened.connection, self._settings.context)

    def _remove_rows(self, opened: Opened) -> None:
        salvage.keep_copy(self._path, files.name_aside(self._path, self._settings.context.now()))
        cursor = opened.connection.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        try:
            _remove_undecodable(cursor, opened)
            cursor.execute("COMMIT")
        except BaseException:
            cursor.execute("ROLLBACK")
            raise

    def _remove_rescue(self) -> None:
        if not self.is_locked():
            files.remove(self._path + ".rescue")
            system.unlink(self._path + ".rescue.lock")

    def _move_aside(self, suffix: str) -> None:
        if system.stat(self._path) is None:
            aside = files.name_aside(self._path, self._settings.context.now())
            system.replace(self._path + suffix, aside + suffix)
            system.unlink(self._path + "-shm")
            system.fsync_dir(os.path.dirname(self._path))


def _nothing(_: Opened) -> None:
    """It was opened."""


def _reindex(opened: Opened) -> None:
    opened.connection.execute(opened.table.reindex)


def _empty_log(opened: Opened) -> None:
    if opened.connection.execute(EMPTY_LOG).fetchall()[0][0]:
        raise TierTimeout("the log could not be emptied: another program is reading an older state; try again")


def _remove_undecodable(cursor: sqlite3.Cursor, opened: Opened) -> None:
    after, last = work.bounds(cursor, opened.table)
    while after < last:
        rowids = work.undecodable(cursor, opened.table, after, last)
        _, after = work.key_page(cursor, opened.table, after, last)
        for rowid in rowids:
            cursor.execute(f"DELETE FROM {schema.quote(opened.table.namespace)} WHERE rowid = ?", (rowid,))
