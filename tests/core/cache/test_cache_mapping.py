"""A cache is a mapping, exactly."""

from collections.abc import MutableMapping
from functools import partial
from typing import Any

import pytest

from tierkit import Cache, SchemaMismatchError
from tierkit.testing import FakeClock
from tierkit.testing.suite.processes import run_together


def test_it_has_the_methods_of_a_mapping(cache: Cache[Any]) -> None:
    assert isinstance(cache, MutableMapping)
    cache["a"] = 1
    cache.update({"b": 2}, c=None)
    assert (len(cache), sorted(cache), sorted(cache.keys())) == (3, ["a", "b", "c"], ["a", "b", "c"])
    assert sorted(cache.items()) == [("a", 1), ("b", 2), ("c", None)]
    assert {*cache.values()} == {1, 2, None}
    assert ("a", 1) in cache.items()
    assert 2 in cache.values()
    assert 5 not in cache.values()
    assert cache["c"] is None
    assert cache.get("c", "default") is None
    del cache["a"]
    assert cache.setdefault("a", 9) == 9
    assert cache.setdefault("b", 9) == 2
    assert cache.setdefault("c", 9) is None
    assert cache.pop("a") == 9
    assert cache.pop("a", None) is None
    assert cache.popitem()[0] in {"b", "c"}
    cache.clear()
    assert list(cache) == []
    assert cache


def test_what_is_not_there_is_a_key_error(cache: Cache[Any]) -> None:
    calls: list[Any] = [lambda: cache["a"], lambda: cache.pop("a"), lambda: cache.__delitem__("a")]
    for call in calls:
        with pytest.raises(KeyError, match="'a'"):
            call()
    with pytest.raises(KeyError):
        cache.popitem()


def test_what_cannot_be_a_key_is_in_no_cache(cache: Cache[Any]) -> None:
    assert 5 not in cache  # type: ignore[comparison-overlap]  # that is the question
    assert "" not in cache


def test_a_cache_is_equal_to_itself_alone(cache: Cache[Any], stacked: Cache[Any]) -> None:
    assert cache == cache  # noqa: PLR0124 - that is the question
    assert cache != stacked
    assert cache != {}
    assert len({cache, stacked}) == 2


def test_what_expires_during_a_pass_is_left_out(cache: Cache[Any], clock: FakeClock) -> None:
    cache.set("a", 1, ttl=10)
    cache.set("b", 2, ttl=10)
    pairs = iter(cache.items())
    next(pairs)
    clock.advance(10)
    assert list(pairs) == []
    assert (len(cache), list(cache.values())) == (0, [])


def test_a_value_that_does_not_fit_its_type_is_not_removed_by_a_pop(cache: Cache[Any]) -> None:
    cache["a"] = "text"
    with pytest.raises(SchemaMismatchError):
        Cache[int](cache.manager).pop("a")
    assert cache["a"] == "text"


def test_a_value_is_popped_by_one_caller_alone(stacked: Cache[Any]) -> None:
    keys = [f"key {number}" for number in range(20)]
    stacked.set_many(dict.fromkeys(keys, 1))
    popped: list[str] = []
    run_together([lambda: popped.extend(key for key in keys if stacked.pop(key, None)) for _ in range(4)])
    assert sorted(popped) == sorted(keys)
    assert len(stacked) == 0


def test_a_stored_default_is_the_one_of_the_first(stacked: Cache[Any]) -> None:
    told: list[int] = []
    run_together([partial(lambda number: told.append(stacked.setdefault("a", number)), number) for number in range(6)])
    assert told == [stacked["a"]] * 6
