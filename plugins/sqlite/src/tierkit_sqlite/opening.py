"""How a database is opened: for writing, and for reading without leaving a trace."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Final
from urllib.parse import quote

from tierkit import TierContext, TierFull, TierReadOnly, TierUnavailable
from tierkit_sqlite import failures, files, salvage, schema
from tierkit_sqlite.handles import EMPTY_LOG, TEMP_STORE, Gate, Opened
from tierkit_sqlite.library import sqlite3
from tierkit_sqlite.statements import Table

logger = logging.getLogger("tierkit.sqlite")

CHECKPOINT_PAGES: Final = 2000
"""Pages in the log before they go into the database: 8 MB. With SQLite's 1000 a put costs a quarter more."""
_SYNCHRONOUS: Final = {"full": "FULL", "process": "NORMAL", "none": "OFF"}
_STEP_SECONDS: Final = 0.001
_MAKING_SECONDS: Final = 0.2
"""How long a file may stay empty that another process is making."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every connection of a tier is opened with.

    Attributes:
        context: The tier's.
        path: The database file, absolute.
        busy_timeout_seconds: How long to wait for another writer.
        cache_size_mb: The most memory for pages, in MiB.
        gated: Whether writes go through a lock file, because SQLite has the WAL fault.
        indexes: The columns of each index beside those that are always there.
    """

    context: TierContext
    path: str
    busy_timeout_seconds: float
    cache_size_mb: float
    gated: bool
    indexes: schema.Indexes = ()

    def make_lock_file(self) -> files.LockFile:
        """A lock between processes, beside the database."""
        return files.LockFile(self.path + ".lock", self.busy_timeout_seconds)

    def open(self, gate: Gate) -> Opened:
        """Open the database as the context asks.

        Storage that cannot be written, because it is full or for another reason, is opened for reading, so that what it
        holds is still served; each write is then refused, and the next call tries again.
        """
        if self.context.read_only:
            return open_for_reading(self)
        was_empty = self.stays_empty()
        files.prepare(self.path)
        try:
            with gate:
                opened = open_for_writing(self)
        except (sqlite3.Error, OSError) as error:
            readable = self._readable(error)
            if readable is None:
                raise
            return readable
        if was_empty:
            logger.warning(
                "%s: %s was empty where a database was expected; it begins anew", self.context.name, self.path
            )
        return opened

    def rebuild(self, opened: Opened) -> bool:
        """Make the tables anew of what can be read; whoever calls holds the gate. Answers whether that was done."""
        try:
            aside = files.name_aside(self.path, self.context.now())
            count = salvage.rebuild(opened.connection, opened.table, self.path, aside)
        except (sqlite3.Error, UnicodeDecodeError, TierUnavailable, OSError) as error:
            logger.warning("%s: %s is damaged and could not be repaired: %s", self.context.name, self.path, str(error))
            return False
        logger.warning(
            "%s: %s is damaged; %d records that can be read were put into new tables, and the database as it was is %s",
            self.context.name,
            self.path,
            count,
            aside,
        )
        return True

    def stays_empty(self) -> bool:
        """Whether the file is there and empty, and not because another process is just making it."""
        give_up = monotonic() + _MAKING_SECONDS
        while files.is_empty(self.path):
            if monotonic() >= give_up:
                return True
            sleep(_STEP_SECONDS)
        return False

    def _readable(self, error: Exception) -> Opened | None:
        """What can be read all the same, if `error` says that nothing can be written."""
        if not self._can_only_be_read(error):
            return None
        opened = open_for_reading(self)
        if opened.passing and self._may_be_full(error):  # nothing is held yet: no reason to hide that it failed
            opened.connection.close()
            return None
        return opened

    def _can_only_be_read(self, error: Exception) -> bool:
        """Whether the file is there, and can only be read: whether it can shows when it is opened so."""
        if not os.path.isfile(self.path):
            return False
        if failures.is_unopened(error):
            return not os.access(os.path.dirname(self.path), os.W_OK)
        return self._may_be_full(error) or isinstance(failures.translated(error, self.path), TierReadOnly)

    def _may_be_full(self, error: Exception) -> bool:
        return failures.is_io_error(error) or isinstance(failures.translated(error, self.path), TierFull)


def open_for_writing(settings: Settings) -> Opened:
    """Open the database; make what it lacks. A damaged one is moved aside, and another made."""
    try:
        return _opened_for_writing(settings)
    except failures.DAMAGE as error:
        if not _tells_damage(error):
            raise
    _make_anew(settings)
    files.prepare(settings.path)
    return _opened_for_writing(settings)


def _make_anew(settings: Settings) -> None:
    """Under a lock, and only if it is damaged still: another process may have put a new one there.

    What can be read is in the new database before that takes the place of the damaged one: whoever is killed, or has no
    room, leaves this as it was.
    """
    lock_file = settings.make_lock_file()
    try:
        with contextlib.nullcontext() if settings.gated else lock_file:
            if _is_damaged(settings):
                _replace(settings, settings.path + ".rescue")
    finally:
        lock_file.close()


def _replace(settings: Settings, new: str) -> None:
    name, path = settings.context.name, settings.path
    files.remove(new)
    seen = files.stamp(path)
    try:
        count = _bring_over(settings, path, new)
        aside = files.put_in_place(new, path, settings.context.now())
    except (sqlite3.Error, OSError) as error:
        logger.warning("%s: %s is damaged and could not be repaired: %s", name, path, str(error))
        files.remove(new)
        raise
    logger.warning("%s: %s is damaged; moved to %s, starting anew", name, path, aside)
    if files.stamp(aside) != seen:  # others wrote meanwhile
        count = max(count, _bring_over(settings, aside, path))
    if count:
        logger.warning("%s: %d records of %s could be read and are kept", name, count, aside)


def _bring_over(settings: Settings, source: str, target: str) -> int:
    """Put what can be read of `source` into the database at `target`, which is made. Answers how many records."""
    files.prepare(target)
    with contextlib.closing(_opened_for_writing(dataclasses.replace(settings, path=target)).connection) as connection:
        table = _table(connection, settings)
        cursor = connection.cursor()
        cursor.execute("BEGIN IMMEDIATE")
        try:
            count = salvage.bring_over(source, cursor, table)
            cursor.execute("COMMIT")
        except (sqlite3.Error, UnicodeDecodeError, TierUnavailable) as error:
            if connection.in_transaction:
                cursor.execute("ROLLBACK")
            if failures.is_full(error):
                raise
            logger.info("%s: nothing of %s can be read: %s", settings.context.name, source, str(error))
            count = 0
        connection.execute(EMPTY_LOG).fetchall()
    return count


def open_for_reading(settings: Settings) -> Opened:
    """Open what is there. Creates nothing: where nobody writes the file is read as it stands, without locks.

    SQLite in WAL mode makes two files to read a database that is closed. It does not if told that the file cannot
    change; the stamp shows afterwards whether that was so.
    """
    files.check(settings.path)
    if not os.path.exists(settings.path):
        with _closed_on_error(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
            schema.stand_in(connection, settings.context)
            return Opened(connection, _table(connection, settings), passing=True)
    file = files.identity(settings.path)
    stamp = files.settled_stamp(settings.path)
    mode = "mode=ro" if stamp is None else "mode=ro&immutable=1"
    with _closed_on_error(_connect(settings, mode)) as connection:
        _tune(connection, settings)
        schema.check_format(connection, settings.path)
        passing = schema.stand_in(connection, settings.context)
        tracked = file if stamp is None and not passing else None
        return Opened(connection, _table(connection, settings), file=tracked, stamp=stamp, passing=passing)


def connect_for_reading(settings: Settings) -> tuple[sqlite3.Connection, tuple[int, ...] | None]:
    """A connection to the file as it is, and its stamp if it is read without locks: that tells if it has changed.

    Raises:
        TierUnavailable: The file is not safe to open.
    """
    files.check(settings.path)
    stamp = files.settled_stamp(settings.path)
    with _closed_on_error(_connect(settings, "mode=ro" if stamp is None else "mode=ro&immutable=1")) as connection:
        _tune(connection, settings)
        return connection, stamp


def _opened_for_writing(settings: Settings) -> Opened:
    file = files.identity(settings.path)  # first: whoever replaces it now is found out by the next call
    with _closed_on_error(_connect(settings, "mode=rw")) as connection:
        _tune(connection, settings)
        schema.check_format(connection, settings.path)
        pages = 0 if settings.gated else CHECKPOINT_PAGES
        connection.execute(f"PRAGMA wal_autocheckpoint = {pages}").fetchall()
        _set_wal(connection, settings)
        connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS[settings.context.durability]}")
        schema.ensure(connection, settings.context, settings.indexes)
        return Opened(connection, _table(connection, settings), file=file)


def _connect(settings: Settings, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file://{quote(os.fsencode(settings.path))}?{mode}",
        uri=True,
        timeout=settings.busy_timeout_seconds,
        isolation_level=None,
        check_same_thread=False,
    )


def _tune(connection: sqlite3.Connection, settings: Settings) -> None:
    connection.execute(f"PRAGMA cache_size = {-int(settings.cache_size_mb * 1024)}")
    connection.execute(TEMP_STORE)


@contextlib.contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield connection
    except BaseException:
        connection.close()
        raise


def _table(connection: sqlite3.Connection, settings: Settings) -> Table:
    namespace = settings.context.namespace
    return Table(namespace, schema.columns_of(connection, namespace))


def _set_wal(connection: sqlite3.Connection, settings: Settings) -> None:
    """Switch to WAL mode. SQLite does not wait here for others that do the same: it must be asked again."""
    give_up = monotonic() + settings.busy_timeout_seconds
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if not failures.is_busy(error) or monotonic() >= give_up:
                raise
            sleep(_STEP_SECONDS)
            continue
        if mode != "wal":
            raise TierUnavailable(f"{settings.path}: the file system does not allow SQLite's WAL mode")
        return


def _is_damaged(settings: Settings) -> bool:
    try:
        _opened_for_writing(settings).connection.close()
    except failures.DAMAGE as error:
        return _tells_damage(error)
    return False


def _tells_damage(error: Exception) -> bool:
    return failures.is_damage(error) or failures.is_misfit(error)
