"""Contract: a tier names victims, and removes none."""

from __future__ import annotations

from typing import Any

import pytest

from tierkit.row import Delta
from tierkit.testing.clock import NOW
from tierkit.testing.records import stamp
from tierkit.testing.storage import Storage
from tierkit.tier import CacheTier, Trait

both = pytest.mark.parametrize("policy", ["lru", "fifo"])


class Eviction:
    """A tier names victims, and removes none."""

    @both
    def test_the_first_written_is_named_first(self, storage: Storage, policy: str) -> None:
        """If nobody reads."""
        tier = self._filled(storage, policy, "abcde", limit=2)
        assert self._victims(tier) == ["a", "b", "c"]

    @both
    def test_overflow_removes_none(self, storage: Storage, policy: str) -> None:
        """Asked twice it answers the same."""
        tier = self._filled(storage, policy, "abcd", limit=1)
        assert self._victims(tier) == self._victims(tier) == ["a", "b", "c"]
        assert sorted(tier.keys()) == ["a", "b", "c", "d"]
        assert tier.size() == 4

    @both
    def test_a_put_evicts_nothing(self, storage: Storage, policy: str) -> None:
        """However far the bound is passed."""
        tier = self._filled(storage, policy, "abcdef", limit=1)
        tier.put_many([self._written(storage, key) for key in "ghi"])
        assert sorted(tier.keys()) == list("abcdefghi")

    @both
    def test_within_its_bound_a_tier_names_none(self, storage: Storage, policy: str) -> None:
        """Nor without one."""
        assert self._victims(self._filled(storage, policy, "abc", limit=3)) == []
        with storage.beside("unbounded") as other:
            assert self._victims(other.open(eviction_policy=policy)) == []
        with storage.beside("none") as other:
            assert self._victims(self._filled(other, policy, "abc", limit=None)) == []

    @both
    def test_discarding_the_victims_makes_room(self, storage: Storage, policy: str) -> None:
        """As the engine does after each write."""
        tier = self._filled(storage, policy, "abcd", limit=2)
        for victim in tier.overflow():
            assert tier.get(victim.key) == victim
            assert tier.discard(victim)
        assert tier.overflow() == []
        assert sorted(tier.keys()) == ["c", "d"]

    def test_under_lru_what_was_read_is_named_last(self, storage: Storage) -> None:
        """The least recently used goes first."""
        tier = self._filled(storage, "lru", "abcd", limit=1)
        self._use(tier, storage, "b")
        self._use(tier, storage, "a")
        assert self._victims(tier) == ["c", "d", "b"]

    def test_under_fifo_reading_changes_nothing(self, storage: Storage) -> None:
        """First in, first out."""
        tier = self._filled(storage, "fifo", "abcd", limit=1)
        self._use(tier, storage, "b")
        self._use(tier, storage, "a")
        assert self._victims(tier) == ["a", "b", "c"]

    @both
    def test_a_record_written_again_is_new(self, storage: Storage, policy: str) -> None:
        """Under both policies."""
        tier = self._filled(storage, policy, "abcd", limit=2)
        tier.put(self._written(storage, "a"))
        assert self._victims(tier) == ["b", "c"]

    @both
    def test_what_is_gone_is_not_named(self, storage: Storage, policy: str) -> None:
        """Deleted, discarded or put again later."""
        tier = self._filled(storage, policy, "abcdef", limit=1)
        tier.delete("a", stamp(100))
        held = tier.get("b")
        assert held is not None
        tier.discard(held)
        tier.put(self._written(storage, "b"))
        assert sorted(self._victims(tier)[:3]) == ["c", "d", "e"]
        assert len(self._victims(tier)) == 4

    def test_the_order_outlives_a_restart(self, storage: Storage) -> None:
        """Under lru that of the last reads, as stored with each row; under fifo that of the versions."""
        if not storage.claims(Trait.PERSISTENT):
            pytest.skip("not PERSISTENT")
        tier = storage.open(eviction_policy="lru", max_entries=1)
        records = {key: self._written(storage, key) for key in "abcde"}
        assert tier.put_many([records[key] for key in "dbeca"]) == [None] * 5
        self._use(tier, storage, "b")
        self._use(tier, storage, "a")
        tier = storage.reopen(eviction_policy="lru", max_entries=1)
        assert self._victims(tier) == ["c", "d", "e", "b"], (
            "lru goes by last_accessed, also after a restart: see CacheTier.overflow"
        )
        self._use(tier, storage, "c")
        assert self._victims(tier) == ["d", "e", "b", "a"]
        tier = storage.reopen(eviction_policy="fifo", max_entries=1)
        assert self._victims(tier) == ["a", "b", "c", "d"], (
            "fifo goes by version, also after a restart: see CacheTier.overflow"
        )

    def _filled(self, storage: Storage, policy: str, keys: str, limit: int | None) -> CacheTier[Any]:
        tier = storage.open(eviction_policy=policy, max_entries=limit)
        for key in keys:
            assert tier.put(self._written(storage, key)) is None
        return tier

    @staticmethod
    def _written(storage: Storage, key: str) -> Any:
        storage.clock.advance(1)
        return storage.record(key, stamp(storage.clock.wall() - NOW))

    @staticmethod
    def _use(tier: CacheTier[Any], storage: Storage, key: str) -> None:
        """A live tier learns of a use by `get`, any other by `touch_many`."""
        storage.clock.advance(1)
        assert tier.get(key) is not None
        tier.touch_many({key: Delta(1, storage.clock.wall())})

    @staticmethod
    def _victims(tier: CacheTier[Any]) -> list[str]:
        return [record.key for record in tier.overflow()]
