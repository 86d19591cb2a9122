"""Contract: writes of a key are ordered by version."""

from __future__ import annotations

from typing import Any

from tierkit.testing.records import FAR
from tierkit.testing.storage import Storage
from tierkit.tier import CacheTier


class Versions:
    """Writes of a key are ordered by version."""

    def test_a_newer_version_replaces_an_older_one(self, tier: CacheTier[Any], storage: Storage) -> None:
        """And is the only one held."""
        assert tier.put(storage.record(version=1, number=1)) is None
        assert tier.put(storage.record(version=2, number=2)) is None
        assert list(tier.scan()) == [storage.record(version=2, number=2)]
        assert tier.size() == 1

    def test_an_older_version_never_wins(self, tier: CacheTier[Any], storage: Storage) -> None:
        """The answer is the version that refused, not the one that came."""
        held = storage.record(version=7, number=7)
        tier.put(held)
        for version in (1, 5, 6):
            assert tier.put(storage.record(version=version, number=version)) == 7
        assert tier.get("key") == held

    def test_an_equal_version_with_equal_content_is_taken(self, tier: CacheTier[Any], storage: Storage) -> None:
        """A write may be repeated."""
        held = storage.record(version=7, text="a", number=None)
        for _ in range(3):
            assert tier.put(storage.record(version=7, text="a")) is None
            assert tier.get("key") == held

    def test_an_equal_version_with_other_content_is_refused(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Two writers gave one stamp: the second must learn of it."""
        held = storage.record(version=7, text="a", number=1, purge_at=FAR)
        tier.put(held)
        others = (
            storage.record(version=7, text="b", number=1),
            storage.record(version=7, text="a"),
            storage.record(version=7, text="a", number=1, data=b""),
            storage.record(version=7, text="a", number=1, purge_at=FAR + 0.5),
        )
        for other in others:
            assert tier.put(other) == 7
            assert tier.get("key") == held

    def test_keys_are_ordered_each_by_itself(self, tier: CacheTier[Any], storage: Storage) -> None:
        """A high version of one key says nothing about another."""
        tier.put(storage.record("new", 9))
        tier.delete("gone", 8)
        assert tier.put(storage.record("old", 1)) is None
        assert tier.get("old") == storage.record("old", 1)

    def test_a_delete_removes_up_to_its_version(self, tier: CacheTier[Any], storage: Storage) -> None:
        """At the version held or above it is taken."""
        for version in (5, 6, 9):
            key = f"key {version}"
            tier.put(storage.record(key, 5))
            assert tier.delete(key, version) is None
            assert tier.get(key) is None
        assert tier.size() == 0

    def test_an_older_delete_is_refused(self, tier: CacheTier[Any], storage: Storage) -> None:
        """By the version held, which stays."""
        held = storage.record(version=5)
        tier.put(held)
        for version in (1, 4):
            assert tier.delete("key", version) == 5
        assert tier.get("key") == held

    def test_a_delete_can_be_repeated(self, tier: CacheTier[Any], storage: Storage) -> None:
        """At one version any number of times."""
        tier.put(storage.record(version=5))
        for _ in range(3):
            assert tier.delete("key", 5) is None

    def test_replace_puts_only_over_the_expected_version(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Compare and set."""
        first, second, third = (storage.record(version=n, number=n) for n in (1, 2, 3))
        assert tier.replace(first, 0)
        assert not tier.replace(second, 0), "a record is held"
        assert not tier.replace(third, 2), "version 1 is held"
        assert tier.get("key") == first
        assert tier.replace(second, 1)
        assert not tier.replace(third, 1), "version 2 is held"
        assert tier.get("key") == second

    def test_replace_of_what_is_not_held_needs_the_expectation_of_none(
        self, tier: CacheTier[Any], storage: Storage
    ) -> None:
        """0 stands for none, also after a deletion."""
        assert not tier.replace(storage.record(version=2), 1)
        tier.put(storage.record(version=3))
        tier.delete("key", 3)
        assert not tier.replace(storage.record(version=4), 3)
        assert tier.get("key") is None
        assert tier.replace(storage.record(version=4), 0)

    def test_replace_obeys_versions_and_marks(self, tier: CacheTier[Any], storage: Storage) -> None:
        """The right expectation does not let an older version win."""
        held = storage.record(version=5, number=5)
        tier.put(held)
        assert not tier.replace(storage.record(version=4, number=4), 5)
        assert not tier.replace(storage.record(version=5, number=4), 5)
        assert tier.get("key") == held
        tier.delete("key", 7)
        assert not tier.replace(storage.record(version=7), 0)
        assert tier.get("key") is None

    def test_discard_removes_only_the_version_it_names(self, tier: CacheTier[Any], storage: Storage) -> None:
        """A newer record that came in between stays."""
        old, new = storage.record(version=1), storage.record(version=2)
        assert not tier.discard(old)
        tier.put(new)
        assert not tier.discard(old)
        assert not tier.discard(storage.record(version=3))
        assert not tier.discard(storage.record("other", 2))
        assert tier.get("key") == new
        assert tier.discard(new)
        assert tier.get("key") is None
        assert tier.size() == 0
        assert not tier.discard(new)

    def test_the_highest_version_is_known(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Of all records, and of all writes that were taken."""
        for version in (3, 9, 5):
            tier.put(storage.record(f"key {version}", version))
        tier.put(storage.record("key 9", 4))
        assert tier.highest_version() == 9
