"""What must be survived, in the short form: nothing is violated.

`uv run python -m tests.faults.campaign` runs the long forms.
"""

from pathlib import Path

import pytest
from tests.faults.campaign import TRIALS
from tests.faults.trials import Trial


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.name)
def test_nothing_is_violated(trial: Trial, tmp_path: Path) -> None:
    if trial.obstacle():
        pytest.skip(trial.obstacle())
    assert trial.run(tmp_path, "short").violations == []
