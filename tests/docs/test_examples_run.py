"""The code blocks of the documents run, in order, each document in a folder and an interpreter of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    "README.md",
    "docs/quickstart.md",
    "docs/how-to/configure.md",
    "docs/how-to/troubleshoot.md",
    "docs/how-to/cache.md",
    "docs/how-to/health.md",
    "docs/how-to/lease.md",
    "docs/how-to/query.md",
    "docs/how-to/warm.md",
    "docs/how-to/export.md",
    "docs/how-to/backup.md",
    "docs/how-to/damaged-store.md",
    "docs/how-to/doctor.md",
    "docs/how-to/monitor.md",
    "docs/how-to/rotate-keys.md",
    "docs/reference/expiry.md",
    "docs/explanation/secrets.md",
    "docs/reference/hooks.md",
    "docs/reference/progress.md",
]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(document: Path) -> list[str]:
    return BLOCK.findall(document.read_text())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_code_blocks_of_a_document_run(name: str, tmp_path: Path) -> None:
    program = "\n".join(blocks(ROOT / name))
    assert program
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TIERKIT_")}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=tmp_path,
        env=environment | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_every_document_with_python_in_it_is_run() -> None:
    documents = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    with_code = {str(path.relative_to(ROOT)) for path in documents if blocks(path)}
    assert with_code == set(DOCUMENTS)


def test_the_example_of_the_readme_is_at_most_15_lines() -> None:
    (example,) = blocks(ROOT / "README.md")
    statements = [line for line in example.splitlines() if line.strip()]
    assert len(statements) <= 16  # one of them is the closing bracket of a call
