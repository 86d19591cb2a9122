"""The success criteria of docs/reference/requirements.md, each measured.

`python -m benchmarks criteria [SC-1 ...] [--write]` prints each with its figure and its target, and exits with 1 if one
is missed. All of them take about five minutes; two of these are SC-6, which waits for records to expire.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

from scripts.requirements import ROOT, TABLE, known_ids

from benchmarks import concurrent, expiring, footprint, replay, restarts
from benchmarks.measuring import duration
from benchmarks.page import machine, table, verdict, write_section
from benchmarks.records import default_stack, entries, three_tiers, write_lists
from tierkit import CacheConfig, CacheManager
from tierkit.demo import requests, timed_reads

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Size:
    """How much is done; a test does less.

    Attributes:
        records: That the cache holds.
        gets: Reads, for SC-1 to SC-3.
        puts: For SC-9.
        operations: By all threads together.
        restarts: Each a new process.
        cleanup_seconds: The sweeper's interval; by default that of the cache.
        replay: How much is replayed.
    """

    records: int = 10_000
    gets: int = 100_000
    puts: int = 3_000
    operations: int = 100_000
    restarts: int = 100
    cleanup_seconds: float = 60.0
    replay: replay.Scale = field(default_factory=replay.Scale)


@dataclass(frozen=True)
class Outcome:
    """What was measured, and how that stands to the target."""

    measured: str
    target: str
    holds: bool


Criterion = Callable[[Path, Size], Outcome]


def _stack(folder: Path, size: Size) -> CacheConfig:
    """The default configuration; with fewer records, bounds that are smaller by as much."""
    return default_stack(folder, cache_l1_max_entries=size.records // 10, cache_l2_max_entries=size.records // 2)


def hit_ratio(folder: Path, size: Size) -> Outcome:
    """SC-1, from a cold start."""
    records = {entry.key: entry for entry in entries(size.records)}
    loaded = 0
    with CacheManager(_stack(folder, size)) as cache:
        for key in requests(list(records), size.gets):
            if cache.get(key) is None:
                cache.put(records[key])
                loaded += 1
        found = cache.get_statistics()
    levels = ", ".join(f"{tier.name} {tier.hits / found.requests:.1%}" for tier in found.tiers)
    measured = f"{found.overall_hit_rate:.1%} of {found.requests:,} gets, from a cold start ({levels})"
    counted = (found.requests, found.requests - found.answered) == (size.gets, loaded)
    return Outcome(measured, "80 % or more", counted and found.overall_hit_rate >= 0.8)


def l1_look_up(folder: Path, size: Size) -> Outcome:
    """SC-2."""
    return _look_ups(folder, size, ("L1",), 0.001)


def stored_look_up(folder: Path, size: Size) -> Outcome:
    """SC-3: through the manager, so with the secrets opened and the copies made in the levels above."""
    return _look_ups(folder, size, ("L2", "L3"), 0.05)


def _look_ups(folder: Path, size: Size, levels: Sequence[str], limit: float) -> Outcome:
    with CacheManager(_stack(folder, size)) as cache:
        cache.put_many(entries(size.records))
        taken = timed_reads(cache, requests(list(cache.keys()), size.gets // 2))
    told = "; ".join(
        f"{name} median {duration(median(taken[name]))}, p99 {duration(p99(taken[name]))}" for name in levels
    )
    holds = all(p99(taken[name]) < limit for name in levels)
    return Outcome(told, f"p99 under {duration(limit)}", holds)


def fetches_saved(folder: Path, size: Size) -> Outcome:
    """SC-4."""
    tally = replay.Replay(folder, size.replay).run()
    equal = "" if not tally.differences else f"; {len(tally.differences)} differences from the dict"
    measured = f"{tally.saved:.1%} fewer: {tally.fetches} fetches for {tally.runs} runs of a client{equal}"
    return Outcome(measured, "60 % fewer", tally.saved >= 0.6 and not tally.differences)


def restarts_lose_nothing(folder: Path, size: Size) -> Outcome:
    """SC-5: each start a process of its own, every other one killed."""
    tally = restarts.run(folder, size.restarts, size.records // size.restarts)
    measured = f"{tally.lost} lost or wrong of {tally.records:,}, after {tally.starts} processes, {tally.killed} killed"
    return Outcome(measured, "0 lost", not tally.lost and tally.starts == size.restarts)


def expired_are_gone(folder: Path, size: Size) -> Outcome:
    """SC-6: by the sweeper alone, nobody reads."""
    late = expiring.latest_removal(folder, size.records // 10, size.cleanup_seconds)
    return Outcome(f"the last one {late:.2f} s after its deadline, in any level", "60 s", late <= 60)


def warming(folder: Path, size: Size) -> Outcome:
    """SC-7: the slower of two formats."""
    taken = {}
    for form, path in write_lists(folder, size.records).items():
        with CacheManager(default_stack(folder / form)) as cache:
            started = perf_counter()
            result = cache.warm_from_file(path)
            taken[form] = perf_counter() - started
        if result.loaded != size.records:
            raise RuntimeError(f"loaded {result.loaded} of {size.records}: {result.rejects[:1]}")
    told = ", ".join(f"{form} {duration(seconds)}" for form, seconds in taken.items())
    return Outcome(f"{size.records:,} records with secrets: {told}", "under 5 s", max(taken.values()) < 5)


def concurrent_operations(folder: Path, size: Size) -> Outcome:
    """SC-8."""
    tally = concurrent.run(default_stack(folder), size.operations)
    measured = f"{tally.operations:,} by {concurrent.THREADS} threads: {len(tally.problems)} problems"
    for problem in tally.problems[:20]:
        print(problem, file=sys.stderr)
    return Outcome(f"{measured}; {tally.hits:,} hits + {tally.misses:,} misses", "0 problems", not tally.problems)


def eviction(folder: Path, size: Size) -> Outcome:
    """SC-9: new records into levels that are full, beside levels without a bound."""
    new, others = iter(entries(size.records + size.puts)), iter(entries(size.records + size.puts))
    taken: dict[str, list[float]] = {"full": [], "free": []}
    with (
        CacheManager(_stack(folder / "full", size)) as full,
        CacheManager(three_tiers(folder / "free", bounded=False)) as free,
    ):
        for cache, source in ((full, new), (free, others)):
            cache.put_many(entry for entry, _ in zip(source, range(size.records), strict=False))
        for one, other in zip(new, others, strict=True):
            taken["full"].append(_seconds(full.put, one))
            taken["free"].append(_seconds(free.put, other))
    added = {name: of(taken["full"]) - median(taken["free"]) for name, of in (("median", median), ("p99", p99))}
    told = f"median {duration(added['median'])}, p99 {duration(added['p99'])}, over the median put without one"
    return Outcome(told, "p99 under 10 ms", added["p99"] < 0.01)


def storage(folder: Path, size: Size) -> Outcome:
    """SC-10: every record in both persistent levels."""
    occupied = footprint.occupied(folder, size.records)
    told = f"{occupied / MEGABYTE:.1f} MB for {size.records:,} records in L2 and in L3 together"
    return Outcome(told, "under 100 MB", occupied < 100 * MEGABYTE)


CRITERIA: Mapping[str, Criterion] = {
    "SC-1": hit_ratio,
    "SC-2": l1_look_up,
    "SC-3": stored_look_up,
    "SC-4": fetches_saved,
    "SC-5": restarts_lose_nothing,
    "SC-6": expired_are_gone,
    "SC-7": warming,
    "SC-8": concurrent_operations,
    "SC-9": eviction,
    "SC-10": storage,
}


def p99(seconds: Sequence[float]) -> float:
    """What 99 of 100 do not exceed."""
    return quantiles(seconds, n=100)[98]


def _seconds(act: Callable[..., Any], *args: Any) -> float:
    started = perf_counter()
    act(*args)
    return perf_counter() - started


def measured(names: Sequence[str], size: Size) -> dict[str, Outcome]:
    """The outcome of each of these criteria."""
    found = {}
    for name in names:
        print(f"measuring {name} ...", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            found[name] = CRITERIA[name](Path(folder), size)
    return found


def main(arguments: Sequence[str], size: Size = Size()) -> int:
    """Measure the criteria that are asked for, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks criteria", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*CRITERIA, []], default=[], help="which (all)")
    parser.add_argument("--write", action="store_true", help="write the section of the page; of all only")
    asked = parser.parse_args(arguments)
    if asked.names and asked.write:
        parser.error("--write needs all criteria, since the page would else lose the others")
    found = measured(asked.names or list(CRITERIA), size)
    printed = _table(found)
    print(printed)
    if asked.write:
        write_section("Success criteria", f"{_INTRODUCTION.format(machine=machine())}\n{printed}")
    return 0 if all(outcome.holds for outcome in found.values()) else 1


_INTRODUCTION = """The success criteria of the [requirements](reference/requirements.md), with the default
configuration, on {machine}. Written by

    uv run python -m benchmarks criteria --write
"""


def known_requirements() -> dict[str, str]:
    """Every requirement, by id."""
    return known_ids((ROOT / TABLE).read_text("utf-8"))


def _table(found: Mapping[str, Outcome]) -> str:
    known = known_requirements()
    rows = [
        (name, known[name], outcome.measured, outcome.target, verdict(outcome.holds)) for name, outcome in found.items()
    ]
    return table(("id", "requirement", "measured", "target", ""), rows)
