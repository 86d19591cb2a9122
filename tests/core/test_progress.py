"""The one mechanism of progress."""

import logging

import pytest

from tierkit.progress import Meter

log = logging.getLogger("tierkit.test")


def count(meter: Meter, steps: int) -> None:
    for _ in range(steps):
        meter.advance()
    meter.finish()


def test_the_callback_is_told_every_hundred_steps_and_at_the_end() -> None:
    told: list[tuple[int, int | None]] = []
    count(Meter("counting", 250, on_progress=lambda *now: told.append(now), log=log), 250)
    assert told == [(100, 250), (200, 250), (250, 250)]


def test_the_log_is_told_every_thousand_steps(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        meter = Meter("counting", log=log)
        for _ in range(5):
            meter.advance(500)
    assert [record.message for record in caplog.records] == ["counting", "counting: 1000", "counting: 2000"]


def test_the_log_is_told_how_much_there_is_once_that_is_known(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        Meter("counting", log=log).expect(3)
        Meter("counting", 2000, log=log).advance(1000)
    found = ["counting: 3 found", "counting: 2000 found"]
    assert caplog.messages == ["counting", found[0], "counting", found[1], "counting: 1000 of 2000"]


def test_the_end_is_told_once_though_it_comes_with_a_hundredth_step() -> None:
    told: list[tuple[int, int | None]] = []
    for total in (100, 90, None):
        count(Meter("counting", total, on_progress=lambda *now: told.append(now), log=log), 100)
    assert told == [(100, 100), (100, 100), (100, None), (100, 100)]


def test_steps_that_take_long_are_told_one_by_one() -> None:
    told: list[tuple[int, int | None]] = []
    meter = Meter("counting", 2, on_progress=lambda *now: told.append(now), log=log, told_every=1)
    count(meter, 2)
    assert told == [(1, 2), (2, 2)]


def test_a_total_is_never_below_what_was_done() -> None:
    told: list[tuple[int, int | None]] = []
    Meter("counting", 10, on_progress=lambda *now: told.append(now), log=log).advance(300)
    assert told == [(300, 300)]


def test_what_the_callback_raises_stops_the_work() -> None:
    def stop(_done: int, _total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        count(Meter("counting", on_progress=stop, log=log), 1000)
