"""Contract: what goes in comes out."""

from __future__ import annotations

from collections.abc import Sequence
from math import copysign
from typing import Any

import pytest

from tierkit.row import Row
from tierkit.testing.records import (
    AWKWARD_KEYS,
    AWKWARD_TIMES,
    AWKWARD_VALUES,
    UNDECLARED_VALUES,
    make_row,
)
from tierkit.testing.storage import Storage
from tierkit.tier import CacheTier, Trait

LARGEST_VERSIONS = (1, 2**31, 2**53 + 1, 2**60 + 3, 2**63 - 2**43)


class RoundTrips:
    """What goes in comes out."""

    def test_it_says_what_it_is(self, tier: CacheTier[Any]) -> None:
        """`traits` are claims that the engine reads."""
        assert isinstance(tier.traits, Trait)
        if Trait.LIVE in tier.traits:
            assert not tier.traits & (Trait.PERSISTENT | Trait.CRASH_SAFE | Trait.SHARED), (
                "live entries cannot be stored"
            )
        if Trait.CRASH_SAFE in tier.traits:
            assert Trait.PERSISTENT in tier.traits, "what does not outlive the tier cannot outlive a crash"

    def test_a_new_storage_is_empty(self, tier: CacheTier[Any]) -> None:
        """Nothing is found where nothing was put."""
        assert tier.get("key") is None
        assert tier.get_many(["key", "other"]) == {}
        assert list(tier.scan()) == list(tier.keys()) == []
        assert tier.size() == tier.highest_version() == 0

    def test_awkward_keys_stay_apart(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Each key finds its own record, and is handed back as it was."""
        records = {key: storage.record(key, number + 1, number=number) for number, key in enumerate(AWKWARD_KEYS)}
        for record in records.values():
            assert tier.put(record) is None
        for key, record in records.items():
            assert tier.get(key) == record, f"key {key[:40]!a}"
        assert tier.get_many(records) == records
        assert {record.key: record for record in tier.scan()} == records
        assert sorted(tier.keys()) == sorted(records)
        assert tier.size() == len(records)

    def test_awkward_keys_can_be_deleted_one_by_one(self, tier: CacheTier[Any], storage: Storage) -> None:
        """A delete takes its own key only."""
        for key in AWKWARD_KEYS:
            tier.put(storage.record(key))
        for number, key in enumerate(AWKWARD_KEYS, 1):
            assert tier.delete(key, 1) is None
            assert tier.get(key) is None, f"key {key[:40]!a}"
            assert tier.size() == len(AWKWARD_KEYS) - number, f"key {key[:40]!a}"

    def test_awkward_values_come_back_equal(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Every value of every type of column; None equals absent, but neither equals empty."""
        records = [storage.record(f"key {n}", columns=values) for n, values in enumerate(AWKWARD_VALUES)]
        self._check(tier, records)

    def test_columns_that_are_not_declared_are_kept(self, tier: CacheTier[Any], storage: Storage) -> None:
        """An earlier class wrote them."""
        if storage.claims(Trait.LIVE):
            pytest.skip("a live entry has no undeclared columns")
        self._check(tier, [make_row(f"key {n}", columns=values) for n, values in enumerate(UNDECLARED_VALUES)])

    def test_a_later_class_reads_the_columns_of_an_earlier_one(self, storage: Storage) -> None:
        """Columns that come, go or change places between two openings lose nothing."""
        if not storage.claims(Trait.PERSISTENT):
            pytest.skip("not PERSISTENT: no earlier class can have written anything")
        first = make_row("first", text="a", number=7, amount=0.1, data=b"\xff", order="by")
        with storage.open(columns={"number": "integer", "text": "text"}) as tier:
            tier.put(first)
        second = make_row("second", text="b", data=b"\0", new="c")
        tier = storage.reopen(columns={"new": "text", "data": "blob", "number": "integer"})
        self._check(tier, [second])
        assert tier.get("first") == first

    def test_a_write_replaces_the_whole_record(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Columns of the record before do not shine through."""
        tier.put(storage.record(version=1, text="a", number=1, data=b"a"))
        after = storage.record(version=2, amount=0.5)
        tier.put(after)
        assert tier.get("key") == after

    def test_deadlines_are_kept_exactly(self, tier: CacheTier[Any], storage: Storage) -> None:
        """To the last bit, and without end too."""
        times: Sequence[float] = AWKWARD_TIMES
        if storage.claims(Trait.LIVE):
            times = tuple(time for time in times if 1.0 <= time < 4.2e9 or time == float("inf"))
        if storage.claims(Trait.NATIVE_TTL):
            times = tuple(time for time in times if time > storage.clock.wall())
        records = [storage.record(f"key {n}", purge_at=time) for n, time in enumerate(times)]
        self._check(tier, records)
        for record in records:
            held: Any = tier.get(record.key)
            assert type(held.purge_at) is float, f"purge_at {record.purge_at!r}"
            assert held.purge_at.hex() == record.purge_at.hex()
            assert copysign(1.0, held.purge_at) == 1.0

    def test_versions_are_kept_exactly(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Sixty-four bits, where a double has fifty-three."""
        records = [storage.record(f"key {n}", version) for n, version in enumerate(LARGEST_VERSIONS)]
        self._check(tier, records)
        for record in records:
            assert tier.put(storage.record(record.key, record.version - 1)) == record.version
        assert tier.highest_version() == LARGEST_VERSIONS[-1]

    def test_the_check_is_kept_as_it_was_given(self, tier: CacheTier[Any], storage: Storage) -> None:
        """A tier neither computes nor verifies it."""
        if storage.claims(Trait.LIVE):
            pytest.skip("a live entry has no check")
        for n, check in enumerate(("", "c1.00000000", "k1.a_b-c." + "f" * 64)):
            row = Row(f"key {n}", 1, 2e9, check, {"text": "a"})
            tier.put(row)
            held = tier.get(row.key)
            assert held is not None
            assert held.check == check

    def test_a_live_tier_hands_back_the_entry_itself(self, tier: CacheTier[Any], storage: Storage) -> None:
        """The trait `LIVE`, claimed or not, is true."""
        record = storage.record(text="a")
        tier.put(record)
        held = tier.get("key")
        assert (held is record) or not storage.claims(Trait.LIVE)
        assert isinstance(held, type(record))

    def test_a_live_tier_shows_the_entries_themselves(self, storage: Storage) -> None:
        """However they are read: usage is counted in the very objects."""
        if not storage.claims(Trait.LIVE):
            pytest.skip("not LIVE")
        tier = storage.open(max_entries=0)
        records = {key: storage.record(key, version) for version, key in enumerate("abc", 1)}
        tier.put(records["a"])
        tier.put_many([records["b"]])
        tier.replace(records["c"], 0)
        ways = {
            "scan": tier.scan,
            "overflow": tier.overflow,
            "get_many": lambda: tier.get_many("abc").values(),
            "evict": tier.evict,  # the last: it removes them
        }
        for method, way in ways.items():
            found = {record.key: record for record in way()}
            assert {key: id(record) for key, record in found.items()} == {key: id(records[key]) for key in "abc"}, (
                f"LIVE: {method} must show the entries that were put, not copies: see Trait.LIVE"
            )

    def test_a_large_record_comes_back_equal(self, storage: Storage) -> None:
        """Nearly the 960 KiB that the engine lets through."""
        tier = storage.open()
        large = storage.record("large", 2, text="x" * 300_000, data=bytes(range(256)) * 2350, number=7)
        self._check(tier, [storage.record("small"), large])
        assert tier.replace(storage.record("large", 3, data=b"\xff" * 900_000), 2)
        assert tier.get("large") == storage.record("large", 3, data=b"\xff" * 900_000)
        if storage.claims(Trait.PERSISTENT):
            assert storage.reopen().get("large") == storage.record("large", 3, data=b"\xff" * 900_000)

    def test_answers_have_the_types_of_the_contract(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Where a wrong one would pass by comparing equal."""
        record = storage.record(version=5)
        assert tier.put(record) is None
        assert type(tier.put(storage.record(version=4))) is int, "put answers None or a version: see CacheTier.put"
        assert type(tier.replace(storage.record(version=6), 5)) is bool, "see CacheTier.replace"
        assert type(tier.get_many(["key"])) is dict, "see CacheTier.get_many"
        assert type(tier.overflow()) is list, "see CacheTier.overflow"
        assert type(tier.evict()) is list, "see CacheTier.evict"
        assert type(tier.size()) is type(tier.highest_version()) is type(tier.purge(0.0)) is int
        assert type(tier.discard(storage.record(version=6))) is bool, "see CacheTier.discard"
        occupied = tier.bytes_on_disk()
        assert occupied is None or (type(occupied) is int and occupied >= 0), "see CacheTier.bytes_on_disk"

    @staticmethod
    def _check(tier: CacheTier[Any], records: list[Any]) -> None:
        for record in records:
            assert tier.put(record) is None
        for record in records:
            assert tier.get(record.key) == record
        found = {record.key: record for record in tier.scan()}
        bulk = tier.get_many([record.key for record in records])
        for record in records:
            assert found[record.key] == bulk[record.key] == record
