"""Contract: threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from tierkit.testing.storage import Storage
from tierkit.testing.suite.processes import run_together
from tierkit.tier import CacheTier

THREADS = 4
TURNS = 150
KEYS = ("a", "b")


def number_of(record: Any) -> int:
    """What the column `number` of `record` holds."""
    return int(record.number if hasattr(record, "number") else record.columns["number"])


def increment(tier: CacheTier[Any], storage: Storage, tag: int, times: int) -> None:
    """Count up in one record by compare and set, single and in bulk by turns, as writer number `tag`."""
    for turn in range(times):
        while True:
            held: Any = tier.get("counter")
            version = (held.version // 16 + 1) * 16 + tag
            record = storage.record("counter", version, number=number_of(held) + 1)
            if tier.replace_many([(record, held.version)])[0] if turn % 2 else tier.replace(record, held.version):
                break


class Concurrency:
    """Threads."""

    def test_the_highest_version_wins_whoever_is_last(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Puts, replaces and deletes of few keys by many threads."""
        plans = [self._plan(thread) for thread in range(THREADS)]
        run_together([partial(self._hammer, tier, storage, plan) for plan in plans])
        for key in KEYS:
            version, deleted = max((v, d) for plan in plans for k, v, d in plan if k == key)
            expected = None if deleted else storage.record(key, version, number=version)
            assert tier.get(key) == expected
            assert tier.put(storage.record(key, 1)) == version
        assert tier.size() == len(list(tier.scan())) == sum(tier.get(key) is not None for key in KEYS)

    def test_no_compare_and_set_is_lost(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Threads that count up in one record."""
        tier.put(storage.record("counter", 1, number=0))
        run_together([partial(increment, tier, storage, tag, 30) for tag in range(THREADS)], stirred=True)
        assert number_of(tier.get("counter")) == THREADS * 30

    def test_one_of_many_wins_a_race_for_a_new_key(self, tier: CacheTier[Any], storage: Storage) -> None:
        """`replace` with the expectation of none."""
        won: list[str] = []

        def race(tag: int) -> None:
            for n in range(40):
                won.extend([f"key {n}"] * tier.replace(storage.record(f"key {n}", 1, number=tag), 0))

        run_together([partial(race, tag) for tag in range(THREADS)], stirred=True)
        assert sorted(won) == sorted(f"key {n}" for n in range(40))

    def test_bulk_and_single_writes_mix(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Each thread's keys are all there afterwards."""

        def single(tag: int) -> None:
            for n in range(60):
                assert tier.put(storage.record(f"{tag} {n}", 1)) is None
                assert tier.get(f"{tag} {n}") is not None

        def bulk(tag: int) -> None:
            for n in range(0, 60, 10):
                records = [storage.record(f"{tag} {m}", 1) for m in range(n, n + 10)]
                assert tier.put_many(records) == [None] * 10
                assert len(tier.get_many(record.key for record in records)) == 10

        works: list[Callable[[], None]] = [
            partial(single, 0),
            partial(bulk, 1),
            partial(single, 2),
            partial(bulk, 3),
        ]
        run_together(works)
        assert sorted(tier.keys()) == sorted(f"{tag} {n}" for tag in range(THREADS) for n in range(60))

    @staticmethod
    def _plan(thread: int) -> list[tuple[str, int, bool]]:
        """Writes in any order: key, version and whether it is a delete. No two threads give one version."""
        random = Random(thread)
        versions = [(turn + 2) * THREADS + thread for turn in range(TURNS)]
        random.shuffle(versions)
        return [(random.choice(KEYS), version, random.random() < 0.3) for version in versions]

    @staticmethod
    def _hammer(tier: CacheTier[Any], storage: Storage, plan: list[tuple[str, int, bool]]) -> None:
        for key, version, deleted in plan:
            record = storage.record(key, version, number=version)
            held = tier.get(key)
            if deleted:
                refused = tier.delete(key, version)
                assert refused is None or refused > version
            elif version % 3 or not tier.replace(record, held.version if held else 0):
                refused = tier.put(record)
                assert refused is None or refused > version
            held = tier.get(key)
            assert held is None or held == storage.record(key, held.version, number=held.version)
