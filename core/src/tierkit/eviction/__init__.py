"""Eviction policies: the order in which keys leave. Order only: values, bounds and locks are the tier's."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tierkit.eviction.key_order import KeyOrder
from tierkit.eviction.lfu import LFU
from tierkit.eviction.policy import EvictionPolicy, Held, PolicyFactory, last_used
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
    "KeyOrder",
    "PolicyFactory",
    "Unordered",
    "WTinyLFU",
    "last_used",
]

EVICTION_POLICIES: Final[Mapping[str, PolicyFactory]] = MappingProxyType(
    {"fifo": FIFO, "lfu": LFU, "lru": LRU, "s3fifo": S3FIFO, "sieve": SIEVE, "wtinylfu": WTinyLFU}
)
"""Those that ship, by the name that a configuration uses."""
