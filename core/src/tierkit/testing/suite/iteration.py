"""Contract: looking at everything while others write."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tierkit.testing.storage import Storage
from tierkit.testing.suite.processes import PATIENCE_SECONDS, run_together
from tierkit.tier import CacheTier

STAYING = [f"stays {n}" for n in range(60)]


def scanned(tier: CacheTier[Any]) -> Any:
    """The keys that `scan` shows."""
    return (record.key for record in tier.scan())


def listed(tier: CacheTier[Any]) -> Any:
    """The keys that `keys` shows."""
    return tier.keys()


ways = pytest.mark.parametrize("look", [scanned, listed], ids=["scan", "keys"])


class Iteration:
    """Looking at everything while others write."""

    @ways
    def test_what_stays_is_seen_once_while_others_come_and_go(
        self, tier: CacheTier[Any], storage: Storage, look: Callable[[CacheTier[Any]], Any]
    ) -> None:
        """Writes between two steps."""
        self._fill(tier, storage)
        seen = []
        for n, key in enumerate(look(tier)):
            seen.append(key)
            tier.put(storage.record(f"new {n}", 1))
            tier.put(storage.record(f"goes {59 - n % 60}", 2 + n))
            tier.delete(f"goes {n % 60}", 1000)
            assert n < 1000, "a scan must end, though records are added meanwhile"
        self._assert_once(seen)

    def test_a_scan_shows_records_as_they_are(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Never one that was not written."""
        self._fill(tier, storage)
        for record in tier.scan():
            assert record == storage.record(record.key, record.version)
            tier.put(storage.record(record.key, record.version + 1))
        assert {record.version for record in tier.scan()} == {2}
        assert tier.size() == 120

    @ways
    def test_what_stays_is_seen_once_while_a_thread_writes(
        self, tier: CacheTier[Any], storage: Storage, look: Callable[[CacheTier[Any]], Any]
    ) -> None:
        """At any moment."""
        self._fill(tier, storage)
        done = threading.Event()

        def write() -> None:
            for n in range(2000):
                if done.is_set():
                    return
                tier.put(storage.record(f"goes {n % 60}", 2 + n))
                tier.delete(f"goes {(n + 30) % 60}", 2 + n)
                tier.put(storage.record(f"new {n}", 1))

        def read() -> None:
            try:
                for _ in range(3):
                    self._assert_once(list(look(tier)))
                    assert tier.size() >= len(STAYING)
            finally:
                done.set()

        run_together([write, read])

    @ways
    def test_no_lock_is_held_between_two_steps(
        self, tier: CacheTier[Any], storage: Storage, look: Callable[[CacheTier[Any]], Any]
    ) -> None:
        """A scan that stands still keeps nobody from writing."""
        self._fill(tier, storage)
        scan = iter(look(tier))
        next(scan)
        writer = threading.Thread(target=lambda: tier.put(storage.record("written", 1)), daemon=True)
        writer.start()
        writer.join(PATIENCE_SECONDS / 6)
        waits = writer.is_alive()
        del scan  # before anything is asserted: a writer that waits for it must end before the tier is closed
        writer.join(PATIENCE_SECONDS)
        assert not waits, "a write waits for a scan that stands still"
        assert tier.get("written") is not None

    def test_a_scan_may_be_left_before_its_end(self, tier: CacheTier[Any], storage: Storage) -> None:
        """And another may run beside it."""
        self._fill(tier, storage)
        outer = tier.scan()
        next(outer)
        assert sum(1 for _ in tier.scan()) == 120
        assert sum(1 for _ in outer) == 119

    def test_size_keys_and_scan_agree(self, tier: CacheTier[Any], storage: Storage) -> None:
        """After puts, deletes, discards and writes that were refused."""
        self._fill(tier, storage)
        tier.put(storage.record("stays 0", 9))
        tier.put(storage.record("stays 0", 3))
        tier.delete("stays 1", 9)
        tier.delete("nobody", 9)
        tier.discard(storage.record("stays 2", 1))
        keys = list(tier.keys())
        assert len(keys) == len(set(keys)) == tier.size() == 118
        assert sorted(record.key for record in tier.scan()) == sorted(keys)

    @staticmethod
    def _fill(tier: CacheTier[Any], storage: Storage) -> None:
        goes = [f"goes {n}" for n in range(60)]
        tier.put_many([storage.record(key) for pair in zip(STAYING, goes, strict=True) for key in pair])

    @staticmethod
    def _assert_once(seen: list[str]) -> None:
        times = Counter(seen)
        assert [key for key in STAYING if times[key] == 0] == [], "missed, though they stayed"
        assert [key for key, number in times.items() if number > 1] == [], "seen more than once"
