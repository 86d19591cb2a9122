"""Eviction policies: the order in which keys leave. Order only: values, bounds and locks are the tier's."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tierkit.eviction.lfu import LFU
from tierkit.eviction.policy import EvictionPolicy, Held, PolicyFactory
from tierkit.eviction.recency import FIFO, LRU, Unordered
from tierkit.eviction.s3fifo import S3FIFO
from tierkit.eviction.sieve import SIEVE
from tierkit.eviction.wtinylfu import WTinyLFU

__all__ = [
    "EVICTION_POLICIES",
    "FIFO",
    "LFU",
    "LRU",
    "S3FIFO",
    "SIEVE",
    "EvictionPolicy",
    "Held",
    "PolicyFactory",
    "Unordered",
    "WTinyLFU",
]

EVICTION_POLICIES: Final[Mapping[str, PolicyFactory]] = MappingProxyType(
    {"fifo": FIFO, "lfu": LFU, "lru": LRU, "s3fifo": S3FIFO, "sieve": SIEVE, "wtinylfu": WTinyLFU}
)
"""Those that ship, by the name that a configuration uses."""
