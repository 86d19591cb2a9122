"""Usage on its way to the persistent levels: counted per key, flushed in bulk."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from tierkit.entry import Usage
from tierkit.row import Delta


class UsageLedger:
    """Reads that no persistent level knows of yet and that no entry in L1 carries. Thread-safe.

    A crash loses what is in it, and what the entries in L1 carry: at most what was read since the last sweep.
    """

    def __init__(self) -> None:
        """Empty."""
        self.renew()

    def renew(self) -> None:
        """Forget everything: in a forked child, since the parent will flush it."""
        self._pending: dict[str, Delta] = {}
        self._lock = threading.RLock()  # reentrant: a finalizer that uses the cache may run while it is held

    def __len__(self) -> int:
        """How many keys it holds."""
        return len(self._pending)

    def add(self, key: str, count: int, last_accessed: float) -> None:
        """Add `count` reads of `key`, the last of them at `last_accessed`."""
        with self._lock:
            held = self._pending.get(key)
            if held is not None:
                count, last_accessed = held.count + count, max(held.last_accessed, last_accessed)
            self._pending[key] = Delta(count, last_accessed)

    def collect(self, key: str, usage: Usage) -> None:
        """Take over the reads that `usage` has and nobody was told of."""
        if taken := usage.take():
            self.add(key, taken, usage.last_accessed)

    def add_pending(self, key: str, usage: Usage) -> None:
        """Let `usage`, as a persistent level knows it, also count the reads that are still held here.

        They stay here: a copy in L1 that they were taken from may count them too, and the two are merged by the larger.
        """
        delta = self._pending.get(key)
        if delta is not None:
            usage.flushed += delta.count
            usage.last_accessed = max(usage.last_accessed, delta.last_accessed)

    def pop(self, key: str) -> Delta | None:
        """Take what is held for `key`."""
        with self._lock:
            return self._pending.pop(key, None)

    def take(self) -> dict[str, Delta]:
        """Take everything, in one step. Give it back with `put_back` if it cannot be flushed."""
        with self._lock:
            taken, self._pending = self._pending, {}
            return taken

    def put_back(self, deltas: Mapping[str, Delta]) -> None:
        """Undo `take`."""
        for key, delta in deltas.items():
            self.add(key, delta.count, delta.last_accessed)


def merge_usage(held: Usage, other: Usage) -> None:
    """Let `held` carry the reads of `other` that nobody was told of; both are of one record."""
    hits = other.hits
    other.hits -= hits
    held.hits += hits
    held.flushed = max(held.flushed, other.flushed)
    held.last_accessed = max(held.last_accessed, other.last_accessed)
