"""Contract: a late write undoes neither a deletion nor a discard."""

from __future__ import annotations

from typing import Any

import pytest

from tierkit.testing.records import stamp
from tierkit.testing.storage import Storage
from tierkit.tier import CacheTier, Trait, purge_steps

KEPT = 900.0
TAGS = (0, 1, 127, 128, 129, 255, 256, 511, 1023)
"""Of versions that a double rounds up, down or not at all."""


class Marks:
    """A late write undoes neither a deletion nor a discard."""

    def test_a_late_write_does_not_undo_a_deletion(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Not even one with the version of the deletion."""
        tier.put(storage.record(version=3))
        tier.delete("key", 5)
        for version in (3, 4, 5):
            assert tier.put(storage.record(version=version)) == 5
            assert tier.get("key") is None
        assert tier.size() == 0
        assert tier.put(storage.record(version=6)) is None

    def test_a_deletion_of_a_key_never_held_is_known(self, tier: CacheTier[Any], storage: Storage) -> None:
        """The write that it deletes may come after it."""
        assert tier.delete("key", 5) is None
        assert tier.get("key") is None
        assert tier.put(storage.record(version=5)) == 5
        assert tier.put(storage.record(version=6)) is None

    def test_an_older_deletion_is_refused_by_a_newer_one(self, tier: CacheTier[Any], storage: Storage) -> None:
        """And does not lower the mark."""
        tier.delete("key", 9)
        assert tier.delete("key", 5) == 9
        assert tier.put(storage.record(version=7)) == 9

    def test_a_newer_deletion_raises_the_mark(self, tier: CacheTier[Any], storage: Storage) -> None:
        """The highest counts."""
        tier.delete("key", 5)
        assert tier.delete("key", 9) is None
        assert tier.put(storage.record(version=9)) == 9
        assert tier.put(storage.record(version=10)) is None

    def test_the_answer_names_the_newest_that_is_known(self, tier: CacheTier[Any], storage: Storage) -> None:
        """The record, where one was put after the deletion."""
        tier.delete("key", 5)
        tier.put(storage.record(version=9))
        for version in (3, 5, 8):
            assert tier.put(storage.record(version=version)) == 9
            assert tier.delete("key", version) == 9

    def test_a_deletion_is_kept_to_the_last_bit(self, tier: CacheTier[Any], storage: Storage) -> None:
        """At versions as the engine makes them, which no double holds: exactly v is refused, and v + 1 taken."""
        for tag in TAGS:
            key, version = f"key {tag}", stamp(1.0, tag)
            assert tier.delete(key, version) is None
            assert tier.delete(key, version - 1) == version, "a mark is a 64-bit integer: see CacheTier.delete"
            assert tier.put(storage.record(key, version)) == version, "a mark is a 64-bit integer: see CacheTier.delete"
            assert tier.put(storage.record(key, version + 1)) is None, (
                "delete(key, v) sets the mark to v + 1 exactly, so v + 1 is taken: see CacheTier.delete"
            )

    def test_a_discard_is_kept_to_the_last_bit(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Exactly v - 1 is refused, and v taken, or v + 1 where the mark is that of a deletion."""
        next_taken = 1 if type(tier).discard is CacheTier.discard else 0
        for tag in TAGS:
            evicted = storage.record(f"key {tag}", stamp(1.0, tag))
            tier.put(evicted)
            assert tier.discard(evicted)
            refused = tier.put(storage.record(evicted.key, evicted.version - 1))
            assert refused is not None, "discard(record) must leave the mark of its version: see CacheTier.discard"
            assert tier.put(storage.record(evicted.key, evicted.version + next_taken)) is None, (
                "discard(record) must leave no higher mark than its version: see CacheTier.discard"
            )

    def test_the_highest_version_counts_deletions(self, tier: CacheTier[Any], storage: Storage) -> None:
        """The next write must be above them, though nothing is held."""
        tier.put(storage.record("held", 3))
        tier.delete("deleted", 9)
        assert 9 <= tier.highest_version() <= 10, "a mark counts: see CacheTier.highest_version"

    def test_a_late_write_does_not_undo_a_discard(self, tier: CacheTier[Any], storage: Storage) -> None:
        """An older record than the one that was evicted stays out."""
        evicted = storage.record(version=5)
        tier.put(evicted)
        assert tier.discard(evicted)
        for version in (1, 4):
            refused = tier.put(storage.record(version=version))
            assert refused is not None
            assert refused >= version
            assert tier.get("key") is None
        assert tier.put(storage.record(version=6)) is None

    def test_what_was_discarded_may_come_back(self, tier: CacheTier[Any], storage: Storage) -> None:
        """The same version: it lives on in another tier."""
        if type(tier).discard is CacheTier.discard:
            pytest.skip("the default of discard sets the mark of a deletion")
        evicted = storage.record(version=5, text="a")
        tier.put(evicted)
        for _ in range(3):
            assert tier.discard(evicted)
            assert tier.put(evicted) is None
            assert tier.get("key") == evicted

    def test_a_discard_that_removes_nothing_sets_no_mark(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Nothing is known of the key."""
        tier.discard(storage.record(version=5))
        assert tier.put(storage.record(version=1)) is None
        assert tier.get("key") is not None

    def test_marks_are_kept_as_long_as_they_must(self, storage: Storage) -> None:
        """`tombstone_seconds`, however often the tier is purged meanwhile."""
        tier = storage.open(tombstone_seconds=KEPT)
        self._mark(tier, storage)
        for _ in range(2):
            storage.clock.advance(KEPT / 2 - 1)
            assert tier.purge(storage.clock.wall()) == 0
        assert tier.put(storage.record("deleted", 5)) == 5
        assert tier.put(storage.record("discarded", 4)) is not None

    def test_marks_are_forgotten_in_time(self, storage: Storage) -> None:
        """Else they would fill the storage."""
        tier = storage.open(tombstone_seconds=KEPT)
        self._mark(tier, storage)
        storage.clock.advance(KEPT + 1)
        assert tier.purge(storage.clock.wall()) == 0
        assert tier.put(storage.record("deleted", 1)) is None
        assert tier.put(storage.record("discarded", 1)) is None

    def test_purge_goes_by_its_argument(self, storage: Storage) -> None:
        """For records and marks, wherever the clock stands."""
        tier = storage.open(tombstone_seconds=KEPT)
        now = storage.clock.wall()
        self._mark(tier, storage)
        record = storage.record("due", 5, purge_at=now + 50)
        tier.put(record)
        if not storage.claims(Trait.NATIVE_TTL):
            storage.clock.advance(100)
        assert tier.purge(now + 49) == 0, "nothing is due at the `now` it was given: see CacheTier.purge"
        assert tier.get("due") == record
        assert tier.put(storage.record("deleted", 5)) == 5
        purged = tier.purge(now + KEPT + 200)
        assert purged == 1 or storage.claims(Trait.NATIVE_TTL), (
            "a record is due at the `now` it was given: see CacheTier.purge"
        )
        assert tier.put(storage.record("deleted", 1)) is None, (
            "a mark of `tombstone_seconds` ago must be forgotten, by the `now` it was given: see CacheTier.purge"
        )
        assert tier.put(storage.record("discarded", 1)) is None

    def test_a_mark_renewed_is_kept_anew(self, storage: Storage) -> None:
        """Its time starts with the last deletion."""
        tier = storage.open(tombstone_seconds=KEPT)
        tier.delete("key", 5)
        storage.clock.advance(KEPT - 1)
        tier.delete("key", 6)
        storage.clock.advance(KEPT - 1)
        tier.purge(storage.clock.wall())
        assert tier.put(storage.record(version=6)) == 6

    def test_forgetting_a_mark_loses_no_record(self, storage: Storage) -> None:
        """A record put over a mark stays when the mark goes."""
        tier = storage.open(tombstone_seconds=KEPT)
        tier.delete("key", 5)
        record = storage.record(version=6, purge_at=storage.clock.wall() + 10 * KEPT)
        tier.put(record)
        storage.clock.advance(KEPT + 1)
        assert tier.purge(storage.clock.wall()) == 0
        assert tier.get("key") == record

    def test_purge_removes_what_is_due_and_nothing_else(self, storage: Storage) -> None:
        """A deadline has come when it is now."""
        tier = storage.open()
        now = storage.clock.wall()
        records = {n: storage.record(f"key {n}", 2, purge_at=now + n) for n in (-10_000, -5, 0, 1, 1000)}
        for record in records.values():
            tier.put(record)
        purged = tier.purge(now)
        if storage.claims(Trait.NATIVE_TTL):
            assert purged <= 3
        else:
            assert purged == 3
        assert tier.purge(now) == 0
        assert {record.key for record in tier.scan()} == {"key 1", "key 1000"}
        for n in (0, -10_000):
            assert tier.put(storage.record(f"key {n}", 1)) is not None, (
                "a purge is a discard: it sets a mark, which is young: see CacheTier.purge"
            )

    def test_a_purge_in_steps_is_a_purge_that_leaves_room_between(self, storage: Storage) -> None:
        """Between two steps the tier may be used, and a purge that is not ended has done what it told of."""
        tier = storage.open()
        now = storage.clock.wall()
        for number in range(5):
            tier.put(storage.record(f"due {number}", 2, purge_at=now))
        removed = 0
        for number, step in enumerate(purge_steps(tier, now)):
            removed += step
            assert tier.put(storage.record(f"new {number}", 2)) is None
            assert tier.size() >= number + 1
        assert removed == 5 or storage.claims(Trait.NATIVE_TTL), "steps must tell of all that they removed"
        assert not [record.key for record in tier.scan() if record.key.startswith("due")]
        next(purge_steps(tier, now + 1), None)
        assert list(purge_steps(tier, now + 1))[:1] in ([0], []), "nothing is due any more"

    def test_only_a_purge_looks_at_deadlines(self, tier: CacheTier[Any], storage: Storage) -> None:
        """A tier does no arithmetic of life times."""
        if storage.claims(Trait.NATIVE_TTL):
            pytest.skip("NATIVE_TTL: it drops records by itself")
        record = storage.record(purge_at=storage.clock.wall() + 1)
        tier.put(record)
        storage.clock.advance(5)
        assert tier.get("key") == record
        assert tier.size() == 1
        assert tier.put(storage.record("late", purge_at=storage.clock.wall() - 1)) is None
        assert tier.get("late") is not None

    def test_clear_deletes_everything(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Each record at its own version."""
        for n in range(1, 6):
            tier.put(storage.record(f"key {n}", n))
        tier.clear()
        assert tier.size() == 0
        assert list(tier.scan()) == []
        assert tier.put(storage.record("key 3", 3)) == 3
        assert tier.put(storage.record("key 3", 4)) is None

    def test_compacting_changes_nothing_that_can_be_asked_for(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Records, usage and marks stay; the next writes go on from there."""
        for n in range(1, 6):
            tier.put(storage.record(f"key {n}", n, number=1))
        tier.put(storage.record("key 1", 9, number=2))
        self._mark(tier, storage)
        held = {record.key: record for record in tier.scan()}
        tier.compact()
        tier.compact()
        assert {record.key: record for record in tier.scan()} == held
        assert tier.get("key 1") == storage.record("key 1", 9, number=2)
        assert tier.put(storage.record("deleted", 5)) is not None
        assert tier.put(storage.record("key 1", 8)) == 9
        assert tier.put(storage.record("key 1", 10)) is None
        assert tier.size() == 5

    def _mark(self, tier: CacheTier[Any], storage: Storage) -> None:
        tier.delete("deleted", 5)
        discarded = storage.record("discarded", 5)
        tier.put(discarded)
        tier.discard(discarded)
