"""Mixed operations by eight threads on one cache, each result checked against a dict that the thread keeps.

A key belongs to one thread, which alone writes it and knows exactly what a read must find. Of the other keys a thread
knows what was acknowledged before its read began: it must not find anything older.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import SecretStr

from tierkit import CacheConfig, CacheManager, ProxyEntry

THREADS = 8
KEYS = 2000
THRESHOLD = 3
OPERATIONS = {"read": 60, "read_own": 10, "put": 15, "put_many": 1, "delete": 7, "fail": 7}
"""Each with how many there are among a hundred."""


class Numbered(ProxyEntry):
    """A proxy whose password is the number of the write that put it."""

    number: int = 0


@dataclass
class Tally:
    """What came of it."""

    operations: int = 0
    hits: int = 0
    misses: int = 0
    problems: list[str] = field(default_factory=list)


class Client(threading.Thread):
    """Does its part of the operations."""

    def __init__(
        self, cache: CacheManager[Numbered], urls: Sequence[str], place: int, operations: int, floors: dict[str, int]
    ) -> None:
        super().__init__(name=f"client {place}")
        self.cache = cache
        self.operations = operations
        self.random = random.Random(place)
        self.urls = {ProxyEntry.key_for(url): url for url in urls}
        self.keys = list(self.urls)
        self.own = self.keys[place::THREADS]
        self.held: dict[str, tuple[int, int]] = {}  # number and failures, by key
        self.floors = floors  # shared: the number of the last acknowledged write, by key
        self.number = 0
        self.tally = Tally()

    def run(self) -> None:
        acts = [getattr(self, name) for name in OPERATIONS]
        for act in self.random.choices(acts, weights=list(OPERATIONS.values()), k=self.operations):
            try:
                act()
            except Exception as error:  # noqa: BLE001 - it is what is looked for
                self.tally.problems.append(f"{act.__name__}: {type(error).__name__}: {error}")
            self.tally.operations += 1

    def read(self) -> None:
        key = self.random.choice(self.keys)
        floor = self.floors[key]
        entry = self._get(key)
        if entry is not None and entry.number < floor:
            self.tally.problems.append(f"{key}: read {entry.number} after {floor} was acknowledged")

    def read_own(self) -> None:
        key = self.random.choice(self.own)
        entry, expected = self._get(key), self.held.get(key)
        if state(entry) != expected:
            self.tally.problems.append(f"{key}: read {state(entry)}, and {expected} was put")

    def put(self) -> None:
        entry = self._new(self.random.choice(self.own))
        self.cache.put(entry)
        self._acknowledged(entry)

    def put_many(self) -> None:
        new = [self._new(key) for key in self.random.sample(self.own, min(20, len(self.own)))]
        self.cache.put_many(new)
        for entry in new:
            self._acknowledged(entry)

    def delete(self) -> None:
        key = self.random.choice(self.own)
        self.number += 1
        self.cache.delete(key)
        self.held.pop(key, None)
        self.floors[key] = self.number

    def fail(self) -> None:
        key = self.random.choice(self.own)
        left, held = self.cache.invalidate_by_health(key), self.held.pop(key, None)
        if held is not None and held[1] + 1 < THRESHOLD:
            self.held[key] = (held[0], held[1] + 1)
        if state(left) != self.held.get(key):
            self.tally.problems.append(f"{key}: a failure left {state(left)}, and should leave {self.held.get(key)}")

    def _get(self, key: str) -> Numbered | None:
        entry = self.cache.get(key)
        self.tally.hits += entry is not None
        self.tally.misses += entry is None
        if entry is not None and not self._whole(key, entry):
            self.tally.problems.append(f"{key}: a wrong record: {entry}")
        return entry

    def _whole(self, key: str, entry: Numbered) -> bool:
        secret = None if entry.password is None else entry.password.get_secret_value()
        return (entry.key, entry.proxy_url, secret) == (key, self.urls[key], str(entry.number))

    def _new(self, key: str) -> Numbered:
        self.number += 1
        return Numbered(proxy_url=self.urls[key], password=SecretStr(str(self.number)), number=self.number)

    def _acknowledged(self, entry: Numbered) -> None:
        self.held[entry.key] = (entry.number, 0)
        self.floors[entry.key] = entry.number


def state(entry: Numbered | None) -> tuple[int, int] | None:
    """What a client knows of a record: its number and its failures."""
    return None if entry is None else (entry.number, entry.failure_count)


def run(config: CacheConfig, operations: int, keys: int = KEYS) -> Tally:
    """Do `operations` in all; compare counts and the final state, also after a restart, with what the clients know."""
    urls = [f"http://198.51.{number // 250}.{number % 250}:8080" for number in range(keys)]
    floors = {ProxyEntry.key_for(url): 0 for url in urls}
    with CacheManager(config, entry_type=Numbered) as cache:
        clients = [Client(cache, urls, place, operations // THREADS, floors) for place in range(THREADS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        total = _summed(clients)
        found = cache.get_statistics()
        if (found.requests, found.answered) != (total.hits + total.misses, total.hits):
            total.problems.append(f"counted {found.answered} of {found.requests}, and it was {total.hits} hits")
        total.problems += _differences(cache, clients, "at the end")
    with CacheManager(config, entry_type=Numbered) as cache:
        total.problems += _differences(cache, clients, "after a restart")
    return total


def _summed(clients: Sequence[Client]) -> Tally:
    tallies = [client.tally for client in clients]
    return Tally(
        sum(tally.operations for tally in tallies),
        sum(tally.hits for tally in tallies),
        sum(tally.misses for tally in tallies),
        [problem for tally in tallies for problem in tally.problems],
    )


def _differences(cache: CacheManager[Numbered], clients: Sequence[Client], moment: str) -> list[str]:
    found = {entry.key: state(entry) for entry in cache.scan()}
    expected = {key: held for client in clients for key, held in client.held.items()}
    keys = [key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)]
    return [f"{moment} {key} is {found.get(key)}, and should be {expected.get(key)}" for key in keys]
