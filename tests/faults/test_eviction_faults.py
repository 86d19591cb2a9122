"""The tests of policies catch planted faults: every ninth of the table here; the command runs all of them.

`uv run python -m tests.faults.eviction_faults`
"""

import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults import eviction_faults
from tests.faults.eviction_faults import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]
PASSES = "test_eviction.py::test_fifo_alone_counts_no_reads"


def test_there_are_many_different_faults() -> None:
    assert len({fault.what for fault in FAULTS}) == len(FAULTS) >= 20


def test_the_tests_catch_them() -> None:
    chosen = FAULTS[1::9]
    command = [sys.executable, "-m", "tests.faults.eviction_faults", *(fault.what for fault in chosen)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"{len(chosen)} of {len(chosen)} faults caught" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize(
    "test", ["test_eviction.py::test_fifo_alone_counts_no_reads", "test_eviction.py::test_unknown"]
)
def test_a_fault_that_survives_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], test: str
) -> None:
    monkeypatch.setattr(eviction_faults, "FAULTS", (Fault("nothing is wrong", Fault, "unused", None, test),))
    assert eviction_faults.main([]) == 1
    printed = capsys.readouterr().out
    assert "SURVIVED  nothing is wrong" in printed
    assert "0 of 1 faults caught" in printed


def test_words_that_no_fault_has_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert eviction_faults.main(["no such words"]) == 2
    assert "no such words" in capsys.readouterr().out
