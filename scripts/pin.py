"""Write the exact pins of every dependency, without URLs.

Usage: ``uv run python scripts/pin.py [--upgrade]``

The workspace's dependencies are resolved for all platforms, and the result is written to two places that a
test compares: ``[tool.uv] constraint-dependencies`` in ``pyproject.toml`` (read by ``uv sync`` and
``uv run``) and ``constraints.txt`` (read by ``pip install -c``). The build backend is pinned in the same way,
in ``build-constraint-dependencies``. Existing pins stay as they are unless ``--upgrade`` is given.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
HEADER = "# Written by scripts/pin.py; use with `pip install -c constraints.txt`.\n"


def members(root: Path = ROOT) -> list[dict[str, Any]]:
    """Return the parsed ``pyproject.toml`` of the root and of every workspace member."""
    top = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    patterns = top["tool"]["uv"]["workspace"]["members"]
    folders = [folder for pattern in patterns for folder in root.glob(pattern)]
    files = [folder / "pyproject.toml" for folder in sorted(folders)]
    return [top, *(tomllib.loads(file.read_text("utf-8")) for file in files if file.exists())]


def name_of(requirement: str) -> str:
    """Return the normalised distribution name at the head of a requirement."""
    head = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", head).lower()


def declared(projects: list[dict[str, Any]]) -> Iterator[str]:
    """Yield every requirement that the projects declare, their own distributions left out."""
    own = {name_of(project["project"]["name"]) for project in projects}
    for project in projects:
        tables = [project["project"].get("optional-dependencies", {}), project.get("dependency-groups", {})]
        lists = [project["project"].get("dependencies", []), *(v for table in tables for v in table.values())]
        yield from (line for lines in lists for line in lines if name_of(line) not in own)


def resolve(requirements: list[str], known: list[str], python: str, *, upgrade: bool) -> list[str]:
    """Return sorted exact pins for all platforms; known ones stay unless upgrading."""
    with tempfile.TemporaryDirectory() as folder:  # outside the project, whose pins would bind the result
        source, target = Path(folder, "in.txt"), Path(folder, "out.txt")
        source.write_text("\n".join(requirements), "utf-8")
        target.write_text("\n".join(known), "utf-8")
        command = [os.environ.get("UV", "uv"), "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
        command += ["--universal", "--python-version", python, source.name, "-o", target.name]
        subprocess.run(command + ["--upgrade"] * upgrade, cwd=folder, check=True)
        return sorted(line for line in target.read_text("utf-8").splitlines() if re.match(r"[a-z0-9]", line))


def toml_with(text: str, setting: str, pins: list[str]) -> str:
    """Return TOML text with the list of one setting replaced."""
    items = "".join(f'    "{pin}",\n' for pin in pins)
    pattern = rf"^{setting} = \[(?:\]|\n.*?^\])$"
    text, count = re.subn(pattern, f"{setting} = [\n{items}]", text, flags=re.MULTILINE | re.DOTALL)
    if count != 1:
        raise SystemExit(f"pyproject.toml: expected one list {setting}, found {count}")
    return text


def main() -> None:
    """Resolve, then write both places."""
    parser = argparse.ArgumentParser(description="Write the exact pins of every dependency.")
    parser.add_argument("--upgrade", action="store_true", help="move every pin to the newest that resolves")
    upgrade = parser.parse_args().upgrade
    projects, pyproject = members(), ROOT / "pyproject.toml"
    python = projects[0]["project"]["requires-python"].removeprefix(">=")
    settings = projects[0]["tool"]["uv"]
    wanted = sorted(set(declared(projects)))
    backends = sorted({line for project in projects for line in project["build-system"]["requires"]})
    pins = resolve(wanted, settings["constraint-dependencies"], python, upgrade=upgrade)
    build = resolve(backends, settings["build-constraint-dependencies"], python, upgrade=upgrade)
    text = toml_with(pyproject.read_text("utf-8"), "constraint-dependencies", pins)
    pyproject.write_text(toml_with(text, "build-constraint-dependencies", build), "utf-8")
    CONSTRAINTS.write_text(HEADER + "".join(f"{pin}\n" for pin in pins), "utf-8")


if __name__ == "__main__":
    main()
