"""SIEVE: one queue, one flag, one hand."""

from __future__ import annotations

from collections import OrderedDict

from tierkit.eviction.turnstile import Turnstile


class SIEVE(Turnstile):
    """A queue in the order of writing that a hand passes from the oldest key: what was read since stays where it is.

    Y. Zhang, J. Yang, Y. Yue, Y. Vigfusson, K. V. Rashmi, "SIEVE is simpler than LRU: an efficient turn-key eviction
    algorithm for web caches", NSDI 2024. The hand is the border between two queues: the keys that it has passed and
    those that are ahead of it, to which new ones are added. A hit adds the key to a set, in one call into C.
    """

    __slots__ = ("_ahead", "_passed", "_visited")

    def __init__(self, capacity: int) -> None:
        """No keys; room for `capacity`."""
        super().__init__(capacity)
        self._ahead: OrderedDict[str, None] = OrderedDict()
        self._passed: OrderedDict[str, None] = OrderedDict()
        self._visited: set[str] = set()
        self.hit = self._visited.add

    def coldest(self, count: int) -> list[str]:
        """At most `count` keys, coldest first."""
        self._spare_visited()
        return super().coldest(count)

    def pop(self) -> str | None:
        """Take out the coldest key. O(1)."""
        self._spare_visited()
        return super().pop()

    def _spare_visited(self) -> None:
        if self._named and not self._visited.isdisjoint(self._named):
            for key in self._visited.intersection(self._named):
                del self._named[key]
                self._arrive(key)

    def _enter(self, key: str) -> None:
        self._ahead[key] = None
        self._visited.discard(key)
        # A reader may note a key that has gone meanwhile; what heaps up so is dropped.
        if len(self._visited) > 2 * self._capacity + 64:
            self._visited.intersection_update([*self._ahead, *self._passed, *self._named])

    def _use(self, key: str) -> bool:
        held = key in self._ahead or key in self._passed
        if held:
            self._visited.add(key)
        return held

    def _evict(self) -> str:
        while True:
            key, _ = self._ahead.popitem(last=False)
            spared = key in self._visited
            if spared:
                self._visited.discard(key)
                self._passed[key] = None
            if not self._ahead:  # the hand is at the newest key: it starts again with the oldest
                self._ahead, self._passed = self._passed, self._ahead
            if not spared:
                return key

    def _drop(self, key: str) -> bool:
        for queue in (self._ahead, self._passed):
            if key in queue:
                del queue[key]
                break
        else:
            return False
        self._visited.discard(key)
        if not self._ahead:
            self._ahead, self._passed = self._passed, self._ahead
        return True
