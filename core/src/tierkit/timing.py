"""Measuring how long calls take, for `latency_histograms`: wrappers that are not there where it is off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial, wraps
from typing import Any, Final, TypeVar, cast

from tierkit.latency import Histogram, LatencyStatistics, new_histogram
from tierkit.level import Level
from tierkit.tier import CacheTier, purge_steps

TIER_OPERATIONS: Final = (
    "get",
    "get_many",
    "put",
    "put_many",
    "delete",
    "delete_many",
    "replace",
    "replace_many",
    "discard",
    "overflow",
    "evict",
    "touch_many",
    "purge",
)
"""The methods of a tier that are measured. Its iterators are not: how long they take is up to who iterates."""

CACHE_OPERATIONS: Final = ("get", "put", "put_many", "delete")
"""The methods of a cache that are measured, each as a whole."""

Latencies = Mapping[str, Histogram]
T = TypeVar("T")


class TimedTier:
    """Stands before a tier and measures its operations; everything else it passes on, also what later tiers have."""

    def __init__(self, tier: CacheTier[Any], latencies: Latencies, monotonic: Callable[[], float]) -> None:
        """Measure `tier` by `monotonic`, which answers seconds, into `latencies`."""
        vars(self).update(tier=tier, latencies=latencies, monotonic=monotonic)
        for name, histogram in latencies.items():
            vars(self)[name] = _measuring(partial(_call, tier, name), histogram, monotonic)
        vars(self)["get"] = _measuring_get(tier, latencies["get"].record, monotonic)

    def purge_in_steps(self, now: float) -> Iterator[int]:
        """Those of the tier, each measured by itself: between them the sweeper rests."""
        steps = purge_steps(vars(self)["tier"], now)
        advance = _measuring(lambda: next(steps, None), vars(self)["latencies"]["purge"], vars(self)["monotonic"])
        while (removed := advance()) is not None:
            yield removed

    def __getattr__(self, name: str) -> Any:
        """What the tier has."""
        return getattr(vars(self)["tier"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set it on the tier."""
        setattr(vars(self)["tier"], name, value)


def time_level(level: Level, monotonic: Callable[[], float]) -> None:
    """Measure the operations of the level's tier from now on."""
    latencies = level.latencies = _histograms(TIER_OPERATIONS)

    def timed(tier: CacheTier[Any]) -> CacheTier[Any]:
        return cast("CacheTier[Any]", TimedTier(tier, latencies, monotonic))

    level.tier = timed(level.tier)
    if (reopen := level.reopen) is not None:
        level.reopen = lambda: timed(reopen())


def time_cache(cache: Any, monotonic: Callable[[], float]) -> Latencies:
    """Measure the operations of `cache` from now on, by a subclass of its class: instances that are not pay nothing."""
    latencies = _histograms(CACHE_OPERATIONS)
    vars(cache).update(_latencies=latencies, _latency_clock=monotonic)
    kind: Any = type(cache)
    cache.__class__ = _timed_class(kind)
    return latencies


def measured(latencies: Latencies) -> dict[str, LatencyStatistics]:
    """The statistics of each operation that was measured at least once."""
    taken = {name: histogram.snapshot() for name, histogram in latencies.items()}
    return {name: statistics for name, statistics in taken.items() if statistics.count}


def _histograms(names: Iterable[str]) -> dict[str, Histogram]:
    return {name: new_histogram() for name in names}


def _call(tier: CacheTier[Any], name: str, *args: Any, **kwargs: Any) -> Any:
    return getattr(tier, name)(*args, **kwargs)


def _measuring_get(
    tier: CacheTier[Any], record: Callable[[float], None], monotonic: Callable[[], float]
) -> Callable[[str], Any]:
    """As `_measuring`, in half the time: every hit in L1 pays for it."""

    def get(key: str) -> Any:
        started = monotonic()
        try:
            return tier.get(key)  # looked up anew each time: a tier may put another function in its place
        finally:
            record(monotonic() - started)

    return get


def _measuring(operation: Callable[..., T], histogram: Histogram, monotonic: Callable[[], float]) -> Callable[..., T]:
    record = histogram.record

    def call(*args: Any, **kwargs: Any) -> T:
        started = monotonic()
        try:
            return operation(*args, **kwargs)
        finally:
            record(monotonic() - started)

    return call


@cache
def _timed_class(kind: Any) -> Any:
    methods = {name: _timed_method(getattr(kind, name), name) for name in CACHE_OPERATIONS}
    named = {name: getattr(kind, name) for name in ("__doc__", "__module__", "__qualname__")}
    return type(kind.__name__, (kind,), {**methods, **named})


def _timed_method(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    @wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        monotonic = self._latency_clock
        started = monotonic()
        try:
            return method(self, *args, **kwargs)
        finally:
            self._latencies[name].record(monotonic() - started)

    return call
