"""A stack of one to three levels behaves as a dictionary whose items expire."""

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.core.engine.support import World, note, tier

from tierkit import CacheStorageError, Row
from tierkit.testing import FakeClock

STACKS: Any = [
    (("live", 2),),
    ("disk",),
    (("live", 1), "disk"),
    ("live", ("disk", 1), "disk"),
    (("live", 2), ("disk", 2), "disk"),
    (("live", 1), "live", "disk"),
    (("disk", 1), "disk"),
    (("live", 2), ("disk", 2)),
]
KEYS = st.sampled_from("abc")
TTLS = st.sampled_from([2.0, 5.0, 1000.0])
READS = ("get",)
THRESHOLD = 3

Held = tuple[str, float, int]
"""Text, deadline, failures."""


class Model(RuleBasedStateMachine):
    """Three keys, room for two, short lives, and levels that fail."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.world = World(self.clock)
        self.model: dict[str, Held] = {}
        self.texts = map(str, count())
        self.failing: set[str] = set()
        self.requests = 0

    @initialize(levels=st.sampled_from(STACKS))
    def open(self, levels: Any) -> None:
        self.levels = levels
        self.cache = self.world.open(*levels, failure_threshold=THRESHOLD)
        self.authority = f"L{len(levels)}"
        self.forgets = isinstance(levels[-1], tuple)

    # -- what the model says -----------------------------------------------------------------------------------------

    def alive(self, key: str) -> Held | None:
        held = self.model.get(key)
        return held if held is not None and self.clock.wall() < held[1] else None

    def new(self, ttl: float) -> Held:
        return next(self.texts), self.clock.wall() + ttl, 0

    def write(self, act: Callable[[], object]) -> bool:
        """Whether `act` was done: while the authority fails, or who holds what it is owed, nothing need be."""
        try:
            act()
        except CacheStorageError:
            assert self.failing_below()
            return False
        return True

    def failing_below(self) -> bool:
        owed = self.cache.get_statistics().intents and self.failing
        return bool(owed) or self.authority in self.failing or not self.cache.levels[-1].in_service

    def check(self, key: str, *allowed: Held | None) -> Held | None:
        """Read `key`; what is found must be allowed."""
        entry = self.cache.get(key)
        self.requests += 1
        if entry is None:
            assert None in allowed or self.forgets or self.failing_below(), f"{key} is lost: {allowed}"
            return None
        found = next((held for held in allowed if held and held[0] == entry.text), None)
        assert found is not None, f"{key} is {entry.text}, and should be one of {allowed}"
        assert entry.purge_at == pytest.approx(found[1], abs=1e-6)
        assert entry.failure_count == found[2]
        return found

    # -- rules -------------------------------------------------------------------------------------------------------

    @rule(key=KEYS, ttl=TTLS)
    def put(self, key: str, ttl: float) -> None:
        held = self.new(ttl)
        if self.write(lambda: self.cache.put(note(key, held[0], ttl_seconds=ttl))):
            self.model[key] = held

    @rule(keys=st.lists(KEYS, max_size=5), ttl=TTLS)
    def put_many(self, keys: list[str], ttl: float) -> None:
        new = [(key, self.new(ttl)) for key in keys]
        if self.write(lambda: self.cache.put_many([note(key, held[0], ttl_seconds=ttl) for key, held in new])):
            self.model.update(new)

    @rule(key=KEYS)
    def put_and_outlive(self, key: str) -> None:
        self.put(key, 2.0)
        self.clock.advance(2.0)
        if not self.failing_below():
            self.check(key, None)

    @rule(key=KEYS)
    def put_slowly(self, key: str) -> None:
        held = self.new(1000.0)
        tier(self.cache, self.authority).after("put", lambda: self.clock.advance(11))
        if self.write(lambda: self.cache.put(note(key, held[0], ttl_seconds=1000.0))):
            self.model[key] = held

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        self.check(key, self.alive(key))

    @rule()
    def read_all(self) -> None:
        for key in "abc":
            self.check(key, self.alive(key))

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        if self.write(lambda: self.cache.delete(key)):
            self.model.pop(key, None)

    @rule()
    def clear(self) -> None:
        if self.write(self.cache.clear):
            self.model.clear()

    @rule(key=KEYS)
    def fail_record(self, key: str) -> None:
        held = self.alive(key)
        answers: list[Any] = []
        if not self.write(lambda: answers.append(self.cache.invalidate_by_health(key))):
            entry = tier(self.cache, self.authority).tier.get(key)
            if held is not None and held[2] + 1 >= THRESHOLD and entry is not None:  # counted, but not removed
                self.model[key] = (held[0], held[1], _failures(entry))
            return
        if held is None or (self.forgets and answers[0] is None and held[2] + 1 < THRESHOLD):
            assert answers == [None]
        elif held[2] + 1 >= THRESHOLD:
            self.model.pop(key)
        else:
            self.model[key] = (held[0], held[1], held[2] + 1)

    @rule(seconds=st.sampled_from([1.0, 2.0, 5.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def sweep(self) -> None:
        self.cache.sweep()

    @rule()
    def scan(self) -> None:
        if self.failing_below():
            return
        found = {entry.key: entry.text for entry in self.cache.scan()}
        expected = {key: held[0] for key in "abc" if (held := self.alive(key))}
        assert found == expected or (self.forgets and found.items() <= expected.items())

    @rule()
    def restart(self) -> None:
        self.heal()
        self.world.close()
        if all(isinstance(level, tuple) and level[0] == "live" for level in self.levels):
            self.model.clear()
        self.cache = self.world.open(*self.levels, failure_threshold=THRESHOLD)
        self.requests = 0

    @rule(name=st.sampled_from(["L1", "L2", "L3"]), kind=st.sampled_from(["all", "put", "delete", "get"]))
    def fail(self, name: str, kind: str) -> None:
        if name <= self.authority:
            tier(self.cache, name).fail(*([] if kind == "all" else [kind, f"{kind}_many"]))
            self.failing.add(name)

    @precondition(lambda self: self.failing)
    @rule()
    def heal(self) -> None:
        for level in self.cache.levels:
            tier(self.cache, level.name).heal()
        for level in reversed(self.cache.levels):
            level.reset_failures()
        self.failing.clear()
        self.cache._stack.settle()

    @rule(
        key=KEYS,
        outer=st.sampled_from(["get", "put", "put_many", "delete", "clear"]),
        inner=st.sampled_from(["get", "put", "put_many", "delete", "clear"]),
        name=st.sampled_from(["L1", "L2", "L3"]),
        method=st.sampled_from(["get", "put", "put_many", "delete", "delete_many", "discard", "keys", "overflow"]),
        moment=st.sampled_from(["before", "after"]),
    )
    def interleave(  # noqa: PLR0917 - hypothesis gives them by name
        self, key: str, outer: str, inner: str, name: str, method: str, moment: str
    ) -> None:
        """One operation runs in the middle of another. Whichever counts as the last, it does so from then on."""
        if self.failing or name > self.authority:
            return
        results: list[Held | None] = [self.alive(key)]
        before = self.model.copy()
        ran: list[str] = []

        def run(operation: str) -> None:
            held = self.new(1000.0)
            ran.append(operation)
            acts: dict[str, Callable[[], object]] = {
                "get": lambda: self.cache.get(key),
                "put": lambda: self.cache.put(note(key, held[0], ttl_seconds=1000.0)),
                "put_many": lambda: self.cache.put_many([note(key, held[0], ttl_seconds=1000.0)]),
                "delete": lambda: self.cache.delete(key),
                "clear": self.cache.clear,
            }
            if operation == "get":
                self.requests += 1
            else:
                results.append(held if operation.startswith("put") else None)
            acts[operation]()

        scripted = tier(self.cache, name)
        getattr(scripted, moment)(method, lambda: run(inner))
        run(outer)
        scripted.forget()
        writes = [operation for operation in ran if operation != "get"]
        found = self.check(key, *(results[1:] if writes else results))
        self.model.pop(key, None)
        if found is not None:
            self.model[key] = found
        self.check(key, found)
        for other in set("abc") - {key}:
            if "clear" in ran:
                self.model.pop(other, None)
            assert "clear" in ran or before.get(other) == self.model.get(other)

    # -- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def bounds_hold(self) -> None:
        for level in self.cache.levels if hasattr(self, "cache") and not self.failing else ():
            assert level.max_entries is None or tier(self.cache, level.name).tier.size() <= level.max_entries

    @invariant()
    def every_request_is_counted_once(self) -> None:
        if hasattr(self, "cache"):
            hits = sum(level.counters.hits for level in self.cache.levels)
            assert hits + self.cache._stack.counters.misses == self.requests

    def teardown(self) -> None:
        try:
            if hasattr(self, "cache"):
                self.heal()
                self.read_all()
        finally:
            self.world.close()


def _failures(record: Any) -> int:
    return int(record.columns["failure_count"] if isinstance(record, Row) else record.failure_count)


TestModel = pytest.mark.req("E-6")(Model.TestCase)
TestModel.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
