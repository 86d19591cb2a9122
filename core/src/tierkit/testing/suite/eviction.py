"""Contract: a tier names victims, and removes none."""

from __future__ import annotations

from typing import Any

import pytest

from tierkit.errors import CacheConfigError
from tierkit.eviction import EVICTION_POLICIES
from tierkit.row import Delta
from tierkit.testing.clock import NOW
from tierkit.testing.records import stamp
from tierkit.testing.storage import Storage
from tierkit.tier import CacheTier, Trait

both = pytest.mark.parametrize("policy", ["lru", "fifo"])
each = pytest.mark.parametrize("policy", sorted(EVICTION_POLICIES))


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

    @each
    def test_to_evict_is_to_discard_the_victims(self, storage: Storage, policy: str) -> None:
        """Those that `overflow` names, in their order, at once."""
        tier = self._opened(storage, policy, limit=2)
        tier.put_many([self._written(storage, key) for key in "abcde"])
        named = tier.overflow()
        evicted = tier.evict()
        assert [(record.key, record.version) for record in evicted] == [
            (record.key, record.version) for record in named
        ], "evict discards what overflow names: see CacheTier.evict"
        assert tier.evict() == tier.overflow() == []
        assert tier.size() == 2, "evict discards what overflow names: see CacheTier.evict"
        for record in evicted:
            assert tier.get(record.key) is None
            refused = tier.put(storage.record(record.key, record.version - 1))
            assert refused is not None, "evict leaves the marks of a discard: see CacheTier.evict"

    @each
    def test_the_bound_holds_after_each_eviction(self, storage: Storage, policy: str) -> None:
        """Among writes, reads and deletions."""
        tier = self._opened(storage, policy, limit=5)
        for number in range(60):
            key = f"key {number % 17}"
            tier.put(self._written(storage, key))
            tier.evict()
            assert tier.size() <= 5
            if number % 3 == 0 and tier.get(key) is not None:
                self._use(tier, storage, key)
            if number % 7 == 0:
                tier.delete(key, stamp(storage.clock.wall() - NOW + 0.5))
        assert tier.size() == 5

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

    # -- whatever the policy: those that a tier does not have it refuses ---------------------------------------------

    def test_a_policy_that_does_not_exist_is_refused(self, storage: Storage) -> None:
        """When the tier is opened, or at the latest when it is asked for victims."""
        with pytest.raises(CacheConfigError):
            storage.open(eviction_policy="no such policy", max_entries=1).overflow()

    @each
    def test_the_bound_holds_whenever_victims_are_discarded(self, storage: Storage, policy: str) -> None:
        """Each is held, none twice, and asking again gives the same."""
        tier = self._opened(storage, policy, limit=5)
        for number in range(40):
            tier.put(self._written(storage, f"key {number % 17}"))
            self._use(tier, storage, f"key {number % 17}")
            self._settled(tier)
            assert tier.size() == min(number + 1, 5)

    @each
    def test_the_bound_holds_after_a_bulk_put(self, storage: Storage, policy: str) -> None:
        """Of many times as many records as there is room for."""
        tier = self._opened(storage, policy, limit=4)
        tier.put_many([self._written(storage, f"key {number}") for number in range(50)])
        assert self._settled(tier) == 46
        assert tier.size() == 4

    @each
    def test_the_bound_holds_after_deletions_and_a_purge(self, storage: Storage, policy: str) -> None:
        """What went otherwise is not named."""
        tier = self._opened(storage, policy, limit=4)
        for number in range(12):
            tier.put(self._written(storage, f"key {number}"))
            self._settled(tier)
        for key in list(tier.keys())[:2]:
            tier.delete(key, stamp(10_000))
        tier.put(storage.record("due", stamp(20_000), purge_at=storage.clock.wall() - 1))
        tier.purge(storage.clock.wall())
        tier.put_many([self._written(storage, f"new {number}") for number in range(4)])
        assert self._settled(tier) == 2
        tier.clear()
        tier.put_many([self._written(storage, f"newest {number}", later=40_000) for number in range(6)])
        assert self._settled(tier) == 2

    @each
    def test_what_is_used_again_and_again_stays(self, storage: Storage, policy: str) -> None:
        """Unless the policy looks at no reads."""
        tier = self._opened(storage, policy, limit=10)
        tier.put(self._written(storage, "hot"))
        for number in range(60):
            tier.put(self._written(storage, f"key {number}"))
            if tier.get("hot") is not None:
                self._use(tier, storage, "hot")
            self._settled(tier)
        assert (tier.get("hot") is None) is (policy == "fifo")

    @each
    def test_the_bound_holds_after_a_restart_and_beside_another_opening(self, storage: Storage, policy: str) -> None:
        """For keys that this opening has neither written nor read, too."""
        if not storage.claims(Trait.PERSISTENT):
            pytest.skip("not PERSISTENT")
        self._opened(storage, policy, limit=None).put_many([self._written(storage, key) for key in "abcdef"])
        tier = storage.reopen(eviction_policy=policy, max_entries=4)
        assert self._settled(tier) == 2
        if storage.claims(Trait.SHARED):
            other = storage.open()
            for key in list(other.keys())[:2]:
                other.delete(key, stamp(10_000))
            other.put_many([self._written(storage, key) for key in "ghijk"])
        tier.put(self._written(storage, "l"))
        self._settled(tier)
        assert tier.size() == 4

    def _opened(self, storage: Storage, policy: str, limit: int | None) -> CacheTier[Any]:
        try:
            with storage.beside("policy") as other:
                other.open(eviction_policy=policy, max_entries=1).overflow()
        except CacheConfigError:
            pytest.skip(f"it does not have {policy}")
        return storage.open(eviction_policy=policy, max_entries=limit)

    @staticmethod
    def _settled(tier: CacheTier[Any]) -> int:
        """Make room as the engine does; answer how many records went."""
        size = tier.size()
        victims = tier.overflow()
        keys = [victim.key for victim in victims]
        assert len(set(keys)) == len(keys), "a record is named twice: see CacheTier.overflow"
        assert [victim.key for victim in tier.overflow()] == keys, (
            "asked again, it names others: see CacheTier.overflow"
        )
        assert tier.size() == size, "overflow removes none: see CacheTier.overflow"
        for victim in victims:
            assert tier.discard(victim), "a victim is named that is not held: see CacheTier.overflow"
        return len(victims)

    def _filled(self, storage: Storage, policy: str, keys: str, limit: int | None) -> CacheTier[Any]:
        tier = storage.open(eviction_policy=policy, max_entries=limit)
        for key in keys:
            assert tier.put(self._written(storage, key)) is None
        return tier

    @staticmethod
    def _written(storage: Storage, key: str, later: float = 0.0) -> Any:
        storage.clock.advance(1)
        return storage.record(key, stamp(storage.clock.wall() - NOW + later))

    @staticmethod
    def _use(tier: CacheTier[Any], storage: Storage, key: str) -> None:
        """A live tier learns of a use by `get`, any other by `touch_many`."""
        storage.clock.advance(1)
        assert tier.get(key) is not None
        tier.touch_many({key: Delta(1, storage.clock.wall())})

    @staticmethod
    def _victims(tier: CacheTier[Any]) -> list[str]:
        return [record.key for record in tier.overflow()]
