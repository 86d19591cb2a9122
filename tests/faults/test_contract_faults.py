"""The contract catches planted faults: every 18th of the table here, to save time; `.ci/run` hunts all of them.

`uv run python -m tests.faults.contract_faults`
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import Mock
from uuid import uuid4

import pytest
from tests.faults import contract_faults
from tests.faults.contract_faults import FAULTS

ROOT = Path(__file__).resolve().parents[2]


def hunt(*names: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.faults.contract_faults", *names]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_there_are_many_different_faults() -> None:
    assert len({fault.name for fault in FAULTS}) == len({fault.what for fault in FAULTS}) == len(FAULTS) >= 12


def test_the_contract_catches_them() -> None:
    chosen = FAULTS[::18]
    done = hunt(*(fault.name for fault in chosen))
    assert f"{len(chosen)} of {len(chosen)} faults caught" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_a_fault_that_survives_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pytest, "main", Mock())
    assert contract_faults.main(["OlderWins", "EqualVersionOverwrites"]) == 1
    printed = capsys.readouterr().out
    assert "SURVIVED  an older version wins" in printed
    assert "0 of 2 faults caught" in printed


def test_the_faults_are_hunted_in_two_parts_in_other_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def run(arguments: Sequence[str], plugins: object) -> None:
        (tmp_path / uuid4().hex).write_text(" ".join([str(os.getpid()), *(a for a in arguments if "::" in a)]))

    monkeypatch.setattr(pytest, "main", run)
    monkeypatch.setattr(contract_faults, "HUNTS", 1)
    contract_faults.main([])
    written = [file.read_text().split() for file in tmp_path.iterdir()]
    assert str(os.getpid()) not in {process for process, *_ in written}
    parts = [part for _, *part in written]
    assert len(parts) == 2
    assert sorted(parts[0] + parts[1]) == sorted(f"{contract_faults.__file__}::Test{fault.name}" for fault in FAULTS)


def test_a_name_that_is_not_in_the_table_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert contract_faults.main(["NoSuchFault"]) == 2
    assert "NoSuchFault" in capsys.readouterr().out
