"""What eviction costs a put into a full memory tier, beside the least it can cost: one move and one pop."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

from benchmarks.measuring import Figure, duration, ratio_figure, side_by_side
from tierkit import EVICTION_POLICIES, TierContext, ValueEntry
from tierkit_memory import MemoryCacheTier

CAPACITY = 1000
ROUNDS, CALLS = 21, 2000
LIMIT = 5


def figures(_: Path) -> list[Figure]:
    """One figure for each policy; the bare way is measured in the same run as each."""
    return [_overhead(name) for name in sorted(EVICTION_POLICIES)]


def _overhead(policy: str) -> Figure:
    bare: OrderedDict[str, None] = OrderedDict.fromkeys(f"key {number}" for number in range(CAPACITY))
    keys = iter([f"bare {number}" for number in range((ROUNDS + 2) * CALLS)])

    def move_and_pop() -> None:
        key = next(keys)
        bare[key] = None
        bare.move_to_end(key)
        bare.popitem(last=False)

    fillers = iter(range((ROUNDS + 2) * CALLS))
    ways: dict[str, Callable[[], object]] = {
        "full": _putting(policy, CAPACITY),
        "roomy": _putting(policy, None),
        "bare": move_and_pop,
        "empty": lambda: next(fillers),
    }
    taken = side_by_side(ways, rounds=ROUNDS, calls=CALLS)
    added = taken["full"] - taken["roomy"]
    least = taken["bare"] - taken["empty"]
    what = f"put into a full memory tier and eviction by {policy}, of which the eviction {duration(added)}"
    beside = f"put without a bound, one move and one pop in an OrderedDict ({duration(least)})"
    return ratio_figure(what, taken["full"] - taken["empty"], taken["roomy"] - taken["empty"] + least, beside, LIMIT)


def _putting(policy: str, capacity: int | None) -> Callable[[], None]:
    """A put of a new entry into a tier that is full, and all that the engine does to make room."""
    tier = MemoryCacheTier(TierContext(max_entries=capacity, eviction_policy=policy))
    entries = _entries()
    for _ in range(CAPACITY):
        tier.put(next(entries))
    new = iter([next(entries) for _ in range((ROUNDS + 2) * CALLS)])

    def put() -> None:
        tier.put(next(new))

    def put_and_settle() -> None:
        tier.put(next(new))
        for victim in tier.overflow():
            tier.discard(victim)

    return put if capacity is None else put_and_settle


def _entries() -> Iterator[ValueEntry]:
    return (ValueEntry(key=f"key {number}", version=number) for number in count(1))
