"""What may import what, and what an import may cost."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OPEN_TO_PLUGINS = ("tierkit", "tierkit.files", "tierkit.storage_checks", "tierkit.testing")


def modules_loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def outside_files() -> list[Path]:
    files = [*(ROOT / "plugins").glob("*/src/**/*.py"), *(ROOT / "examples").rglob("*.py")]
    return [file for file in files if not {".venv", "build", "dist"} & set(file.relative_to(ROOT).parts)]


def forbidden_imports(source: str) -> Iterator[str]:
    """Yield each import of a part of tierkit that is not open to plugins."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if inside(name.name))
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            if inside(node.module):
                yield node.module
            elif node.module in OPEN_TO_PLUGINS:
                names = [name.name for name in node.names if not public(node.module, name.name)]
                yield from (f"{node.module}.{name}" for name in names)


def inside(module: str) -> bool:
    return module.partition(".")[0] == "tierkit" and module not in OPEN_TO_PLUGINS


def public(module: str, name: str) -> bool:
    offered = getattr(importlib.import_module(module), "__all__", ())
    return f"{module}.{name}" in OPEN_TO_PLUGINS or name in offered


@pytest.mark.parametrize("library", ["sqlite_utils", "cryptography"])
def test_importing_tierkit_does_not_load(library: str) -> None:
    assert library not in modules_loaded_by("import tierkit")


def test_a_late_import_is_seen() -> None:
    assert "sqlite_utils" in modules_loaded_by("import tierkit, sqlite_utils")


def test_there_are_plugins_to_look_at() -> None:
    assert len(outside_files()) >= 3


@pytest.mark.parametrize("file", outside_files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_plugins_and_examples_import_only_what_is_public(file: Path) -> None:
    assert list(forbidden_imports(file.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import tierkit.stack",
        "import tierkit.stack as s",
        "from tierkit.stack import Stack",
        "from tierkit import stack",
        "from tierkit.testing.contract import TierContract",
        "def late():\n    from tierkit.level import Level",
    ],
)
def test_an_import_of_the_engine_is_refused(line: str) -> None:
    assert list(forbidden_imports(line))


@pytest.mark.parametrize("line", ["import tierkit", "from tierkit import testing", "import tierkitchen.sink"])
def test_an_import_of_the_public_names_is_allowed(line: str) -> None:
    assert list(forbidden_imports(line)) == []
