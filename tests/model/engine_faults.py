"""Faults planted in the engine one by one, to show that the model tests find each.

    python -m tests.model.engine_faults              # all of `tests.model.faults`
    python -m tests.model.engine_faults stamp usage  # those whose sentence has one of these words

For each fault, schedules are run until one is violated, up to a number; where the table names tests of the engine,
these are run instead. Prints what caught each fault, and exits with 1 if one was not caught.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from tests.faults.planting import ALREADY, QUIET
from tests.model.faults import FAULTS
from tests.model.planting import Fault, NotPlantable, planted
from tests.model.schedules import run_many

WORKERS = 2
SCHEDULES = 20_000
STRIDE = 50
ROOT = Path(__file__).resolve().parents[2]


def caught_by(fault: Fault, schedules: int = SCHEDULES) -> str:
    """What caught the fault; empty if nothing did, or if the engine without it does the same."""
    if fault.tests:
        with planted(fault):
            return _failed_test(fault.tests)
    for start in range(0, schedules, STRIDE):
        with planted(fault):
            wrong = [outcome for outcome in run_many(range(start, start + STRIDE)) if outcome.violation]
        for outcome in wrong:
            if not run_many([outcome.seed])[0].violation:
                return f"seed {outcome.seed}: {outcome.violation}"
    return ""


class _Failures:
    """A pytest plugin: notes the first test that fails."""

    name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid.rpartition("/")[2]


def _failed_test(paths: Sequence[str]) -> str:
    failures = _Failures()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        pytest.main(["-x", *QUIET, *ALREADY, *(str(ROOT / path) for path in paths)], plugins=[failures])
    return failures.name


def main(arguments: Sequence[str] | None = None) -> int:
    """Plant what the command line says; answer how the program should exit."""
    parser = argparse.ArgumentParser(description="Plant faults in the engine, and show that each is caught.")
    parser.add_argument("words", nargs="*", help="of the faults to plant; by default all")
    parser.add_argument("--schedules", type=int, default=SCHEDULES, help="how many to run at most for each")
    options = parser.parse_args(arguments)
    chosen = [fault for fault in FAULTS if not options.words or any(word in fault.what for word in options.words)]
    if not chosen:
        print(f"no fault has one of the words {', '.join(options.words)}")
        return 2
    named = sorted({path for fault in chosen for path in fault.tests})
    if named and (failed := _in_a_process_of_its_own(named)):
        print(f"without any fault {failed} fails")
        return 1
    caught = 0
    for fault, found in zip(chosen, _hunted(chosen, options.schedules), strict=True):
        caught += bool(found)
        print(f"{'caught  ' if found else 'SURVIVED'}  {fault.what:<88}  {found[:110]}", flush=True)
    print(f"{caught} of {len(chosen)} faults caught")
    return 0 if caught == len(chosen) else 1


def _in_a_process_of_its_own(paths: Sequence[str]) -> str:
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(_failed_test, paths).result()


def _hunted(faults: Sequence[Fault], schedules: int) -> Iterable[str]:
    # Forked: a fault is planted in a process, and pytest can be run once in one.
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("fork")) as pool:
        yield from pool.map(_hunt, faults, [schedules] * len(faults))


def _hunt(fault: Fault, schedules: int) -> str:
    try:
        return caught_by(fault, schedules)
    except NotPlantable as error:
        print(f"cannot be planted: {error}", flush=True)
        return ""


if __name__ == "__main__":
    sys.exit(main())
