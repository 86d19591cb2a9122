"""Loads: one at a time for each key, in the background where a value is at hand, and never over what was set since."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.core.engine.support import PATIENCE, World, tier

from tierkit import (
    Cache,
    CacheClosedError,
    CacheConfig,
    CacheValidationError,
    LoadError,
    LoadTimeout,
    ValueEntry,
)
from tierkit.testing import FakeClock
from tierkit.testing.suite.processes import run_together


class Source:
    """Where values are loaded from: it counts, and can be held up or fail."""

    def __init__(self) -> None:
        self.loads = 0
        self.error: BaseException | None = None
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def __call__(self) -> int:
        self.loads += 1
        value = self.loads
        self.reached.set()
        assert self.go_on.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return value

    def hold_up(self) -> None:
        self.reached.clear()
        self.go_on.clear()


@pytest.fixture
def source() -> Iterator[Source]:
    source = Source()
    yield source
    source.go_on.set()


class Asking(threading.Thread):
    """Calls something in a thread of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self.call = call
        self.value: Any = None
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self.value = self.call()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def answer(self) -> Any:
        self.join(PATIENCE)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.value


def settled(cache: Cache[Any]) -> None:
    """Wait for what is loaded in the background."""
    for thread in list(cache._loader._threads):
        thread.join(PATIENCE)


@contextmanager
def meanwhile(cache: Cache[Any], source: Source, **options: Any) -> Iterator[Asking]:
    """A load that is under way within, and ends after it."""
    source.hold_up()
    asking = Asking(lambda: cache.get_or_load("a", source, **options))
    assert source.reached.wait(PATIENCE)
    yield asking
    source.go_on.set()
    asking.join(PATIENCE)


# -- one load --------------------------------------------------------------------------------------------------------


def test_a_value_is_loaded_once_and_lives_as_long_as_it_says(
    cache: Cache[Any], source: Source, clock: FakeClock
) -> None:
    assert [cache.get_or_load("a", source, ttl="1m", tags=["t"]) for _ in range(3)] == [1, 1, 1]
    assert list(cache.tagged("t")) == ["a"]
    clock.advance(60)
    assert cache.get_or_load("a", source, ttl="1m") == 2


def test_none_is_a_value(cache: Cache[Any]) -> None:
    assert cache.get_or_load("a", lambda: None) is None
    assert cache.get_or_load("a", lambda: 5) is None


def test_of_many_threads_one_loads_and_each_has_a_copy_of_its_own(stacked: Cache[Any]) -> None:
    loads, told = [], []
    barrier = threading.Barrier(8)

    def load() -> list[int]:
        loads.append(1)
        return [1]

    def ask() -> None:
        barrier.wait(PATIENCE)
        told.append(stacked.get_or_load("a", load))

    run_together([ask] * 8)
    assert (loads, told) == ([1], [[1]] * 8)
    assert len({id(value) for value in told}) == 8


def test_two_caches_over_one_storage_load_once(tmp_path: Path) -> None:
    tiers: Any = ({"backend": "memory"}, {"backend": "sqlite", "path": tmp_path / "values.db"})
    loads = []

    def load() -> int:
        loads.append(1)
        return 7

    with Cache[int].open(CacheConfig(tiers=tiers)) as one, Cache[int].open(CacheConfig(tiers=tiers)) as two:
        told: list[int] = []

        def ask(cache: Cache[int]) -> None:
            told.append(cache.get_or_load("a", load))

        run_together([partial(ask, cache) for cache in (one, two, one, two)])
    assert (loads, told) == ([1], [7] * 4)


def test_who_waits_for_another_process_within_a_load_does_not_wait_for_ever(tmp_path: Path) -> None:
    tiers: Any = ({"backend": "sqlite", "path": tmp_path / "values.db"},)
    config = CacheConfig(tiers=tiers)
    reached = threading.Barrier(2)
    with (
        Cache[int].open(config, claim_seconds=0.02) as one,
        Cache[int].open(config, claim_seconds=0.02) as two,
    ):

        def crossing(cache: Cache[int], own: str, other: str) -> int:
            def load() -> int:
                reached.wait(PATIENCE)
                return cache.get_or_load(other, lambda: 1) + 1

            return cache.get_or_load(own, load)

        first = Asking(lambda: crossing(one, "a", "b"))
        second = Asking(lambda: crossing(two, "b", "a"))
        assert {first.answer(), second.answer()} <= {1, 2, 3}


def test_where_the_storage_fails_a_value_is_loaded_all_the_same(world: World, source: Source) -> None:
    manager = world.open("live", "disk", entry_type=ValueEntry)
    with Cache[int](manager) as cache:
        tier(manager, "L2").fail()
        assert cache.get_or_load("a", source) == 1


# -- what the loader does --------------------------------------------------------------------------------------------


def test_what_the_loader_raises_is_raised_by_all_who_wait_and_is_not_kept(cache: Cache[Any], source: Source) -> None:
    source.error = ValueError("no such page")
    with meanwhile(cache, source) as leader:
        flight, ours = cache._loader.flights.join("a")
        assert not ours
        waiting = [Asking(lambda: cache.get_or_load("a", source)) for _ in range(3)]
        while len(cache._loader.flights._awaited) < 3:
            assert not flight.done.wait(0.001)
    raised = []
    for asking in (leader, *waiting):
        with pytest.raises(ValueError, match="no such page"):
            asking.answer()
        raised.append(asking.error)
    assert len({id(error) for error in raised}) == 4
    source.error = None
    assert cache.get_or_load("a", source) == 2


def test_an_interrupted_load_is_made_by_who_waits(cache: Cache[Any], source: Source) -> None:
    source.error = KeyboardInterrupt()
    with meanwhile(cache, source) as leader:
        waiting = Asking(lambda: cache.get_or_load("a", lambda: "theirs"))
        while not cache._loader.flights._awaited:
            assert waiting.is_alive()
    with pytest.raises(KeyboardInterrupt):
        leader.answer()
    assert waiting.answer() == "theirs"


def test_a_loader_may_ask_for_other_keys_but_not_for_its_own(cache: Cache[Any]) -> None:
    assert cache.get_or_load("a", lambda: cache.get_or_load("b", lambda: 1) + 1) == 2
    with pytest.raises(LoadError, match="waits for itself"):
        cache.get_or_load("c", lambda: cache.get_or_load("c", lambda: 1))
    assert cache.get_or_load("c", lambda: 3) == 3


def test_loaders_that_ask_for_each_others_keys_do_not_wait_for_ever(cache: Cache[int]) -> None:
    both = threading.Barrier(2)

    def crossing(own: str, other: str) -> int:
        def load() -> int:
            both.wait(PATIENCE)
            return cache.get_or_load(other, lambda: 1) + 1

        return cache.get_or_load(own, load)

    asking = [Asking(lambda: crossing("a", "b")), Asking(lambda: crossing("b", "a"))]
    for thread in asking:
        thread.join(PATIENCE)
        assert isinstance(thread.error, LoadError)


@pytest.mark.parametrize(
    "options",
    [{"ttl": "soon"}, {"tags": "t"}, {"early": 1.5}, {"early": True}, {"timeout": 0}, {"stale": -1}, {"stael": 1}],
)
def test_a_wrong_option_is_refused_before_anything_is_loaded(
    cache: Cache[Any], source: Source, options: dict[str, Any]
) -> None:
    with pytest.raises(CacheValidationError, match=next(iter(options))):
        cache.get_or_load("a", source, **options)
    with pytest.raises(CacheValidationError):
        cache.memoize(**options)
    assert source.loads == 0


def test_stale_values_are_refused_where_none_are_kept(cache: Cache[Any], source: Source) -> None:
    with pytest.raises(CacheValidationError, match="grace_seconds = 600"):
        cache.get_or_load("a", source, stale="11m")
    with (
        Cache.open(tiers=({"backend": "memory"},), durability="none", clock=FakeClock()) as strict,
        pytest.raises(CacheValidationError, match=r"stale_on_error: .*grace_seconds = 0"),
    ):
        strict.get_or_load("a", source, stale_on_error=True)


def test_what_is_no_loader_is_refused(cache: Cache[Any]) -> None:
    async def load() -> int:
        return 1

    wrong: Any
    for wrong in (load, 5):
        with pytest.raises(CacheValidationError, match="load must be a function"):
            cache.get_or_load("a", wrong)


def test_a_loaded_value_that_cannot_be_stored_is_refused_for_all(cache: Cache[Any]) -> None:
    with pytest.raises(CacheValidationError, match=r"value\.f: a function"):
        cache.get_or_load("a", lambda: {"f": print})


def test_a_value_that_no_longer_fits_the_type_is_loaded_anew(cache: Cache[Any]) -> None:
    cache["a"] = "old"
    numbers = Cache[int](cache.manager)
    assert numbers.get_or_load("a", lambda: 5) == 5
    assert cache["a"] == 5
    numbers.close()


# -- stale values ----------------------------------------------------------------------------------------------------


def test_a_stale_value_is_answered_while_it_is_loaded_anew(cache: Cache[Any], source: Source, clock: FakeClock) -> None:
    assert cache.get_or_load("a", source, ttl=60, stale="5m") == 1
    clock.advance(100)
    source.hold_up()
    assert [cache.get_or_load("a", source, ttl=60, stale="5m") for _ in range(5)] == [1] * 5
    source.go_on.set()
    settled(cache)
    assert (cache.get("a"), source.loads) == (2, 2)
    clock.advance(60 + 300)
    assert cache.get_or_load("a", source, ttl=60, stale="5m") == 3


def test_a_failure_in_the_background_is_logged_without_its_text_and_tried_again_after_a_while(
    cache: Cache[Any], source: Source, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    cache.get_or_load("a", source, ttl=60)
    clock.advance(60)
    source.error = ValueError("hunter2")
    for _ in range(3):
        assert cache.get_or_load("a", source, stale="5m") == 1
        settled(cache)
    assert source.loads == 2
    assert "could not be loaded anew: ValueError" in caplog.text
    assert "hunter2" not in caplog.text
    clock.advance(2)
    source.error = None
    cache.get_or_load("a", source, stale="5m")
    settled(cache)
    assert cache["a"] == 3


def test_a_success_in_the_background_does_not_disturb_who_looks_for_failures(
    cache: Cache[Any], source: Source, clock: FakeClock
) -> None:
    cache.get_or_load("a", source, ttl=60)
    clock.advance(60)
    loader = cache._loader
    loader._failed = {"a": clock.monotonic() - 5, "b": 0.0}
    looking = iter(loader._failed.items())
    next(looking)
    cache.get_or_load("a", source, stale="5m")
    settled(cache)
    assert next(looking) == ("b", 0.0)
    assert loader._failed == {"b": 0.0}


def test_a_stale_value_is_answered_where_the_load_fails(
    cache: Cache[Any], source: Source, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    cache.get_or_load("a", source, ttl=60)
    clock.advance(60)
    source.error = ValueError("hunter2")
    assert cache.get_or_load("a", source, stale_on_error=True) == 1
    assert "is answered stale: ValueError" in caplog.text
    assert "hunter2" not in caplog.text
    with pytest.raises(ValueError, match="hunter2"):
        cache.get_or_load("a", source)
    clock.advance(600)
    with pytest.raises(ValueError, match="hunter2"):
        cache.get_or_load("a", source, stale_on_error=True)


def test_a_value_is_loaded_anew_in_the_last_part_of_its_life(
    cache: Cache[Any], source: Source, clock: FakeClock
) -> None:
    cache.get_or_load("a", source, ttl=100, early=0.8)
    clock.advance(79)
    cache.get_or_load("a", source, ttl=100, early=0.8)
    settled(cache)
    assert source.loads == 1
    clock.advance(1)
    assert cache.get_or_load("a", source, ttl=100, early=0.8) == 1
    settled(cache)
    assert (cache["a"], source.loads, cache.ttl("a")) == (2, 2, 100)


def test_no_more_values_than_a_few_are_loaded_in_the_background_at_once(
    cache: Cache[Any], source: Source, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierkit.cache.loading.MOST_REFRESHES", 2)
    keys = ["a", "b", "c"]
    cache.set_many(dict.fromkeys(keys, 0), ttl=60)
    clock.advance(60)
    source.hold_up()
    assert [cache.get_or_load(key, source, stale=100) for key in keys] == [0, 0, 0]
    source.go_on.set()
    settled(cache)
    assert source.loads == 2


# -- a limit of time -------------------------------------------------------------------------------------------------


def test_a_caller_waits_no_longer_than_he_says_and_the_load_goes_on(cache: Cache[Any], source: Source) -> None:
    source.hold_up()
    with pytest.raises(LoadTimeout, match=r"timeout = 0\.01 seconds") as caught:
        cache.get_or_load("a", source, timeout=0.01)
    assert isinstance(caught.value, TimeoutError)
    source.go_on.set()
    settled(cache)
    assert (cache["a"], source.loads) == (1, 1)


def test_a_stale_value_is_answered_when_the_time_is_over(cache: Cache[Any], source: Source, clock: FakeClock) -> None:
    cache.get_or_load("a", source, ttl=60)
    clock.advance(60)
    source.hold_up()
    assert cache.get_or_load("a", source, timeout=0.01) == 1
    source.go_on.set()
    settled(cache)
    assert cache["a"] == 2


def test_within_its_time_a_load_answers_and_raises_as_without(cache: Cache[Any], source: Source) -> None:
    assert cache.get_or_load("a", source, timeout=PATIENCE) == 1
    source.error = ValueError("no")
    with pytest.raises(ValueError, match="no"):
        cache.get_or_load("b", source, timeout=PATIENCE)
    source.error = SystemExit()
    with pytest.raises(LoadError, match="raised SystemExit"):
        cache.get_or_load("b", source, timeout=PATIENCE)


def test_where_no_thread_can_be_begun_nobody_waits_for_it(
    cache: Cache[Any], source: Source, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.set("a", 0, ttl=60)
    clock.advance(60)

    def start(_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        assert cache.get_or_load("a", source, stale=100) == 0
        with pytest.raises(RuntimeError, match="new thread"):
            cache.get_or_load("b", source, timeout=5)
    assert cache.get_or_load("a", source) == 1


# -- what comes between ----------------------------------------------------------------------------------------------


def test_what_is_set_during_a_load_stays_and_is_answered(stacked: Cache[Any], source: Source) -> None:
    with meanwhile(stacked, source) as asking:
        stacked["a"] = "set"
    assert asking.answer() == "set"
    assert stacked["a"] == "set"


def test_what_another_process_sets_during_a_load_stays(world: World, source: Source) -> None:
    manager, other = (world.open("live", "disk", entry_type=ValueEntry) for _ in range(2))
    with Cache[Any](manager) as cache, Cache[Any](other) as theirs:
        with meanwhile(cache, source) as asking:
            theirs["a"] = "set"
        assert asking.answer() == "set"


@pytest.mark.parametrize("there", [False, True])
def test_what_is_deleted_during_a_load_is_not_put_back(
    stacked: Cache[Any], source: Source, clock: FakeClock, there: bool
) -> None:
    if there:
        stacked.set("a", "old", ttl=60)
        clock.advance(60)
    with meanwhile(stacked, source) as asking:
        stacked.delete("a")
    assert asking.answer() == 1
    assert "a" not in stacked
    assert stacked.get("a") is None


@pytest.mark.parametrize("removed", ["clear", "invalidate_tag", "pop"])
def test_what_is_invalidated_during_a_load_is_not_put_back(
    stacked: Cache[Any], source: Source, clock: FakeClock, removed: str
) -> None:
    stacked.set("a", "old", ttl=60, tags=["t"])
    clock.advance(60)
    with meanwhile(stacked, source, tags=["t"]) as asking:
        if removed == "pop":
            stacked["a"] = 5
        getattr(stacked, removed)(*{"clear": (), "invalidate_tag": ("t",), "pop": ("a",)}[removed])
    assert asking.answer() == 1
    assert "a" not in stacked


def test_what_is_invalidated_just_before_it_is_stored_is_removed_again(stacked: Cache[Any], source: Source) -> None:
    loader = stacked._loader
    stored = loader._stored

    def late(*args: Any) -> Any:
        loader.flights.disown(lambda _: True)
        return stored(*args)

    loader._stored = late  # type: ignore[assignment]  # takes whatever it is given
    assert stacked.get_or_load("a", source) == 1
    assert "a" not in stacked


def test_an_invalidation_of_another_namespace_or_tag_does_not_concern_a_load(
    stacked: Cache[Any], source: Source
) -> None:
    with meanwhile(stacked, source, tags=["t"]) as asking:
        stacked.namespace("users").clear()
        stacked.invalidate_tag("u")
    assert asking.answer() == stacked["a"] == 1


def test_a_load_that_outlives_its_cache_is_not_stored(world: World, source: Source) -> None:
    manager = world.open("live", "disk", entry_type=ValueEntry)
    cache = Cache[int](manager)
    source.hold_up()
    with pytest.raises(LoadTimeout):
        cache.get_or_load("a", source, timeout=0.01)
    closing = Asking(cache.close)
    assert cache._loader._ended.wait(PATIENCE)
    source.go_on.set()
    closing.answer()
    assert manager.get("a") is None
    with pytest.raises(CacheClosedError):
        cache.get_or_load("a", source)


def test_a_load_is_not_an_error_in_the_log(cache: Cache[Any], source: Source, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tierkit"):
        cache.get_or_load("a", source)
    assert caplog.text == ""
