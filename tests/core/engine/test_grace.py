"""The grace period: a record that expired a moment ago is there for those who ask for it, and for nobody else."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from tests.core.engine.support import PATIENCE, Gate, World, held, note, tier, where

from tierkit import CacheValidationError
from tierkit.testing import FakeClock

TTL, GRACE = 60.0, 100.0
STACKS = [("live",), ("disk",), ("live", "disk"), ("live", "disk", "disk"), ("live", "live")]


def opened(world: World, *levels: str | tuple[str, int], **settings: Any) -> Any:
    return world.open(*levels, grace_seconds=GRACE, **settings)


@pytest.mark.req("US2-1")
@pytest.mark.parametrize("levels", STACKS)
def test_what_expired_is_returned_on_request_alone_and_says_so(
    world: World, clock: FakeClock, levels: tuple[str, ...]
) -> None:
    cache = opened(world, *levels)
    put = cache.put(note("a", "x", ttl_seconds=TTL))
    fresh = cache.get("a", allow_stale=True)
    assert (fresh, fresh.is_stale) == (put, False)
    clock.advance(TTL)
    for _ in range(2):
        assert cache.get("a") is None
        assert "a" not in cache
        stale = cache.get("a", allow_stale=True)
        assert (stale, stale.is_stale, stale.expires_at) == (put, True, put.expires_at)
        assert not fresh.is_stale
    clock.advance(GRACE - 0.001)
    assert cache.get_many(["a", "b"], allow_stale=True) == {"a": put}
    assert cache.get_many(["a", "b"]) == {}
    clock.advance(0.001)
    assert cache.get("a", allow_stale=True) is None
    assert where(cache, "a") == {}


@pytest.mark.parametrize("levels", STACKS)
def test_without_a_grace_period_nothing_stale_is_returned(
    world: World, clock: FakeClock, levels: tuple[str, ...]
) -> None:
    cache = world.open(*levels)
    cache.put(note("a", ttl_seconds=TTL))
    clock.advance(TTL)
    assert cache.get("a", allow_stale=True) is None
    assert where(cache, "a") == {}


def test_tiers_keep_what_expired_until_its_grace_period_is_over(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk")
    cache.put(note("a", "x", ttl_seconds=TTL))
    clock.advance(TTL + GRACE - 0.001)
    cache.get("a")
    assert cache.sweep() == 0
    assert where(cache, "a") == {"L1": "x", "L2": "x"}
    assert cache.size() == 1
    clock.advance(0.001)
    assert cache.sweep() == 2
    assert [level.evictions_ttl for level in cache.get_statistics().tiers] == [1, 1]


def test_a_stale_copy_does_not_hide_a_record_that_was_renewed_below(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk")
    cache.put(note("a", "old", ttl_seconds=TTL))
    clock.advance(TTL)
    other = world.open_config([{"backend": "disk", "name": "L2"}], grace_seconds=GRACE)
    other.put(note("a", "new"))
    for allow_stale in (False, True):
        found, level = cache.get_with_level("a", allow_stale=allow_stale)
        assert (found.text, found.is_stale) == ("new", False)
        assert level == ("L1" if allow_stale else "L2")


def test_the_newest_of_several_stale_copies_is_returned(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk", "disk")
    cache.put(note("a", "x1", ttl_seconds=TTL))
    old = dict(world.disks["L2"])
    cache.put(note("a", "x2", ttl_seconds=TTL))
    world.disks["L2"].update(old)
    cache.levels[0].empty()
    clock.advance(TTL)
    found, level = cache.get_with_level("a", allow_stale=True)
    assert (found.text, level) == ("x2", "L3")


def test_a_stale_copy_older_than_one_that_is_gone_for_good_is_not_returned(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk")
    cache.put(note("a", "older", ttl_seconds=10 * TTL))
    old = dict(world.disks["L2"])
    cache.put(note("a", "newer", ttl_seconds=TTL))
    world.disks["L2"].update(old)
    clock.advance(TTL + GRACE)  # past all of the newer one; the older one would still be fresh
    assert cache.get("a", allow_stale=True) is None
    assert where(cache, "a") == {}


def test_a_stale_copy_above_one_that_is_newer_and_gone_for_good_is_not_returned(world: World, clock: FakeClock) -> None:
    cache = opened(world, "disk", "disk")
    cache.put(note("a", "older", ttl_seconds=2 * TTL))
    old = dict(world.disks["L1"])
    cache.put(note("a", "newer", ttl_seconds=TTL))
    world.disks["L1"].update(old)
    clock.advance(TTL + GRACE)
    assert cache.get("a", allow_stale=True) is None


def test_nothing_stale_is_returned_while_a_fresh_copy_is_above(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk", "disk")
    cache.put(note("a", "old", ttl_seconds=TTL))
    below = dict(world.disks["L3"])
    cache.put(note("a", "new"))
    world.disks["L3"].update(below)
    cache.levels[0].empty()
    clock.advance(TTL)
    assert cache.get_with_level("a", allow_stale=True)[0].text == "new"


def test_a_stale_record_is_not_promoted(world: World, clock: FakeClock) -> None:
    opened(world, "live", "disk", "disk").put(note("a", "x", ttl_seconds=TTL))
    world.close()
    cache = opened(world, "live", "disk", "disk")
    world.disks["L2"].clear()
    clock.advance(TTL)
    assert cache.get("a", allow_stale=True).text == "x"
    assert where(cache, "a") == {"L3": "x"}
    assert [level.counters.promotions for level in cache.levels] == [0, 0, 0]


def test_what_was_deleted_or_invalidated_is_not_returned_stale(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk", failure_threshold=1)
    cache.put_many([note(key, ttl_seconds=TTL) for key in "abc"])
    cache.invalidate_by_health("b")
    clock.advance(TTL)
    assert not cache.delete("a")  # as `get` sees it, there was none
    assert cache.invalidate_by_health("c") is None
    assert cache.get_many([*"abc"], allow_stale=True).keys() == {"c"}
    cache.clear()
    assert cache.get("c", allow_stale=True) is None


def test_stale_hits_are_counted_and_every_read_is_a_hit_or_a_miss(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk")
    cache.put(note("a", ttl_seconds=TTL))
    cache.get("a")
    clock.advance(TTL)
    cache.get("a", allow_stale=True)
    cache.get("a", allow_stale=True)
    cache.get("a")
    cache.get("b", allow_stale=True)
    statistics = cache.get_statistics()
    assert [level.stale_hits for level in statistics.tiers] == [2, 0]
    assert (statistics.requests, statistics.answered) == (5, 1)
    assert statistics.to_metrics_dict()["l1_stale_hits"] == 2
    without = opened(world, "live", "disk", enable_statistics=False)
    without.get("a", allow_stale=True)
    assert [level.stale_hits for level in without.get_statistics().tiers] == [0, 0]


@pytest.mark.parametrize("levels", [("live",), ("live", "disk"), ("disk",)])
def test_a_stale_hit_is_a_use(world: World, clock: FakeClock, levels: tuple[str, ...]) -> None:
    cache = opened(world, *levels)
    cache.put(note("a", ttl_seconds=TTL))
    cache.get("a")
    clock.advance(TTL)
    cache.get("a", allow_stale=True)
    cache.flush()
    (entry,) = cache.scan(include_expired=True)
    assert entry.access_count == 2
    assert entry.last_accessed == datetime.fromtimestamp(clock.wall(), UTC)


def test_what_is_stale_is_listed_only_with_what_expired(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk")
    put = cache.put(note("a", ttl_seconds=TTL))
    clock.advance(TTL)
    assert list(cache.keys()) == list(cache.scan()) == []
    assert list(cache.scan(include_expired=True)) == [put]


def test_a_stale_entry_is_refused_until_it_is_renewed(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk")
    cache.put(note("a", "x", ttl_seconds=TTL))
    clock.advance(TTL)
    stale = cache.get("a", allow_stale=True)
    with pytest.raises(CacheValidationError, match="has passed"):
        cache.put(stale)
    renewed = cache.put(stale.renewed())
    assert (renewed.is_stale, renewed.text) == (False, "x")
    assert not stale.evolve(text="y").is_stale
    assert not cache.put(msgspec.structs.replace(stale, expires_at=None, fetch_time=None)).is_stale
    renewed = cache.put(stale.renewed())
    assert cache.get("a", allow_stale=True) == renewed


@pytest.mark.parametrize(("written", "read"), [(GRACE, 0), (0, GRACE), (50, 5), (5, 50), (50, GRACE), (GRACE, 50)])
@pytest.mark.parametrize("levels", [("disk",), ("live", "disk"), ("disk", "disk")])
def test_when_the_grace_period_was_changed_the_shorter_one_holds(
    world: World, clock: FakeClock, levels: tuple[str, ...], written: float, read: float
) -> None:
    put = world.open(*levels, grace_seconds=written).put(note("a", "x", ttl_seconds=TTL))
    cache = world.reopen(*levels, grace_seconds=read)
    assert cache.get("a") == put
    clock.advance(TTL)
    assert cache.get("a") is None
    clock.advance(10)
    assert (cache.get("a", allow_stale=True) == put) is (min(written, read) > 10)
    clock.advance(GRACE)
    assert cache.get("a", allow_stale=True) is None
    cache.sweep()
    assert where(cache, "a") == {}
    assert cache.put(note("a", "y")).text == "y"


def test_a_grace_period_counts_from_the_deadline_that_travels(world: World, clock: FakeClock) -> None:
    cache = opened(world, ("live", 1), ("disk", 1), "disk")
    put = cache.put(note("a", "x", ttl_seconds=TTL))
    for key in "bc":
        cache.put(note(key))
    cache.invalidate_by_health("a")
    clock.advance(TTL)
    cache = world.reopen(("live", 1), ("disk", 1), "disk", grace_seconds=GRACE)
    (row,) = [row for row in tier(cache, "L3").tier.scan() if row.key == "a"]
    assert row.purge_at == put.expires_at.timestamp() + GRACE
    clock.advance(GRACE - 0.001)
    stale = cache.get("a", allow_stale=True)
    assert stale is not None
    assert (stale.failure_count, stale.expires_at) == (1, put.expires_at)


def test_a_copy_that_is_too_old_by_staleness_seconds_alone_is_not_stale(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk", staleness_seconds=5)
    cache.put(note("a", "x"))
    other = world.open_config([{"backend": "disk", "name": "L2"}])
    other.delete("a")
    clock.advance(5)
    assert cache.get("a", allow_stale=True) is None


def test_a_read_only_cache_returns_what_is_stale_and_changes_nothing(world: World, clock: FakeClock) -> None:
    opened(world, "disk").put(note("a", "x", ttl_seconds=TTL))
    world.close()
    clock.advance(TTL)
    before = dict(world.disks["L1"])
    cache = opened(world, "disk", read_only=True)
    assert cache.get("a") is None
    assert cache.get("a", allow_stale=True).is_stale
    clock.advance(GRACE)
    assert cache.get("a", allow_stale=True) is None
    assert world.disks["L1"] == before


@pytest.mark.parametrize("allow_stale", [False, True])
def test_those_who_share_a_read_get_what_each_asked_for(world: World, clock: FakeClock, allow_stale: bool) -> None:
    cache = opened(world, "live", "disk")
    cache.put(note("a", "x", ttl_seconds=TTL))
    cache.levels[0].empty()
    clock.advance(TTL)
    gate = Gate(cache, "L2")
    found: dict[bool, Any] = {}
    threads = [
        threading.Thread(target=lambda asked=asked: found.update({asked: cache.get("a", allow_stale=asked)}))
        for asked in (allow_stale, not allow_stale)
    ]
    threads[0].start()
    assert gate.reached.wait(PATIENCE)
    threads[1].start()
    gate.opened.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert found[False] is None
    assert found[True].is_stale
    statistics = cache.get_statistics()
    assert (statistics.requests, statistics.answered) == (2, 0)
    assert sum(level.stale_hits for level in statistics.tiers) == 1


def test_a_deadline_far_away_leaves_room_for_a_grace_period(world: World) -> None:
    last = datetime.max.replace(tzinfo=UTC, microsecond=0) - timedelta(days=2)
    cache = world.open("live", "disk", grace_seconds=3e9)
    put = cache.put(note("a", "x", expires_at=last))
    cache.levels[0].empty()
    assert cache.get("a") == put
    assert held(cache, "L1", "a") == "x"
