"""The campaign: every event that tierkit must survive, in the long form, and every fault that must be found.

`python -m tests.faults.campaign` runs all trials and hunts their planted faults, prints what came of each, and exits
with 1 if something was violated or a fault survived. `--short` runs the short forms, `--write` puts the table into
docs/explanation/reliability.md, and names run those trials alone.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final, NamedTuple

from tests.faults import (
    bit_rot,
    crash_states,
    disk_full,
    failing_calls,
    key_loss,
    kills,
    old_formats,
    resharding_kills,
    rotation_kills,
    tampering,
    torn_tail,
)
from tests.faults.trials import Effort, Outcome, Trial

MODULES: Final = (
    bit_rot,
    crash_states,
    disk_full,
    failing_calls,
    key_loss,
    kills,
    old_formats,
    resharding_kills,
    rotation_kills,
    tampering,
    torn_tail,
)
TRIALS: Final[tuple[Trial, ...]] = tuple(
    sorted((trial for module in MODULES for trial in module.TRIALS), key=lambda trial: trial.row)
)
REPORT: Final = Path(__file__).parents[2] / "docs" / "explanation" / "reliability.md"
BEGIN: Final = "<!-- written by tests.faults.campaign -->"
END: Final = "<!-- end -->"


class Told(NamedTuple):
    """A trial and what came of it: nothing where it could not be run."""

    trial: Trial
    outcome: Outcome | None
    found: dict[str, str]
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether something was violated, or a fault survived."""
        return self.outcome is not None and (bool(self.outcome.violations) or not all(self.found.values()))


def tried(trial: Trial, effort: Effort) -> Told:
    """Run a trial, and hunt its faults."""
    if trial.obstacle():
        return Told(trial, None, {}, 0.0)
    begun = perf_counter()
    with TemporaryDirectory() as folder:
        outcome = trial.run(Path(folder), effort)
    return Told(trial, outcome, dict(_found(trial)), perf_counter() - begun)


def _found(trial: Trial) -> Iterator[tuple[str, str]]:
    for fault in trial.faults:
        with TemporaryDirectory() as folder:
            yield fault, trial.finds(fault, Path(folder))


def lines(told: Told) -> Iterator[str]:
    """What is printed of a trial."""
    trial, outcome, found, seconds = told
    if outcome is None:
        yield f"{trial.row:2} {trial.name}: not run: {trial.obstacle()}"
        return
    counts = ", ".join(f"{number:,} {what}" for what, number in outcome.counts.items())
    yield f"{trial.row:2} {trial.name}: {counts}; {len(outcome.violations)} violations ({seconds:.0f} s)"
    yield from (f"     VIOLATION {violation}" for violation in outcome.violations[:20])
    for fault, what in found.items():
        yield f"     {'found   ' if what else 'SURVIVED'}  {fault}" + (f": {what[:120]}" if what else "")


def table(results: Sequence[Told]) -> str:
    """The results as they stand in the documentation."""
    head = ["| # | event | done and found | violations | planted faults found |", "| --- | --- | --- | --- | --- |"]
    rows = []
    for trial, outcome, found, _ in results:
        if outcome is None:
            rows.append(f"| {trial.row} | {trial.name} | not run: {trial.obstacle()} | | |")
            continue
        counts = ", ".join(f"{number:,} {what}" for what, number in outcome.counts.items())
        hunted = f"{sum(map(bool, found.values()))} of {len(found)}"
        rows.append(f"| {trial.row} | {trial.name} | {counts} | {len(outcome.violations)} | {hunted} |")
    return "\n".join([*head, *rows])


def write(results: Sequence[Told], report: Path = REPORT) -> None:
    """Put the table between its marks in the documentation."""
    before, _, rest = report.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    report.write_text(f"{before}{BEGIN}\n{table(results)}\n{END}{after}")


def main(arguments: Sequence[str], trials: Sequence[Trial] = TRIALS, report: Path = REPORT) -> int:
    """Run what is asked for; answer how the program should exit."""
    parser = ArgumentParser(prog="python -m tests.faults.campaign")
    parser.add_argument("names", nargs="*", help="trials to run; by default all")
    parser.add_argument("--short", action="store_true", help="the short forms")
    parser.add_argument("--write", action="store_true", help="put the table into the documentation")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.names) - {trial.name for trial in trials}:
        print(f"no such trial: {', '.join(sorted(unknown))}; there are {', '.join(trial.name for trial in trials)}")
        return 2
    results = []
    for trial in trials:
        if not asked.names or trial.name in asked.names:
            results.append(tried(trial, "short" if asked.short else "long"))
            print("\n".join(lines(results[-1])), flush=True)
    if asked.write:
        write(results, report)
    failed = sum(told.failed for told in results)
    print(f"{len(results) - failed} of {len(results)} trials passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
