"""The default stack, memory over JSON Lines over SQLite, on a real list."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from tierkit import CacheConfig, CacheManager, ProxyEntry, SQLiteCacheTier
from tierkit.testing import FakeClock

LISTS = Path(__file__).parents[1] / "data" / "proxy-lists"
KEY = SecretStr(Fernet.generate_key().decode())


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., CacheManager[ProxyEntry]]:
    """Opens the default stack in a folder of its own, again and again."""
    clock = FakeClock()

    def open_again(**settings: object) -> CacheManager[ProxyEntry]:
        config = CacheConfig(
            encryption_key=KEY,
            l2_cache_dir=tmp_path / "proxies",
            l3_database_path=tmp_path / "db" / "tierkit.db",
            **settings,
        )
        return CacheManager(config, clock=clock)

    return open_again


def with_credentials(number: int) -> ProxyEntry:
    return ProxyEntry.from_url(f"http://user{number}:password{number}@198.51.100.{number % 250}:{8000 + number}")


@pytest.mark.req("US1-3")
@pytest.mark.req("SC-5")
def test_a_hundred_restarts_lose_nothing(opened: Callable[..., CacheManager[ProxyEntry]]) -> None:
    with opened(cache_l1_max_entries=20, cache_l2_max_entries=60) as cache:
        stored = {entry.key: cache.put(entry) for entry in map(with_credentials, range(120))}
    for start in range(100):
        with opened(cache_l1_max_entries=20, cache_l2_max_entries=60) as cache:
            assert cache.size() == len(stored)
            asked = list(stored)[start::10]
            assert {key: cache.get(key) for key in asked} == {key: stored[key] for key in asked}
    with opened() as cache:
        assert {entry.key: entry for entry in cache.scan()} == stored


@pytest.mark.req("US4-4")
def test_reads_are_counted_through_restarts_and_levels(opened: Callable[..., CacheManager[ProxyEntry]]) -> None:
    key = with_credentials(1).key
    with opened() as cache:
        cache.put(with_credentials(1))
    for _ in range(5):
        with opened() as cache:
            for _ in range(3):
                cache.get(key)
    with opened() as cache:
        found = cache.get(key)
        assert found is not None
        assert found.access_count == 16


@pytest.mark.req("US5-1")
@pytest.mark.req("US4-1")
def test_a_real_list_is_whole_after_a_restart_and_each_level_holds_its_part(
    opened: Callable[..., CacheManager[ProxyEntry]],
) -> None:
    lines = gzip.decompress((LISTS / "2026-08-14T0936Z.jsonl.gz").read_bytes()).splitlines()
    with opened() as cache:
        result = cache.warm_from_file(LISTS / "2026-08-14T0936Z.jsonl.gz")
        assert result.found == len(lines) == result.loaded + result.skipped
        sizes = [tier.size for tier in cache.get_statistics().tiers]
        assert sizes == [1000, 5000, result.loaded]
        everything = {entry.key: entry for entry in cache.scan()}
    with opened() as cache:
        assert {entry.key: entry for entry in cache.scan()} == everything
        answered = {key: cache.get_with_level(key)[1] for key in everything}
    assert set(answered.values()) == {"L2", "L3"}
    assert sum(level == "L2" for level in answered.values()) <= 5000


@pytest.mark.req("US6-1")
def test_statistics_name_what_the_requirements_name(opened: Callable[..., CacheManager[ProxyEntry]]) -> None:
    with opened(cache_l1_max_entries=2) as cache:
        entries = [cache.put(with_credentials(number)) for number in range(5)]
        for entry in entries:
            cache.get(entry.key)
        cache.get("nothing")
        statistics = cache.get_statistics()
        metrics = statistics.to_metrics_dict()
    assert (statistics.requests, statistics.answered) == (6, 5)
    assert statistics.overall_hit_rate == pytest.approx(5 / 6)
    assert [statistics.l1_degraded, statistics.l2_degraded, statistics.l3_degraded] == [False] * 3
    assert metrics["l1_size"] == 2
    assert metrics["l1_evictions_s3fifo"] == metrics["l1_demotions"] == 3 + metrics["l1_promotions"]
    for cause in ("lru", "ttl", "health", "corruption"):
        assert f"l3_evictions_{cause}" in metrics


def test_the_tiers_of_the_stack_can_be_had_from_tierkit(opened: Callable[..., CacheManager[ProxyEntry]]) -> None:
    with opened() as cache:
        assert isinstance(cache.levels[2].tier, SQLiteCacheTier)
        assert [level.kind for level in cache.levels] == ["memory", "jsonl", "sqlite"]
