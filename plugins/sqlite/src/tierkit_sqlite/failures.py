"""Foreign errors, mapped to those of tierkit in one place. No message holds a stored value."""

from __future__ import annotations

import errno
from typing import Final

from tierkit import CacheStorageError, CacheValidationError, TierFull, TierReadOnly, TierTimeout, TierUnavailable
from tierkit_sqlite.library import sqlite3

# Result codes of sqlite.org/rescode.html; not every build of the Python module names them.
_ERROR, _PERM, _BUSY, _LOCKED, _READONLY, _IOERR, _CORRUPT, _FULL = 1, 3, 5, 6, 8, 10, 11, 13
_CANTOPEN, _TOOBIG, _CONSTRAINT, _AUTH, _NOTADB = 14, 18, 19, 23, 26


class SystemRefused(TierUnavailable):
    """An input or output error: SQLite does not say whether of reading or of writing."""


_BY_CODE: Final[dict[int, type[CacheStorageError]]] = {
    _IOERR: SystemRefused,
    _BUSY: TierTimeout,
    _LOCKED: TierTimeout,
    _FULL: TierFull,
    _PERM: TierReadOnly,
    _READONLY: TierReadOnly,
    _AUTH: TierReadOnly,
}
_BY_ERRNO: Final[dict[int, type[CacheStorageError]]] = {
    errno.ENOSPC: TierFull,
    errno.EDQUOT: TierFull,
    errno.EFBIG: TierFull,
    errno.EACCES: TierReadOnly,
    errno.EPERM: TierReadOnly,
    errno.EROFS: TierReadOnly,
}
_ADVICE: Final[dict[type[CacheStorageError], str]] = {
    TierTimeout: "another writer holds the database; wait longer with busy_timeout_seconds",
    TierFull: "there is no room left",
    TierReadOnly: "it cannot be written",
    TierUnavailable: "the database cannot be used",
    SystemRefused: "the system refused",
}
DAMAGE: Final = (sqlite3.DatabaseError, UnicodeDecodeError)
"""What SQLite raises where a file is damaged. The latter is the Python module's, over a message that quotes damage."""
_VALUE_ERRORS: Final = (
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.IntegrityError,
    OverflowError,
    UnicodeEncodeError,
)


class Disorder(Exception):
    """Rows came in another order than asked for: a page says otherwise than the one above it."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("rows are out of order")


class StaleLayout(Exception):
    """The table has other columns than when its statements were made."""


def code_of(error: BaseException) -> int | None:
    """The primary result code of an SQLite error, or None."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file is not a database, or a broken one."""
    return code_of(error) in {_CORRUPT, _NOTADB} or isinstance(error, UnicodeDecodeError | Disorder)


def is_misfit(error: BaseException) -> bool:
    """Whether the schema contradicts itself: a name in it has rotted."""
    return code_of(error) == _ERROR and ("already exists" in str(error) or "no such " in str(error))


def is_unopened(error: BaseException) -> bool:
    """Whether SQLite could not open the file or what belongs beside it."""
    return code_of(error) == _CANTOPEN


def is_io_error(error: BaseException) -> bool:
    """Whether the system refused. A full disk has no room for what connections share, and SQLite says no more."""
    return code_of(error) == _IOERR


def is_full(error: BaseException) -> bool:
    """Whether there was no room for what was written."""
    return code_of(error) == _FULL


def is_refusal(error: BaseException) -> bool:
    """Whether a file could not be opened, read or written."""
    return code_of(error) in {_CANTOPEN, _IOERR, _FULL}


def is_busy(error: BaseException) -> bool:
    """Whether another connection is in the way."""
    return code_of(error) in {_BUSY, _LOCKED}


def is_not_text(error: BaseException) -> bool:
    """Whether a stored text is not UTF-8, which the Python module reports without a code."""
    return isinstance(error, sqlite3.OperationalError) and str(error).startswith("Could not decode to UTF-8")


def is_stale(error: BaseException) -> bool:
    """Whether a statement met a table with another number of columns than when it was written."""
    if isinstance(error, StaleLayout):
        return True
    return isinstance(error, sqlite3.OperationalError) and str(error).endswith("values were supplied")


def translated(error: Exception, where: str) -> Exception:
    """The tierkit error that says what `error` says.

    Args:
        error: What was caught. One that is not a storage's is handed back as it is.
        where: The level and its file, for the message.
    """
    if isinstance(error, _VALUE_ERRORS) or code_of(error) in {_TOOBIG, _CONSTRAINT}:
        return CacheValidationError(f"{where}: a record cannot be stored: {type(error).__name__}")
    if isinstance(error, CacheStorageError):
        return error
    if isinstance(error, sqlite3.Error | UnicodeDecodeError | Disorder):
        kind = _BY_CODE.get(code_of(error) or 0, TierUnavailable)
    elif isinstance(error, OSError):
        kind = _BY_ERRNO.get(error.errno or 0, TierUnavailable)
    else:
        return error
    return kind(f"{where}: {_ADVICE[kind]} ({getattr(error, 'strerror', None) or error})")
