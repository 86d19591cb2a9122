"""What statistics cost an L1 hit: counting, latency histograms, an observer."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.measuring import Figure, ratio_figure, side_by_side
from tierkit import CacheConfig, CacheManager, ProxyEntry

ENTRY = ProxyEntry.from_url("http://203.0.113.7:8080")
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "again": {},
    "uncounted": {"enable_statistics": False},
    "measured": {"latency_histograms": True},
    "observed": {"observers": ["prometheus"], "observer_options": {"prometheus": {"port": 0}}},
}


def figures(_: Path) -> list[Figure]:
    """An L1 hit each way, beside one of a cache that counts and does no more."""
    with ExitStack() as opened:
        ways = {name: partial(_open(opened, settings).get, ENTRY.key) for name, settings in WAYS.items()}
        taken = side_by_side({**ways, "empty": lambda: None}, rounds=401, calls=1000)
    cost = {name: seconds - taken["empty"] for name, seconds in taken.items()}
    beside = "L1 hit that is counted"
    return [
        ratio_figure("the same again: what this comparison can tell", cost["again"], cost["plain"], beside, 1.1),
        ratio_figure("L1 hit with enable_statistics = false", cost["uncounted"], cost["plain"], beside, 1.1),
        ratio_figure("L1 hit watched by an observer", cost["observed"], cost["plain"], beside, 1.1),
        ratio_figure("L1 hit with latency_histograms = true", cost["measured"], cost["plain"], beside, 8),
    ]


def _open(opened: ExitStack, settings: dict[str, Any]) -> CacheManager[Any]:
    config = CacheConfig(tiers=({"backend": "memory", "max_entries": 100},), **settings)
    cache = opened.enter_context(CacheManager(config))
    cache.put(ENTRY)
    return cache
