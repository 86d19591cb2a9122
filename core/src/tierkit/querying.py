"""Queries on a stack: what it holds that matches, wherever that is.

The authority is asked, or while it is out the lowest level in service: only that has everything. A level above has a
part, and its answer would be one by chance, however fast. What the authority is owed comes after its own answer, in its
place in the order, and replaces what it holds.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Generic, TypeVar

from msgspec.structs import replace

from tierkit.entry import CacheEntry
from tierkit.level import Level
from tierkit.query import Query
from tierkit.stack import Stack

E = TypeVar("E", bound=CacheEntry)


class _Short(Exception):
    """A tier has answered as many as it was asked for, and they were not enough."""


class Querying(Generic[E]):
    """Answers queries of one stack, without touching usage or statistics."""

    def __init__(self, stack: Stack[E]) -> None:
        """Ask the levels of `stack`."""
        self.stack = stack

    def select(self, query: Query, level: Level | None = None) -> Iterator[E]:
        """The entries that match, in order, of `level` or else the lowest in service. Blocks on I/O at each step.

        A tier is asked for as many as are wanted, since it may find these faster. Where some of them cannot be returned
        (damaged ones, which are evicted now) it is asked again, for all.
        """
        self.stack.owing.adopt_shared()
        level = level or self.stack.lowest()
        return iter(()) if level is None else islice(chain.from_iterable(self._found(level, query)), query.limit)

    def count(self, query: Query) -> int:
        """How many records match: what the tier itself counts, where nothing else has to be looked at."""
        self.stack.owing.adopt_shared()
        level = self.stack.lowest()
        if level is not None and level is self.stack.authority and not self.stack.owing.intents:
            return level.call(level.tier.count, query)
        return sum(1 for _ in self.select(replace(query, order_by=None, limit=None)))

    def _found(self, level: Level, query: Query) -> Iterator[list[E]]:
        owed = set(self.stack.owing.intents)
        some = replace(query, limit=query.limit + len(owed)) if owed and query.limit is not None else query
        seen: set[str] = set()
        try:
            for records in self._records(level, some, owed):
                entries = self.stack.all_opened(level, records)
                yield entries
                if query.limit is not None:
                    seen.update([entry.key for entry in entries])
        except _Short:
            for entries in self._found(level, replace(query, limit=None)):
                yield [entry for entry in entries if entry.key not in seen]

    def _records(self, level: Level, query: Query, owed: set[str]) -> Iterator[list[Any]]:
        answered = _answered(level, query)
        if not owed:
            return answered
        held = (record for record in chain.from_iterable(answered) if record.key not in owed)
        late = replace(query, limit=None).answer(self.stack.owed_or_paid(level, owed))
        if query.order_by is None:
            return ([record] for record in chain(held, late))
        return ([record] for record in heapq.merge(held, late, key=query.position, reverse=query.descending))


def _answered(level: Level, query: Query) -> Iterator[list[Any]]:
    """What the tier answers, many records at a time.

    Raises:
        _Short: After that, where there may be more.
    """
    answered = 0
    for some in level.query(query):
        answered += len(some)
        yield some
    if answered == query.limit:
        raise _Short
