"""The connection of one thread, or the place for it: opened, dropped, and put right after a failure."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from tierkit import CacheStorageError
from tierkit_sqlite import files
from tierkit_sqlite.library import sqlite3
from tierkit_sqlite.statements import Table

Gate = AbstractContextManager[Any]
"""What writes must go through: the lock file, or nothing."""
CHECKPOINT: Final = "PRAGMA wal_checkpoint(PASSIVE)"
EMPTY_LOG: Final = "PRAGMA wal_checkpoint(TRUNCATE)"
TEMP_STORE: Final = "PRAGMA temp_store = MEMORY"
"""What a connection needs for a while is kept in memory: no other file comes to be."""
_CHANGES_PER_CHECKPOINT: Final = 1000


@contextlib.contextmanager
def temporary_files(cursor: sqlite3.Cursor) -> Iterator[None]:
    """Keep it in files without a name instead: all records need not fit into memory, nor what orders them.

    Only where the library was built so that it can (`TEMP_STORE` below 3); that of pysqlite3 was not.
    """
    cursor.execute("PRAGMA temp_store = FILE")
    try:
        yield
    finally:
        cursor.execute(TEMP_STORE)


class Opened:
    """What an opener gives.

    Attributes:
        connection: The connection, ready for use.
        table: The statements over the table as it is.
        file: What tells its file from one that takes its name; None for a connection to none.
        stamp: Of the file, where it is read without locks because nobody writes to it; else None.
        passing: It stands for something that is not there yet: to be used once.
        reindexed: The indexes have been made anew over this connection.
        rebuilt: So have the tables.
        emptied: The log has been brought into the database for want of room, and nothing has succeeded since.
    """

    __slots__ = ("connection", "emptied", "file", "passing", "rebuilt", "reindexed", "stamp", "table")

    def __init__(
        self,
        connection: sqlite3.Connection,
        table: Table,
        *,
        file: files.Identity | None = None,
        stamp: tuple[int, ...] | None = None,
        passing: bool = False,
    ) -> None:
        """Keep them."""
        self.connection = connection
        self.table = table
        self.file = file
        self.stamp = stamp
        self.passing = passing
        self.reindexed = False
        self.rebuilt = False
        self.emptied = False


class Handle:
    """The connection of one thread, or the place for it. Whoever uses it holds its lock."""

    __slots__ = ("busy", "checkpointed", "cursor", "gate", "lock", "lock_file", "opened", "thread")

    def __init__(self, lock_file: files.LockFile | None) -> None:
        """Open nothing yet."""
        self.thread = threading.current_thread()
        self.lock = threading.RLock()  # so that its own thread is refused, and does not wait for itself
        self.busy = False
        self.lock_file = lock_file
        self.gate: Gate = lock_file or nullcontext()
        self.opened: Opened | None = None
        self.cursor: sqlite3.Cursor | None = None
        self.checkpointed = 0

    def drop(self) -> None:
        """Close the connection, if there is one."""
        opened, self.opened, self.cursor, self.checkpointed = self.opened, None, None, 0
        if opened is not None:
            # The last connection to be closed checkpoints, so it goes through the gate if it can.
            with contextlib.suppress(CacheStorageError, OSError), self.gate:
                _close(opened.connection)
            _close(opened.connection)
        if self.lock_file is not None:
            self.lock_file.close()

    def roll_back(self) -> None:
        """End a transaction that an error left open."""
        if self.opened is not None:
            try:
                if self.opened.connection.in_transaction:
                    self.opened.connection.execute("ROLLBACK")
            except sqlite3.Error:
                self.drop()

    def settle(self) -> None:
        """After a failure: no transaction is open, and the gate is not held."""
        try:
            self.roll_back()
        finally:
            if self.lock_file is not None:
                self.lock_file.release()

    def checkpoint_by_hand(self) -> None:
        """On a library with the WAL fault, checkpoint now and then, under the lock that all writers take."""
        if self.lock_file is not None and self.opened is not None:
            changes = self.opened.connection.total_changes
            if changes - self.checkpointed >= _CHANGES_PER_CHECKPOINT:
                self.checkpointed = changes
                self.opened.connection.execute(CHECKPOINT).fetchall()


def _close(connection: sqlite3.Connection) -> None:
    with contextlib.suppress(sqlite3.Error):
        connection.close()
