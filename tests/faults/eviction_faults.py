"""Faults planted in the eviction policies, to show that their tests find each.

`python -m tests.faults.eviction_faults` runs with each fault the test that the table names for it, says whether that
caught it, and exits with 1 if one survives. A test that does not end in a minute has caught nothing.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.pool import AsyncResult
from pathlib import Path
from typing import Any

from hypothesis import Phase, settings
from tests.faults.planting import fails

from tierkit.eviction import FIFO, LFU, LRU, S3FIFO, SIEVE, KeyOrder, WTinyLFU, wtinylfu
from tierkit.eviction.turnstile import Turnstile

WORKERS = 2
PATIENCE_SECONDS = 60
CORE = Path(__file__).parents[1] / "core"
TEXTBOOK = "test_eviction.py::test_a_policy_evicts_what_its_textbook_form_evicts"
STORED_ORDER = "test_eviction.py::test_a_policy_takes_up_the_order_that_was_stored"
NAMED_ONCE = "test_eviction.py::test_whatever_happens_every_key_is_named_once_and_asking_again_gives_the_same"
COUNTS = "test_eviction.py::test_most_counts_are_exact_where_few_keys_share_many_counters"
COUNT = "test_eviction.py::test_a_count_is_never_too_small_and_stops_at_15"
FED = "test_key_order.py::test_from_then_on_it_is_fed_by_every_way_of_writing_and_reading"


@dataclass(frozen=True)
class Fault:
    """One attribute of one class, replaced.

    Attributes:
        what: What is wrong.
        owner: What has the attribute.
        name: The attribute.
        fault: What takes its place.
        test: The test that catches it, in `tests/core`.
    """

    what: str
    owner: Any
    name: str
    fault: Any
    test: str


def _instead(owner: Any, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
    """A method that runs `act` with the true one."""
    true = getattr(owner, name)

    def method(self: Any, *args: Any) -> Any:
        return act(self, true, *args)

    return method


def _fault(what: str, owner: Any, name: str, act: Callable[..., Any], test: str | None = None) -> Fault:
    """A fault that `test` catches, or else the comparison of its policy with the textbook's."""
    return Fault(what, owner, name, _instead(owner, name, act), test or f"{TEXTBOOK}[{owner.__name__.lower()}]")


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
    _fault(
        "LRU restores by the time of writing",
        LRU,
        "restore",
        lambda s, _, held: FIFO.restore(s, held),
        f"{STORED_ORDER}[lru]",
    ),
    _fault("what was named is forgotten", Turnstile, "coldest", _forgets_named, f"{NAMED_ONCE}[lfu]"),
    _fault("what is popped stays", FIFO, "pop", lambda s, *_: next(iter(s._order), None), f"{TEXTBOOK}[fifo]"),
    _fault("FIFO pops the newest", FIFO, "pop", lambda s, *_: s._order.popitem()[0] if s._order else None),
    _fault(
        "what is popped makes no room",
        Turnstile,
        "pop",
        lambda s, _: next(iter(s.coldest(1)), None),
        f"{TEXTBOOK}[lfu]",
    ),
    _fault(
        "what was named is not what is popped",
        Turnstile,
        "pop",
        lambda s, _: s._evict() if s._room < s._capacity else None,
        f"{NAMED_ONCE}[lfu]",
    ),
    _fault(
        "SIEVE pops what was read since it was named",
        SIEVE,
        "pop",
        lambda s, _: Turnstile.pop(s),
        "test_eviction.py::test_a_victim_that_is_read_before_it_goes_stays[True-sieve]",
    ),
    _fault(
        "a victim that is read goes nevertheless",
        Turnstile,
        "_catch_up",
        lambda s, _: [s._use(k) for k in s._reads],
        f"{TEXTBOOK}[lfu]",
    ),
    _fault("reads are never counted", Turnstile, "_catch_up", lambda s, _: s._reads.clear(), f"{TEXTBOOK}[lfu]"),
    _fault(
        "what is removed makes no room",
        Turnstile,
        "remove",
        lambda s, _, k: s._named.pop(k, None) or s._drop(k),
        f"{TEXTBOOK}[lfu]",
    ),
    _fault("LFU does not age", LFU, "_evict", _no_ageing),
    _fault("LFU evicts the most frequent", LFU, "_evict", _hottest),
    _fault("LFU does not count a use", LFU, "_use", lambda s, _, k: k in s._buckets),
    _fault(
        "LFU restores at most some reads",
        LFU,
        "restore",
        lambda s, _, held: Turnstile.restore(s, held),
        "test_eviction.py::test_lfu_takes_up_any_number_of_reads",
    ),
    _fault("SIEVE evicts the newest", SIEVE, "_evict", _evict_new),
    _fault("SIEVE's hand starts at the oldest each time", SIEVE, "_evict", _hand_restarts),
    _fault(
        "SIEVE drops without the flag",
        SIEVE,
        "_enter",
        lambda s, _, k: s._ahead.__setitem__(k, None),
        "test_eviction.py::test_flags_of_keys_that_are_gone_do_not_heap_up_under_sieve",
    ),
    _fault(
        "SIEVE does not rescue",
        SIEVE,
        "coldest",
        lambda s, _, n: Turnstile.coldest(s, n),
        "test_eviction.py::test_a_victim_that_is_read_before_it_goes_stays[False-sieve]",
    ),
    _fault("S3-FIFO has no ghosts", S3FIFO, "_enter", _without_ghost),
    _fault("S3-FIFO lets everything into the main queue", S3FIFO, "_enter", _all_through),
    _fault("S3-FIFO evicts from the main queue first", S3FIFO, "_evict", _main_first),
    _fault("S3-FIFO gives no second round", S3FIFO, "_next_of_main", lambda s, _: s._main.popitem(last=False)[0]),
    _fault("W-TinyLFU compares the wrong way round", wtinylfu.Sketch, "count", _admits_candidate, COUNTS),
    _fault("W-TinyLFU promotes nothing", WTinyLFU, "_promote", _nothing),
    _fault("W-TinyLFU does not count uses", wtinylfu.Sketch, "add", _nothing, COUNT),
    Fault(
        "the counters of W-TinyLFU are never halved",
        wtinylfu,
        "_HALVED",
        bytes(range(256)),
        "test_eviction.py::test_counts_are_halved_after_ten_uses_for_each_key_of_the_capacity",
    ),
    _fault(
        "an order counts a flushed read again",
        KeyOrder,
        "read",
        lambda s, _, k: s._hit(k, 1) if len(s) else None,
        "test_key_order.py::test_a_read_counts_once_though_it_is_told_when_it_happens_and_when_it_is_flushed",
    ),
    _fault("an order does not learn of puts", KeyOrder, "wrote", _nothing, FED),
    _fault("an order does not learn of reads", KeyOrder, "_hit", _nothing, FED),
)


def caught(number: int) -> bool:
    """Whether the test of a fault fails when it is planted. It is planted in this process, and stays."""
    planted = FAULTS[number]
    settings.register_profile("found is enough", phases=[Phase.explicit, Phase.generate], database=None)
    settings.load_profile("found is enough")
    setattr(planted.owner, planted.name, planted.fault)
    return fails(CORE / planted.test)


def main(words: Sequence[str]) -> int:
    """Plant each fault whose text has one of `words` in it, or all; answer how the program should exit."""
    chosen = [n for n, fault in enumerate(FAULTS) if not words or any(word in fault.what for word in words)]
    if not chosen:
        print(f"no such fault: {', '.join(words)}")
        return 2
    found = 0
    with multiprocessing.get_context("fork").Pool(WORKERS, maxtasksperchild=1) as pool:
        for number, hunt in [(number, pool.apply_async(caught, [number])) for number in chosen]:
            hit = _answer(hunt)
            found += hit
            planted = FAULTS[number]
            print(f"{'caught  ' if hit else 'SURVIVED'}  {planted.what:<50}  {planted.test.split('::')[1]}", flush=True)
    print(f"{found} of {len(chosen)} faults caught")
    return 0 if found == len(chosen) else 1


def _answer(hunt: AsyncResult[bool]) -> bool:
    try:
        return hunt.get(PATIENCE_SECONDS)
    except multiprocessing.TimeoutError:
        return False  # nothing failed: slow is not caught


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
