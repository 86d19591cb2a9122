"""List the requirements that no test shows.

Usage: ``python scripts/requirements.py [--strict ID-PREFIX ...]``

The ids come from ``docs/reference/requirements.md``, the tests from ``@pytest.mark.req("ID")`` (or a plain
``@req("ID")``, for the contract kit) in ``tests/`` and ``core/src/tierkit/testing/``. A prefix is a whole id
or the part before its dash: ``US2-1``, ``US1``, ``F``. Exits 1 if a requirement under a strict prefix has no
test, or if a mark or a prefix names no known id.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = Path("docs/reference/requirements.md")
FOLDERS = (Path("tests"), Path("core/src/tierkit/testing"))


def known_ids(table: str) -> dict[str, str]:
    """Return the requirements of a Markdown table, id to text, in its order."""
    return dict(re.findall(r"^\| ([A-Z]+\d*-\d+) \| (.*?) \|$", table, flags=re.MULTILINE))


def marks(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the id of every requirement mark in a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {"pytest.mark.req", "mark.req", "req"}:
            yield from ((node.lineno, _literal(argument)) for argument in node.args)


def _literal(argument: ast.expr) -> str:
    return str(argument.value) if isinstance(argument, ast.Constant) else ast.unparse(argument)


def under(requirement: str, prefix: str) -> bool:
    """Say whether an id is the prefix or stands under it."""
    return requirement == prefix or requirement.startswith(f"{prefix}-")


def all_marks(root: Path) -> list[tuple[str, str]]:
    """Return place (file and line) and id of every mark in the project."""
    files = sorted(file for folder in FOLDERS for file in (root / folder).rglob("*.py"))
    found = [(file, mark) for file in files for mark in marks(file.read_text("utf-8"))]
    return [(f"{file.relative_to(root)}:{line}", name) for file, (line, name) in found]


def failures(known: dict[str, str], found: list[tuple[str, str]], strict: list[str]) -> list[str]:
    """Return one line for each unknown id and each strict requirement without a test."""
    shown = {name for _, name in found}
    lines = [f"{place}: unknown requirement {name!r}" for place, name in found if name not in known]
    for prefix in strict:
        asked = [name for name in known if under(name, prefix)]
        lines += [f"{name} must have a test" for name in asked if name not in shown]
        lines += [] if asked else [f"no requirement is {prefix!r} or stands under it"]
    return lines


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Print what is missing and return the exit code."""
    parser = argparse.ArgumentParser(description="List the requirements that no test shows.")
    parser.add_argument("--strict", nargs="+", default=[], metavar="ID-PREFIX", help="fail if one has no test")
    strict = parser.parse_args(arguments).strict
    known, found = known_ids((root / TABLE).read_text("utf-8")), all_marks(root)
    missing = known.keys() - {name for _, name in found}
    for name, text in known.items():
        if name in missing:
            print(f"no test: {name:6} {textwrap.shorten(text, 90)}")
    print(f"{len(known) - len(missing)} of {len(known)} requirements have a test")
    failing = failures(known, found, strict)
    for line in failing:
        print(line, file=sys.stderr)
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
