"""Eviction policies: the order in which keys leave. Order only: values, bounds and locks are the tier's."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import ClassVar, Final, Protocol


class EvictionPolicy(Protocol):
    """The order of the keys of one tier, coldest first.

    `hit` may be called by any thread at any time, without a lock; the other methods by one thread at a time.

    Attributes:
        counts_hits: Whether `hit` changes the order. Where it does not, a tier need not call it.
        hit: `key` was read. O(1).
    """

    counts_hits: ClassVar[bool]
    hit: Callable[[str], None]
    """Raises `KeyError` if the key is not there: it may have been removed a moment ago."""

    def admit(self, key: str) -> None:
        """`key` was written: it is the warmest. O(1)."""
        ...

    def remove(self, key: str) -> None:
        """`key` is gone; it need not be there. O(1)."""
        ...

    def coldest(self, count: int) -> list[str]:
        """At most `count` keys, coldest first. O(count)."""
        ...


class FIFO:
    """First written, first out."""

    __slots__ = ("_order", "hit")
    counts_hits: ClassVar[bool] = False

    def __init__(self) -> None:
        """No keys."""
        # Not a plain dict: taking the first key of one again and again costs O(n) each time.
        self._order: OrderedDict[str, None] = OrderedDict()
        self.hit: Callable[[str], None] = self._order.__getitem__

    def admit(self, key: str) -> None:
        """`key` was written: it is the last to go."""
        self._order[key] = None
        self._order.move_to_end(key)

    def remove(self, key: str) -> None:
        """`key` is gone."""
        self._order.pop(key, None)

    def coldest(self, count: int) -> list[str]:
        """At most `count` keys, coldest first."""
        while True:
            try:
                return list(islice(self._order, count))
            except RuntimeError:  # a hit of another thread changed the order meanwhile
                continue


class LRU(FIFO):
    """Least recently used, first out: a hit makes a key the last to go."""

    __slots__ = ()
    counts_hits: ClassVar[bool] = True

    def __init__(self) -> None:
        """No keys."""
        super().__init__()
        self.hit = self._order.move_to_end  # one call into C: under the GIL no other thread comes between


EVICTION_POLICIES: Final[Mapping[str, Callable[[], EvictionPolicy]]] = MappingProxyType({"fifo": FIFO, "lru": LRU})
"""By the name that a configuration uses."""
