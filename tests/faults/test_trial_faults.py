"""The trials find every fault that is planted for them. In a file of its own, for tests run by file at once."""

from pathlib import Path

import pytest
from tests.faults.campaign import TRIALS
from tests.faults.trials import Trial

FAULTS = [(trial, fault) for trial in TRIALS for fault in trial.faults]


@pytest.mark.no_canary("the fault that is planted may be a leak")
@pytest.mark.parametrize(("trial", "fault"), FAULTS, ids=[f"{trial.name}: {fault}" for trial, fault in FAULTS])
def test_a_planted_fault_is_found(trial: Trial, fault: str, tmp_path: Path) -> None:
    if trial.obstacle():
        pytest.skip(trial.obstacle())
    assert trial.finds(fault, tmp_path)
