"""Sliding expiry: what is read lives on, up to a bound, and renewing undoes nobody's write."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.core.engine.support import PATIENCE, World, note, tier, where

from tierkit.expiry import slid
from tierkit.testing import FakeClock

TTL, LONGEST = 100.0, 1000.0
STACKS = [("live",), ("disk",), ("live", "disk"), ("live", "disk", "disk"), ("live", "live")]


def opened(world: World, *levels: str, **settings: Any) -> Any:
    return world.open(*levels, sliding_max_seconds=LONGEST, **settings)


def left(entry: Any, clock: FakeClock) -> float:
    """Seconds to the deadline."""
    return float(entry.expires_at.timestamp() - clock.wall())


@pytest.mark.parametrize("levels", STACKS)
def test_a_hit_renews_the_deadline_in_every_level(world: World, clock: FakeClock, levels: tuple[str, ...]) -> None:
    cache = opened(world, *levels)
    put = cache.put(note("a", "x", ttl_seconds=TTL))
    for _ in range(5):
        clock.advance(TTL - 1)
        found = cache.get("a")
        assert left(found, clock) == TTL
        assert (found.created_at, found.fetch_time, found.ttl_seconds) == (put.created_at, put.fetch_time, TTL)
        assert {level.tier.tier.get("a").purge_at for level in cache.levels} == {clock.wall() + TTL}
    clock.advance(TTL)
    assert cache.get("a") is None


def test_without_the_setting_no_hit_renews(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk")
    put = cache.put(note("a", ttl_seconds=TTL))
    world.calls.clear()
    clock.advance(TTL - 1)
    assert cache.get("a") == put
    cache.levels[0].empty()
    assert cache.get("a") == put
    assert world.calls_of("replace") == []


@pytest.mark.parametrize("levels", [("live", "disk"), ("disk",)])
def test_a_record_is_renewed_once_in_a_tenth_of_its_ttl(
    world: World, clock: FakeClock, levels: tuple[str, ...]
) -> None:
    cache = opened(world, *levels)
    cache.put(note("a", ttl_seconds=TTL))
    world.calls.clear()
    for _ in range(99):
        clock.advance(1)
        assert cache.get("a") is not None
    assert len(world.calls_of("replace")) == 9
    statistics = cache.get_statistics()
    assert (statistics.requests, statistics.answered, statistics.tiers[0].hits) == (99, 99, 99)


def test_hits_keep_a_record_no_longer_than_the_bound(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk")
    put = cache.put(note("a", ttl_seconds=TTL))
    ends = put.created_at.timestamp() + LONGEST
    world.calls.clear()
    while clock.wall() < ends - 10:
        clock.advance(9.5)
        assert cache.get("a").expires_at.timestamp() <= ends
    for _ in range(50):
        cache.get("a")
    assert len(world.calls_of("replace")) < 150
    clock.advance(ends - clock.wall() - 0.001)
    assert cache.get("a") is not None
    clock.advance(0.001)
    assert cache.get("a") is None


def test_a_restart_keeps_what_was_renewed(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk")
    cache.put(note("a", ttl_seconds=TTL))
    clock.advance(60)
    deadline = cache.get("a").expires_at
    found = world.reopen("live", "disk").get("a")
    assert found is not None
    assert found.expires_at == deadline


def test_a_write_of_another_process_is_not_undone(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk")
    cache.put(note("a", "old", ttl_seconds=TTL))
    other = world.open_config([{"backend": "disk", "name": "L2"}])
    clock.advance(50)
    tier(cache, "L2").before("replace", lambda: other.put(note("a", "new", ttl_seconds=TTL)))
    assert cache.get("a").text == "new"
    assert cache.get("a").text == "new"
    assert where(cache, "a") == {"L1": "new", "L2": "new"}
    assert left(cache.get("a"), clock) == TTL


def test_a_copy_that_another_process_has_replaced_is_found_out_once(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk")
    cache.put(note("a", "old", ttl_seconds=TTL))
    other = world.open_config([{"backend": "disk", "name": "L2"}])
    clock.advance(50)
    new = other.put(note("a", "new", ttl_seconds=TTL))
    world.calls.clear()
    assert cache.get("a") == new
    assert cache.get("a") == new
    world.calls.clear()
    assert cache.get("a") == new
    assert world.calls_of("replace") == world.calls_of("get")[1:] == []


def test_a_deletion_by_another_process_is_not_undone(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk")
    cache.put(note("a", "x", ttl_seconds=TTL))
    other = world.open_config([{"backend": "disk", "name": "L2"}])
    clock.advance(50)
    tier(cache, "L2").before("replace", lambda: other.delete("a"))
    assert cache.get("a").text == "x"  # as it was when it was read
    assert where(cache, "a") == {}
    assert cache.get("a") is None


def test_failures_that_were_counted_meanwhile_are_kept(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk")
    cache.put(note("a", ttl_seconds=TTL))
    other = world.open_config([{"backend": "disk", "name": "L2"}])
    clock.advance(50)
    tier(cache, "L2").before("replace", lambda: other.invalidate_by_health("a"))
    first, second = cache.get("a"), cache.get("a")
    assert (first.failure_count, second.failure_count) == (1, 1)
    assert (left(first, clock), left(second, clock)) == (50, TTL)  # a hit renews what it read, not what replaced it


@pytest.mark.parametrize("method", ["get", "replace"])
def test_when_the_authority_fails_the_deadline_stays(world: World, clock: FakeClock, method: str) -> None:
    cache = opened(world, "live", "disk", tier_failure_threshold=1)
    put = cache.put(note("a", ttl_seconds=TTL))
    clock.advance(50)
    tier(cache, "L2").fail(method)
    assert cache.get("a") == put
    assert cache.get("a") in (put, None)
    assert not cache.levels[1].in_service


def test_a_read_only_cache_renews_nothing(world: World, clock: FakeClock) -> None:
    put = world.open("live", "disk").put(note("a", ttl_seconds=TTL))
    clock.advance(50)
    cache = opened(world, "live", "disk", read_only=True)
    assert cache.get("a") == put
    assert world.calls_of("replace") == []


def test_listing_and_stale_hits_renew_nothing(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk", grace_seconds=TTL)
    put = cache.put(note("a", "x", ttl_seconds=TTL))
    clock.advance(50)
    assert list(cache.scan()) == [put]
    assert list(cache.keys()) == ["a"]
    clock.advance(50)
    assert cache.get("a", allow_stale=True) == put
    assert cache.get("a") is None
    assert where(cache, "a") == {"L1": "x", "L2": "x"}


def test_a_hit_that_renews_is_a_use(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk")
    cache.put(note("a", ttl_seconds=TTL))
    for _ in range(4):
        clock.advance(50)
        cache.get("a")
    assert cache.get("a").access_count == 5
    cache.flush()
    assert [entry.access_count for entry in cache.scan()] == [5]


def test_a_record_is_renewed_by_one_thread_at_a_time(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk")
    put = cache.put(note("a", ttl_seconds=TTL))
    clock.advance(50)
    found: list[Any] = []

    def read_beside() -> None:
        thread = threading.Thread(target=lambda: found.append(cache.get("a")))
        thread.start()
        thread.join(PATIENCE)

    tier(cache, "L2").before("replace", read_beside)
    world.calls.clear()
    assert left(cache.get("a"), clock) == TTL
    assert found == [put]
    assert len(world.calls_of("replace")) == 1


def test_get_many_and_get_with_level_renew_too(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk")
    cache.put_many([note("a", ttl_seconds=TTL), note("b", ttl_seconds=TTL)])
    clock.advance(50)
    assert left(cache.get_many(["a"])["a"], clock) == TTL
    entry, level = cache.get_with_level("b")
    assert (left(entry, clock), level) == (TTL, "L1")


def test_a_renewal_has_no_jitter(world: World, clock: FakeClock) -> None:
    cache = opened(world, "live", "disk", ttl_jitter=0.5)
    cache.put_many([note(f"key {n}", ttl_seconds=TTL) for n in range(20)])
    clock.advance(10)
    assert {left(cache.get(f"key {n}"), clock) for n in range(20)} == {TTL}


def test_the_rule_of_renewal() -> None:
    now = 1_800_000_000.0
    moment = datetime.fromtimestamp(now, UTC)
    entry = note("a", ttl_seconds=100.0, created_at=moment, expires_at=moment + timedelta(seconds=90))
    assert slid(entry, now, 1e6).expires_at == moment + timedelta(seconds=100)
    assert slid(entry, now - 0.001, 1e6) is entry
    assert slid(entry, now + 5, 100).expires_at == moment + timedelta(seconds=100)
    assert slid(entry, now + 5, 90.5).expires_at == moment + timedelta(seconds=90.5)
    assert slid(entry, now + 5, 90) is entry
    endless = note("a", ttl_seconds=1e11, created_at=moment, expires_at=moment)
    assert slid(endless, 2.5e11, 1e12).expires_at == datetime.max.replace(tzinfo=UTC, microsecond=0)
    for incomplete in (note("a"), note("a", ttl_seconds=1.0), note("a", created_at=moment)):
        assert slid(incomplete, now, 1e6) is incomplete
