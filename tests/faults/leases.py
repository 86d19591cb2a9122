"""Leases under many workers, half of whom are killed with a record in hand.

Each worker opens a cache of its own over one storage and takes records, one after another: for a moment, or so long
that its lease runs out. What it does it writes into a file of its own, with the time of a clock that all processes
share: that is the witness. Whoever is killed wrote that he took a record and not that he returned it; nobody else may
have it before the lease runs out, and afterwards it must come back.
"""

from __future__ import annotations

import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from tests.faults.logs import warnings_kept
from tests.faults.trials import Effort, Outcome, Trial

from tierkit import CacheConfig, CacheEntry, CacheManager
from tierkit.leases import Lease, LeaseStore
from tierkit.side import SideStore
from tierkit.testing.suite.processes import Child, forked, receive, send


class Account(CacheEntry):
    """A record that is handed out."""

    number: int = 0


class Size(NamedTuple):
    """How much is tried.

    Attributes:
        workers: Processes; half of them are killed.
        leases: How many each takes.
        records: For all of them.
        ttl: Of a lease, in seconds.
        dawdling: The part of the leases that are held until they have run out, and then returned all the same.
    """

    workers: int
    leases: int
    records: int
    ttl: float
    dawdling: float


SIZES: Final[dict[Effort, Size]] = {"short": Size(4, 12, 3, 0.1, 0.25), "long": Size(8, 200, 20, 1.0, 0.06)}
PATIENCE: Final = 30.0
LEVELS: Final[dict[str, Callable[[Path], list[dict[str, Any]]]]] = {
    "jsonl": lambda root: [{"backend": "jsonl", "path": root / "store", "shards": 2}],
    "sqlite": lambda root: [{"backend": "sqlite", "path": root / "store.db"}],
    "memory, jsonl, sqlite": lambda root: [
        {"backend": "memory"},
        {"backend": "jsonl", "path": root / "store", "shards": 2},
        {"backend": "sqlite", "path": root / "store.db"},
    ],
}


class Hold(NamedTuple):
    """That a worker had a record in hand, by the clock that all share.

    Attributes:
        key: The record.
        token: Of the lease.
        since: When the lease had been taken.
        until: When it was returned, or ran out.
        returned: Whether it was returned; else its holder was killed.
    """

    key: str
    token: int
    since: float
    until: float
    returned: bool = False


def open_cache(levels: str, root: Path) -> CacheManager[Account]:
    """A cache over the storage in `root`."""
    return CacheManager(CacheConfig(tiers=LEVELS[levels](root)), entry_type=Account)


# -- a worker --------------------------------------------------------------------------------------------------------


def work(cache: CacheManager[Account], notes: Path, size: Size, seed: int, told: Callable[[int], None]) -> None:
    """Take and return records, noting each; `told` hears how many by now."""
    chance, until = random.Random(seed), time.monotonic() + PATIENCE
    file = os.open(notes, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    taken = 0
    while taken < size.leases and time.monotonic() < until:
        asked = time.monotonic()  # the lease begins after this: it runs out after `asked + ttl`
        hand = cache.lease(ttl=size.ttl, timeout=0.005)
        with hand as entry:
            if entry is None:
                continue
            os.write(file, f"took {entry.key} {hand.token} {time.monotonic()!r} {asked + size.ttl!r}\n".encode())
            taken += 1
            told(taken)
            time.sleep(size.ttl * 1.3 if chance.random() < size.dawdling else chance.choice((0.0, 0.0, size.ttl / 50)))
            os.write(file, f"back {entry.key} {hand.token} {time.monotonic()!r} 0\n".encode())
    os.close(file)


def holds_in(notes: Path) -> Iterator[Hold]:
    """What a worker noted; a line that a kill cut off counts as not written."""
    took: Hold | None = None
    for line in notes.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        what, key, token, when, end = line.split()
        if what == "took":
            if took is not None:
                yield took
            took = Hold(key, int(token), float(when), float(end))
        elif took is not None:
            yield took._replace(until=min(took.until, float(when)), returned=True)
            took = None
    if took is not None:
        yield took


# -- the trial -------------------------------------------------------------------------------------------------------


def tried(levels: str, root: Path, effort: Effort) -> Outcome:
    """Let workers take records, kill half of them, and look at what they noted."""
    size, outcome = SIZES[effort], Outcome()
    with open_cache(levels, root) as cache:
        cache.put_many([Account(key=f"account-{number}", number=number) for number in range(size.records)])
    with warnings_kept():  # of leases that ran out, which is wanted
        outcome.count("kills", killed(levels, root, size))
    holds = [hold for notes in root.glob("worker-*") for hold in holds_in(notes)]
    outcome.count("killed with a record in hand", sum(not hold.returned for hold in holds))
    outcome.count("leases", len(holds))
    judge(holds, outcome)
    with open_cache(levels, root) as cache:
        come_back(cache, size, outcome)
    return outcome


def killed(levels: str, root: Path, size: Size) -> int:
    """Run the workers and kill every second one, somewhere on its way, with a record in hand as like as not."""

    def worker(number: int) -> Callable[[Connection], None]:
        def run(pipe: Connection) -> None:
            with open_cache(levels, root) as cache:
                receive(pipe)
                work(cache, root / f"worker-{number}", size, number, lambda taken: send(pipe, taken))

        return run

    chance = random.Random(size.workers)
    with ExitStack() as stack:
        children: list[Child] = [stack.enter_context(forked(worker(number))) for number in range(size.workers)]
        for child in children:
            child.send(0)
        for child in children[1::2]:
            last = chance.randrange(size.leases // 4, size.leases * 3 // 4)
            while child.receive() < last:
                pass
            child.kill()
        for child in children[::2]:
            while child.receive() < size.leases:
                pass
    return len(children[1::2])


def judge(holds: list[Hold], outcome: Outcome) -> None:
    """No record is in two hands at a time, and tokens grow.

    A worker that was held up until its lease had run out, before it noted that it had taken one, never had the record.
    """
    by_key = defaultdict(list)
    for hold in sorted(holds, key=lambda hold: hold.since):
        if hold.since < hold.until:
            by_key[hold.key].append(hold)
    for key, held in by_key.items():
        for former, later in pairwise(held):
            early = former.until - later.since
            outcome.check(early <= 0, f"{key} was in two hands for {early * 1000:.1f} ms")
            outcome.check(former.token < later.token, f"the token of {key} did not grow")


def come_back(cache: CacheManager[Account], size: Size, outcome: Outcome) -> None:
    """Every record can be had once the leases of those who were killed have run out."""
    until = time.monotonic() + size.ttl * 3 + 0.5
    hands = [cache.lease(timeout=max(until - time.monotonic(), 0.0)) for _ in range(size.records)]
    keys = {hand.entry.key for hand in hands if hand.entry is not None}
    outcome.count("records that came back", len(keys))
    outcome.check(len(keys) == size.records, f"{size.records - len(keys)} records did not come back")
    for hand in hands:
        hand.release()
    outcome.check(cache.size() == size.records, f"{size.records - cache.size()} records are lost")


# -- planted faults --------------------------------------------------------------------------------------------------


def held_is_ignored() -> AbstractContextManager[object]:
    """A fault: a lease that runs is taken as if it had run out."""
    return patch.object(LeaseStore, "_runs", lambda *_: False)


def never_over() -> AbstractContextManager[object]:
    """A fault: a lease does not run out."""
    return patch.object(LeaseStore, "_runs", lambda *_: True)


def put_in_place() -> AbstractContextManager[object]:
    """A fault: a lease is put, not compared and set, so that the last of two takers wins and both have it."""

    def replace(self: SideStore[Lease], entry: Lease, _: int) -> bool:
        time.sleep(0.0005)  # what another process does meanwhile
        record = self._record(entry)
        self._call(lambda tier: tier.put(record), writing=True)
        return True

    return patch.object(SideStore, "replace", replace)


def anyones_is_returned() -> AbstractContextManager[object]:
    """A fault: who returns a lease that ran out returns the one that another has taken since."""

    def release(self: LeaseStore, lease: Lease) -> bool:
        held = self._side.get(lease.key)
        return held is not None and self._side.discard(held)

    return patch.object(LeaseStore, "release", release)


FAULTS: Final = {
    "a lease that is held is ignored": held_is_ignored,
    "a lease does not run out": never_over,
    "a lease is put and not compared and set": put_in_place,
    "the lease of another is returned": anyones_is_returned,
}


def trial(levels: str, faults: dict[str, Callable[[], AbstractContextManager[object]]]) -> Trial:
    """The trial of a stack."""
    return Trial(
        19,
        f"leases of killed workers, {levels}",
        lambda folder, effort: tried(levels, folder, effort),
        faults,
    )


FIRST: Final = dict(list(FAULTS.items())[:1])
TRIALS: Final = (trial("jsonl", FIRST), trial("sqlite", FAULTS), trial("memory, jsonl, sqlite", FIRST))
