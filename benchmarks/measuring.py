"""Measuring two or more ways side by side: rounds alternate between them, so that a busy machine slows all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the report.

    Attributes:
        what: What was measured.
        measured: The figure, with its unit.
        beside: What it was measured against, with its figure.
        ratio: How many times the one beside; None where there is none.
        target: What the ratio, or the figure, must not exceed.
        holds: Whether it does not.
    """

    what: str
    measured: str
    beside: str
    ratio: float | None
    target: str
    holds: bool


def side_by_side(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    calls: int = 1,
    of_rounds: Callable[[list[float]], float] = statistics.median,
) -> dict[str, float]:
    """The seconds of one call of each way, over `rounds` rounds of `calls` calls: the median, or what `of_rounds` says.

    Where two ways are subtracted, `min` is steadier: a busy machine only adds, and not the same to each.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, way in ways.items():
                taken[name].append(_timed(way, calls))
    finally:
        gc.enable()
    return {name: of_rounds(times) for name, times in taken.items()}


def _timed(way: Callable[[], object], calls: int) -> float:
    repeat = range(calls)
    start = time.perf_counter()
    for _ in repeat:
        way()
    return (time.perf_counter() - start) / calls


def ratio_figure(what: str, ours: float, bare: float, beside: str, limit: float) -> Figure:
    """A figure whose target is a ratio of two times."""
    ratio = ours / bare
    target = f"at most {limit:g} times"
    return Figure(what, duration(ours), f"{beside}: {duration(bare)}", ratio, target, ratio <= limit)


def duration(seconds: float) -> str:
    """`seconds` with a unit that a person reads easily."""
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"
