"""Queries of every kind of stack answer as a plain filter over what was put does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.core.engine.support import World

from tierkit import CacheEntry, CacheManager, above, at_least, at_most, below, between, contains, other_than
from tierkit.testing import FakeClock

START = datetime(2026, 1, 1, tzinfo=UTC)


class Kind(StrEnum):
    DATA = "data"
    HOME = "home"


class Thing(CacheEntry):
    text: str | None = None
    number: int | None = None
    weight: float = 0.0
    good: bool = False
    kind: Kind = Kind.DATA
    seen: datetime | None = None
    blob: bytes | None = None
    tags: tuple[str, ...] = ()


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": st.none() | st.sampled_from(["", "a", "A", "b", "é", "\U0001f600", "\ufb01", "a\0", "10", "9"]),
    "number": st.none() | st.sampled_from([0, 1, -1, 9, 10, 2**53 + 1, 2**63 - 1]),
    "weight": st.sampled_from([0.0, 1.0, -0.5, 1e22]),
    "good": st.booleans(),
    "kind": st.sampled_from(Kind),
    "seen": st.none() | st.integers(0, 3).map(lambda n: START + timedelta(days=n, microseconds=n)),
    "blob": st.none() | st.sampled_from([b"", b"\0", b"a", b"\xff"]),
    "source": st.sampled_from(["paid", "free"]),
}
OPTIONAL = {"text", "number", "seen", "blob"}
TAGS = ["a", "b", "", "\0", "1"]
MEANING: dict[str, Callable[..., Any]] = {
    "at_least": lambda value, low: value is not None and value >= low,
    "at_most": lambda value, high: value is not None and value <= high,
    "above": lambda value, low: value is not None and value > low,
    "below": lambda value, high: value is not None and value < high,
    "between": lambda value, low, high: value is not None and low <= value <= high,
    "one of": lambda value, *values: value in values,
    "is": lambda value, other: value == other,
    "other_than": lambda value, *values: value not in values,
    "contains": lambda value, element: element in value,
}
GIVEN: dict[str, Callable[..., Any]] = {
    "at_least": at_least,
    "at_most": at_most,
    "above": above,
    "below": below,
    "between": between,
    "one of": lambda *values: list(values),
    "is": lambda value: value,
    "other_than": lambda *values: other_than(list(values)),
    "contains": contains,
}
Filter = tuple[str, str, tuple[Any, ...]]


@st.composite
def filters(draw: st.DrawFn) -> Filter:
    name = draw(st.sampled_from([*VALUES, "tags", "key"]))
    if name == "tags":
        return name, "contains", (draw(st.sampled_from(TAGS)),)
    one = st.sampled_from(["0", "3", "7"]) if name == "key" else VALUES[name]
    operator = draw(st.sampled_from([operator for operator in MEANING if operator != "contains"]))
    if operator in ("is", "one of", "other_than"):
        return name, operator, tuple(draw(st.lists(one, min_size=1, max_size=1 if operator == "is" else 3)))
    count = 2 if operator == "between" else 1
    bounds = draw(st.lists(one.filter(lambda value: value is not None), min_size=count, max_size=count))
    return name, operator, tuple(bounds)


things = st.fixed_dictionaries({**VALUES, "tags": st.lists(st.sampled_from(TAGS), max_size=2).map(tuple)})
orders = st.none() | st.sampled_from([*VALUES, "key", "-key", "-text", "-number", "-seen"])


def ordered(found: list[Thing], order_by: str) -> list[Thing]:
    """In the order of a column: no value first, and the keys of equals."""
    name = order_by.removeprefix("-")

    def place(entry: Thing) -> tuple[Any, ...]:
        value = getattr(entry, name)
        return (value is not None, value if value is not None else 0, entry.key)

    return sorted(found, key=place, reverse=order_by.startswith("-"))


@pytest.fixture
def caches(tmp_path: Path) -> Iterator[list[CacheManager[Thing]]]:
    folder = tmp_path

    def level(kind: str, number: int) -> dict[str, Any]:
        places: dict[str, dict[str, Any]] = {
            "jsonl": {"path": f"{folder}/{number}"},
            "sqlite": {"path": f"{folder}/{number}.db"},
        }
        return {"backend": kind, **places.get(kind, {})}

    stacks = ["live", "sqlite", "jsonl", "disk", "live sqlite", "live jsonl sqlite", "live sqlite jsonl"]
    with ExitStack() as opened:
        worlds = [World(FakeClock()) for _ in stacks]
        for world in worlds:
            opened.callback(world.close)
        yield [
            world.open_config(
                [level(kind, 10 * number + depth) for depth, kind in enumerate(stack.split())],
                entry_type=Thing,
            )
            for number, (world, stack) in enumerate(zip(worlds, stacks, strict=True))
        ]


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    fields=st.lists(things, max_size=9),
    asked=st.lists(filters(), max_size=2, unique_by=lambda one: one[0]),
    order_by=orders,
    limit=st.none() | st.integers(0, 4),
)
def test_a_query_answers_as_a_plain_filter_does(
    caches: list[CacheManager[Thing]],
    fields: list[dict[str, Any]],
    asked: list[Filter],
    order_by: str | None,
    limit: int | None,
) -> None:
    entries = [Thing(key=str(n), **values) for n, values in enumerate(fields)]
    asked = [one for one in asked if one[0] in OPTIONAL or None not in one[2]]
    meant = [e for e in entries if all(MEANING[op](getattr(e, name), *values) for name, op, values in asked)]
    given_filters = {name: GIVEN[operator](*values) for name, operator, values in asked}
    for cache in caches:
        cache.clear()
        cache.put_many(entries)
        found = [entry.key for entry in cache.select(order_by=order_by, limit=limit, **given_filters)]
        assert cache.count(**given_filters) == len(meant)
        if order_by is not None:
            assert found == [entry.key for entry in ordered(meant, order_by)][:limit]
        else:
            assert len(found) == len(set(found)) == len(meant[:limit])
            assert set(found) <= {entry.key for entry in meant}
