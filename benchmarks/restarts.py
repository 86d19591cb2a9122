"""Restarts: each start is a process of its own, which reads all that those before it put, and puts more.

Every other one ends with kill -9 as soon as its puts are acknowledged, the others close. `python -m benchmarks.restarts
FOLDER START EACH` is one such process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from benchmarks.records import entries
from tierkit import CacheConfig, CacheManager, ProxyEntry

ROOT = Path(__file__).parents[1]
KEY = SecretStr("2Q9o3H0dN1mY3qQ5zv2bJ0m1K4b8c7d6e5f4g3h2i1g=")
DAY = 86_400.0


@dataclass(frozen=True)
class Tally:
    """What came of the restarts.

    Attributes:
        starts: Processes that ran.
        killed: Those of them that were killed.
        records: That the last one should have found.
        lost: Records that a process did not find as they were put.
    """

    starts: int
    killed: int
    records: int
    lost: int


def run(folder: Path, starts: int, each: int) -> Tally:
    """Start `starts` processes, one after another, of which each puts `each` records; then read everything.

    Raises:
        RuntimeError: A process failed.
    """
    killed = lost = 0
    for start in range(starts):
        command = [sys.executable, "-m", "benchmarks.restarts", str(folder), str(start), str(each)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"start {start} ended with {done.returncode}: {done.stderr[-500:]}")
        killed += done.returncode != 0
        lost += int(done.stdout)
    with _open(folder) as cache:
        lost += missing(cache, starts * each)
    return Tally(starts, killed, starts * each, lost)


def missing(cache: CacheManager[ProxyEntry], count: int) -> int:
    """How many of the first `count` records the cache does not hold as they were put; half are asked for one by one."""
    found = {entry.key: _put(entry) for entry in cache.scan()}
    found |= {entry.key: _put(entry) for entry in cache.get_many(list(found)[::2]).values()}
    return sum(found.get(entry.key) != _put(entry) for entry in entries(count))


def _put(entry: ProxyEntry) -> tuple[object, ...]:
    return entry.proxy_url, entry.username, entry.password, entry.source


def _open(folder: Path) -> CacheManager[ProxyEntry]:
    config = CacheConfig(
        encryption_key=KEY,
        default_ttl_seconds=DAY,
        l2_cache_dir=folder / "proxies",
        l3_database_path=folder / "tierkit.db",
    )
    return CacheManager(config)


def _start(folder: Path, start: int, each: int) -> None:
    cache = _open(folder)
    print(missing(cache, start * each), flush=True)
    for entry in entries((start + 1) * each)[start * each :]:
        cache.put(entry)
    if start % 2:
        os.kill(os.getpid(), signal.SIGKILL)
    cache.close()


if __name__ == "__main__":
    _start(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
