"""The metrics of a cache as monitoring systems know them: names, kinds, labels. One table for all of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, NamedTuple

from tierkit.errors import TierkitError
from tierkit.latency import LatencyStatistics
from tierkit.statistics import STATES, CacheStatistics, TierStatistics


class Metric(NamedTuple):
    """A metric.

    Attributes:
        name: With words joined by `_`, without prefix or suffix.
        kind: A counter only grows while the cache is open, a gauge is a fact of the moment.
        unit: What is counted.
        help: What it means, in a line.
        labels: Besides `cache`, which every metric has.
        additive: Of a gauge: whether its values may be added up, over caches or levels. Those of a counter may.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    additive: bool = False


class Sample(NamedTuple):
    """A value of a metric; for a histogram its whole statistics.

    Attributes:
        metric: The metric.
        labels: The value of each of its labels, `cache` first.
        value: The value.
    """

    metric: Metric
    labels: Mapping[str, str]
    value: float | LatencyStatistics


logger = logging.getLogger("tierkit.observers")

_LEVEL: Final = ("level",)

_OF_CACHE: Final = (
    Metric("requests", "counter", "reads", "Reads asked of the cache"),
    Metric("answered", "counter", "reads", "Reads that some level answered"),
    Metric(
        "intents", "gauge", "writes", "Writes that are held for the authority and wait to be replayed", additive=True
    ),
    Metric("leases_taken", "counter", "leases", "Leases of records that were taken"),
    Metric("leases_missed", "counter", "times", "Times that no record was free in time"),
    Metric("leases_lost", "counter", "leases", "Leases that ran out or were ended before they were returned"),
)
_OF_LEVEL: Final = (
    Metric("hits", "counter", "reads", "Reads that the level answered", _LEVEL),
    Metric("misses", "counter", "reads", "Reads that came to the level and went on", _LEVEL),
    Metric("stale_hits", "counter", "reads", "Reads answered on request with a record in its grace period", _LEVEL),
    Metric("promotions", "counter", "records", "Records copied up into the level on a read", _LEVEL),
    Metric("demotions", "counter", "records", "Records that left the level and remain below", _LEVEL),
    Metric("failures", "counter", "calls", "Calls that the tier failed", _LEVEL),
    Metric("corruptions", "counter", "records", "Records that were found damaged", _LEVEL),
    Metric("unreadable", "counter", "reads", "Reads of records left untouched, as no key or class fits them", _LEVEL),
    Metric(
        "recoveries", "counter", "times", "Times that the level came back into service or was written again", _LEVEL
    ),
    Metric("degraded", "gauge", "flag", "Whether the level is out of service or takes no writes", _LEVEL),
    Metric("writable", "gauge", "flag", "Whether its storage took writes when it was last asked", _LEVEL),
)
_RECORDS: Final = Metric("records", "gauge", "records", "Records that the level holds", _LEVEL, additive=True)
_EVICTIONS: Final = Metric("evictions", "counter", "records", "Records that left the level", (*_LEVEL, "cause"))
_STATE: Final = Metric("breaker_state", "gauge", "flag", "1 for the state of the level's breaker", (*_LEVEL, "state"))
_CALLS: Final = Metric("call_seconds", "histogram", "seconds", "How long calls of the cache took", ("operation",))
_TIER_CALLS: Final = Metric(
    "tier_call_seconds", "histogram", "seconds", "How long calls of the level's tier took", (*_LEVEL, "operation")
)

METRICS: Final = (*_OF_CACHE, *_OF_LEVEL, _RECORDS, _EVICTIONS, _STATE, _CALLS, _TIER_CALLS)
"""Every metric there is."""


def samples(statistics: CacheStatistics) -> Iterator[Sample]:
    """Everything in `statistics`, as monitoring systems take it. What cannot be told (a size) is left out."""
    labels = {"cache": statistics.name}
    for metric in _OF_CACHE:
        yield Sample(metric, labels, getattr(statistics, metric.name))
    for operation, taken in statistics.latencies.items():
        yield Sample(_CALLS, {**labels, "operation": operation}, taken)
    for tier in statistics.tiers:
        yield from _level_samples(tier, {**labels, "level": tier.name})


def _level_samples(tier: TierStatistics, labels: Mapping[str, str]) -> Iterator[Sample]:
    for metric in _OF_LEVEL:
        yield Sample(metric, labels, int(getattr(tier, metric.name)))
    if tier.size >= 0:
        yield Sample(_RECORDS, labels, tier.size)
    for cause, count in tier.evictions.items():
        yield Sample(_EVICTIONS, {**labels, "cause": cause}, count)
    for state in STATES:
        yield Sample(_STATE, {**labels, "state": state}, int(tier.state == state))
    for operation, taken in tier.latencies.items():
        yield Sample(_TIER_CALLS, {**labels, "operation": operation}, taken)


class ObservedCaches:
    """The open caches of a process that one exporter tells of, each under a name of its own. Thread-safe."""

    def __init__(self) -> None:
        """None yet."""
        self._lock = threading.RLock()  # reentrant: a cache that is dropped may be removed while another is added
        self._caches: dict[str, Callable[[], CacheStatistics]] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._caches)

    def add(self, name: str, statistics: Callable[[], CacheStatistics]) -> str:
        """Tell of one more. Answers what it is called: a name that is taken gets a number, which is logged."""
        with self._lock:
            names = (name, *(f"{name}-{number}" for number in range(2, len(self._caches) + 2)))
            free = next(given for given in names if given not in self._caches)
            self._caches[free] = statistics
        if free != name:
            logger.warning("two caches are called %s: in metrics this one is %s; give each its `name`", name, free)
        return free

    def remove(self, name: str) -> None:
        """Tell of it no more."""
        with self._lock:
            self._caches.pop(name, None)

    def samples(self) -> list[Sample]:
        """Everything of all of them, as of now. One that is being closed is left out. Blocks on I/O."""
        return [sample for name, statistics in list(self._caches.items()) for sample in _asked(name, statistics)]


def _asked(name: str, statistics: Callable[[], CacheStatistics]) -> Iterator[Sample]:
    try:
        found = statistics()
    except TierkitError as error:
        logger.debug("%s could not be asked: %s", name, str(error))
    else:
        yield from (sample._replace(labels={**sample.labels, "cache": name}) for sample in samples(found))
