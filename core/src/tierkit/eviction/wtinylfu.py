"""W-TinyLFU: a window before a segmented LRU, whose door compares how often two keys were asked for."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from tierkit.eviction.turnstile import Turnstile

_WINDOW: Final = 0.01
"""The share of the window."""
_PROTECTED: Final = 0.8
"""The share of the protected segment in the rest."""
_SAMPLE: Final = 10
"""The counters are halved after as many uses for each key of the capacity."""
_MOST_USES: Final = 15
_HALVED: Final = bytes(count // 2 for count in range(256))


class WTinyLFU(Turnstile):
    """New keys pass a small LRU window; what leaves it is kept only if it was used more often than the next victim.

    G. Einziger, R. Friedman, B. Manes, "TinyLFU: a highly efficient cache admission policy", ACM Transactions on
    Storage 13(4), 2017. The window has 1 % of the capacity, the rest is a segmented LRU, of which 80 % are protected. A
    tie goes to the key that is there: that is what keeps a part of a rotation through more keys than fit.

    There is no doorkeeper: it would save memory, of which the counters take little, and cost every new key time.
    """

    __slots__ = ("_probation", "_protected", "_protected_share", "_sketch", "_window", "_window_share")

    def __init__(self, capacity: int) -> None:
        """No keys; room for `capacity`."""
        super().__init__(capacity)
        self._window_share = max(1, round(self._capacity * _WINDOW))
        self._protected_share = int((self._capacity - self._window_share) * _PROTECTED)
        self._window: OrderedDict[str, None] = OrderedDict()
        self._probation: OrderedDict[str, None] = OrderedDict()
        self._protected: OrderedDict[str, None] = OrderedDict()
        self._sketch = Sketch(self._capacity)

    def _enter(self, key: str) -> None:
        self._sketch.add(key)
        self._window[key] = None
        if len(self._window) > self._window_share:
            self._probation[self._window.popitem(last=False)[0]] = None

    def _use(self, key: str) -> bool:
        if key in self._protected:
            self._protected.move_to_end(key)
        elif key in self._probation:
            self._promote(key)
        elif key in self._window:
            self._window.move_to_end(key)
        else:
            return False
        self._sketch.add(key)
        return True

    def _promote(self, key: str) -> None:
        del self._probation[key]
        self._protected[key] = None
        if len(self._protected) > self._protected_share:
            self._probation[self._protected.popitem(last=False)[0]] = None

    def _evict(self) -> str:
        main = self._probation or self._protected
        if not self._window:
            return main.popitem(last=False)[0]
        candidate = self._window.popitem(last=False)[0]
        if not main:
            return candidate
        victim = next(iter(main))
        if self._sketch.count(candidate) <= self._sketch.count(victim):
            return candidate
        self._probation[candidate] = None
        del main[victim]
        return victim

    def _drop(self, key: str) -> bool:
        for queue in (self._window, self._probation, self._protected):
            if key in queue:
                del queue[key]
                return True
        return False


class Sketch:
    """How often keys were used, about: a count-min sketch of four rows, halved from time to time.

    G. Cormode, S. Muthukrishnan, "An improved data stream summary: the count-min sketch and its applications" (2005). A
    count is never too small, up to 15; 16 bytes for each key of the capacity, to the next power of two. The rows go by
    Python's own hash of the key, which differs from process to process unless PYTHONHASHSEED says otherwise.
    """

    __slots__ = ("_left", "_mask", "_rows", "_sample")

    def __init__(self, capacity: int) -> None:
        """All zero."""
        width = 1 << max(4, (4 * capacity - 1).bit_length())
        self._mask = width - 1
        self._rows = tuple(bytearray(width) for _ in range(4))
        self._sample = self._left = _SAMPLE * capacity

    def add(self, key: str) -> None:
        """`key` was used once more. O(1), but for the halving, which takes a microsecond for some thousand counters."""
        mask = self._mask
        place = hash(key)
        step = (place >> 32 | 1) & mask
        place &= mask
        for row in self._rows:
            uses = row[place]
            if uses < _MOST_USES:
                row[place] = uses + 1
            place = (place + step) & mask
        self._left -= 1
        if not self._left:
            self._left = self._sample
            self._rows = tuple(bytearray(row.translate(_HALVED)) for row in self._rows)

    def count(self, key: str) -> int:
        """How often `key` was used lately: at least as often as it was, up to 15."""
        mask = self._mask
        place = hash(key)
        step = (place >> 32 | 1) & mask
        place &= mask
        one, two, three, four = self._rows
        twice = place + 2 * step
        return min(one[place & mask], two[(place + step) & mask], three[twice & mask], four[(twice + step) & mask])
