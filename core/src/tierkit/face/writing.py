"""Writing: puts and deletions, one and many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from tierkit.bulk import Bulk, OnInvalid
from tierkit.checks import check_entry, check_key, check_keys
from tierkit.clearing import Clearing
from tierkit.entry import CacheEntry
from tierkit.expiry import deadline_of
from tierkit.face.base import Face
from tierkit.merging import Merging
from tierkit.progress import OnProgress

E = TypeVar("E", bound=CacheEntry)


class WritingMethods(Face[E]):
    """Putting and deleting records."""

    def put(self, entry: E) -> E:
        """Write `entry`, to the authority first and then to the levels above; what is held for the key is replaced.

        An entry whose deadline has passed is refused: put `entry.renewed()`.

        When it returns, the record is kept as durably as `durability` says: in the authority or, under write-behind and
        demote-only and while the authority cannot be written, in the level that stands in for it; with
        `durability = "none"` that may be memory. `docs/explanation/reliability.md` has the table. The bounds of all
        levels hold, but for what waits for the authority. Blocks on I/O.

        Returns:
            The entry as stored: with version, deadline and times.

        Raises:
            CacheValidationError: The entry cannot be stored. Nothing was written.
            CacheStorageError: Nobody took it. It may or may not be there.
        """
        self._check_writable()
        return self._writer.put(check_entry(entry, self.entry_type))

    def put_many(self, entries: Iterable[E], *, on_invalid: OnInvalid | None = None, merge: bool = False) -> int:
        """Put `entries`, in batches that use the bulk methods of the tiers. Atomic one by one, not as a whole.

        Args:
            entries: Consumed as they are written.
            on_invalid: Called with the position and the error of each entry that cannot be stored, which is then left
                out. Without it the first one raises, after those before it were written.
            merge: Keep the health, the count of failures, `created_at` and the usage of records that are there and
                have not expired, and take the rest from `entries`: as `warm_from_file` does. By compare and set: a
                failure that is counted meanwhile is not lost. Without it what is there is replaced, health included.

        Returns:
            How many were written.

        Raises:
            CacheValidationError: An entry cannot be stored.
            CacheStorageError: Nobody took a batch or, with `merge`, the authority did not; earlier batches are there.
        """
        self._check_writable()
        bulk = Merging(self._comparing, on_invalid) if merge else Bulk(self._writer, on_invalid)
        return bulk.put(entries)

    def delete(self, key: str) -> bool:
        """Remove `key` from every level, the authority first. No late write brings the record back.

        Where `put` would leave the record with a level that stands in for the authority, the deletion is held there.
        Atomic in each level, not over all of them. Blocks on I/O.

        Returns:
            Whether there was a record, as seen just before: another process may have come between.

        Raises:
            CacheValidationError: `key` cannot be a key.
            CacheStorageError: Nobody took it. The record may or may not be there.
        """
        self._check_writable()
        check_key(key)
        present = self._present(key)
        if self._stack.levels:
            self._writer.delete(key)
        return present

    def delete_many(self, keys: Iterable[str]) -> int:
        """Delete each of `keys`, one after another. Atomic one by one, not as a whole. Blocks on I/O.

        Returns:
            How many there were.

        Raises:
            CacheValidationError: A key cannot be one; those before it are deleted. Or `keys` is a single string.
            CacheStorageError: Nobody took a deletion. Those before it are deleted.
        """
        check_keys(keys)
        return sum(self.delete(key) for key in keys)

    def clear(self, on_progress: OnProgress | None = None) -> None:
        """Remove every record from every level, the authority first. Blocks on I/O.

        Not atomic: what is put meanwhile may stay. The keys of all records are held in memory.

        Args:
            on_progress: Told of the stored records deleted so far, and how many there are. What it raises leaves the
                rest, in every level but L1, which is emptied.

        Raises:
            TierUnavailable: The authority is out of service, or did not take what it is owed. Nothing was removed.
            CacheStorageError: It failed on the way. Some records may be gone.
        """
        self._check_writable()
        Clearing(self._writer).clear(on_progress)

    def _present(self, key: str) -> bool:
        authority = self._stack.authority
        owed = self._stack.owing.look(key)
        if owed is not None:
            return owed.row is not None and self._time.now() < deadline_of(owed.row)
        held = self._stack.fetch(authority, key) if authority is not None and authority.in_service else None
        return held is not None and self._time.now() < deadline_of(held)
