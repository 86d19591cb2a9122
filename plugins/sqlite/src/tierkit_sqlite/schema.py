# ruff: noqa: S608 - names are quoted, values are bound
"""The tables and indexes, and what makes and migrates them. The format is described in docs/reference/formats.md.

sqlite-utils makes every change. It is imported only when something has to change: importing it costs as much as opening
a hundred databases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from tierkit import CacheConfigError, ColumnType, TierContext, TierUnavailable
from tierkit_sqlite import undeclared
from tierkit_sqlite.library import sqlite3

if TYPE_CHECKING:
    from sqlite_utils import Database

FORMAT: Final = 1
"""Kept as `PRAGMA user_version`. A higher one is refused, and the file left as it is."""
APPLICATION_ID: Final = 0x74696572
"""Kept as `PRAGMA application_id`: "tier"."""
FIXED: Final[Mapping[str, ColumnType]] = {
    "key": "text",
    "version": "integer",
    "purge_at": "real",
    "row_check": "text",
    "access_count": "integer",
    "last_accessed": "real",
    "undeclared": "text",
}
"""The columns that every table has, and starts with."""
INDEXED: Final = ("expires_at", "source", "health_status", "last_accessed")
"""Each gets an index where the table has it."""
COLDNESS: Final = "max(last_accessed, version / 1024.0 / 1000000.0)"
"""`tierkit.coldness` under "lru": last read or, if that is later, last written."""
ORDERS: Final[Mapping[str, tuple[str, str]]] = {
    "lru": ("coldness", f"{COLDNESS}, version"),
    "fifo": ("version", "version"),
}
"""The policies that the table itself can order by, each with its index and what that is on."""

USAGE: Final = ("version", "access_count", "last_accessed")
"""Of the fixed columns, those that a query may be ordered by beside the key."""
Indexes = Sequence[tuple[str, ...]]
"""The columns of each index that the settings ask for."""

_STORED: Final[Mapping[ColumnType, tuple[type, ...]]] = {
    "text": (str,),
    "integer": (int,),
    "real": (int, float),
    "blob": (bytes,),
}
"""What a column of each type holds as it is."""
_ENCRYPTED: Final = "_encrypted"
_RESERVED: Final = frozenset({*FIXED, "rowid"})
_REQUIRED: Final = ("key", "version", "purge_at", "row_check", "access_count", "last_accessed")


def quote(identifier: str) -> str:
    """`identifier` as SQL takes any."""
    return '"' + identifier.replace('"', '""') + '"'


def check_namespace(namespace: str) -> None:
    """Refuse what no table can be named.

    Raises:
        CacheConfigError: It has a null character.
    """
    if "\0" in namespace:
        raise CacheConfigError(f"the namespace {namespace!r} has a null character")


def check_indexes(context: TierContext, named: Sequence[str]) -> Indexes:
    """The columns of each index in the setting `indexes`: none for rows of the engine's own, which have others.

    Raises:
        CacheConfigError: There is no such column, it is a secret, or it comes twice in one index.
    """
    return [] if context.beside else [_checked_index(context, index) for index in dict.fromkeys(named)]


def _checked_index(context: TierContext, index: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in index.split(","))
    for name in names:
        if f"{name}{_ENCRYPTED}" in context.columns or name.endswith(_ENCRYPTED):
            raise CacheConfigError(f"{context.name}: indexes names {name!r}, a secret: it is stored sealed")
        if name not in context.columns and name not in USAGE:
            public = sorted(name for name in (*context.columns, *USAGE) if not name.endswith(_ENCRYPTED))
            raise CacheConfigError(
                f"{context.name}: indexes names {name!r}, which is no column; there are {', '.join(public)}"
            )
    if len(set(names)) != len(names):
        raise CacheConfigError(f"{context.name}: indexes has {index!r}, with a column twice")
    return names


def marks_name(namespace: str) -> str:
    """The table that keeps the marks of `namespace`."""
    return f"{namespace}__marks"


def check_format(connection: sqlite3.Connection, path: str) -> None:
    """Refuse a database that this version must not touch.

    Raises:
        TierUnavailable: It is another program's, or a newer tierkit wrote it.
    """
    connection.execute("BEGIN")  # one view of all three: another process may be making the database just now
    try:
        application, version = _pragma(connection, "application_id"), _pragma(connection, "user_version")
        objects = _objects(connection)
    finally:
        connection.execute("ROLLBACK")
    if application == APPLICATION_ID:
        if version > FORMAT:
            raise TierUnavailable(
                f"{path} has format {version}, and this tierkit knows up to {FORMAT}: upgrade tierkit"
            )
    elif application or version or objects:
        raise TierUnavailable(
            f"{path} is the database of another program: give the tier a file of its own; if it was tierkit's, "
            f"`PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT};` mends its head"
        )


def columns_of(connection: sqlite3.Connection, table: str) -> dict[str, str]:
    """The declared type of each column of `table`, in order; empty if there is no such table.

    Raises:
        TierUnavailable: It does not start with the fixed columns.
    """
    found = connection.execute(f"PRAGMA table_info({quote(table)})")
    columns = {name: kind for _, name, kind, *_ in found}
    if columns and list(columns)[: len(FIXED)] != list(FIXED):
        raise TierUnavailable(f"the table {table} was rebuilt: it must start with the columns {', '.join(FIXED)}")
    return columns


def is_ours(connection: sqlite3.Connection) -> bool:
    """Whether its head says that it is a database of tierkit."""
    return _pragma(connection, "application_id") == APPLICATION_ID


def has_marks(connection: sqlite3.Connection, namespace: str) -> bool:
    """Whether the table of marks is there."""
    return bool(connection.execute(f"PRAGMA table_info({quote(marks_name(namespace))})").fetchall())


def make_marks(connection: sqlite3.Connection, context: TierContext) -> None:
    """Make the table of marks, where it was lost, and its index."""
    marks = marks_name(context.namespace)
    if not has_marks(connection, context.namespace):
        connection.execute(_marks_sql(context.namespace, "CREATE TABLE"))
        connection.execute(f"CREATE INDEX {quote(f'idx_{marks}_marked_at')} ON {quote(marks)} (marked_at)")


def ensure(connection: sqlite3.Connection, context: TierContext, indexes: Indexes = ()) -> None:
    """Make what the entry type needs and the database lacks, in one transaction.

    Nothing is ever taken away but indexes that were made for an earlier setting.
    """
    if _is_complete(connection, context, indexes):
        return
    from sqlite_utils import Database

    connection.execute("BEGIN IMMEDIATE")
    try:
        _complete(Database(connection, recursive_triggers=False, execute_plugins=False), context, indexes)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def stand_in(connection: sqlite3.Connection, context: TierContext) -> bool:
    """For reading only: an empty temporary table where the real one is not there yet. Says whether one was made."""
    if columns_of(connection, context.namespace):
        return False
    columns = ", ".join(f"{quote(name)} {kind.upper()}" for name, kind in FIXED.items())
    connection.execute(f"CREATE TEMP TABLE {quote(context.namespace)} ({columns})")
    connection.execute(_marks_sql(context.namespace, "CREATE TEMP TABLE"))
    return True


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _objects(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0])


def _is_complete(connection: sqlite3.Connection, context: TierContext, indexes: Indexes) -> bool:
    held = columns_of(connection, context.namespace)
    return (
        bool(held)
        and not _lacking_columns(context, held)
        and not lacking_indexes(connection, context, held, indexes)
        and not _needless_indexes(connection, context, indexes)
        and _pragma(connection, "application_id") == APPLICATION_ID
    )


def _lacking_columns(context: TierContext, held: Mapping[str, str]) -> dict[str, ColumnType]:
    """Columns to add. SQLite's names ignore case: one that differs only so is kept in `undeclared`, like any other."""
    taken = _RESERVED | {name.lower() for name in held}
    lacking: dict[str, ColumnType] = {}
    for name, kind in context.columns.items():
        if name.lower() not in taken:
            lacking[name] = kind
            taken |= {name.lower()}
    return lacking


def lacking_indexes(
    connection: sqlite3.Connection, context: TierContext, held: Mapping[str, str], indexes: Indexes = ()
) -> dict[str, str]:
    """What each index to make is on, by name."""
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")}
    return {name: on for name, on in _indexes(context, held, indexes).items() if name not in there}


def _needless_indexes(connection: sqlite3.Connection, context: TierContext, indexes: Indexes) -> list[str]:
    """Those that were made for a setting, and are in it no more."""
    table = context.namespace
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = ?", (table,))
    wanted = {_asked_name(table, names) for names in indexes}
    return [name for (name,) in found if name.startswith(_asked_name(table, ())) and name not in wanted]


def _asked_name(table: str, names: Sequence[str]) -> str:
    return f"idx_{table}_by.{'.'.join(names)}"


def _indexes(context: TierContext, held: Mapping[str, str], indexes: Indexes) -> dict[str, str]:
    table = context.namespace
    wanted = {f"idx_{table}_{name}": f"{quote(table)} ({name})" for name in INDEXED if name in held}
    # Nearly every record is purged when it expires: those are found by expires_at, and only the others stand here.
    others = " WHERE purge_at IS NOT expires_at" if held.get("expires_at") == "REAL" else ""
    wanted[f"idx_{table}_purge_at"] = f"{quote(table)} (purge_at){others}"
    # The highest version is asked for once, at open: an index for that alone would cost every put a tenth of its time.
    if context.max_entries is not None and context.eviction_policy in ORDERS:
        name, on = ORDERS[context.eviction_policy]
        wanted[f"idx_{table}_{name}"] = f"{quote(table)} ({on})"
    for names in indexes:  # with the key, by which queries order equals
        on = ", ".join(map(quote, (*names, "key")))
        wanted[_asked_name(table, names)] = f"{quote(table)} ({on})"
    marks = marks_name(table)
    wanted[f"idx_{marks}_marked_at"] = f"{quote(marks)} (marked_at)"
    return wanted


def _complete(database: Database, context: TierContext, indexes: Indexes) -> None:
    """Add what is lacking by now: another process may have been faster."""
    table = database.table(context.namespace)
    held = columns_of(database.conn, context.namespace)
    if not held:
        table.create(
            {**FIXED, **_lacking_columns(context, FIXED)},
            pk="key",
            not_null=_REQUIRED,
            defaults={"access_count": 0, "last_accessed": 0.0},
        )
        database.execute(_marks_sql(context.namespace, "CREATE TABLE"))
    else:
        added = _lacking_columns(context, held)
        for name, kind in added.items():
            table.add_column(name, kind)
        _move_into_columns(database.conn, context.namespace, added)
    held = columns_of(database.conn, context.namespace)
    for name in _needless_indexes(database.conn, context, indexes):
        database.execute(f"DROP INDEX {quote(name)}")
    for name, on in lacking_indexes(database.conn, context, held, indexes).items():
        database.execute(f"CREATE INDEX {quote(name)} ON {on}")
    database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    database.execute(f"PRAGMA user_version = {FORMAT}")


def _move_into_columns(connection: sqlite3.Connection, table: str, added: Mapping[str, ColumnType]) -> None:
    """Move what rows hold undeclared into columns that were just added to `table`, so that SQL finds it there.

    What is not of the column's type stays: SQLite might make something else of it, which would not fit the check.
    """
    some = " OR ".join("instr(undeclared, ?)" for _ in added)
    if not some:
        return
    found = connection.execute(f"SELECT rowid, undeclared FROM {quote(table)} WHERE {some}", tuple(added)).fetchall()
    for rowid, text in found:
        more = undeclared.decode(text) or {}
        moved = [name for name in added if type(more.get(name)) in _STORED[added[name]]]
        values = [more.pop(name) for name in moved]
        changes = "".join(f", {quote(name)} = ?" for name in moved)
        if moved:
            connection.execute(
                f"UPDATE {quote(table)} SET undeclared = ?{changes} WHERE rowid = ?",
                (undeclared.encode(more), *values, rowid),
            )


def _marks_sql(namespace: str, create: str) -> str:
    columns = "key TEXT PRIMARY KEY NOT NULL, mark INTEGER NOT NULL, marked_at REAL NOT NULL"
    return f"{create} {quote(marks_name(namespace))} ({columns}) WITHOUT ROWID"
