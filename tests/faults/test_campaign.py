"""The command that runs the campaign. Its trials are run by `test_trials.py` and `test_trial_faults.py`."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.faults import campaign
from tests.faults.campaign import BEGIN, END, REPORT, TRIALS
from tests.faults.trials import Effort, Outcome, Trial

broken = False


def test_every_event_of_the_document_has_a_trial() -> None:
    """But for the model, which has a command of its own."""
    rows = {int(number) for number in re.findall(r"^\| (\d+) \| [A-Z]", REPORT.read_text(), re.MULTILINE)}
    assert {trial.row for trial in TRIALS} == rows - {17}


def test_names_are_different_and_every_trial_has_a_fault() -> None:
    assert len({trial.name for trial in TRIALS}) == len(TRIALS)
    assert all(trial.faults for trial in TRIALS)


@contextmanager
def planted() -> Iterator[None]:
    global broken  # noqa: PLW0603 - as a fault is planted: for as long as it is hunted
    broken = True
    try:
        yield
    finally:
        broken = False


@contextmanager
def harmless() -> Iterator[None]:
    yield


def run(folder: Path, effort: Effort) -> Outcome:
    assert folder.is_dir()
    outcome = Outcome()
    outcome.count("kills", 200 if effort == "long" else 2)
    outcome.check(not broken, "a record was lost")
    return outcome


SOUND = Trial(1, "sound", run, {"it is broken": planted})
BLIND = Trial(2, "blind", run, {"it is harmless": harmless})
ABSENT = Trial(3, "absent", run, {"it is broken": planted}, lambda: "needs root")


def test_the_command_tells_and_writes_what_came_of_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.md"
    old = "| 2 | blind | 5 kills | 0 | 0 of 1 |"
    gone = "| 4 | gone | 5 kills | 0 | 1 of 1 |"
    report.write_text(f"before\n{BEGIN}\n{old}\n{gone}\n{END}\nafter\n")
    assert campaign.main(["--write", "sound", "sent"], [SOUND, BLIND, ABSENT], report) == 0
    assert "1 sound: 200 kills; 0 violations" in (printed := capsys.readouterr().out)
    assert "found     it is broken: a record was lost" in printed
    assert "3 absent: not run: needs root" in printed
    written = report.read_text()
    assert "| 1 | sound | 200 kills | 0 | 1 of 1 |" in written
    assert "| 3 | absent | not run: needs root | | |" in written
    assert old in written  # it was not run now
    assert "gone" not in written
    assert written.startswith("before\n")
    assert written.endswith("\nafter\n")


def test_a_fault_that_survives_fails_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert campaign.main(["--short", "blind"], [SOUND, BLIND]) == 1
    printed = capsys.readouterr().out
    assert "2 kills" in printed
    assert "SURVIVED  it is harmless" in printed
    assert "sound" not in printed


def test_a_violation_fails_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with planted():
        assert campaign.main([], [SOUND]) == 1
    assert "VIOLATION a record was lost" in capsys.readouterr().out


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert campaign.main(["silent"], [SOUND]) == 2
    assert "no such trial; there are\n  sound" in capsys.readouterr().out
