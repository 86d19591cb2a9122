"""Room: a put never evicts, and yet the bounds hold when it returns."""

from typing import Any

import msgspec
import pytest
from tests.core.engine.support import World, note, tier, where

from tierkit import TierUnavailable

BOUNDED = (("live", 2), ("disk", 3), "disk")


def sizes(cache: Any) -> list[int]:
    return [level.tier.size() for level in cache.levels]


@pytest.mark.req("US4-3")
def test_the_bounds_hold_when_a_put_returns(world: World) -> None:
    cache = world.open(*BOUNDED)
    for number in range(6):
        cache.put(note(f"k{number}"))
        assert sizes(cache) == [min(number + 1, 2), min(number + 1, 3), number + 1]


@pytest.mark.req("US4-3")
def test_the_bounds_hold_when_a_get_returns(world: World) -> None:
    cache = world.open(*BOUNDED)
    cache.put_many([note(f"k{number}") for number in range(6)])
    for number in range(6):
        assert cache.get(f"k{number}") is not None
        assert sizes(cache) == [2, 3, 6]


@pytest.mark.req("US4-3")
def test_the_bounds_hold_when_a_put_many_returns(world: World) -> None:
    cache = world.open(*BOUNDED)
    for start in (0, 1500):
        cache.put_many([note(f"k{number}") for number in range(start, start + 1500)])
        assert sizes(cache) == [2, 3, start + 1500]


@pytest.mark.req("US4-3")
def test_the_bounds_hold_when_a_failure_was_counted(world: World) -> None:
    cache = world.open(("live", 1), ("disk", 1), "disk")
    cache.put_many([note("a"), note("b")])
    cache.invalidate_by_health("a")
    assert sizes(cache) == [1, 1, 2]


@pytest.mark.req("US4-2")
@pytest.mark.req("US4-5")
def test_what_is_evicted_remains_below_and_is_counted(world: World) -> None:
    cache = world.open(*BOUNDED)
    for number in range(6):
        cache.put(note(f"k{number}", str(number)))
    assert where(cache, "k0") == {"L3": "0"}
    assert where(cache, "k3") == {"L2": "3", "L3": "3"}
    tiers = cache.get_statistics().tiers
    assert [(tier.evictions_lru, tier.demotions) for tier in tiers] == [(4, 4), (3, 3), (0, 0)]
    assert all(cache.get(f"k{number}") is not None for number in range(6))


def test_what_the_authority_has_no_room_for_is_gone_everywhere_and_demoted_nowhere(world: World) -> None:
    cache = world.open("live", ("disk", 2))
    for number in range(3):
        cache.put(note(f"k{number}"))
    assert where(cache, "k0") == {}
    tiers = cache.get_statistics().tiers
    assert [(tier.evictions_lru, tier.demotions) for tier in tiers] == [(0, 0), (1, 0)]


def test_a_victim_is_discarded_only_at_the_version_that_was_named(world: World) -> None:
    cache = world.open(("disk", 1), "disk")
    cache.put(note("a", "old"))
    tier(cache, "L1").after("overflow", lambda: cache.put(note("a", "new")))
    cache.put(note("b"))
    assert where(cache, "a").get("L1") in (None, "new")
    assert where(cache, "a")["L2"] == "new"
    assert sizes(cache) == [1, 2]


def test_a_level_that_cannot_be_settled_spoils_no_put(world: World) -> None:
    cache = world.open("live", ("disk", 1), "disk")
    cache.put(note("a"))
    tier(cache, "L2").fail("overflow", error=TierUnavailable("away"), times=1)
    cache.put(note("b"))
    assert sizes(cache) == [2, 2, 2]
    cache.put(note("c"))
    assert sizes(cache) == [3, 1, 3]


def test_a_level_whose_victims_are_all_evicted_is_not_asked_again(world: World) -> None:
    cache = world.open(("live", 1), ("disk", 1), "disk")
    cache.put(note("a"))
    before = [tier(cache, "L1").calls["evict"], tier(cache, "L2").calls["overflow"]]
    cache.put(note("b"))
    after = [tier(cache, "L1").calls["evict"], tier(cache, "L2").calls["overflow"]]
    assert after == [count + 1 for count in before]
    assert sizes(cache) == [1, 1, 2]


def test_a_level_whose_victims_are_copied_down_is_asked_for_their_names(world: World) -> None:
    cache = world.open_config(
        [
            {"backend": "live", "max_entries": 1},
            {"backend": "disk", "write_policy": "demote"},
            {"backend": "disk"},
        ]
    )
    cache.put(note("a"))
    cache.put(note("b"))
    assert tier(cache, "L1").calls["evict"] == 0
    assert where(cache, "a") == {"L2": "", "L3": ""}


def test_a_victim_that_others_evict_meanwhile_is_no_endless_loop(world: World) -> None:
    cache = world.open(("disk", 1), "disk")
    cache.put(note("a"))
    vars(tier(cache, "L1").tier)["discard"] = lambda _: False
    cache.put(note("b"))
    assert cache.get_statistics().demotions == 0


@pytest.mark.req("US4-3")
def test_a_victim_that_is_written_anew_meanwhile_does_not_leave_a_level_too_full(world: World) -> None:
    cache = world.open(("disk", 1), "disk")
    cache.put(note("a"))
    level = tier(cache, "L1")

    def write_anew() -> None:
        [victim] = [row for row in level.tier.scan() if row.key == "a"]
        level.tier.put(msgspec.structs.replace(victim, version=victim.version + 1))

    level.after("overflow", write_anew)
    cache.put(note("b"))
    assert sizes(cache) == [1, 2]


@pytest.mark.req("US4-3")
@pytest.mark.parametrize(("policy", "survivor"), [("lru", "a"), ("fifo", "b")])
def test_the_policy_of_a_level_says_who_goes(world: World, policy: str, survivor: str) -> None:
    config: Any = [
        {"backend": "live", "max_entries": 2, "eviction_policy": policy},
        {"backend": "disk"},
    ]
    cache = world.open_config(config)
    cache.put(note("a"))
    cache.put(note("b"))
    cache.get("a")
    cache.put(note("c"))
    assert set(tier(cache, "L1").tier.keys()) == {survivor, "c"}
    assert getattr(cache.get_statistics().tiers[0], f"evictions_{policy}") == 1


def test_evictions_by_a_policy_that_a_plugin_brought_are_counted_too(world: World) -> None:
    world.policies = frozenset({"coin", "lru"})
    cache = world.open_config([{"backend": "disk", "max_entries": 1, "eviction_policy": "coin"}])
    disk = tier(cache, "L1").tier
    vars(disk)["overflow"] = lambda: list(disk.scan())[: max(0, disk.size() - 1)]
    cache.put(note("a"))
    cache.put(note("b"))
    statistics = cache.get_statistics()
    assert statistics.tiers[0].evictions_other == 1
    assert statistics.to_metrics_dict()["l1_evictions_other"] == 1
