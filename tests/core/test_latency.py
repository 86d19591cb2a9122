"""The histogram of latencies: its buckets, its quantiles, and that no count is lost."""

import random
import sys
import threading
from collections.abc import Iterator

import pytest

from tierkit.latency import LONGEST_SECONDS, Histogram, LatencyStatistics, LockedHistogram, new_histogram

KINDS = [Histogram, LockedHistogram]


def taken(*seconds: float) -> LatencyStatistics:
    histogram = Histogram()
    for each in seconds:
        histogram.record(each)
    return histogram.snapshot()


def test_nothing_measured_is_all_zero() -> None:
    empty = taken()
    assert (empty.count, empty.sum_seconds, empty.p50, empty.p99) == (0, 0.0, 0.0, 0.0)
    assert {count for _, count in empty.buckets} == {0}


@pytest.mark.parametrize("exponent", range(-9, 1))
def test_a_quantile_is_at_most_an_eighth_too_high_and_never_too_low(exponent: int) -> None:
    dice = random.Random(exponent)
    times = sorted(dice.uniform(1, 10) * 10.0**exponent for _ in range(501))
    found = taken(*times)
    for quantile, place in ((found.p50, 250), (found.p90, 450), (found.p99, 495)):
        assert times[place] - 1e-9 <= quantile <= times[place] * 1.125 + 1.01e-9


def test_the_buckets_are_cumulative_and_bounds_double() -> None:
    times = [2.0**power / 1e9 for power in range(40)]
    found = taken(*times)
    bounds = [bound for bound, _ in found.buckets]
    assert bounds == [2.0**power / 1e9 for power in range(10, 35)]
    assert [count for _, count in found.buckets] == list(range(10, 35))
    assert found.count == 40
    assert found.sum_seconds == pytest.approx(sum(times))


def test_a_time_beyond_the_longest_and_one_below_zero_are_counted_at_the_ends() -> None:
    assert taken(1e6).p50 == pytest.approx(LONGEST_SECONDS)
    below = taken(-1.0)
    assert (below.count, below.p50) == (1, 1e-9)


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.req("US6-2")
@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize("kind", KINDS)
def test_eight_threads_lose_no_count(kind: type[Histogram]) -> None:
    histogram = kind()

    def work() -> None:
        for _ in range(3000):
            histogram.record(0.5)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = histogram.snapshot()
    assert (found.count, found.sum_seconds) == (24_000, 12_000.0)


@pytest.mark.parametrize(("locked", "kind"), [(True, Histogram), (False, LockedHistogram)])
def test_a_python_without_the_global_lock_gets_a_lock(
    locked: bool, kind: type[Histogram], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: locked, raising=False)
    assert type(new_histogram()) is kind
