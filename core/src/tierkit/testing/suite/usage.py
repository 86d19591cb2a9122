"""Contract: usage lives beside the record."""

from __future__ import annotations

from typing import Any

import pytest

from tierkit.row import Delta, Row
from tierkit.testing.records import make_row
from tierkit.testing.storage import Storage
from tierkit.tier import CacheTier, Trait


class Usage:
    """Usage lives beside the record: outside its version and its check."""

    @pytest.fixture
    def rows(self, tier: CacheTier[Any], storage: Storage) -> CacheTier[Row]:
        """The tier, if it holds rows: a live entry owns its usage."""
        if storage.claims(Trait.LIVE):
            pytest.skip("LIVE: an entry owns its usage")
        return tier

    def test_touch_adds_to_the_count(self, rows: CacheTier[Row]) -> None:
        """And keeps the later time."""
        rows.put(make_row())
        rows.touch_many({"key": Delta(2, 1_700_000_000.25)})
        rows.touch_many({"key": Delta(3, 1_600_000_000.5)})
        assert self._usage(rows) == (5, 1_700_000_000.25)
        rows.touch_many({"key": Delta(1, 1_800_000_000.125)})
        assert self._usage(rows) == (6, 1_800_000_000.125)

    def test_touch_takes_each_key_by_itself(self, rows: CacheTier[Row]) -> None:
        """Many at once, and leaves out what is not held."""
        for key in "abc":
            rows.put(make_row(key))
        rows.delete("c", 1)
        rows.touch_many({"a": Delta(1, 10.0), "nobody": Delta(9, 9.0), "c": Delta(5, 5.0), "b": Delta(2, 20.0)})
        assert self._usage(rows, "a") == (1, 10.0)
        assert self._usage(rows, "b") == (2, 20.0)
        assert sorted(rows.keys()) == ["a", "b"]
        assert rows.get("nobody") is rows.get("c") is None
        rows.touch_many({})

    def test_touch_changes_nothing_else(self, rows: CacheTier[Row]) -> None:
        """Neither version nor check, deadline or columns."""
        before = make_row(version=7, purge_at=1.8e9 + 0.1, text="a", data=b"\0", amount=0.5)
        rows.put(before)
        rows.touch_many({"key": Delta(1, 1.7e9)})
        after = rows.get("key")
        assert after == before
        assert after is not None
        assert (after.check, after.version) == (before.check, before.version)
        assert rows.highest_version() == 7
        assert rows.put(before) is None

    def test_usage_comes_with_a_record(self, rows: CacheTier[Row]) -> None:
        """A put, alone or in bulk, brings what is known elsewhere; every way of reading shows it."""
        rows.put(make_row("a", access_count=3, last_accessed=1.5e9 + 0.1))
        rows.put_many([make_row("b", access_count=4, last_accessed=1.5e9 + 0.2)])
        rows.replace(make_row("c", access_count=5, last_accessed=1.5e9 + 0.3), 0)
        expected = {"a": (3, 1.5e9 + 0.1), "b": (4, 1.5e9 + 0.2), "c": (5, 1.5e9 + 0.3)}
        assert {key: self._usage(rows, key) for key in "abc"} == expected
        assert {row.key: (row.access_count, row.last_accessed) for row in rows.scan()} == expected
        found = rows.get_many("abc")
        assert {key: (row.access_count, row.last_accessed) for key, row in found.items()} == expected

    @pytest.mark.parametrize("way", ["put", "put_many", "replace", "replace_many"])
    @pytest.mark.parametrize("version", [1, 2])
    def test_a_write_merges_usage_by_the_larger_value(self, rows: CacheTier[Row], way: str, version: int) -> None:
        """So that it can be repeated without counting twice, and loses none."""
        rows.put(make_row(access_count=5, last_accessed=200.0))
        for usage, merged in (((2, 300.0), (5, 300.0)), ((9, 100.0), (9, 300.0)), ((0, 0.0), (9, 300.0))):
            row = make_row(version=version, access_count=usage[0], last_accessed=usage[1])
            if way == "put":
                assert rows.put(row) is None
            elif way == "put_many":
                assert rows.put_many([row]) == [None]
            else:
                held = rows.get("key")
                assert held is not None
                many = way == "replace_many"
                assert rows.replace_many([(row, held.version)]) == [True] if many else rows.replace(row, held.version)
            assert self._usage(rows) == merged

    def test_a_refused_write_changes_no_usage(self, rows: CacheTier[Row]) -> None:
        """Older, or equal with other content."""
        rows.put(make_row(version=5, access_count=1))
        rows.put(make_row(version=4, access_count=9))
        rows.put(make_row(version=5, access_count=9, text="other"))
        assert self._usage(rows) == (1, 0.0)

    def test_a_record_that_comes_back_starts_with_its_own_usage(self, rows: CacheTier[Row]) -> None:
        """What was deleted is gone, its usage too."""
        rows.put(make_row(version=1, access_count=9, last_accessed=9.0))
        rows.delete("key", 1)
        rows.put(make_row(version=2, access_count=1, last_accessed=1.0))
        assert self._usage(rows) == (1, 1.0)

    def test_touching_a_live_tier_does_no_harm(self, tier: CacheTier[Any], storage: Storage) -> None:
        """It may do nothing."""
        record = storage.record()
        tier.put(record)
        tier.touch_many({"key": Delta(1, 1.7e9), "nobody": Delta(1, 1.7e9)})
        assert list(tier.scan()) == [record]

    @staticmethod
    def _usage(rows: CacheTier[Row], key: str = "key") -> tuple[int, float]:
        row = rows.get(key)
        assert row is not None
        return row.access_count, row.last_accessed
