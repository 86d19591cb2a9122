"""Counters and their snapshots.

A counter is a slot of an object, or an item of a dict that is there from the start. CPython with the GIL lets another
thread run only at the start of a Python function, after a call and at the end of a loop's round. So nothing comes
between the reading and the writing of `counters.hits += counters.step`, as long as what is added involves no call: no
lock is taken on the hit path and nothing is lost. In a Python without the GIL each thread has counts of its own, which
are summed up when somebody asks (docs/adr/0023).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from tierkit.latency import LatencyStatistics, free_threaded

ROOM_CAUSES: Final = ("lru", "fifo", "lfu", "sieve", "s3fifo", "wtinylfu", "other")
"""The policies that ship, by which a record left for room; "other" for those that plugins bring."""
CAUSES: Final = (*ROOM_CAUSES, "ttl", "health", "corruption")
"""Why a record left a level: for room (by the policy's name), for age, for health, or because it was damaged."""

LEASE_COUNTS: Final = ("leases_taken", "leases_missed", "leases_lost")
"""What is counted of leases."""

CACHE_METRICS: Final = frozenset(
    {"requests", "answered", "overall_hit_rate", "promotions", "demotions", "intents", *LEASE_COUNTS}
)
"""The names that the metrics of the whole cache have in the flat dict, without those of latencies."""

STATES: Final = ("closed", "half-open", "open")
"""Of a circuit breaker: in service, being tried, out of service."""


class Counters:
    """What is counted for one level, since the cache was opened.

    Attributes:
        hits: Reads that this level answered.
        misses: Reads that came to this level and went on.
        promotions: Records copied up into this level on a read.
        demotions: Records that left this level and remain below.
        evictions: Records that left this level, by cause.
        failures: Calls that the tier failed.
        corruptions: Records that failed their check, their schema or their decryption.
        stale_hits: Reads answered with a record in its grace period, on request. They are misses, too.
        unreadable: Reads of records left untouched: sealed with a key that is not held, or of another class.
        recoveries: Times that this level came back into service, or could be written again.
    """

    __slots__ = (
        "corruptions",
        "demotions",
        "evictions",
        "failures",
        "hits",
        "misses",
        "promotions",
        "recoveries",
        "stale_hits",
        "step",
        "unreadable",
    )

    def __init__(self, counting: bool = True) -> None:
        """All zero. `step` is what to add each time: 1, or 0 if nothing is to be counted."""
        self.step = int(counting)
        self.hits = 0
        self.misses = 0
        self.promotions = 0
        self.demotions = 0
        self.failures = 0
        self.corruptions = 0
        self.stale_hits = 0
        self.unreadable = 0
        self.recoveries = 0
        # Every cause is there from the start: the first count of a missing one could be interrupted.
        self.evictions = dict.fromkeys(CAUSES, 0)

    def totals(self) -> Mapping[str, Any]:
        """Every count by its name, `evictions` by cause."""
        return _counts_of({name: getattr(self, name) for name in Counters.__slots__})


class PerThreadCounters(threading.local):
    """The same for a Python without the GIL: each thread sees, and changes, counts of its own."""

    def __init__(self, counting: bool, shared: _Parts) -> None:
        """Called again for each thread that comes."""
        counters = Counters(counting)
        own = vars(self)
        own.update({name: getattr(counters, name) for name in Counters.__slots__})
        shared.add(own)
        self._shared = shared

    def totals(self) -> Mapping[str, Any]:
        """Every count by its name over all threads, `evictions` by cause."""
        return self._shared.totals()


class _Parts:
    """The counts of each thread; those of threads that have ended are kept as one sum."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parts: list[tuple[threading.Thread, dict[str, Any]]] = []
        self._ended: Mapping[str, Any] = _counts_of(Counters().totals())

    def add(self, part: dict[str, Any]) -> None:
        with self._lock:
            alive = {thread for thread, _ in self._parts if thread.is_alive()}  # asked once: it may end meanwhile
            ended = [counts for thread, counts in self._parts if thread not in alive]
            self._parts = [known for known in self._parts if known[0] in alive]
            self._ended = _summed([self._ended, *ended])
            self._parts.append((threading.current_thread(), part))

    def totals(self) -> Mapping[str, Any]:
        with self._lock:
            return _summed([self._ended, *(counts for _, counts in self._parts)])


def new_counters(counting: bool = True) -> Counters:
    """Counters that are exact under threads in this Python."""
    return cast("Counters", PerThreadCounters(counting, _Parts())) if free_threaded() else Counters(counting)


def _counts_of(part: Mapping[str, Any]) -> Mapping[str, Any]:
    counts = {name: part[name] for name in Counters.__slots__ if name not in ("evictions", "step")}
    return {**counts, "evictions": dict(part["evictions"])}


def _summed(parts: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    total: dict[str, Any] = dict(_counts_of(parts[0]))
    for part in map(_counts_of, parts[1:]):
        evictions = {cause: total["evictions"][cause] + count for cause, count in part["evictions"].items()}
        total = {name: total[name] + part[name] for name in part if name != "evictions"} | {"evictions": evictions}
    return total


class TierStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One level, as of the moment of asking. What each count means: `Counters`.

    Attributes:
        name: The level's name.
        backend: The kind of its tier.
        size: Records held, expired ones that were not swept yet included; -1 if the tier could not say.
        degraded: Whether the level is out of service because its tier failed, or takes no writes.
        state: Of its circuit breaker: one of `STATES`.
        writable: Whether its storage took writes when it was last asked.
        evictions_other: Evictions for room by a policy that a plugin brought.
        latencies: By operation, if `latency_histograms` is on: how long the tier took.
    """

    name: str
    backend: str
    size: int
    degraded: bool
    state: str = "closed"
    writable: bool = True
    hits: int = 0
    misses: int = 0
    stale_hits: int = 0
    promotions: int = 0
    demotions: int = 0
    failures: int = 0
    corruptions: int = 0
    unreadable: int = 0
    recoveries: int = 0
    evictions_lru: int = 0
    evictions_fifo: int = 0
    evictions_lfu: int = 0
    evictions_sieve: int = 0
    evictions_s3fifo: int = 0
    evictions_wtinylfu: int = 0
    evictions_other: int = 0
    evictions_ttl: int = 0
    evictions_health: int = 0
    evictions_corruption: int = 0
    latencies: Mapping[str, LatencyStatistics] = {}

    @property
    def evictions(self) -> dict[str, int]:
        """Records that left this level, by cause."""
        return {cause: getattr(self, f"evictions_{cause}") for cause in CAUSES}

    @property
    def evictions_for_room(self) -> int:
        """Evictions to make room, by whatever policy."""
        return sum(getattr(self, f"evictions_{cause}") for cause in ROOM_CAUSES)

    @property
    def hit_rate(self) -> float:
        """Hits among the reads that came to this level; 0.0 if none came."""
        return _share(self.hits, self.hits + self.misses)


class CacheStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The whole cache, as of the moment of asking.

    Attributes:
        name: The cache's name.
        enabled: Whether anything is counted (`enable_statistics`).
        requests: Reads asked of the cache.
        answered: Reads that some level answered.
        intents: Writes that are held for the authority and wait to be replayed.
        leases_taken: Leases of records that this cache took.
        leases_missed: Times that it was asked for one and no record was free in time.
        leases_lost: Leases that ran out, or were ended by others, before they were returned.
        tiers: One per level, from the top.
        latencies: By operation, if `latency_histograms` is on: how long the cache took.
    """

    name: str = "tierkit"
    enabled: bool
    requests: int
    answered: int
    intents: int = 0
    leases_taken: int = 0
    leases_missed: int = 0
    leases_lost: int = 0
    tiers: tuple[TierStatistics, ...]
    latencies: Mapping[str, LatencyStatistics] = {}

    @property
    def overall_hit_rate(self) -> float:
        """Requests answered among requests; 0.0 before the first."""
        return _share(self.answered, self.requests)

    @property
    def promotions(self) -> int:
        """Over all levels."""
        return sum(tier.promotions for tier in self.tiers)

    @property
    def demotions(self) -> int:
        """Over all levels."""
        return sum(tier.demotions for tier in self.tiers)

    @property
    def l1_degraded(self) -> bool:
        """Whether the level L1 is out of service, or takes no writes."""
        return self._degraded("L1")

    @property
    def l2_degraded(self) -> bool:
        """Whether the level L2 is out of service, or takes no writes."""
        return self._degraded("L2")

    @property
    def l3_degraded(self) -> bool:
        """Whether the level L3 is out of service, or takes no writes."""
        return self._degraded("L3")

    def to_metrics_dict(self) -> dict[str, float]:
        """Everything as one flat dict of numbers: `l1_hits`, `l1_hit_rate`, ..., `overall_hit_rate`.

        Flags are 0 or 1, a state is its place in `STATES`. `docs/reference/metrics.md` lists them all.
        """
        metrics: dict[str, float] = {
            "requests": self.requests,
            "answered": self.answered,
            "overall_hit_rate": self.overall_hit_rate,
            "promotions": self.promotions,
            "demotions": self.demotions,
            "intents": self.intents,
            **{name: getattr(self, name) for name in LEASE_COUNTS},
            **_latency_metrics("", self.latencies),
        }
        for tier in self.tiers:
            prefix = _prefix(tier.name)
            metrics |= {f"{prefix}{name}": int(getattr(tier, name)) for name in _NUMBERS}
            metrics[f"{prefix}state"] = STATES.index(tier.state)
            metrics[f"{prefix}hit_rate"] = tier.hit_rate
            metrics |= _latency_metrics(prefix, tier.latencies)
        return metrics

    def summary(self) -> str:
        """One line for a log."""
        whole = f"{self.name}: {self.requests} requests, {self.overall_hit_rate:.1%} answered"
        return "; ".join([whole if self.enabled else f"{self.name}: statistics are off", *map(_line, self.tiers)])

    def _degraded(self, name: str) -> bool:
        return any(tier.degraded for tier in self.tiers if tier.name == name)


def _line(tier: TierStatistics) -> str:
    held = f"{tier.size} records" if tier.size >= 0 else "records unknown"
    counts = f"{tier.hits} hits, {tier.misses} misses, {sum(tier.evictions.values())} evictions"
    failures = f", {tier.failures} failures" if tier.failures else ""
    return f"{tier.name} ({tier.backend}) {held}, {counts}{failures}" + (f", {tier.state}" if tier.degraded else "")


def level_metrics(level: str) -> frozenset[str]:
    """The names that the metrics of a level have in the flat dict, without those of latencies.

    No two levels may share one, nor one with the whole cache.
    """
    return frozenset(_prefix(level) + name for name in (*_NUMBERS, "state", "hit_rate"))


def _prefix(level: str) -> str:
    return level.lower().replace("-", "_") + "_"


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _latency_metrics(prefix: str, latencies: Mapping[str, LatencyStatistics]) -> dict[str, float]:
    found: dict[str, float] = {}
    for operation, taken in latencies.items():
        name = f"{prefix}{operation}_seconds"
        found |= {f"{name}_count": taken.count, f"{name}_sum": taken.sum_seconds}
        found |= {f"{name}_p50": taken.p50, f"{name}_p90": taken.p90, f"{name}_p99": taken.p99}
    return found


_NUMBERS: Final = tuple(
    name for name in TierStatistics.__struct_fields__ if name not in ("name", "backend", "state", "latencies")
)
