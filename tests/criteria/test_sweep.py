"""The measure of sweeps: that it can be taken of each backend, and sees what it is to see."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks import sweep


@pytest.mark.req("US2-2")
@pytest.mark.parametrize("backend", sorted(sweep.ROUNDS))
def test_a_sweep_is_watched_to_the_last_record(backend: str, tmp_path: Path) -> None:
    swept = sweep.measure(backend, tmp_path, records=400, expired=40, rounds=1)
    assert [len(times) > 0 for times in swept.sweeps + swept.busies] == [True, True]
    assert 0 < len(swept.alone.wall) == len(swept.alone.own)
    assert [figure.what for figure in sweep.figures(swept)] == [
        f"{backend}: p99 of a get beside a sweep",
        f"{backend}: p99.9 of a get beside a sweep",
        f"{backend}: longest of a get beside a sweep",
        f"{backend}: longest hold of a lock, beside the reader",
        f"{backend}: longest hold of a lock, alone",
        f"{backend}: the sweep",
    ]
