"""Admission policies: which records may be copied into a level above the authority."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from tierkit.forking import in_child


class AdmissionPolicy(ABC):
    """The door of one level: asked before a record is copied into it, by a read that found it below or by a put.

    A record that is refused stays in the levels below, and an older copy of it leaves this one.
    """

    @abstractmethod
    def admit(self, key: str) -> bool:
        """Whether the record of `key` may come in. Called by any thread; it must not block."""


class Always(AdmissionPolicy):
    """Everything comes in."""

    def __init__(self, capacity: int = 0) -> None:
        """The capacity does not matter."""

    def admit(self, key: str) -> bool:  # noqa: ARG002 - whatever it is
        """Yes."""
        return True


class SecondUse(AdmissionPolicy):
    """A record comes in when it is wanted for the second time of late: read from below, or put.

    So what is wanted once, as in a scan, takes no room from what is wanted again. "Of late" means among the last
    `capacity` keys at least, and twice as many at most: two sets of keys take turns.
    """

    def __init__(self, capacity: int) -> None:
        """Nothing was wanted yet."""
        self._capacity = max(1, capacity)
        self._young: set[str] = set()
        self._old: set[str] = set()
        self._renew()
        in_child(self, SecondUse._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def admit(self, key: str) -> bool:
        """Whether `key` was asked for before. O(1)."""
        with self._lock:
            known = key in self._young or key in self._old
            self._young.add(key)
            if len(self._young) >= self._capacity:
                self._old, self._young = self._young, set()
            return known


AdmissionFactory = Callable[[int], AdmissionPolicy]
"""Makes a policy for a level of so many entries."""

ADMISSION_POLICIES: Final[Mapping[str, AdmissionFactory]] = MappingProxyType(
    {"always": Always, "second_use": SecondUse}
)
"""Those that ship, by the name that a configuration uses."""

UNBOUNDED_ENTRIES: Final = 10_000
"""What a factory is told for a level without a bound."""
