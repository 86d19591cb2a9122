"""Intents: which writes the authority has not taken yet, and who holds them for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tierkit.level import Level
from tierkit.row import Row


class Intent(NamedTuple):
    """A write that the authority is owed.

    Attributes:
        version: Of the write.
        level: Who holds it; None if this process holds it in memory.
        row: What is to be written, if it is held in memory; None for a deletion.
        purge_at: When the record may be dropped, in POSIX seconds.
        landed: Whether its level was asked to hold it; before, there is nothing to replay.
        own: Whether this process made the write, with this stamp.
    """

    version: int
    level: Level | None
    row: Row | None
    purge_at: float
    landed: bool = True
    own: bool = False


class Intents:
    """The intents of one process, the newest of each key. Thread-safe."""

    def __init__(self, on_first: Callable[[], object]) -> None:
        """None. `on_first` is called when there is one and there was none before."""
        self._held: dict[str, Intent] = {}
        self._on_first = on_first
        self.renew()

    def renew(self) -> None:
        """Make a lock of one's own: in a forked child. Replaying what the parent replays too does no harm."""
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """How many keys are owed."""
        return len(self._held)

    def __contains__(self, key: str) -> bool:
        """Whether `key` is owed."""
        return key in self._held

    def get(self, key: str) -> Intent | None:
        """The intent of `key`."""
        return self._held.get(key)

    def made_since(self, key: str, version: int) -> bool:
        """Whether this process itself wrote `key` at `version` or above, which is owed: later than at older stamps."""
        held = self._held.get(key)
        return held is not None and held.own and held.version >= version

    def __iter__(self) -> Iterator[str]:
        """Every key that was owed when it was called."""
        with self._lock:
            return iter(list(self._held))

    def items(self) -> list[tuple[str, Intent]]:
        """Every key and its intent."""
        with self._lock:
            return list(self._held.items())

    def note(self, key: str, intent: Intent) -> int | None:
        """Note `intent`, unless there is a newer one. Answers the version of that.

        One that has not landed takes the place of none that is held in memory: nobody else has what that is about.
        """
        with self._lock:
            held = self._held.get(key)
            if held is not None and held.version > intent.version:
                return held.version
            if held is not None and held.level is None and not intent.landed:
                return None
            first = not self._held
            self._held[key] = intent
            if first:
                self._on_first()
            return None

    def replace(self, key: str, old: Intent, new: Intent) -> None:
        """Note `new` in the place of `old`, unless something else is there by now."""
        with self._lock:
            held = self._held.get(key)
            if held is not None and held.version == old.version:
                self._held[key] = new

    def land(self, key: str, version: int) -> None:
        """The level was asked to hold `version` of `key`, which was noted before, and may have it."""
        with self._lock:
            held = self._held.get(key)
            if held is not None and held.version == version:
                self._held[key] = held._replace(landed=True)

    def settle(self, key: str, version: int) -> None:
        """The authority knows `version` of `key`, or something newer: forget what is not newer than that."""
        with self._lock:
            held = self._held.get(key)
            if held is not None and held.version <= version:
                del self._held[key]
