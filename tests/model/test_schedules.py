"""Schedules of two caches over shared storages: a few of them here, many by `python -m tests.model.schedules`."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from unittest.mock import Mock

import pytest
from tests.model import schedules
from tests.model.cooperative import CALL_SECONDS, Scheduler, Violation
from tests.model.locks import Condition, Lock
from tests.model.schedules import Outcome, run, run_many

from tierkit.writing import Writer

ROOT = Path(__file__).resolve().parents[2]


class Machine:
    dead = False


def schedule(*tasks: Callable[[Scheduler], None], seed: int = 0) -> Scheduler:
    """Run `tasks`, each given the scheduler."""
    scheduler = Scheduler(Random(seed))
    for task in tasks:
        scheduler.spawn(Machine(), lambda task=task: task(scheduler))  # type: ignore[misc]  # its type cannot be inferred
    scheduler.run()
    return scheduler


@pytest.mark.req("E-6")
def test_two_caches_over_shared_storages_keep_their_promises() -> None:
    assert [outcome for outcome in run_many(range(200)) if outcome.violation] == []


def test_a_seed_decides_every_step_in_any_process() -> None:
    command = [sys.executable, "-m", "tests.model.schedules", "--trace", "--seed"]
    for seed in (3, 4, 5):
        done = subprocess.run([*command, str(seed)], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[:-1] == run(seed, trace=True).trace


def test_an_engine_that_writes_only_to_the_authority_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Writer, "store_above", Mock())
    assert any(outcome.violation for outcome in run_many(range(200)))


def test_a_violation_is_reported_with_its_seed_and_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        schedules, "run", lambda seed, **_: Outcome(seed, "disk", "calm", 9, "lost" if seed == 7 else None)
    )
    assert schedules.main(["10", "--first", "3"]) == 1
    assert "seed 7, disk, calm: lost" in capsys.readouterr().out
    assert schedules.main(["--seed", "7"]) == 1
    assert schedules.main(["--seed", "8"]) == 0


# -- the scheduler itself ----------------------------------------------------------------------------------------------


@pytest.fixture(params=range(8))
def seed(request: pytest.FixtureRequest) -> Iterator[int]:
    return request.param  # type: ignore[no-any-return]  # pytest knows no type of it


def test_who_wants_a_lock_that_another_task_holds_lets_others_go_on(seed: int) -> None:
    inside: list[int] = []
    most: list[int] = []
    made: list[Lock] = []

    def task(scheduler: Scheduler) -> None:
        made.append(made[0] if made else Lock(scheduler, reentrant=True, points=True))
        for _ in range(3):
            with made[0], made[0]:
                inside.append(1)
                scheduler.point()
                most.append(len(inside))
                inside.pop()

    schedule(task, task, task, seed=seed)
    assert most == [1] * 9


def test_a_wait_ends_by_virtual_time_when_nobody_can_go_on() -> None:
    def task(scheduler: Scheduler) -> None:
        lock = Lock(scheduler, reentrant=False, points=False)
        assert lock.acquire()
        assert not lock.acquire(timeout=7.0)

    assert schedule(task).now == pytest.approx(7.0)


def test_tasks_that_all_wait_for_each_other_are_a_violation() -> None:
    def task(scheduler: Scheduler) -> None:
        scheduler.wait_until(lambda: False, None)

    with pytest.raises(Violation, match="wait for each other"):
        schedule(task, task)


def test_who_waits_for_a_condition_goes_on_when_he_is_notified(seed: int) -> None:
    conditions: list[Condition] = []
    said: list[str] = []

    def waits(scheduler: Scheduler) -> None:
        with conditions[0].lock:
            assert conditions[0].wait_for(lambda: bool(said), 1000.0)

    def speaks(scheduler: Scheduler) -> None:
        scheduler.point()
        with conditions[0].lock:
            said.append("now")
            conditions[0].notify_all()

    scheduler = Scheduler(Random(seed))
    conditions.append(Condition(Lock(scheduler, reentrant=True, points=True)))
    scheduler.spawn(Machine(), lambda: waits(scheduler))
    scheduler.spawn(Machine(), lambda: speaks(scheduler))
    scheduler.run()
    assert scheduler.now < 1.0


def test_no_time_passes_in_which_a_call_would_take_effect_too_late() -> None:
    passed: list[bool] = []

    def task(scheduler: Scheduler) -> None:
        def event() -> bool:
            passed.append(scheduler.advance(CALL_SECONDS))
            return False

        scheduler.event = event
        scheduler.decide()
        scheduler.point()
        while not passed:
            scheduler.point()
        scheduler.took_effect()
        assert scheduler.advance(CALL_SECONDS)

    schedule(task)
    assert passed == [False]


def test_a_task_that_fails_ends_the_schedule_with_its_error() -> None:
    other = Mock()

    def fails(scheduler: Scheduler) -> None:
        raise ValueError("here")

    def goes_on(scheduler: Scheduler) -> None:
        while True:
            scheduler.point()

    with pytest.raises(ValueError, match="here"):
        schedule(fails, goes_on, lambda _: other())
