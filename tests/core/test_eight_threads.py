"""100,000 mixed operations by eight threads over memory, JSON Lines and SQLite: no error, and exact counts."""

import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tierkit import CacheConfig, CacheEntry, CacheManager

THREADS = 8
SHARED = [f"shared-{number}" for number in range(16)]


class Note(CacheEntry):
    text: str = ""


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def open_cache(folder: Path) -> CacheManager[Note]:
    return CacheManager(
        CacheConfig(
            tiers=(
                {"backend": "memory", "max_entries": 250},
                {"backend": "jsonl", "path": folder / "jsonl", "max_entries": 300},
                {"backend": "sqlite", "path": folder / "tierkit.db"},
            ),
            latency_histograms=True,
        ),
        entry_type=Note,
    )


class Worker(threading.Thread):
    """Uses keys of its own, of which it knows everything, and keys of all, of which it knows what was acknowledged."""

    def __init__(self, cache: CacheManager[Note], number: int, steps: int, newest: dict[str, int]) -> None:
        super().__init__()
        self.cache, self.number, self.steps, self.newest = cache, number, steps, newest
        self.dice = random.Random(number)
        self.own = [f"own-{number}-{place}" for place in range(40)]
        self.model: dict[str, str] = {}
        self.gets = self.puts = 0
        self.last: dict[str, int] = {}
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            for step in range(self.steps):
                self.act(step, self.dice.random())
        except BaseException as error:  # noqa: BLE001 - it is raised by the test
            self.error = error

    def act(self, step: int, kind: float) -> None:
        if kind < 0.60:
            self.get_own(self.dice.choice(self.own))
        elif kind < 0.90:
            self.get_shared(self.dice.choice(SHARED))
        elif kind < 0.96:
            self.put_own(self.dice.choice(self.own), f"{self.number}.{step}")
        elif kind < 0.99:
            self.put_shared(self.dice.choice(SHARED), f"{self.number}.{step}")
        else:
            self.delete_own(self.dice.choice(self.own))

    def get_own(self, key: str) -> None:
        self.gets += 1
        entry = self.cache.get(key)
        assert (None if entry is None else entry.text) == self.model.get(key)

    def put_own(self, key: str, text: str) -> None:
        self.puts += 1
        self.model[key] = self.cache.put(Note(key=key, text=text)).text

    def delete_own(self, key: str) -> None:
        assert self.cache.delete(key) is (self.model.pop(key, None) is not None)

    def get_shared(self, key: str) -> None:
        """What is read is no older than the newest put that had returned, nor than what this thread read before."""
        bound = max(self.newest[key], self.last.get(key, 0))
        self.gets += 1
        entry = self.cache.get(key)
        version = 0 if entry is None else entry.version
        assert version >= bound
        self.last[key] = version

    def put_shared(self, key: str, text: str) -> None:
        self.puts += 1
        version = self.cache.put(Note(key=key, text=text)).version
        with LOCK:
            self.newest[key] = max(self.newest[key], version)


LOCK = threading.Lock()


def hammer(folder: Path, steps: int) -> None:
    newest = dict.fromkeys(SHARED, 0)
    with open_cache(folder) as cache:
        workers = [Worker(cache, number, steps, newest) for number in range(THREADS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert [worker.error for worker in workers] == [None] * THREADS
        check_counts(cache, workers)
        check_state({entry.key: entry for entry in cache.scan()}, workers, newest)
    with open_cache(folder) as cache:
        check_state({entry.key: entry for entry in cache.scan()}, workers, newest)


def check_counts(cache: CacheManager[Note], workers: list[Worker]) -> None:
    gets, puts = sum(worker.gets for worker in workers), sum(worker.puts for worker in workers)
    statistics = cache.get_statistics()
    l1, l2, l3 = statistics.tiers
    assert statistics.requests == gets
    assert statistics.answered == l1.hits + l2.hits + l3.hits
    # Whoever shares another's search is counted where that was answered, and at no level on the way.
    assert l3.misses <= l2.misses <= gets
    assert statistics.latencies["get"].count == gets
    assert statistics.latencies["put"].count == puts
    assert [tier.failures + tier.corruptions + tier.unreadable for tier in statistics.tiers] == [0, 0, 0]
    assert [tier.size <= bound for tier, bound in zip(statistics.tiers, (250, 300), strict=False)] == [True, True]


def check_state(held: dict[str, Note], workers: list[Worker], newest: dict[str, int]) -> None:
    expected = {key: text for worker in workers for key, text in worker.model.items()}
    assert {key: entry.text for key, entry in held.items() if key not in SHARED} == expected
    assert {key: entry.version for key, entry in held.items() if key in SHARED} == {
        key: version for key, version in newest.items() if version
    }


@pytest.mark.req("SC-8")
@pytest.mark.req("E-4")
@pytest.mark.req("US6-2")
def test_100_000_mixed_operations_by_eight_threads_make_no_error_and_are_counted_exactly(tmp_path: Path) -> None:
    hammer(tmp_path, 100_000 // THREADS)


@pytest.mark.req("US6-2")
@pytest.mark.usefixtures("frequent_switches")
def test_the_counts_are_exact_where_threads_change_all_the_time(tmp_path: Path) -> None:
    hammer(tmp_path, 600)


@pytest.mark.req("US6-2")
@pytest.mark.usefixtures("frequent_switches")
def test_the_counts_are_exact_where_each_thread_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tierkit.statistics.free_threaded", lambda: True)
    monkeypatch.setattr("tierkit.latency.free_threaded", lambda: True)
    hammer(tmp_path, 600)
