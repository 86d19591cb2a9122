"""The circuit breaker: when it opens, when it allows a probe, and how long it waits."""

from math import inf

import pytest

from tierkit.breaker import Backoff, Breaker
from tierkit.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def breaker(clock: FakeClock) -> Breaker:
    return Breaker(3, Backoff(initial_seconds=1.0, longest_seconds=5.0), clock.monotonic)


def fail_probe(breaker: Breaker) -> None:
    breaker.half_open()
    breaker.open()


def test_it_is_closed_at_first_and_needs_no_probe(breaker: Breaker) -> None:
    assert (breaker.state, breaker.due_in) == ("closed", inf)


def test_it_has_enough_of_the_threshold_of_failures_in_a_row(breaker: Breaker) -> None:
    assert [breaker.failed("read") for _ in range(4)] == [False, False, True, True]


def test_open_it_allows_a_probe_after_the_first_back_off(breaker: Breaker, clock: FakeClock) -> None:
    breaker.open()
    assert (breaker.state, breaker.due_in) == ("open", 1.0)
    clock.advance(1.0)
    assert breaker.due_in == 0.0


def test_each_probe_that_fails_doubles_the_wait_up_to_a_limit(breaker: Breaker) -> None:
    breaker.open()
    waits = []
    for _ in range(5):
        fail_probe(breaker)
        waits.append(breaker.due_in)
    assert waits == [2.0, 4.0, 5.0, 5.0, 5.0]


def test_closing_forgets_failures_and_the_long_wait(breaker: Breaker) -> None:
    breaker.failed("read")
    breaker.open()
    fail_probe(breaker)
    breaker.half_open()
    breaker.close()
    assert (breaker.state, breaker.failures) == ("closed", 0)
    breaker.open()
    assert breaker.due_in == 1.0


def test_reads_and_writes_are_counted_apart(breaker: Breaker) -> None:
    for _ in range(2):
        assert not breaker.failed("write")
        breaker.succeeded("read")
        assert not breaker.failed("read")
    assert breaker.failures == 2
    breaker.succeeded("read")
    assert breaker.failed("write")
    assert breaker.failures == 3
