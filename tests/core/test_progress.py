"""The one mechanism of progress."""

import logging

import pytest

from tierkit.progress import Meter

log = logging.getLogger("tierkit.test")


def test_the_callback_is_told_every_hundred_steps_and_at_the_end() -> None:
    told: list[tuple[int, int | None]] = []
    assert list(Meter("counting", 250, on_progress=lambda *now: told.append(now), log=log).over(range(250)))
    assert told == [(100, 250), (200, 250), (250, 250)]


def test_the_log_is_told_every_thousand_steps(caplog: pytest.LogCaptureFixture) -> None:
    meter = Meter("counting", log=log)
    with caplog.at_level(logging.INFO):
        for _ in range(5):
            meter.advance(500)
    assert [record.message for record in caplog.records] == ["counting: 1000", "counting: 2000"]


def test_a_total_is_never_below_what_was_done() -> None:
    told: list[tuple[int, int | None]] = []
    Meter("counting", 10, on_progress=lambda *now: told.append(now), log=log).advance(300)
    assert told == [(300, 300)]


def test_what_the_callback_raises_stops_the_work() -> None:
    def stop(_done: int, _total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Meter("counting", on_progress=stop, log=log).over(range(1000)))
