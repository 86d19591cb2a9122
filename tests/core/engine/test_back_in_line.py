"""What an outage leaves behind is put right by itself: bounds, lists, usage, health and what was deleted meanwhile."""

import threading
from typing import Any

import pytest
from tests.core.engine.support import PATIENCE, Disk, Note, World, held, note, tier, where

from tierkit import CacheManager, TierContext, TierFull, TierReadOnly, TierTimeout, TierUnavailable
from tierkit.level import MOST_MISSED
from tierkit.schema import namespace_of
from tierkit.testing import FakeClock

THREE = ("live", "disk", "disk")
Cache = CacheManager[Note]


def owing(world: World, policy: str = "behind", bound: int | None = None, **settings: Any) -> Cache:
    lowest = {"backend": "disk", "write_policy": policy, "max_entries": bound}
    return world.open_config([{"backend": "live"}, {"backend": "disk"}, lowest], **settings)


def out(cache: Cache, name: str) -> None:
    level = next(level for level in cache.levels if level.name == name)
    tier(cache, name).fail()
    level.take_out(TierUnavailable("away"))


def back(world: World, cache: Cache, clock: FakeClock) -> None:
    for level in cache.levels:
        tier(cache, level.name).heal()
    for _ in cache.levels:
        clock.advance(100.0)
        cache.recover()
    assert all(level.in_service for level in cache.levels)


# -- deletions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["clear", "many deletions"])
@pytest.mark.parametrize("minutes", [1, 30])
def test_what_was_deleted_while_a_level_was_out_stays_deleted(
    world: World, clock: FakeClock, way: str, minutes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierkit.level.MOST_MISSED", 3 if way == "many deletions" else MOST_MISSED)
    cache = world.open(*THREE, default_ttl_seconds=86_400.0)
    cache.put_many([note(f"k{n}") for n in range(9)])
    out(cache, "L2")
    if way == "clear":
        cache.clear()
    else:
        cache.delete_many([f"k{n}" for n in range(9)])
    for _ in range(minutes):
        clock.advance(60.0)
        cache.sweep()
    back(world, cache, clock)
    assert cache.size() == 0
    assert [where(cache, f"k{n}") for n in range(9)] == [{}] * 9


def test_what_the_authority_has_lost_is_put_down_again_by_a_level_that_was_out_for_a_moment(
    world: World, clock: FakeClock
) -> None:
    cache = world.open(*THREE)
    cache.put_many([note("a"), note("b")])
    cache.levels[1].miss(TierUnavailable("away"))
    world.disks["L3"].pop("a")
    clock.advance(1.0)
    cache.recover()
    assert held(cache, "L3", "a") == ""


def test_a_clear_reaches_what_another_process_holds_for_the_authority_with_a_clock_that_is_ahead(
    world: World, clock: FakeClock
) -> None:
    cache, other = owing(world), owing(world)
    other._stack.versions.observe(int((clock.wall() + 30) * 1e6) * 1024)
    other.put(note("a", "theirs"))
    cache.clear()
    other.flush()
    assert where(cache, "a") == {}
    assert cache.get("a") is None


# -- bounds ------------------------------------------------------------------------------------------------------------


@pytest.mark.req("US4-3")
@pytest.mark.parametrize("way", ["flush", "recover", "sweep and close", "reopen"])
@pytest.mark.parametrize("policy", ["behind", "demote"])
def test_a_bounded_authority_keeps_its_bound_when_it_gets_what_it_was_owed(
    world: World, clock: FakeClock, policy: str, way: str
) -> None:
    cache = owing(world, policy, 3)
    cache.put_many([note(f"k{n}") for n in range(10)])
    if way == "flush":
        cache.flush()
    elif way == "recover":
        clock.advance(60.0)
        cache.recover()
    elif way == "sweep and close":
        cache.sweep()
        cache.close()
        cache = owing(world, policy, 3)
    else:
        cache = owing(world, policy, 3)  # the first one was killed
    assert policy == "demote" or cache.size() == 3
    assert tier(cache, "L3").tier.size() <= 3


@pytest.mark.req("US4-3")
@pytest.mark.parametrize("policy", ["behind", "demote"])
def test_a_bounded_authority_keeps_its_bound_when_it_gets_what_it_was_owed_at_close(world: World, policy: str) -> None:
    cache = owing(world, policy, 3)
    cache.put_many([note(f"k{n}") for n in range(10)])
    cache.close()
    left = Disk(TierContext(namespace=namespace_of(Note)), world.disks["L3"])
    assert left.size() == 3


@pytest.mark.req("US4-3")
@pytest.mark.parametrize("way", ["flush", "recover"])
def test_a_bounded_level_that_held_what_waited_keeps_its_bound_when_that_is_brought_down(
    world: World, clock: FakeClock, way: str
) -> None:
    tiers: list[dict[str, Any]] = [
        {"backend": "disk", "max_entries": 1},
        {"backend": "disk", "write_policy": "behind"},
    ]
    cache, other = world.open_config(tiers), world.open_config(tiers)
    cache.put(note("a"))
    tier(cache, "L1").after("discard", lambda: other.put(note("b")))  # before the copy is put back
    clock.advance(60.0)
    getattr(cache, way)()
    assert tier(cache, "L1").tier.size() == 1


@pytest.mark.req("US4-3")
def test_a_bounded_authority_keeps_its_bound_when_it_comes_back(world: World, clock: FakeClock) -> None:
    cache = owing(world, "through", 3)
    out(cache, "L3")
    cache.put_many([note(f"k{n}") for n in range(10)])
    back(world, cache, clock)
    assert cache.size() == 3


@pytest.mark.req("US4-3")
@pytest.mark.parametrize("way", ["recover", "reset_failures"])
def test_a_bounded_level_that_stood_in_keeps_its_bound_when_the_authority_comes_back(
    world: World, clock: FakeClock, way: str
) -> None:
    cache = world.open("live", ("disk", 2), "disk")
    out(cache, "L3")
    for key in "abcd":
        cache.put(note(key))
    assert tier(cache, "L2").tier.size() == 4
    tier(cache, "L3").heal()
    clock.advance(60.0)
    if way == "recover":
        cache.recover()
    else:
        cache.levels[2].reset_failures()
    assert cache.size() == 4
    assert tier(cache, "L2").tier.size() == 2


@pytest.mark.req("US4-3")
def test_a_bounded_level_that_comes_back_with_what_it_held_for_the_authority_keeps_its_bound(
    world: World, clock: FakeClock
) -> None:
    cache = world.open("live", ("disk", 2), "disk")
    out(cache, "L3")
    for key in "abcd":
        cache.put(note(key))
    out(cache, "L2")
    cache.levels[1].missed_writes = True  # so that it is compared, and the authority gets what it is owed meanwhile
    tier(cache, "L2").heal()
    tier(cache, "L3").heal()
    for _ in range(2):
        clock.advance(60.0)
        cache.recover()
    assert all(level.in_service for level in cache.levels)
    assert tier(cache, "L2").tier.size() == 2


def test_a_read_only_cache_evicts_nothing_when_its_bounded_authority_comes_back(world: World, clock: FakeClock) -> None:
    world.open("disk").put_many([note(key) for key in "abc"])
    reader = world.open_config([{"backend": "disk", "max_entries": 1}], read_only=True)
    out(reader, "L1")
    back(world, reader, clock)
    assert reader.size() == 3
    assert not reader.get_statistics().tiers[0].degraded  # as it would be if it had been asked to discard


@pytest.mark.req("US4-3")
def test_a_bounded_authority_keeps_its_bound_when_records_are_put_down_to_it_again(world: World) -> None:
    cache = world.open("disk", "disk")
    cache.put_many([note("a"), note("b"), note("c")])
    cache.close()
    world.disks["L2"].pop("a")
    world.disks["L2"].pop("b")
    again = world.open("disk", ("disk", 2))
    assert again.size() == 2


def test_no_more_writes_wait_in_bulk_than_singly(world: World) -> None:
    cache = world.open_config([{"backend": "disk", "max_entries": 2}, {"backend": "disk"}])
    out(cache, "L2")
    with pytest.raises(TierFull, match="at most 4 may wait"):
        cache.put_many([note(f"k{n}") for n in range(10)])
    assert cache.get_statistics().intents == 0
    cache.put_many([note(f"k{n}") for n in range(4)])
    assert cache.get_statistics().intents == 4


def test_a_bulk_write_of_more_than_may_wait_goes_on_where_the_authority_takes_it(world: World) -> None:
    cache = world.open_config(
        [{"backend": "disk", "max_entries": 2}, {"backend": "disk", "write_policy": "behind"}],
    )
    assert cache.put_many([note(f"k{n}") for n in range(10)]) == 10
    cache.flush()
    assert cache.size() == 10


# -- lists -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["behind", "demote"])
def test_a_scan_shows_each_record_once_though_what_waits_is_brought_down_meanwhile(world: World, policy: str) -> None:
    cache = owing(world, policy)
    cache.put_many([note(f"a{n}") for n in range(20)])
    cache.flush()
    cache.put_many([note(f"{kind}{n}", "new") for n in range(20) for kind in "ab"])
    scan = cache.scan()
    first = next(scan)
    cache.flush()
    keys = [first.key, *(entry.key for entry in scan)]
    assert sorted(keys) == sorted(f"{kind}{n}" for n in range(20) for kind in "ab")


def test_a_cache_opened_read_only_sees_what_was_owed_when_it_opened_and_what_it_became(world: World) -> None:
    cache = owing(world)
    cache.put_many([note(f"k{n}") for n in range(5)])
    tiers: list[dict[str, Any]] = [{"backend": "live"}, {"backend": "disk"}, {"backend": "disk"}]
    reader = world.open_config(tiers, read_only=True)
    assert len(list(reader.keys())) == 5
    cache.flush()
    assert len(list(reader.keys())) == 5
    cache.delete("k0")
    cache.flush()
    assert sorted(reader.keys()) == ["k1", "k2", "k3", "k4"]
    assert reader.get_statistics().intents == 0


def test_a_write_that_raised_hides_no_record_from_a_scan(world: World) -> None:
    cache = owing(world, "through")
    cache.put(note("a", "old"))
    tier(cache, "L3").fail("put", times=1)
    tier(cache, "L2").fail("put_many", times=1)
    with pytest.raises(TierUnavailable):
        cache.put(note("a", "new"))
    assert [entry.text for entry in cache.scan()] == ["old"]


# -- grace -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["behind", "demote"])
@pytest.mark.parametrize("in_memory", [True, False])
def test_what_waits_for_the_authority_may_be_returned_when_it_has_expired(
    world: World, clock: FakeClock, policy: str, in_memory: bool
) -> None:
    cache = owing(world, policy, grace_seconds=300.0)
    cache.put(note("a", "stale", ttl_seconds=10.0))
    if not in_memory:
        cache.levels[0].empty()
    clock.advance(20.0)
    assert cache.get("a") is None
    stale = cache.get("a", allow_stale=True)
    assert stale is not None
    assert (stale.text, stale.is_stale) == ("stale", True)
    cache.delete("a")
    assert cache.get("a", allow_stale=True) is None


# -- usage -------------------------------------------------------------------------------------------------------------


@pytest.mark.req("US4-4")
@pytest.mark.parametrize("policy", ["behind", "demote"])
@pytest.mark.parametrize("end", ["flush", "close", "sweep"])
def test_reads_of_what_waits_for_the_authority_are_counted(world: World, policy: str, end: str) -> None:
    cache = owing(world, policy)
    cache.put(note("a"))
    for _ in range(3):
        cache.get("a")
    getattr(cache, end)()
    if end == "sweep":
        cache.flush()
    row: Any = world.open("disk", "disk", "disk").levels[2].tier.get("a")
    assert row.access_count == 3


@pytest.mark.req("US4-4")
@pytest.mark.parametrize("policy", ["behind", "demote"])
def test_reads_of_what_waits_in_memory_are_counted(world: World, policy: str) -> None:
    tiers: list[dict[str, Any]] = [{"backend": "live"}, {"backend": "disk", "write_policy": policy}]
    cache = world.open_config(tiers, durability="none")
    cache.put(note("a"))
    cache.get("a")
    cache._stack.flush()  # of usage alone, as a sweep does
    cache.flush()
    row: Any = tier(cache, "L2").tier.get("a")
    assert row.access_count == 1


# -- health of levels --------------------------------------------------------------------------------------------------


@pytest.mark.req("E-2")
def test_reads_that_succeed_in_between_do_not_keep_a_level_in_service_whose_writes_fail(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    tier(cache, "L3").fail("put", "delete")
    for n in range(4):
        cache.put(note(f"k{n}"))
        cache.get(f"missing {n}")
    assert not cache.levels[2].in_service


@pytest.mark.req("E-2")
@pytest.mark.parametrize("error", [TierFull("no room"), TierReadOnly("read-only")])
def test_a_storage_that_has_room_again_is_written_though_nobody_writes(
    world: World, clock: FakeClock, error: Exception
) -> None:
    cache = world.open("live", "disk", "disk")
    tier(cache, "L2").fail("put", "put_many", "delete", error=error)
    cache.put(note("a"))
    assert cache.get_statistics().l2_degraded
    for _ in range(3):
        clock.advance(100.0)
        cache.recover()
        assert cache.get_statistics().l2_degraded
    tier(cache, "L2").heal()
    clock.advance(100.0)
    cache.recover()
    statistics = cache.get_statistics()
    assert not statistics.l2_degraded
    assert statistics.tiers[1].recoveries >= 1


def test_a_storage_with_room_for_a_mark_alone_is_tried_more_and_more_seldom(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk", "disk", recovery_initial_seconds=1.0, recovery_longest_seconds=8.0)
    level = cache.levels[1]
    tier(cache, "L2").fail("put", "put_many", error=TierFull("no room"))
    waits = []
    for _ in range(4):
        cache.put(note("a"))
        waits.append(round(level.due_in, 3))
        clock.advance(level.due_in)
        cache.recover()
        assert level.writable
    assert waits == [1.0, 2.0, 4.0, 8.0]


def test_a_full_level_that_goes_out_of_service_is_probed_by_the_back_off_of_that(
    world: World, clock: FakeClock
) -> None:
    cache = world.open(*THREE)
    level = cache.levels[1]
    tier(cache, "L2").fail("put", error=TierFull("no room"))
    cache.put(note("a"))
    clock.advance(2.0)  # to see if there is room has become due
    out(cache, "L2")
    waits = []
    for _ in range(3):
        assert cache.recover() == 0  # nothing is due
        waits.append(level.due_in)
        clock.advance(level.due_in)
        assert cache.recover() == 0
    assert waits == [1.0, 2.0, 4.0]
    assert tier(cache, "L2").calls["get"] == 3


def test_a_deletion_that_a_full_level_takes_does_not_end_its_back_off(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    cache = world.open(*THREE)
    tier(cache, "L2").fail("put", error=TierFull("no room"))
    for n in range(4):
        cache.put(note(f"k{n}"))
        cache.delete(f"k{n}")
    assert not cache.levels[1].writable
    assert cache.levels[1].counters.recoveries == 0
    assert len([record for record in caplog.records if "takes no writes" in record.message]) == 1


@pytest.mark.parametrize("way", ["delete", "replay"])
def test_a_deletion_that_a_full_authority_takes_does_not_end_its_back_off(
    world: World, clock: FakeClock, way: str
) -> None:
    cache = world.open(*THREE, recovery_initial_seconds=1.0, recovery_longest_seconds=8.0)
    authority = cache.levels[2]
    tier(cache, "L3").fail("put", "put_many", error=TierFull("no room"))
    waits = []
    for _ in range(4):
        cache.put(note("a"))  # fails if the back-off is over, and waits in L2
        waits.append(authority.due_in)
        clock.advance(authority.due_in)
        if way == "delete":
            cache.delete("a")
        else:
            tier(cache, "L3").fail("delete", times=1)
            cache.delete("a")  # waits as well
        cache.recover()
    assert waits == [1.0, 2.0, 4.0, 8.0]


@pytest.mark.req("E-2")
def test_an_authority_whose_deletions_fail_goes_out_of_service_though_it_is_read_in_between(world: World) -> None:
    cache = world.open(*THREE)
    tier(cache, "L3").fail("delete", "delete_many")
    for n in range(3):
        assert cache.levels[2].in_service
        cache.delete(f"k{n}")
        cache.get(f"missing {n}")
    assert not cache.levels[2].in_service


@pytest.mark.req("E-2")
def test_deletions_that_succeed_do_not_keep_an_authority_in_service_whose_puts_fail(world: World) -> None:
    cache = world.open(*THREE)
    tier(cache, "L3").fail("put", "put_many")
    for n in range(3):
        assert cache.levels[2].in_service
        cache.put(note(f"k{n}"))
        cache.delete(f"l{n}")
    assert not cache.levels[2].in_service


@pytest.mark.req("E-3")
def test_a_restart_while_the_authority_fails_leaves_the_level_above_in_service(world: World, clock: FakeClock) -> None:
    cache = world.open(*THREE)
    cache.put(note("a", "old"))
    tier(cache, "L3").fail("put")
    cache.put(note("b", "waits"))
    cache.close()
    world.before_opening["L3"] = lambda opened: opened.fail("get", "get_many", "put", "put_many", "scan")
    again = world.open(*THREE)
    assert [level.in_service for level in again.levels] == [True, True, False]
    assert [entry and entry.text for entry in map(again.get, "ab")] == ["old", "waits"]
    again.put(note("c"))
    back(world, again, clock)
    assert [held(again, "L3", key) for key in "abc"] == ["old", "waits", ""]


@pytest.mark.req("E-3")
def test_an_authority_that_answers_a_probe_and_then_fails_stays_out_until_it_is_well(
    world: World, clock: FakeClock
) -> None:
    cache = world.open(*THREE)
    cache.put(note("a"))
    cache.close()
    world.before_opening["L3"] = lambda opened: opened.fail("get_many", "scan")
    again = world.open(*THREE)
    for _ in range(3):
        clock.advance(100.0)
        assert again.recover() == 0
        assert [entry and entry.key for entry in [again.get("a")]] == ["a"]
    back(world, again, clock)


def test_a_read_only_cache_whose_authority_was_out_serves_again_and_writes_nothing(
    world: World, clock: FakeClock
) -> None:
    cache = owing(world)
    cache.put(note("a"))
    tiers: list[dict[str, Any]] = [{"backend": "live"}, {"backend": "disk"}, {"backend": "disk"}]
    reader = world.open_config(tiers, read_only=True)
    out(reader, "L3")
    world.calls.clear()
    back(world, reader, clock)
    assert reader.get("a") is not None
    assert world.calls_of("put", "put_many", "delete", "delete_many", "discard", "replace", "touch_many") == []


def test_a_tier_that_hangs_while_it_is_opened_holds_up_neither_the_opening_nor_a_probe(
    world: World, clock: FakeClock
) -> None:
    hanging = world.hang_opening("L2")
    tiers: list[dict[str, Any]] = [
        {"backend": "live"},
        {"backend": "disk", "timeout_seconds": 0.05},
        {"backend": "disk"},
    ]
    cache = world.open_config(tiers)
    assert not cache.levels[1].in_service
    again = world.hang_opening("L2")
    clock.advance(100.0)
    cache.recover()
    assert not cache.levels[1].in_service
    cache.put(note("a"))
    hanging.set()
    again.set()
    clock.advance(200.0)
    cache.recover()
    assert cache.levels[1].in_service


def test_a_live_level_with_a_time_limit_is_not_read_without_one(world: World) -> None:
    cache = world.open_config([{"backend": "live", "timeout_seconds": 0.05}, {"backend": "disk"}])
    cache.put(note("a"))
    go_on = threading.Event()
    tier(cache, "L1").before("get", lambda: go_on.wait(PATIENCE))
    assert cache.get("a") is not None
    assert cache.levels[0].counters.failures == 1
    go_on.set()


def test_a_write_of_unknown_outcome_leaves_no_copy_in_a_level_that_fails_as_well(
    world: World, clock: FakeClock
) -> None:
    cache = world.open("disk", "disk")
    cache.put(note("a", "old"))
    authority = tier(cache, "L2")
    authority.after("put", lambda: (_ for _ in ()).throw(TierTimeout("it took effect, and then")))
    tier(cache, "L1").fail("put", "put_many", "get", "delete", "discard")
    with pytest.raises(TierUnavailable):
        cache.put(note("a", "new"))
    back(world, cache, clock)
    entry = cache.get("a")
    assert entry is not None
    assert entry.text == held(cache, "L2", "a") == "new"


def test_the_size_is_not_asked_of_a_level_that_is_out_of_service(world: World) -> None:
    cache = world.open("disk")
    out(cache, "L1")
    with pytest.raises(TierUnavailable, match="out of service"):
        cache.size()
    assert tier(cache, "L1").calls["size"] == 0


def test_reads_are_not_copied_into_a_level_that_is_filled_by_evictions_alone(world: World) -> None:
    tiers: list[dict[str, Any]] = [
        {"backend": "live"},
        {"backend": "disk", "write_policy": "demote"},
        {"backend": "disk"},
    ]
    world.open("disk", "disk", "disk").put(note("a"))
    world.disks["L1"].clear()
    world.disks["L2"].clear()
    cache = world.open_config(tiers)
    assert cache.get("a") is not None
    assert where(cache, "a") == {"L1": "", "L3": ""}


def test_a_clear_in_the_midst_of_the_last_fill_of_a_bulk_put_is_not_undone(world: World) -> None:
    cache = world.open(("live", 1), "disk")
    tier(cache, "L1").before("put", cache.clear)  # as a signal handler may
    cache.put_many([note("b", "b")])
    assert where(cache, "b") == {}


def test_what_is_held_in_memory_goes_to_an_authority_that_is_well_again_at_the_end(world: World) -> None:
    cache = world.open("disk", durability="none")
    out(cache, "L1")
    cache.put(note("a"))
    tier(cache, "L1").heal()
    cache.close()
    assert "a" in world.disks["L1"]


def test_a_cache_of_memory_alone_owes_nothing_though_it_promises_nothing(world: World) -> None:
    cache = world.open("live", durability="none")
    cache.put(note("a", "1"))
    cache.delete("a")
    cache.put(note("a", "2"))
    assert cache.get_statistics().intents == 0
    assert [entry.text for entry in cache.scan()] == ["2"]
    assert cache.get_with_level("a")[1] == "L1"


@pytest.mark.parametrize("policy", ["through", "behind", "demote"])
def test_a_record_in_its_grace_period_was_not_there_when_it_is_deleted(
    world: World, clock: FakeClock, policy: str
) -> None:
    cache = owing(world, policy, grace_seconds=300.0)
    cache.put(note("a", ttl_seconds=2.0))
    cache.put(note("b", ttl_seconds=200.0))
    clock.advance(2.0)
    assert cache.delete("a") is False
    assert cache.delete("b") is True
