"""Faults planted in the eviction policies, to show that their tests find each.

`python -m tests.faults.eviction_faults` runs the tests of policies and of key orders with each fault, prints which test
caught it, and exits with 1 if one survives. Tests that do not end in two minutes have caught nothing.
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import Phase, settings

from tierkit.eviction import FIFO, LFU, LRU, S3FIFO, SIEVE, KeyOrder, WTinyLFU, wtinylfu
from tierkit.eviction.turnstile import Turnstile

WORKERS = 2
PATIENCE_SECONDS = 120
ROOT = Path(__file__).resolve().parents[2]
TESTS = [str(Path(__file__).parents[1] / "core" / name) for name in ("test_eviction.py", "test_key_order.py")]
OPTIONS = ("-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist")
ALREADY = ("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")


@dataclass(frozen=True)
class Fault:
    """One attribute of one class, replaced."""

    what: str
    owner: Any
    name: str
    fault: Any


def _instead(owner: Any, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
    """A method that runs `act` with the true one."""
    true = getattr(owner, name)

    def method(self: Any, *args: Any) -> Any:
        return act(self, true, *args)

    return method


def _fault(what: str, owner: Any, name: str, act: Callable[..., Any]) -> Fault:
    return Fault(what, owner, name, _instead(owner, name, act))


def _lru_as_fifo(self: Any, true: Any, capacity: int) -> None:
    true(self, capacity)
    self.hit = self._order.__getitem__


def _forgets_named(self: Any, true: Any, count: int) -> Any:
    answer = true(self, count)
    self._named.clear()
    return answer


def _evict_new(self: Any, true: Any) -> str:
    return str(self._ahead.popitem(last=True)[0]) if self._ahead else str(true(self))


def _main_first(self: Any, true: Any) -> str:
    return str(self._main.popitem(last=False)[0]) if self._main else str(true(self))


def _hand_restarts(self: Any, true: Any) -> str:
    key = str(true(self))
    self._passed.update(self._ahead)
    self._ahead, self._passed = self._passed, self._ahead.__class__()
    return key


def _admits_candidate(self: Any, true: Any, key: str) -> int:
    return 15 - int(true(self, key))


def _no_ageing(self: Any, true: Any) -> str:
    key = str(true(self))
    self._age = 0
    return key


def _hottest(self: Any, true: Any) -> str:
    last = self._ring.before
    key = next(iter(last.keys))
    self._age = 0
    self._drop(key)
    return str(key)


def _without_ghost(self: Any, true: Any, key: str) -> None:
    self._ghosts.clear()
    true(self, key)


def _all_through(self: Any, true: Any, key: str) -> None:
    self._ghosts[key] = None
    true(self, key)


def _nothing(*_: Any) -> None: ...


FAULTS = (
    _fault("FIFO keeps the place of what is written again", FIFO, "admit", lambda s, _, k: s._order.setdefault(k)),
    _fault("FIFO names the newest", FIFO, "coldest", lambda s, _, n: list(reversed(s._order))[:n]),
    _fault("LRU looks at no reads", LRU, "__init__", _lru_as_fifo),
    _fault("LRU restores by the time of writing", LRU, "restore", lambda s, _, held: FIFO.restore(s, held)),
    _fault("what was named is forgotten", Turnstile, "coldest", _forgets_named),
    _fault(
        "a victim that is read goes nevertheless", Turnstile, "_catch_up", lambda s, _: [s._use(k) for k in s._reads]
    ),
    _fault("reads are never counted", Turnstile, "_catch_up", lambda s, _: s._reads.clear()),
    _fault("what is removed makes no room", Turnstile, "remove", lambda s, _, k: s._named.pop(k, None) or s._drop(k)),
    _fault("LFU does not age", LFU, "_evict", _no_ageing),
    _fault("LFU evicts the most frequent", LFU, "_evict", _hottest),
    _fault("LFU does not count a use", LFU, "_use", lambda s, _, k: k in s._buckets),
    _fault("LFU restores at most some reads", LFU, "restore", lambda s, _, held: Turnstile.restore(s, held)),
    _fault("SIEVE evicts the newest", SIEVE, "_evict", _evict_new),
    _fault("SIEVE's hand starts at the oldest each time", SIEVE, "_evict", _hand_restarts),
    _fault("SIEVE drops without the flag", SIEVE, "_enter", lambda s, _, k: s._ahead.__setitem__(k, None)),
    _fault("SIEVE does not rescue", SIEVE, "coldest", lambda s, _, n: Turnstile.coldest(s, n)),
    _fault("S3-FIFO has no ghosts", S3FIFO, "_enter", _without_ghost),
    _fault("S3-FIFO lets everything into the main queue", S3FIFO, "_enter", _all_through),
    _fault("S3-FIFO evicts from the main queue first", S3FIFO, "_evict", _main_first),
    _fault("S3-FIFO gives no second round", S3FIFO, "_next_of_main", lambda s, _: s._main.popitem(last=False)[0]),
    _fault("W-TinyLFU compares the wrong way round", wtinylfu.Sketch, "count", _admits_candidate),
    _fault("W-TinyLFU promotes nothing", WTinyLFU, "_promote", _nothing),
    _fault("W-TinyLFU does not count uses", wtinylfu.Sketch, "add", _nothing),
    Fault("the counters of W-TinyLFU are never halved", wtinylfu, "_HALVED", bytes(range(256))),
    _fault("an order counts a flushed read again", KeyOrder, "read", lambda s, _, k: s._hit(k, 1) if len(s) else None),
    _fault("an order does not learn of puts", KeyOrder, "wrote", _nothing),
    _fault("an order does not learn of reads", KeyOrder, "_hit", _nothing),
)


@dataclass
class Hunt:
    """A pytest plugin: notes the first test that fails."""

    caught: list[str] = field(default_factory=list)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.caught.append(report.nodeid.split("::", 1)[1])


def plant(number: int) -> int:
    """Run the tests with one fault in this process; print which test catches it."""
    planted = FAULTS[number]
    settings.register_profile("found is enough", phases=[Phase.explicit, Phase.generate], database=None)
    settings.load_profile("found is enough")
    hunt = Hunt()
    with redirect_stdout(io.StringIO()), patch.object(planted.owner, planted.name, planted.fault):
        pytest.main([*OPTIONS, *ALREADY, *TESTS], plugins=[hunt])
    print(hunt.caught[0] if hunt.caught else "")
    return 0


def hunted(number: int) -> str:
    """The test that catches a fault, or nothing; in a process of its own."""
    command = [sys.executable, "-m", "tests.faults.eviction_faults", "--plant", str(number)]
    try:
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        return ""  # nothing failed: slow is not caught
    return ran.stdout.strip()


def main(arguments: Sequence[str]) -> int:
    """Plant each fault whose text has one of `arguments` in it, or all; answer how the program should exit."""
    if arguments and arguments[0] == "--plant":
        return plant(int(arguments[1]))
    chosen = [n for n, fault in enumerate(FAULTS) if not arguments or any(word in fault.what for word in arguments)]
    if not chosen:
        print(f"no such fault: {', '.join(arguments)}")
        return 2
    with ThreadPoolExecutor(WORKERS) as pool:
        found = []
        for number, caught in zip(chosen, pool.map(hunted, chosen), strict=True):
            found.append(caught)
            print(f"{'caught  ' if caught else 'SURVIVED'}  {FAULTS[number].what:<50}  {caught}", flush=True)
    print(f"{sum(map(bool, found))} of {len(chosen)} faults caught")
    return 0 if all(found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
