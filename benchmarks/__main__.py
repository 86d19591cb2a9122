"""Measure everything and print it, with `--write` into docs/benchmarks.md too. Exits with 1 if a target is missed."""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import bulk, footprint, points, startup
from benchmarks.measuring import Figure

GROUPS = {"bulk": bulk, "points": points, "startup": startup, "footprint": footprint}
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

What tierkit costs, each figure beside the bare work and measured in the same run, alternating, on {machine}.
Read the times as ratios; they differ from machine to machine. Written by

    uv run python -m benchmarks --write

The bare work is what any program must do to keep the same records, without any framework: `benchmarks/bare.py`.

"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the groups that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", choices=[*GROUPS, []], default=[], help="what to measure (all)")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    asked = parser.parse_args(arguments)
    found: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.groups or GROUPS:
            print(f"measuring {name} ...", file=sys.stderr)
            found += GROUPS[name].figures(Path(folder))
    table = _table(found)
    print(table)
    if asked.write:
        PAGE.write_text(HEAD.format(machine=_machine()) + table)
    return 0 if all(figure.holds for figure in found) else 1


def _table(found: Sequence[Figure]) -> str:
    lines = ["| what | tierkit | beside | ratio | target | |", "|---|---|---|---|---|---|"]
    for figure in found:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        verdict = "met" if figure.holds else "**missed**"
        lines.append(f"| {figure.what} | {figure.measured} | {figure.beside} | {ratio} | {figure.target} | {verdict} |")
    return "\n".join(lines) + "\n"


def _machine() -> str:
    version = ".".join(platform.python_version_tuple()[:2])
    return f"{platform.system()} with 2 cores and Python {version}"


if __name__ == "__main__":
    sys.exit(main())
