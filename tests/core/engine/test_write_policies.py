"""Write-through, write-behind and demote-only: who has a record when, and what is refused."""

from typing import Any

import pytest
from tests.core.engine.support import Note, World, held, note, tier, where

from tierkit import CacheConfigError, CacheManager, TierFull
from tierkit.testing import FakeClock

DEMOTING: list[dict[str, Any]] = [
    {"backend": "live", "max_entries": 1},
    {"backend": "disk", "write_policy": "demote"},
    {"backend": "disk"},
]


def behind(world: World, policy: str = "behind", **settings: Any) -> CacheManager[Note]:
    tiers: list[dict[str, Any]] = [
        {"backend": "live"},
        {"backend": "disk"},
        {"backend": "disk", "write_policy": policy},
    ]
    return world.open_config(tiers, **settings)


@pytest.mark.parametrize("policy", ["behind", "demote"])
def test_a_write_is_acknowledged_when_the_level_above_has_it(world: World, policy: str) -> None:
    cache = behind(world, policy)
    cache.put(note("a", "1"))
    cache.put_many([note("b", "2"), note("c", "3")])
    assert {key: held(cache, "L2", key) for key in "abc"} == {"a": "1", "b": "2", "c": "3"}
    assert tier(cache, "L3").tier.size() == 0
    cache.levels[0].empty()
    assert [entry and entry.text for entry in map(cache.get, "abc")] == ["1", "2", "3"]
    assert {entry.key for entry in cache.scan()} == set("abc")


def test_write_behind_writes_in_batches_at_intervals(world: World, clock: FakeClock) -> None:
    cache = behind(world, flush_interval_seconds=5)
    cache.put(note("a", "1"))
    cache.recover()
    assert held(cache, "L3", "a") == "1"
    world.calls.clear()
    cache.put(note("a", "2"))
    cache.put(note("b", "3"))
    clock.advance(4.9)
    cache.recover()
    assert held(cache, "L3", "a") == "1"
    clock.advance(0.1)
    cache.recover()
    assert (held(cache, "L3", "a"), held(cache, "L3", "b")) == ("2", "3")
    assert [call for call in world.calls_of("put", "put_many") if call[0] == "L3"] == [("L3", "put_many")]


@pytest.mark.parametrize("policy", ["behind", "demote"])
@pytest.mark.parametrize("way", ["flush", "close"])
def test_flush_and_close_write_what_waits(world: World, policy: str, way: str) -> None:
    cache = behind(world, policy)
    cache.put(note("a", "1"))
    cache.put(note("b", "2"))
    cache.delete("b")
    getattr(cache, way)()
    assert set(world.disks["L3"]) >= {"a"}
    again = world.reopen("live", "disk", "disk")
    assert where(again, "a") == {"L2": "1", "L3": "1"}
    assert where(again, "b") == {}


@pytest.mark.parametrize("policy", ["behind", "demote"])
def test_what_waits_survives_the_end_of_the_process(world: World, policy: str) -> None:
    cache = behind(world, policy)
    cache.put(note("a", "1"))
    again = behind(world, policy)  # the first one was killed
    assert held(again, "L3", "a") == "1"
    entry = again.get("a")
    assert entry is not None


@pytest.mark.parametrize("way", ["put", "put_many"])
@pytest.mark.parametrize("policy", ["behind", "demote"])
def test_where_the_level_above_takes_nothing_the_authority_is_written(world: World, policy: str, way: str) -> None:
    cache = behind(world, policy)
    tier(cache, "L2").fail("put", "put_many", error=TierFull("no room"), times=1)
    given = note("a", "1")
    _ = cache.put(given) if way == "put" else cache.put_many([given])
    assert held(cache, "L3", "a") == "1"
    assert cache.get_statistics().intents == 0
    cache.levels[0].empty()
    entry = cache.get("a")
    assert entry is not None
    assert entry.text == "1"


def test_the_first_write_that_waits_wakes_the_background_thread(world: World) -> None:
    cache = behind(world)
    woken = []
    cache._stack.alarm = lambda: woken.append(len(cache._stack.owing.intents))
    cache.put(note("a", "1"))
    cache.put_many([note("b", "1"), note("c", "1")])
    assert woken == [1]
    cache.flush()
    cache.put_many([note("b", "2"), note("c", "2")])
    assert woken == [1, 1]


def test_demote_only_writes_what_the_level_above_evicts(world: World) -> None:
    tiers: list[dict[str, Any]] = [
        {"backend": "live"},
        {"backend": "disk", "max_entries": 2},
        {"backend": "disk", "write_policy": "demote"},
    ]
    cache = world.open_config(tiers)
    for key in "abc":
        cache.put(note(key, key))
        world.clock.advance(1.0)
    assert (held(cache, "L2", "a"), held(cache, "L3", "a")) == (None, "a")
    assert tier(cache, "L3").tier.size() == 1
    assert tier(cache, "L2").tier.size() == 2
    assert cache.levels[1].counters.demotions == 1
    assert [entry and entry.text for entry in map(cache.get, "abc")] == ["a", "b", "c"]


def test_demote_only_below_memory_keeps_everything_while_it_is_open(world: World) -> None:
    tiers: list[dict[str, Any]] = [
        {"backend": "live", "max_entries": 2},
        {"backend": "disk", "write_policy": "demote"},
    ]
    cache = world.open_config(tiers, durability="none")
    for key in "abc":
        cache.put(note(key, key))
    assert [held(cache, "L2", key) for key in "abc"] == ["a", None, None]
    cache.put(note("a", "again"))
    cache.delete("b")
    assert [entry and entry.text for entry in map(cache.get, "abc")] == ["again", None, "c"]
    cache.close()
    again = world.open("live", "disk")
    assert [entry and entry.text for entry in map(again.get, "abc")] == ["again", None, "c"]


def test_a_middle_level_that_demotes_gets_victims_and_nothing_else(world: World) -> None:
    tiers: list[dict[str, Any]] = [
        {"backend": "live", "max_entries": 1},
        {"backend": "disk", "max_entries": 2, "write_policy": "demote"},
        {"backend": "disk"},
    ]
    cache = world.open_config(tiers)
    cache.put(note("a", "1"))
    assert where(cache, "a") == {"L1": "1", "L3": "1"}
    cache.put(note("b", "2"))
    assert where(cache, "a") == {"L2": "1", "L3": "1"}
    cache.put(note("a", "new"))
    assert where(cache, "a") == {"L1": "new", "L3": "new"}
    for key in "cde":
        cache.put(note(key, key))
    assert tier(cache, "L2").tier.size() == 2
    assert [entry and entry.text for entry in map(cache.get, "abcde")] == ["new", "2", "c", "d", "e"]
    cache.put_many([note("c", "newer")])
    cache.levels[0].empty()
    entry = cache.get("c")
    assert entry is not None
    assert entry.text == "newer"


def test_an_authority_out_of_service_is_not_asked_for_victims(world: World) -> None:
    cache = world.open_config(DEMOTING)
    cache.put(note("a"))
    cache.levels[2].take_out(OSError("gone"))
    world.calls.clear()
    cache.put(note("b"))
    assert tier(cache, "L1").tier.size() == 1
    assert [level for level, *_ in world.calls if level == "L3"] == []


def test_a_victim_that_is_written_meanwhile_is_not_demoted(world: World) -> None:
    cache = world.open_config(DEMOTING)
    cache.put(note("a", "old"))
    tier(cache, "L1").after("overflow", lambda: cache.put(note("a", "new")))
    cache.put(note("b", "b"))
    assert held(cache, "L2", "a") in (None, "new")
    cache.levels[0].empty()
    entry = cache.get("a")
    assert entry is not None
    assert entry.text == "new"


def test_reads_of_a_victim_that_went_and_came_back_since_it_was_named_are_counted(world: World) -> None:
    cache = world.open_config(DEMOTING)
    cache.put(note("a"))

    def goes_and_comes_back() -> None:
        cache.levels[0].empty()
        cache.get("a")

    tier(cache, "L1").after("overflow", goes_and_comes_back)
    cache.put(note("b"))
    cache.flush()
    row = tier(cache, "L3").tier.get("a")
    assert row is not None
    assert row.access_count == 1


def test_usage_of_a_demoted_record_goes_with_it(world: World) -> None:
    cache = world.open_config(DEMOTING)
    cache.put(note("a"))
    for _ in range(3):
        cache.get("a")
    cache.put(note("b"))
    cache.flush()
    for name in ("L2", "L3"):
        row: Any = tier(cache, name).tier.get("a")
        assert row.access_count == 3


@pytest.mark.parametrize(
    ("tiers", "durability", "reason"),
    [
        ([{"backend": "disk", "write_policy": "behind"}], "none", "needs a level above"),
        ([{"backend": "live"}, {"backend": "disk", "write_policy": "behind"}], "process", "CRASH_SAFE"),
        ([{"backend": "live"}, {"backend": "disk", "write_policy": "demote"}], "process", "CRASH_SAFE"),
        (
            [{"backend": "live"}, {"backend": "disk", "write_policy": "behind"}, {"backend": "disk"}],
            "none",
            "for the lowest level alone",
        ),
        ([{"backend": "live"}, {"backend": "live", "write_policy": "demote"}], "none", "not live entries"),
    ],
)
def test_a_policy_that_cannot_keep_its_promise_is_refused_with_the_reason(
    world: World, tiers: list[dict[str, Any]], durability: str, reason: str
) -> None:
    with pytest.raises(CacheConfigError, match=reason):
        world.open_config(tiers, durability=durability)


def test_write_behind_writes_to_the_authority_itself_when_nobody_can_hold_the_write(world: World) -> None:
    cache = behind(world)
    tier(cache, "L2").fail()
    cache.levels[1].take_out(OSError("gone"))
    cache.put(note("a", "1"))
    assert held(cache, "L3", "a") == "1"


def test_write_behind_writes_to_the_authority_itself_when_the_level_above_is_full(world: World) -> None:
    cache = behind(world)
    cache.put(note("b", "0"))
    cache.flush()
    tier(cache, "L2").fail("put", "put_many", error=TierFull("no room"))
    cache.put(note("a", "1"))
    cache.delete("b")
    assert (held(cache, "L3", "a"), held(cache, "L3", "b")) == ("1", None)
    cache.levels[0].empty()
    assert (cache.get("a") is not None, cache.get("b")) == (True, None)


def test_a_deletion_that_nobody_took_is_none(world: World) -> None:
    cache = behind(world)
    cache.put(note("a", "1"))
    cache.flush()
    tier(cache, "L2").fail("put", "put_many", error=TierFull("no room"))
    tier(cache, "L3").fail("delete", "delete_many", error=TierFull("no room"))
    with pytest.raises(TierFull):
        cache.delete("a")
    entry = cache.get("a")
    assert entry is not None


@pytest.mark.parametrize("way", ["put", "put_many"])
@pytest.mark.parametrize("bound", [None, 1])
def test_a_write_to_the_authority_itself_is_above_what_waits_for_it_by_a_clock_that_is_ahead(
    world: World, clock: FakeClock, way: str, bound: int | None
) -> None:
    tiers: list[dict[str, Any]] = [
        {"backend": "live"},
        {"backend": "disk", "max_entries": bound},
        {"backend": "disk", "write_policy": "behind"},
    ]
    cache, other = world.open_config(tiers), world.open_config(tiers)
    other._stack.versions.observe(int((clock.wall() + 30) * 1e6) * 1024)
    other.put(note("a", "theirs"))
    tier(cache, "L2").fail("put", "put_many", error=TierFull("no room"))
    given = note("a", "ours")
    _ = cache.put(given) if way == "put" else cache.put_many([given])
    tier(cache, "L2").heal()
    other.flush()
    cache.levels[0].empty()
    entry = cache.get("a")
    assert entry is not None
    assert entry.text == "ours"
