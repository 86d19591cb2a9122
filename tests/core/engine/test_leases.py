"""Leases: one holder at a time, by compare and set beside the records."""

import logging
import os
from itertools import pairwise
from typing import Any

import pytest
from tests.core.engine.support import Disk, World, note

from tierkit import CacheManager, CacheValidationError, Row, TierUnavailable
from tierkit.leases import LONGEST_LEASE_SECONDS, Lease, LeaseStore
from tierkit.testing import FakeClock
from tierkit.testing.suite.processes import run_together

STACKS = [("live",), ("disk",), ("live", "disk", "disk")]


@pytest.fixture(params=STACKS, ids=" over ".join)
def cache(world: World, request: pytest.FixtureRequest) -> CacheManager[Any]:
    return world.open(*request.param)


def leases(cache: CacheManager[Any]) -> LeaseStore:
    return LeaseStore(cache._stack)


def taken(store: LeaseStore, key: str = "a", ttl: float = 60.0) -> Lease:
    lease = store.acquire(key, ttl)
    assert lease is not None
    return lease


def test_what_is_held_cannot_be_taken_until_it_is_returned(cache: CacheManager[Any]) -> None:
    store = leases(cache)
    first = taken(store)
    assert store.acquire("a", 60.0) is None
    assert store.acquire("b", 60.0) is not None
    assert store.release(first)
    assert not store.release(first)
    assert taken(store).token > first.token


def test_a_lease_runs_out_and_the_former_holder_touches_nothing_of_the_new_one(
    cache: CacheManager[Any], clock: FakeClock
) -> None:
    store = leases(cache)
    first = taken(store, ttl=10)
    clock.advance(9.999)
    assert store.holds(first)
    assert store.acquire("a", 10) is None
    clock.advance(0.001)
    assert not store.holds(first)
    second = taken(store, ttl=10)
    assert not store.release(first)
    assert store.renew(first, 10) is None
    assert store.holds(second)
    assert second.token > first.token


def test_a_renewed_lease_runs_from_then_on_and_its_former_form_is_void(
    cache: CacheManager[Any], clock: FakeClock
) -> None:
    store = leases(cache)
    first = taken(store, ttl=10)
    clock.advance(8)
    renewed = store.renew(first, 10)
    assert renewed is not None
    assert renewed.token > first.token
    assert (renewed.since, renewed.holder) == (first.since, first.holder)
    clock.advance(8)
    assert store.acquire("a", 10) is None
    assert not store.release(first)
    assert store.release(renewed)


def test_a_lease_that_ran_out_and_that_nobody_took_is_renewed(cache: CacheManager[Any], clock: FakeClock) -> None:
    store = leases(cache)
    first = taken(store, ttl=10)
    clock.advance(11)
    renewed = store.renew(first, 10)
    assert renewed is not None
    assert store.holds(renewed)


def test_it_is_told_who_holds_what_since_when_and_until_when(cache: CacheManager[Any], clock: FakeClock) -> None:
    store = leases(cache)
    taken(store, "a", ttl=10)
    clock.advance(5)
    taken(store, "b", ttl=10)
    a, b = sorted(store.held(), key=lambda lease: lease.key)
    assert (a.key, b.key) == ("a", "b")
    assert (a.until - a.since).total_seconds() == 10
    assert (b.since - a.since).total_seconds() == 5
    assert a.holder != b.holder
    assert a.holder.split()[1] == str(os.getpid())
    clock.advance(5)
    assert [lease.key for lease in store.held()] == ["b"]


def test_a_lease_is_ended_whoever_holds_it(cache: CacheManager[Any], clock: FakeClock) -> None:
    store = leases(cache)
    first = taken(store, ttl=10)
    assert store.free("a") == first
    assert store.free("a") is None
    second = taken(store, ttl=10)
    clock.advance(10)
    assert store.free("a") is None
    assert not store.holds(second)


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), LONGEST_LEASE_SECONDS + 1, True, "60", None])
def test_a_lease_of_a_length_that_cannot_be_is_refused(world: World, ttl: Any) -> None:
    with pytest.raises(CacheValidationError, match="ttl = "):
        leases(world.open("live")).acquire("a", ttl)


def test_two_caches_see_each_others_leases_and_a_restart_ends_none(world: World) -> None:
    first = taken(leases(world.open("disk")))
    store = leases(world.open("disk"))
    assert store.acquire("a", 60.0) is None
    assert store.holds(first)
    assert leases(world.reopen("live", "disk", "disk")).acquire("a", 60.0) is not None  # that is another disk
    assert not leases(world.reopen("disk")).release(Lease(key="a", version=1))
    assert leases(world.reopen("disk")).release(first)


def test_a_put_or_a_deletion_of_the_record_leaves_its_lease(cache: CacheManager[Any]) -> None:
    store = leases(cache)
    lease = taken(store)
    cache.put(note("a"))
    cache.put(note("a"))
    cache.delete("a")
    cache.clear()
    assert store.holds(lease)
    assert cache.size() == 0


def test_a_sweep_drops_the_rows_of_leases_that_ran_out(world: World, clock: FakeClock) -> None:
    cache = world.open("disk")
    store = leases(cache)
    taken(store, "a", ttl=10)
    taken(store, "b", ttl=20)
    clock.advance(10)
    assert cache.sweep() == 0
    (tier,) = cache._stack.sides.opened()
    assert list(tier.keys()) == ["b"]


def test_one_of_many_threads_gets_it(cache: CacheManager[Any]) -> None:
    store, won = leases(cache), list[int]()

    def work() -> None:
        for key in "abcdefgh":
            if store.acquire(key, 60.0) is not None:
                won.append(ord(key))

    run_together([work] * 4)
    assert sorted(won) == sorted(map(ord, "abcdefgh"))


def test_each_lease_begins_when_the_one_before_has_been_returned_or_has_run_out(world: World, clock: FakeClock) -> None:
    store, ends, leases_taken = leases(world.open("disk")), dict[int, float](), list[Lease]()

    def work() -> None:
        for turn in range(12):
            lease = store.acquire("a", 1.0)
            if lease is not None:
                leases_taken.append(lease)
                ends[lease.token] = lease.until.timestamp()
                if turn % 3:  # else it is left to run out
                    ends[lease.token] = min(ends[lease.token], clock.wall())
                    store.release(lease)
            clock.advance(0.25)

    run_together([work] * 3, stirred=True)
    in_order = sorted(leases_taken, key=lambda lease: lease.token)
    assert len(in_order) > 3
    for former, later in pairwise(in_order):
        assert later.since.timestamp() >= ends[former.token]
    assert sum(map(store.holds, in_order)) <= 1


def test_a_taker_whose_clock_is_behind_takes_what_was_returned_with_a_larger_token(
    world: World, clock: FakeClock
) -> None:
    ahead = leases(world.open("disk"))
    first = taken(ahead)
    ahead.release(first)
    clock.step_wall(-30)
    assert taken(leases(world.open("disk"))).token > first.token


def test_nothing_is_leased_while_the_authority_is_out_of_service(world: World) -> None:
    cache = world.open("live", "disk")
    store = leases(cache)
    lease = taken(store)
    cache.levels[-1].take_out(OSError("gone"))
    for act in (lambda: store.acquire("b", 1), lambda: store.release(lease), lambda: list(store.held())):
        with pytest.raises(TierUnavailable, match="out of service"):
            act()
    cache.levels[-1].reset_failures()
    assert store.release(lease)


def test_what_fails_beside_the_records_counts_against_the_authority(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = world.open("disk", tier_failure_threshold=2)
    store = leases(cache)
    taken(store)

    def fail(*_: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(Disk, "load", fail)
    for _ in range(2):
        with pytest.raises(TierUnavailable, match="no route"):
            store.acquire("a", 60.0)
    assert not cache.levels[-1].in_service


def test_a_lease_whose_row_is_damaged_is_dropped_and_said(world: World, caplog: pytest.LogCaptureFixture) -> None:
    cache = world.open("disk")
    store = leases(cache)
    lease = taken(store)
    (tier,) = cache._stack.sides.opened()
    row: Any = tier.get("a")
    tier.discard(row)
    tier.put(Row(key="a", version=row.version, purge_at=row.purge_at, check="c1.00000000", columns=row.columns))
    with caplog.at_level(logging.WARNING):
        assert not store.holds(lease)
    assert "leases" in caplog.text
    assert "damaged" in caplog.text
    assert cache.get_statistics().tiers[-1].corruptions == 1
    taken(store)


def test_who_only_looks_leaves_a_damaged_lease_as_it_is(world: World, caplog: pytest.LogCaptureFixture) -> None:
    cache = world.open("disk")
    taken(leases(cache))
    (tier,) = cache._stack.sides.opened()
    row: Any = tier.get("a")
    spoilt = Row(key="a", version=row.version, purge_at=row.purge_at, check="c1.00000000", columns=row.columns)
    tier.discard(row)
    tier.put(spoilt)
    reader = world.open("disk", read_only=True)
    assert reader.leased() == []
    assert reader.levels[-1].writable
    assert cache.explain("a").leased_by is None
    assert tier.get("a") == spoilt
    assert "was left" in caplog.text


def test_a_cache_that_is_turned_off_leases_nothing(world: World) -> None:
    with pytest.raises(TierUnavailable, match="turned off"):
        leases(world.open(cache_enabled=False))
