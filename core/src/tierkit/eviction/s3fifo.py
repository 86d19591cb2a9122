"""S3-FIFO: three queues, of which one holds ghosts."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from tierkit.eviction.turnstile import Turnstile

_SMALL: Final = 0.1
"""The share of the small queue."""
_MOST_READS: Final = 3


class S3FIFO(Turnstile):
    """A small queue lets through to the main one only what was read again, or comes again soon after it left.

    J. Yang, Y. Zhang, Z. Qiu, Y. Yue, K. V. Rashmi, "FIFO queues are all you need for cache eviction", SOSP 2023. The
    small queue has a tenth of the capacity, reads are counted up to three, and as many ghosts are remembered as the
    main queue holds keys. A ghost is a key that was named; one that is removed for another reason leaves none.
    """

    __slots__ = ("_ghosts", "_main", "_main_share", "_small")

    def __init__(self, capacity: int) -> None:
        """No keys; room for `capacity`."""
        super().__init__(capacity)
        self._main_share = self._capacity - max(1, round(self._capacity * _SMALL))
        self._small: OrderedDict[str, int] = OrderedDict()
        self._main: OrderedDict[str, int] = OrderedDict()
        self._ghosts: OrderedDict[str, None] = OrderedDict()

    def _enter(self, key: str) -> None:
        if key in self._ghosts:
            del self._ghosts[key]
            self._main[key] = 0
        else:
            self._small[key] = 0

    def _use(self, key: str) -> bool:
        queue = self._main if key in self._main else self._small
        reads = queue.get(key)
        if reads is None:
            return False
        if reads < _MOST_READS:
            queue[key] = reads + 1
        return True

    def _evict(self) -> str:
        small, main, ghosts = self._small, self._main, self._ghosts
        while True:
            if len(main) > self._main_share or not small:
                if (next_of_main := self._next_of_main()) is not None:
                    return next_of_main
                continue
            key, reads = small.popitem(last=False)
            if reads <= 1:
                break
            main[key] = 0
        ghosts[key] = None
        if len(ghosts) > self._main_share:
            ghosts.popitem(last=False)
        return key

    def _next_of_main(self) -> str | None:
        key, reads = self._main.popitem(last=False)
        if not reads:
            return key
        self._main[key] = reads - 1
        return None

    def _drop(self, key: str) -> bool:
        return self._small.pop(key, None) is not None or self._main.pop(key, None) is not None
