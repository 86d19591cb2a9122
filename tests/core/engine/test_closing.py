"""Closing, being dropped, and the background sweeper."""

import gc
import os
import pickle
import signal
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from tests.core.engine.support import World, note, tier

from tierkit import CacheClosedError, CacheManager, TierUnavailable
from tierkit.sweeper import Sweeper
from tierkit.testing import FakeClock

TWO = ("live", "disk")
PATIENCE = 30.0


def sweepers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "tierkit-sweeper"]


@pytest.mark.parametrize(
    "call",
    [
        lambda cache: cache.get("a"),
        lambda cache: cache.get_with_level("a"),
        lambda cache: cache.get_many(["a"]),
        lambda cache: list(cache.keys()),
        lambda cache: list(cache.scan()),
        lambda cache: cache.size(),
        lambda cache: "a" in cache,
        lambda cache: cache.put(note("a")),
        lambda cache: cache.put_many([note("a")]),
        lambda cache: cache.delete("a"),
        lambda cache: cache.clear(),
        lambda cache: cache.invalidate_by_health("a"),
        lambda cache: cache.get_statistics(),
        lambda cache: cache.flush(),
        lambda cache: cache.sweep(),
    ],
)
def test_after_close_every_call_is_refused(world: World, call: Callable[[CacheManager[Any]], object]) -> None:
    cache = world.open(*TWO)
    cache.put(note("a"))
    cache.close()
    cache.close()
    with pytest.raises(CacheClosedError):
        call(cache)


@pytest.fixture
def background(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches with a fake clock run their thread as others do."""
    monkeypatch.setattr(FakeClock, "background", True)


@pytest.mark.req("US2-2")
def test_close_ends_the_sweeper_and_flushes_usage(background: None, world: World) -> None:
    before = len(sweepers())
    with world.open(*TWO) as cache:
        assert len(sweepers()) == before + 1
        cache.put(note("a"))
        cache.get("a")
    assert len(sweepers()) == before
    row: Any = tier(world.open("live", "disk"), "L2").tier.get("a")
    assert row.access_count == 1


def test_close_reaches_every_tier_the_authority_last(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    order: list[str] = []
    for level in cache.levels:
        vars(level.tier)["close"] = _noting(order, level.name, level.tier.close)
    cache.close()
    assert order == ["L1", "L2", "L3"]


def _noting(order: list[str], name: str, close: Callable[[], None]) -> Callable[[], None]:
    def noted() -> None:
        order.append(name)
        close()

    return noted


def test_a_tier_that_cannot_be_closed_keeps_no_other_open(world: World) -> None:
    cache = world.open("live", "disk", "disk")

    def fail() -> None:
        raise OSError("no")

    tier(cache, "L2").close = fail  # type: ignore[method-assign]  # the fault
    with pytest.raises(TierUnavailable, match="L2"):
        cache.close()
    with pytest.raises(TierUnavailable):
        tier(cache, "L3").tier.size()
    cache.close()


def test_a_flush_that_fails_at_close_keeps_no_tier_open(world: World) -> None:
    cache = world.open(*TWO)
    cache.put(note("a"))
    cache.get("a")
    for name in ("L1", "L2"):
        tier(cache, name).fail()
    cache.close()
    with pytest.raises(TierUnavailable):
        tier(cache, "L2").tier.size()


def test_a_cache_that_is_dropped_open_is_closed_with_a_warning(clock: FakeClock) -> None:
    world = World(clock)
    before = len(sweepers())
    cache = world.open(*TWO)
    cache.put(note("a"))
    cache.get("a")
    authority = tier(cache, "L2").tier
    world.caches.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del cache
        gc.collect()
    assert [warning.category for warning in caught] == [ResourceWarning]
    assert len(sweepers()) == before
    with pytest.raises(TierUnavailable):
        authority.size()


def test_a_cache_dropped_in_the_thread_that_sweeps_it_is_closed_after_the_sweep(
    background: None, clock: FakeClock
) -> None:
    world = World(clock)
    cache = world.open(*TWO)
    manager = [cache]
    world.caches.clear()
    swept = threading.Event()
    purged: list[Any] = []
    authority = tier(cache, "L2")
    reference = weakref.ref(cache)

    def drop() -> None:
        manager.clear()  # the last reference goes within a sweep, which is not over
        purged.append(authority.tier.purge(0.0))
        swept.set()

    authority.before("purge", drop)
    assert cache._sweeper is not None
    stack, sweeper = cache._stack, cache._sweeper
    sweeper._stop()
    sweeper._thread.join(PATIENCE)  # the thread below takes its place
    thread = threading.Thread(target=lambda: (stack.sweep(), [then() for then in sweeper._finish]))
    sweeper._thread = thread
    del cache
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        thread.start()
        thread.join(PATIENCE)
    assert swept.is_set()
    assert reference() is None
    assert purged == [0]
    with pytest.raises(TierUnavailable):
        authority.tier.size()


def test_an_error_while_warming_at_start_leaves_nothing_open(clock: FakeClock, tmp_path: Any) -> None:
    world = World(clock)
    before = len(sweepers())
    with pytest.raises(Exception, match=r"none\.csv"):
        world.open(*TWO, warm_files=(tmp_path / "none.csv",))
    gc.collect()  # a ResourceWarning would fail the test
    assert len(sweepers()) == before


def test_a_cache_cannot_be_pickled(world: World) -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(world.open(*TWO))


@pytest.mark.req("US2-2")
@pytest.mark.req("SC-6")
def test_the_sweeper_removes_what_expired_from_every_level(clock: FakeClock) -> None:
    world = World(clock)
    cache = world.open("live", "disk", "disk")
    cache.put_many([note("a", ttl_seconds=60), note("b")])
    clock.advance(60)
    swept = threading.Event()
    tier(cache, "L3").after("purge", swept.set)
    extra = Sweeper(cache._stack, 0.001)
    assert swept.wait(PATIENCE)
    extra.stop(lambda: None)
    assert [level.tier.size() for level in cache.levels] == [1, 1, 1]
    assert [tier.evictions_ttl for tier in cache.get_statistics().tiers] == [1, 1, 1]
    world.close()


@pytest.mark.req("US2-3")
def test_a_sweep_counts_what_it_removed(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk")
    cache.put_many([note("a", ttl_seconds=60), note("b", ttl_seconds=61), note("c")])
    assert cache.sweep() == 0
    clock.advance(60)
    assert cache.sweep() == 2
    clock.advance(1)
    assert cache.sweep() == 2
    assert cache.size() == 1


def test_a_sweep_that_fails_is_logged_and_followed_by_others(world: World, caplog: pytest.LogCaptureFixture) -> None:
    cache = world.open("disk")
    rounds = threading.Semaphore(0)

    def fail() -> None:
        rounds.release()
        raise RuntimeError("no")

    vars(cache._stack)["sweep"] = fail
    extra = Sweeper(cache._stack, 0.001)
    assert rounds.acquire(timeout=PATIENCE)
    assert rounds.acquire(timeout=PATIENCE)
    extra.stop(lambda: None)
    assert any("upkeep failed" in record.message for record in caplog.records)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_locks_stamps_and_usage_of_its_own(world: World) -> None:
    cache = world.open("live", "disk")
    put = cache.put(note("a"))
    cache.get("a")
    stack = cache._stack
    own = stack.filling.flights.setdefault("b", _landing_nowhere(cache))
    assert own is not None
    holding, forked = threading.Event(), threading.Event()

    def hold_every_lock() -> None:
        with stack.filling.locks[stack.filling.stripe("a")], stack.ledger._lock, stack.versions._lock:
            holding.set()
            forked.wait(PATIENCE)

    thread = threading.Thread(target=hold_every_lock)
    thread.start()
    assert holding.wait(PATIENCE)
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:  # pragma: no cover - another process
        signal.alarm(int(PATIENCE))  # a lock that nobody releases ends the child, and not the patience of people
        try:
            os.write(write, _answer_of_the_child(cache, put.version))
        finally:
            os._exit(0)
    forked.set()
    thread.join(PATIENCE)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert pipe.read() == b"fine"
    os.waitpid(child, 0)
    stack.filling.flights.clear()
    entry = cache.get("a")
    assert entry is not None
    assert entry.access_count == 2


def _landing_nowhere(cache: CacheManager[Any]) -> Any:
    from tierkit.filling import Flight

    return Flight(cache._time.monotonic())


def _answer_of_the_child(cache: CacheManager[Any], version: int) -> bytes:
    stack = cache._stack
    tag = version % 1024
    entry = cache.get("a")
    stamps = {stack.versions.next() % 1024 for _ in range(3)}
    found = {
        "usage": entry is not None and entry.access_count == 1,
        "level": stack.levels[0].counters.promotions == 1,
        "missing": cache.get("b") is None,
        "put": cache.put(note("a", "child")).text == "child",
        "tag": len(stamps) == 1,
    }
    cache.close()
    wrong = [name for name, right in found.items() if not right]
    return b"fine" if not wrong else f"{wrong} {tag} {stamps}".encode()


def test_a_child_takes_another_tag_for_its_stamps(world: World) -> None:
    versions = world.open("disk")._stack.versions
    tags = set()
    for _ in range(20):
        tags.add(versions.next() % 1024)
        versions.renew()
    assert len(tags) > 1
