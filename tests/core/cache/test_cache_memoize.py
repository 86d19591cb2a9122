"""Functions whose results are kept."""

import inspect
import pickle
import subprocess
import sys
from decimal import Decimal
from functools import partial
from typing import Any, Final

import pytest
from pydantic import BaseModel

from tierkit import Cache, CacheConfig, CacheValidationError
from tierkit.testing import FakeClock


class Query(BaseModel):
    text: str


def counted(cache: Cache[Any], **options: Any) -> tuple[Any, list[Any]]:
    calls: list[Any] = []

    @cache.memoize(**options)
    def fetch(page: Any, size: Any = 10, *rest: Any, **more: Any) -> Any:
        """Fetch a page."""
        calls.append((page, size, rest, more))
        return len(calls)

    return fetch, calls


def test_a_result_is_kept_for_its_arguments(cache: Cache[Any], clock: FakeClock) -> None:
    fetch, calls = counted(cache, ttl="1m", tags=["pages"])
    assert [fetch(1), fetch(1, 10), fetch(page=1, size=10), fetch(1, size=10)] == [1, 1, 1, 1]
    assert [fetch(2), fetch(1, 20), fetch(1, 10, 3), fetch(1, z=1)] == [2, 3, 4, 5]
    assert len({*cache.tagged("pages")} & {*cache.tagged(fetch.tag)}) == 5
    clock.advance(60)
    assert fetch(1) == 6
    assert len(calls) == 6
    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Fetch a page.")


def test_equal_arguments_of_different_types_are_different_calls(cache: Cache[Any]) -> None:
    fetch, _ = counted(cache)
    arguments: list[Any] = [
        1,
        1.0,
        True,
        "1",
        b"1",
        None,
        [1],
        (1,),
        {1},
        {"1": 1},
        {1: 1},
        Decimal(1),
        Query(text="1"),
    ]
    assert len({fetch.cache_key(argument) for argument in arguments}) == len(arguments)
    assert fetch.cache_key({"a": 1, "b": 2}) == fetch.cache_key({"b": 2, "a": 1})
    assert fetch.cache_key({3, 1, 2}) == fetch.cache_key({2, 3, 1})
    assert fetch.cache_key(frozenset("ab")) == fetch.cache_key({"a", "b"})


PROGRAM: Final = """
from tierkit import Cache
with Cache.open(tiers=({"backend": "memory"},), durability="none") as cache:
    def fetch(page, size=10): ...
    fetch.__module__, fetch.__qualname__ = "app", "fetch"
    key = cache.memoize(fetch).cache_key({"a", "b", "c"}, size={"x": [1], "y": (2, None)})
"""


def test_a_key_is_the_same_in_every_process() -> None:
    here: dict[str, Any] = {}
    exec(PROGRAM, here)  # noqa: S102 - what the other process runs too
    ran = subprocess.run([sys.executable, "-c", PROGRAM + "print(key)"], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == here["key"]
    assert here["key"].startswith("app.fetch:")


def test_what_cannot_be_part_of_a_key_is_refused_by_name(cache: Cache[Any]) -> None:
    fetch, calls = counted(cache)
    for wrong in (object(), {"a": print}, [2**70]):
        with pytest.raises(CacheValidationError, match=r"argument 'size' of .*fetch cannot be part of a key: .*ignore"):
            fetch(1, wrong)
    assert calls == []


def test_arguments_can_be_left_out_of_the_key(cache: Cache[Any]) -> None:
    fetch, _ = counted(cache, ignore=["size"])
    assert fetch(1, object()) == fetch(1, object()) == 1
    with pytest.raises(CacheValidationError, match="ignore names 'sizes'"):
        counted(cache, ignore=["sizes"])


def test_the_key_can_be_made_by_the_caller(cache: Cache[Any]) -> None:
    fetch, _ = counted(cache, key=lambda page, **_: f"page {page}")
    assert fetch(1) == fetch(1, z=object()) == 1
    assert fetch.cache_key(7).endswith("fetch:page 7")


def test_results_are_forgotten_and_made_anew(cache: Cache[Any]) -> None:
    fetch, calls = counted(cache)
    fetch(1), fetch(2)
    assert fetch.invalidate(1)
    assert not fetch.invalidate(1)
    assert fetch(1) == 3
    assert fetch.refresh(2) == 4
    assert fetch(2) == 4
    assert fetch.invalidate_all() == 2
    assert fetch(2) == 5
    assert len(calls) == 5


def test_results_are_made_anew_where_nothing_is_kept() -> None:
    with Cache.open(CacheConfig(cache_enabled=False)) as cache:
        fetch, calls = counted(cache)
        assert [fetch(1), fetch.refresh(1), fetch(1)] == [1, 2, 3]
        assert len(calls) == 3


def test_functions_that_nothing_tells_apart_are_refused(cache: Cache[Any]) -> None:
    class Adds:
        def __call__(self, number: int) -> int:
            return number + 1

    cases: list[tuple[Any, str]] = [
        (partial(int, base=2), "the name of a function, and a partial has none"),
        (Adds(), "the name of a function, and a Adds has none"),
        (int, "the arguments of a function, and those of int cannot be told"),
        (lambda number: number + 1, "cannot tell one lambda from another"),
    ]
    for given, why in cases:
        with pytest.raises(CacheValidationError, match=why):
            cache.memoize(given)
    assert cache.memoize(key=lambda number: f"plus one {number}")(lambda number: number + 1)(1) == 2


def test_a_method_can_be_memoized(cache: Cache[Any]) -> None:
    class Client:
        def __init__(self, host: str) -> None:
            self.host = host

        @cache.memoize(ignore=["self"])
        def page(self, number: int) -> str:
            return f"{self.host} {number}"

        @cache.memoize(key=lambda self, number: f"{self.host} {number}")
        def own(self, number: int) -> str:
            return f"{self.host} {number}"

        @cache.memoize
        def without(self) -> int:
            return 1

    one, two = Client("one"), Client("two")
    assert [one.page(1), two.page(1)] == ["one 1", "one 1"]
    assert [one.own(1), two.own(1)] == ["one 1", "two 1"]
    assert Client.page(one, 1) == "one 1"
    with pytest.raises(CacheValidationError, match="'self'"):
        one.without()


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def page(self, number: int = 0) -> int:
        self.calls += 1
        return number


def test_of_a_method_that_is_memoized_the_instance_is_given_by_itself(
    cache: Cache[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Counter, "page", cache.memoize(ignore=["self"])(Counter.page))
    one = Counter()
    page: Any = one.page
    assert (page(), page(5), one.calls) == (0, 5, 2)
    assert page.cache_key(5) == Counter.page.cache_key(one, 5)  # type: ignore[attr-defined]  # put there by name
    assert page.invalidate(5)  # not the result of page(), with 5 for the instance
    assert (page(), one.calls) == (0, 2)
    assert (page.refresh(5), one.calls) == (5, 3)
    assert page.invalidate_all() == 2
    assert page == one.page
    assert len({page, one.page, Counter().page}) == 2
    assert list(inspect.signature(page).parameters) == ["number"]
    assert pickle.loads(pickle.dumps(page))(5) == 5  # noqa: S301 - made here


def test_none_is_a_result_and_an_exception_is_none(cache: Cache[Any]) -> None:
    calls = []

    @cache.memoize
    def odd(fail: bool) -> None:
        calls.append(1)
        if fail:
            raise ValueError("no")

    assert (odd(False), odd(False), len(calls)) == (None, None, 1)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            odd(True)
    assert len(calls) == 3


def test_a_coroutine_function_is_refused(cache: Cache[Any]) -> None:
    async def fetch() -> int:
        return 1

    with pytest.raises(CacheValidationError, match="not a coroutine function"):
        cache.memoize(fetch)
    with pytest.raises(CacheValidationError, match="not str"):
        cache.memoize(ttl=5)("fetch")  # type: ignore[arg-type]  # what is refused
