"""Order, versions and lateness of single writes."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.core.engine.support import Note, World, held, note, tier, where

from tierkit import CacheManager, TierUnavailable
from tierkit.testing import FakeClock

THREE = ("live", "disk", "disk")


@pytest.mark.parametrize("method", ["put", "delete"])
def test_a_write_goes_bottom_up(world: World, method: str) -> None:
    cache = world.open("live", "live", "disk", "disk", "disk")
    world.calls.clear()
    cache.put(note("a")) if method == "put" else cache.delete("a")
    assert [level for level, _ in world.calls_of(method)] == ["L5", "L4", "L3", "L2", "L1"]


def test_a_bulk_put_and_a_clear_go_bottom_up(world: World) -> None:
    cache = world.open("live", "disk", "disk", "disk")
    world.calls.clear()
    cache.put_many([note("a")])
    assert [level for level, _ in world.calls_of("put", "put_many")] == ["L4", "L3", "L2", "L1"]
    world.calls.clear()
    cache.clear()
    assert [level for level, _ in world.calls_of("delete_many", "clear")] == ["L4", "L3", "L2", "L1"]


def test_an_interrupt_between_two_levels_leaves_nothing_but_the_truth(world: World) -> None:
    cache = world.open(*THREE)
    cache.put(note("a", "old"))

    def crash() -> None:
        raise KeyboardInterrupt

    tier(cache, "L2").before("put", crash)
    with pytest.raises(KeyboardInterrupt):
        cache.put(note("a", "new"))
    assert where(cache, "a") == {"L3": "new"}


@pytest.mark.req("US1-4")
def test_putting_an_existing_key_updates_its_metadata_everywhere(world: World, clock: FakeClock) -> None:
    cache = world.open(*THREE)
    first = cache.put(note("a", source="one", ttl_seconds=60))
    clock.advance(1)
    second = cache.put(first.evolve(source="two", ttl_seconds=120))
    assert second.version > first.version
    assert (second.created_at, second.fetch_time) == (first.created_at, first.fetch_time)
    assert second.updated_at is not None
    assert first.updated_at is not None
    assert (second.updated_at - first.updated_at).total_seconds() == 1
    for name in ("L2", "L3"):
        row = tier(cache, name).tier.get("a")
        assert row is not None
        assert (row.version, row.columns["source"], row.columns["ttl_seconds"]) == (second.version, "two", 120)
    assert cache.get("a") == second
    assert world.reopen(*THREE).get("a") == second


def test_a_refused_write_is_stamped_above_what_refused(world: World) -> None:
    cache = world.open(*THREE)
    ahead = world.open("live", "disk", "disk")
    for _ in range(3):
        ahead._stack.versions.observe(ahead._stack.versions.next() + 2**40)  # a clock that is ahead by a quarter hour
        other = ahead.put(note("a", "theirs"))
        mine = cache.put(note("a", "mine"))
        assert mine.version > other.version
        assert cache.get("a") == mine
        assert where(cache, "a") == {"L1": "mine", "L2": "mine", "L3": "mine"}


def test_a_write_after_a_deletion_by_a_clock_that_is_ahead_is_stamped_above_it(world: World) -> None:
    cache = world.open("disk")
    ahead = world.open("disk")
    ahead._stack.versions.observe(ahead._stack.versions.next() + 2**40)
    ahead.delete("a")
    cache.put(note("a", "mine"))
    assert held(cache, "L1", "a") == "mine"
    ahead.put(note("a", "theirs"))
    cache.delete("a")
    assert held(cache, "L1", "a") is None


def test_a_deletion_that_was_refused_is_stamped_again(world: World) -> None:
    cache = world.open(*THREE)
    ahead = world.open(*THREE)
    ahead._stack.versions.observe(ahead._stack.versions.next() + 2**40)
    ahead.put(note("a", "theirs"))
    assert cache.delete("a")
    assert where(cache, "a") == {}


def test_a_level_above_that_refuses_keeps_the_newer_record(world: World) -> None:
    cache = world.open("disk", "disk")
    tier(cache, "L2").after("put", lambda: cache.put(note("a", "newer")))
    cache.put(note("a", "older"))
    assert where(cache, "a") == {"L1": "newer", "L2": "newer"}


def test_a_late_write_is_stamped_again_before_the_authority(world: World, clock: FakeClock) -> None:
    cache = world.open(*THREE, late_seconds=10)
    authority = tier(cache, "L3")
    stack = cache._stack
    delete: list[Callable[[], Any]] = [lambda: None]

    real = stack.sealer.seal

    class Slow:
        """Sealing takes longer than a mark lasts, and meanwhile another deletes the key."""

        schema = stack.sealer.schema
        restamp, open, verify = stack.sealer.restamp, stack.sealer.open, stack.sealer.verify

        def seal(self, entry: Any) -> Any:
            row = real(entry)
            authority.tier.delete("a", entry.version + 1024)
            clock.advance(10.001)
            delete.append(lambda: None)
            return row

    vars(stack)["sealer"] = Slow()
    cache.put(note("a", "x"))
    puts = [record.version for level, method, record in world.calls if (level, method) == ("L3", "put")]
    assert len(puts) == 1  # a stamp from before the deletion was never tried
    assert held(cache, "L3", "a") == "x"


def late_in_the_authority(world: World, clock: FakeClock, method: str) -> CacheManager[Note]:
    cache = world.open(*THREE, late_seconds=10)
    cache.put(note("a", "old"))
    tier(cache, "L3").after(method, lambda: clock.advance(10.001))
    return cache


def test_a_late_put_drops_what_is_older_above_the_authority_instead_of_writing(world: World, clock: FakeClock) -> None:
    cache = late_in_the_authority(world, clock, "put")
    cache.put(note("a", "new"))
    assert where(cache, "a") == {"L3": "new"}
    entry = cache.get("a")
    assert entry is not None
    assert entry.text == "new"


def test_a_late_put_leaves_a_mark_against_an_older_promotion(world: World, clock: FakeClock) -> None:
    cache = late_in_the_authority(world, clock, "put")
    old = tier(cache, "L2").tier.get("a")
    cache.put(note("a", "new"))
    assert tier(cache, "L2").tier.put(old) is not None
    assert held(cache, "L2", "a") is None


def test_a_late_deletion_reaches_every_level(world: World, clock: FakeClock) -> None:
    cache = late_in_the_authority(world, clock, "delete")
    cache.delete("a")
    assert where(cache, "a") == {}


def test_a_deletion_leaves_a_mark_in_every_stored_level(world: World) -> None:
    cache = world.open(*THREE)
    cache.put(note("a", "x"))
    rows = {name: tier(cache, name).tier.get("a") for name in ("L2", "L3")}
    cache.delete("a")
    assert all(tier(cache, name).tier.put(row) is not None for name, row in rows.items())
    cache.delete("b")  # never held, and yet a promotion of it may be on its way
    assert all(tier(cache, name).tier.put(row) is not None for name, row in rows.items())


@pytest.mark.req("E-3")
def test_nothing_can_be_written_while_the_only_persistent_level_is_out_of_service(world: World) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a", "x"))
    cache.levels[-1].take_out(OSError("gone"))
    world.calls.clear()
    for write in (
        lambda: cache.put(note("a", "y")),
        lambda: cache.put_many([note("a", "y")]),
        lambda: cache.delete("a"),
        cache.clear,
        lambda: cache.invalidate_by_health("a"),
    ):
        with pytest.raises(TierUnavailable, match="L2"):
            write()
    assert not world.calls_of("put", "put_many", "delete", "delete_many", "clear", "replace")
    entry = cache.get("a")
    assert entry is not None
    assert entry.text == "x"


def test_an_authority_that_always_refuses_is_an_error_and_not_a_loop(world: World) -> None:
    cache = world.open("disk")
    vars(tier(cache, "L1").tier)["put"] = lambda row: row.version + 1
    with pytest.raises(TierUnavailable, match="refused 64 stamps"):
        cache.put(note("a"))


def test_the_version_of_a_damaged_record_does_not_block_its_key(world: World) -> None:
    cache = world.open("live", "disk")
    tier(cache, "L2").tier.delete("a", 2**63 - 2**42)
    before = cache._stack.versions.next()
    put = cache.put(note("a", "x"))
    assert put.version > 2**63 - 2**42
    assert world.reopen("live", "disk").get("a") == put
    assert world.caches[0]._stack.versions.next() < before + 2**40  # the clock was not pulled along


def test_a_cache_in_memory_alone_keeps_the_rules_of_versions(world: World) -> None:
    cache = world.open("live")
    tier(cache, "L1").before("put", lambda: cache.put(note("a", "newer")))
    cache.put(note("a", "older"))
    assert where(cache, "a") == {"L1": "newer"}
    tier(cache, "L1").fail("put")
    with pytest.raises(TierUnavailable):
        cache.put(note("a", "lost"))
    tier(cache, "L1").heal()
    assert where(cache, "a") == {"L1": "newer"}


def test_an_interrupt_between_the_authority_and_l1_leaves_no_old_copy_in_l1(world: World) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a", "old"))

    def interrupt() -> None:
        raise KeyboardInterrupt

    tier(cache, "L1").before("put", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.put(note("a", "new"))
    entry = cache.get("a")
    assert entry is not None
    assert entry.text == "new"
    tier(cache, "L1").before("delete", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.delete("a")
    assert cache.get("a") is None


def test_clear_also_keeps_out_of_the_authority_what_only_a_level_above_has(world: World) -> None:
    cache = world.open("disk", "disk")
    cache.put(note("a"))
    authority = tier(cache, "L2").tier
    row = authority.get("a")
    assert row is not None
    authority.discard(row)
    cache.clear()
    assert authority.put(row) is not None
    assert cache.get("a") is None


def test_a_write_that_is_outdated_in_a_level_does_not_go_to_those_above(world: World) -> None:
    cache = world.open("disk", "disk", "disk")
    lowest, middle = tier(cache, "L3"), tier(cache, "L2")

    def deleted_by_one_who_dies() -> None:
        row: Any = lowest.tier.get("a")
        for level in (lowest.tier, middle.tier):
            assert level.delete("a", row.version + 1) is None

    lowest.after("put", deleted_by_one_who_dies)
    cache.put(note("a", "outdated"))
    assert where(cache, "a") == {}
    cache.put(note("a", "new"))
    assert where(cache, "a") == {"L1": "new", "L2": "new", "L3": "new"}
