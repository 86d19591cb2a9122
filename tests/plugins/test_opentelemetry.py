"""The OpenTelemetry metrics, collected by the SDK's reader in memory."""

from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tierkit import METRICS, CacheConfig, CacheConfigError, CacheEntry, CacheManager
from tierkit_opentelemetry import instruments


class Note(CacheEntry):
    text: str = ""


class Sdk:
    """A provider with a reader in memory."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def collected(self) -> dict[str, Any]:
        data = self.reader.get_metrics_data()
        scopes = [scope for resource in (data.resource_metrics if data else ()) for scope in resource.scope_metrics]
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def values(self) -> dict[tuple[str, ...], float]:
        """By name and the values of the attributes in the order of their names."""
        return {
            (name, *(str(point.attributes[key]) for key in sorted(point.attributes))): point.value
            for name, metric in self.collected().items()
            for point in metric.data.data_points
        }


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    sdk = Sdk()
    yield sdk
    sdk.provider.shutdown()


def open_cache(sdk: Sdk | None, name: str = "notes", **settings: Any) -> CacheManager[Note]:
    config = CacheConfig(
        name=name,
        tiers=({"backend": "memory", "max_entries": 2, "eviction_policy": "lru"},),
        observers=["opentelemetry"],
        observer_options={"opentelemetry": {"meter_provider": sdk.provider}} if sdk else {},
        **settings,
    )
    return CacheManager(config, entry_type=Note)


@pytest.mark.req("US6-3")
def test_a_collection_tells_what_the_statistics_tell(sdk: Sdk) -> None:
    with open_cache(sdk) as cache:
        cache.put_many([Note(key=key) for key in "abc"])
        for key in "bcd":
            cache.get(key)
        found = sdk.values()
        assert found["tierkit.requests", "notes"] == 3
        assert found["tierkit.hits", "notes", "L1"] == cache.get_statistics().tiers[0].hits == 2
        assert found["tierkit.records", "notes", "L1"] == 2
        assert found["tierkit.evictions", "notes", "lru", "L1"] == 1
        assert found["tierkit.breaker_state", "notes", "L1", "closed"] == 1
        cache.get("b")
        assert sdk.values()["tierkit.requests", "notes"] == 4


def test_every_metric_is_there_with_unit_and_description(sdk: Sdk) -> None:
    with open_cache(sdk, latency_histograms=True) as cache:
        cache.put(Note(key="a"))
        found = sdk.collected()
    plain = {f"tierkit.{metric.name}": metric for metric in METRICS if metric.kind != "histogram"}
    parts = {f"tierkit.{name}.{part}" for name in ("call", "tier_call") for part in ("count", "time", "latency")}
    assert set(found) == {*plain, *parts}
    assert found["tierkit.hits"].unit == "{read}"
    assert found["tierkit.degraded"].unit == "1"
    assert {name: found[name].description for name in plain} == {name: metric.help for name, metric in plain.items()}
    monotonic = {name for name, metric in found.items() if getattr(metric.data, "is_monotonic", False)}
    counters = {name for name, metric in plain.items() if metric.kind == "counter"}
    assert monotonic == counters | {name for name in parts if not name.endswith("latency")}
    up_and_down = {name for name, metric in found.items() if getattr(metric.data, "is_monotonic", None) is False}
    assert up_and_down == {"tierkit.records", "tierkit.intents"}


def test_latencies_are_told_by_count_time_and_quantile(sdk: Sdk) -> None:
    with open_cache(sdk, latency_histograms=True) as cache:
        for key in "abc":
            cache.put(Note(key=key))
        found = sdk.values()
        put = cache.get_statistics().latencies["put"]
    assert found["tierkit.call.count", "notes", "put"] == 3
    assert found["tierkit.call.time", "notes", "put"] == put.sum_seconds
    assert found["tierkit.call.latency", "notes", "put", "p99"] == put.p99


def test_several_caches_share_the_instruments_and_one_that_closed_is_gone(
    sdk: Sdk, caplog: pytest.LogCaptureFixture
) -> None:
    with open_cache(sdk, "one") as one, open_cache(sdk, "two") as two:
        two.get("a")
        found = sdk.values()
        assert (found["tierkit.requests", "one"], found["tierkit.requests", "two"]) == (0, 1)
        one.close()
        assert ("tierkit.requests", "one") not in sdk.values()
    assert sdk.values() == {}
    assert caplog.records == []


def test_a_collection_asks_each_cache_once(sdk: Sdk, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_cache(sdk) as cache:
        asked = iter(range(100))
        monkeypatch.setattr(cache.levels[0].tier, "size", lambda: next(asked))
        for _ in range(3):
            sdk.collected()
    assert next(asked) == 3


def test_without_a_provider_the_global_one_is_used_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = Sdk()
    instruments._global.cache_clear()
    monkeypatch.setattr(instruments, "get_meter", sdk.provider.get_meter)
    try:
        with open_cache(None) as cache, open_cache(None, "other"):
            cache.get("a")
            found = sdk.values()
            assert (found["tierkit.requests", "notes"], found["tierkit.requests", "other"]) == (1, 0)
    finally:
        instruments._global.cache_clear()
        sdk.provider.shutdown()


@pytest.mark.parametrize("given", [False, True], ids=["global", "given"])
def test_instruments_are_made_by_one_thread_at_a_time(sdk: Sdk, monkeypatch: pytest.MonkeyPatch, given: bool) -> None:
    def meter(*args: Any) -> Any:
        assert instruments._lock.locked()
        return real(*args)

    real = sdk.provider.get_meter
    instruments._global.cache_clear()
    monkeypatch.setattr(sdk.provider if given else instruments, "get_meter", meter)
    try:
        with open_cache(sdk if given else None) as cache:
            cache.get("a")
            assert sdk.values()["tierkit.requests", "notes"] == 1
    finally:
        instruments._global.cache_clear()


def test_a_provider_that_is_none_is_refused() -> None:
    with pytest.raises(
        CacheConfigError, match=r"opentelemetry.meter_provider = 'console' \(code\): must be a MeterProvi"
    ):
        CacheManager(
            CacheConfig(
                tiers=({"backend": "memory"},),
                observers=["opentelemetry"],
                observer_options={"opentelemetry": {"meter_provider": "console"}},
            )
        )


def test_where_nobody_takes_them_nothing_happens() -> None:
    with open_cache(None) as cache:
        assert cache.get("a") is None


def test_a_wrong_option_names_the_setting() -> None:
    with pytest.raises(CacheConfigError, match=r"observer_options.opentelemetry.port \(code\): there is no such"):
        CacheManager(
            CacheConfig(
                tiers=({"backend": "memory"},),
                observers=["opentelemetry"],
                observer_options={"opentelemetry": {"port": 1}},
            )
        )
