"""Levels come back by themselves: probes, back-off, and being brought in line with what passed them by."""

import threading
from typing import Any

import pytest
from tests.core.engine.support import PATIENCE, Note, World, held, note, tier, where

from tierkit import CacheManager, CacheTier, TierContext, TierFull, TierSpec, TierUnavailable, Trait, hookimpl
from tierkit.level import DOUBTFUL, MOST_MISSED, Level
from tierkit.reconciling import reconcile
from tierkit.testing import FakeClock

THREE = ("live", "disk", "disk")


def level(cache: CacheManager[Any], name: str) -> Level:
    return next(found for found in cache.levels if found.name == name)


def outage(cache: CacheManager[Any], name: str) -> None:
    tier(cache, name).fail()
    level(cache, name).take_out(OSError("gone"))


@pytest.fixture
def cache(world: World) -> CacheManager[Note]:
    opened = world.open(*THREE)
    opened.put(note("a", "old"))
    opened.put(note("b", "b"))
    return opened


@pytest.mark.req("E-2")
@pytest.mark.parametrize("name", ["L1", "L2", "L3"])
def test_a_level_comes_back_by_itself_when_its_tier_answers_again(
    cache: CacheManager[Note], clock: FakeClock, name: str
) -> None:
    outage(cache, name)
    assert level(cache, name).state == "open"
    assert cache.recover() == 0  # the back-off is not over
    clock.advance(1.0)
    assert cache.recover() == 0  # the probe fails
    tier(cache, name).heal()
    clock.advance(1.0)
    assert cache.recover() == 0  # the back-off is twice as long now
    clock.advance(1.0)
    assert cache.recover() == 1
    assert level(cache, name).state == "closed"
    assert cache.get_statistics().tiers[int(name[1]) - 1].recoveries == 1
    assert cache.put(note("a", "new")) == cache.get("a")


def test_the_back_off_is_what_the_settings_say(world: World, clock: FakeClock) -> None:
    cache = world.open("disk", recovery_initial_seconds=7, recovery_longest_seconds=10)
    outage(cache, "L1")
    for seconds in (7.0, 10.0, 10.0):
        assert level(cache, "L1").due_in == seconds
        clock.advance(seconds)
        assert cache.recover() == 0
    tier(cache, "L1").heal()
    clock.advance(10.0)
    assert cache.recover() == 1


def test_a_level_that_is_back_fails_the_old_way_again(cache: CacheManager[Note], clock: FakeClock) -> None:
    outage(cache, "L2")
    tier(cache, "L2").heal()
    clock.advance(1.0)
    assert cache.recover() == 1
    outage(cache, "L2")
    assert level(cache, "L2").due_in == 1.0


def test_only_what_passed_a_level_by_is_dropped_before_it_is_read(cache: CacheManager[Note], clock: FakeClock) -> None:
    outage(cache, "L2")
    cache.put(note("a", "new"))
    tier(cache, "L2").heal()
    clock.advance(1.0)
    cache.recover()
    assert (held(cache, "L2", "a"), held(cache, "L2", "b")) == (None, "b")
    level(cache, "L1").empty()
    found, answered = cache.get_with_level("a")
    assert (found and found.text, answered) == ("new", "L3")


def test_a_level_that_missed_more_than_it_notes_is_compared_with_the_authority(
    cache: CacheManager[Note], clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierkit.level.MOST_MISSED", 1)
    cache.put_many([note("c"), note("d")])
    outage(cache, "L2")
    cache.put(note("a", "new"))
    cache.delete("c")
    tier(cache, "L2").heal()
    clock.advance(1.0)
    assert cache.recover() == 1
    assert {key: held(cache, "L2", key) for key in "abcd"} == {"a": None, "b": "b", "c": None, "d": ""}
    assert MOST_MISSED > 1000


def test_a_level_that_has_to_be_compared_waits_for_the_authority(cache: CacheManager[Note], clock: FakeClock) -> None:
    outage(cache, "L2")
    cache.clear()  # which leaves nothing that could be noted
    outage(cache, "L3")
    tier(cache, "L2").heal()
    clock.advance(1.0)
    assert cache.recover() == 0
    tier(cache, "L3").heal()
    clock.advance(2.0)
    assert cache.recover() == 2
    assert where(cache, "a") == {}
    assert cache.get("a") is None


def test_what_passes_by_while_a_level_is_brought_in_line_is_dropped_too(
    cache: CacheManager[Note], clock: FakeClock
) -> None:
    outage(cache, "L2")
    cache.put(note("a", "new"))
    tier(cache, "L2").heal()
    clock.advance(1.0)
    tier(cache, "L2").before("delete", lambda: cache.put(note("b", "newer")))
    assert cache.recover() == 1
    assert (held(cache, "L2", "a"), held(cache, "L2", "b")) == (None, None)


def test_a_level_that_fails_while_it_is_brought_in_line_stays_out_and_forgets_nothing(
    cache: CacheManager[Note], clock: FakeClock
) -> None:
    outage(cache, "L2")
    cache.put(note("a", "new"))
    tier(cache, "L2").heal()
    tier(cache, "L2").fail("delete", times=1)
    clock.advance(1.0)
    assert cache.recover() == 0
    assert level(cache, "L2").state == "open"
    clock.advance(2.0)
    assert cache.recover() == 1
    assert held(cache, "L2", "a") is None


class Absent:
    """A tier that cannot be opened before its storage is there."""

    def __init__(self) -> None:
        self.there = False

    @hookimpl
    def register_tiers(self) -> list[TierSpec]:
        from tests.core.engine.support import Disk, NoOptions, ScriptedTier

        def make(context: TierContext, options: object) -> CacheTier[Any]:
            if not self.there:
                raise TierUnavailable("no such host")
            return ScriptedTier(Disk(context, {}), [])

        traits = Trait.PERSISTENT | Trait.CRASH_SAFE
        return [TierSpec(kind="absent", factory=make, options=NoOptions, traits=traits, api=1)]


def test_a_tier_that_could_not_be_opened_is_opened_when_its_storage_is_there(clock: FakeClock) -> None:
    world, absent = World(clock), Absent()
    from tierkit import CacheConfig

    config = CacheConfig(tiers=({"backend": "absent"}, {"backend": "disk"}))
    with CacheManager(config, entry_type=Note, clock=clock, plugins=[world, absent]) as cache:
        cache.put(note("a", "1"))
        clock.advance(1.0)
        assert cache.recover() == 0
        absent.there = True
        clock.advance(2.0)
        assert cache.recover() == 1
        cache.put(note("a", "2"))
        assert cache.get_with_level("a")[1] == "L1"


@pytest.mark.req("E-2")
def test_a_full_storage_is_read_on_and_written_again_when_there_is_room(
    world: World, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a", "old"))
    tier(cache, "L2").fail("put", error=TierFull("no room"), times=2)
    for _ in range(2):
        with pytest.raises(TierFull):
            cache.put(note("a", "new"))
    assert [r.levelname for r in caplog.records if "takes no writes" in r.message] == ["ERROR"]
    assert cache.get_statistics().l2_degraded
    assert level(cache, "L2").in_service
    entry = cache.get("a")
    assert entry is not None
    assert entry.text == "old"
    cache.put(note("a", "new"))
    assert not cache.get_statistics().l2_degraded
    assert cache.get_statistics().tiers[1].recoveries == 1


def test_the_background_thread_brings_a_level_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeClock, "background", True)
    cache = world.open("live", "disk", recovery_initial_seconds=1e-9)
    back = threading.Event()
    level(cache, "L1").take_out(OSError("gone"))  # the clock stands still: what is due is due at once
    world.clock.advance(1.0)
    level(cache, "L1").on_change = back.set
    cache._stack.alarm()
    assert back.wait(PATIENCE)


def test_a_hung_tier_holds_up_a_call_no_longer_than_its_time_limit(world: World) -> None:
    tiers: list[dict[str, Any]] = [
        {"backend": "live"},
        {"backend": "disk", "timeout_seconds": PATIENCE},
        {"backend": "disk"},
    ]
    cache = world.open_config(tiers, tier_failure_threshold=1)
    cache.put(note("a", "text"))
    level(cache, "L1").empty()
    workers = level(cache, "L2")._workers
    assert workers is not None
    workers._timeout_seconds = 0.01  # from now on: it ends in any case
    release = threading.Event()
    tier(cache, "L2").before("get", lambda: release.wait(PATIENCE))
    found, answered = cache.get_with_level("a")
    assert (found and found.text, answered) == ("text", "L3")
    assert level(cache, "L2").state == "open"
    workers._timeout_seconds = PATIENCE
    world.clock.advance(1.0)
    assert cache.recover() == 0  # it hangs still
    release.set()
    for _ in workers._threads:
        workers._tasks.put(None)
    for thread in workers._threads:
        thread.join(PATIENCE)
    assert workers.stuck == 0
    workers.renew()
    world.clock.advance(2.0)
    assert cache.recover() == 1


def test_a_level_that_was_out_when_the_cache_opened_is_compared_before_it_comes_back(
    world: World, clock: FakeClock
) -> None:
    cache = world.open(*THREE)
    cache.put(note("a", "old"))
    tier(cache, "L2").fail()
    cache.delete("a")  # which L2 misses, and cannot be emptied of at close
    cache.close()
    cache = world.open(*THREE, tier_failure_threshold=1)
    level(cache, "L2").take_out(OSError("gone"))
    level(cache, "L2").missed_writes = False
    reconcile(cache._stack)
    clock.advance(1.0)
    assert cache.recover() == 1
    assert where(cache, "a") == {}
    assert cache.get("a") is None


def test_an_authority_that_was_out_when_the_cache_opened_puts_the_others_right_when_it_is_back(
    world: World, clock: FakeClock
) -> None:
    cache = world.open(*THREE)
    cache.put(note("a", "old"))
    stale = tier(cache, "L2").tier.get("a")
    cache.put(note("a", "new"))
    tier(cache, "L2").tier.delete("a", 1)
    world.disks["L2"].clear()
    tier(cache, "L2").tier.put(stale)  # a crash left it there
    outage(cache, "L3")
    reconcile(cache._stack)
    cache.levels[0].empty()
    entry = cache.get("a")
    assert entry is not None
    assert entry.text == "old"  # nobody can know better now
    tier(cache, "L3").heal()
    cache.levels[0].empty()
    clock.advance(1.0)
    assert cache.recover() == 1
    cache.levels[0].empty()
    entry = cache.get("a")
    assert entry is not None
    assert entry.text == "new"


def test_after_a_write_of_unknown_outcome_no_copy_remains(world: World) -> None:
    cache = world.open(*THREE)
    cache.put(note("a", "old"))
    cache._stack.owing.can_hold = lambda: False  # type: ignore[method-assign]  # as if nobody could
    tier(cache, "L3").after("put", _raise)
    with pytest.raises(TierUnavailable):
        cache.put(note("a", "new"))
    assert where(cache, "a") == {"L3": "new"}


def _raise() -> None:
    raise TierUnavailable("after it took effect")


@pytest.mark.parametrize("failing", [False, True], ids=["at once", "after it failed to"])
def test_a_doubt_is_not_forgotten_where_an_older_write_was_noted(world: World, clock: FakeClock, failing: bool) -> None:
    cache = world.open(*THREE)
    tier(cache, "L2").after("put", _raise)  # it holds this one, and cannot drop it
    tier(cache, "L2").fail("delete")
    cache.put(note("a", "older"))
    tier(cache, "L3").after("put", _raise)
    with pytest.raises(TierUnavailable):
        cache.put(note("a", "newer"))
    cache.levels[0].empty()
    before = cache.get("a")
    tier(cache, "L2").heal()
    if failing:
        tier(cache, "L2").fail("discard", times=1)
    for _ in range(1 + failing):
        clock.advance(60.0)
        cache.recover()
    assert level(cache, "L2").in_service
    cache.levels[0].empty()
    assert before is not None
    assert before.text == "newer"
    assert cache.get("a") == before


def test_doubts_are_noted_one_by_one_only_up_to_a_number(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierkit.level.MOST_MISSED", 1)
    cache = world.open(*THREE)
    outage(cache, "L2")
    for key in "ab":
        level(cache, "L2").begin_write({key: DOUBTFUL})
    assert level(cache, "L2").missed_writes


def test_a_level_that_two_bring_back_at_once_serves_when_it_is_in_line(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk", "disk")
    cache.put(note("a", "old"))
    disk = cache.levels[1]
    disk.take_out(OSError("gone"))
    cache.put(note("a", "new"))
    second = threading.Thread(target=disk.reset_failures)
    served = []

    def meanwhile() -> None:
        second.start()
        second.join(0.2)  # it waits for the first, which has not dropped the old copy yet
        served.append(disk.in_service)

    tier(cache, "L2").before("delete", meanwhile)
    disk.reset_failures()
    second.join()
    assert (served, disk.in_service) == ([False], True)


def test_a_level_that_another_thread_brings_in_line_for_too_long_is_not_read_before_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierkit.level._PATIENCE_SECONDS", 0.0)
    cache = world.open(*THREE)
    cache.put(note("a", "old"))
    disk = level(cache, "L2")
    disk.take_out(OSError("gone"))
    cache.delete("a")

    def meanwhile() -> None:  # as a second thread would
        with pytest.raises(TierUnavailable, match="is being brought in line by another thread"):
            disk.reset_failures()
        assert not disk.in_service
        assert cache.get("a") is None

    tier(cache, "L2").before("delete", meanwhile)
    disk.reset_failures()
    assert disk.in_service
    assert where(cache, "a") == {}


def test_a_level_in_service_that_cannot_be_brought_in_line_is_taken_out(world: World) -> None:
    cache = world.open(*THREE)
    disk = level(cache, "L2")
    disk.missed_writes = True
    tier(cache, "L2").fail("scan", times=1)
    with pytest.raises(TierUnavailable):
        disk.reset_failures()
    assert not disk.in_service
    disk.reset_failures()
    assert (disk.in_service, disk.missed_writes) == (True, False)


def test_what_was_read_too_long_ago_is_not_put_down_again_when_a_cache_is_opened(
    world: World, clock: FakeClock
) -> None:
    cache = world.open("disk", "disk", tombstone_seconds=100.0)
    cache.put(note("a"))
    cache.levels[0].take_out(OSError("gone"))  # so that it keeps its copy
    world.before_opening["L2"] = lambda opened: opened.before("get_many", meanwhile)

    def meanwhile() -> None:
        cache.delete("a")
        clock.advance(200.0)
        cache.sweep()

    again = world.open("disk", "disk", tombstone_seconds=100.0)
    assert again.get("a") is None


def test_an_authority_that_waits_for_the_level_that_holds_writes_for_it_is_not_blamed(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    authority, holder = cache.levels[2], cache.levels[1]
    authority.take_out(TierUnavailable("away"))
    cache.put(note("a"))
    tier(cache, "L2").fail()
    holder.take_out(TierUnavailable("away"))
    with pytest.raises(TierUnavailable, match="1 writes that it is owed cannot be brought there") as caught:
        authority.reset_failures()
    assert "by L2" in str(caught.value)
    tier(cache, "L2").heal()
