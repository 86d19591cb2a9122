"""Namespaces keep values apart, whatever their keys."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierkit import Cache, CacheValidationError
from tierkit.cache.names import Names

NAMESPACES = st.sampled_from(["", "a", "a/b", "b", "ab", "unknown"])
KEYS = st.text("@:/ab", min_size=1, max_size=6)


@settings(max_examples=50)
@given(st.lists(st.tuples(NAMESPACES, KEYS), unique=True, min_size=2))
def test_no_two_keys_are_stored_as_one_and_each_comes_back(pairs: list[tuple[str, str]]) -> None:
    stored = [Names(namespace).stored(key) for namespace, key in pairs]
    assert len({*stored}) == len(pairs)
    for (namespace, key), kept in zip(pairs, stored, strict=True):
        owners = {other for other in ("", "a", "a/b", "b", "ab", "unknown") if Names(other).own(kept) is not None}
        assert (owners, Names(namespace).own(kept)) == ({namespace}, key)


def test_each_namespace_is_a_mapping_of_its_own(cache: Cache[Any]) -> None:
    users, orders = cache.namespace("users"), cache.namespace("orders")
    inner = users.namespace("eu")
    for number, place in enumerate((cache, users, orders, inner)):
        place.set("1", number, tags=["t"])
    cache["@users:1"] = "no user"
    assert [place["1"] for place in (cache, users, orders, inner)] == [0, 1, 2, 3]
    assert sorted(cache) == ["1", "@users:1"]
    assert list(users.items()) == [("1", 1)]
    assert users.invalidate_tag("t") == 1
    orders.clear()
    assert (len(cache), len(users), len(orders), len(inner)) == (2, 0, 0, 1)
    assert cache.namespace("users/eu")["1"] == 3


def test_the_rule_of_a_source_holds_for_the_namespace(cache: Cache[Any]) -> None:
    cache.manager.ttl.set_ttl("users", 99)
    users = cache.namespace("users")
    users["a"] = cache["a"] = 1
    assert (users.ttl("a"), cache.ttl("a")) == (99, 3600)
    assert cache.manager.get("@users:a") is not None


def test_a_namespace_may_have_a_type_of_its_own(cache: Cache[Any]) -> None:
    numbers = cache.namespace("numbers", value_type=int)
    numbers["a"] = 1
    with pytest.raises(CacheValidationError, match="no int"):
        numbers["b"] = "two"  # type: ignore[assignment]  # what is refused
    with pytest.raises(CacheValidationError, match="no int"):
        numbers.namespace("more")["b"] = "two"  # type: ignore[assignment]  # what is refused


def test_closing_a_namespace_closes_nothing(cache: Cache[Any]) -> None:
    with cache.namespace("users") as users:
        users["a"] = 1
    assert users["a"] == 1


@pytest.mark.parametrize("name", ["", "a b", "a:b", "@a", "/a", "a/", "é", "x" * 200, 5])
def test_what_cannot_be_a_namespace_is_refused(cache: Cache[Any], name: Any) -> None:
    with pytest.raises(CacheValidationError, match="namespace"):
        cache.namespace(name)


def test_an_empty_key_is_none_in_a_namespace_either(cache: Cache[Any]) -> None:
    with pytest.raises(CacheValidationError, match="1 to 4096"):
        cache.namespace("users").get("")
