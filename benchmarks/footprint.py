"""What 10,000 records with user name and password occupy."""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

from benchmarks.measuring import Figure
from benchmarks.records import COUNT, entries, three_tiers
from tierkit import CacheConfig, CacheManager

MEGABYTE = 1_000_000


def figures(folder: Path) -> list[Figure]:
    """On disk in two persistent tiers, and in memory in L1."""
    return [_storage(folder / "footprint"), _memory()]


def _storage(folder: Path) -> Figure:
    return _figure(f"storage of {COUNT:,} records in JSONL and in SQLite together", occupied(folder, COUNT))


def occupied(folder: Path, count: int) -> int:
    """Bytes that `count` records occupy on disk, each in JSONL and in SQLite."""
    with CacheManager(three_tiers(folder, bounded=False)) as cache:
        cache.put_many(entries(count))
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _memory() -> Figure:
    with CacheManager(CacheConfig(tiers=({"backend": "memory"},))) as cache:
        gc.collect()
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        cache.put_many(iter(entries()))
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    return _figure(f"memory of {COUNT:,} entries in L1", taken)


def _figure(what: str, taken: int) -> Figure:
    measured = f"{taken / MEGABYTE:.1f} MB"
    return Figure(what, measured, f"{taken // COUNT} bytes a record", None, "under 15 MB", taken < 15 * MEGABYTE)
