"""The schedules catch planted faults: a few of the table here, to save time; the command plants all of them.

`uv run python -m tests.model.engine_faults`
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.model import engine_faults
from tests.model.faults import FAULTS
from tests.model.planting import Fault, NotPlantable, faulty, planted

from tierkit.usage import UsageLedger

ROOT = Path(__file__).resolve().parents[2]


def test_there_are_many_different_faults() -> None:
    assert len({fault.what for fault in FAULTS}) == len({(f.where, f.old, f.new) for f in FAULTS}) == len(FAULTS) >= 30


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.what)
def test_each_can_be_planted_in_the_engine_as_it_is(fault: Fault) -> None:
    assert callable(faulty(fault))


def test_some_are_caught() -> None:
    words = ["no stamp above", "reaches only", "replaced there"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.model.engine_faults", *words],
        cwd=ROOT,
        env={**os.environ, "COVERAGE_PROCESS_START": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "3 of 3 faults caught" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_one_that_survives_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine_faults, "_hunted", lambda faults, _: [""] * len(faults))
    assert engine_faults.main(["a put does not make room"]) == 1
    printed = capsys.readouterr().out
    assert "SURVIVED  a put does not make room" in printed
    assert "0 of 1 faults caught" in printed
    assert engine_faults.main(["nothing that is in the table"]) == 2


def test_a_fault_that_the_source_has_no_place_for_is_an_error() -> None:
    with pytest.raises(NotPlantable, match="0 times"):
        faulty(Fault("", "usage:UsageLedger.pop", "no such line", "pass"))


def test_a_fault_is_gone_when_it_was_looked_for() -> None:
    ledger = UsageLedger()
    ledger.add("a", 1, 0.0)
    with planted(Fault("", "usage:UsageLedger.pop", "self._pending.pop(key, None)", "None")):
        assert ledger.pop("a") is None
    assert ledger.pop("a") is not None
