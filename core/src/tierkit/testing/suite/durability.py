"""Contract: what was acknowledged outlives kill -9."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any

import pytest

from tierkit.row import Delta
from tierkit.testing.storage import Storage
from tierkit.testing.suite.processes import forked, send
from tierkit.tier import CacheTier, Trait

KEYS = 7
ENDLESS = 1_000_000


def step(tier: CacheTier[Any], storage: Storage, number: int) -> None:
    """Write number `number` of a fixed sequence of puts, bulk puts, replaces and deletes: see `outcome`."""
    key = f"key {number % KEYS}"
    record = storage.record(key, number, number=number, text="x" * (number % 5 * 400))
    if number % 5 == 0:
        tier.delete(key, number)
    elif number % 3 == 0:
        assert tier.put_many([record, storage.record(f"once {number}", number, number=number)]) == [
            None,
            None,
        ]
    elif number % 4 == 0:
        held = tier.get(key)
        assert tier.replace(record, held.version if held else 0)
    else:
        assert tier.put(record) is None


def last_step(key: int, number: int) -> int:
    """The last step up to `number` that wrote `key`, or 0."""
    return max(number - (number - key) % KEYS, 0)


class Durability:
    """What was acknowledged outlives kill -9."""

    @pytest.mark.parametrize("acknowledged", [1, 10, 40, 150])
    def test_what_was_acknowledged_outlives_the_death_of_the_writer(self, storage: Storage, acknowledged: int) -> None:
        """Every write of which the writer was told, and no value that was never written."""
        self._crash_safe(storage)

        def write(pipe: Connection) -> None:
            with storage.open() as tier:
                for number in range(1, ENDLESS):
                    step(tier, storage, number)
                    send(pipe, number)

        with forked(write) as child:
            for number in range(1, acknowledged + 1):
                assert child.receive() == number
            last = max([acknowledged, *child.kill()])
        tier = storage.open()
        self._assert_whole(tier, storage, last)
        step(tier, storage, last + 2)
        self._assert_known_steps(storage.reopen(), storage, last + 2)

    def test_it_outlives_a_writer_that_leaves_without_closing(self, storage: Storage) -> None:
        """Marks and usage too, and the next writer is not kept waiting."""
        self._crash_safe(storage)

        def write(pipe: Connection) -> None:
            tier = storage.open()
            tier.put(storage.record("held", 3))
            tier.touch_many({"held": Delta(2, 1.7e9)})
            tier.delete("deleted", 5)
            discarded = storage.record("discarded", 5)
            tier.put(discarded)
            tier.discard(discarded)
            send(pipe, 1)
            pipe.recv_bytes()  # waits to be killed

        with forked(write) as child:
            child.receive()
            child.kill()
        tier = storage.open()
        held = tier.get("held")
        assert held == storage.record("held", 3)
        assert held is not None
        assert (held.access_count, held.last_accessed) == (2, 1.7e9), (
            "CRASH_SAFE: usage that touch_many acknowledged was lost: see CacheTier.touch_many"
        )
        assert tier.put(storage.record("deleted", 5)) == 5
        assert tier.put(storage.record("discarded", 4)) is not None
        assert tier.put(storage.record("held", 4)) is None

    def test_usage_outlives_the_death_of_the_writer(self, storage: Storage) -> None:
        """Every use of which the writer was told."""
        self._crash_safe(storage)

        def write(pipe: Connection) -> None:
            with storage.open() as tier:
                tier.put_many([storage.record("a"), storage.record("b")])
                for number in range(1, ENDLESS):
                    tier.touch_many({"a": Delta(1, 1e9 + number), "b": Delta(2, 1e9 + number)})
                    send(pipe, number)

        with forked(write) as child:
            for number in range(1, 21):
                assert child.receive() == number
            last = max([20, *child.kill()])
        held: dict[str, Any] = storage.open().get_many(["a", "b"])
        for key, each in (("a", 1), ("b", 2)):
            assert each * last <= held[key].access_count <= each * (last + 1), (
                "CRASH_SAFE: usage that touch_many acknowledged was lost: see CacheTier.touch_many"
            )
            assert last <= held[key].last_accessed - 1e9 <= last + 1

    def _assert_whole(self, tier: CacheTier[Any], storage: Storage, last: int) -> None:
        for key in range(KEYS):
            number = last_step(key, last)
            held = tier.get(f"key {key}")
            if held is None:
                # The step after the last that was heard of may have been done: it may be a delete.
                assert number % 5 == 0 or (last_step(key, last + 1) > number and (last + 1) % 5 == 0), "lost"
            else:
                assert held.version >= number, f"step {number} was acknowledged; {held.version} is held"
                assert number % 5 or held.version > number, "what was deleted came back"
        once = [n for n in range(1, last + 1) if n % 3 == 0 and n % 5]
        assert len(tier.get_many(f"once {n}" for n in once)) == len(once), "a part of put_many was lost"
        self._assert_known_steps(tier, storage, last + 1)

    @staticmethod
    def _assert_known_steps(tier: CacheTier[Any], storage: Storage, last: int) -> None:
        for record in tier.scan():
            number = record.version
            keys = [f"key {number % KEYS}", f"once {number}"]
            text = "x" * (number % 5 * 400) if record.key == keys[0] else None
            assert record.key in keys
            assert record == storage.record(record.key, number, number=number, text=text)
            assert number <= last

    @staticmethod
    def _crash_safe(storage: Storage) -> None:
        if not storage.claims(Trait.CRASH_SAFE):
            pytest.skip("not CRASH_SAFE")
