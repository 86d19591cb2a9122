"""A sweep of many expired records, and what readers and writers notice of it.

Records are put, a tenth of them with a deadline that then comes. While the background sweep removes those, one thread
reads records that live, as fast as it can. The same reads are made beside a thread that does nothing but count, in
turns as long as a step of the sweep and with rests that give it the same share of the processor. Locks are watched
from the first entry to the last exit: for memory the tier's lock, for JSON Lines a shard's write, for SQLite a
statement that writes or a transaction, each with everything in it. Beside readers a hold by the wall clock includes
what the sweeping thread waits for within: a processor, the interpreter, in SQLite other writers too, as the reader
brings usage down. So the locks are watched once more in a sweep with nobody beside it: the target is for that. In
SQLite a statement that begins the log anew after a checkpoint waits for the disk.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.measuring import Figure, duration
from benchmarks.page import machine, table, verdict, write_section
from tierkit import CacheConfig, CacheEntry, CacheManager
from tierkit.testing import FakeClock

RECORDS = 1_000_000
EXPIRED = 100_000
ROUNDS = {"memory": 3, "jsonl": 1, "sqlite": 1}
MOST_TIMES = 2.0
LONGEST_HOLD_SECONDS = 0.001
LIFE_SECONDS = 60.0
_READS_AT_ONCE = 1000


class Record(CacheEntry):
    """A record without secrets, so that filling the store does not take long."""

    text: str = ""


@dataclass
class Holds:
    """How long locks were held by the sweeping thread, in seconds of the wall clock and of its own."""

    wall: list[float] = field(default_factory=list)
    own: list[float] = field(default_factory=list)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A lock is held within, if this is the thread that sweeps."""
        if threading.current_thread().name != "sweep":
            yield
            return
        wall, own = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self.wall.append(time.perf_counter() - wall)
            self.own.append(time.thread_time() - own)

    def taken(self) -> Holds:
        """What was watched so far; watch on from nothing."""
        taken = Holds(self.wall, self.own)
        self.wall, self.own = [], []
        return taken


class WatchedLock:
    """A reentrant lock whose outermost holds are watched."""

    def __init__(self, lock: Any, holds: Holds) -> None:
        self._lock, self._holds = lock, holds
        self._depth = 0
        self._watch: Any = None

    def __enter__(self) -> None:
        self._lock.acquire()
        self._depth += 1
        if self._depth == 1:
            self._watch = self._holds.watched()
            self._watch.__enter__()

    def __exit__(self, *_: object) -> None:
        if self._depth == 1:
            self._watch.__exit__(None, None, None)
        self._depth -= 1
        self._lock.release()


def watch(backend: str, tier: Any) -> Holds:
    """Watch the locks that a purge of `tier` takes."""
    holds = Holds()
    if backend == "memory":
        tier.lock = WatchedLock(tier.lock, holds)
    elif backend == "jsonl":
        for shard in tier._store.shards:
            shard.write = _watched(shard.write, holds)
    else:
        connections = tier._connections
        connections.write = _watched(connections.write, holds)
        connections.write_one = _watched(connections.write_one, holds)
    return holds


def _watched(write: Callable[..., Any], holds: Holds) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        with holds.watched():
            return write(*args)

    return call


@dataclass
class Beside:
    """What a thread beside the reader did: how long it took, and how much of that it worked, in seconds."""

    wall: float = 0.0
    own: float = 0.0


def read_beside(
    get: Callable[[str], object], keys: Sequence[str], work: Callable[[Beside], None]
) -> tuple[Any, Beside]:
    """The seconds that each read took while `work` was done by another thread."""
    beside = Beside()
    thread = threading.Thread(target=_measured, args=(work, beside), name="sweep")
    taken: list[float] = []
    clock = time.perf_counter
    gc.collect()
    gc.disable()
    thread.start()
    try:
        while thread.is_alive():
            for key in random.choices(keys, k=_READS_AT_ONCE):
                start = clock()
                get(key)
                taken.append(clock() - start)
    finally:
        gc.enable()
        thread.join()
    return taken, beside


def _measured(work: Callable[[Beside], None], beside: Beside) -> None:
    wall, own = time.perf_counter(), time.thread_time()
    work(beside)
    beside.wall, beside.own = time.perf_counter() - wall, time.thread_time() - own


def busy(like: Beside, steps: int) -> Callable[[Beside], None]:
    """Counting, for as long as `like` took and with its share of the processor, in as many turns."""
    turn, rest = like.own / steps, max(0.0, (like.wall - like.own) / steps)

    def work(_: Beside) -> None:
        ends = time.perf_counter() + like.wall
        while time.perf_counter() < ends:
            until = time.thread_time() + turn
            while time.thread_time() < until:
                sum(range(50))
            time.sleep(rest)

    return work


@dataclass
class Swept:
    """What was measured of one backend: per round the times of reads beside the sweep and beside the busy thread."""

    backend: str
    sweeps: list[list[float]] = field(default_factory=list)
    busies: list[list[float]] = field(default_factory=list)
    took: list[Beside] = field(default_factory=list)
    holds: Holds = field(default_factory=Holds)
    alone: Holds = field(default_factory=Holds)

    def p(self, part: float, beside_sweep: bool) -> float:
        """The median over the rounds of a quantile."""
        return statistics.median(_quantile(times, part) for times in (self.sweeps if beside_sweep else self.busies))


def _quantile(times: Sequence[float], part: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * part))]


def measure(backend: str, folder: Path, records: int, expired: int, rounds: int) -> Swept:
    """Fill a store, and sweep it `rounds` times."""
    clock, found = FakeClock(), Swept(backend)
    place = {} if backend == "memory" else {"path": folder / backend}
    config = CacheConfig(tiers=({"backend": backend, **place},), default_ttl_seconds=1e8)
    with CacheManager(config, entry_type=Record, clock=clock) as cache:
        cache.put_many(Record(key=f"live {n}", text="x" * 50) for n in range(records - expired))
        keys = [f"live {n}" for n in range(0, records - expired, 7)]
        holds = watch(backend, cache.levels[0].tier)
        for alone in (*[False] * rounds, True):
            cache.put_many(Record(key=f"old {n}", ttl_seconds=LIFE_SECONDS) for n in range(expired))
            clock.advance(LIFE_SECONDS)
            if alone:
                found.holds = holds.taken()
                _sweep_alone(cache)
                found.alone = holds.taken()
            else:
                _round(cache, keys, expired, found)
    return found


def _sweep_alone(cache: CacheManager[Record]) -> None:
    thread = threading.Thread(target=cache._stack.sweep, name="sweep")
    thread.start()
    thread.join()


def _round(cache: CacheManager[Record], keys: list[str], expired: int, found: Swept) -> None:
    stack: Any = cache._stack
    rests = _Counted(stack.halt)
    stack.halt = rests
    removed: list[int] = []
    taken, took = read_beside(cache.get, keys, lambda _: removed.append(stack.sweep()))
    if removed != [expired]:
        raise RuntimeError(f"the sweep removed {removed}, not {expired}")
    found.sweeps.append(taken)
    found.took.append(took)
    found.busies.append(read_beside(cache.get, keys, busy(took, rests.count))[0])
    stack.halt = rests.event


class _Counted:
    """Counts the rests of a sweep."""

    def __init__(self, event: threading.Event) -> None:
        self.event, self.count = event, 0

    def wait(self, seconds: float) -> bool:
        self.count += 1
        return self.event.wait(seconds)

    def set(self) -> None:
        self.event.set()


def figures(swept: Swept) -> list[Figure]:
    """The figures of one backend."""
    name = swept.backend
    found = []
    for part, label in ((0.99, "p99"), (0.999, "p99.9"), (1.0, "longest")):
        ours, beside = swept.p(part, True), swept.p(part, False)
        bound = label == "p99"
        target = f"at most {MOST_TIMES:g} times" if bound else "none"
        what = f"{name}: {label} of a get beside a sweep"
        holds = not bound or ours / beside <= MOST_TIMES
        found.append(Figure(what, duration(ours), f"busy thread: {duration(beside)}", ours / beside, target, holds))
    found += [_hold(f"{name}: longest hold of a lock, beside the reader", swept.holds, "none")]
    found += [_hold(f"{name}: longest hold of a lock, alone", swept.alone, f"at most {duration(LONGEST_HOLD_SECONDS)}")]
    took = swept.took[0]
    share = f"{took.own / took.wall:.0%} of one processor"
    found.append(Figure(f"{name}: the sweep", duration(took.wall), share, None, "none", holds=True))
    return found


def _hold(what: str, holds: Holds, target: str) -> Figure:
    longest, own = max(holds.wall), max(holds.own)
    over = sum(taken > LONGEST_HOLD_SECONDS for taken in holds.wall)
    told = f"its own time {duration(own)}; {over} of {len(holds.wall)} over {duration(LONGEST_HOLD_SECONDS)}"
    return Figure(what, duration(longest), told, None, target, target == "none" or longest <= LONGEST_HOLD_SECONDS)


def main(arguments: Sequence[str]) -> int:
    """Sweep, print, and write the section of the page if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks sweep", description=__doc__)
    parser.add_argument("backends", nargs="*", choices=[*ROUNDS, []], default=[], help="which to sweep (all)")
    parser.add_argument("--records", type=int, default=RECORDS, help="how many there are, a tenth of them expired")
    parser.add_argument("--write", action="store_true", help="write the section of the page")
    asked = parser.parse_args(arguments)
    found: list[Figure] = []
    for backend in asked.backends or ROUNDS:
        with tempfile.TemporaryDirectory() as folder:
            expired = asked.records * EXPIRED // RECORDS
            found += figures(measure(backend, Path(folder), asked.records, expired, ROUNDS[backend]))
    head = ("what", "beside the sweep", "beside", "ratio", "target", "")
    rows = [
        (f.what, f.measured, f.beside, "" if f.ratio is None else f"{f.ratio:.2f}", f.target, verdict(f.holds))
        for f in found
    ]
    printed = table(head, rows)
    print(printed)
    if asked.write:
        write_section("Sweeps", _introduction(asked.records) + printed)
    return 0 if all(figure.holds for figure in found) else 1


def _introduction(records: int) -> str:
    story = (__doc__ or "").split("\n\n", 1)[1]
    return f"{story}\nOf {records:,} records, on {machine()}, with\n\n    uv run python -m benchmarks sweep --write\n\n"
