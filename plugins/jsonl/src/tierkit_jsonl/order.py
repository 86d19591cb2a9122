"""Which records are coldest, in memory: a heap whose stale entries are dropped when they surface."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from typing import Final

from tierkit_jsonl.lines import Place

Rank = tuple[float, int]


def _last_used(place: Place) -> Rank:
    return max(place.version / 1024 / 1_000_000, place.last_accessed), place.version


def _written(place: Place) -> Rank:
    return 0.0, place.version


RANKS: Final[Mapping[str, Callable[[Place], Rank]]] = {"lru": _last_used, "fifo": _written}
"""The rules of `tierkit.coldness`, for places."""


class Order:
    """The records of one log, coldest first. Guarded by the lock of its shard."""

    def __init__(self, index: Mapping[str, Place], rank: Callable[[Place], Rank]) -> None:
        """Order what `index` holds; takes time in proportion to it."""
        self._index = index
        self._rank = rank
        self._rebuild()

    def push(self, place: Place) -> None:
        """A record was written or read."""
        heapq.heappush(self._heap, (self._rank(place), place.key))
        if len(self._heap) > 2 * len(self._index) + 64:
            self._rebuild()

    def coldest(self, count: int) -> list[Place]:
        """Up to `count` records, coldest first. Removes none."""
        found: dict[str, tuple[Rank, str]] = {}
        heap = self._heap
        while heap and len(found) < count:
            rank, key = heap[0]
            place = self._index.get(key)
            if place is not None and self._rank(place) == rank:
                if count == 1:
                    return [place]
                found[key] = heap[0]
            heapq.heappop(heap)
        for item in found.values():
            heapq.heappush(heap, item)
        return [self._index[key] for key in found]

    def _rebuild(self) -> None:
        self._heap = [(self._rank(place), key) for key, place in self._index.items()]
        heapq.heapify(self._heap)
