"""Any calls in any order: two caches over one disk, in two namespaces, behave as dicts whose values expire."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.core.engine.support import World

from tierkit import Cache, ValueEntry
from tierkit.testing import FakeClock

KEYS = st.sampled_from(["a", "@users:a"])
VALUES = st.none() | st.integers(0, 3) | st.sampled_from(["", "x", [1], {"a": None}])
TTLS = st.sampled_from([10, "1m", 300])
TAGS = st.lists(st.sampled_from(["red", "blue"]), max_size=2, unique=True)
SECONDS = {10: 10, "1m": 60, 300: 300}
PLACES = st.integers(0, 3)
LIVES = st.tuples(TTLS, TAGS)
NAMES = ("", "users")


class CacheMachine(RuleBasedStateMachine):
    """Each place is a cache: two processes, in each two namespaces."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.world = World(self.clock)
        self.model: dict[tuple[str, str], tuple[Any, float, list[str]]] = {}
        self.places: list[Cache[Any]] = []
        self.open()

    def open(self) -> None:
        for _ in range(2):
            manager = self.world.open("live", "disk", entry_type=ValueEntry, staleness_seconds=1e-9)
            cache = Cache[Any](manager)
            self.places += [cache, cache.namespace("users")]

    def held(self, place: int, key: str) -> Any:
        value, deadline, _ = self.model.get((NAMES[place % 2], key), (..., 0.0, []))
        return value if self.clock.wall() < deadline else ...

    def keep(self, place: int, key: str, value: Any, seconds: float, tags: list[str]) -> None:
        self.model[NAMES[place % 2], key] = (value, self.clock.wall() + seconds, tags)

    def own(self, place: int) -> dict[str, Any]:
        keys = (key for name, key in self.model if name == NAMES[place % 2])
        return {key: self.held(place, key) for key in keys if self.held(place, key) is not ...}

    @rule(place=PLACES, key=KEYS, value=VALUES, life=LIVES, how=st.sampled_from(["set", "add", "replace", "many"]))
    def write(self, place: int, key: str, value: Any, life: tuple[Any, list[str]], how: str) -> None:
        ttl, tags = life
        there = self.held(place, key) is not ...
        if how == "many":
            self.places[place].set_many({key: value}, ttl, tags=tags)
        else:
            answer = getattr(self.places[place], how)(key, value, ttl, tags=tags)
            assert answer is {"set": None, "add": not there, "replace": there}[how]
        if {"add": not there, "replace": there}.get(how, True):
            self.keep(place, key, value, SECONDS[ttl], tags)

    @rule(place=PLACES, key=KEYS, value=VALUES, ttl=TTLS, tags=TAGS)
    def load(self, place: int, key: str, value: Any, ttl: Any, tags: list[str]) -> None:
        held = self.held(place, key)
        answer = self.places[place].get_or_load(key, lambda: value, ttl=ttl, tags=tags)
        assert answer == (value if held is ... else held)
        if held is ...:
            self.keep(place, key, value, SECONDS[ttl], tags)

    @rule(place=PLACES, key=KEYS, value=VALUES)
    def setdefault(self, place: int, key: str, value: Any) -> None:
        held = self.held(place, key)
        assert self.places[place].setdefault(key, value) == (value if held is ... else held)
        if held is ...:
            self.keep(place, key, value, 3600, [])

    @rule(place=PLACES, key=KEYS, by=st.integers(-2, 2), ttl=TTLS)
    def count(self, place: int, key: str, by: int, ttl: Any) -> None:
        held = self.held(place, key)
        if held is not ... and type(held) is not int:
            return
        assert self.places[place].incr(key, by, initial=7, ttl=ttl) == (7 if held is ... else held) + by
        if held is ...:
            self.keep(place, key, 7 + by, SECONDS[ttl], [])
        else:
            _, deadline, tags = self.model[NAMES[place % 2], key]
            self.model[NAMES[place % 2], key] = (held + by, deadline, tags)

    @rule(place=PLACES, key=KEYS, how=st.sampled_from(["delete", "pop", "pop", "del"]))
    def remove(self, place: int, key: str, how: str) -> None:
        cache, held = self.places[place], self.held(place, key)
        if how == "delete":
            assert cache.delete(key) is (held is not ...)
        elif how == "pop":
            assert cache.pop(key, ...) == held
        elif held is not ...:
            del cache[key]
        self.model.pop((NAMES[place % 2], key), None)

    @rule(place=PLACES, key=KEYS, ttl=TTLS)
    def touch(self, place: int, key: str, ttl: Any) -> None:
        held = self.held(place, key)
        assert self.places[place].touch(key, ttl) is (held is not ...)
        if held is not ...:
            self.keep(place, key, held, SECONDS[ttl], self.model[NAMES[place % 2], key][2])

    @rule(place=PLACES, tag=st.sampled_from(["red", "blue"]))
    def invalidate(self, place: int, tag: str) -> None:
        tagged = {key for key in self.own(place) if tag in self.model[NAMES[place % 2], key][2]}
        assert {*self.places[place].tagged(tag)} == tagged
        assert self.places[place].invalidate_tag(tag) == len(tagged)
        for key in tagged:
            del self.model[NAMES[place % 2], key]

    @rule(place=PLACES)
    def clear(self, place: int) -> None:
        self.places[place].clear()
        for key in self.own(place):
            del self.model[NAMES[place % 2], key]

    @rule(seconds=st.sampled_from([0.3, 10.3, 60.3]), sweep=st.booleans())  # never just at a deadline
    def wait(self, seconds: float, sweep: bool) -> None:
        self.clock.advance(seconds)
        if sweep:
            self.places[0].manager.sweep()

    @precondition(lambda self: self.model)
    @rule()
    def reopen(self) -> None:
        self.close()
        self.open()

    def close(self) -> None:
        while self.places:
            self.places.pop().close()
        self.world.close()

    @invariant()
    def every_place_agrees_with_the_model(self) -> None:
        self.clock.advance(1e-6)
        for place, cache in enumerate(self.places):
            own = self.own(place)
            assert dict(cache.items()) == own
            for key in own:
                deadline = self.model[NAMES[place % 2], key][1]
                assert cache.ttl(key) == pytest.approx(deadline - self.clock.wall(), abs=1e-3)
            assert {key: cache.get(key, ...) for key in ("a", "@users:a") if key in cache} == own

    def teardown(self) -> None:
        self.close()


CacheMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=25)
TestAnyCallsInAnyOrder = CacheMachine.TestCase
