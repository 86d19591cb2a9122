# ruff: noqa: S608 - the names are constants of the tests
"""The table that the SQLite tier makes, and how it follows the entry class."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.plugins.sqlite_support import NAMESPACE, PROXY_COLUMNS, open_tier, own_connection, proxy, raw

from tierkit import CacheTier, Row, TierContext, TierUnavailable, Trait
from tierkit.testing import make_row
from tierkit_sqlite import SQLiteOptions, register_tiers
from tierkit_sqlite.library import sqlite3

FORMATS = Path(__file__).resolve().parents[2] / "docs" / "reference" / "formats.md"
F6_TYPES = {
    "key": "TEXT",
    "proxy_url": "TEXT",
    "username_encrypted": "BLOB",
    "password_encrypted": "BLOB",
    "source": "TEXT",
    "fetch_time": "REAL",
    "last_accessed": "REAL",
    "access_count": "INTEGER",
    "ttl_seconds": "REAL",
    "expires_at": "REAL",
    "health_status": "TEXT",
    "failure_count": "INTEGER",
    "created_at": "REAL",
    "updated_at": "REAL",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tierkit.db"


def indexed(connection: sqlite3.Connection, table: str = NAMESPACE) -> set[tuple[str, ...]]:
    names = [row[1] for row in connection.execute(f"PRAGMA index_list({table})")]
    return {tuple(row[2] for row in connection.execute(f'PRAGMA index_info("{name}")')) for name in names}


@pytest.mark.req("F-6")
def test_the_table_is_the_documented_one(path: Path) -> None:
    open_tier(path).close()
    with raw(path) as connection:
        columns = {row[1]: row for row in connection.execute(f"PRAGMA table_info({NAMESPACE})")}
        assert {name: columns[name][2] for name in F6_TYPES} == F6_TYPES
        assert [name for name, row in columns.items() if row[5]] == ["key"]
        assert indexed(connection) >= {("expires_at",), ("source",), ("health_status",), ("last_accessed",)}


def test_the_documented_statements_are_those_in_the_file(path: Path) -> None:
    for policy in ("lru", "fifo"):
        open_tier(path, context={"max_entries": 5, "eviction_policy": policy}).close()
    with raw(path) as connection:
        made = [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")]
    assert len(made) == 10
    documented = FORMATS.read_text("utf-8")
    assert [sql for sql in made if sql not in documented] == []


@pytest.mark.req("F-6")
def test_a_person_can_query_it(path: Path) -> None:
    with open_tier(path) as tier:
        tier.put_many([proxy(1, source="paid"), proxy(2, proxy_url="http://203.0.113.7:8080")])
        with raw(path) as connection:
            query = f"SELECT key FROM {NAMESPACE} WHERE source = 'paid' AND expires_at > 2e9"
            assert connection.execute(query).fetchall() == [("key 1",)]


def test_a_type_without_those_columns_gets_no_such_indexes(path: Path) -> None:
    open_tier(path, context={"columns": {"token": "blob"}}).close()
    with raw(path) as connection:
        assert indexed(connection) == {("key",), ("last_accessed",), ("purge_at",)}


def test_a_column_that_a_later_class_declares_is_added_with_its_index(path: Path) -> None:
    first = proxy(1)
    with open_tier(path, context={"columns": {"source": "text", "expires_at": "real"}}) as tier:
        tier.put(make_row("key 1", columns={"source": "list", "expires_at": 2e9}))
    with open_tier(path) as tier:
        tier.put(proxy(2, health_status="healthy"))
        assert tier.get("key 1") == make_row("key 1", columns={"source": "list", "expires_at": 2e9})
        with raw(path) as connection:
            query = f"SELECT key FROM {NAMESPACE} WHERE health_status = 'healthy'"
            assert connection.execute(query).fetchall() == [("key 2",)]
            assert ("health_status",) in indexed(connection)
    assert first.key == "key 1"


def test_a_column_that_a_later_class_drops_is_kept_and_comes_back(path: Path) -> None:
    row = proxy(1, health_status="healthy", password_encrypted=b"\0\xff")
    with open_tier(path) as tier:
        tier.put(row)
    with open_tier(path, context={"columns": {"source": "text"}}) as tier:
        assert tier.get("key 1") == row
        changed = make_row("key 1", 2, columns={"source": "list"})
        tier.put(changed)
        assert tier.get("key 1") == changed


def test_a_column_nobody_declared_stands_in_the_table_as_json(path: Path) -> None:
    row = make_row(columns={"source": "list", "region": "eu", "pin": b"\0\xff", "quota": 2**63 - 1})
    with open_tier(path) as tier:
        tier.put(row)
        assert tier.get("key") == row
    with raw(path) as connection:
        (stored,) = connection.execute(f"SELECT undeclared FROM {NAMESPACE}").fetchone()
    assert json.loads(stored) == {"region": "eu", "pin": {"base64": "AP8="}, "quota": 2**63 - 1}


def test_it_comes_back_when_a_later_class_declares_it(path: Path) -> None:
    row = make_row(columns={"source": "list", "region": "eu"})
    with open_tier(path) as tier:
        tier.put(row)
    with open_tier(path, context={"columns": {**PROXY_COLUMNS, "region": "text"}}) as tier:
        assert tier.get("key") == row
        newer = make_row(version=2, columns={"source": "list", "region": "us"})
        tier.put(newer)
        assert tier.get("key") == newer
        with raw(path) as connection:
            stored = connection.execute(f"SELECT region, undeclared FROM {NAMESPACE}").fetchall()
        assert stored == [("us", None)]


@pytest.mark.parametrize("name", ["version", "undeclared", "rowid", "ROW_CHECK", "Source"])
def test_a_declared_name_that_is_taken_is_kept_all_the_same(path: Path, name: str) -> None:
    row = make_row(columns={"source": "list", name: "mine"})
    with open_tier(path, context={"columns": {"source": "text", name: "text"}}) as tier:
        tier.put(row)
        assert tier.get("key") == row
        assert list(tier.scan()) == [row]


@pytest.mark.parametrize("name", ["order", 'a"b', "a b", "select", "größe", "a;--", "[x]"])
def test_names_are_quoted(path: Path, name: str) -> None:
    row = make_row(columns={name: "x"})
    with open_tier(path, context={"namespace": name, "columns": {name: "text"}}) as tier:
        assert tier.put_many([row]) == [None]
        tier.touch_many({})
        assert tier.get("key") == row
        assert tier.discard(row)
        assert tier.purge(1e12) == 0
        tier.clear()


def test_an_open_tier_follows_a_table_that_another_widens(path: Path) -> None:
    """An older program goes on beside a newer one: it must neither lose nor mix columns."""
    wider = {**PROXY_COLUMNS, "region": "text"}
    with open_tier(path) as old:
        old.put(proxy(1))
        with open_tier(path, context={"columns": wider}) as new:
            rows = [proxy(n, 2, region="eu") for n in (1, 2)]
            assert new.put_many(rows) == [None, None]
            assert [old.get("key 1"), old.get("key 2")] == rows
            assert sorted(old.scan(), key=lambda row: row.key) == rows
            assert old.put(proxy(1, 3)) is None
            assert old.put_many([proxy(2, 3), proxy(3, region="us")]) == [None, None]
            assert [new.get(f"key {n}") for n in (1, 2, 3)] == [proxy(1, 3), proxy(2, 3), proxy(3, region="us")]


def test_a_write_is_the_first_to_meet_a_wider_table(path: Path) -> None:
    with open_tier(path) as old:
        writes: list[Callable[[Row], Any]] = [old.put, lambda row: old.replace(row, 0)]
        for n, write in enumerate(writes):
            open_tier(path, context={"columns": {**PROXY_COLUMNS, f"more_{n}": "text"}}).close()
            write(proxy(n))
            assert old.get(f"key {n}") == proxy(n)


def test_a_table_that_was_rebuilt_by_hand_is_refused(path: Path) -> None:
    open_tier(path).close()
    with raw(path) as connection:
        connection.execute(f"DROP TABLE {NAMESPACE}")
        connection.execute(f"CREATE TABLE {NAMESPACE} (version INTEGER, key TEXT PRIMARY KEY)")
    with pytest.raises(TierUnavailable, match="was rebuilt"):
        open_tier(path)


def test_a_newer_format_is_refused_and_left_as_it_is(path: Path) -> None:
    open_tier(path).close()
    with raw(path) as connection:
        connection.execute("PRAGMA user_version = 2")
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(TierUnavailable, match=r"format 2.*upgrade"):
            open_tier(path, context={"read_only": read_only})
    assert path.read_bytes() == before
    assert {file.name for file in path.parent.iterdir()} <= {path.name, f"{path.name}.lock"}


@pytest.mark.parametrize("sql", ["CREATE TABLE t (a)", "PRAGMA user_version = 1", "PRAGMA application_id = 7"])
def test_the_database_of_another_program_is_refused_and_left_as_it_is(path: Path, sql: str) -> None:
    with raw(path) as connection:
        connection.execute(sql).fetchall()
    before = path.read_bytes()
    with pytest.raises(TierUnavailable, match="another program"):
        open_tier(path)
    assert path.read_bytes() == before


def test_the_format_is_marked_in_the_file(path: Path) -> None:
    open_tier(path).close()
    with raw(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("PRAGMA application_id").fetchone() == (0x74696572,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def plan(tier: CacheTier[Row], sql: str, values: tuple[Any, ...] = ()) -> str:
    connection = own_connection(tier)  # type: ignore[arg-type]  # it is one of SQLite
    return "; ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values))


@pytest.mark.parametrize("columns", [PROXY_COLUMNS, {"token": "blob"}])
def test_what_runs_often_goes_by_an_index(path: Path, columns: dict[str, Any]) -> None:
    open_tier(path, context={"columns": columns, "max_entries": 5, "eviction_policy": "fifo"}).close()
    with open_tier(path, context={"columns": columns, "max_entries": 5}) as tier:
        own_connection(tier)
        opened = tier._connections.handles[0].opened
        assert opened is not None
        table = opened.table
        for sql, values in [
            (table.due, (0, 1)),
            (table.coldest, (1,)),
            (table.oldest, (1,)),
            (table.old_marks, (0,)),
            (table.get, ("key",)),
            (table.page, (0, 9)),
        ]:
            shown = plan(tier, sql, values)
            assert "USING" in shown, sql
            assert "TEMP B-TREE" not in shown, sql
            assert not [step for step in shown.split("; ") if step.startswith("SCAN") and "INDEX" not in step], sql


def test_rows_are_purged_when_they_may_be_whether_or_not_they_expire_then(path: Path) -> None:
    rows = [
        make_row("as it expires", purge_at=10.0, columns={"expires_at": 10.0}),
        make_row("later", purge_at=20.0, columns={"expires_at": 10.0}),
        make_row("earlier", purge_at=5.0, columns={"expires_at": 10.0}),
        make_row("without", purge_at=10.0),
    ]
    with open_tier(path) as tier:
        tier.put_many(rows)
        gone = [(tier.purge(now), sorted(tier.keys())) for now in (4.9, 5.0, 9.9, 10.0, 20.0)]
    assert gone == [
        (0, ["as it expires", "earlier", "later", "without"]),
        (1, ["as it expires", "later", "without"]),
        (0, ["as it expires", "later", "without"]),
        (2, ["later"]),
        (1, []),
    ]


def test_more_than_a_batch_is_purged_and_cleared(path: Path) -> None:
    with open_tier(path) as tier:
        tier.put_many([proxy(n) for n in range(1200)])
        assert tier.purge(2e9 + 599) == 600
        assert tier.size() == 600
        tier.clear()
        assert tier.size() == 0
        assert tier.put(proxy(1100)) == 1
        assert tier.put(proxy(1)) is None, "a purge is a discard"


def test_forgotten_marks_leave_the_table(path: Path) -> None:
    with open_tier(path, context={"now": lambda: 1000.0, "tombstone_seconds": 60.0}) as tier:
        tier.delete_many({f"key {n}": 1 for n in range(1200)})
        tier.purge(1059.9)
        with raw(path) as connection:
            count = f"SELECT count(*) FROM {NAMESPACE}__marks"
            assert connection.execute(count).fetchone() == (1200,)
            tier.purge(1060.0)
            assert connection.execute(count).fetchone() == (0,)


@pytest.mark.parametrize(("durability", "level"), [("full", 2), ("process", 1), ("none", 0)])
def test_durability_sets_when_sqlite_syncs(path: Path, durability: str, level: int) -> None:
    with open_tier(path, context={"durability": durability}) as tier:
        assert own_connection(tier).execute("PRAGMA synchronous").fetchone() == (level,)


def test_each_setting_reaches_sqlite(path: Path) -> None:
    (spec,) = register_tiers()
    options = SQLiteOptions(path=path, busy_timeout_seconds=0.25, cache_size_mb=3)
    with spec.factory(TierContext(), options) as tier:
        connection = own_connection(tier)  # type: ignore[arg-type]  # likewise
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (250,)
        assert connection.execute("PRAGMA cache_size").fetchone() == (-3072,)
        assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (2000,)
        assert path.exists()
        assert tier.traits == spec.traits == Trait.PERSISTENT | Trait.CRASH_SAFE | Trait.SHARED | Trait.QUERYABLE


@pytest.mark.parametrize("wrong", [{}, {"busy_timeout_seconds": -1}, {"cache_size_mb": 0}, {"unknown": 1}], ids=str)
def test_a_wrong_setting_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SQLiteOptions(**({"path": "x"} if wrong else {}), **wrong)


def loaded_by(code: str, *arguments: str) -> set[str]:
    shown = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(shown.stdout.split())


def test_the_library_is_loaded_with_the_tier_and_sqlite_utils_only_to_change_a_table(path: Path) -> None:
    # Not "sqlite3": the measurement of coverage loads it.
    late = {"pysqlite3", "sqlite_utils", "tierkit_sqlite.library", "tierkit_sqlite.tier"}
    assert not late & loaded_by("import tierkit_sqlite")
    code = (
        "import sys; from tierkit import TierContext; from tierkit_sqlite import SQLiteCacheTier\n"
        "with SQLiteCacheTier(TierContext(columns={'source': 'text'}), sys.argv[1]) as tier: tier.get('key')"
    )
    assert "sqlite_utils" in loaded_by(code, str(path))
    assert "sqlite_utils" not in loaded_by(code, str(path))
