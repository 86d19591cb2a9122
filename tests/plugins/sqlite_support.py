"""What the tests of the SQLite tier share."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tierkit import ColumnType, TierContext
from tierkit.testing import make_row
from tierkit_sqlite import SQLiteCacheTier
from tierkit_sqlite.library import sqlite3

PROXY_COLUMNS: Final[dict[str, ColumnType]] = {
    "source": "text",
    "fetch_time": "real",
    "ttl_seconds": "real",
    "expires_at": "real",
    "health_status": "text",
    "failure_count": "integer",
    "created_at": "real",
    "updated_at": "real",
    "proxy_url": "text",
    "username_encrypted": "blob",
    "password_encrypted": "blob",
}
NAMESPACE: Final = "proxy_entry"


def open_tier(path: Path, *, context: dict[str, Any] | None = None, **settings: Any) -> SQLiteCacheTier:
    told = TierContext(**{"namespace": NAMESPACE, "columns": PROXY_COLUMNS, **(context or {})})
    return SQLiteCacheTier(told, path, **settings)


@contextlib.contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection beside the tier's, by the same library: two of them on one file would undo each other's locks."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as connection:
        yield connection


def own_connection(tier: SQLiteCacheTier) -> sqlite3.Connection:
    """The tier's connection of this thread."""
    tier.size()
    opened = tier._connections._mine().opened
    assert opened is not None
    return opened.connection


def assert_nothing_is_open(tier: SQLiteCacheTier) -> None:
    """No transaction, nor a statement that was not read to its end: either would hold back a checkpoint."""
    for handle in tier._connections.handles:
        assert not handle.busy
        assert handle.opened is None or not handle.opened.connection.in_transaction
    with raw(Path(tier.path)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


def proxy(n: int, version: int = 1, **columns: Any) -> Any:
    return make_row(
        f"key {n}",
        version,
        columns={"source": "list", "health_status": "unknown", "expires_at": 2e9 + n, **columns},
        purge_at=2e9 + n,
    )


def is_whole(row: Any) -> bool:
    """Whether the row's check fits it."""
    return bool(make_row(row.key, row.version, purge_at=row.purge_at, columns=row.columns).check == row.check)
