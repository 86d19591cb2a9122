from collections.abc import Sequence
from typing import Any

import pytest
from scripts.coverage_gates import failures


def report(total: float = 90.0, lines: Sequence[int] = (), branches: Sequence[list[int]] = ()) -> dict[str, Any]:
    module = {"missing_lines": list(lines), "missing_branches": list(branches)}
    return {"files": {"core/src/tierkit/sealing.py": module}, "totals": {"percent_covered": total}}


GATED = ("tierkit/sealing.py",)


def test_a_report_that_is_good_enough_passes() -> None:
    assert failures(report(), GATED) == []


@pytest.mark.parametrize(
    "bad",
    [report(total=84.9), report(lines=(7,)), report(branches=([7, 9],))],
    ids=["too little overall", "a line not run", "a branch not taken"],
)
def test_each_gate_closes(bad: dict[str, Any]) -> None:
    assert len(failures(bad, GATED)) == 1


def test_a_gated_module_that_is_not_in_the_report_fails() -> None:
    assert failures(report(), ("tierkit/gone.py",)) == ["tierkit/gone.py: not in the report"]
