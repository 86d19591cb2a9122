"""Queries through the engine: what is owed, expired, damaged or used, and what is done to all that a query finds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from tests.core.engine.support import Note, World, held, note, tier

from tierkit import (
    CacheClosedError,
    CacheConfig,
    CacheManager,
    CacheValidationError,
    HealthStatus,
    ProxyEntry,
    TierReadOnly,
    TierUnavailable,
    above,
    at_least,
    at_most,
    between,
    contains,
    other_than,
)
from tierkit.testing import FakeClock


class Found(Note):
    """With fields of each sort that a filter treats in its own way."""

    where: str = "here"
    limit: int = 3
    places: tuple[int, ...] = ()


def keys(found: Any) -> list[str]:
    return [entry.key for entry in found]


def test_records_are_found_by_their_fields_in_order(world: World) -> None:
    cache = world.open("live", "disk")
    for n in range(6):
        cache.put(note(f"k{n}", str(n % 3), source="paid" if n < 4 else "free"))
    assert keys(cache.select(source="paid", order_by="-text", limit=3)) == ["k2", "k1", "k3"]
    assert keys(cache.select(source="paid", order_by="text", descending=True)) == ["k2", "k1", "k3", "k0"]
    assert keys(cache.select(text=["0", "2"], order_by="key")) == ["k0", "k2", "k3", "k5"]
    assert cache.count(source="free") == 2
    assert cache.count() == 6


def test_health_is_asked_for_by_its_value_or_by_its_name(world: World) -> None:
    cache = world.open("disk")
    cache.put(note("a"))
    cache.put(note("b"))
    cache.invalidate_by_health("b")
    assert (
        keys(cache.select(health_status="unhealthy"))
        == keys(cache.select(health_status=HealthStatus.UNHEALTHY))
        == ["b"]
    )
    assert keys(cache.select(failure_count=above(0))) == ["b"]
    with pytest.raises(CacheValidationError, match="must be one of healthy, unhealthy, unknown, not 'well'"):
        cache.count(health_status="well")


def test_a_field_that_is_called_like_an_argument_is_asked_for_by_where(world: World) -> None:
    cache = world.open_config([{"backend": "disk"}], entry_type=Found)
    cache.put(Found(key="a", where="there", limit=5))
    cache.put(Found(key="b"))
    assert keys(cache.select(where={"where": "there", "limit": at_least(4)})) == ["a"]
    assert cache.count(where={"limit": 3}, text="") == 1
    assert cache.delete_where(where={"where": "here"}) == 1
    assert keys(cache.scan()) == ["a"]


def test_what_expired_is_found_only_on_request(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk")
    cache.put(note("short", ttl_seconds=5))
    cache.put(note("long", ttl_seconds=500))
    clock.advance(10)
    assert keys(cache.select()) == ["long"]
    assert cache.count() == 1
    assert keys(cache.select(include_expired=True, order_by="key")) == ["long", "short"]
    assert cache.count(include_expired=True) == 2


def test_what_expires_on_the_way_is_left_out(world: World, clock: FakeClock) -> None:
    cache = world.open("disk")
    cache.put(note("a", ttl_seconds=50))
    cache.put(note("b", ttl_seconds=5))
    found = cache.select(order_by="key")
    assert next(found).key == "a"
    clock.advance(10)
    assert list(found) == []


def test_a_query_is_no_use_of_a_record_and_no_read(world: World) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a"))
    before = cache.get_statistics()
    world.calls.clear()
    assert [entry.access_count for entry in cache.select(text="")] == [0]
    after = cache.get_statistics()
    assert (after.requests, after.answered) == (before.requests, before.answered)
    assert world.calls_of("get", "put", "touch_many") == []


def test_usage_that_is_still_above_counts(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk")
    for key in "abc":
        cache.put(note(key))
    cache.get("b")
    clock.advance(1)
    cache.get("a")
    assert keys(cache.select(order_by="last_accessed")) == ["c", "b", "a"]
    assert keys(cache.select(order_by="-access_count", limit=2)) == ["b", "a"]
    assert keys(cache.select(last_accessed=None)) == ["c"]
    assert keys(cache.select(last_accessed=at_most(clock_time(cache, "b")))) == ["b"]


def clock_time(cache: CacheManager[Any], key: str) -> Any:
    return next(entry.last_accessed for entry in cache.scan() if entry.key == key)


def test_a_cache_that_only_reads_brings_no_usage_down(world: World) -> None:
    world.open("live", "disk").put(note("a"))
    world.close()
    cache = world.open_config([{"backend": "live"}, {"backend": "disk"}], read_only=True)
    cache.get("a")
    assert keys(cache.select(order_by="last_accessed")) == ["a"]
    assert world.calls_of("touch_many") == []
    with pytest.raises(TierReadOnly):
        cache.delete_where(text="")
    with pytest.raises(TierReadOnly):
        cache.invalidate_where(text="")


def test_writes_that_the_authority_is_owed_are_found_in_their_place(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    cache.put_many([note(key, "old") for key in "bdfh"])
    tier(cache, "L3").fail("put", "put_many", "replace", "replace_many", "delete", error=TierReadOnly("full"))
    cache.put(note("c", "new"))
    cache.put(note("d", "new"))
    cache.delete("f")
    assert keys(cache.select(order_by="key")) == ["b", "c", "d", "h"]
    assert keys(cache.select(order_by="-key", limit=3)) == ["h", "d", "c"]
    assert sorted(keys(cache.select(text="new"))) == ["c", "d"]
    assert keys(cache.select(text="old", order_by="key")) == ["b", "h"]
    assert cache.count() == 4
    assert cache.count(text="old") == 2


def test_the_level_above_answers_while_the_authority_is_out(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    cache.put_many([note(key, "old") for key in "ab"])
    tier(cache, "L3").fail(error=TierUnavailable("gone"))
    for n in range(9):
        cache.put(note(f"new {n}", "new"))
    assert not cache.levels[-1].in_service
    assert sorted(keys(cache.select(text="old"))) == ["a", "b"]
    assert cache.count(text="new") == 9
    for change in (cache.delete_where, cache.invalidate_where):
        with pytest.raises(TierUnavailable):
            change(text="new")


def test_damaged_records_are_evicted_and_others_take_their_place(world: World) -> None:
    cache = world.open("disk")
    for n in range(8):
        cache.put(note(f"k{n}", "x"))
    damaged: Any = tier(cache, "L1").tier
    for key in ("k0", "k2", "k3"):
        row = damaged.get(key)
        damaged.discard(row)
        damaged.put(msgspec.structs.replace(row, check="c1.00000000"))
    assert keys(cache.select(text="x", order_by="key", limit=3)) == ["k1", "k4", "k5"]
    assert cache.get_statistics().tiers[0].corruptions == 3
    assert cache.count(text="x") == 5


def test_a_failure_on_the_way_is_an_error(world: World) -> None:
    cache = world.open("disk")
    tier(cache, "L1").fail("query", "count")
    found = cache.select()
    with pytest.raises(TierUnavailable):
        next(found)
    with pytest.raises(TierUnavailable):
        cache.count()


def test_an_answer_that_is_no_iterator_is_an_error_that_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = world.open("disk")
    monkeypatch.setattr(tier(cache, "L1"), "query", lambda query: None)  # noqa: ARG005 - as the engine calls it
    with pytest.raises(TierUnavailable, match="its query answered NoneType"):
        next(cache.select())


def test_a_cache_without_levels_has_nothing(world: World) -> None:
    cache = world.open("disk", cache_enabled=False)
    assert list(cache.select(text="a")) == []
    assert cache.count() == cache.delete_where(text="a") == 0
    assert cache.invalidate_where(text="a").applied == 0


def test_a_closed_cache_refuses_at_once(world: World) -> None:
    cache = world.open("disk")
    cache.close()
    for ask in (cache.select, cache.count):
        with pytest.raises(CacheClosedError):
            ask()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"txet": "a"}, "Found has no field 'txet': did you mean 'text'"),
        ({"zzz": "a"}, "no field 'zzz'; there are access_count, created_at"),
        ({"text": 1}, "the filter on Found.text must be str, not int"),
        ({"text": None}, "Found.text must not be None: every record has a value"),
        ({"failure_count": at_least("1")}, "Found.failure_count must be int, not str"),
        ({"failure_count": True}, "must be int, not bool"),
        ({"places": at_least((1,))}, "has bounds, and the field holds JSON"),
        ({"places": contains("a")}, "element of type str, which the tuple cannot hold"),
        ({"text": contains("a")}, "which is for tuples"),
        ({"text": other_than(1)}, "the filter on Found.text must be str, not int"),
        ({"text": other_than(None)}, "Found.text must not be None: every record has a value"),
        ({"text": other_than(contains("a"))}, "the filter on Found.text must be str, not Contains"),
        ({"order_by": "places"}, "Found.places holds JSON, which has no order"),
        ({"order_by": "-txet"}, "did you mean 'text'"),
        ({"order_by": ["score", "key"]}, "order_by names one field, as a text such as '-score', not"),
        ({"limit": -1}, "limit must be a whole number from 0 on, or None for all, not -1"),
        ({"limit": True}, "not True"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_read(
    world: World, asked: dict[str, Any], said: str
) -> None:
    cache = world.open_config([{"backend": "disk"}], entry_type=Found)
    world.calls.clear()
    with pytest.raises(CacheValidationError, match=said):
        cache.select(**asked)
    assert world.calls == []


@pytest.mark.parametrize("bounds", [(None,), (1, None)])
def test_a_bound_has_a_value(bounds: tuple[Any, ...]) -> None:
    with pytest.raises(CacheValidationError, match="a bound must not be None"):
        at_least(*bounds) if len(bounds) == 1 else between(*bounds)


@pytest.mark.parametrize("asked", [{"password": "hunter2"}, {"order_by": "password"}, {"password": None}])
def test_a_secret_cannot_be_asked_for_and_what_was_asked_is_not_shown(clock: FakeClock, asked: dict[str, Any]) -> None:
    config = CacheConfig(tiers=({"backend": "memory"},), encryption_key=SecretStr(Fernet.generate_key().decode()))
    with CacheManager(config, clock=clock) as cache:
        cache.put(ProxyEntry.from_url("http://user:hunter2@203.0.113.7:8080"))
        with pytest.raises(CacheValidationError) as refused:
            cache.select(**asked)
    assert "ProxyEntry.password is a secret" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_tuples_are_asked_for_whole_or_by_an_element(world: World) -> None:
    cache = world.open_config([{"backend": "disk"}], entry_type=Found)
    cache.put(Found(key="a", places=(1, 2)))
    cache.put(Found(key="b", places=(2,)))
    assert keys(cache.select(places=contains(2), order_by="key")) == ["a", "b"]
    assert keys(cache.select(places=(2,))) == ["b"]
    assert keys(cache.select(places=[(1, 2), (3,)])) == ["a"]


def test_what_is_other_than_a_value_is_all_that_the_value_does_not_find(world: World) -> None:
    cache = world.open_config([{"backend": "disk"}], entry_type=Found)
    cache.put_many([Found(key="a", source="x", places=(1, 2)), Found(key="b", source="y"), Found(key="c", source="z")])
    for given in (["x", "z"], {"x", "z"}, ("x", "z")):
        assert keys(cache.select(source=other_than(given))) == ["b"]
    assert keys(cache.select(source=other_than("x"), order_by="-key")) == ["c", "b"]
    assert keys(cache.select(places=other_than((1, 2)), order_by="key")) == ["b", "c"]
    assert keys(cache.select(health_status=other_than("unknown"))) == []
    assert keys(cache.select(last_accessed=other_than(None))) == []
    assert cache.delete_where(source=other_than("x")) == 2


def test_records_from_before_a_field_was_added_have_its_default(world: World) -> None:
    world.open_config([{"backend": "disk"}]).put(note("old"))
    world.close()
    cache = world.open_config([{"backend": "disk"}], entry_type=Found)
    cache.put(Found(key="new", where="there", limit=9))
    assert keys(cache.select(where={"where": "here"})) == ["old"]
    assert keys(cache.select(where={"limit": at_most(3)})) == ["old"]
    assert keys(cache.select(where={"limit": at_least(4)})) == ["new"]
    assert keys(cache.select(where={"limit": other_than(3)})) == ["new"]
    assert keys(cache.select(where={"limit": other_than([4, 9])})) == ["old"]


# -- what is done to all that is found --------------------------------------------------------------------------------


def test_deleting_by_filter_removes_from_every_level(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    cache.put_many([note(f"k{n}", "x" if n % 2 else "y") for n in range(2500)])
    assert cache.delete_where(text="x") == 1250
    assert cache.count() == 1250
    assert [held(cache, name, "k1") for name in ("L1", "L2", "L3")] == [None] * 3
    assert cache.delete_where(text="x") == 0


@pytest.mark.parametrize(("text", "stays"), [("other", True), ("x", False)])
def test_what_changes_meanwhile_stays_unless_it_is_still_meant(world: World, text: str, *, stays: bool) -> None:
    cache, other = world.open("disk"), world.open("disk")
    cache.put_many([note("a", "x"), note("b", "x")])
    tier(cache, "L1").before("delete_many", lambda: other.put(note("a", text)))
    assert cache.delete_where(text="x") == (1 if stays else 2)
    assert keys(other.scan()) == (["a"] if stays else [])


def test_others_who_write_all_the_time_are_an_error(world: World) -> None:
    cache, other = world.open("disk"), world.open("disk")
    cache.put(note("a", "x"))

    def again() -> None:
        other.put(note("a", "x"))
        tier(cache, "L1").before("delete_many", again)

    again()
    with pytest.raises(TierUnavailable, match="1 records are written by others all the time"):
        cache.delete_where(text="x")


def test_expired_records_are_deleted_on_request(world: World, clock: FakeClock) -> None:
    cache = world.open("disk")
    cache.put(note("a", "x", ttl_seconds=5))
    clock.advance(10)
    assert cache.delete_where(text="x") == 0
    assert cache.delete_where(text="x", include_expired=True) == 1


def test_invalidating_by_filter_counts_a_failure_of_each(world: World) -> None:
    cache = world.open("live", "disk", failure_threshold=2)
    cache.put_many([note(f"k{n}", "x" if n % 2 else "y") for n in range(2200)])
    assert cache.invalidate_where(text="x").unhealthy == 1100
    assert cache.count(health_status="unhealthy") == 1100
    assert cache.invalidate_where(health_status="unhealthy").removed == 1100
    assert cache.count() == 1100


def test_invalidating_ends_where_the_storage_fails_and_says_what_is_left(world: World) -> None:
    cache = world.open("disk")
    cache.put_many([note(f"k{n}", "x") for n in range(1500)])
    tier(cache, "L1").fail("replace_many")
    result = cache.invalidate_where(text="x")
    assert isinstance(result.error, TierUnavailable)
    assert len(result.unapplied) == 1000


@pytest.mark.parametrize(("method", "instead"), [("delete_where", "clear()"), ("invalidate_where", "record_health")])
def test_without_a_filter_nothing_is_done_to_all(world: World, method: str, instead: str) -> None:
    cache = world.open("disk")
    cache.put(note("a"))
    with pytest.raises(CacheValidationError, match="without a filter would mean every record") as refused:
        getattr(cache, method)()
    assert instead in str(refused.value)
    assert cache.size() == 1


def test_a_limit_of_owed_writes_does_not_shorten_an_answer(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk", "disk")
    cache.put_many([note(f"k{n}", "x") for n in range(8)])
    tier(cache, "L3").fail("put", "put_many", "replace", "delete", error=TierReadOnly("full"))
    for n in range(6):
        cache.put(note(f"k{n}", "changed", expires_at=None, ttl_seconds=timedelta(hours=1).total_seconds()))
    assert keys(cache.select(text="x", limit=2, order_by="key")) == ["k6", "k7"]
    clock.advance(1)
    assert len(keys(cache.select(text="changed", limit=5))) == 5
