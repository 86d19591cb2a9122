"""L1 is filled by reads and writes that may be slower than others: the rule of the counters, step by step."""

import pytest
from tests.core.engine.support import World, held, note, tier, where

from tierkit import TierUnavailable
from tierkit.testing import FakeClock

TWO = ("live", "disk")


def test_a_slow_read_does_not_put_back_what_a_put_replaced(world: World) -> None:
    world.open("disk")
    cache = world.open(*TWO)
    cache.put(note("a", "old"))
    cache = world.reopen(*TWO)
    tier(cache, "L2").after("get", lambda: cache.put(note("a", "new")))
    slow = cache.get("a")
    assert slow is not None
    assert slow.text == "old"  # it began before the put
    assert held(cache, "L1", "a") == "new"


def test_a_slow_read_does_not_put_back_what_was_put_and_evicted(world: World) -> None:
    world.open(*TWO).put(note("a", "old"))
    cache = world.reopen(("live", 1), "disk")

    def meanwhile() -> None:
        cache.put(note("a", "new"))
        cache.put(note("b", "b"))
        tier(cache, "L1").tier.clear()
        vars(tier(cache, "L1").tier)["_marks"].clear()  # more evictions than the tier keeps marks

    tier(cache, "L2").after("get", meanwhile)
    cache.get("a")
    assert held(cache, "L1", "a") is None


def test_a_slow_read_does_not_put_back_what_was_deleted(world: World) -> None:
    world.open(*TWO).put(note("a", "old"))
    cache = world.reopen(*TWO)

    def meanwhile() -> None:
        cache.delete("a")
        vars(tier(cache, "L1").tier)["_marks"].clear()

    tier(cache, "L2").after("get", meanwhile)
    cache.get("a")
    assert where(cache, "a") == {}


def test_a_read_between_start_and_end_of_a_write_does_not_fill_l1(world: World) -> None:
    cache = world.open(*TWO)
    cache.put(note("a", "old"))
    tier(cache, "L1").tier.clear()
    vars(tier(cache, "L1").tier)["_marks"].clear()
    seen = []

    def read() -> None:
        seen.append(cache.get("a"))

    tier(cache, "L2").before("put", lambda: tier(cache, "L1").before("put", read))
    cache.put(note("a", "new"))
    assert held(cache, "L1", "a") == "new"


def test_a_write_that_was_overtaken_leaves_the_newer_copy_in_l1(world: World) -> None:
    cache = world.open(*TWO)
    tier(cache, "L2").after("put", lambda: cache.put(note("a", "second")))
    cache.put(note("a", "first"))
    assert where(cache, "a") == {"L1": "second", "L2": "second"}


def test_a_write_that_finds_another_came_between_leaves_l1_to_the_next_read(world: World) -> None:
    cache = world.open(*TWO)
    tier(cache, "L2").before("put", lambda: cache.put(note("a", "between")))
    cache.put(note("a", "last"))
    assert where(cache, "a") == {"L2": "last"}
    entry = cache.get("a")
    assert entry is not None
    assert entry.text == "last"
    assert held(cache, "L1", "a") == "last"


def test_the_copy_of_another_key_survives_a_race(world: World) -> None:
    cache = world.open(*TWO)
    cache.put(note("b", "b"))
    tier(cache, "L2").after("put", lambda: cache.put(note("a", "second")))
    cache.put(note("a", "first"))
    assert held(cache, "L1", "b") == "b"


def test_a_write_of_unknown_outcome_leaves_l1_to_the_next_read(world: World) -> None:
    cache = world.open(*TWO)
    cache.put(note("a", "old"))
    authority = tier(cache, "L2")

    def fail() -> None:
        raise TierUnavailable("the answer was lost")

    authority.after("put", fail)
    with pytest.raises(TierUnavailable):
        cache.put(note("a", "new"))
    assert where(cache, "a") == {"L2": "new"}
    authority.after("delete", fail)
    cache.get("a")
    with pytest.raises(TierUnavailable):
        cache.delete("a")
    assert cache.get("a") is None


def test_a_late_write_does_not_fill_l1(world: World, clock: FakeClock) -> None:
    cache = world.open(*TWO, late_seconds=10)
    cache.put(note("a", "old"))
    tier(cache, "L2").after("put", lambda: clock.advance(10.001))
    cache.put(note("a", "new"))
    assert held(cache, "L1", "a") is None


def test_a_slow_read_does_not_put_back_what_was_cleared(world: World) -> None:
    world.open("live", "disk", "disk").put(note("a", "old"))
    cache = world.reopen("live", "disk", "disk")
    world.disks["L2"].clear()

    def meanwhile() -> None:
        cache.clear()
        vars(tier(cache, "L1").tier)["_marks"].clear()

    tier(cache, "L3").after("get", meanwhile)
    cache.get("a")
    assert where(cache, "a") == {}


@pytest.mark.req("E-7")
@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("level", ["L1", "L2", "L3"])
def test_a_read_in_the_middle_of_a_clear_brings_nothing_back(world: World, level: str, moment: str) -> None:
    cache = world.open("live", "disk", "disk")
    cache.put(note("a", "old"))
    method = "clear" if level == "L1" else "delete_many"
    act = getattr(tier(cache, level), moment)
    act(method, lambda: cache.get("a"))
    cache.clear()
    assert where(cache, "a") == {}


def test_a_read_that_began_before_a_clear_reaches_l1_no_more_once_l1_is_emptied(world: World) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a", "old"))
    inner = tier(cache, "L1").tier
    inner.clear()
    vars(inner)["_marks"].clear()
    # The clear runs while a read that began within it, before L2 was emptied, is about to fill L1.
    tier(cache, "L2").before("delete_many", lambda: tier(cache, "L2").after("get", lambda: None))
    tier(cache, "L2").after("keys", lambda: cache.get("a"))
    cache.clear()
    assert where(cache, "a") == {}


def test_a_put_in_the_middle_of_a_clear_is_in_every_level_or_in_none(world: World) -> None:
    for moment in ("keys", "delete_many"):
        for level in ("L2", "L3"):
            cache = world.reopen("live", "disk", "disk")
            cache.put(note("a", "old"))
            tier(cache, level).after(moment, lambda: cache.put(note("b", "new")))  # noqa: B023 - it runs in this turn
            cache.clear()
            found = where(cache, "b")
            found.pop("L1", None)
            assert found in ({}, {"L2": "new", "L3": "new"}), (moment, level)


@pytest.mark.req("E-7")
def test_a_clear_empties_every_level(world: World) -> None:
    cache = world.open(("live", 2), ("disk", 3), "disk")
    cache.put_many([note(f"k{number}") for number in range(10)])
    cache.clear()
    assert [level.tier.size() for level in cache.levels] == [0, 0, 0]
    assert list(cache.keys()) == []
    cache.put(note("k1", "again"))
    assert where(cache, "k1") == {"L1": "again", "L2": "again", "L3": "again"}


def test_a_clear_reaches_records_stamped_by_a_clock_that_is_ahead(world: World) -> None:
    cache = world.open("disk")
    ahead = world.open("disk")
    ahead._stack.versions.observe(ahead._stack.versions.next() + 2**40)
    ahead.put_many([note("a"), note("b")])
    cache.clear()
    assert cache.size() == 0


def test_a_copy_that_only_a_level_above_has_is_cleared_too(world: World) -> None:
    cache = world.open("disk", "disk")
    cache.put(note("a"))
    world.disks["L2"].clear()
    cache.clear()
    assert where(cache, "a") == {}
