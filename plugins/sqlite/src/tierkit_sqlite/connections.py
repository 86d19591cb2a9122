"""Connections: one per process and thread, each used under its own lock.

The lock is there for `close` and for `fork`. SQLite's locks are POSIX locks, which a child does not inherit, while the
library's notes of them in memory are inherited: a child that went on with an inherited connection, or only opened one
of its own beside it, would hold locks that do not exist. So every connection is closed before a fork, when nobody is
using it, and opened again by whoever needs it next, in the parent as in the child.

A file that is removed, renamed or replaced still takes writes from those who have it open, and they are lost with it.
So before each use the name is compared with the file that is open. The call that finds another file there, or none,
fails. All connections to the lost one are closed, when their calls have ended, and only then is the name opened again:
what SQLite keeps beside the database may be there still, and whoever closes it later ends all locks on it.

A signal handler or a finalizer may call a tier in the midst of another call of its thread. It is refused, since neither
can it wait for that call nor use its connection. An interrupt may come between any two steps: the locks are taken by
`with`, which leaves no room for one, and whatever else is not as it should be is put right when the call fails.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import Concatenate, Final, ParamSpec, TypeVar

from tierkit import CacheStorageError, TierReadOnly, TierTimeout, TierUnavailable
from tierkit_sqlite import failures, files
from tierkit_sqlite.handles import CHECKPOINT, EMPTY_LOG, Gate, Handle, Opened, temporary_files
from tierkit_sqlite.library import sqlite3
from tierkit_sqlite.statements import Table
from tierkit_sqlite.work import get, nothing

logger = logging.getLogger("tierkit.sqlite")

P = ParamSpec("P")
T = TypeVar("T")
Work = Callable[Concatenate[sqlite3.Cursor, Table, P], T]

_TRIES: Final = 8


class FileLost(Exception):
    """The file that is open is not the one that its name leads to."""


class Connections:
    """Runs work on the calling thread's connection, and maps what goes wrong to tierkit's errors."""

    def __init__(
        self,
        path: str,
        where: str,
        opener: Callable[[Gate], Opened],
        rebuild: Callable[[Opened], bool],
        make_lock_file: Callable[[], files.LockFile] | None,
    ) -> None:
        """Open nothing yet.

        Args:
            path: The database file.
            where: The level and its file, for messages.
            opener: Opens a connection; it is given the gate through which writes must go.
            rebuild: Makes the tables anew where a page of them is damaged; answers whether it could.
            make_lock_file: Makes a lock that every writer takes; None where SQLite's own locks are enough.
        """
        self.path = path
        self.where = where
        self._opener = opener
        self._rebuild = rebuild
        self._make_lock_file = make_lock_file
        self._closed = False
        self._beyond_repair = False
        self._file: files.Identity | None = None  # which all connections of this process are to
        self._lost = False
        self.start()
        _everyone.add(self)

    def start(self) -> None:
        """Forget all handles."""
        self.lock = threading.RLock()  # see that of `Handle`
        self.handles: list[Handle] = []
        self._local = threading.local()

    def read(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work(cursor, table, ...)` outside a transaction. It must leave no statement unfinished."""
        return self._alone(self._attempt, work, *args, **kwargs)

    def write_one(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Likewise, for a single statement that writes: SQLite makes it a transaction by itself."""
        return self._alone(self._gated, work, *args, **kwargs)

    def write(self, work: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`work(cursor, table, ...)` in a transaction, which is rolled back if it raises."""
        return self._alone(self._gated_transaction, work, *args, **kwargs)

    def checkpoint(self) -> None:
        """Bring the log into the database, in no transaction. With the WAL fault it is done along with writes."""
        if self._make_lock_file is None:
            self.read(_checkpoint)

    def compact(self) -> None:
        """Write the database anew, and bring all of the log into it, in no transaction.

        Raises:
            TierTimeout: Another connection was in the way.
        """
        self._alone(self._gated, _compact)

    def close(self) -> None:
        """Close the connections of all threads, each when its call has ended."""
        with self.lock:
            self._closed = True
            for handle in self.handles:
                with handle.lock:
                    handle.drop()
            self.handles.clear()

    def _mine(self) -> Handle:
        try:
            return self._local.handle  # type: ignore[no-any-return]  # set below
        except AttributeError:
            return self._new_handle()

    def _new_handle(self) -> Handle:
        handle = Handle(self._make_lock_file() if self._make_lock_file else None)
        with self.lock:
            for dead in [other for other in self.handles if not other.thread.is_alive()]:
                dead.drop()
                with contextlib.suppress(ValueError):  # a finalizer was here meanwhile
                    self.handles.remove(dead)
            self.handles.append(handle)
        self._local.handle = handle
        return handle

    def _alone(self, step: Callable[Concatenate[Handle, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`step(handle, ...)` with the calling thread's handle to itself."""
        try:
            return self._locked(self._mine(), step, *args, **kwargs)
        except FileLost:
            self._forget_file()
        raise TierUnavailable(
            f"{self.where}: the file was removed or replaced while it was open; the next call opens the one that is "
            "there, or begins a new one"
        )

    def _locked(
        self, handle: Handle, step: Callable[Concatenate[Handle, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with handle.lock:
            if handle.busy:
                raise TierUnavailable(f"{self.where}: used in the midst of another call of the same thread")
            handle.busy = True
            try:
                return step(handle, *args, **kwargs)
            except BaseException:
                handle.settle()
                raise
            finally:
                handle.busy = False

    def _gated_transaction(self, handle: Handle, work: Work[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._gated(handle, _in_transaction, work, *args, **kwargs)

    def _gated(self, handle: Handle, work: Work[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        if handle.lock_file is not None:
            self._attempt(handle, nothing)  # before the gate, which stands in a folder that may have to be made
        with self._gate_of(handle):
            try:
                answer = self._attempt(handle, work, *args, **kwargs)
            except failures.SystemRefused as error:
                raise self._of_writing(handle, error) from None
            handle.checkpoint_by_hand()
            return answer

    def _of_writing(self, handle: Handle, error: failures.SystemRefused) -> CacheStorageError:
        """`error`; or, where what is held can be read, as where a file may grow no more, that it is one of writing."""
        try:
            self._attempt(handle, get, "")
        except CacheStorageError:
            return error
        return TierReadOnly(f"{error}: it can be read, and not be written")

    def _attempt(self, handle: Handle, work: Work[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(_TRIES):
            try:
                opened = handle.opened
                if opened is None or (opened.file is not None and opened.file != files.identity(self.path)):
                    opened = self._reopened(handle)
                answer = work(handle.cursor, opened.table, *args, **kwargs)  # type: ignore[arg-type]  # open by now
            except Exception as error:  # noqa: BLE001 - mapped, or raised again as it is
                handle.roll_back()
                if not self._is_healed(handle, error):
                    raise self._failure(handle, error) from None
            except BaseException:
                handle.roll_back()
                raise
            else:
                opened.emptied = False
                if opened.stamp is None and not opened.passing:
                    return answer
                if self._is_believable(handle, opened):
                    return answer
        raise TierUnavailable(f"{self.where}: it keeps changing while it is read")

    def _gate_of(self, handle: Handle) -> Gate:
        self._must_be_open()  # else the lock file of a closed tier would be opened again
        return handle.gate

    def _must_be_open(self) -> None:
        if self._closed:
            raise TierUnavailable(f"{self.where}: the tier has been closed")

    def _reopened(self, handle: Handle) -> Opened:
        """A connection to the file that is there.

        Raises:
            FileLost: It is not the one that this process had open.
        """
        self._must_be_open()
        if self._file is not None and self._file != files.identity(self.path):
            raise FileLost
        handle.drop()  # another thread has moved a damaged file aside
        return self._open(handle)

    def _forget_file(self) -> None:
        """Close the connections of all threads, each when its call has ended: their file is lost."""
        with self.lock:
            for handle in self.handles:
                with handle.lock:
                    handle.drop()
            self._file, self._lost, self._beyond_repair = None, True, False

    def _open(self, handle: Handle) -> Opened:
        begins = self._lost and not os.path.lexists(self.path)
        opened = self._opener(handle.gate)
        handle.cursor = opened.connection.cursor()
        if opened.file is not None:
            self._file, self._lost = opened.file, False
            if begins:
                logger.warning("%s: a new database was begun in place of one that is gone", self.where)
        handle.opened = opened  # last: an interrupt must not leave a connection without a cursor
        return opened

    def _is_believable(self, handle: Handle, opened: Opened) -> bool:
        """Whether the file was the same all the while, where it was read without locks."""
        unchanged = self._is_unchanged(opened)
        if opened.passing or not unchanged:
            handle.drop()
        return unchanged

    def _is_unchanged(self, opened: Opened) -> bool:
        try:
            return opened.stamp is None or files.stamp(self.path) == opened.stamp
        except OSError:
            return False

    def _is_healed(self, handle: Handle, error: Exception) -> bool:
        """Whether another attempt can succeed, because what was wrong has been put right."""
        opened = handle.opened
        if opened is None:
            return False
        if failures.is_stale(error) or not self._is_unchanged(opened):
            handle.drop()
            return True
        if failures.is_full(error):
            return self._has_made_room(handle, opened)
        return failures.is_damage(error) and self._is_repaired(handle, opened)

    def _has_made_room(self, handle: Handle, opened: Opened) -> bool:
        """Bring the log into the database, so that it is written from its beginning again: once, until that helped.

        The log grows to 8 MB before SQLite does so, and nobody else gives back what it has taken of a disk by then.
        """
        if opened.stamp is not None or opened.emptied:
            return False
        opened.emptied = True
        try:
            with handle.gate:
                ((busy, pages, moved),) = opened.connection.execute(CHECKPOINT).fetchall()
        except sqlite3.Error:
            return False
        return not busy and 0 < pages == moved

    def _is_repaired(self, handle: Handle, opened: Opened) -> bool:
        """Make the indexes anew, once: a bit that flips in an indexed column leaves a row that cannot be changed.

        If that fails or does not help a page of the table is damaged, and the tables are made anew.
        """
        if opened.stamp is not None or opened.rebuilt or self._beyond_repair:
            return False
        with handle.gate:
            if not opened.reindexed:
                opened.reindexed = True
                try:
                    opened.connection.execute(opened.table.reindex)
                except (sqlite3.Error, UnicodeDecodeError) as error:
                    if not failures.is_damage(error) and not isinstance(error, sqlite3.IntegrityError):
                        return False
                else:
                    return True
            opened.rebuilt = self._rebuild(opened)
            self._beyond_repair = not opened.rebuilt
            return opened.rebuilt

    def _failure(self, handle: Handle, error: Exception) -> Exception:
        """What to raise. A connection that cannot be trusted any more is closed: the next call opens another."""
        failure = failures.translated(error, self.where)
        if isinstance(failure, TierUnavailable | TierReadOnly) and not isinstance(failure, TierTimeout):
            handle.drop()
        return failure


def _in_transaction(cursor: sqlite3.Cursor, table: Table, work: Work[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    cursor.execute("BEGIN IMMEDIATE")
    answer = work(cursor, table, *args, **kwargs)
    cursor.execute("COMMIT")
    return answer


def _checkpoint(cursor: sqlite3.Cursor, _: Table) -> None:
    cursor.execute(CHECKPOINT).fetchall()


def _compact(cursor: sqlite3.Cursor, _: Table) -> None:
    with temporary_files(cursor):
        cursor.execute("VACUUM")
    if cursor.execute(EMPTY_LOG).fetchall()[0][0]:
        raise TierTimeout("its log could not be emptied: another connection is reading an older state; try again")


_everyone: weakref.WeakSet[Connections] = weakref.WeakSet()
_held_for_fork: list[Connections] = []
_inherited: list[Handle] = []
"""Connections of a parent that forked without telling Python first: never closed, for that would end its locks."""


def _before_fork() -> None:
    for connections in list(_everyone):
        connections.lock.acquire()
        _held_for_fork.append(connections)
        for handle in connections.handles:
            handle.lock.acquire()
            handle.drop()


def _after_fork_in_parent() -> None:
    while _held_for_fork:
        connections = _held_for_fork.pop()
        for handle in connections.handles:
            handle.lock.release()
        connections.lock.release()


def _after_fork_in_child() -> None:
    _held_for_fork.clear()
    for connections in list(_everyone):
        _inherited.extend(handle for handle in connections.handles if handle.opened is not None)
        connections.start()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
