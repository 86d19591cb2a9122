"""Read-through, promotion, expiry and staleness."""

from datetime import UTC, datetime, timedelta

import pytest
from tests.core.engine.support import World, held, note, tier, where

from tierkit import TierUnavailable
from tierkit.testing import FakeClock

THREE = ("live", "disk", "disk")


@pytest.mark.req("US4-1")
def test_a_read_goes_down_level_by_level_and_stops_where_it_is_answered(world: World) -> None:
    world.open(*THREE).put(note("a", "x"))
    cache = world.reopen(*THREE)
    world.disks["L2"].clear()
    world.calls.clear()
    assert cache.get_with_level("a")[1] == "L3"
    assert world.calls_of("get")[:4] == [("L1", "get"), ("L2", "get"), ("L3", "get"), ("L1", "get")]
    world.calls.clear()
    assert cache.get_with_level("a")[1] == "L1"
    assert world.calls_of("get") == [("L1", "get")]


@pytest.mark.req("US4-1")
@pytest.mark.req("US4-5")
def test_a_hit_is_promoted_to_every_level_above_and_counted(world: World) -> None:
    world.open(*THREE).put(note("a", "x"))
    cache = world.reopen(*THREE)
    world.disks["L2"].clear()
    cache.get("a")
    assert where(cache, "a") == {"L1": "x", "L2": "x", "L3": "x"}
    assert [level.counters.promotions for level in cache.levels] == [1, 1, 0]
    cache.get("a")
    assert [level.counters.promotions for level in cache.levels] == [1, 1, 0]


@pytest.mark.req("US1-1")
@pytest.mark.parametrize("levels", [("live",), ("disk",), ("live", "disk"), ("disk", "disk"), THREE, ("live", "live")])
def test_what_was_put_is_found_and_what_was_deleted_is_not(world: World, levels: tuple[str, ...]) -> None:
    cache = world.open(*levels)
    assert cache.get("a") is None
    put = cache.put(note("a", "x"))
    assert cache.get("a") == put
    assert "a" in cache
    assert (len(cache), list(cache.keys()), cache.get_many(["a", "b"])) == (1, ["a"], {"a": put})
    assert cache.put(note("a", "y")).version > put.version
    assert [entry.text for entry in cache.scan()] == ["y"]
    assert cache.delete("a")
    assert cache.get("a") is None
    assert not cache.delete("a")
    assert where(cache, "a") == {}


@pytest.mark.req("US1-3")
def test_what_was_put_is_found_after_a_restart(world: World) -> None:
    put = world.open(*THREE).put(note("a", "x", source="list", ttl_seconds=90))
    assert world.reopen(*THREE).get("a") == put


def test_a_deadline_travels_unchanged_through_promotion_and_restart(world: World, clock: FakeClock) -> None:
    deadline = datetime.fromtimestamp(clock.wall(), UTC) + timedelta(seconds=100, microseconds=1)
    world.open(*THREE).put(note("a", expires_at=deadline))
    for _ in range(3):
        clock.advance(10)
        world.disks["L2"].clear()
        cache = world.reopen(*THREE)
        for _ in range(2):
            entry = cache.get("a")
            assert entry is not None
            assert entry.expires_at == deadline
        assert [row.purge_at for row in tier(cache, "L2").tier.scan()] == [deadline.timestamp()]
    clock.advance(70.001)
    assert cache.get("a") is None


@pytest.mark.req("US2-1")
@pytest.mark.parametrize("levels", [("live",), ("disk",), THREE])
def test_an_expired_entry_is_never_returned_and_is_removed_from_every_level_when_seen(
    world: World, clock: FakeClock, levels: tuple[str, ...]
) -> None:
    cache = world.open(*levels)
    cache.put(note("a", ttl_seconds=60))
    clock.advance(59.999)
    assert cache.get("a") is not None
    clock.advance(0.001)
    assert cache.get("a") is None
    assert where(cache, "a") == {}
    assert [level.counters.evictions["ttl"] for level in cache.levels] == [1] * len(levels)


def test_keys_and_scan_leave_out_what_expires_while_they_run(world: World, clock: FakeClock) -> None:
    cache = world.open("disk")
    cache.put_many([note("a", ttl_seconds=60), note("b", ttl_seconds=60)])
    keys = cache.keys()
    next(keys)
    clock.advance(60)
    assert list(keys) == []
    assert len(list(cache.scan(include_expired=True))) == 2


@pytest.mark.req("US2-1")
def test_an_expired_copy_above_neither_hides_nor_removes_a_renewed_record_below(world: World, clock: FakeClock) -> None:
    cache = world.open(*THREE)
    cache.put(note("a", "old", ttl_seconds=60))
    other = world.open(*THREE)
    above = {name: dict(world.disks[name]) for name in ("L2",)}
    clock.advance(1)
    other.put(note("a", "renewed", ttl_seconds=600))
    world.disks["L2"].update(above["L2"])  # as if the other had an L2 of its own
    clock.advance(60)
    entry = cache.get("a")
    assert entry is not None
    assert entry.text == "renewed"
    assert where(cache, "a") == {"L1": "renewed", "L2": "renewed", "L3": "renewed"}


@pytest.mark.req("US2-1")
def test_below_an_expired_copy_nothing_older_is_returned(world: World, clock: FakeClock) -> None:
    cache = world.open("disk", "disk")
    cache.put(note("a", "old", ttl_seconds=600))
    before = dict(world.disks["L2"])
    clock.advance(1)
    cache.put(note("a", "new", ttl_seconds=60))
    world.disks["L2"].update(before)  # the authority was restored from a backup
    clock.advance(60)
    assert cache.get("a") is None
    assert where(cache, "a") == {}


def test_what_expires_while_it_is_being_read_is_not_returned(world: World, clock: FakeClock) -> None:
    cache = world.open("disk")
    cache.put(note("a", ttl_seconds=60))
    tier(cache, "L1").after("get", lambda: clock.advance(60))
    assert cache.get("a") is None


def test_the_wall_clock_neither_ends_nor_extends_a_life(world: World, clock: FakeClock) -> None:
    cache = world.open(*THREE)
    cache.put(note("a", ttl_seconds=60))
    clock.step_wall(10 * 365 * 86400)
    assert cache.get("a") is not None
    clock.step_wall(-20 * 365 * 86400)
    clock.advance(60)
    assert cache.get("a") is None


def test_past_the_staleness_bound_a_copy_is_a_miss_and_is_read_again(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk", staleness_seconds=5)
    cache.put(note("a", "old"))
    world.open("live", "disk").put(note("a", "new"))
    clock.advance(4.999)
    assert cache.get_with_level("a")[1] == "L1"
    clock.advance(0.001)
    entry, level = cache.get_with_level("a")
    assert (entry and entry.text, level) == ("new", "L2")
    assert cache.get_with_level("a")[1] == "L1"


def test_the_age_of_a_copy_counts_from_the_start_of_the_read_that_made_it(world: World, clock: FakeClock) -> None:
    world.open("disk").put(note("a"))
    world.disks["L2"] = world.disks.pop("L1")
    cache = world.open("live", "disk", staleness_seconds=5)
    tier(cache, "L2").after("get", lambda: clock.advance(3))
    cache.get("a")
    clock.advance(1.999)
    assert cache.get_with_level("a")[1] == "L1"
    clock.advance(0.001)
    assert cache.get_with_level("a")[1] == "L2"


def test_a_copy_grows_no_younger_by_moving_between_levels_of_this_process(world: World, clock: FakeClock) -> None:
    cache = world.open(("live", 1), "live", "disk", staleness_seconds=5)
    cache.put(note("a"))
    clock.advance(3)
    cache.put(note("b"))  # evicts a from L1
    assert cache.get_with_level("a")[1] == "L2"
    clock.advance(2)
    assert cache.get_with_level("a")[1] == "L3"


@pytest.mark.req("E-3")
def test_a_promotion_that_a_level_does_not_take_spoils_no_read(world: World) -> None:
    world.open(*THREE).put(note("a", "x"))
    cache = world.reopen(*THREE, tier_failure_threshold=99)
    world.disks["L2"].clear()
    for name in ("L1", "L2"):
        tier(cache, name).fail("put", error=TierUnavailable("away"))
    assert cache.get("a") is not None
    assert where(cache, "a") == {"L3": "x"}


def test_a_promotion_that_is_refused_is_not_counted(world: World) -> None:
    world.open(*THREE).put(note("a", "x"))
    cache = world.reopen(*THREE)
    world.disks["L2"].clear()
    for name in ("L1", "L2"):
        tier(cache, name).tier.delete("a", 2**62)
    assert cache.get("a") is not None
    assert cache.get_statistics().promotions == 0


def test_a_late_promotion_is_given_up(world: World, clock: FakeClock) -> None:
    world.open(*THREE).put(note("a", "x"))
    cache = world.reopen(*THREE, late_seconds=10)
    world.disks["L2"].clear()
    tier(cache, "L3").after("get", lambda: clock.advance(10.001))
    assert cache.get("a") is not None
    assert where(cache, "a") == {"L3": "x"}
    tier(cache, "L2").after("put", lambda: clock.advance(10.001))
    cache.get("a")
    assert where(cache, "a") == {"L2": "x", "L3": "x"}


def test_a_tier_that_answers_with_another_record_is_not_believed(world: World) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a", "x"))
    cache.put(note("b", "y"))
    cache = world.reopen("live", "disk")
    inner = tier(cache, "L2").tier
    right = inner.get
    inner.get = lambda key: right("b" if key == "a" else key)  # type: ignore[method-assign]  # the fault
    assert cache.get("a") is None
    assert cache.levels[1].counters.corruptions == 1
    assert held(cache, "L1", "a") is None
    entry = cache.get("b")
    assert entry is not None
    assert entry.text == "y"


def test_a_staleness_bound_loses_nothing_where_two_live_levels_are_all_there_is(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "live", staleness_seconds=1)
    cache.put(note("a", "kept"))
    clock.advance(2)
    entry = cache.get("a")
    assert entry is not None
    assert entry.text == "kept"
