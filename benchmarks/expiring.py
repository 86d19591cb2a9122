"""How long after its deadline a record is still held, where nobody reads and the sweeper does all."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.records import default_stack, entries
from tierkit import CacheConfig, CacheManager, ProxyEntry

POLL_SECONDS = 0.02


def latest_removal(
    folder: Path,
    count: int,
    interval_seconds: float,
    *,
    opened: Callable[[CacheConfig], CacheManager[ProxyEntry]] = CacheManager,
    pause: Callable[[CacheManager[ProxyEntry]], None] = lambda _: time.sleep(POLL_SECONDS),
    clock: Callable[[], float] = time.time,
) -> float:
    """Put `count` records whose deadlines are spread over one interval of the sweeper, and wait until all are gone.

    Returns:
        Seconds after its deadline in which a record was last seen in any level: the worst of all. Takes two intervals
        of the clock.
    """
    config = default_stack(folder, cleanup_interval_seconds=interval_seconds)
    latest = 0.0
    with opened(config) as cache:
        lives = [interval_seconds * (number + 1) / count for number in range(count)]
        cache.put_many(entry.evolve(ttl_seconds=life) for entry, life in zip(entries(count), lives, strict=True))
        waiting = {entry.key: entry.purge_at for entry in cache.scan()}
        while waiting:
            pause(cache)
            now = clock()
            held = set().union(*(level.tier.keys() for level in cache.levels))
            overdue = (now - deadline for key, deadline in waiting.items() if key in held and deadline <= now)
            latest = max([latest, *overdue])
            waiting = {key: deadline for key, deadline in waiting.items() if key in held or deadline > now}
    return latest
