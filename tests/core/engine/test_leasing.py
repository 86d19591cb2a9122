"""Handing out records: one worker at a time, round and round, with what was learnt counted."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from tests.core.engine.support import PATIENCE, World, note, tier

from tierkit import (
    CacheClosedError,
    CacheManager,
    CacheValidationError,
    HealthStatus,
    TierReadOnly,
    TierUnavailable,
    leasing,
)
from tierkit.leasing import LeasedEntry, Leasing
from tierkit.query import Query
from tierkit.testing import FakeClock
from tierkit.testing.suite.processes import forked, run_together, send

STACKS = [("live",), ("disk",), ("live", "disk", "disk")]


@pytest.fixture(params=STACKS, ids=" over ".join)
def cache(world: World, request: pytest.FixtureRequest) -> CacheManager[Any]:
    cache = world.open(*request.param, failure_threshold=3)
    cache.put_many([note("a"), note("b"), note("c")])
    return cache


def next_key(cache: CacheManager[Any], **filters: Any) -> str | None:
    """The key of the record that is handed out now, and returned at once."""
    with cache.lease(**filters) as entry:
        return entry.key if entry else None


def counted(cache: CacheManager[Any]) -> tuple[int, int, int]:
    """How many leases were taken, missed and lost."""
    told = cache.get_statistics()
    return told.leases_taken, told.leases_missed, told.leases_lost


def ended_badly(hand: LeasedEntry[Any], meanwhile: Callable[[], object] = lambda: None) -> None:
    """Let a block with a record in hand end with an exception, after something happened."""

    def block() -> None:
        with hand:
            meanwhile()
            raise OSError("bad")

    with pytest.raises(OSError, match="bad"):
        block()


# -- which record --------------------------------------------------------------------------------------------------


def test_nobody_gets_what_another_holds(cache: CacheManager[Any]) -> None:
    hands = [cache.lease() for _ in range(4)]
    assert sorted(hand.entry.key for hand in hands if hand.entry) == ["a", "b", "c"]
    assert [bool(hand) for hand in hands] == [True, True, True, False]
    assert [lease.key for lease in cache.leased()] == ["a", "b", "c"]
    assert hands[1].release()
    assert hands[1].entry is not None
    assert next_key(cache) == hands[1].entry.key


def test_what_is_in_hand_shows_who_has_it_and_no_field(cache: CacheManager[Any]) -> None:
    hand = cache.lease(key="a")
    assert repr(hand).startswith(f"<LeasedEntry {hand.name}: ")
    assert ", until 20" in repr(hand)
    assert repr(cache.lease(key="a")) == "<LeasedEntry: nothing was free>"


def test_workers_go_round(cache: CacheManager[Any], clock: FakeClock) -> None:
    keys = []
    for _ in range(7):
        clock.advance(1)
        keys.append(next_key(cache))
    assert keys == ["a", "b", "c", "a", "b", "c", "a"]


def test_workers_of_several_processes_go_round(world: World, clock: FakeClock) -> None:
    one, other = world.open("live", "disk"), world.open("disk")  # that is another name for the same disk
    world.disks["L1"] = world.disks["L2"]
    other = world.open("disk")
    one.put_many([note("a"), note("b"), note("c")])
    keys = []
    for _ in range(3):
        for cache in (one, other):
            clock.advance(1)
            keys.append(next_key(cache))
    assert keys == ["a", "b", "c", "a", "b", "c"]


def test_a_lease_counts_as_a_use(cache: CacheManager[Any], clock: FakeClock) -> None:
    clock.advance(5)
    assert next_key(cache) == "a"
    found = next(iter(cache.select(key="a")))
    assert found.access_count == 1
    assert found.last_accessed is not None
    assert found.last_accessed.timestamp() == clock.wall()


def test_filters_and_the_order_say_what_is_handed_out(cache: CacheManager[Any]) -> None:
    cache.put(note("d", source="paid", text="z"))
    cache.put(note("e", source="paid", text="y"))
    assert next_key(cache, source="paid", order_by="text") == "e"
    assert next_key(cache, where={"source": "paid"}, order_by="-text") == "d"
    assert next_key(cache, source="nobody") is None


def test_unhealthy_and_expired_records_are_left_out(cache: CacheManager[Any], clock: FakeClock) -> None:
    cache.delete("c")
    cache.put(note("d", ttl_seconds=10))
    cache.invalidate_by_health("a")
    clock.advance(10)
    assert [next_key(cache), next_key(cache)] == ["b", "b"]
    assert next_key(cache, health_status=HealthStatus.UNHEALTHY) == "a"


def test_a_record_that_changed_before_its_lease_was_taken_is_passed_over(
    cache: CacheManager[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.lease().release()
    handing = cache._leasing
    assert handing is not None
    acquire = handing.store.acquire

    def late(key: str, ttl: float) -> Any:
        changes = {"b": cache.invalidate_by_health, "c": cache.delete}
        changes.get(key, id)(key)
        return acquire(key, ttl)

    monkeypatch.setattr(handing.store, "acquire", late)
    cache.delete("a")
    assert not cache.lease()
    assert cache.leased() == []


def test_where_others_come_first_the_next_candidates_are_taken(
    cache: CacheManager[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put_many([note(f"n{number:02}") for number in range(30)])
    cache.lease().release()
    handing = cache._leasing
    assert handing is not None
    acquire = handing.store.acquire

    def taken_by_others(key: str, ttl: float) -> Any:
        return acquire(key, ttl) if key == "n29" else None

    monkeypatch.setattr(handing.store, "acquire", taken_by_others)
    assert next_key(cache) == "n29"


def test_no_more_is_read_than_is_leased_and_a_few(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = world.open("disk")
    cache.put_many([note(f"n{number:03}") for number in range(200)])
    held = [cache.lease() for _ in range(5)]
    assert len(held) == len(cache.leased())
    asked: list[Any] = []
    query = tier(cache, "L1").query

    def noted(wanted: Query) -> Any:
        asked.append(wanted.limit)
        return query(wanted)

    monkeypatch.setattr(tier(cache, "L1"), "query", noted)
    assert next_key(cache) == "n005"
    assert asked == [5 + 8]


def test_threads_never_share_a_record(cache: CacheManager[Any]) -> None:
    holding, wrong = set[str](), list[str]()

    def work() -> None:
        for _ in range(15):
            with cache.lease(timeout=PATIENCE) as entry:
                if entry is None or entry.key in holding:
                    wrong.append("two hands")
                    continue
                holding.add(entry.key)
                holding.remove(entry.key)

    run_together([work] * 4)
    assert not wrong
    assert cache.leased() == []
    assert counted(cache) == (60, 0, 0)


# -- what was learnt -------------------------------------------------------------------------------------------------


def test_the_end_of_a_block_counts_a_success(cache: CacheManager[Any]) -> None:
    with cache.lease() as entry:
        assert entry is not None
    assert next(iter(cache.select(key="a"))).is_healthy


def test_an_exception_counts_a_failure_and_the_last_one_removes_the_record(cache: CacheManager[Any]) -> None:
    for count in (1, 2):
        with pytest.raises(ConnectionError), cache.lease(key="a", health_status=list(HealthStatus)):
            raise ConnectionError
        assert next(iter(cache.select(key="a"))).failure_count == count
        assert next(iter(cache.select(key="a"))).health_status is HealthStatus.UNHEALTHY
    with pytest.raises(ConnectionError), cache.lease(key="a", health_status="unhealthy"):
        raise ConnectionError
    assert cache.get("a") is None
    assert cache.leased() == []


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError, TierUnavailable]
)
def test_what_says_nothing_of_the_record_counts_neither_way(
    cache: CacheManager[Any], error: type[BaseException]
) -> None:
    with pytest.raises(error), cache.lease():
        raise error
    assert next(iter(cache.select(key="a"))).health_status is HealthStatus.UNKNOWN
    assert cache.leased() == []


@pytest.mark.parametrize(
    ("healthy", "status"),
    [(True, HealthStatus.HEALTHY), (False, HealthStatus.UNHEALTHY), (None, HealthStatus.UNKNOWN)],
)
def test_a_record_is_returned_by_hand_with_what_was_learnt(
    cache: CacheManager[Any], healthy: bool | None, status: HealthStatus
) -> None:
    hand = cache.lease()
    with hand:
        assert hand.release(healthy)
        assert not hand.release(False)
    assert next(iter(cache.select(key="a"))).health_status is status
    assert not hand.lost


def test_the_one_who_gets_a_record_next_knows_what_was_learnt(world: World) -> None:
    cache = world.open("disk")
    cache.put(note("a"))
    world.calls.clear()
    with pytest.raises(OSError, match="bad"), cache.lease():
        raise OSError("bad")
    order = [name for _, name in world.calls_of("replace", "discard")]
    assert order == ["replace", "replace", "discard"]  # the lease, the failure, the return


def test_a_record_that_is_deleted_while_it_is_held_is_missed_by_nobody(cache: CacheManager[Any]) -> None:
    with cache.lease() as entry:
        assert entry is not None
        cache.delete(entry.key)
    ended_badly(cache.lease(), meanwhile=cache.clear)
    assert cache.leased() == []


# -- leases that are lost, renewed, ended -----------------------------------------------------------------------------


def test_a_lease_that_ran_out_leaves_the_new_holder_alone(
    cache: CacheManager[Any], clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    first = cache.lease(key="a", ttl=10)
    lost = []
    for seconds in (9, 1):
        clock.advance(seconds)
        lost.append(first.lost)
    assert lost == [False, True]
    second = cache.lease(key="a")
    assert second.token > first.token
    ended_badly(first)
    assert first.lost
    assert "lost" in caplog.text
    assert [lease.token for lease in cache.leased()] == [second.token]
    assert next(iter(cache.select(key="a"))).failure_count == 0
    assert second.release(True)
    assert counted(cache) == (2, 0, 1)


def test_a_renewed_lease_is_kept(cache: CacheManager[Any], clock: FakeClock) -> None:
    with cache.lease(ttl=10) as entry:
        assert entry is not None
    hand = cache.lease(key="a", ttl=10)
    clock.advance(9)
    assert hand.renew()
    clock.advance(9)
    assert hand.renew(30)
    clock.advance(29)
    assert not hand.lost
    assert hand.lease is not None
    assert (hand.lease.until - hand.lease.since).total_seconds() == 48
    assert not cache.lease(key="a")
    assert hand.release(True)
    assert not hand.renew()


def test_a_lost_lease_is_neither_renewed_nor_returned(
    cache: CacheManager[Any], clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    first = cache.lease(key="a", ttl=10)
    clock.advance(10)
    second = cache.lease(key="a")
    assert not first.renew()
    assert not first.renew()
    assert not first.release(True)
    assert second.release()
    assert caplog.text.count("lost") == 1


def test_a_lease_is_ended_by_force(cache: CacheManager[Any]) -> None:
    first = cache.lease(key="a")
    ended = cache.end_lease("a")
    assert ended == first.lease
    assert cache.end_lease("a") is None
    second = cache.lease(key="a")
    assert second
    assert not first.release(False)
    assert second.release(True)


def test_nothing_is_counted_where_statistics_are_off(world: World) -> None:
    cache = world.open("disk", enable_statistics=False)
    cache.put(note("a"))
    assert cache.lease()
    assert counted(cache) == (0, 0, 0)


def test_a_hand_with_nothing_in_it_does_nothing(cache: CacheManager[Any]) -> None:
    hand = cache.lease(source="nobody")
    with hand as entry:
        assert entry is None
        assert not hand
    assert (hand.lease, hand.token, hand.lost, hand.name) == (None, 0, False, "")
    assert not hand.renew()
    assert not hand.release(True)


# -- waiting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["release", "end_lease"])
def test_one_who_waits_is_woken_by_a_return(
    cache: CacheManager[Any], act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, wait = threading.Event(), Leasing.wait

    def noted(self: Leasing[Any], seconds: float, returns: int) -> None:
        waiting.set()
        wait(self, 10 * seconds, returns)

    monkeypatch.setattr(leasing, "PAUSES_SECONDS", (PATIENCE,))
    monkeypatch.setattr(Leasing, "wait", noted)
    hand, got = cache.lease(key="a"), list[str | None]()
    waiter = threading.Thread(target=lambda: got.append(next_key(cache, key="a", timeout=None)), daemon=True)
    waiter.start()
    assert waiting.wait(PATIENCE)
    hand.release() if act == "release" else cache.end_lease("a")
    waiter.join(PATIENCE)
    assert got == ["a"]


def test_one_who_waits_goes_when_the_time_is_over(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = world.open("disk")
    pauses: list[float] = []

    def wait(self: Leasing[Any], seconds: float, returns: int) -> None:
        pauses.append(seconds)
        clock.advance(seconds)

    monkeypatch.setattr(Leasing, "wait", wait)
    assert not cache.lease(timeout=1.0)
    assert counted(cache) == (0, 1, 0)
    assert sum(pauses) == pytest.approx(1.0)
    assert pauses == sorted(pauses[:-1]) + pauses[-1:]
    assert max(pauses) <= 0.25


def test_one_who_waits_gets_a_record_whose_lease_runs_out(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = world.open("disk")
    cache.put(note("a"))
    first = cache.lease(ttl=5)
    monkeypatch.setattr(Leasing, "wait", lambda _, seconds, __: clock.advance(seconds))
    assert cache.lease(timeout=None)
    assert first.lost


@pytest.mark.parametrize("ttl", ["5s", "5", timedelta(seconds=5), 5])
def test_times_are_given_in_any_form(world: World, clock: FakeClock, ttl: Any) -> None:
    cache = world.open("disk")
    cache.put(note("a"))
    hand = cache.lease(ttl=ttl, timeout="0s")
    clock.advance(4.0)
    assert hand.renew(ttl)
    clock.advance(4.5)
    assert not hand.lost
    clock.advance(1.0)
    assert hand.lost


def test_closing_ends_the_waiting(world: World) -> None:
    cache, errors = world.open("disk"), list[BaseException]()

    def wait() -> None:
        try:
            cache.lease(timeout=None)
        except CacheClosedError as error:
            errors.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    cache.close()
    waiter.join(PATIENCE)
    assert len(errors) == 1


# -- the life of a cache -----------------------------------------------------------------------------------------------


def test_closing_returns_what_is_in_hand(world: World) -> None:
    cache = world.open("disk")
    cache.put_many([note("a"), note("b")])
    hands = [cache.lease(), cache.lease()]
    hands[0].release()
    cache.close()
    assert not hands[1].release(True)
    assert world.open("disk").leased() == []


def test_a_lease_outlives_a_cache_that_cannot_return_it(
    world: World, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    cache = world.open("disk")
    cache.put(note("a"))
    assert cache.lease(ttl=10)
    held = cache._leasing and list(cache._leasing._held)
    assert not held  # it was dropped
    hand = cache.lease(ttl=10, timeout=0)
    assert not hand
    clock.advance(10)
    hand = cache.lease(ttl=10)
    cache.levels[-1].take_out(OSError("gone"))
    with caplog.at_level(logging.WARNING):
        cache.close()
    assert "runs out" in caplog.text
    other = world.open("disk")
    assert not other.lease()
    clock.advance(10)
    assert other.lease()


def test_a_forked_child_does_not_own_the_leases_of_its_parent(world: World) -> None:
    cache = world.open("disk")
    cache.put(note("a"))
    hand = cache.lease()

    def child(pipe: Any) -> None:
        with hand:
            send(pipe, 2 * hand.renew() + hand.release(False))
        send(pipe, len(cache._leasing._held) if cache._leasing else -1)

    with forked(child) as process:
        assert (process.receive(), process.receive()) == (0, 0)
    assert hand.release(True)


def test_a_child_that_was_forked_while_a_thread_was_at_the_leases_takes_its_own(world: World) -> None:
    cache = world.open("disk")
    cache.put_many([note("a"), note("b")])
    hand = cache.lease()
    (side,) = cache._stack.sides.opened()
    held, over = threading.Event(), threading.Event()

    def hold() -> None:
        with side.lock:
            held.set()
            over.wait(PATIENCE)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(PATIENCE)

    def child(pipe: Any) -> None:
        entry = cache.lease().entry
        send(pipe, ord(entry.key) if entry else 0)

    with forked(child) as process:
        assert process.receive() == ord("b")
    over.set()
    thread.join(PATIENCE)
    assert hand.release()


def test_what_cannot_be_returned_does_not_hide_what_went_wrong_in_the_block(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    cache = world.open("disk")
    cache.put(note("a"))
    ended_badly(cache.lease(), meanwhile=lambda: cache.levels[-1].take_out(OSError("gone")))
    assert "could not be returned" in caplog.text
    cache.levels[-1].reset_failures()
    cache.end_lease("a")
    with pytest.raises(TierUnavailable), cache.lease():
        cache.levels[-1].take_out(OSError("gone"))


def test_a_lease_is_returned_if_its_record_cannot_be_read(world: World) -> None:
    cache = world.open("disk")
    cache.put(note("a"))
    cache.lease().release()
    (side,) = cache._stack.sides.opened()
    side.after("replace", lambda: tier(cache, "L1").fail("get", times=1))  # type: ignore[attr-defined]  # it is a scripted one
    with pytest.raises(TierUnavailable):
        cache.lease()
    assert cache.leased() == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"ttl": 0}, "ttl = 0"),
        ({"ttl": 86_401}, "renew it"),
        ({"timeout": -1}, "timeout = -1"),
        ({"timeout": float("nan")}, "timeout = nan"),
        ({"timeout": [1]}, r"timeout = \[1\]"),
        ({"timeout": "soon"}, "timeout: 'soon' is neither seconds nor a duration"),
        ({"ttl": "2d"}, "ttl = 172800.0: a lease lasts more than 0"),
        ({"colour": "red"}, "no field 'colour'"),
        ({"order_by": "colour"}, "no field 'colour'"),
    ],
)
def test_what_cannot_be_asked_is_refused(cache: CacheManager[Any], arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(CacheValidationError, match=said):
        cache.lease(**arguments)
    with pytest.raises(CacheValidationError):
        cache.end_lease("")


def test_a_read_only_cache_tells_of_leases_and_takes_none(world: World) -> None:
    cache = world.open("disk")
    cache.put(note("a"))
    reader = world.open_config([{"backend": "disk"}], read_only=True)
    assert reader.leased() == []
    hand = cache.lease()
    assert reader.leased() == [hand.lease]
    for act in (reader.lease, lambda: reader.end_lease("a")):
        with pytest.raises(TierReadOnly):
            act()


def test_a_cache_that_is_turned_off_hands_out_nothing(world: World) -> None:
    cache = world.open(cache_enabled=False)
    assert not cache.lease(timeout=None)
    assert cache.leased() == []
    assert cache.end_lease("a") is None


def test_records_that_wait_for_the_authority_are_handed_out(world: World) -> None:
    tiers = [{"backend": "live"}, {"backend": "disk"}, {"backend": "disk", "write_policy": "behind"}]
    cache = world.open_config(tiers)
    cache.put(note("a"))
    assert next_key(cache) == "a"
    assert next(iter(cache.select(key="a"))).is_healthy


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() <= before
