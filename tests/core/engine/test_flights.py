"""One read for all who want the same key, and nobody who waits for ever."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.core.engine.support import PATIENCE, Gate, Note, Reader, World, note, tier

from tierkit import CacheManager
from tierkit.testing import FakeClock


@contextmanager
def joined(cache: CacheManager[Note]) -> Iterator[Callable[[int], None]]:
    """Waits until that many readers wait for a flight."""
    joining = threading.Semaphore(0)
    flights = cache._stack.filling.flights

    class Watched(dict[str, Any]):
        def setdefault(self, key: str, default: Any = None) -> Any:
            found = super().setdefault(key, default)
            if found is not default:
                joining.release()
            return found

    def wait(readers: int) -> None:
        assert all(joining.acquire(timeout=PATIENCE) for _ in range(readers))

    cache._stack.filling.flights = Watched(flights)
    yield wait


@pytest.fixture
def cache(world: World) -> CacheManager[Note]:
    world.open("live", "disk").put(note("a", "old"))
    cache = world.reopen("live", "disk", late_seconds=PATIENCE)
    world.calls.clear()
    return cache


@pytest.mark.req("US4-6")
def test_many_threads_that_want_a_key_read_it_once(world: World, cache: CacheManager[Note]) -> None:
    gate = Gate(cache, "L2")
    with joined(cache) as wait_for:
        leader = Reader(cache)
        gate.reached.wait(PATIENCE)
        others = [Reader(cache) for _ in range(7)]
        wait_for(7)
        gate.opened.set()
        assert [reader.text() for reader in (leader, *others)] == ["old"] * 8
    assert world.calls_of("get").count(("L2", "get")) == 1
    statistics = cache.get_statistics()
    assert (statistics.requests, statistics.answered) == (8, 8)
    assert statistics.tiers[1].hits == 8
    assert leader.found is not None
    assert leader.found.access_count == 8


def test_a_miss_is_shared_and_counted_for_each(cache: CacheManager[Note]) -> None:
    gate = Gate(cache, "L2")
    with joined(cache) as wait_for:
        leader = Reader(cache, "none")
        gate.reached.wait(PATIENCE)
        others = [Reader(cache, "none") for _ in range(3)]
        wait_for(3)
        gate.opened.set()
        assert [reader.text() for reader in (leader, *others)] == [None] * 4
    assert cache.get_statistics().requests == 4


def test_a_miss_is_remembered_by_nobody(cache: CacheManager[Note]) -> None:
    assert cache.get("b") is None
    cache.put(note("b", "now"))
    assert cache.get("b") is not None
    assert cache._stack.filling.flights == {}


@pytest.mark.parametrize("write", ["put", "put_many", "clear", "delete"])
def test_a_read_that_begins_after_a_write_returned_joins_no_flight_from_before(
    cache: CacheManager[Note], write: str
) -> None:
    gate = Gate(cache, "L2", "after")
    slow = Reader(cache)
    gate.reached.wait(PATIENCE)
    writes: dict[str, Callable[[], object]] = {
        "put": lambda: cache.put(note("a", "new")),
        "put_many": lambda: cache.put_many([note("a", "new")]),
        "clear": cache.clear,
        "delete": lambda: cache.delete("a"),
    }
    writes[write]()
    expected = "new" if write.startswith("put") else None
    assert Reader(cache).text() == expected
    gate.opened.set()
    assert slow.text() == "old"
    assert Reader(cache).text() == expected


def test_a_read_that_began_within_a_write_is_not_joined_after_it(cache: CacheManager[Note]) -> None:
    gate = Gate(cache, "L2", "after")
    slow: list[Reader] = []

    def read() -> None:
        slow.append(Reader(cache))
        gate.reached.wait(PATIENCE)

    tier(cache, "L2").before("put", read)
    cache.put(note("a", "new"))
    assert Reader(cache).text() == "new"
    gate.opened.set()
    assert slow[0].text() == "old"
    assert Reader(cache).text() == "new"


def test_a_leader_that_fails_does_not_spoil_the_others(cache: CacheManager[Note]) -> None:
    class Interrupt(BaseException):
        pass

    gate = Gate(cache, "L2")
    with joined(cache) as wait_for:
        leader = Reader(cache)
        gate.reached.wait(PATIENCE)
        others = [Reader(cache) for _ in range(3)]
        wait_for(3)

        def interrupt() -> None:
            raise Interrupt

        tier(cache, "L2").after("get", interrupt)
        gate.opened.set()
        assert [reader.text() for reader in others] == ["old"] * 3
    leader.join(PATIENCE)
    assert isinstance(leader.error, Interrupt)
    assert cache._stack.filling.flights == {}


def test_nobody_waits_for_ever_for_a_leader_that_is_gone(world: World) -> None:
    world.open("live", "disk").put(note("a", "old"))
    cache = world.reopen("live", "disk", late_seconds=0.01)
    gate = Gate(cache, "L2")
    stuck = Reader(cache)
    gate.reached.wait(PATIENCE)
    assert Reader(cache).text() == "old"
    assert Reader(cache).text() == "old"
    gate.opened.set()
    assert stuck.text() == "old"


def test_a_read_from_within_the_read_of_the_same_key_does_not_wait_for_itself(cache: CacheManager[Note]) -> None:
    seen: list[Any] = []
    tier(cache, "L2").before("get", lambda: seen.append(cache.get("a")))
    assert Reader(cache).text() == "old"
    assert [entry.text for entry in seen] == ["old"]


def test_a_write_from_within_a_read_does_not_wait_for_itself(cache: CacheManager[Note]) -> None:
    tier(cache, "L1").before("put", lambda: cache.put(note("a", "new")))  # the stripe's lock is held
    Reader(cache).text()
    assert Reader(cache).text() == "new"


def test_who_waited_does_not_get_what_expired_meanwhile(world: World, clock: FakeClock) -> None:
    world.open("live", "disk").put(note("a", "old", ttl_seconds=60))
    cache = world.reopen("live", "disk", late_seconds=PATIENCE)
    gate = Gate(cache, "L2", "after")
    with joined(cache) as wait_for:
        leader = Reader(cache)
        gate.reached.wait(PATIENCE)
        followers: list[Reader] = []

        def follow() -> None:
            followers.append(Reader(cache))
            wait_for(1)
            clock.advance(60)

        tier(cache, "L1").before("put", follow)
        gate.opened.set()
        leader.text()
        assert followers[0].text() is None


def test_a_flight_older_than_the_staleness_bound_is_not_joined(world: World, clock: FakeClock) -> None:
    world.open("live", "disk").put(note("a", "old"))
    # A reader that joined it would wait for longer than the test does.
    cache = world.reopen("live", "disk", late_seconds=2 * PATIENCE, staleness_seconds=5)
    gate = Gate(cache, "L2", "after")
    slow = Reader(cache)
    gate.reached.wait(PATIENCE)
    world.open("live", "disk").put(note("a", "new"))
    clock.advance(5.001)
    assert Reader(cache).text() == "new"
    gate.opened.set()
    slow.text()
    assert Reader(cache).text() == "new"


def test_a_landing_flight_survives_a_clear_at_the_same_moment(cache: CacheManager[Note]) -> None:
    filling = cache._stack.filling

    class Cleared(dict[str, Any]):
        """The flights are forgotten between the look and the removal."""

        def get(self, key: str, default: Any = None) -> Any:
            found = super().get(key, default)
            if found is not None:
                self.clear()
            return found

    filling.flights = Cleared()
    assert Reader(cache).text() == "old"
