"""Health: successes, and many results applied in one sweep."""

import logging
import threading
from random import Random
from typing import Any

import pytest
from tests.core.engine.support import World, note, tier, where

from tierkit import CacheManager, CacheValidationError, HealthResult, HealthStatus, ProxyEntry, TierUnavailable
from tierkit.row import key_digest
from tierkit.testing import FakeClock

pytestmark = pytest.mark.req("US3-2")
STACKS = [("live",), ("disk",), ("live", "disk"), ("live", "disk", "disk")]


def health_of(cache: CacheManager[Any], key: str) -> tuple[HealthStatus, int]:
    entry = cache.get(key)
    assert entry is not None
    return entry.health_status, entry.failure_count


def counts(result: HealthResult) -> tuple[int, int, int, int]:
    return result.healthy, result.unhealthy, result.removed, result.missing


def filled(world: World, *levels: Any, count: int = 4, **settings: Any) -> CacheManager[Any]:
    cache = world.open(*levels, **settings)
    cache.put_many(note(f"k{n}", "x") for n in range(count))
    world.calls.clear()
    return cache


# -- one success ------------------------------------------------------------------------------------------------------


@pytest.mark.req("US3-1")
@pytest.mark.parametrize("levels", STACKS)
def test_a_success_marks_the_record_healthy_in_every_level_and_forgets_failures(
    world: World, levels: tuple[str, ...]
) -> None:
    cache = world.open(*levels)
    cache.put(note("a", "x"))
    cache.invalidate_by_health("a")
    entry = cache.record_success("a")
    assert entry is not None
    assert (entry.health_status, entry.failure_count, entry.is_healthy) == (HealthStatus.HEALTHY, 0, True)
    assert cache.get("a") == entry
    for level in [level for level in cache.levels if not level.live]:
        row: Any = level.tier.get("a")
        assert (row.columns["failure_count"], row.columns["health_status"]) == (0, "healthy")


def test_a_success_of_a_healthy_record_writes_nothing(world: World) -> None:
    cache = filled(world, "live", "disk", "disk")
    first = cache.record_success("k0")
    world.calls.clear()
    assert cache.record_success("k0") == first
    assert cache.record_health({"k0": True}) == HealthResult(healthy=1)
    assert world.calls_of("put", "put_many", "replace", "replace_many", "delete", "delete_many") == []


def test_a_success_of_what_is_not_there_is_none(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk")
    assert cache.record_success("a") is None
    cache.put(note("a", ttl_seconds=60))
    clock.advance(60)
    assert cache.record_success("a") is None
    assert world.open("disk", cache_enabled=False).record_success("a") is None
    with pytest.raises(CacheValidationError):
        cache.record_success("")


def test_a_failure_counted_while_a_success_is_noted_comes_first_or_last_but_is_not_lost(world: World) -> None:
    cache = filled(world, "live", "disk")
    cache.invalidate_by_health("k0")
    tier(cache, "L2").after("replace", lambda: cache.invalidate_by_health("k0"))
    cache.record_success("k0")
    assert health_of(cache, "k0") == (HealthStatus.UNHEALTHY, 1)


# -- many at once -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", STACKS)
def test_a_sweep_does_what_single_results_do(world: World, levels: tuple[str, ...]) -> None:
    cache = filled(world, *levels, failure_threshold=2)
    assert counts(cache.record_health({"k0": True, "k1": False, "k2": False, "nobody": False})) == (1, 2, 0, 1)
    assert counts(cache.record_health({"k0": False, "k1": False, "k2": True, "gone": True})) == (1, 1, 1, 1)
    assert health_of(cache, "k0") == (HealthStatus.UNHEALTHY, 1)
    assert where(cache, "k1") == {}
    assert health_of(cache, "k2") == (HealthStatus.HEALTHY, 0)
    assert health_of(cache, "k3") == (HealthStatus.UNKNOWN, 0)
    assert [level.evictions_health for level in cache.get_statistics().tiers] == [1] * len(levels)
    assert where(cache, "k0") == {level.name: "x" for level in cache.levels}


def test_a_sweep_is_one_call_of_each_kind_and_not_one_for_each_record(world: World) -> None:
    cache = filled(world, "live", "disk", "disk", count=20, failure_threshold=2)
    cache.record_health({f"k{n}": False for n in range(10)})
    world.calls.clear()
    cache.record_health({f"k{n}": False for n in range(20)})
    assert world.calls_of("get_many", "replace", "replace_many", "put_many", "delete", "delete_many") == [
        ("L3", "get_many"),
        ("L3", "replace_many"),
        ("L2", "get_many"),
        ("L2", "replace_many"),
        ("L1", "get_many"),
        ("L2", "get_many"),
        ("L3", "get_many"),
        ("L2", "delete_many"),
        ("L3", "delete_many"),
        *[("L1", "delete")] * 10,
    ]


def test_random_results_leave_the_same_state_singly_and_in_bulk(world: World) -> None:
    random = Random(7)
    other = World(world.clock)
    single, bulk = filled(world, "live", "disk", count=30), filled(other, "live", "disk", "disk", count=30)
    for _ in range(12):
        results = {f"k{n}": random.random() < 0.4 for n in random.sample(range(32), 20)}
        for key, healthy in results.items():
            single.record_success(key) if healthy else single.invalidate_by_health(key)
        bulk.record_health(results)
        states = [{e.key: (e.health_status, e.failure_count) for e in cache.scan()} for cache in (single, bulk)]
        assert states[0] == states[1]
    assert 0 < len(states[0]) < 30
    other.close()


def test_more_results_than_a_batch_are_all_applied(world: World) -> None:
    cache = filled(world, "live", "disk", count=2500, failure_threshold=1)
    result = cache.record_health({f"k{n}": n % 2 == 0 for n in range(2500)})
    assert counts(result) == (1250, 0, 1250, 0)
    assert result.applied == 2500
    assert len(cache) == 1250
    assert str(result) == "1250 healthy, 0 unhealthy, 1250 removed, 0 missing"


def test_counts_survive_a_restart_and_reach_every_level(world: World) -> None:
    cache = filled(world, "live", "disk", "disk")
    cache.record_health(dict.fromkeys(["k0", "k1"], False))
    for name in ("L2", "L3"):
        row: Any = tier(cache, name).tier.get("k0")
        assert (row.columns["failure_count"], row.columns["health_status"]) == (1, "unhealthy")
    cache = world.reopen("live", "disk", "disk")
    cache.record_health(dict.fromkeys(["k0", "k1"], False))
    assert health_of(cache, "k1") == (HealthStatus.UNHEALTHY, 2)


def test_a_sweep_changes_neither_deadline_nor_usage_nor_ciphertext(world: World, clock: FakeClock) -> None:
    from cryptography.fernet import Fernet
    from pydantic import SecretStr

    key = SecretStr(Fernet.generate_key().decode())
    cache = world.open("live", "disk", entry_type=ProxyEntry, encryption_key=key)
    put = cache.put(ProxyEntry.from_url("http://user:secret@192.0.2.1:80", ttl_seconds=90))
    cache.get(put.key)
    cache.flush()
    before: Any = tier(cache, "L2").tier.get(put.key)
    clock.advance(10)
    cache.record_health({put.key: False})
    after: Any = tier(cache, "L2").tier.get(put.key)
    assert after.columns["password_encrypted"] == before.columns["password_encrypted"]
    assert (after.purge_at, after.access_count) == (before.purge_at, 1)
    found = cache.get(put.key)
    assert found is not None
    assert (found.expires_at, found.password, found.access_count) == (put.expires_at, put.password, 2)


def test_an_expired_record_is_missing_whatever_its_health(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a", ttl_seconds=60))
    cache.put(note("b", ttl_seconds=90))
    clock.advance(60)
    assert cache.record_health({"a": True, "b": True}) == HealthResult(healthy=1, missing=1)
    assert where(cache, "a").get("L2") is None


def test_a_bounded_level_gets_new_counts_of_what_it_holds_and_nothing_else(world: World) -> None:
    cache = filled(world, ("live", 2), ("disk", 3), "disk", count=10)
    held = {name: set(tier(cache, name).tier.keys()) for name in ("L1", "L2")}
    cache.record_health({f"k{n}": False for n in range(10)})
    assert {name: set(tier(cache, name).tier.keys()) for name in ("L1", "L2")} == held
    for name in ("L1", "L2"):
        records: list[Any] = list(tier(cache, name).tier.scan())
        assert {getattr(r, "failure_count", None) or r.columns["failure_count"] for r in records} == {1}
    assert {entry.failure_count for entry in cache.scan()} == {1}


def test_with_health_invalidation_turned_off_a_sweep_counts_and_removes_nothing(world: World) -> None:
    cache = filled(world, "live", "disk", failure_threshold=1, enable_health_invalidation=False)
    assert counts(cache.record_health({"k0": False})) == (0, 1, 0, 0)
    assert health_of(cache, "k0") == (HealthStatus.UNHEALTHY, 1)


def test_a_cache_that_is_turned_off_misses_them_all_and_a_bad_key_applies_nothing(world: World) -> None:
    assert world.open("disk", cache_enabled=False).record_health({"a": True}) == HealthResult(missing=1)
    cache = filled(world, "disk")
    with pytest.raises(CacheValidationError):
        cache.record_health({"k0": False, "": True})
    assert health_of(cache, "k0") == (HealthStatus.UNKNOWN, 0)


@pytest.mark.parametrize("verdict", [None, 1, "no", 0.0])
def test_a_result_that_is_neither_true_nor_false_is_refused_and_nothing_is_applied(world: World, verdict: Any) -> None:
    cache = filled(world, "disk")
    kind = type(verdict).__name__
    with pytest.raises(CacheValidationError, match=f"the result for {key_digest('k1')} is {kind}: .* True or False"):
        cache.record_health({"k0": False, "k1": verdict})
    assert health_of(cache, "k0") == (HealthStatus.UNKNOWN, 0)


@pytest.mark.parametrize("results", [None, "k0", ["k0"], [("k0", False)], {"k0"}])
def test_results_that_are_no_mapping_are_refused(world: World, results: Any) -> None:
    with pytest.raises(CacheValidationError, match=f"by key, True or False, not {type(results).__name__}"):
        filled(world, "disk").record_health(results)


# -- others at the same time ------------------------------------------------------------------------------------------


def test_a_failure_counted_between_read_and_write_is_not_lost(world: World) -> None:
    cache = filled(world, "live", "disk", failure_threshold=99)
    tier(cache, "L2").before("replace_many", lambda: cache.invalidate_by_health("k1"))
    assert counts(cache.record_health({"k0": False, "k1": False, "k2": True})) == (1, 2, 0, 0)
    assert health_of(cache, "k1") == (HealthStatus.UNHEALTHY, 2)
    assert set(where(cache, "k1")) == {"L1", "L2"}


def test_a_record_deleted_or_put_between_read_and_write_stays_so(world: World) -> None:
    cache = filled(world, "live", "disk")

    def meanwhile() -> None:
        cache.delete("k0")
        cache.put(note("k1", "new"))

    tier(cache, "L2").before("replace_many", meanwhile)
    assert counts(cache.record_health({"k0": False, "k1": False})) == (0, 1, 0, 1)
    assert where(cache, "k0") == {}
    assert set(where(cache, "k1").values()) == {"new"}
    assert health_of(cache, "k1") == (HealthStatus.UNHEALTHY, 1)


def test_a_record_that_another_process_deleted_meanwhile_is_gone_from_l1_too(world: World) -> None:
    cache, foreign = filled(world, "live", "disk"), world.open("live", "disk")
    tier(cache, "L2").before("replace_many", lambda: foreign.delete("k0"))
    assert counts(cache.record_health({"k0": False, "k1": True})) == (1, 0, 0, 1)
    assert where(cache, "k0") == {}


def test_a_read_under_way_fills_no_level_with_an_older_count(world: World) -> None:
    cache = filled(world, "live", "disk", "disk")
    for name in ("L1", "L2"):
        tier(cache, name).tier.discard(tier(cache, name).tier.get("k0"))
    tier(cache, "L3").after("get", lambda: cache.record_health({"k0": False}))
    cache.get("k0")
    assert set(where(cache, "k0")) <= {"L2", "L3"}
    assert health_of(cache, "k0") == (HealthStatus.UNHEALTHY, 1)


def test_a_record_that_was_put_while_the_old_one_was_removed_stays(world: World) -> None:
    cache = filled(world, "live", "disk", failure_threshold=1)
    tier(cache, "L2").before("delete_many", lambda: cache.put(note("k0", "new")))
    assert counts(cache.record_health({"k0": False, "k1": False})) == (0, 1, 1, 0)
    assert cache.get("k0") is not None
    assert set(where(cache, "k0").values()) == {"new"}
    assert cache.get_statistics().tiers[1].evictions_health == 1


def test_a_read_under_way_fills_no_level_with_what_a_sweep_removed(world: World) -> None:
    cache = filled(world, "live", "disk", "disk", failure_threshold=1)
    for name in ("L1", "L2"):
        tier(cache, name).tier.discard(tier(cache, name).tier.get("k0"))
    tier(cache, "L3").after("get", lambda: cache.record_health({"k0": False}))
    cache.get("k0")
    assert where(cache, "k0") == {}


def test_threads_that_sweep_the_same_records_lose_no_count_and_remove_each_once(world: World) -> None:
    cache = filled(world, "live", "disk", "disk", count=10, failure_threshold=61)
    errors: list[Exception] = []

    def sweep() -> None:
        try:
            for turn in range(20):
                cache.record_health({f"k{n}": False for n in range(10)} if turn % 2 else {"k0": False})
        except Exception as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=sweep) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [health_of(cache, f"k{n}")[1] for n in range(3)] == [60, 30, 30]
    assert counts(cache.record_health({"k0": False, "k1": False})) == (0, 1, 1, 0)
    assert [level.evictions_health for level in cache.get_statistics().tiers] == [1, 1, 1]


# -- failures of the storage ------------------------------------------------------------------------------------------


def test_what_the_storage_did_not_take_is_answered_and_can_be_given_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    cache = filled(world, "live", "disk", count=1500)
    tier(cache, "L2").after("replace_many", lambda: tier(cache, "L2").fail("replace_many", times=1))
    results = {f"k{n}": False for n in range(1500)}
    result = cache.record_health(results)
    assert result.unhealthy == 1000
    assert result.unapplied == {f"k{n}": False for n in range(1000, 1500)}
    assert isinstance(result.error, TierUnavailable)
    assert "500 not applied" in str(result)
    assert any("500 results of checks could not be applied" in record.message for record in caplog.records)
    again = cache.record_health(result.unapplied)
    assert (again.unhealthy, again.error) == (500, None)
    assert {entry.failure_count for entry in cache.scan()} == {1}


def test_a_write_of_unknown_outcome_leaves_no_doubt_in_l1(world: World) -> None:
    cache = filled(world, "live", "disk")
    tier(cache, "L2").fail("replace_many", times=1)
    assert cache.record_health({"k0": False}).unapplied == {"k0": False}
    assert set(where(cache, "k0")) == {"L2"}
    assert set(where(cache, "k1")) == {"L1", "L2"}


def test_a_removal_that_failed_is_unapplied_and_done_when_it_is_given_again(world: World) -> None:
    cache = filled(world, "live", "disk", failure_threshold=1)
    tier(cache, "L2").fail("delete_many", times=1)
    result = cache.record_health({"k0": False, "k1": True})
    assert (counts(result), result.unapplied) == ((1, 0, 0, 0), {"k0": False})
    assert cache.record_health(result.unapplied).removed == 1
    assert where(cache, "k0") == {}


def test_an_authority_that_is_away_raises_before_anything_is_judged(world: World) -> None:
    cache = filled(world, "live", "disk")
    cache.levels[1].take_out(TierUnavailable("away"))
    world.calls.clear()
    for call in (lambda: cache.record_health({"k0": False}), lambda: cache.record_success("k0")):
        with pytest.raises(TierUnavailable):
            call()
    assert world.calls == []


def test_a_damaged_record_is_missing_and_costs_its_neighbours_nothing(world: World) -> None:
    cache = filled(world, "disk")
    blobs = world.disks["L1"]
    blobs["k1"] = blobs["k1"].replace(b"x", b"y")
    assert counts(cache.record_health({"k0": True, "k1": False, "k2": False})) == (1, 1, 0, 1)


def test_a_level_above_that_fails_holds_nothing_older(world: World) -> None:
    cache = filled(world, "disk", "disk", failure_threshold=2)
    cache.record_health({"k1": False})
    tier(cache, "L1").fail("replace_many", times=1)
    assert counts(cache.record_health({"k0": False, "k1": False})) == (0, 1, 1, 0)
    assert set(where(cache, "k0")) == {"L2"}
    assert where(cache, "k1") == {}


def test_removals_are_logged_by_identifiers_that_reveal_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    cache = world.open("live", "disk", failure_threshold=1)
    cache.put(note("canary-0451"))
    with caplog.at_level(logging.DEBUG):
        cache.record_health({"canary-0451": False})
    told = [record for record in caplog.records if "was removed: 1 failures" in record.message]
    assert [record.levelno for record in told] == [logging.INFO]
    assert "canary-0451" not in caplog.text
