"""Sliding expiry: a hit gives a record a new deadline, by compare and set, so that it undoes no newer write."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from tierkit.comparing import Comparing
from tierkit.entry import CacheEntry
from tierkit.errors import TierkitError
from tierkit.expiry import slid
from tierkit.row import key_digest

logger = logging.getLogger("tierkit.stack")

E = TypeVar("E", bound=CacheEntry)


class Sliding(Generic[E]):
    """Renews what is read, unless that would gain little: see `expiry.slid`. Thread-safe.

    A renewal is a write, to the authority first. If it fails, or if another writer comes first, the record keeps the
    deadline that it has.
    """

    def __init__(self, comparing: Comparing[E], longest_seconds: float) -> None:
        """Renew through `comparing`, up to `longest_seconds` after a record was first put."""
        self._comparing = comparing
        self._now = comparing.stack.time.now
        self._longest = longest_seconds
        self._renewing: set[str] = set()

    def unless_due(self, get: Callable[[str], E | None]) -> Callable[[str], E | None]:
        """`get` of L1, which answers None for an entry that is to be renewed."""

        def hot(key: str) -> E | None:
            entry = get(key)
            return entry if entry is None or self._slid(entry) is entry else None

        return hot

    def renew(self, entry: E) -> E:
        """Renew `entry`, which was read just now, if it is due. Answers it as it is now. Blocks on I/O."""
        key = entry.key
        if key in self._renewing or self._slid(entry) is entry:
            return entry
        self._renewing.add(key)
        try:
            return self._renew(entry)
        except TierkitError as error:
            logger.debug("%s could not be renewed: %s", key_digest(key), str(error))
            return entry
        finally:
            self._renewing.discard(key)

    def _renew(self, entry: E) -> E:
        ours = False

        def renewed(held: E) -> E:
            nonlocal ours
            ours = held.version == entry.version
            return self._slid(held) if ours else held

        now = self._comparing.change(entry.key, renewed)
        if not ours:
            self._comparing.writer.drop_live(entry.key)  # another process has written: what was read is old
        return entry if now is None else now

    def _slid(self, entry: E) -> E:
        return slid(entry, self._now(), self._longest)
