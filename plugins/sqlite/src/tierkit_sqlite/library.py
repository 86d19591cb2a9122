"""The one place where the SQLite library is chosen.

`pysqlite3` where it is installed, which carries a recent SQLite, else the standard library's `sqlite3`. sqlite-utils
chooses likewise. Two copies of SQLite must never have one file open in one process: POSIX drops all locks of a process
on a file when either closes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3
else:
    try:
        from pysqlite3 import dbapi2 as sqlite3
    except ImportError:
        import sqlite3

__all__ = ["VERSION", "has_wal_fault", "sqlite3"]

VERSION: Final[tuple[int, ...]] = tuple(sqlite3.sqlite_version_info)
"""Of the SQLite library in use."""


def has_wal_fault(version: tuple[int, ...] = VERSION) -> bool:
    """Whether this SQLite can lose a committed transaction when two connections checkpoint at once.

    Fixed in 3.51.3, and in 3.50.7 and 3.44.6. With the fault the tier puts every write and checkpoint under one lock.
    """
    return version < (3, 51, 3) and version[:3] not in {(3, 50, 7), (3, 44, 6)}
