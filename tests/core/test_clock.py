"""Time and versions."""

import secrets
import threading
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierkit.clock import CacheTime, SystemClock, VersionClock
from tierkit.testing import FakeClock

NOW = 1_700_000_000.0


DAY_AHEAD = int((NOW + 86_400) * 1_000_000) * 1024


def versions(at: float = NOW) -> VersionClock:
    return VersionClock(lambda: at)


def test_time_passes_with_the_monotonic_clock() -> None:
    clock = FakeClock(wall=NOW)
    time = CacheTime(clock)
    clock.advance(5)
    assert time.now() == NOW + 5


@given(st.floats(-1e9, 1e9))
def test_a_step_of_the_wall_clock_does_not_move_the_time_inside(seconds: float) -> None:
    clock = FakeClock(wall=NOW)
    time = CacheTime(clock)
    clock.step_wall(seconds)
    assert time.now() == NOW
    assert CacheTime(clock).now() == pytest.approx(NOW + seconds)


def test_the_clocks_of_the_machine_go() -> None:
    clock = SystemClock()
    assert clock.wall() > 1.7e9
    assert clock.monotonic() <= clock.monotonic()


def test_stamps_grow_while_the_clock_stands_still() -> None:
    stamps = versions()
    given = [stamps.next() for _ in range(1000)]
    assert given == sorted(set(given))
    assert given[0] >> 10 == int(NOW * 1_000_000)


@given(st.lists(st.floats(0, 4e9), min_size=2, max_size=20))
def test_stamps_grow_however_the_clock_jumps(readings: list[float]) -> None:
    left = iter(readings)
    stamps = VersionClock(lambda: next(left))
    given = [stamps.next() for _ in readings]
    assert all(before < after for before, after in pairwise(given))


@given(st.lists(st.integers(0, DAY_AHEAD), max_size=10))
def test_a_stamp_is_above_every_version_observed(observed: list[int]) -> None:
    stamps = versions()
    for version in observed:
        stamps.observe(version)
    assert all(stamps.next() > version for version in observed)
    assert stamps.next() < 2**63


def test_an_old_version_does_not_hold_stamps_back() -> None:
    stamps = versions()
    first = stamps.next()
    stamps.observe(5)
    assert stamps.next() > first


@pytest.mark.parametrize("damaged", [DAY_AHEAD + 1024, 1 << 62, 2**63 - 1, 2**80])
def test_a_version_more_than_a_day_ahead_is_damage_and_ignored(damaged: int) -> None:
    stamps = versions()
    before = stamps.next()
    stamps.observe(damaged)
    assert stamps.next() == before + 1024


def test_two_processes_stamp_apart_at_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tags = iter([3, 700])
    monkeypatch.setattr(secrets, "randbelow", lambda _: next(tags))
    one, other = versions(), versions()
    assert {one.next() for _ in range(100)}.isdisjoint({other.next() for _ in range(100)})


def test_threads_never_get_one_stamp_twice() -> None:
    stamps = versions()
    given: list[list[int]] = [[] for _ in range(4)]

    def take(into: list[int]) -> None:
        into.extend(stamps.next() for _ in range(2000))

    threads = [threading.Thread(target=take, args=(into,)) for into in given]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({stamp for part in given for stamp in part}) == 8000


class HeldUpClock(FakeClock):
    """A clock whose reader is held up after its first look at the time of day."""

    def __init__(self) -> None:
        super().__init__(wall=NOW)
        self.held_up = False

    def wall(self) -> float:
        wall = super().wall()
        if not self.held_up:
            self.held_up = True
            self.advance(3)
        return wall


def test_a_process_that_is_held_up_between_its_two_clocks_has_the_right_time_all_the_same() -> None:
    clock = HeldUpClock()
    time = CacheTime(clock)
    assert time.now() == NOW + 3
