"""The collector that all caches of a process share, and the endpoints."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import REGISTRY, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

import tierkit
from tierkit import CacheConfigError, CacheObserver, CacheStatistics, LatencyStatistics, ObservedCaches

logger = logging.getLogger("tierkit.prometheus")

_FAMILIES: Final = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
_lock: Final = threading.RLock()

Statistics = Callable[[], CacheStatistics]


class TierkitCollector(Collector):
    """Asks every open cache for its statistics when it is scraped. It is registered while there is any."""

    def __init__(self) -> None:
        """Know of no cache yet."""
        self._caches = ObservedCaches()

    def add(self, name: str, statistics: Statistics) -> str:
        """Tell of one more cache. Answers what it is called."""
        with _lock:
            if not len(self._caches):
                REGISTRY.register(self)
            return self._caches.add(name, statistics)

    def remove(self, name: str) -> None:
        """Tell of a cache no more."""
        with _lock:
            self._caches.remove(name)
            if not len(self._caches):
                REGISTRY.unregister(self)

    def describe(self) -> Iterable[Metric]:
        """Every metric, without values."""
        return _empty().values()

    def collect(self) -> Iterable[Metric]:
        """Every metric, with the values of all caches. Blocks on the I/O of asking for sizes."""
        families = _empty()
        for metric, labels, value in self._caches.samples():
            _add(families[metric.name], labels, value)
        return (family for family in families.values() if family.samples)


class _Endpoint:
    """A server and how many caches it serves."""

    def __init__(self, address: str, port: int) -> None:
        try:
            self.server, self.thread = start_http_server(port, address)
        except OSError as error:
            raise CacheConfigError(
                f"the metrics endpoint cannot listen on {address}:{port}: {error.strerror or error}; "
                'set another `port` in observer_options.prometheus, 0 for a free one or "none" for none'
            ) from error
        self.users = 0
        self.process = os.getpid()

    def stop(self) -> None:
        if os.getpid() == self.process:  # in a forked child nobody serves, and there is nothing to wait for
            self.server.shutdown()
            self.thread.join()
        self.server.server_close()


COLLECTOR: Final = TierkitCollector()
_endpoints: Final[dict[tuple[str, int], _Endpoint]] = {}


class PrometheusObserver(CacheObserver):
    """One cache on an endpoint.

    Attributes:
        url: Where to scrape; empty without an endpoint.
    """

    def __init__(self, cache_name: str, address: str, port: int | None) -> None:
        """Start the endpoint, or share the one that is there.

        Raises:
            CacheConfigError: It cannot listen there.
        """
        self._name = cache_name
        self._shown = ""
        self._place = None if port is None else (address, port)
        self.url = ""
        if self._place is not None:
            self.url = _url(address, _acquire(self._place).server.server_port)
            logger.info("metrics of %s are at %s", cache_name, self.url)

    def on_open(self, statistics: Statistics) -> None:
        """Tell of the cache from now on."""
        self._shown = COLLECTOR.add(self._name, statistics)

    def on_close(self) -> None:
        """Tell of it no more; the last cache stops the endpoint."""
        if self._shown:
            COLLECTOR.remove(self._shown)
        place, self._place = self._place, None
        if place is not None:
            _release(place)


def _acquire(place: tuple[str, int]) -> _Endpoint:
    with _lock:
        if place not in _endpoints:
            _endpoints[place] = _Endpoint(*place)
        _endpoints[place].users += 1
        return _endpoints[place]


def _release(place: tuple[str, int]) -> None:
    with _lock:
        endpoint = _endpoints[place]
        endpoint.users -= 1
        if endpoint.users:
            return
        del _endpoints[place]
    endpoint.stop()  # without the lock: a scrape under way needs it


def _url(address: str, port: int) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}/metrics"


def _empty() -> dict[str, Any]:
    return {
        metric.name: _FAMILIES[metric.kind](f"tierkit_{metric.name}", metric.help, labels=("cache", *metric.labels))
        for metric in tierkit.METRICS
    }


def _add(family: Any, labels: Mapping[str, str], value: float | LatencyStatistics) -> None:
    values = list(labels.values())
    if isinstance(value, LatencyStatistics):
        family.add_metric(values, buckets=list(_buckets(value)), sum_value=value.sum_seconds)
    else:
        family.add_metric(values, value)


def _buckets(taken: LatencyStatistics) -> Iterator[tuple[str, float]]:
    for bound, count in taken.buckets:
        yield repr(bound), count
    yield "+Inf", taken.count
