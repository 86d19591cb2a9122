"""Warming merges: a refreshed record keeps what was found out about it."""

from pathlib import Path
from typing import Any

import pytest
from tests.core.engine.support import Note, World, note, tier, where

from tierkit import CacheManager, CacheValidationError, HealthStatus, ProxyEntry, TierUnavailable
from tierkit.testing import FakeClock

pytestmark = [pytest.mark.req("US3-1"), pytest.mark.req("US5-1")]
STACKS = [("live",), ("disk",), ("live", "disk"), ("live", "disk", "disk"), (("live", 1), ("disk", 1), "disk")]


def put_merging(cache: CacheManager[Any], *entries: Any) -> None:
    assert cache.put_many(entries, merge=True) == len(entries)


def found(cache: CacheManager[Any], key: str) -> Note:
    entry: Note | None = cache.get(key)
    assert entry is not None
    return entry


@pytest.mark.parametrize("levels", STACKS)
def test_a_merged_record_keeps_health_and_creation_and_gets_the_rest_anew(
    world: World, clock: FakeClock, levels: tuple[Any, ...]
) -> None:
    cache = world.open(*levels)
    before = cache.put(note("a", "old", source="one", ttl_seconds=60))
    cache.put(note("b", "old"))
    cache.invalidate_by_health("a")
    cache.invalidate_by_health("a")
    clock.advance(30)
    put_merging(cache, note("a", "new", source="two", ttl_seconds=90), note("b", "new"), note("c", "new"))
    after = found(cache, "a")
    assert (after.health_status, after.failure_count, after.created_at) == ("unhealthy", 2, before.created_at)
    assert (after.text, after.source, after.ttl_seconds) == ("new", "two", 90)
    assert after.fetch_time == after.updated_at != before.fetch_time
    assert after.expires_at is not None
    assert after.expires_at.timestamp() == clock.wall() + 90
    for key in "abc":
        assert set(where(cache, key).values()) == {"new"}
        assert where(cache, key).keys() >= {f"L{len(levels)}"}
    assert found(cache, "c").health_status is HealthStatus.UNKNOWN
    assert cache.invalidate_by_health("a") is None


@pytest.mark.parametrize("levels", [("live", "disk"), ("disk",), ("live",)])
def test_a_merged_record_keeps_its_usage(world: World, levels: tuple[str, ...]) -> None:
    cache = world.open(*levels)
    cache.put(note("a"))
    for _ in range(3):
        cache.get("a")
    cache.flush()
    if levels == ("live", "disk"):
        cache = world.reopen(*levels)
    put_merging(cache, note("a", "new"))
    assert found(cache, "a").access_count == 4
    cache.flush()
    put_merging(cache, note("a", "newer"))
    assert found(cache, "a").access_count == 5


def test_health_is_kept_over_restarts_and_through_every_level(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    put_merging(cache, note("a"))
    cache.invalidate_by_health("a")
    cache = world.reopen("live", "disk", "disk")
    put_merging(cache, note("a", "new"))
    for name in ("L2", "L3"):
        row: Any = tier(cache, name).tier.get("a")
        assert (row.columns["failure_count"], row.columns["text"]) == (1, "new")
    assert found(world.reopen("live", "disk", "disk"), "a").failure_count == 1


def test_a_plain_put_replaces_health(world: World) -> None:
    cache = world.open("live", "disk")
    for put in (lambda: cache.put(note("a")), lambda: cache.put_many([note("a")])):
        cache.put(note("a"))
        cache.invalidate_by_health("a")
        put()
        assert found(cache, "a").failure_count == 0


def test_what_a_row_says_of_health_is_taken_only_where_nothing_was_found_out(world: World) -> None:
    cache = world.open("live", "disk")
    for key in "ab":
        cache.put(note(key))
    cache.put(note("d", failure_count=1))
    cache.record_success("a")
    said: dict[str, Any] = {"health_status": HealthStatus.UNHEALTHY, "failure_count": 2}
    put_merging(cache, *(note(key, **said) for key in "abcd"))
    states = {entry.key: (entry.health_status, entry.failure_count) for entry in cache.scan()}
    assert states == {"a": ("healthy", 0), "b": ("unhealthy", 2), "c": ("unhealthy", 2), "d": ("unknown", 1)}


@pytest.mark.parametrize("levels", [("live",), ("live", "disk")])
def test_a_record_that_has_expired_or_was_removed_for_health_comes_back_fresh(
    world: World, clock: FakeClock, levels: tuple[str, ...]
) -> None:
    cache = world.open(*levels, failure_threshold=2)
    for key in "ab":
        cache.put(note(key, ttl_seconds=60))
        cache.invalidate_by_health(key)
    cache.invalidate_by_health("a")
    clock.advance(60)
    put_merging(cache, note("a"), note("b"))
    for key in "ab":
        entry = found(cache, key)
        assert (entry.health_status, entry.failure_count) == ("unknown", 0)
        assert entry.created_at == entry.updated_at


# -- others at the same time ------------------------------------------------------------------------------------------


def test_a_failure_counted_between_read_and_write_is_not_lost(world: World) -> None:
    cache = world.open("live", "disk", failure_threshold=9)
    for key in "abc":
        cache.put(note(key, "old"))
    tier(cache, "L2").before("replace_many", lambda: cache.invalidate_by_health("b"))
    put_merging(cache, *(note(key, "new") for key in "abc"))
    assert found(cache, "b").failure_count == 1
    assert {key: set(where(cache, key).values()) for key in "abc"} == {key: {"new"} for key in "abc"}


def test_a_failure_counted_in_memory_between_read_and_write_is_not_lost(world: World) -> None:
    cache = world.open("live")
    cache.put(note("a", "old"))
    tier(cache, "L1").before("replace", lambda: cache.invalidate_by_health("a"))
    put_merging(cache, note("a", "new"))
    assert (found(cache, "a").failure_count, found(cache, "a").text) == (1, "new")


def test_a_record_that_another_process_put_or_deleted_meanwhile_is_merged_with_that(world: World) -> None:
    cache, foreign = world.open("live", "disk"), world.open("live", "disk")
    cache.put(note("b", "old"))
    cache.invalidate_by_health("b")

    def meanwhile() -> None:
        foreign.put(note("a", "theirs"))
        foreign.invalidate_by_health("a")
        foreign.delete("b")

    tier(cache, "L2").before("replace_many", meanwhile)
    put_merging(cache, note("a", "ours"), note("b", "ours"))
    assert [(found(cache, key).text, found(cache, key).failure_count) for key in "ab"] == [("ours", 1), ("ours", 0)]


def test_a_deletion_by_a_clock_that_is_ahead_is_written_over(world: World) -> None:
    cache = world.open("live", "disk")
    version = cache.put(note("b")).version
    ahead = version + 3600 * 1_000_000 * 1024
    tier(cache, "L2").tier.delete("a", ahead)
    put_merging(cache, note("a", "new"))
    assert where(cache, "a") == {"L1": "new", "L2": "new"}
    assert found(cache, "a").version > ahead


def test_a_record_that_cannot_be_read_with_our_keys_is_replaced_and_not_tried_for_ever(world: World) -> None:
    from cryptography.fernet import Fernet
    from pydantic import SecretStr

    url = "http://user:secret@192.0.2.1:80"
    for _ in range(2):
        key = SecretStr(Fernet.generate_key().decode())
        cache = world.reopen("disk", entry_type=ProxyEntry, encryption_key=key)
        put_merging(cache, ProxyEntry.from_url(url))
        entry: ProxyEntry | None = cache.get(ProxyEntry.key_for(url))
        assert entry is not None
        assert entry.password == SecretStr("secret")


def test_writers_that_always_come_first_are_an_error_and_not_a_loop(world: World) -> None:
    cache = world.open("disk")
    cache.put(note("a"))
    vars(tier(cache, "L1").tier).update(replace=lambda *_: False, replace_many=lambda pairs: [False] * len(pairs))
    with pytest.raises(TierUnavailable, match="64 other writers"):
        cache.put_many([note("a")], merge=True)


# -- in bulk ----------------------------------------------------------------------------------------------------------


def test_a_batch_is_one_read_and_one_write_of_the_authority(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    cache.put(note("k0"))
    world.calls.clear()
    put_merging(cache, *(note(f"k{n}") for n in range(1000)))
    methods = ("get", "get_many", "put", "put_many", "replace", "replace_many")
    calls = [call for call in world.calls_of(*methods) if call[0] != "L1"]
    assert calls == [("L3", "get_many"), ("L3", "replace_many"), ("L2", "put_many")]


def test_what_cannot_be_stored_is_told_and_left_out(world: World) -> None:
    cache = world.open("live", "disk")
    entries: list[Any] = [note("a"), "no entry", note(""), note("x" * 5000), ProxyEntry(proxy_url="http://h:1")]
    refused: list[int] = []
    written = cache.put_many([*entries, note("b")], merge=True, on_invalid=lambda index, _: refused.append(index))
    assert (written, refused) == (2, [1, 2, 3, 4])
    with pytest.raises(CacheValidationError):
        cache.put_many([note("c"), note("")], merge=True)
    assert sorted(cache.keys()) == ["a", "b", "c"]


def test_the_last_of_a_key_is_the_one_that_stays(world: World) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a"))
    cache.invalidate_by_health("a")
    put_merging(cache, note("a", "one"), note("a", "two"))
    assert (found(cache, "a").text, found(cache, "a").failure_count) == ("two", 1)


def test_a_cache_that_is_turned_off_takes_and_drops_them(world: World) -> None:
    put_merging(world.open("disk", cache_enabled=False), note("a"))


def test_an_authority_that_is_away_raises(world: World) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a"))
    cache.levels[1].take_out(TierUnavailable("away"))
    with pytest.raises(TierUnavailable):
        cache.put_many([note("a", "new")], merge=True)


def test_a_tier_that_answers_for_fewer_than_it_was_given_is_unavailable(world: World) -> None:
    cache = world.open("disk")
    vars(tier(cache, "L1").tier)["replace_many"] = lambda _: [True]
    with pytest.raises(TierUnavailable, match="was given 2 rows, answered 1"):
        cache.put_many([note("a"), note("b")], merge=True)


# -- warming ----------------------------------------------------------------------------------------------------------


def test_warming_the_same_list_again_undoes_no_failure(world: World, tmp_path: Path) -> None:
    from cryptography.fernet import Fernet
    from pydantic import SecretStr

    key = SecretStr(Fernet.generate_key().decode())
    path = tmp_path / "list.csv"
    path.write_text("proxy_url,password\nhttp://user@192.0.2.1:80,old\nhttp://user@192.0.2.2:80,old\n")
    cache = world.open("live", "disk", entry_type=ProxyEntry, encryption_key=key, failure_threshold=3)
    cache.warm_from_file(path)
    bad = ProxyEntry.key_for("http://192.0.2.1:80", "user")
    path.write_text(path.read_text().replace("old", "new"))
    for count in (1, 2):
        cache.invalidate_by_health(bad)
        assert cache.warm_from_file(path).loaded == 2
        entry: ProxyEntry | None = cache.get(bad)
        assert entry is not None
        assert (entry.failure_count, entry.password) == (count, SecretStr("new"))
    assert cache.invalidate_by_health(bad) is None
    cache.warm_from_file(path)
    entry = cache.get(bad)
    assert entry is not None
    assert entry.health_status is HealthStatus.UNKNOWN
