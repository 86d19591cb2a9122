"""Measure and print, with `--write` into docs/benchmarks.md too. Exits with 1 if a target is missed.

`python -m benchmarks [GROUP ...]` measures what tierkit costs beside the bare work, `python -m benchmarks criteria
[SC-1 ...]` the success criteria, `python -m benchmarks replay` replays eight real lists, `python -m benchmarks
hit_ratios` compares the eviction policies, `python -m benchmarks sweep` measures what a sweep costs others,
`python -m benchmarks queries` queries among a million records.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import (
    bulk,
    counting,
    criteria,
    eviction,
    footprint,
    hit_ratios,
    points,
    queries,
    replay,
    startup,
    sweep,
    transfers,
    values,
)
from benchmarks.measuring import Figure
from benchmarks.page import PAGE, machine, table, verdict, write_section

GROUPS = {
    "bulk": bulk,
    "points": points,
    "eviction": eviction,
    "startup": startup,
    "footprint": footprint,
    "counting": counting,
    "values": values,
    "transfers": transfers,
}
COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "criteria": criteria.main,
    "replay": replay.main,
    "hit_ratios": hit_ratios.main,
    "sweep": sweep.main,
    "queries": queries.main,
}
INTRODUCTION = """What tierkit costs, each figure beside the bare work and measured in the same run, alternating, on
{machine}. Read the times as ratios; they differ from machine to machine. Written by

    uv run python -m benchmarks --write

The bare work is what any program must do to keep the same records, without any framework: `benchmarks/bare.py`.

"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is asked for: one of the commands, or the groups."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given and given[0] in COMMANDS:
        return COMMANDS[given[0]](given[1:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], default=[], help="what to measure (all)")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}; of all groups only")
    asked = parser.parse_args(given)
    if asked.groups and asked.write:
        parser.error("--write needs all groups, since the page would else lose the others")
    found = _measured(asked.groups or list(GROUPS))
    printed = _table(found)
    print(printed)
    if asked.write:
        write_section("Costs", INTRODUCTION.format(machine=machine()) + printed)
    return 0 if all(figure.holds for figure in found) else 1


def _measured(groups: Sequence[str]) -> list[Figure]:
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in groups:
            print(f"measuring {name} ...", file=sys.stderr)
            found += GROUPS[name].figures(Path(folder))
    return found


def _table(found: Sequence[Figure]) -> str:
    rows = [
        (
            figure.what,
            figure.measured,
            figure.beside,
            "" if figure.ratio is None else f"{figure.ratio:.2f}",
            figure.target,
            verdict(figure.holds),
        )
        for figure in found
    ]
    return table(("what", "tierkit", "beside", "ratio", "target", ""), rows)


if __name__ == "__main__":
    sys.exit(main())
