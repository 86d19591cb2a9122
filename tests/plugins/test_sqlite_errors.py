# ruff: noqa: S608 - the names are constants of the tests
"""Errors of the SQLite tier, and what it does on a library with the WAL fault."""

import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from tests.plugins.sqlite_support import NAMESPACE, assert_nothing_is_open, open_tier, own_connection, proxy, raw

from tierkit import (
    CacheValidationError,
    TierFull,
    TierkitError,
    TierReadOnly,
    TierTimeout,
    TierUnavailable,
)
from tierkit_sqlite import failures, files, library
from tierkit_sqlite.library import has_wal_fault, sqlite3
from tierkit_sqlite.statements import Table


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tierkit.db"


def sqlite_error(code: int, kind: type[Exception] = sqlite3.OperationalError) -> Exception:
    error = kind("what SQLite says")
    error.sqlite_errorcode = code  # type: ignore[attr-defined]  # Python's own has it
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (sqlite_error(5), TierTimeout),
        (sqlite_error(5 | 2 << 8), TierTimeout),
        (sqlite_error(6), TierTimeout),
        (sqlite_error(13), TierFull),
        (sqlite_error(8 | 1 << 8), TierReadOnly),
        (sqlite_error(3), TierReadOnly),
        (sqlite_error(10), failures.SystemRefused),
        (sqlite_error(11, sqlite3.DatabaseError), TierUnavailable),
        (sqlite_error(14), TierUnavailable),
        (sqlite_error(26, sqlite3.DatabaseError), TierUnavailable),
        (sqlite3.ProgrammingError("closed"), TierUnavailable),
        (sqlite3.DataError("too big"), CacheValidationError),
        (sqlite3.IntegrityError("NOT NULL"), CacheValidationError),
        (OverflowError("too large"), CacheValidationError),
        (PermissionError(13, "denied"), TierReadOnly),
        (OSError(28, "full"), TierFull),
        (OSError(5, "i/o"), TierUnavailable),
    ],
    ids=repr,
)
def test_foreign_errors_become_tierkits(error: Exception, kind: type[TierkitError]) -> None:
    found = failures.translated(error, "L3 (file)")
    assert type(found) is kind
    assert "L3 (file)" in str(found)


@pytest.mark.parametrize("error", [TierFull("full"), KeyError("ours")], ids=repr)
def test_what_is_not_the_storages_is_passed_on(error: Exception) -> None:
    assert failures.translated(error, "L3") is error


@pytest.mark.parametrize(
    "bad", [proxy(1, 2**63), proxy(1, source="\ud800"), proxy(1, source=2**64)], ids=["", "a", "b"]
)
def test_a_record_that_cannot_be_stored_is_its_own_trouble(path: Path, bad: Any) -> None:
    with open_tier(path) as tier:
        for write in (tier.put, lambda row: tier.put_many([proxy(2), row])):
            with pytest.raises(CacheValidationError, match="cannot be stored"):
                write(bad)
            assert_nothing_is_open(tier)
        assert tier.size() == 0


def test_a_connection_that_broke_is_replaced(path: Path) -> None:
    with open_tier(path) as tier:
        tier.put(proxy(1))
        own_connection(tier).close()
        with pytest.raises(TierUnavailable, match="on a closed"):
            tier.get("key 1")
        assert tier.get("key 1") == proxy(1)


def test_an_interrupt_within_a_transaction_rolls_it_back(path: Path) -> None:
    def remove_and_stop(cursor: sqlite3.Cursor, table: Table) -> None:
        cursor.execute(table.remove, ("key 1",))
        raise KeyboardInterrupt

    with open_tier(path) as tier:
        tier.put(proxy(1))
        with pytest.raises(KeyboardInterrupt):
            tier._connections.write(remove_and_stop)
        assert_nothing_is_open(tier)
        assert tier.get("key 1") == proxy(1)


def test_no_error_shows_a_stored_value(path: Path) -> None:
    with open_tier(path) as tier:
        tier.put(proxy(1, source="canary"))
        with raw(path) as connection:
            connection.execute(f"UPDATE {NAMESPACE} SET source = CAST(x'63616e617279ff' AS TEXT)")
        with pytest.raises(TierkitError) as caught:
            tier.get("key 1")
    error: BaseException | None = caught.value
    while error is not None:
        assert "canary" not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


# -- the library with the WAL fault ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "fault"),
    [
        ((3, 40, 1), True),
        ((3, 44, 5), True),
        ((3, 44, 6), False),
        ((3, 45, 0), True),
        ((3, 50, 6), True),
        ((3, 50, 7), False),
        ((3, 51, 2), True),
        ((3, 51, 3), False),
        ((3, 53, 4), False),
    ],
)
def test_which_libraries_have_the_fault(version: tuple[int, ...], fault: bool) -> None:
    assert has_wal_fault(version) is fault


def test_with_the_fault_sqlite_never_checkpoints_by_itself(path: Path) -> None:
    with patch.object(library, "has_wal_fault", lambda: True), open_tier(path) as tier:
        assert own_connection(tier).execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
        assert (path.parent / "tierkit.db.lock").exists()


def test_with_the_fault_a_writer_waits_for_the_lock_file(path: Path) -> None:
    with patch.object(library, "has_wal_fault", lambda: True), open_tier(path, busy_timeout_seconds=0.01) as tier:
        lock_file = files.LockFile(f"{path}.lock", 0)
        with lock_file, pytest.raises(TierTimeout, match="locked by another"):
            tier.put(proxy(1))
        lock_file.close()
        assert tier.put(proxy(1)) is None


def test_with_the_fault_the_log_is_checkpointed_now_and_then(path: Path) -> None:
    with patch.object(library, "has_wal_fault", lambda: True), open_tier(path) as tier:
        for start in range(0, 3000, 500):
            tier.put_many([proxy(n, source="x" * 500) for n in range(start, start + 500)])
        assert path.stat().st_size > 1_000_000


def test_the_lock_file_may_be_taken_again_by_its_holder(tmp_path: Path) -> None:
    first, second = (files.LockFile(str(tmp_path / "lock"), 0) for _ in range(2))
    with first:
        with first, pytest.raises(TierTimeout), second:
            pass
        first.close()
        with pytest.raises(TierTimeout), second:
            pass
    with second:
        pass
    first.close()
    second.close()
    assert os.stat(tmp_path / "lock").st_mode & 0o777 == 0o600
