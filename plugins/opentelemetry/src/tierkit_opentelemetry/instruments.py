"""Observable instruments, one set for all caches that use one meter provider."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, Final
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter

import tierkit
from tierkit import METRICS, CacheObserver, CacheStatistics, LatencyStatistics, Metric, ObservedCaches, Sample

_QUANTILES: Final = ("p50", "p90", "p99")
_UNITS: Final = {"seconds": "s", "flag": "1"}

Statistics = Callable[[], CacheStatistics]
Observe = Callable[[Sample], Iterable[Observation]]


class Instruments:
    """Asks every open cache for its statistics when a reader collects: once, for all instruments together."""

    def __init__(self, meter: Meter) -> None:
        """Make the instruments. They stay: OpenTelemetry has no way to take one back."""
        self._lock = threading.Lock()
        self.caches = ObservedCaches()
        self._samples: list[Sample] = []
        self._served: set[tuple[Metric, Observe]] = set()
        for metric in METRICS:
            if metric.kind == "histogram":
                self._make_histogram(meter, metric)
            else:
                make = _maker(meter, metric)
                make(f"tierkit.{metric.name}", [self._callback(metric, _value)], _unit(metric), metric.help)

    def _make_histogram(self, meter: Meter, metric: Metric) -> None:
        """A histogram that somebody else counted can only be told by its parts."""
        name = f"tierkit.{metric.name.removesuffix('_seconds')}"
        count, time, latency = (self._callback(metric, part) for part in (_count, _sum, _quantiles))
        meter.create_observable_counter(f"{name}.count", [count], "{call}", f"{metric.help}: how many")
        meter.create_observable_counter(f"{name}.time", [time], "s", f"{metric.help}: together")
        meter.create_observable_gauge(f"{name}.latency", [latency], "s", f"{metric.help}: by quantile")

    def _callback(self, metric: Metric, observe: Observe) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def call(_: CallbackOptions) -> Iterable[Observation]:
            taken = [sample for sample in self._taken((metric, observe)) if sample.metric is metric]
            return [observation for sample in taken for observation in observe(sample)]

        return call

    def _taken(self, asked: tuple[Metric, Observe]) -> list[Sample]:
        """The samples of this collection. One that asks a second time has come with the next."""
        with self._lock:
            if self._samples and asked not in self._served:
                self._served.add(asked)
                return self._samples
        fresh = self.caches.samples()  # without the lock, since it may block
        with self._lock:
            self._samples, self._served = fresh, {asked}
        return fresh


_lock: Final = threading.Lock()
_instruments: Final[WeakKeyDictionary[MeterProvider, Instruments]] = WeakKeyDictionary()


class OpenTelemetryObserver(CacheObserver):
    """One cache among those of a meter provider."""

    def __init__(self, cache_name: str, provider: MeterProvider | None) -> None:
        """Use `provider`, by default the global one."""
        self._name = cache_name
        self._shown = ""
        self._instruments = _of(provider)

    def on_open(self, statistics: Statistics) -> None:
        """Tell of the cache from now on."""
        self._shown = self._instruments.caches.add(self._name, statistics)

    def on_close(self) -> None:
        """Tell of it no more."""
        self._instruments.caches.remove(self._shown)


@cache
def _global() -> Instruments:
    """Those of the global provider, which may be set later: until then its meter stands in."""
    return Instruments(get_meter("tierkit", tierkit.__version__))


def _of(provider: MeterProvider | None) -> Instruments:
    """Those of `provider`, or of the global one; two caches that open at once must not make them twice."""
    with _lock:
        if provider is None:
            return _global()
        if provider not in _instruments:
            _instruments[provider] = Instruments(provider.get_meter("tierkit", tierkit.__version__))
        return _instruments[provider]


def _maker(meter: Meter, metric: Metric) -> Callable[..., object]:
    if metric.kind == "counter":
        return meter.create_observable_counter
    return meter.create_observable_up_down_counter if metric.additive else meter.create_observable_gauge


def _unit(metric: Metric) -> str:
    return _UNITS.get(metric.unit, f"{{{metric.unit.removesuffix('s')}}}")


def _value(sample: Sample) -> Iterable[Observation]:
    yield Observation(_number(sample.value), dict(sample.labels))


def _count(sample: Sample) -> Iterable[Observation]:
    yield Observation(_latency(sample).count, dict(sample.labels))


def _sum(sample: Sample) -> Iterable[Observation]:
    yield Observation(_latency(sample).sum_seconds, dict(sample.labels))


def _quantiles(sample: Sample) -> Iterable[Observation]:
    for name in _QUANTILES:
        yield Observation(getattr(_latency(sample), name), {**sample.labels, "quantile": name})


def _number(value: Any) -> float:
    return value  # type: ignore[no-any-return]  # a sample of what is no histogram is a number


def _latency(sample: Sample) -> LatencyStatistics:
    value: Any = sample.value
    return value  # type: ignore[no-any-return]  # that of a histogram is its statistics
