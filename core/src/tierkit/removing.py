"""Removing what a query found, unless it has changed since and is not meant any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from tierkit.comparing import Comparing
from tierkit.entry import CacheEntry
from tierkit.errors import TierUnavailable
from tierkit.query import Query
from tierkit.writing import ATTEMPTS

E = TypeVar("E", bound=CacheEntry)


def remove_matching(comparing: Comparing[E], query: Query, entries: Sequence[E]) -> int:
    """Delete `entries`, each at its own version; one that has changed is looked at again. Answers how many went.

    Raises:
        CacheStorageError: The authority failed, or others write the same records all the time.
    """
    count = 0
    for _ in range(ATTEMPTS):
        removed = comparing.delete_many(entries, "by a filter that held of it")
        count += len(removed)
        changed = [entry.key for entry in entries if entry.key not in removed]
        held = comparing.held_many(changed) if changed else {}
        entries = [entry for record, entry in held.values() if query.matches(record)]
        if not entries:
            return count
    raise TierUnavailable(f"{len(entries)} records are written by others all the time, and could not be removed")
