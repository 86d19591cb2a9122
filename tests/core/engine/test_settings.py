"""Every setting that the engine implements does something."""

import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from tests.core.engine.support import World, note, tier

from tierkit import CacheConfigError, CacheManager, EncryptionKeyError, ProxyEntry
from tierkit.testing import FakeClock

KEY = Fernet.generate_key().decode()
PROXY = ProxyEntry.from_url("http://user:secret@192.0.2.1:80")


@pytest.fixture
def no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No key in the environment; generated ones go to a folder of the test's own."""
    for name in ("TIERKIT_ENCRYPTION_KEY", "PROXYWHIRL_CACHE_ENCRYPTION_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "tierkit" / "encryption.key"


@pytest.mark.req("F-4")
def test_default_ttl_seconds_and_per_source_ttl_give_deadlines(world: World) -> None:
    cache = world.open("disk", default_ttl_seconds=100, per_source_ttl={"free": 70})
    assert cache.put(note("a")).ttl_seconds == 100
    assert cache.put(note("b", source="free")).ttl_seconds == 70
    assert cache.put(note("c", source="free", ttl_seconds=5)).ttl_seconds == 5


@pytest.mark.req("US2-3")
def test_a_ttl_changed_at_run_time_holds_for_new_entries(world: World) -> None:
    cache = world.open("disk")
    old = cache.put(note("a"))
    cache.ttl.set_ttl("unknown", 5)
    assert cache.put(note("b")).ttl_seconds == 5
    assert cache.get("a") == old


@pytest.mark.req("US2-2")
def test_cleanup_interval_seconds_is_how_often_is_swept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    intervals: list[float] = []

    class Sweeper:
        def __init__(self, stack: Any, interval_seconds: float) -> None:
            intervals.append(interval_seconds)

        def stop(self, then: Any, patience_seconds: float | None = None) -> None:
            then()

    monkeypatch.setattr("tierkit.manager.Sweeper", Sweeper)
    monkeypatch.setattr(FakeClock, "background", True)
    world.open("disk", cleanup_interval_seconds=17)
    assert intervals == [17]


@pytest.mark.req("F-4")
def test_cache_enabled_false_makes_every_get_a_miss_and_drops_every_put(world: World) -> None:
    cache = world.open("live", "disk", cache_enabled=False)
    put = cache.put(note("a"))
    assert put.expires_at is not None
    assert cache.put_many([note("b"), note("c")]) == 2
    assert cache.get("a") is None
    assert (cache.size(), list(cache.keys()), cache.levels, dict(world.disks)) == (0, [], (), {})
    assert not cache.delete("a")
    cache.clear()
    assert cache.sweep() == 0
    statistics = cache.get_statistics()
    assert (statistics.requests, statistics.answered, statistics.overall_hit_rate) == (1, 0, 0.0)


def test_enable_statistics_false_counts_nothing(world: World, clock: FakeClock) -> None:
    cache = world.open(("live", 1), ("disk", 1), "disk", enable_statistics=False, failure_threshold=1)
    cache.put_many([note("a", ttl_seconds=60), note("b"), note("c")])
    for key in ("a", "b", "none", "a"):
        cache.get(key)
    world.disks["L3"]["c"] = b"garbage"
    cache.get("c")
    cache.invalidate_by_health("b")
    clock.advance(60)
    cache.sweep()
    tier(cache, "L2").fail("get", times=1)
    cache.get("a")
    metrics = cache.get_statistics().to_metrics_dict()
    assert {name for name, value in metrics.items() if value and not name.endswith(("_size", "_writable"))} == set()


def test_failure_threshold_is_how_many_failures_remove_a_record(world: World) -> None:
    cache = world.open("disk", failure_threshold=2)
    cache.put(note("a"))
    assert cache.invalidate_by_health("a") is not None
    assert cache.invalidate_by_health("a") is None


def test_tier_failure_threshold_is_how_many_failures_take_a_level_out(world: World) -> None:
    cache = world.open("disk", tier_failure_threshold=2)
    tier(cache, "L1").fail("get")
    cache.get("a")
    assert cache.levels[0].in_service
    cache.get("a")
    assert not cache.levels[0].in_service


@pytest.mark.parametrize(("late_seconds", "filled"), [(1.0, False), (2.0, True)])
def test_late_seconds_is_when_work_is_late(world: World, clock: FakeClock, late_seconds: float, filled: bool) -> None:
    world.open("live", "disk").put(note("a"))
    cache = world.reopen("live", "disk", late_seconds=late_seconds)
    tier(cache, "L2").after("get", lambda: clock.advance(1.5))
    cache.get("a")
    assert (cache.get_with_level("a")[1] == "L1") is filled


@pytest.mark.parametrize("durability", ["full", "process", "none"])
def test_the_settings_of_storage_reach_the_tier(world: World, durability: str) -> None:
    cache = world.open(("disk", 7), durability=durability, tombstone_seconds=123)
    context = tier(cache, "L1").context
    assert (context.durability, context.tombstone_seconds) == (durability, 123)
    assert (context.max_entries, context.eviction_policy, context.namespace, context.name) == (7, "lru", "note", "L1")
    assert context.now() == world.clock.wall()
    assert not context.read_only


def test_a_level_that_is_not_enabled_is_not_opened(world: World) -> None:
    cache = world.open_config([{"backend": "live", "enabled": False}, {"backend": "disk"}])
    assert [level.name for level in cache.levels] == ["L2"]


def test_the_name_of_a_level_is_what_the_configuration_says(world: World) -> None:
    cache = world.open_config([{"backend": "live", "name": "hot"}, {"backend": "disk", "name": "cold"}])
    assert [(level.name, level.kind, level.live, level.persistent) for level in cache.levels] == [
        ("hot", "live", True, False),
        ("cold", "disk", False, True),
    ]
    assert "hot_hits" in cache.get_statistics().to_metrics_dict()


@pytest.mark.req("F-7")
def test_an_encryption_key_given_is_used_before_any_other(
    world: World, no_keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERKIT_ENCRYPTION_KEY", Fernet.generate_key().decode())
    put = world.open("disk", entry_type=ProxyEntry, encryption_key=SecretStr(KEY)).put(PROXY)
    assert world.reopen("disk", entry_type=ProxyEntry).get(put.key) is None
    fetched = world.reopen("disk", entry_type=ProxyEntry, encryption_key=lambda: SecretStr(KEY))
    assert fetched.get(put.key) == put


@pytest.mark.parametrize("name", ["MY_KEY", "PROXYWHIRL_CACHE_ENCRYPTION_KEY"])
def test_encryption_key_env_names_the_variable_and_the_old_name_is_accepted(
    world: World, no_keys: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, KEY)
    put = world.open("disk", entry_type=ProxyEntry, encryption_key_env="MY_KEY").put(PROXY)
    monkeypatch.delenv(name)
    assert not no_keys.exists()
    assert world.reopen("disk", entry_type=ProxyEntry, encryption_key=SecretStr(KEY)).get(put.key) == put


def test_encryption_key_file_is_read_and_made(world: World, no_keys: Path, tmp_path: Path) -> None:
    file = tmp_path / "own" / "key"
    put = world.open("disk", entry_type=ProxyEntry, encryption_key_file=file).put(PROXY)
    assert file.stat().st_mode & 0o777 == 0o600
    assert not no_keys.exists()
    assert world.reopen("disk", entry_type=ProxyEntry, encryption_key_file=file).get(put.key) == put


def test_a_key_file_that_is_named_makes_tampering_evident_though_no_record_has_a_secret(
    world: World, no_keys: Path, tmp_path: Path
) -> None:
    def check_of(**settings: Any) -> str:
        cache = world.reopen("disk", **settings)
        cache.put(note("a"))
        row = tier(cache, "L1").tier.get("a")
        assert row is not None
        return str(row.check[:3])

    file = tmp_path / "key"
    assert check_of(encryption_key_file=file) == "c1."
    assert not file.exists(), "none is made for records without secrets"
    file.touch(0o600)
    file.write_text(KEY)
    assert check_of(encryption_key_file=file) == "k1."


def test_key_policy_says_whether_a_key_may_be_made(world: World, no_keys: Path) -> None:
    with pytest.raises(EncryptionKeyError, match="require"):
        world.open("disk", entry_type=ProxyEntry, key_policy="require")
    assert not no_keys.exists()
    world.open("disk", entry_type=ProxyEntry).put(PROXY)
    assert no_keys.exists()
    no_keys.unlink()
    with pytest.raises(EncryptionKeyError, match="already"):
        world.reopen("disk", entry_type=ProxyEntry)


@pytest.mark.parametrize("policy", ["require", "generate"])
def test_who_has_no_key_is_told_of_the_variable_that_is_configured(
    world: World, no_keys: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "link", fails)
    with pytest.raises(EncryptionKeyError, match="set MY_KEY to"):
        world.open("disk", entry_type=ProxyEntry, key_policy=policy, encryption_key_env="MY_KEY")


def test_a_cache_in_memory_alone_needs_no_key(world: World, no_keys: Path) -> None:
    cache = world.open("live", entry_type=ProxyEntry)
    put = cache.put(PROXY)
    assert cache.get(put.key) == put
    assert not no_keys.exists()


@pytest.mark.req("US5-4")
def test_warm_files_are_put_when_the_cache_is_opened(world: World, no_keys: Path, tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("proxy_url,source\nhttp://192.0.2.1:80,list\n")
    cache = world.open("live", "disk", entry_type=ProxyEntry, warm_files=(file,))
    assert [entry.source for entry in cache.scan()] == ["list"]


def test_a_persistent_level_above_one_that_is_not_is_refused(world: World) -> None:
    with pytest.raises(CacheConfigError, match="stores rows"):
        world.open("disk", "live")


@pytest.mark.parametrize("bound", [0, -1, True, 1.5, "many"])
def test_a_bound_that_is_none_is_refused(world: World, bound: Any) -> None:
    with pytest.raises(CacheConfigError, match="max_entries"):
        world.open(("live", bound))


def test_an_unknown_backend_names_the_nearest(world: World) -> None:
    with pytest.raises(CacheConfigError, match="disk"):
        world.open("disc")


def test_when_one_tier_cannot_be_opened_the_others_are_closed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    real = world._live

    def noted(*args: Any) -> Any:
        opened.append(real(*args))
        return opened[-1]

    monkeypatch.setattr(world, "_live", noted)

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(world, "_disk", fail)
    with pytest.raises(OSError, match=r"L2 \(disk\) could not be opened: RuntimeError: broken"):
        world.open("live", "disk")
    with pytest.raises(OSError, match="closed"):
        opened[0].size()


def test_ttl_jitter_brings_deadlines_forward(world: World, clock: FakeClock) -> None:
    cache = world.open("disk", ttl_jitter=0.5, default_ttl_seconds=100)
    puts = [cache.put(note(f"key {n}")) for n in range(50)]
    left = {put.purge_at - clock.wall() for put in puts}
    assert len(left) > 40
    assert all(50 < seconds <= 100 for seconds in left)
    assert {put.ttl_seconds for put in puts} == {100}


@pytest.mark.parametrize("config", ["tierkit.toml", Path("tierkit.toml"), {"encryption_key": KEY}, 5, False], ids=type)
def test_what_is_no_configuration_is_refused_with_what_to_use_instead(config: Any) -> None:
    kind = type(config).__name__
    with pytest.raises(CacheConfigError, match=rf"a CacheConfig, not {kind}: CacheConfig.load\(path\)") as told:
        CacheManager(config)
    assert KEY not in str(told.value)
