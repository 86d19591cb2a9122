"""The Prometheus endpoint, scraped over loopback with the official parser."""

import os
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tierkit import METRICS, CacheConfig, CacheConfigError, CacheEntry, CacheManager


class Note(CacheEntry):
    text: str = ""


Values = dict[tuple[str, ...], float]


def open_cache(name: str = "notes", port: Any = 0, **settings: Any) -> CacheManager[Note]:
    config = CacheConfig(
        name=name,
        tiers=settings.pop("tiers", ({"backend": "memory", "max_entries": 2, "eviction_policy": "lru"},)),
        observers=["prometheus"],
        observer_options={"prometheus": {"port": port}},
        **settings,
    )
    return CacheManager(config, entry_type=Note)


def url_of(cache: CacheManager[Note]) -> str:
    url: str = cache.observers["prometheus"].url
    return url


def scraped(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - our own, on loopback
        text: str = answer.read().decode()
        return text


def values(text: str) -> Values:
    """By name and the values of the labels, in the order of their names; only ours."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("tierkit_")
    }


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    yield
    assert values(generate_latest(REGISTRY).decode()) == {}


@pytest.mark.req("US6-3")
def test_a_scrape_tells_what_the_statistics_tell(tmp_path: Path) -> None:
    levels = (
        {"backend": "memory", "max_entries": 2, "eviction_policy": "lru"},
        {"backend": "sqlite", "path": tmp_path / "notes.db"},
    )
    with open_cache(tiers=levels) as cache:
        cache.put_many([Note(key=key) for key in "abc"])
        for key in "abcd":
            cache.get(key)
        found = values(scraped(url_of(cache)))
        statistics = cache.get_statistics()
    assert found["tierkit_requests_total", "notes"] == statistics.requests == 4
    assert found["tierkit_answered_total", "notes"] == statistics.answered == 3
    for level in statistics.tiers:
        assert found["tierkit_hits_total", "notes", level.name] == level.hits
        assert found["tierkit_misses_total", "notes", level.name] == level.misses
        assert found["tierkit_records", "notes", level.name] == level.size
        assert found["tierkit_breaker_state", "notes", level.name, "closed"] == 1
        for cause, count in level.evictions.items():
            assert found["tierkit_evictions_total", "notes", cause, level.name] == count
    assert found["tierkit_evictions_total", "notes", "lru", "L1"] > 0


@pytest.mark.req("US6-3")
def test_every_metric_is_there_under_the_conventions_of_prometheus() -> None:
    with open_cache(latency_histograms=True) as cache:
        cache.put(Note(key="a"))
        text = scraped(url_of(cache))
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {f"tierkit_{metric.name}" for metric in METRICS} <= set(families)
    for metric in METRICS:
        family = families[f"tierkit_{metric.name}"]
        assert (family.type, family.documentation) == (metric.kind, metric.help)


def test_a_histogram_is_cumulative_and_ends_with_its_count() -> None:
    with open_cache(latency_histograms=True) as cache:
        for key in "abc":
            cache.put(Note(key=key))
        found = values(scraped(url_of(cache)))
    buckets = {key[2]: value for key, value in found.items() if key[:2] == ("tierkit_call_seconds_bucket", "notes")}
    puts = [value for key, value in found.items() if key[0] == "tierkit_call_seconds_bucket" and "put" in key]
    assert puts == sorted(puts)
    assert "+Inf" in buckets
    assert puts[-1] == found["tierkit_call_seconds_count", "notes", "put"] == 3
    assert found["tierkit_call_seconds_sum", "notes", "put"] > 0


def test_several_caches_share_one_endpoint_and_are_told_apart() -> None:
    with open_cache("one") as one, open_cache("two") as two, open_cache("two") as again:
        assert url_of(one) == url_of(two) == url_of(again)
        two.get("a")
        found = values(scraped(url_of(one)))
        assert [found["tierkit_requests_total", name] for name in ("one", "two", "two-2")] == [0, 1, 0]
        one.close()
        assert ("tierkit_requests_total", "one") not in values(scraped(url_of(two)))


def test_the_endpoint_listens_on_loopback_only_and_stops_with_the_last_cache() -> None:
    with open_cache() as cache:
        url = url_of(cache)
        assert url.startswith("http://127.0.0.1:")
        assert scraped(url)
    with pytest.raises(OSError, match="refused"):
        scraped(url)


def test_a_port_that_is_taken_is_said_at_open_and_nothing_stays_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CacheConfigError, match=rf"cannot listen on 127.0.0.1:{port}: .*in use; set another `port`"):
            open_cache(port=port)


@pytest.mark.parametrize("port", ["none", None])
def test_without_an_endpoint_the_program_serves_the_registry_itself(port: Any) -> None:
    with open_cache(port=port) as cache:
        assert url_of(cache) == ""
        assert ("tierkit_requests_total", "notes") in values(generate_latest(REGISTRY).decode())


def test_a_port_of_ones_own_is_an_endpoint_of_ones_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with open_cache("one", port=port) as one, open_cache("two") as two:
        assert url_of(one) == f"http://127.0.0.1:{port}/metrics" != url_of(two)
        assert values(scraped(url_of(one))).keys() == values(scraped(url_of(two))).keys()


def test_a_wrong_option_names_the_setting() -> None:
    with pytest.raises(CacheConfigError, match=r"observer_options.prometheus.port = 65536 \(code\): must be at most"):
        open_cache(port=65536)


def test_a_forked_child_lets_go_of_the_endpoint_and_the_parent_keeps_it() -> None:
    with open_cache() as cache:
        child = os.fork()
        if child == 0:
            try:
                signal.alarm(30)  # else a child that waits for a server which is not there would wait for ever
                cache.observers["prometheus"].on_close()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert scraped(url_of(cache))
