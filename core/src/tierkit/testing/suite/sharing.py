"""Contract: several openings of one storage, in one process and in many."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import pytest

from tierkit.testing.storage import Storage
from tierkit.testing.suite.concurrency import increment, number_of
from tierkit.testing.suite.processes import forked, receive, run_together, send
from tierkit.testing.suite.stirring import Stir
from tierkit.tier import CacheTier, Trait

PROCESSES = 3


class Sharing:
    """Several openings of one storage. No test can show that a tier is not `SHARED`."""

    def test_two_openings_see_each_other(self, storage: Storage) -> None:
        """Records, deletions, discards and marks, each way."""
        self._shared(storage)
        for here, there in ((storage.open(), storage.open()), (storage.open(), storage.open())):
            first, second = storage.record(version=1, number=1), storage.record(version=2, number=2)
            assert here.put(first) is None
            assert there.get("key") == first
            assert there.replace(second, 1)
            assert here.get("key") == second
            assert list(here.scan()) == list(there.scan()) == [second]
            assert here.put(first) == 2
            assert there.discard(second)
            assert here.get("key") is None
            assert here.size() == there.size() == 0
            assert here.put(first) is not None, "the mark of the other opening"
            assert there.delete("key", 2) is None
            assert here.put(second) == 2
            storage.clock.advance(10_000)
            here.purge(storage.clock.wall())
            assert there.put(first) is None
            there.clear()
            here.purge(storage.clock.wall() + 10_000)
            storage.clock.advance(10_000)
            here.purge(storage.clock.wall())

    def test_two_processes_see_each_other(self, storage: Storage) -> None:
        """As two openings do."""
        self._shared(storage)

        def other(pipe: Connection) -> None:
            with storage.open() as there:
                for n in range(1, 20, 2):
                    assert receive(pipe) == n
                    assert there.get("key") == storage.record(version=n, number=n)
                    assert there.put(storage.record(version=n + 1, number=n + 1)) is None
                    assert there.delete("gone", n + 1) is None
                    send(pipe, n + 1)
                assert receive(pipe) == 21

        here = storage.open()
        with forked(other) as child:
            for n in range(1, 20, 2):
                assert here.put(storage.record(version=n, number=n)) is None
                child.send(n)
                assert child.receive() == n + 1
                assert here.get("key") == storage.record(version=n + 1, number=n + 1)
                assert here.put(storage.record("gone", n + 1)) == n + 1
                assert [record.version for record in here.scan()] == [n + 1]
            child.send(21)

    def test_openings_in_one_process_lose_no_compare_and_set(self, storage: Storage) -> None:
        """Two openings, each in a thread: a lock that belongs to the process keeps them apart from nobody."""
        self._shared(storage)
        openings = [storage.open(), storage.open()]
        openings[0].put(storage.record("counter", 1, number=0))
        run_together([partial(increment, tier, storage, tag, 40) for tag, tier in enumerate(openings)], stirred=True)
        assert [number_of(tier.get("counter")) for tier in openings] == [80, 80], (
            "SHARED: replace is atomic between two openings in one process too: see CacheTier.replace"
        )

    def test_processes_lose_no_compare_and_set(self, storage: Storage) -> None:
        """Each counts up in one record."""
        tier = self._shared(storage).open()
        tier.put(storage.record("counter", 1, number=0))

        def count(tag: int, there: CacheTier[Any]) -> None:
            increment(there, storage, tag, 40)

        self._together(storage, [partial(count, tag) for tag in range(PROCESSES)])
        assert number_of(tier.get("counter")) == PROCESSES * 40

    def test_the_highest_version_wins_between_processes(self, storage: Storage) -> None:
        """Puts, bulk puts and deletes of the same keys, each process in another order."""
        tier = self._shared(storage).open()
        versions = [n * PROCESSES for n in range(1, 61)]

        def write(tag: int, there: CacheTier[Any]) -> None:
            for n in versions if tag else reversed(versions):
                key = f"key {n % 4}"
                if n % 7 == 0:
                    there.delete(key, n + tag)
                elif n % 5 == 0:
                    there.put_many([storage.record(key, n + tag, number=tag), storage.record(f"{tag} {n}", n)])
                else:
                    there.put(storage.record(key, n + tag, number=tag))

        self._together(storage, [partial(write, tag) for tag in range(PROCESSES)])
        for key in range(4):
            newest = max(n for n in versions if n % 4 == key)
            expected = storage.record(f"key {key}", newest + PROCESSES - 1, number=PROCESSES - 1)
            assert tier.get(f"key {key}") == (None if newest % 7 == 0 else expected)
            assert tier.put(storage.record(f"key {key}", 1)) == newest + PROCESSES - 1
        bulk = {f"{tag} {n}" for tag in range(PROCESSES) for n in versions if n % 5 == 0 and n % 7}
        assert bulk <= set(tier.keys())

    @staticmethod
    def _shared(storage: Storage) -> Storage:
        if not storage.claims(Trait.SHARED):
            pytest.skip("not SHARED")
        return storage

    @staticmethod
    def _together(storage: Storage, works: list[Callable[[CacheTier[Any]], None]]) -> None:
        """Run each of `works` in a process with a tier of its own, all at once."""

        def run(work: Callable[[CacheTier[Any]], None], pipe: Connection) -> None:
            with storage.open() as tier:
                send(pipe, 1)
                receive(pipe)
                with Stir():
                    work(tier)
            send(pipe, 2)

        with ExitStack() as stack:
            children = [stack.enter_context(forked(partial(run, work))) for work in works]
            for child in children:
                assert child.receive() == 1
            for child in children:
                child.send(1)
            for child in children:
                assert child.receive() == 2
