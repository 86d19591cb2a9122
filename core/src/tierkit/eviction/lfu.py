"""LFU: least frequently used, with ageing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from tierkit.eviction.policy import Held
from tierkit.eviction.turnstile import Turnstile


class _Bucket:
    """The keys of one priority, the longest unused first, in a ring of buckets by priority."""

    __slots__ = ("after", "before", "keys", "priority")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.keys: OrderedDict[str, None] = OrderedDict()
        self.before = self.after = self


class LFU(Turnstile):
    """Least frequently used, first out; among equals the one unused for longest. Every step is O(1).

    Buckets of equal priority in a ring: K. Shah, A. Mitra, D. Matani, "An O(1) algorithm for implementing the LFU cache
    eviction scheme" (2010). Without ageing, what was popular once would stay for ever; the ageing is that of LFU-DA
    (M. Arlitt, L. Cherkasova, J. Dilley, R. Friedrich, T. Jin, "Evaluating content management techniques for web proxy
    caches", 2000), counted from where a key enters: with one more than the priority of the last key that left. Each use
    adds one.
    """

    __slots__ = ("_age", "_buckets", "_ring")

    def __init__(self, capacity: int) -> None:
        """No keys; room for `capacity`."""
        super().__init__(capacity)
        self._ring = _Bucket(-1)
        self._buckets: dict[str, _Bucket] = {}
        self._age = 0

    def restore(self, held: Iterable[Held]) -> None:
        """With the number of their stored reads, however many."""
        for key, _, reads, _ in sorted(held, key=lambda item: (item.reads, item.last_used, item.version)):
            self.admit(key)
            if key in self._buckets:
                self._take_out(key)
                self._insert(key, self._ring.before, self._age + 1 + reads)

    def _enter(self, key: str) -> None:
        # No priority is below the age, so the place is behind the first bucket at most.
        first = self._ring.after
        self._insert(key, first if first.priority == self._age else self._ring, self._age + 1)

    def _use(self, key: str) -> bool:
        bucket = self._buckets.get(key)
        if bucket is None:
            return False
        self._insert(key, bucket, bucket.priority + 1)
        del bucket.keys[key]
        self._unlink_empty(bucket)
        return True

    def _evict(self) -> str:
        first = self._ring.after
        self._age = first.priority
        key, _ = first.keys.popitem(last=False)
        del self._buckets[key]
        self._unlink_empty(first)
        return key

    def _drop(self, key: str) -> bool:
        if key not in self._buckets:
            return False
        self._take_out(key)
        return True

    def _take_out(self, key: str) -> None:
        bucket = self._buckets.pop(key)
        del bucket.keys[key]
        self._unlink_empty(bucket)

    def _insert(self, key: str, behind: _Bucket, priority: int) -> None:
        """Put `key` into the bucket of `priority`, whose place is right behind `behind` or some way before it."""
        while behind.priority >= priority:
            behind = behind.before
        bucket = behind.after
        if bucket.priority != priority:
            bucket = _Bucket(priority)
            bucket.before, bucket.after = behind, behind.after
            behind.after.before = behind.after = bucket
        bucket.keys[key] = None
        self._buckets[key] = bucket

    @staticmethod
    def _unlink_empty(bucket: _Bucket) -> None:
        if not bucket.keys:
            bucket.before.after, bucket.after.before = bucket.after, bucket.before
