"""One load for each key, however many threads of however many processes ask; and when the loader is killed, one more.

Each process opens a cache of its own over one storage, and all of its threads ask for one key at once. A load notes
itself in a file that all processes share: that is the witness. In the second part the first loader is killed in the
midst of its load: another takes over when its claim has run out, and the others get what that one loads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest.mock import patch

from tests.faults.leases import LEVELS
from tests.faults.trials import Effort, Outcome, Trial

from tierkit import Cache, CacheConfig
from tierkit.cache.claims import Claims
from tierkit.cache.loading import Job
from tierkit.leases import LeaseStore
from tierkit.testing.suite.processes import Child, forked, receive, run_together, send


class Size(NamedTuple):
    """How much is tried.

    Attributes:
        keys: How many are asked for, one after another.
        processes: Of each part.
        threads: Of each process.
        load_seconds: How long a load takes.
        claim_seconds: After how long the claim of a loader that was killed runs out.
        kills: Loaders that are killed.
    """

    keys: int
    processes: int
    threads: int
    load_seconds: float
    claim_seconds: float
    kills: int


SIZES: Final[dict[Effort, Size]] = {"short": Size(1, 4, 8, 0.04, 0.15, 1), "long": Size(50, 4, 8, 0.05, 0.5, 20)}
patience_seconds = 20.0
"""How long a thread asks; only a fault makes it wait so long."""


class Witness:
    """Where loads note themselves."""

    def __init__(self, file: Path) -> None:
        """Note in `file`, which all processes append to."""
        self.file = file

    def load(self, seconds: float) -> str:
        """A load: notes itself, takes so long, and answers what no other load answers."""
        name = f"{os.getpid()} {time.monotonic_ns()}"
        with self.file.open("ab", buffering=0) as out:
            out.write(f"{name}\n".encode())
        time.sleep(seconds)
        return name

    def loads(self) -> list[str]:
        """What has been loaded, in order."""
        return self.file.read_text().splitlines() if self.file.exists() else []


def open_cache(levels: str, root: Path, size: Size) -> Cache[str]:
    """A cache over the storage in `root`."""
    return Cache[str].open(CacheConfig(tiers=LEVELS[levels](root)), claim_seconds=size.claim_seconds)


def asking(levels: str, root: Path, size: Size, keys: list[str]) -> Callable[[Connection], None]:
    """A process whose threads ask for each key, when they are told to; it says how many values were wrong."""

    def run(pipe: Connection) -> None:
        with open_cache(levels, root, size) as cache:
            cache.get_or_load("warm", lambda: "")  # opens what is opened late
            send(pipe, 0)
            for key in keys:
                receive(pipe)
                witness = Witness(root / key)
                told: list[str] = []

                def ask(key: str = key, witness: Witness = witness, told: list[str] = told) -> None:
                    told.append(
                        cache.get_or_load(key, lambda: witness.load(size.load_seconds), timeout=patience_seconds)
                    )

                run_together([ask] * size.threads)
                send(pipe, sum(value != witness.loads()[-1] for value in told))

    return run


def tried(levels: str, root: Path, effort: Effort) -> Outcome:
    """Let processes ask for keys together, and then with a loader that is killed."""
    size, outcome = SIZES[effort], Outcome()
    keys = [f"key-{number}" for number in range(size.keys)]
    open_cache(levels, root, size).close()  # what is loaded and made once
    with ExitStack() as stack:
        children = [stack.enter_context(forked(asking(levels, root, size, keys))) for _ in range(size.processes)]
        ready(children)
        for key in keys:
            outcome.count("callers at once", size.processes * size.threads)
            judge(key, Witness(root / key), ask_all(children), 1, outcome)
    for number in range(size.kills):
        kill_loader(levels, root, size, f"killed-{number}", outcome)
    return outcome


def ready(children: list[Child]) -> None:
    """Wait until all have opened what they need."""
    for child in children:
        child.receive()


def ask_all(children: list[Child]) -> int:
    """Let all ask at once; answers how many values were wrong."""
    for child in children:
        child.send(0)
    return sum(child.receive() for child in children)


def kill_loader(levels: str, root: Path, size: Size, key: str, outcome: Outcome) -> None:
    """Kill a process in the midst of its load, while others wait for it."""
    witness = Witness(root / key)

    def load(pipe: Connection) -> None:
        with open_cache(levels, root, size) as cache:
            cache.get_or_load("warm", lambda: "")
            send(pipe, 0)
            cache.get_or_load(key, lambda: witness.load(2 * patience_seconds))

    with ExitStack() as stack:
        others = [stack.enter_context(forked(asking(levels, root, size, [key]))) for _ in range(2)]
        loader = stack.enter_context(forked(load))
        ready([*others, loader])
        until = time.monotonic() + patience_seconds
        while not witness.loads() and time.monotonic() < until:
            time.sleep(0.002)
        for child in others:
            child.send(0)
        time.sleep(size.claim_seconds / 3)  # within which they have begun to wait
        loader.kill()
        outcome.count("loaders killed")
        judge(key, witness, sum(child.receive() for child in others), 2, outcome)


def judge(key: str, witness: Witness, wrong: int, loads: int, outcome: Outcome) -> None:
    """So many loads have begun, and all have the value of the last."""
    begun = len(witness.loads())
    outcome.count("loads", begun)
    outcome.check(begun == loads, f"{key}: {begun} loads began where {loads} should")
    outcome.check(not wrong, f"{key}: {wrong} callers have another value than that of the last load")


# -- planted faults --------------------------------------------------------------------------------------------------


def all_load() -> AbstractContextManager[object]:
    """A fault: whoever asks for a claim has it."""
    return patch.object(Claims, "_taken", lambda *_: True)


def claimed_for_a_moment() -> AbstractContextManager[object]:
    """A fault: a claim is released before the load."""

    @contextmanager
    def claimed(self: Claims, key: str) -> Iterator[bool]:
        taken = self._taken(key)
        if taken:
            self._release(key)
        yield taken

    return patch.object(Claims, "claimed", claimed)


def not_looked_for_again() -> AbstractContextManager[object]:
    """A fault: who gets the claim does not look whether another has loaded meanwhile, nor does who waits."""
    return patch.object(Job, "answers", lambda *_: False)


@contextmanager
def never_over() -> Iterator[None]:
    """A fault: the claim of a loader that was killed does not run out."""
    with patch.object(LeaseStore, "_runs", lambda *_: True), patch(f"{__name__}.patience_seconds", 0.5):
        yield


FAULTS: Final[dict[str, Callable[[], AbstractContextManager[Any]]]] = {
    "every process loads": all_load,
    "a claim is released before the load": claimed_for_a_moment,
    "nobody looks whether another has loaded": not_looked_for_again,
    "the claim of a killed loader does not run out": never_over,
}


def trial(levels: str, faults: dict[str, Callable[[], AbstractContextManager[Any]]]) -> Trial:
    """The trial of a stack."""
    return Trial(20, f"one load for many, {levels}", lambda folder, effort: tried(levels, folder, effort), faults)


FIRST: Final = dict(list(FAULTS.items())[:1])
TRIALS: Final = (trial("jsonl", FIRST), trial("sqlite", FAULTS), trial("memory, jsonl, sqlite", FIRST))
