"""FIFO and LRU: one queue."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice
from typing import ClassVar

from tierkit.eviction.policy import EvictionPolicy, Held


class FIFO(EvictionPolicy):
    """First written, first out."""

    __slots__ = ("_order", "hit")
    counts_hits: ClassVar[bool] = False

    def __init__(self, capacity: int = 0) -> None:  # noqa: ARG002 - its order is the same for any
        """No keys."""
        # Not a plain dict: taking the first key of one again and again costs O(n) each time.
        self._order: OrderedDict[str, None] = OrderedDict()
        self.hit: Callable[[str], None] = self._order.__getitem__

    def admit(self, key: str) -> None:
        """`key` was written: it is the last to go."""
        order = self._order
        if key in order:
            order.move_to_end(key)
        else:
            order[key] = None

    def remove(self, key: str) -> None:
        """`key` is gone."""
        self._order.pop(key, None)

    def coldest(self, count: int) -> list[str]:
        """At most `count` keys, coldest first. O(count)."""
        while True:
            try:
                if count == 1:  # nearly always
                    return [next(iter(self._order))] if self._order else []
                return list(islice(self._order, count))
            except RuntimeError:  # a hit of another thread changed the order meanwhile
                continue

    def pop(self) -> str | None:
        """Take out the coldest key. O(1)."""
        return self._order.popitem(last=False)[0] if self._order else None

    def restore(self, held: Iterable[Held]) -> None:
        """In the order in which they were written."""
        for key, *_ in sorted(held, key=lambda item: item.version):
            self.admit(key)


class LRU(FIFO):
    """Least recently used, first out: a hit makes a key the last to go."""

    __slots__ = ()
    counts_hits: ClassVar[bool] = True

    def __init__(self, capacity: int = 0) -> None:
        """No keys."""
        super().__init__(capacity)
        self.hit = self._order.move_to_end  # one call into C: under the GIL no other thread comes between

    def restore(self, held: Iterable[Held]) -> None:
        """In the order in which they were last used."""
        for key, *_ in sorted(held, key=lambda item: (item.last_used, item.version)):
            self.admit(key)


class Unordered(EvictionPolicy):
    """For a tier without a bound, which evicts nothing: costs no memory."""

    __slots__ = ("hit",)
    counts_hits: ClassVar[bool] = False

    def __init__(self, capacity: int = 0) -> None:  # noqa: ARG002 - it has none
        """No keys, ever."""
        self.hit = self.remove

    def admit(self, key: str) -> None:
        """Nothing is kept of it."""

    def remove(self, key: str) -> None:
        """Nothing was kept of it."""

    def coldest(self, count: int) -> list[str]:  # noqa: ARG002 - it has none
        """None."""
        return []
