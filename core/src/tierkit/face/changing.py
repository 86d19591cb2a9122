"""Changing one record in one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tierkit.checks import check_entry, check_key
from tierkit.entry import CacheEntry
from tierkit.errors import CacheValidationError
from tierkit.face.base import Face
from tierkit.updating import Updating

E = TypeVar("E", bound=CacheEntry)


class ChangingMethods(Face[E]):
    """Changing one record in one step, between threads and between processes."""

    def peek(self, key: str) -> E | None:
        """As `get`, but from the authority or, while that is out, the lowest level in service.

        Touches neither usage nor statistics, and promotes nothing. Blocks on I/O.

        Raises:
            CacheValidationError: `key` cannot be a key.
        """
        self._check_open()
        check_key(key)
        return self._stack.peek(key)

    def update(self, key: str, made: Callable[[E | None], E | None]) -> E | None:
        """Read, change and write a record as one step, by compare and set. Blocks on I/O.

        `made` is called again if another writer came first, so it should do nothing but make the new entry. Start from
        `entry.evolve(...)` to keep what the record has, its deadline included.

        Args:
            key: Names the record.
            made: Called with the entry, or None if there is none that may be returned. Answers the entry to put, with
                the same key; or None, or the same object, if nothing is to be put.

        Returns:
            The entry as it is now, or None.

        Raises:
            CacheValidationError: `key` cannot be a key, or what `made` answered cannot be stored under it.
            CacheStorageError: The authority is out of service or failed, or others wrote the record all the time.
        """
        self._check_writable()
        check_key(key)

        def checked(held: E | None) -> E | None:
            entry = made(held)
            if entry is None or entry is held:
                return None
            if check_entry(entry, self.entry_type).key != key:
                raise CacheValidationError(f"update of {key!r} made an entry for another key: keep the key")
            return entry

        return Updating(self._comparing).update(key, checked) if self._stack.levels else checked(None)

    def pop(self, key: str) -> E | None:
        """Remove a record and answer it, or None if there is none. No two callers get the same. Blocks on I/O.

        Raises:
            CacheValidationError: `key` cannot be a key.
            CacheStorageError: The authority is out of service or failed.
        """
        self._check_writable()
        check_key(key)
        return Updating(self._comparing).pop(key) if self._stack.levels else None
