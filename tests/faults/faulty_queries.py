"""Faults in the answers to queries."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from msgspec.structs import replace
from tests.faults.planting import fault
from tests.tiers import FiveMethodTier

from tierkit import Condition, NoneOf, OneOf, Query, Range, Row


@fault("a query is in the order of writing")
class AnswersInOrderOfWriting(FiveMethodTier):
    def query(self, query: Query) -> Iterator[Row]:
        return replace(query, order_by=None).answer(self.scan())


@fault("a limit counts what was looked at")
class LimitsBeforeItFilters(FiveMethodTier):
    def query(self, query: Query) -> Iterator[Row]:
        return filter(query.matches, islice(replace(query, conditions=(), limit=None).answer(self.scan()), query.limit))


@fault("equals are ordered by their keys the wrong way where the order is descending")
class OrdersEqualsAscending(FiveMethodTier):
    def query(self, query: Query) -> Iterator[Row]:
        found = sorted(filter(query.matches, self.scan()), key=lambda row: row.key)
        if query.order_by is not None:
            found.sort(key=lambda row: query.position(row)[:-1], reverse=query.descending)
        return islice(found, query.limit)


@fault("a query leaves out what has expired by itself")
class QueriesJudgeExpiry(FiveMethodTier):
    def query(self, query: Query) -> Iterator[Row]:
        return query.answer(row for row in self.scan() if row.purge_at > self.context.now())


@fault("no value equals the empty text")
class TakesNothingForEmpty(FiveMethodTier):
    def query(self, query: Query) -> Iterator[Row]:
        conditions = tuple(
            Condition(column, OneOf(test.values | {""}) if isinstance(test, OneOf) and None in test.values else test)
            for column, test in query.conditions
        )
        return replace(query, conditions=conditions).answer(self.scan())


@fault("what has no value is not other than a value, as in SQL")
class TakesNothingForEqual(FiveMethodTier):
    def query(self, query: Query) -> Iterator[Row]:
        valued = tuple(Condition(column, Range()) for column, test in query.conditions if isinstance(test, NoneOf))
        return replace(query, conditions=query.conditions + valued).answer(self.scan())


@fault("a count stops at the limit")
class CountsToTheLimit(FiveMethodTier):
    def count(self, query: Query) -> int:
        return sum(1 for _ in self.query(query))


@fault("texts are compared without case")
class ComparesWithoutCase(FiveMethodTier):
    def query(self, query: Query) -> Iterator[Row]:
        found = filter(query.matches, self.scan())
        if query.order_by == "text":
            texts = sorted(found, key=lambda row: (str(row.columns.get("text") or "").lower(), row.key))
            return islice(texts[::-1] if query.descending else texts, query.limit)
        return query.answer(found)


@fault("a query locks the tier until it is read to its end")
class QueriesUnderLock(FiveMethodTier):
    def query(self, query: Query) -> Iterator[Row]:
        with self.lock:
            yield from query.answer(self.scan())


@fault("a query counts as a use")
class QueriesCountAsUse(FiveMethodTier):
    def query(self, query: Query) -> Iterator[Row]:
        for row in query.answer(self.scan()):
            self.rows[row.key] = replaced(row)
            yield row


def replaced(row: Row) -> Row:
    return Row(row.key, row.version, row.purge_at, row.check, row.columns, row.access_count + 1, row.last_accessed)
