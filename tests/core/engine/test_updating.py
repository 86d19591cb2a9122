"""Changing a record, or putting one where none is, in one step."""

import base64
from typing import Any, Final

import pytest
from pydantic import SecretStr
from tests.core.engine.support import Note, World, note, tier, where

from tierkit import CacheManager, CacheValidationError, ProxyEntry, TierUnavailable
from tierkit.testing import FakeClock
from tierkit.testing.suite.processes import run_together
from tierkit.updating import Updating

KEY: Final = SecretStr(base64.urlsafe_b64encode(bytes(32)).decode())


@pytest.fixture
def cache(world: World) -> CacheManager[Note]:
    return world.open("live", "disk", "disk")


def counted(held: Note | None) -> Note:
    return note("a", "1") if held is None else held.evolve(text=str(int(held.text) + 1))


def test_what_is_made_of_a_record_takes_its_place_in_every_level(cache: CacheManager[Note]) -> None:
    made = cache.update("a", counted)
    assert made is not None
    assert (made.text, where(cache, "a")) == ("1", {"L1": "1", "L2": "1", "L3": "1"})
    cache.update("a", counted)
    assert where(cache, "a") == {"L1": "2", "L2": "2", "L3": "2"}


def test_a_change_keeps_deadline_and_usage(cache: CacheManager[Note], clock: FakeClock) -> None:
    first = cache.put(note("a", "1", ttl_seconds=100))
    cache.get("a")
    cache.flush()
    clock.advance(50)
    changed = cache.update("a", counted)
    assert changed is not None
    assert (changed.expires_at, changed.created_at) == (first.expires_at, first.created_at)
    assert changed.access_count == 1


@pytest.mark.parametrize("nothing", [lambda _: None, lambda held: held])
def test_where_nothing_is_to_be_put_nothing_is(cache: CacheManager[Note], world: World, nothing: Any) -> None:
    cache.put(note("a", "1"))
    world.calls.clear()
    assert cache.update("a", nothing) == cache.peek("a")
    assert cache.update("b", nothing) is None
    assert world.calls_of("put", "replace", "delete", "discard") == []


def test_an_expired_record_counts_as_none(cache: CacheManager[Note], clock: FakeClock) -> None:
    cache.put(note("a", "7", ttl_seconds=10))
    clock.advance(10)
    assert cache.peek("a") is None
    changed = cache.update("a", counted)
    assert changed is not None
    assert (changed.text, cache.get("a")) == ("1", changed)


def test_what_another_writer_did_first_is_read_again(cache: CacheManager[Note], world: World) -> None:
    other = world.open("live", "disk", "disk")
    cache.update("a", counted)
    tier(cache, "L3").before("replace", lambda: other.update("a", counted))
    changed = cache.update("a", counted)
    assert changed is not None
    assert (changed.text, where(cache, "a")) == ("3", {"L1": "3", "L2": "3", "L3": "3"})
    tier(cache, "L3").before("replace", lambda: other.delete("a"))
    changed = cache.update("a", counted)
    assert changed is not None
    assert changed.text == "1"


def test_threads_lose_no_change(cache: CacheManager[Note]) -> None:
    def count() -> None:
        for _ in range(20):
            cache.update("a", counted)

    run_together([count] * 4)
    assert where(cache, "a") == {"L1": "80", "L2": "80", "L3": "80"}


def test_a_mark_of_a_clock_that_is_ahead_is_outdone(cache: CacheManager[Note], world: World) -> None:
    other = world.open("live", "disk", "disk")
    world.clock.advance(3600)
    ahead = other._stack.versions.next()
    tier(cache, "L3").delete("a", ahead + 3600 * 1_000_000 * 1024)
    changed = cache.update("a", counted)
    assert changed is not None
    assert cache.get("a") == changed


def test_secrets_that_change_are_sealed_anew(world: World) -> None:
    proxies: CacheManager[ProxyEntry] = world.open("live", "disk", entry_type=ProxyEntry, encryption_key=KEY)
    entry = proxies.put(ProxyEntry.from_url("http://u:old@h:80"))

    def changed(held: ProxyEntry | None) -> ProxyEntry | None:
        return None if held is None else held.evolve(password=SecretStr("new"))

    proxies.update(entry.key, changed)
    proxies.levels[0].tier.delete(entry.key, 2**62)
    found = proxies.peek(entry.key)
    assert found is not None
    assert found.password is not None
    assert found.password.get_secret_value() == "new"


def test_what_is_made_must_be_an_entry_for_the_key_that_lives(cache: CacheManager[Note]) -> None:
    cache.put(note("a", "1"))
    with pytest.raises(CacheValidationError, match="another key"):
        cache.update("a", lambda _: note("b"))
    with pytest.raises(CacheValidationError, match="holds Note"):
        cache.update("a", lambda _: 5)  # type: ignore[arg-type, return-value]  # what is refused
    with pytest.raises(CacheValidationError, match="has passed"):
        cache.update("a", lambda held: held and held.evolve(expires_at=held.created_at))
    with pytest.raises(CacheValidationError, match="a key must"):
        cache.update("", lambda _: None)
    assert cache.peek("a") == cache.get("a")


def test_a_record_is_popped_once(cache: CacheManager[Note]) -> None:
    cache.put(note("a", "1"))
    popped: list[Note | None] = []
    run_together([lambda: popped.append(cache.pop("a")) for _ in range(4)])
    assert [entry.text for entry in popped if entry] == ["1"]
    assert where(cache, "a") == {}
    assert cache.pop("a") is None


def test_who_is_killed_in_the_midst_of_a_pop_leaves_nothing_that_is_returned(
    cache: CacheManager[Note], world: World
) -> None:
    cache.put(note("a", "1"))
    tier(cache, "L3").fail("delete_many")
    with pytest.raises(TierUnavailable):
        cache.pop("a")
    assert cache.get("a") is None
    assert world.reopen("live", "disk", "disk").get("a") is None


def test_peeking_counts_nothing_and_sees_below_levels_that_are_out(cache: CacheManager[Note], world: World) -> None:
    cache.put(note("a", "1"))
    world.calls.clear()
    peeked = cache.peek("a")
    assert peeked is not None
    assert peeked.text == "1"
    assert world.calls_of("put", "put_many", "touch_many") == []
    assert (cache.get_statistics().requests, peeked.access_count) == (0, 0)
    tier(cache, "L3").fail()
    for _ in range(4):
        cache.put(note("b", "owed"))
    peeked = cache.peek("b")
    assert peeked is not None
    assert peeked.text == "owed"
    with pytest.raises(TierUnavailable):
        cache.update("b", counted)


# -- what is slow to make --------------------------------------------------------------------------------------------


@pytest.fixture
def updating(cache: CacheManager[Note]) -> Updating[Note]:
    return Updating(cache._comparing)


def test_what_was_made_is_put_if_nothing_came_between(cache: CacheManager[Note], updating: Updating[Note]) -> None:
    entry, expected, since = updating.begin("a")
    assert (entry, expected) == (None, 0)
    done = updating.fill(note("a", "made"), expected, since)
    assert done is not None
    assert (done.version, cache.get("a")) == (since, done)
    assert where(cache, "a") == {"L1": "made", "L2": "made", "L3": "made"}


def test_a_put_or_a_deletion_that_came_between_wins(
    cache: CacheManager[Note], updating: Updating[Note], world: World
) -> None:
    other = world.open("live", "disk", "disk")
    for came in (lambda: cache.put(note("a", "put")), lambda: other.put(note("a", "put")), lambda: other.delete("a")):
        cache.delete("a")
        _, expected, since = updating.begin("a")
        world.clock.advance(0.001)
        came()
        before = cache.peek("a")
        assert updating.fill(note("a", "made"), expected, since) is None
        assert cache.peek("a") == before


def test_a_deletion_in_the_midst_of_the_put_wins_too(
    cache: CacheManager[Note], updating: Updating[Note], world: World
) -> None:
    other = world.open("live", "disk", "disk")
    _, expected, since = updating.begin("a")
    world.clock.advance(0.001)
    tier(cache, "L3").before("replace", lambda: other.delete("a"))
    assert updating.fill(note("a", "made"), expected, since) is None
    assert where(cache, "a") == {}


def test_a_stamp_that_is_older_than_marks_are_kept_is_not_used(
    cache: CacheManager[Note], updating: Updating[Note], clock: FakeClock
) -> None:
    _, expected, since = updating.begin("a")
    clock.advance(cache.config.tombstone_seconds)
    done = updating.fill(note("a", "made"), expected, since)
    assert done is not None
    assert done.version > since
