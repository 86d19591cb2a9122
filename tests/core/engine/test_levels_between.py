"""Levels between the one that holds a write and the authority, and those that return alone: nothing old comes back."""

import logging
from typing import Any

import pytest
from tests.core.engine.support import Note, World, held, note, tier, where

from tierkit import CacheEntry, CacheManager, TierFull, TierUnavailable
from tierkit.testing import FakeClock

FOUR = ("live", ("disk", 5), "disk", "disk")
BEHIND: list[dict[str, Any]] = [{"backend": "live"}, {"backend": "disk"}, {"backend": "disk", "write_policy": "behind"}]
BEHIND_FOUR = [*BEHIND[:2], *BEHIND[1:]]
Cache = CacheManager[Note]


def take_out(cache: Cache, name: str, *, failing: bool = True) -> None:
    if failing:
        tier(cache, name).fail()
    next(level for level in cache.levels if level.name == name).take_out(TierUnavailable("away"))


def below_l1(cache: Cache, key: str = "a") -> str | None:
    """What a get answers that L1 knows nothing of."""
    cache.levels[0].empty()
    found = cache.get(key)
    return None if found is None else found.text


# -- what an owed write leaves in the levels that it passed by ---------------------------------------------------------


@pytest.mark.req("E-2")
@pytest.mark.parametrize("act", ["put", "delete"])
def test_a_write_that_waited_leaves_nothing_older_in_a_level_that_had_been_out_when_it_was_made(
    world: World, act: str
) -> None:
    cache = world.open(*FOUR)
    cache.put(note("a", "old"))
    take_out(cache, "L3")
    take_out(cache, "L4")
    cache.put(note("a", "new")) if act == "put" else cache.delete("a")
    cache.close()
    world.caches.clear()
    cache = world.open(*FOUR)
    assert held(cache, "L3", "a") is None
    cache.put_many([note(f"filler {n}") for n in range(10)])  # so that L2 evicts it
    assert below_l1(cache) == ("new" if act == "put" else None)


@pytest.mark.req("E-2")
@pytest.mark.parametrize("act", ["put", "delete"])
def test_who_replays_the_write_of_another_process_leaves_nothing_older_in_a_level_that_that_could_not_reach(
    world: World, act: str
) -> None:
    cache, other = world.open(*FOUR), world.open(*FOUR)
    cache.put(note("a", "old"))
    take_out(cache, "L3")
    take_out(cache, "L4")
    cache.put(note("a", "new")) if act == "put" else cache.delete("a")
    assert below_l1(other) == ("new" if act == "put" else None)
    other.flush()
    assert held(other, "L3", "a") is None
    other.put_many([note(f"filler {n}") for n in range(10)])
    assert below_l1(other) == ("new" if act == "put" else None)


@pytest.mark.req("E-2")
def test_a_level_that_is_out_when_a_write_is_replayed_has_missed_it(world: World, clock: FakeClock) -> None:
    cache, other = world.open(*FOUR), world.open(*FOUR)
    cache.put(note("a", "old"))
    take_out(cache, "L3")
    take_out(cache, "L4")
    cache.delete("a")
    assert below_l1(other) is None
    take_out(other, "L3")
    other.flush()
    tier(other, "L3").heal()
    clock.advance(60.0)
    other.recover()
    assert (held(other, "L3", "a"), below_l1(other)) == (None, None)


@pytest.mark.req("E-2")
def test_a_level_that_cannot_drop_what_a_replay_makes_old_leaves_service(world: World) -> None:
    cache, other = world.open(*FOUR), world.open(*FOUR)
    cache.put(note("a", "old"))
    take_out(cache, "L3")
    take_out(cache, "L4")
    cache.delete("a")
    assert below_l1(other) is None
    tier(other, "L3").fail("delete", "delete_many")
    other.flush()
    assert below_l1(other) is None


# -- levels that return ------------------------------------------------------------------------------------------------


@pytest.mark.req("E-2")
@pytest.mark.parametrize("act", ["put", "delete"])
def test_a_level_that_returns_lets_go_of_a_write_that_a_later_one_took_the_place_of(
    world: World, clock: FakeClock, act: str
) -> None:
    cache = world.open_config(BEHIND_FOUR)
    cache.put(note("a", "1"))
    cache.flush()
    cache.put(note("a", "2"))  # waits in L3
    take_out(cache, "L3", failing=False)
    cache.put(note("a", "3")) if act == "put" else cache.delete("a")  # waits in L2
    clock.advance(2.0)
    cache.recover()
    cache.flush()
    cache.levels[1].drop_copy("a")
    assert below_l1(cache) == ("3" if act == "put" else None)


@pytest.mark.req("E-2")
def test_a_level_with_a_write_that_may_come_after_another_returns_when_that_can_be_told(
    world: World, clock: FakeClock
) -> None:
    """Its clock is behind, so that only the authority can say which of the two is the later."""
    behind = World(FakeClock(clock.wall() - 30))
    behind.disks = world.disks
    cache, other = world.open_config(BEHIND), behind.open_config(BEHIND)
    cache.put(note("a", "old"))
    cache.flush()
    other.get("a")
    clock.advance(10.0)
    take_out(cache, "L2", failing=False)
    other.put(note("a", "new"))  # waits in L2
    cache.invalidate_by_health("a")  # in L3, above that
    take_out(cache, "L3")
    clock.advance(100.0)
    cache.recover()
    tier(cache, "L3").heal()
    for _ in range(3):
        clock.advance(100.0)
        cache.recover()
    assert all(level.in_service for level in cache.levels)
    other.flush()
    cache.flush()
    assert below_l1(cache) == "new"
    behind.close()


@pytest.mark.req("E-2")
def test_a_stand_in_returns_while_the_authority_is_out_if_it_is_known_which_write_is_the_later(
    world: World, clock: FakeClock
) -> None:
    cache = world.open_config(BEHIND_FOUR)
    cache.put(note("a", "1"))  # waits in L3
    take_out(cache, "L4")
    take_out(cache, "L3", failing=False)
    cache.put(note("a", "2"))  # waits in L2
    clock.advance(2.0)
    cache.recover()
    assert cache.levels[2].in_service
    assert below_l1(cache) == "2"


@pytest.mark.req("E-2")
def test_an_authority_that_was_out_for_longer_than_marks_are_kept_gets_nothing_back_that_was_deleted(
    world: World, clock: FakeClock
) -> None:
    levels = ("live", "disk", "disk")
    settings: dict[str, Any] = {"tombstone_seconds": 200.0, "default_ttl_seconds": 86_400.0}
    cache = world.open(*levels, **settings)
    cache.put(note("a", "old"))
    take_out(cache, "L2")
    cache.delete("a")
    world.before_opening["L3"] = lambda opened: opened.fail("get_many")
    cache = world.open(*levels, **settings)  # the first one was killed
    clock.advance(400.0)
    tier(cache, "L3").heal()
    tier(cache, "L3").purge(clock.wall())
    assert cache.recover() == 1
    assert where(cache, "a") == {}


@pytest.mark.req("E-2")
def test_a_write_that_waits_is_brought_down_though_a_later_one_failed_in_another_level(
    world: World, clock: FakeClock
) -> None:
    cache = world.open_config(BEHIND_FOUR)
    cache.put(note("a", "1"))  # waits in L3
    take_out(cache, "L3", failing=False)
    take_out(cache, "L4", failing=False)
    tier(cache, "L2").fail("put_many", times=1, error=TierFull("full"))
    with pytest.raises(TierFull):
        cache.put(note("a", "2"))
    for level in cache.levels:
        level.reset_failures()
    clock.advance(60.0)
    cache.recover()
    cache.flush()
    assert held(cache, "L4", "a") in ("1", "2")
    assert set(where(cache, "a").values()) == {held(cache, "L4", "a")}


# -- records of another class ------------------------------------------------------------------------------------------


def rec(kind: type) -> Any:
    """A class `Rec` whose one field has this type."""
    return type("Rec", (CacheEntry,), {"__annotations__": {"n": kind}, "n": kind(), "__module__": __name__})


@pytest.mark.req("E-3")
@pytest.mark.parametrize("first", ["a", "b"])
def test_a_record_of_another_class_keeps_neither_the_cache_nor_its_level_out(
    world: World, clock: FakeClock, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    levels = [{"backend": "live"}, {"backend": "disk"}, {"backend": "disk"}]
    old, new = rec(float), rec(int)
    cache = world.open_config(levels, entry_type=old)
    cache.put(old(key=first, n=5.0 if first == "b" else 5.5))
    if first == "b":
        cache.put(old(key="a", n=5.5))
    world.close()
    world.disks["L3"].pop("a")
    with caplog.at_level(logging.WARNING):
        cache = world.open_config(levels, entry_type=new)
    assert all(level.in_service for level in cache.levels)
    assert tier(cache, "L2").tier.get("a") is not None
    assert "put back" not in caplog.text
