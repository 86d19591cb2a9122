"""Faults planted in copies of a tier, to show that the contract finds each.

`python -m tests.faults.contract_faults` runs `TierContract` against every faulty copy, prints which test caught it, and
exits with 1 if one survives; with names of classes it runs those only. To add a fault, write a class that breaks one
thing, in a module that is imported here, and mark it `@fault("what is wrong with it")`.
"""

from __future__ import annotations

import io
import multiprocessing
import re
import sys
from collections import ChainMap
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.faults import faulty_order, faulty_queries, faulty_races, faulty_storage  # noqa: F401 - they fill the table
from tests.faults.planting import ALREADY, FAULTS, QUIET, Fault

from tierkit import CacheTier, TierContext
from tierkit.testing import TierContract

__all__ = ["FAULTS", "Fault", "main"]

WORKERS = 2
LATE = re.compile(
    r"many|random_histories|race|is_lost|lose_no|takes_back|only_the_version|not_due|its_own_version|awkward|again_and"
)
"""Tests that take long: most faults are caught without them, so they come last."""
HUNTS = 3
"""How often a fault is hunted before it counts as a survivor: some break only what two threads do at one moment."""


def contract_of(planted: Fault) -> type[TierContract]:
    """A test class for a faulty tier."""

    class Contract(TierContract):
        def open_tier(self, context: TierContext, path: Path) -> CacheTier[Any]:
            return planted.open(context, path)

    return Contract


# pytest finds the classes by their names, when it is given this file.
globals().update({f"Test{planted.name}": contract_of(planted) for planted in FAULTS})


@dataclass
class Hunt:
    """A pytest plugin: runs short tests first, notes the one that fails for each fault, and leaves out the rest."""

    caught: dict[str, str] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: LATE.search(item.name) is not None)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if item.nodeid.split("::")[1] in self.caught:
            pytest.skip("caught already")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            _, planted, test = report.nodeid.split("::", 2)
            self.caught.setdefault(planted, test)


def caught_of(names: Sequence[str]) -> dict[str, str]:
    """The test that caught each of these faults, for those that were caught."""
    hunt = Hunt()
    with redirect_stdout(io.StringIO()):
        tests = [f"{__file__}::Test{name}" for name in names]
        pytest.main([*QUIET, *ALREADY, *tests], plugins=[hunt])
    return {planted.removeprefix("Test"): test for planted, test in hunt.caught.items()}


def _hunted(names: Sequence[str]) -> dict[str, str]:
    # Much of the time is waiting, for threads, processes and disks. A process for each part, since pytest cannot be run
    # in two threads; forked, so that it has the table.
    parts = [part for start in range(WORKERS) if (part := names[start::WORKERS])]
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("fork")) as pool:
        return dict(ChainMap(*pool.map(caught_of, parts)))


def main(names: Sequence[str]) -> int:
    """Run the contract against the faults of these names, or all; answer how the program should exit."""
    unknown = set(names) - {planted.name for planted in FAULTS}
    if unknown:
        print(f"no such fault: {', '.join(sorted(unknown))}")
        return 2
    chosen = [planted for planted in FAULTS if not names or planted.name in names]
    found: dict[str, str] = {}
    for _ in range(HUNTS):
        found |= _hunted([planted.name for planted in chosen if planted.name not in found])
    for planted in chosen:
        caught = found.get(planted.name)
        print(f"{'caught  ' if caught else 'SURVIVED'}  {planted.what:<58}  {caught or planted.name}")
    print(f"{len(found)} of {len(chosen)} faults caught")
    return 0 if len(found) == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
