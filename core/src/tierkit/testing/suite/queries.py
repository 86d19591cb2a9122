"""Contract: a query answers what it means, whoever answers it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import islice, product
from typing import Any, Final

import pytest

from tierkit.query import Condition, Contains, NoneOf, OneOf, Query, Range, Test
from tierkit.testing.records import AWKWARD_KEYS
from tierkit.testing.storage import Storage
from tierkit.testing.suite.processes import PATIENCE_SECONDS
from tierkit.tier import CacheTier, Trait

TEXTS: Final = (None, "", "A", "a", "\u00e9", "\ufb01", "\U0001f600", "a\0b", "10", "9", " ", "'")
NUMBERS: Final = (None, 0, 1, -1, 10, 9, 2**53 + 1, 2**63 - 1, -(2**63))
AMOUNTS: Final = (None, 0.0, 1.0, -1.5, 1e22, 0.1, 5e-324)
DATA: Final = (None, b"", b"\0", b"a", b"\xff")
ORDERS: Final = ('["a","b"]', "[]", '["1"]', "[1]", "[true,null]", '["\\u0000"]', "x", None)
MANY: Final = 1100
"""Records; more than are held whole."""

TESTS: Final[tuple[tuple[str, Test], ...]] = (
    ("text", OneOf(frozenset({"a"}))),
    ("text", OneOf(frozenset({None}))),
    ("text", OneOf(frozenset({"A", "\u00e9", None, "no such text"}))),
    ("text", OneOf(frozenset({"a\0b"}))),
    ("text", OneOf(frozenset())),
    ("text", NoneOf(frozenset({"a"}))),
    ("text", NoneOf(frozenset({"A", "\u00e9", None}))),
    ("text", NoneOf(frozenset({None}))),
    ("text", NoneOf(frozenset())),
    ("text", Range(low="a")),
    ("text", Range(high="\ufb01", below=True)),
    ("text", Range(low="A", above=True, or_none=True)),
    ("number", OneOf(frozenset({2**53 + 1}))),
    ("number", Range(low=9, high=10)),
    ("number", Range(low=9, above=True, high=2**63 - 1, below=True)),
    ("number", Range(or_none=True)),
    ("number", Range()),
    ("number", NoneOf(frozenset({2**53 + 1, 0}))),
    ("amount", NoneOf(frozenset({1.0}))),
    ("amount", Range(low=0.0)),
    ("amount", OneOf(frozenset({1.0, None}))),
    ("data", OneOf(frozenset({b"a", b"\xff"}))),
    ("data", Range(low=b"\0", above=True)),
    ("order", Contains("a")),
    ("order", Contains("1")),
    ("order", Contains(1)),
    ("order", Contains(True)),
    ("order", Contains(None)),
    ("order", Contains("\0")),
    ("key", Range(low="k 2", high="k 3")),
    ("version", Range(low=20)),
    ("no_such_column", OneOf(frozenset({None}))),
    ("no_such_column", OneOf(frozenset({"a"}))),
    ("no_such_column", NoneOf(frozenset({"a"}))),
)


class Queries:
    """`query` and `count` answer as if every record had been looked at."""

    def test_a_condition_finds_what_it_holds_of(self, tier: CacheTier[Any], storage: Storage) -> None:
        """And nothing else: of texts, numbers, bytes, tuples and of nothing."""
        records = _filled(tier, storage)
        for column, test in TESTS:
            self._ask(tier, records, Query(conditions=(Condition(column, test),)))

    def test_all_conditions_must_hold(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Also two of one column."""
        records = _filled(tier, storage)
        for one, other in zip(TESTS, TESTS[3:], strict=False):
            self._ask(tier, records, Query(conditions=(Condition(*one), Condition(*other))))

    def test_an_answer_is_in_order(self, tier: CacheTier[Any], storage: Storage) -> None:
        """No value first, text by code point, and equals by their keys; or the same from the end."""
        records = _filled(tier, storage)
        columns = ("text", "number", "amount", "data", "key", "version", "no_such_column")
        for order_by, descending, limit in product(columns, (False, True), (None, 0, 1, 7, 1000)):
            self._ask(tier, records, Query(order_by=order_by, descending=descending, limit=limit))

    def test_a_limit_counts_what_matches(self, tier: CacheTier[Any], storage: Storage) -> None:
        """And not what was looked at."""
        records = _filled(tier, storage)
        conditions = (Condition("number", Range(low=9)), Condition("order", Contains(True)))
        for limit, condition, order_by in product((0, 1, 3, 1000), conditions, (None, "text")):
            self._ask(tier, records, Query(conditions=(condition,), order_by=order_by, limit=limit))

    def test_a_long_answer_is_in_order_too(self, tier: CacheTier[Any], storage: Storage) -> None:
        """One that is read in parts."""
        tier.put_many([storage.record(f"k {n}", n + 1, number=n * 7 % 13, text=str(n % 3)) for n in range(MANY)])
        records = list(tier.scan())
        query = Query(conditions=(Condition("text", OneOf(frozenset({"0", "1"}))),), order_by="number")
        for limit in (None, MANY - 1):
            self._ask(tier, records, Query(conditions=query.conditions, order_by="number", limit=limit))
        self._ask(tier, records, query)
        self._ask(tier, records, Query(conditions=query.conditions))

    def test_a_query_shows_what_is_held_now(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Not what was replaced or deleted."""
        _filled(tier, storage)
        wanted = Query(conditions=(Condition("text", OneOf(frozenset({"now"}))),))
        tier.put(storage.record("k 1", 1000, text="now"))
        tier.put(storage.record("k 2", 1000, text="now"))
        tier.delete("k 2", 1001)
        assert [record.key for record in tier.query(wanted)] == ["k 1"]
        assert tier.count(wanted) == 1

    def test_a_tier_does_not_judge_what_has_expired(self, tier: CacheTier[Any], storage: Storage) -> None:
        """That is a condition like others."""
        storage.clock.advance(10.0)
        tier.put(storage.record("gone", purge_at=storage.clock.wall() - 5.0, text="a"))
        assert [record.key for record in tier.query(Query())] == ["gone"]
        assert tier.count(Query()) == 1

    def test_a_query_can_ask_for_any_key(self, tier: CacheTier[Any], storage: Storage) -> None:
        """And orders them as they are."""
        tier.put_many([storage.record(key) for key in AWKWARD_KEYS])
        found = [record.key for record in tier.query(Query(order_by="key"))]
        assert found == sorted(AWKWARD_KEYS)
        for key in AWKWARD_KEYS[::7]:
            wanted = Query(conditions=(Condition("key", OneOf(frozenset({key}))),))
            assert [record.key for record in tier.query(wanted)] == [key]

    def test_a_query_goes_by_usage_and_makes_none(self, tier: CacheTier[Any], storage: Storage) -> None:
        """What was never read has no time of a last read."""
        if storage.claims(Trait.LIVE):
            pytest.skip("LIVE: usage is the engine's")
        from tierkit.row import Delta

        _filled(tier, storage)
        tier.touch_many({"k 3": Delta(2, 5.0), "k 7": Delta(1, 9.0)})
        records = list(tier.scan())
        for column, test in (
            ("last_accessed", OneOf(frozenset({None}))),
            ("last_accessed", OneOf(frozenset({None, 5.0}))),
            ("last_accessed", NoneOf(frozenset({5.0}))),
            ("last_accessed", NoneOf(frozenset({None, 5.0}))),
            ("last_accessed", Range(high=6.0)),
            ("last_accessed", Range(high=6.0, or_none=True)),
            ("access_count", Range(low=1)),
        ):
            self._ask(tier, records, Query(conditions=(Condition(column, test),), order_by="last_accessed"))
        assert {row.key: row.access_count for row in tier.scan() if row.access_count} == {"k 3": 2, "k 7": 1}

    def test_no_lock_is_held_between_two_steps_of_a_query(self, tier: CacheTier[Any], storage: Storage) -> None:
        """One that stands still keeps nobody from writing."""
        _filled(tier, storage)
        found: Iterator[Any] = tier.query(Query(conditions=(Condition("number", Range(low=0)),)))
        next(found)
        writer = threading.Thread(target=lambda: tier.put(storage.record("written", 1)), daemon=True)
        writer.start()
        writer.join(PATIENCE_SECONDS / 6)
        waits = writer.is_alive()
        del found  # before anything is asserted: a writer that waits for it must end before the tier is closed
        writer.join(PATIENCE_SECONDS)
        assert not waits, "a write waits for a query that stands still"

    def test_a_queryable_tier_answers_by_itself(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Without going over every record."""
        if not storage.claims(Trait.QUERYABLE):
            pytest.skip("not QUERYABLE")
        kind = type(tier)
        own = kind.query is not CacheTier.query and kind.count is not CacheTier.count
        assert own, "QUERYABLE: write `query` and `count`, or do not claim it"

    @staticmethod
    def _ask(tier: CacheTier[Any], records: list[Any], query: Query) -> None:
        found = list(tier.query(query))
        if query.order_by is None:
            matching = {record.key: record for record in records if query.matches(record)}
            assert len(found) == len(list(islice(matching, query.limit))), query
            assert {record.key: record for record in found}.items() <= matching.items(), query
            assert len({record.key for record in found}) == len(found), query
        else:
            assert found == list(query.answer(records)), query
        assert tier.count(query) == sum(map(query.matches, records)), query


def _filled(tier: CacheTier[Any], storage: Storage) -> list[Any]:
    """Records with every value, in combinations that are not all there are."""
    records = [
        storage.record(
            f"k {n}",
            n + 1,
            text=TEXTS[n % len(TEXTS)],
            number=NUMBERS[n % len(NUMBERS)],
            amount=AMOUNTS[n % len(AMOUNTS)],
            data=DATA[n % len(DATA)],
            order=ORDERS[n % len(ORDERS)],
        )
        for n in (*range(40, 80), *range(40))
    ]
    assert tier.put_many(records) == [None] * len(records)
    return records
