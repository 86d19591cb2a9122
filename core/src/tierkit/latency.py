"""Latency histograms with fixed, log-linear buckets, counted exactly under threads.

The layout is that of HdrHistogram (Gil Tene, hdrhistogram.org): eight buckets of equal width for each power of two of
nanoseconds. So a bucket is at most an eighth of its value wide, whatever the value, and its place is two shifts of an
integer. What takes longer than `LONGEST_SECONDS` counts as just below it.
"""

from __future__ import annotations

import sys
import threading
from itertools import accumulate
from math import ceil
from typing import Final

import msgspec

_SUB_BITS: Final = 3
_PLAIN_BITS: Final = _SUB_BITS + 1
_TOP_BITS: Final = 36
_LARGEST: Final = (1 << _TOP_BITS) - 1
_BUCKETS: Final = (_TOP_BITS - _SUB_BITS + 1) << _SUB_BITS
_BOUND_BITS: Final = range(10, 35)
LONGEST_SECONDS: Final = (1 << _TOP_BITS) / 1e9
"""About 69 seconds."""


class LatencyStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """How long one operation took, as of the moment of asking. Times in seconds.

    Attributes:
        count: How many were measured.
        sum_seconds: All of them together.
        p50: The median: half of them took no longer. Like the other two at most an eighth too high; 0.0 without any.
        p90: Nine of ten took no longer.
        p99: 99 of 100 took no longer.
        buckets: Pairs of a bound in seconds (powers of two of a nanosecond, from about 1 µs to 17 s) and how many took
            less, as Prometheus wants them; what is above the last bound is in `count` alone.
    """

    count: int
    sum_seconds: float
    p50: float
    p90: float
    p99: float
    buckets: tuple[tuple[float, int], ...]


class Histogram:
    """Counts times by their length. Recording takes no lock where Python has its global one: see `statistics`."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        """Nothing was measured yet."""
        self._counts = [0] * _BUCKETS
        self._sum = 0.0

    def record(self, seconds: float) -> None:
        """Count one operation that took `seconds`. Thread-safe."""
        nanos = int(seconds * 1e9)
        if not 0 <= nanos <= _LARGEST:
            nanos = 0 if nanos < 0 else _LARGEST
        shift = nanos.bit_length() - _PLAIN_BITS
        self._counts[nanos if shift <= 0 else (shift << _SUB_BITS) + (nanos >> shift)] += 1
        self._sum += seconds

    def snapshot(self) -> LatencyStatistics:
        """What was counted until now. O(buckets), which are a few hundred."""
        cumulative = list(accumulate(list(self._counts)))
        count = cumulative[-1]
        return LatencyStatistics(
            count=count,
            sum_seconds=self._sum,
            p50=_quantile(cumulative, 0.50),
            p90=_quantile(cumulative, 0.90),
            p99=_quantile(cumulative, 0.99),
            buckets=tuple((float(1 << bits) / 1e9, cumulative[_first_place(bits) - 1]) for bits in _BOUND_BITS),
        )


class LockedHistogram(Histogram):
    """The same for a Python without the global lock: recording takes a lock of its own."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        """Nothing was measured yet."""
        super().__init__()
        self._lock = threading.Lock()

    def record(self, seconds: float) -> None:
        """Count one operation that took `seconds`. Thread-safe."""
        with self._lock:
            super().record(seconds)


def free_threaded() -> bool:
    """Whether this Python runs without its global lock."""
    return not getattr(sys, "_is_gil_enabled", lambda: True)()


def new_histogram() -> Histogram:
    """A histogram that is exact under threads in this Python."""
    return LockedHistogram() if free_threaded() else Histogram()


def _quantile(cumulative: list[int], share: float) -> float:
    """The upper bound of the bucket in which the `share` lies, in seconds."""
    count = cumulative[-1]
    if not count:
        return 0.0
    rank = ceil(share * count)
    place = next(place for place, below in enumerate(cumulative) if below >= rank)
    shift = max((place >> _SUB_BITS) - 1, 0)
    return float((place - (shift << _SUB_BITS) + 1) << shift) / 1e9


def _first_place(bits: int) -> int:
    """The place of two to the power of `bits` nanoseconds."""
    return (bits - _SUB_BITS + 1) << _SUB_BITS
