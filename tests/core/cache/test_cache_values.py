"""Values: what can be kept under a key, for how long, and what changes it in one step."""

from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from tests.core.engine.support import World

from tierkit import (
    Cache,
    CacheClosedError,
    CacheConfig,
    CacheConfigError,
    CacheEntry,
    CacheManager,
    CacheValidationError,
    ValueEntry,
)
from tierkit.testing import FakeClock
from tierkit.testing.suite.processes import run_together

MEMORY: Any = ({"backend": "memory"},)


def test_a_value_is_there_until_its_time_is_over(cache: Cache[Any], clock: FakeClock) -> None:
    cache.set("a", {"x": [1, 2.5, None, True, b"\xff"]}, ttl="2m30s")
    assert cache.get("a") == {"x": [1, 2.5, None, True, b"\xff"]}
    assert cache.ttl("a") == 150
    clock.advance(149)
    assert "a" in cache
    clock.advance(1)
    assert cache.get("a") is None
    assert cache.get("a", "none") == "none"
    assert cache.get("a", allow_stale=True) == {"x": [1, 2.5, None, True, b"\xff"]}
    assert cache.ttl("a") is None
    assert "a" not in cache


@pytest.mark.parametrize(
    ("ttl", "seconds"),
    [(90, 90), (0.5, 0.5), ("15m", 900), ("2h30m", 9000), ("1d", 86400), ("7", 7), (timedelta(minutes=2), 120)],
)
def test_a_ttl_is_seconds_a_timedelta_or_text(cache: Cache[Any], ttl: Any, seconds: float) -> None:
    cache.set("a", 1, ttl)
    assert cache.ttl("a") == pytest.approx(seconds)


@pytest.mark.parametrize("ttl", ["soon", "-5m", "", 0, -1, True, float("nan"), timedelta(0), "200000d", [5]])
def test_what_is_no_ttl_is_refused_and_nothing_is_changed(cache: Cache[Any], ttl: Any) -> None:
    cache.set("a", "before")
    for change in (cache.set, cache.add, cache.replace):
        with pytest.raises(CacheValidationError, match="ttl"):
            change("a", "after", ttl)
    with pytest.raises(CacheValidationError, match="ttl"):
        cache.touch("a", ttl)
    assert cache["a"] == "before"


def test_nobody_can_change_what_is_held(cache: Cache[Any]) -> None:
    given = {"list": [1]}
    cache["a"] = given
    given["list"].append(2)
    cache["a"]["list"].append(3)
    assert cache["a"] == {"list": [1]}


def test_add_keeps_what_is_there_and_replace_needs_it(cache: Cache[Any], clock: FakeClock) -> None:
    assert not cache.replace("a", 0)
    assert cache.add("a", 1, ttl=60)
    assert not cache.add("a", 2)
    assert cache["a"] == 1
    assert cache.replace("a", 3, ttl=60)
    clock.advance(60)
    assert not cache.replace("a", 4)
    assert cache.add("a", 5)
    assert cache["a"] == 5


def test_of_many_who_add_at_once_one_does(stacked: Cache[Any]) -> None:
    added: list[int] = []

    def add(number: int) -> None:
        if stacked.add("a", number):
            added.append(number)

    run_together([partial(add, number) for number in range(6)])
    assert added == [stacked["a"]]


def test_a_count_is_exact_and_keeps_its_deadline_and_its_tags(stacked: Cache[Any], clock: FakeClock) -> None:
    stacked.set("n", 10, ttl=100, tags=["counts"])
    clock.advance(40)

    def count() -> None:
        for _ in range(25):
            stacked.incr("n")

    run_together([count] * 4)
    assert stacked["n"] == 110
    assert stacked.ttl("n") == 60
    assert list(stacked.tagged("counts")) == ["n"]
    assert stacked.decr("n", 10) == 100
    assert stacked.incr("n", 0.5) == 100.5


def test_a_count_that_is_not_there_begins_at_its_initial_value(cache: Cache[Any], clock: FakeClock) -> None:
    assert cache.incr("n", 5, initial=100, ttl="1m") == 105
    assert cache.ttl("n") == 60
    clock.advance(60)
    assert cache.incr("n") == 1
    assert cache.decr("m") == -1


@pytest.mark.parametrize("value", ["1", None, True, [1]])
def test_only_a_number_can_be_counted(cache: Cache[Any], value: Any) -> None:
    cache["n"] = value
    with pytest.raises(CacheValidationError, match=r"the value of 'n' is .*: it must be a number"):
        cache.incr("n")
    with pytest.raises(CacheValidationError, match="by is"):
        cache.incr("m", value)
    assert cache["n"] == value


@pytest.mark.parametrize("by", [float("nan"), float("inf")])
def test_nothing_is_added_that_would_end_a_count(cache: Cache[Any], by: float) -> None:
    cache["n"] = 1
    with pytest.raises(CacheValidationError, match=r"by is (nan|inf): it must be finite"):
        cache.incr("n", by)
    assert cache["n"] == 1


def test_a_count_beyond_64_bits_is_refused(cache: Cache[Any]) -> None:
    cache["n"] = 2**64 - 1
    with pytest.raises(CacheValidationError, match="does not fit 64 bits"):
        cache.incr("n")
    assert cache["n"] == 2**64 - 1


def test_a_touch_gives_a_new_life(cache: Cache[Any], clock: FakeClock) -> None:
    cache.set("a", 1, ttl=60, tags=["t"])
    clock.advance(59)
    assert cache.touch("a", "10m")
    assert cache.ttl("a") == 600
    assert cache.touch("a")
    assert cache.ttl("a") == 3600
    assert list(cache.tagged("t")) == ["a"]
    assert not cache.touch("b")


def test_many_at_once(cache: Cache[Any]) -> None:
    assert cache.set_many({"a": 1, "b": None, "c": 3}, ttl=60, tags=["t"]) == 3
    assert cache.get_many(["a", "b", "d"]) == {"a": 1, "b": None}
    assert sorted(cache.tagged("t")) == ["a", "b", "c"]
    assert cache.delete_many(["a", "d"]) == 1
    with pytest.raises(CacheValidationError, match=r"value\.f: a function"):
        cache.set_many({"e": 1, "f": {"f": print}})
    assert sorted(cache) == ["b", "c"]


def test_tags_list_and_remove(cache: Cache[Any]) -> None:
    cache.set("a", 1, tags=["red", "hot", "red"])
    cache.set("b", 2, tags=["red"])
    cache.set("c", 3, tags=["cold"])
    cache["d"] = 4
    assert sorted(cache.tagged("red")) == ["a", "b"]
    assert list(cache.tagged("re")) == []
    assert cache.invalidate_tag("hot", "cold") == 2
    assert sorted(cache) == ["b", "d"]
    assert cache.invalidate_tag("hot") == 0
    with pytest.raises(CacheValidationError, match="a tag must be a word, not"):
        cache.invalidate_tag(["red"])  # type: ignore[arg-type]  # what is refused
    cache["b"] = 5
    assert list(cache.tagged("red")) == []


@pytest.mark.parametrize("tags", ["red", [""], [1], None, 5])
def test_what_are_no_tags_is_refused(cache: Cache[Any], tags: Any) -> None:
    with pytest.raises(CacheValidationError, match="tag"):
        cache.set("a", 1, tags=tags)


def test_values_are_there_after_a_restart_and_seen_by_the_manager(world: World) -> None:
    with Cache[Any](world.open("live", "disk", entry_type=ValueEntry)) as cache:
        cache.set("a", [1], tags=["t"])
    manager = world.reopen("live", "disk", entry_type=ValueEntry)
    entry = manager.get("a")
    assert entry is not None
    assert (entry.value, entry.tags) == ([1], ("t",))
    with Cache[Any](manager) as again:
        assert again["a"] == [1]


@pytest.mark.parametrize("key", ["", 5, None, b"a", "x" * 5000])
def test_what_cannot_be_a_key_is_refused(cache: Cache[Any], key: Any) -> None:
    for call in (cache.get, cache.delete, cache.touch, cache.ttl, lambda key: cache.set(key, 1), cache.incr):
        with pytest.raises(CacheValidationError, match="key"):
            call(key)


def test_reads_count_once_and_looking_counts_as_none(stacked: Cache[Any]) -> None:
    stacked["a"] = 1
    assert "a" in stacked
    assert stacked.ttl("a")
    assert list(stacked.items()) == [("a", 1)]
    assert stacked.get_statistics().requests == 0
    stacked.get("a")
    stacked.get("b")
    assert (stacked.get_statistics().requests, stacked.get_statistics().answered) == (2, 1)


def test_after_close_every_call_is_refused(clock: FakeClock) -> None:
    cache = Cache[int].open(CacheConfig(tiers=MEMORY, durability="none"), clock=clock)
    cache["a"] = 1
    cache.close()
    cache.close()
    calls: list[Any] = [
        lambda: cache.get("a"),
        lambda: cache.set("a", 1),
        lambda: cache.incr("a"),
        lambda: "a" in cache,
        lambda: list(cache),
        lambda: cache.pop("a"),
        cache.clear,
        lambda: cache.get_or_load("a", lambda: 1),
    ]
    for call in calls:
        with pytest.raises(CacheClosedError):
            call()


def test_who_opened_the_manager_closes_it(world: World) -> None:
    manager = world.open("live", "disk", entry_type=ValueEntry)
    with Cache[int](manager) as cache:
        cache["a"] = 1
    assert manager.get("a") is not None


def test_a_cache_needs_a_manager_of_values() -> None:
    with (
        CacheManager(CacheConfig(tiers=MEMORY, durability="none"), entry_type=CacheEntry, clock=FakeClock()) as manager,
        pytest.raises(CacheValidationError, match="entry_type=ValueEntry"),
    ):
        Cache(manager)  # type: ignore[arg-type]  # what is refused
    with pytest.raises(CacheValidationError, match=r"Cache\.open"):
        Cache("values.db")  # type: ignore[arg-type]  # what is refused


def test_settings_may_be_given_at_open_but_not_beside_a_configuration() -> None:
    with Cache.open(tiers=MEMORY, durability="none", default_ttl_seconds=77, clock=FakeClock()) as cache:
        cache["a"] = 1
        assert cache.ttl("a") == 77
        assert "tierkit" in repr(cache)
        with pytest.raises(TypeError, match="pickled"):
            cache.__reduce__()
    with pytest.raises(CacheConfigError, match="go into the CacheConfig"):
        Cache.open(CacheConfig(tiers=MEMORY, durability="none"), default_ttl_seconds=77)


def test_a_wrong_argument_closes_what_was_opened() -> None:
    for wrong in ({"namespace": "no colon: here"}, {"claim_seconds": 0}, {"value_type": "Unknown"}):
        with pytest.raises(CacheValidationError):
            Cache.open(tiers=MEMORY, durability="none", clock=FakeClock(), **wrong)


def test_a_cache_that_is_turned_off_keeps_nothing() -> None:
    with Cache[int].open(cache_enabled=False, clock=FakeClock()) as cache:
        cache["a"] = 1
        assert "a" not in cache
        assert cache.incr("n") == 1
        assert cache.get_or_load("a", lambda: 5) == 5
        assert cache.setdefault("a", 6) == 6
        assert cache.pop("a", None) is None
        assert list(cache) == []


def test_a_read_only_cache_reads_and_loads_and_keeps_nothing(world: World) -> None:
    with Cache[int](world.open("live", "disk", entry_type=ValueEntry)) as cache:
        cache["a"] = 1
    world.close()
    config: Any = [{"backend": "live"}, {"backend": "disk"}]
    with Cache[int](world.open_config(config, entry_type=ValueEntry, read_only=True)) as cache:
        assert cache["a"] == 1
        assert cache.get_or_load("b", lambda: 2) == 2
        assert "b" not in cache
        for write in (lambda: cache.set("a", 2), lambda: cache.incr("a"), cache.clear, lambda: cache.pop("a")):
            with pytest.raises(PermissionError):
                write()
