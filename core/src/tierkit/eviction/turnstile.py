"""What the policies that evict step by step have in common.

A textbook cache makes room before it takes a new key. Here a tier writes first and asks for victims then. So the queues
of a policy are behind a turnstile: a new key that finds them full pushes another out at once, and that one is a named
victim from then on, though the tier still holds it. No policy sees more keys than its capacity, no new key is named
in the place of older ones, and the order of events is the textbook's, in bulk too.

What is named stays named until the tier removes it; if it is written or read before that, it comes in again as a new
key would.

Reads come from any thread, without a lock. They are noted by one call into C and counted when a key is next
written or named: the newest 512 of them, so that neither memory nor that call can grow without a bound. Reads beyond
that between two writes are not counted; a cache that reads so much and writes so little evicts next to nothing.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Final

from tierkit.eviction.policy import EvictionPolicy

READS: Final = 512
"""How many reads are noted at most between two writes."""


class Turnstile(EvictionPolicy):
    """A policy that steps from key to key. Its subclasses keep the queues."""

    __slots__ = ("_capacity", "_named", "_reads", "_room", "hit")

    def __init__(self, capacity: int) -> None:
        """No keys; room for `capacity` of them, at least for one."""
        self._capacity = self._room = max(1, capacity)
        self._named: dict[str, None] = {}
        self._reads: deque[str] = deque(maxlen=READS)
        self.hit: Callable[[str], None] = self._reads.append

    # -- what a subclass writes: its queues, of at most `_capacity` keys ---------------------------------------------

    @abstractmethod
    def _enter(self, key: str) -> None:
        """Take a key that is in no queue."""

    @abstractmethod
    def _use(self, key: str) -> bool:
        """Count a read or a write of `key`. Answers whether it is in a queue."""

    @abstractmethod
    def _evict(self) -> str:
        """Take the coldest key out of the queues, of which there is at least one."""

    @abstractmethod
    def _drop(self, key: str) -> bool:
        """Take `key` out of the queues. Answers whether it was there."""

    # -- the policy ----------------------------------------------------------------------------------------------------

    def admit(self, key: str) -> None:
        """`key` was written: it enters, and if the queues are full another goes."""
        if self._reads:
            self._catch_up()
        if not self._use(key):
            named = self._named
            if named and key in named:
                del named[key]
            if self._room:
                self._room -= 1
            else:
                named[self._evict()] = None
            self._enter(key)

    def remove(self, key: str) -> None:
        """`key` is gone."""
        if self._reads:
            self._catch_up()
        if key in self._named:
            del self._named[key]
        elif self._drop(key):
            self._room += 1

    def coldest(self, count: int) -> list[str]:
        """At most `count` keys, coldest first: those named before and not removed, then more. O(count)."""
        if self._reads:
            self._catch_up()
        named = self._named
        while len(named) < count and self._room < self._capacity:
            named[self._evict()] = None
            self._room += 1
        return [next(iter(named))] if count == 1 and named else list(islice(named, count))

    def pop(self) -> str | None:
        """Take out the key that was named first and not removed, or else the coldest. O(1)."""
        if self._reads:
            self._catch_up()
        for key in self._named:
            del self._named[key]
            return key
        if self._room == self._capacity:
            return None
        self._room += 1
        return self._evict()

    def _arrive(self, key: str) -> None:
        if self._room:
            self._room -= 1
        else:
            self._named[self._evict()] = None
        self._enter(key)

    def _catch_up(self) -> None:
        """Count the reads that were noted."""
        reads = self._reads
        for _ in range(len(reads)):
            key = reads.popleft()
            if not self._use(key) and key in self._named:
                del self._named[key]
                self._arrive(key)
