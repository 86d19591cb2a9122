"""What can be a value: it comes back equal, or is refused with the path of the part that cannot be kept."""

import dataclasses
from collections import OrderedDict
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from math import inf, isnan, nan
from typing import Any, TypedDict
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr

from tierkit import Cache, CacheValidationError, SchemaMismatchError, ValueEntry
from tierkit.cache.codec import Codec

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
VALUES = st.recursive(SCALARS, lambda part: st.lists(part) | st.dictionaries(st.text() | st.integers(0, 9), part))


class Point(msgspec.Struct):
    x: float
    y: float = 0.0


@dataclasses.dataclass
class Item:
    name: str
    price: Decimal
    sizes: tuple[int, ...] = ()
    tags: frozenset[str] = frozenset()


class Order(TypedDict):
    id: UUID
    items: list[Item]


@dataclasses.dataclass
class Holder:
    what: Any


class Carrier(msgspec.Struct):
    what: Any


class Model(BaseModel):
    what: Any


class Colour(Enum):
    RED = "red"


class Address(BaseModel):
    street: str
    number: int = 1


class User(BaseModel):
    name: str
    homes: list[Address] = []
    born: date | None = None
    nick: str = Field(default="", alias="nickName")


def come_back(value_type: Any, value: Any) -> Any:
    codec = Codec[Any](value_type)
    return codec.decode("k", codec.encode("k", value))


def refused(value: Any, value_type: Any = Any) -> str:
    with pytest.raises(CacheValidationError) as caught:
        Codec[Any](value_type).encode("k", value)
    assert str(caught.value) == f"the value for 'k' cannot be stored: {caught.value.reason}"
    return caught.value.reason


@settings(max_examples=60)
@given(VALUES)
def test_plain_values_come_back_as_they_were(value: Any) -> None:
    back = come_back(Any, value)
    assert repr(back) == repr(value)  # which tells True from 1, 0.0 from -0.0, and NaN by its name


def test_times_with_a_zone_come_back_equal() -> None:
    moment = datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert come_back(Any, [moment]) == [moment]
    assert come_back(Any, OrderedDict(a=inf)) == {"a": inf}
    assert isnan(come_back(Any, {"a": [nan]})["a"][0])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (print, "value: a function cannot be stored"),
        ({"items": [1, 2, 3, {"callback": lambda: 0}]}, "value.items[3].callback: a function cannot be stored"),
        ({"a b": object()}, "value['a b']: a value of type object cannot be stored"),
        ({5: [{1.5}]}, "value[5][0]: a set would come back as a list"),
        ((1, 2), "value: a tuple would come back as a list"),
        ({"when": datetime(2026, 1, 1)}, "value.when: a datetime would come back as a str"),  # noqa: DTZ001 - a naive one
        ({"price": Decimal("1.5")}, "value.price: a Decimal would come back as a str"),
        ({"colour": Colour.RED}, "value.colour: a Colour would come back as a str"),
        ([Point(1.0)], "value[0]: a Point would come back as a dict"),
        ([2**64], "value[0]: this number does not fit 64 bits"),
        (["\ud800"], "value[0]: this text holds a lone surrogate"),
        ({"a": {(1, 2): 3, frozenset({1}): 2}}, "value.a[frozenset({1})] would not come back"),
        ({"password": SecretStr("hunter2")}, "value.password: a secret cannot be stored in a plain value"),
        ({"a": {object()}}, "value.a{...}: a value of type object cannot be stored"),
        ([Holder(print)], "value[0].what: a function cannot be stored"),
        ([Carrier(print)], "value[0].what: a function cannot be stored"),
        ([Model(what=print)], "value[0].what: a function cannot be stored"),
        ([nan, (1,)], "value[1]: a tuple would come back as a list"),
    ],
)
def test_what_would_not_come_back_is_refused_with_its_path(value: Any, reason: str) -> None:
    assert refused(value).startswith(reason)


def test_a_type_is_advised_where_it_would_help() -> None:
    assert "Cache[Point]" in refused(Point(1.0))
    assert "Cache[" not in refused(print)


def test_what_holds_itself_or_nests_too_deeply_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    assert "nests too deeply, or holds itself" in refused(circle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert "nests too deeply, or holds itself" in refused(deep)


def test_a_value_that_cannot_be_compared_is_refused() -> None:
    class Odd(dict[str, int]):
        def __eq__(self, other: object) -> bool:
            raise RuntimeError("no")

        __hash__ = None

    assert refused(Odd(a=1)).startswith("value: a Odd would come back as a dict")


@pytest.mark.parametrize(
    ("value_type", "value"),
    [
        (int, 5),
        (float, 5),
        (int | None, None),
        (tuple[int, str], (1, "a")),
        (set[int], {1, 2}),
        (dict[str, list[Point]], {"a": [Point(1.0, 2.0)]}),
        (Order, {"id": UUID(int=5), "items": [Item("a", Decimal("1.50"), (1, 2), frozenset("x"))]}),
        (Colour, Colour.RED),
        (datetime, datetime(2026, 1, 1)),  # noqa: DTZ001 - a naive one
        (User, User(name="Ada", homes=[Address(street="Main")], born=date(1815, 12, 10), nickName="A")),
        (dict[str, User | None], {"a": User(name="Ada"), "b": None}),
        (list[float], [nan]),
    ],
)
def test_a_typed_value_comes_back_as_its_type(value_type: Any, value: Any) -> None:
    back = come_back(value_type, value)
    assert repr(back) == repr(float(value) if value_type is float else value)


@pytest.mark.parametrize(
    ("value_type", "value", "reason"),
    [
        (int, "5", "it is no int: Expected `int`, got `str`"),
        (Order, {"id": UUID(int=5), "items": [Item("a", "dear")]}, "value.items[0].price"),  # type: ignore[arg-type]  # what is refused
        (Point, {"x": 1.0}, "value: a dict would come back as a Point"),
        (Point, Point("far"), "it is no Point: Expected `float`, got `str` - at `value.x`"),  # type: ignore[arg-type]  # what is refused
        (list[int], [1, None], "value[1]"),
        (list[User], [User(name="a"), {"name": 5}], "value[1]"),
        (list[User], [User(name="a"), 7], "value[1]"),
        (User, Address(street="hunter2"), "Field required"),
        (set[int], [1], "value: a list would come back as a set"),
        (set[float], {nan}, "value would not come back equal"),
        (Any, User(name="a"), "value: a User would come back as a dict"),
    ],
)
def test_a_value_of_another_type_is_refused_with_the_path(value_type: Any, value: Any, reason: str) -> None:
    told = refused(value, value_type)
    assert reason in told
    assert "hunter2" not in told


@pytest.mark.parametrize("value_type", ["Unknown", int | set[int] | list[str] | list[int], 5])
def test_what_is_no_type_is_refused_when_the_cache_is_opened(value_type: Any) -> None:
    with pytest.raises(CacheValidationError, match="cannot be stored"):
        Codec(value_type)


def test_a_type_that_cannot_be_decoded_is_refused_with_the_first_value() -> None:
    class Opaque:
        pass

    assert "Opaque" in refused(5, Opaque)


def test_a_stored_value_of_another_type_is_an_error_and_stays(cache: Cache[Any]) -> None:
    cache["a"] = {"x": "far"}
    points = Cache[Point](cache.manager)
    with pytest.raises(SchemaMismatchError, match=r"'a' is no Point: .*value\.x"):
        _ = points["a"]
    cache.manager.put(ValueEntry(key="b", encoded=b"\xc1"))
    with pytest.raises(SchemaMismatchError, match="'b'"):
        cache.get("b")
    assert cache["a"] == {"x": "far"}
    points.close()


def test_a_class_in_brackets_gives_the_type(cache: Cache[Any]) -> None:
    users = Cache[User](cache.manager, namespace="users")
    users["a"] = User(name="Ada")
    assert users["a"] == User(name="Ada")
    assert (Cache[User] is Cache[User], type(users).__name__) == (True, "Cache[User]")
    assert isinstance(users, Cache)
    with pytest.raises(CacheValidationError):
        users["b"] = 5  # type: ignore[assignment]  # what is refused
    users.close()
