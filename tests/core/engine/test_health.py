"""Health: failures of records, counted by compare and set."""

import logging
import threading
from typing import Any

import pytest
from tests.core.engine.support import World, note, tier, where

from tierkit import CacheValidationError, HealthStatus, ProxyEntry, TierCorrupt, TierUnavailable, comparing, filling
from tierkit.testing import FakeClock

pytestmark = pytest.mark.req("US3-1")
STACKS = [("live",), ("disk",), ("live", "disk"), ("live", "disk", "disk")]


@pytest.mark.parametrize("levels", STACKS)
def test_failures_are_counted_and_the_record_is_removed_at_the_threshold(world: World, levels: tuple[str, ...]) -> None:
    cache = world.open(*levels, failure_threshold=3)
    cache.put(note("a", "x"))
    for count in (1, 2):
        entry = cache.invalidate_by_health("a")
        assert entry is not None
        assert (entry.failure_count, entry.health_status) == (count, HealthStatus.UNHEALTHY)
        assert cache.get("a") == entry
        assert where(cache, "a") == {level.name: "x" for level in cache.levels}
    assert cache.invalidate_by_health("a") is None
    assert cache.get("a") is None
    assert where(cache, "a") == {}
    assert cache.invalidate_by_health("a") is None
    assert [tier.evictions_health for tier in cache.get_statistics().tiers] == [1] * len(levels)


def test_a_removal_is_counted_in_the_levels_that_held_the_record(world: World) -> None:
    cache = world.open(("live", 1), ("disk", 2), "disk", failure_threshold=1)
    for key in "abc":
        cache.put(note(key))

    def remove(key: str) -> list[int]:
        before = [tier.evictions_health for tier in cache.get_statistics().tiers]
        assert cache.record_health({key: False}).removed == 1
        after = [tier.evictions_health for tier in cache.get_statistics().tiers]
        return [new - old for old, new in zip(before, after, strict=True)]

    assert remove("a") == [0, 0, 1]
    assert remove("c") == [1, 1, 1]
    cache.levels[1].tier.fail("get_many", times=1)  # type: ignore[attr-defined]  # it is a scripted one
    assert remove("b") == [0, 0, 1]
    assert where(cache, "b") == {}


def test_the_count_survives_a_restart_and_every_level_has_it(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    cache.put(note("a"))
    cache.invalidate_by_health("a")
    for name in ("L2", "L3"):
        row: Any = tier(cache, name).tier.get("a")
        assert (row.columns["failure_count"], row.columns["health_status"]) == (1, "unhealthy")
    entry = world.reopen("live", "disk", "disk").invalidate_by_health("a")
    assert entry is not None
    assert entry.failure_count == 2


def test_a_failure_changes_neither_deadline_nor_fetch_time(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk")
    put = cache.put(note("a", ttl_seconds=60))
    clock.advance(30)
    entry = cache.invalidate_by_health("a")
    assert entry is not None
    assert (entry.expires_at, entry.fetch_time, entry.ttl_seconds, entry.created_at) == (
        put.expires_at,
        put.fetch_time,
        60,
        put.created_at,
    )
    clock.advance(30)
    assert cache.get("a") is None
    assert cache.invalidate_by_health("a") is None


def test_the_ciphertext_of_a_secret_stays_as_it_is(world: World) -> None:
    from cryptography.fernet import Fernet
    from pydantic import SecretStr

    key = SecretStr(Fernet.generate_key().decode())
    cache = world.open("disk", entry_type=ProxyEntry, encryption_key=key)
    put = cache.put(ProxyEntry.from_url("http://user:secret@192.0.2.1:80"))
    before: Any = tier(cache, "L1").tier.get(put.key)
    cache.invalidate_by_health(put.key)
    after: Any = tier(cache, "L1").tier.get(put.key)
    assert after.columns["password_encrypted"] == before.columns["password_encrypted"]
    found = cache.get(put.key)
    assert found is not None
    assert found.password == put.password


def test_a_failure_counted_between_read_and_write_is_not_lost(world: World) -> None:
    cache = world.open("live", "disk", failure_threshold=99)
    cache.put(note("a"))
    tier(cache, "L2").before("replace", lambda: cache.invalidate_by_health("a"))
    entry = cache.invalidate_by_health("a")
    assert entry is not None
    assert entry.failure_count == 2
    assert cache.get("a") == entry


@pytest.mark.parametrize("levels", [("live", "disk"), ("live",)])
def test_a_put_between_read_and_write_is_not_overwritten(world: World, levels: tuple[str, ...]) -> None:
    cache = world.open(*levels)
    cache.put(note("a", "old", failure_count=1))
    tier(cache, f"L{len(levels)}").before("replace", lambda: cache.put(note("a", "new")))
    entry = cache.invalidate_by_health("a")
    assert entry is not None
    assert (entry.text, entry.failure_count) == ("new", 1)
    assert set(where(cache, "a").values()) == {"new"}


def test_a_record_that_was_put_while_the_old_one_was_removed_stays(world: World) -> None:
    cache = world.open("live", "disk", failure_threshold=1)
    cache.put(note("a", "old"))
    tier(cache, "L2").after("replace", lambda: cache.put(note("a", "new")))
    cache.invalidate_by_health("a")
    entry = cache.get("a")
    assert entry is not None
    assert (entry.text, entry.failure_count) == ("new", 0)
    assert cache.get_statistics().tiers[1].evictions_health == 0


def test_a_record_deleted_between_read_and_write_stays_deleted(world: World) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a"))
    tier(cache, "L2").before("replace", lambda: cache.delete("a"))
    assert cache.invalidate_by_health("a") is None
    assert where(cache, "a") == {}


def test_four_threads_lose_no_count_and_remove_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "ATTEMPTS", 1)  # they take turns: none has to try again
    monkeypatch.setattr(filling, "TURN_SECONDS", 60.0)
    cache = world.open("live", "disk", "disk", failure_threshold=201)
    cache.put(note("a"))

    def fail() -> None:
        for _ in range(50):
            cache.invalidate_by_health("a")

    threads = [threading.Thread(target=fail) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entry = cache.get("a")
    assert entry is not None
    assert entry.failure_count == 200
    assert cache.invalidate_by_health("a") is None
    assert [tier.evictions_health for tier in cache.get_statistics().tiers] == [1, 1, 1]


def test_health_invalidation_can_be_turned_off(world: World) -> None:
    cache = world.open("live", "disk", failure_threshold=1, enable_health_invalidation=False)
    cache.put(note("a"))
    for count in (1, 2, 3):
        entry = cache.invalidate_by_health("a")
        assert entry is not None
        assert entry.failure_count == count


def test_a_success_resets_the_count(world: World) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a"))
    failed = cache.invalidate_by_health("a")
    assert failed is not None
    cache.put(failed.evolve(failure_count=0, health_status=HealthStatus.HEALTHY))
    entry = cache.invalidate_by_health("a")
    assert entry is not None
    assert entry.failure_count == 1


def test_an_authority_that_fails_raises_and_leaves_no_doubt_in_l1(world: World) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a"))
    tier(cache, "L2").fail("replace", times=1)
    with pytest.raises(TierUnavailable):
        cache.invalidate_by_health("a")
    assert set(where(cache, "a")) == {"L2"}


def test_writers_that_always_come_first_are_an_error_and_not_a_loop(world: World) -> None:
    cache = world.open("disk")
    cache.put(note("a"))
    vars(tier(cache, "L1").tier)["replace"] = lambda *_: False
    with pytest.raises(TierUnavailable, match="64 other writers"):
        cache.invalidate_by_health("a")


def test_a_removal_is_logged_by_an_identifier_that_reveals_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    cache = world.open("disk", failure_threshold=1)
    cache.put(note("canary-0451"))
    with caplog.at_level(logging.DEBUG):
        cache.invalidate_by_health("canary-0451")
    assert any("was removed: 1 failures" in record.message for record in caplog.records)
    assert "canary-0451" not in caplog.text


def test_a_record_that_cannot_be_decoded_is_counted_as_damage_and_is_not_there(world: World) -> None:
    cache = world.open("disk")
    cache.put(note("a"))
    tier(cache, "L1").fail("get", error=TierCorrupt("rotten"), times=1)
    assert cache.invalidate_by_health("a") is None
    assert cache.get_statistics().tiers[0].corruptions == 1


def test_a_cache_that_is_turned_off_counts_no_failures(world: World) -> None:
    assert world.open("disk", cache_enabled=False).invalidate_by_health("a") is None
    with pytest.raises(CacheValidationError):
        world.open("disk").invalidate_by_health("")
