"""The campaign: every event that tierkit must survive, in the long form, and every fault that must be found.

`python -m tests.faults.campaign` runs all trials and hunts their planted faults, prints what came of each, and exits
with 1 if something was violated or a fault survived. `--short` runs the short forms, `--write` puts the table into
docs/explanation/reliability.md, and parts of names run those trials alone.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final, NamedTuple

from tests.faults.trials import Effort, Outcome, Trial

MODULES: Final = (
    "bit_rot",
    "clocks",
    "crash_states",
    "disk_full",
    "exports",
    "failing_calls",
    "forking",
    "hostile_input",
    "key_loss",
    "kills",
    "leaks_of_secrets",
    "leases",
    "linearizable",
    "lost_server",
    "old_formats",
    "one_load",
    "read_only",
    "resharding_kills",
    "rotation_kills",
    "strangers",
    "tampering",
    "torn_tail",
)
"""The modules of this folder that have trials."""
TRIALS: Final[tuple[Trial, ...]] = tuple(
    sorted(
        (trial for name in MODULES for trial in import_module(f"tests.faults.{name}").TRIALS),
        key=lambda trial: trial.row,
    )
)
REPORT: Final = Path(__file__).parents[2] / "docs" / "explanation" / "reliability.md"
BEGIN: Final = "<!-- written by tests.faults.campaign -->"
END: Final = "<!-- end -->"
HEAD: Final = ("| # | event | done and found | violations | planted faults found |", "| --- | --- | --- | --- | --- |")


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


def row(told: Told) -> str:
    """A result as it stands in the documentation."""
    trial, outcome, found, _ = told
    if outcome is None:
        return f"| {trial.row} | {trial.name} | not run: {trial.obstacle()} | | |"
    counts = ", ".join(f"{number:,} {what}" for what, number in outcome.counts.items())
    hunted = f"{sum(map(bool, found.values()))} of {len(found)}"
    return f"| {trial.row} | {trial.name} | {counts} | {len(outcome.violations)} | {hunted} |"


def write(results: Sequence[Told], trials: Sequence[Trial] = TRIALS, report: Path = REPORT) -> None:
    """Put the results into the table in the documentation; what was not run now stays as it was."""
    before, _, rest = report.read_text().partition(BEGIN)
    old, _, after = rest.partition(END)
    rows = {line.split(" | ")[1]: line for line in old.splitlines() if line.count(" | ") > 2}
    rows |= {told.trial.name: row(told) for told in results}
    table = [*HEAD, *(rows[trial.name] for trial in trials if trial.name in rows)]
    report.write_text("\n".join([f"{before}{BEGIN}", *table, f"{END}{after}"]))


def main(arguments: Sequence[str], trials: Sequence[Trial] = TRIALS, report: Path = REPORT) -> int:
    """Run what is asked for; answer how the program should exit."""
    parser = ArgumentParser(prog="python -m tests.faults.campaign")
    parser.add_argument("names", nargs="*", help="parts of the names of trials to run; by default all")
    parser.add_argument("--short", action="store_true", help="the short forms")
    parser.add_argument("--write", action="store_true", help="put the results into the documentation")
    asked = parser.parse_args(arguments)
    chosen = [trial for trial in trials if not asked.names or any(name in trial.name for name in asked.names)]
    if not chosen:
        print("\n  ".join(["no such trial; there are", *(trial.name for trial in trials)]))
        return 2
    results = []
    for trial in chosen:
        results.append(tried(trial, "short" if asked.short else "long"))
        print("\n".join(lines(results[-1])), flush=True)
    if asked.write:
        write(results, trials, report)
    failed = sum(told.failed for told in results)
    print(f"{len(results) - failed} of {len(results)} trials passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
