"""`uv run --group fuzz python -m tests.fuzz [--seconds N] [--merge] [TARGET ...]`: fuzz each target for N seconds.

Prints what came of each, and exits with 1 if there are findings: their inputs are then among the kept ones, so that
the tests fail until they are mended.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from tests.fuzz.runner import fuzzed, keep, merge, obstacle
from tests.fuzz.targets import TARGETS


def main(arguments: Sequence[str]) -> int:
    """Fuzz what is asked for; answer how the program should exit."""
    parser = ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"by default all: {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target")
    parser.add_argument("--merge", action="store_true", help="keep the inputs that reach more of the code")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.targets) - TARGETS.keys():
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    if why := obstacle():
        print(why)
        return 2
    findings = [fuzz(target, asked.seconds, merging=asked.merge) for target in asked.targets or TARGETS]
    return 1 if any(findings) else 0


def fuzz(target: str, seconds: float, *, merging: bool) -> int:
    """Fuzz one target; the number of findings."""
    result = fuzzed(target, seconds)
    print(
        f"{target}: {result.executions:,} executions, coverage {result.coverage}, {len(result.findings)} findings",
        flush=True,
    )
    for data, what in result.findings.items():
        print(f"  FOUND {keep(target, data, 'finding')}: {what}", flush=True)
    for name in merge(target, result.interesting) if merging and not result.findings else []:
        print(f"  kept {name}", flush=True)
    return len(result.findings)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
