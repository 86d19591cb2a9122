"""The table of tests whose coverage is not measured names tests that are there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unmeasured import UNMEASURED

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", UNMEASURED)
def test_what_is_not_measured_is_there(name: str) -> None:
    path, _, test = name.partition("::")
    assert (ROOT / path).exists()
    assert not test or re.search(rf"^((def|class) )?{test.removesuffix('::')}", _text(path), re.MULTILINE)


def _text(path: str) -> str:
    return (ROOT / path).read_text("utf-8")


def test_what_is_loaded_late_is_loaded_measured_whatever_test_comes_first(tmp_path: Path) -> None:
    report = tmp_path / "coverage.json"
    options = ("--collect-only", "--quiet", "--cov", f"--cov-report=json:{report}", "--cov-fail-under=0")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST"))}
    subprocess.run(
        [sys.executable, "-m", "pytest", *options, __file__],
        env=environ | {"COVERAGE_FILE": str(tmp_path / "data")},
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    files = json.loads(report.read_text("utf-8"))["files"]
    assert files["core/src/tierkit/transfer/exporting.py"]["executed_lines"]
