"""Counters and their snapshots.

A counter is a slot of an object and `counters.hits += 1` is not interrupted by another thread in CPython with the
GIL: no lock is taken on the hit path and nothing is lost.
"""

from __future__ import annotations

from typing import Final

import msgspec

CAUSES: Final = ("lru", "fifo", "other", "ttl", "health", "corruption")
"""Why a record left a level: for room (by the policy's name), for age, for health, or because it was damaged."""


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
        unreadable: Reads of records left untouched: sealed with a key that is not held, or of another class.
    """

    __slots__ = (
        "corruptions",
        "demotions",
        "evictions",
        "failures",
        "hits",
        "misses",
        "promotions",
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
        self.unreadable = 0
        # Every cause is there from the start: the first count of a missing one could be interrupted.
        self.evictions = dict.fromkeys(CAUSES, 0)


class TierStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """One level, as of the moment of asking. What each count means: `Counters`.

    Attributes:
        name: The level's name.
        backend: The kind of its tier.
        size: Records held, expired ones that were not swept yet included; -1 if the tier could not say.
        degraded: Whether the level was taken out of service because its tier failed.
        evictions_other: Evictions for room by a policy that a plugin brought.
    """

    name: str
    backend: str
    size: int
    degraded: bool
    hits: int = 0
    misses: int = 0
    promotions: int = 0
    demotions: int = 0
    failures: int = 0
    corruptions: int = 0
    unreadable: int = 0
    evictions_lru: int = 0
    evictions_fifo: int = 0
    evictions_other: int = 0
    evictions_ttl: int = 0
    evictions_health: int = 0
    evictions_corruption: int = 0

    @property
    def hit_rate(self) -> float:
        """Hits among the reads that came to this level; 0.0 if none came."""
        return _share(self.hits, self.hits + self.misses)


class CacheStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The whole cache, as of the moment of asking.

    Attributes:
        enabled: Whether anything is counted (`enable_statistics`).
        requests: Reads asked of the cache.
        answered: Reads that some level answered.
        tiers: One per level, from the top.
    """

    enabled: bool
    requests: int
    answered: int
    tiers: tuple[TierStatistics, ...]

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
        """Whether the level L1 was taken out of service."""
        return self._degraded("L1")

    @property
    def l2_degraded(self) -> bool:
        """Whether the level L2 was taken out of service."""
        return self._degraded("L2")

    @property
    def l3_degraded(self) -> bool:
        """Whether the level L3 was taken out of service."""
        return self._degraded("L3")

    def to_metrics_dict(self) -> dict[str, float]:
        """Everything as one flat dict of numbers: `l1_hits`, `l1_hit_rate`, ..., `overall_hit_rate`."""
        metrics: dict[str, float] = {
            "requests": self.requests,
            "answered": self.answered,
            "overall_hit_rate": self.overall_hit_rate,
            "promotions": self.promotions,
            "demotions": self.demotions,
        }
        for tier in self.tiers:
            prefix = tier.name.lower().replace("-", "_")
            for name in TierStatistics.__struct_fields__:
                if name not in ("name", "backend"):
                    metrics[f"{prefix}_{name}"] = int(getattr(tier, name))
            metrics[f"{prefix}_hit_rate"] = tier.hit_rate
        return metrics

    def _degraded(self, name: str) -> bool:
        return any(tier.degraded for tier in self.tiers if tier.name == name)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
