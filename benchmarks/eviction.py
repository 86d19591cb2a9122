"""What eviction adds to a put into a full memory tier, beside the least it can cost: one move and one pop."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path

from benchmarks.measuring import Figure, ratio_figure, side_by_side
from tierkit import EVICTION_POLICIES, CacheConfig, CacheManager, TierContext, ValueEntry
from tierkit_memory import MemoryCacheTier

CAPACITY = 1000
ROUNDS, CALLS = 81, 500
ROOMY = CAPACITY + (ROUNDS + 2) * CALLS
LIMIT = 5


def figures(_: Path) -> list[Figure]:
    """Two figures for each policy, of the tier and of the cache; the bare way is measured in the same run as each."""
    return [figure for name in sorted(EVICTION_POLICIES) for figure in _added(name)]


def _added(policy: str) -> list[Figure]:
    fillers = iter(range((ROUNDS + 2) * CALLS))
    with _cache(policy, CAPACITY) as full, _cache(policy, ROOMY) as roomy:
        ways: dict[str, Callable[[], object]] = {
            "tier, full": _putting(policy, CAPACITY),
            "tier, roomy": _putting(policy, ROOMY),
            "cache, full": _putting_through(full),
            "cache, roomy": _putting_through(roomy),
            "bare": _moving_and_popping(),
            "empty": lambda: next(fillers),
        }
        taken = side_by_side(ways, rounds=ROUNDS, calls=CALLS, of_rounds=min)
    bare = taken["bare"] - taken["empty"]
    return [
        _figure(f"{policy}: what eviction adds to a put into the {of}", taken, of, bare) for of in ("tier", "cache")
    ]


def _figure(what: str, taken: Mapping[str, float], of: str, bare: float) -> Figure:
    added = taken[f"{of}, full"] - taken[f"{of}, roomy"]
    return ratio_figure(what, added, bare, "one move and one pop in an OrderedDict", LIMIT)


def _moving_and_popping() -> Callable[[], None]:
    bare: OrderedDict[str, None] = OrderedDict.fromkeys(f"key {number}" for number in range(CAPACITY))
    keys = iter([f"bare {number}" for number in range((ROUNDS + 2) * CALLS)])

    def move_and_pop() -> None:
        key = next(keys)
        bare[key] = None
        bare.move_to_end(key)
        bare.popitem(last=False)

    return move_and_pop


def _cache(policy: str, capacity: int) -> CacheManager[ValueEntry]:
    level = {"backend": "memory", "max_entries": capacity, "eviction_policy": policy}
    return CacheManager(CacheConfig(tiers=(level,)), entry_type=ValueEntry)


def _putting_through(cache: CacheManager[ValueEntry]) -> Callable[[], None]:
    entries = (ValueEntry(key=f"key {number}") for number in count(1))
    cache.put_many([next(entries) for _ in range(CAPACITY)])
    new = iter([next(entries) for _ in range((ROUNDS + 2) * CALLS)])

    def put() -> None:
        cache.put(next(new))

    return put


def _putting(policy: str, capacity: int) -> Callable[[], None]:
    """A put of a new entry into a tier that holds `CAPACITY`, and all that is asked of it to make room."""
    tier = MemoryCacheTier(TierContext(max_entries=capacity, eviction_policy=policy))
    entries = _entries()
    for _ in range(CAPACITY):
        tier.put(next(entries))
    new = iter([next(entries) for _ in range((ROUNDS + 2) * CALLS)])

    def put_and_settle() -> None:
        tier.put(next(new))
        tier.evict()

    return put_and_settle


def _entries() -> Iterator[ValueEntry]:
    return (ValueEntry(key=f"key {number}", version=number) for number in count(1))
