"""Schedules: two caches over shared storages, run step by step in an order that a seed decides, and judged.

    python -m tests.model.schedules 200000            # as many schedules, on two cores
    python -m tests.model.schedules --seconds 60      # as many as there is time for
    python -m tests.model.schedules --seed 17 --trace # one of them, with every step

Exits with 1 if an invariant was violated, and prints the seed and what was wrong.
"""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random

from tests.model.cooperative import Violation
from tests.model.judging import judge
from tests.model.operations import EVENTS, perform, weighted, work
from tests.model.shapes import KEYS, PROFILES, SHAPES, STALENESS, Profile
from tests.model.world import World, in_force

WORKERS = 2
CHUNK = 100


@dataclass
class Outcome:
    """What became of a schedule.

    Attributes:
        violation: What was wrong, or None.
        trace: Its steps, if they were asked for.
    """

    seed: int
    shape: str
    profile: str
    steps: int = 0
    violation: str | None = None
    trace: list[str] = field(default_factory=list)


def run(seed: int, *, trace: bool = False) -> Outcome:
    """Run the schedule with this number."""
    random = Random(seed)
    shape, profile = random.choice(SHAPES), random.choice(PROFILES)
    world = World(shape, random.choice(STALENESS), random, trace=trace)
    outcome = Outcome(seed, shape.name, profile.name)
    try:
        with in_force(world):
            _play(world, profile)
            judge(world)
    except Violation as violation:
        outcome.violation = str(violation)
    except Exception as error:  # noqa: BLE001 - whatever an operation raises besides errors of storages is one
        outcome.violation = f"{type(error).__name__}: {error}"
    outcome.steps = world.scheduler.steps
    outcome.trace = world.trace or []
    return outcome


def _play(world: World, profile: Profile) -> None:
    random = world.random
    for process in world.processes:
        world.open(process)
    operations = weighted(profile, "operations")
    keys = KEYS[: random.choice(profile.keys)]
    for _ in range(random.choice((0, 1, 2, 3))):
        perform(world, random.choice(world.processes), random.choice(("put", "put", "get")), random.choice(keys))
    for index, process in enumerate(world.processes):
        for _ in range(random.randrange(2, 7)):
            world.work[index].append((random.choice(operations), random.choice(keys)))
        for _ in range(random.choice(profile.threads)):
            world.scheduler.spawn(process, lambda index=index: work(world, index))  # type: ignore[misc]  # its type cannot be inferred
    events = [random.choice(weighted(profile, "events")) for _ in range(random.randrange(profile.most_events + 1))]

    def event() -> bool:
        if events:
            EVENTS[events.pop()](world)
        return bool(events)

    world.scheduler.event = event if events else None
    world.scheduler.run()


# -- many --------------------------------------------------------------------------------------------------------------


def run_many(seeds: Iterable[int]) -> list[Outcome]:
    """Run these schedules; what they leave behind is collected afterwards, outside of any."""
    gc.disable()
    try:
        with quiet():
            return [run(seed) for seed in seeds]
    finally:
        gc.enable()
        gc.collect()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the log of what goes wrong on purpose."""
    log = logging.getLogger("tierkit")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


def _chunks(number: int, first: int) -> Iterable[range]:
    return (range(start, min(start + CHUNK, first + number)) for start in range(first, first + number, CHUNK))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says; answer how the program should exit."""
    parser = argparse.ArgumentParser(description="Run the engine's operations step by step, in drawn orders.")
    parser.add_argument("number", nargs="?", type=int, default=10**9, help="how many schedules")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after as many seconds")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first violation")
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument("--trace", action="store_true", help="print every step of it")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        return _one(options.seed, trace=options.trace)
    if options.number == 10**9 and options.seconds == float("inf"):
        options.number = 2000
    return _many(options)


def _one(seed: int, *, trace: bool) -> int:
    with quiet():
        outcome = run(seed, trace=trace)
    for line in outcome.trace:
        print(line)
    print(f"seed {seed}, {outcome.shape}, {outcome.profile}, {outcome.steps} steps: {outcome.violation or 'sound'}")
    return 1 if outcome.violation else 0


def _many(options: argparse.Namespace) -> int:
    started = time.monotonic()
    done, steps, profiles, violations = 0, 0, Counter[str](), 0
    with multiprocessing.get_context("fork").Pool(WORKERS) as pool:
        for outcomes in pool.imap_unordered(run_many, _chunks(options.number, options.first)):
            for outcome in outcomes:
                done, steps = done + 1, steps + outcome.steps
                profiles[outcome.profile] += 1
                if outcome.violation:
                    violations += 1
                    print(f"seed {outcome.seed}, {outcome.shape}, {outcome.profile}: {outcome.violation}", flush=True)
            if (violations and not options.keep_going) or time.monotonic() - started > options.seconds:
                break
        pool.terminate()
    took = time.monotonic() - started
    print(", ".join(f"{name}: {number}" for name, number in sorted(profiles.items())))
    print(f"{done} schedules, {steps} steps, {violations} violations, {took:.0f} s, {took / done * 1000:.2f} ms each")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
