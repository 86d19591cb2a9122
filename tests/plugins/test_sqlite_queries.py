# ruff: noqa: S608 - the names are constants of the tests
"""Queries of the SQLite tier: by index, in bounded memory, and with what its table does not have."""

import contextlib
import sys
import tracemalloc
from pathlib import Path
from typing import Any
from unittest.mock import DEFAULT, Mock

import pytest
from pydantic import ValidationError
from tests.plugins.sqlite_support import NAMESPACE, PROXY_COLUMNS, assert_nothing_is_open, open_tier, raw

from tierkit import CacheConfigError, Condition, Contains, NoneOf, OneOf, Query, Range, TierUnavailable
from tierkit.testing import make_row
from tierkit_sqlite import SQLiteOptions, queries
from tierkit_sqlite.handles import TEMP_STORE
from tierkit_sqlite.library import sqlite3
from tierkit_sqlite.queries import Statement
from tierkit_sqlite.schema import FIXED
from tierkit_sqlite.statements import Table

COLUMNS = {**PROXY_COLUMNS, "country": "text", "tags": "text"}
FRESH = Condition("expires_at", Range(low=1e9, above=True, or_none=True))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tierkit.db"


def asked(path: Path) -> set[str]:
    """The indexes that were made for the setting."""
    with raw(path) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'index'")
        return {name.partition("_by.")[2] for (name,) in found if "_by." in name}


def plan(path: Path, query: Query) -> str:
    """How SQLite goes about what the tier asks it."""
    with raw(path) as connection:
        names = {row[1]: row[2] for row in connection.execute(f"PRAGMA table_info({NAMESPACE})")}
        statement = Statement(Table(NAMESPACE, names), COLUMNS, query)
        sql = f"EXPLAIN QUERY PLAN SELECT * {statement.source}{statement.order} LIMIT 10"
        return "; ".join(row[3] for row in connection.execute(sql, statement.values))


def equal(column: str, *values: Any) -> Condition:
    return Condition(column, OneOf(frozenset(values)))


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (Query(conditions=(equal("source", "paid"), FRESH)), "idx_proxy_entry_source"),
        (Query(conditions=(equal("source", "a", "b"), FRESH)), "idx_proxy_entry_source"),
        (Query(conditions=(Condition("expires_at", Range(high=1e9)),)), "idx_proxy_entry_expires_at"),
        (Query(conditions=(equal("country", "de"), FRESH)), "idx_proxy_entry_by.country"),
        (Query(order_by="country", conditions=(FRESH,)), "idx_proxy_entry_by.country"),
        (Query(order_by="country", conditions=(FRESH,), descending=True), "idx_proxy_entry_by.country"),
        (
            Query(order_by="last_accessed", conditions=(equal("health_status", "healthy"), FRESH)),
            "idx_proxy_entry_by.health_status.last_accessed",
        ),
    ],
)
def test_a_query_goes_by_an_index_and_sorts_nothing(path: Path, query: Query, index: str) -> None:
    open_tier(path, context={"columns": COLUMNS}, indexes=["country", "health_status, last_accessed"]).close()
    found = plan(path, query)
    assert f"USING INDEX {index} " in f"{found} "
    assert "TEMP B-TREE" not in found


def test_two_states_of_health_are_no_reason_to_sort_the_whole_table(path: Path) -> None:
    open_tier(path, context={"columns": COLUMNS}, indexes=["last_accessed"]).close()
    usable = equal("health_status", "healthy", "unknown")
    found = plan(path, Query(order_by="last_accessed", conditions=(usable, FRESH)))
    assert found == "SCAN proxy_entry USING INDEX idx_proxy_entry_by.last_accessed"


def test_an_index_is_made_and_dropped_as_the_setting_says(path: Path) -> None:
    for wanted in (["country"], ["country", "health_status,last_accessed"], ["access_count"], []):
        with open_tier(path, context={"columns": COLUMNS}, indexes=wanted) as tier:
            tier.put(make_row("key", 1, country="de"))
        assert asked(path) == {names.replace(",", ".") for names in wanted}


def test_the_indexes_of_another_table_stay(path: Path) -> None:
    open_tier(path, context={"columns": COLUMNS}, indexes=["country"]).close()
    open_tier(path, context={"columns": {"country": "text"}, "namespace": "proxy"}, indexes=[]).close()
    assert asked(path) == {"country"}


def test_reading_only_neither_makes_nor_drops_an_index(path: Path) -> None:
    open_tier(path, context={"columns": COLUMNS}, indexes=["country"]).close()
    open_tier(path, context={"columns": COLUMNS, "read_only": True}, indexes=["source"]).close()
    assert asked(path) == {"country"}


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("contry", "which is no column; there are access_count, country"),
        ("", "indexes names ''"),
        ("password", "a secret"),
        ("password_encrypted", "a secret"),
        ("country,country", "a column twice"),
    ],
)
def test_an_index_that_there_cannot_be_is_refused(path: Path, index: str, said: str) -> None:
    with pytest.raises(CacheConfigError, match=said) as refused:
        open_tier(path, context={"columns": COLUMNS}, indexes=[index])
    assert "encrypted" not in str(refused.value).partition("there are")[2]
    assert not path.exists()


def test_the_option_is_a_list_of_names() -> None:
    assert SQLiteOptions(path=Path("x.db"), indexes=["country"]).indexes == ("country",)
    with pytest.raises(ValidationError):
        SQLiteOptions(path=Path("x.db"), indexes=[1])


def test_a_column_that_comes_to_be_declared_takes_what_rows_had_of_it_and_fits_its_type(path: Path) -> None:
    rows = [
        make_row("text", 1, country="de", size=7, weight=2, picture=b"\0"),
        make_row("other", 1, country=5, size="007", other="stays"),
        make_row("none", 1),
    ]
    with open_tier(path) as tier:
        tier.put_many(rows)
    added = {**COLUMNS, "size": "integer", "weight": "real", "picture": "blob"}
    with open_tier(path, context={"columns": added}) as tier:
        assert [tier.get(row.key) for row in rows] == rows
        assert list(tier.query(Query(conditions=(equal("country", "de"), equal("picture", b"\0"))))) == [rows[0]]
        assert tier.count(Query(conditions=(equal("size", 7),))) == 1
    with raw(path) as connection:
        found = dict(connection.execute(f"SELECT key, undeclared FROM {NAMESPACE}"))
    assert found == {"text": None, "other": '{"country": 5, "size": "007", "other": "stays"}', "none": None}


@pytest.mark.parametrize(
    "query",
    [
        Query(conditions=(equal("gone", "b"),), limit=2),
        Query(order_by="gone", limit=2),
        Query(order_by="gone", descending=True),
        Query(conditions=(equal("source", "list"), equal("gone", "b", "c")), order_by="key"),
        Query(conditions=(Condition("tags", Contains(True)),), order_by="key", limit=1),
        Query(conditions=(equal("source", "list", *map(str, range(600))),), order_by="key"),
        Query(conditions=(Condition("source", NoneOf(frozenset(map(str, range(600))))),), order_by="key"),
    ],
)
def test_what_sql_cannot_say_is_looked_at(path: Path, query: Query) -> None:
    with open_tier(path, context={"columns": COLUMNS}) as tier:
        rows = [
            make_row(f"k {n}", n + 1, source="list", gone="abc"[n % 3], tags="[true]" if n % 2 else "[1]")
            for n in range(9)
        ]
        tier.put_many(rows)
        assert list(tier.query(query)) == list(query.answer(rows))
        assert tier.count(query) == sum(map(query.matches, rows))


def test_a_row_that_is_damaged_leaves_its_place_to_another(path: Path) -> None:
    with open_tier(path, context={"columns": COLUMNS}) as tier:
        tier.put_many([make_row(f"k {n}", n + 1, country="de") for n in range(9)])
        with raw(path) as connection:
            connection.execute(f"UPDATE {NAMESPACE} SET version = 'x' WHERE key = 'k 1'")
        query = Query(conditions=(equal("country", "de"),), order_by="key", limit=3)
        assert [row.key for row in tier.query(query)] == ["k 0", "k 2", "k 3"]


def test_a_tuple_that_rotted_spoils_no_query(path: Path) -> None:
    with open_tier(path, context={"columns": COLUMNS}) as tier:
        tier.put_many([make_row("k 0", 1, tags='["a"]'), make_row("k 1", 1, tags='["a"'), make_row("k 2", 1, tags="1")])
        query = Query(conditions=(Condition("tags", Contains("a")),))
        assert ([row.key for row in tier.query(query)], tier.count(query)) == (["k 0"], 1)


def test_nothing_is_open_between_two_steps(path: Path) -> None:
    with open_tier(path, context={"columns": COLUMNS}) as tier:
        tier.put_many([make_row(f"k {n}", n + 1, country="de") for n in range(300)])
        found = tier.query(Query(conditions=(equal("country", "de"),), order_by="country"))
        next(found)
        assert_nothing_is_open(tier)
        assert sum(1 for _ in found) == 299


def test_a_row_that_changes_while_the_query_stands_still_is_looked_at_again(path: Path) -> None:
    with open_tier(path, context={"columns": COLUMNS}) as tier:
        tier.put_many([make_row(f"k {n:03}", n + 1, country="de") for n in range(300)])
        found = tier.query(Query(conditions=(equal("country", "de"),), order_by="key"))
        next(found)
        tier.put(make_row("k 250", 1000, country="fr"))
        assert "k 250" not in {row.key for row in found}


def test_another_layout_is_noticed(path: Path) -> None:
    with open_tier(path, context={"columns": COLUMNS}) as tier:
        tier.put(make_row("k", 1, country="de"))
        list(tier.query(Query(limit=1)))
        open_tier(path, context={"columns": {**COLUMNS, "more": "text"}}).close()
        assert [row.key for row in tier.query(Query(conditions=(equal("country", "de"),), limit=1))] == ["k"]


@pytest.mark.parametrize("order_by", [None, "country"])
def test_memory_does_not_grow_with_the_records(path: Path, order_by: str | None) -> None:
    if sys.gettrace() is not None:
        pytest.skip("tracing takes memory of its own")
    with open_tier(path, context={"columns": COLUMNS}) as tier:
        for start in range(0, 5000, 1000):
            tier.put_many(
                [make_row(f"k {n}", n + 1, country="de", proxy_url="x" * 500) for n in range(start, start + 1000)]
            )
        query = Query(conditions=(equal("country", "de"),), order_by=order_by)
        tracemalloc.start()
        try:
            count = sum(1 for _ in tier.query(query))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert count == 5000
    assert peak < 5000 * 500 / 4


def test_what_is_sorted_waits_in_files_and_in_memory_where_these_have_no_place(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    with open_tier(path, context={"columns": COLUMNS}) as tier:
        rows = [make_row(f"k {n}", n + 1, country="abc"[n % 3]) for n in range(9)]
        tier.put_many(rows)
        query = Query(order_by="country")
        tier._connections.read(lambda cursor, _: cursor.connection.set_trace_callback(asked.append))
        assert list(tier.query(query)) == list(query.answer(rows))
        assert (asked[0], asked[2]) == ("PRAGMA temp_store = FILE", TEMP_STORE)
        assert asked[1].startswith("SELECT rowid")
        refused = sqlite3.OperationalError("unable to open database file")
        refused.sqlite_errorcode = 14
        monkeypatch.setattr(queries, "_rowids", Mock(wraps=queries._rowids, side_effect=[refused, DEFAULT]))
        assert list(tier.query(query)) == list(query.answer(rows))
        monkeypatch.setattr(queries, "_rowids", Mock(side_effect=refused))
        with pytest.raises(TierUnavailable):
            next(tier.query(query))


def test_rows_of_the_engine_beside_the_records_need_no_column_of_an_index(path: Path) -> None:
    open_tier(path, context={"columns": COLUMNS}, indexes=["country"]).close()
    beside = {"columns": {"holder": "text"}, "namespace": "proxy__leases", "beside": True}
    open_tier(path, context=beside, indexes=["country"]).close()


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("last_accessed", (5.0, 0.0, None)),
        ("source", ("a", "b", None, 7)),
        ("failure_count", (1, 2, 1.0, "1", None)),
    ],
)
def test_a_statement_that_was_written_for_one_value_answers_the_others(
    path: Path, column: str, values: tuple[Any, ...]
) -> None:
    rows = [
        make_row("k1", 1, last_accessed=5.0, source="a", failure_count=1),
        make_row("k2", 2, source="b", failure_count=2),
        make_row("k3", 3),
    ]
    with contextlib.closing(open_tier(path, context={"columns": COLUMNS})) as tier:
        tier.put_many(rows)
        for value in (*values, *reversed(values)):
            query = Query(conditions=(equal(column, value),), limit=10, order_by="key")
            assert list(tier.query(query)) == list(query.answer(rows)), value


def test_the_statements_that_are_kept_do_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "_MOST_WRITTEN", 2)
    table = Table(NAMESPACE, {**FIXED, "source": "TEXT"})
    for values in ("a", "ab", "abc", "abcd"):
        queries._written(table, {"source": "text"}, Query(conditions=(equal("source", *values),)))
        assert 0 < len(table.written) <= 2
