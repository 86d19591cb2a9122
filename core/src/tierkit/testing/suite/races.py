"""Contract: what looks at a record and then changes it leaves alone what was put meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from tierkit.row import Delta, Row
from tierkit.testing.storage import Storage
from tierkit.testing.suite.processes import run_together
from tierkit.tier import CacheTier

TURNS: Final = 12
KEYS: Final = ("a", "b", "c")
KEPT: Final = 900.0
LOOKS: Final = 5
"""At what was put: the others need time to do harm."""

Put = Callable[[str, int], None]


class Races:
    """What looks at a record and then changes it leaves alone what was put meanwhile."""

    def test_a_touch_takes_back_no_put(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Nor does a put lose a use: both are one step."""
        tier.put_many([storage.record(key, 1, number=1) for key in KEYS])
        touches = [0, 0]

        def touch(tag: int) -> None:
            tier.touch_many({key: Delta(1, 1.7e9) for key in KEYS})
            touches[tag] += 1

        def put(key: str, version: int) -> None:
            self._must_hold(tier, key, version - 1, "touch_many")
            assert tier.put(storage.record(key, version, number=version)) is None
            self._must_hold(tier, key, version, "touch_many")

        self._race(put, [partial(touch, 0), partial(touch, 1)])
        for key in KEYS:
            held = tier.get(key)
            if isinstance(held, Row):
                assert held.access_count == sum(touches), (
                    "touch_many adds to what is held by then, and a put keeps it: see CacheTier.touch_many"
                )

    def test_a_discard_removes_only_the_version_it_names(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Not what was put since it looked."""
        missing: set[tuple[str, int]] = set()
        discarded: list[tuple[str, int]] = []

        def discard() -> None:
            held = tier.get_many(KEYS).values()
            discarded.extend((record.key, record.version) for record in held if tier.discard(record))

        def put(key: str, version: int) -> None:
            for newest in range(version * 3, version * 3 + 3):
                assert tier.put(storage.record(key, newest, number=version)) is None
            for _ in range(LOOKS):
                if tier.get(key) is None:
                    missing.add((key, newest))

        self._race(put, [discard, discard])
        assert missing <= set(discarded), "discard removed a version that it was not asked to: see CacheTier.discard"
        assert len(discarded) == len(set(discarded)), "discard removed one record twice: see CacheTier.discard"

    def test_a_purge_removes_nothing_that_is_not_due(self, tier: CacheTier[Any], storage: Storage) -> None:
        """Neither a record in the place of one that was due, nor one over a mark that was old."""
        now = storage.clock.wall()

        def put(key: str, version: int) -> None:
            if version % 2:
                tier.delete(key, 3 * version)
            else:
                tier.put(storage.record(key, 3 * version, purge_at=now - 1))
            assert tier.put(storage.record(key, 3 * version + 1, number=version)) is None
            for _ in range(LOOKS):
                self._must_hold(tier, key, 3 * version + 1, "purge")

        def purge() -> None:
            tier.purge(now + KEPT + 1)

        self._race(put, [purge, purge])

    def test_a_clear_deletes_each_record_at_its_own_version(self, tier: CacheTier[Any], storage: Storage) -> None:
        """What was put meanwhile stays, or goes with the mark of its own version."""

        def put(key: str, version: int) -> None:
            for newest in range(version * 3, version * 3 + 3):
                record = storage.record(key, newest, number=version)
                assert tier.put(record) is None
            for _ in range(LOOKS):
                if tier.get(key) is None:
                    assert tier.put(record) == newest, (
                        "clear removed a version other than the one that it deleted: see CacheTier.clear"
                    )

        self._race(put, [tier.clear, tier.clear])

    @staticmethod
    def _must_hold(tier: CacheTier[Any], key: str, version: int, method: str) -> None:
        held = tier.get(key)
        assert held is not None, f"{method} removed version {version}, put since it looked: see CacheTier.{method}"
        assert held.version == version, f"{method} brought an older version back: see CacheTier.{method}"

    @staticmethod
    def _race(put: Put, others: list[Callable[[], None]]) -> None:
        """Put rising versions of few keys while each of `others` is called over and over."""
        done = threading.Event()

        def write() -> None:
            try:
                for version in range(2, TURNS + 2):
                    for key in KEYS:
                        put(key, version)
            finally:
                done.set()

        def repeat(work: Callable[[], None]) -> None:
            while not done.is_set():
                work()

        run_together([write, *(partial(repeat, work) for work in others)], stirred=True)
