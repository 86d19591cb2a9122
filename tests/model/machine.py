"""A stack of one to four real levels, however configured and in whatever trouble, is a dictionary whose items expire.

The dictionary holds for each key what a read may find: one thing, unless a call failed in a way that leaves open
whether it was done, or a record was damaged behind the engine's back. What is read settles which it was.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, NamedTuple

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.core.engine.support import Note, note, tier
from tests.model.machine_world import OFFERED, STORED, RealWorld, corrupt

from tierkit import CacheStorageError, TierFull, TierUnavailable
from tierkit.testing import FakeClock

NAMES = "abc"
KEYS = st.sampled_from(NAMES)
TTLS = st.sampled_from([2.0, 5.0, 1000.0])
PLACES = st.integers(0, 3)
DOWN: dict[str, tuple[str, ...]] = {
    "all": (),
    "put": ("put", "put_many", "replace"),
    "delete": ("delete", "delete_many"),
    "get": ("get", "get_many"),
}
FULL = ("put", "put_many", "replace")


class Held(NamedTuple):
    """What may be found for a key."""

    text: str
    deadline: float
    failures: int = 0
    health: str = "unknown"


class Reads(NamedTuple):
    """How many reads a record may have counted: at least, at most."""

    least: int
    most: int


Possible = frozenset[Held | None]
NOTHING: Possible = frozenset([None])


@st.composite
def stacks(draw: Any) -> list[dict[str, Any]]:
    """One to four levels: live ones above stored ones, each with a bound and a policy."""
    live = draw(st.integers(0, 2))
    stored = draw(st.integers(0 if live else 1, 4 - live))
    kinds = ["live"] * live + [draw(st.sampled_from(STORED)) for _ in range(stored)]
    return [_level(draw, kind, lowest=place == len(kinds) - 1) for place, kind in enumerate(kinds)]


def _level(draw: Any, kind: str, *, lowest: bool) -> dict[str, Any]:
    bounds = [None, None, None, 2] if lowest else [None, 1, 2]
    return {
        "backend": kind if kind in ("live", "disk") else f"real-{kind}",
        "max_entries": draw(st.sampled_from(bounds)),
        "eviction_policy": draw(st.sampled_from(OFFERED["memory" if kind == "live" else kind])),
    }


SETTINGS = st.fixed_dictionaries(
    {
        "failure_threshold": st.integers(1, 3),
        "enable_health_invalidation": st.sampled_from([True, True, False]),
        "tier_failure_threshold": st.integers(1, 3),
        "staleness_seconds": st.sampled_from([None, 1.5]),
        "grace_seconds": st.sampled_from([0.0, 0.0, 3.0]),
        "enable_statistics": st.sampled_from([True, True, False]),
        "durability": st.sampled_from(["process", "process", "full"]),
    }
)


class Machine(RuleBasedStateMachine):
    """Three keys, room for two, short lives, and levels in trouble."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.world = RealWorld(self.clock)
        self.model: dict[str, Possible] = {}
        self.unsettled: set[str] = set()  # keys whose copies may differ, since a call failed after it was done
        self.reads: dict[str, Reads] = {}
        self.texts = (f"text{number}." for number in count())
        self.damaged: set[str] = set()  # keys whose record in the authority is rotten, as far as nobody has looked
        self.failing: set[str] = set()
        self.calm = True  # nothing happened yet that may lose usage
        self.bounded = True  # a write has returned since a level was in trouble
        self.excused = False  # a level is in trouble, or is owed what it missed
        self.rotten = False  # a level may hold what it cannot name as a victim
        self.requests = 0

    @initialize(levels=stacks(), settings=SETTINGS)
    def start(self, levels: list[dict[str, Any]], settings: dict[str, Any]) -> None:
        self.levels, self.settings = levels, settings
        self.authority = f"L{len(levels)}"
        self.forgets = levels[-1]["max_entries"] is not None
        self.persists = levels[-1]["backend"] != "live"
        if settings["durability"] == "full" and not self.persists:
            settings["durability"] = "process"  # a stack that cannot keep that is refused
        self.reopen()

    def reopen(self) -> None:
        self.cache = self.world.open_config(self.levels, **self.settings)
        self.failing.clear()
        self.unsettled.clear()
        self.excused = False
        self.requests = 0

    # -- what the dictionary says ------------------------------------------------------------------------------------

    def alive(self, key: str) -> Possible:
        now = self.clock.wall()
        return frozenset(held if held and now < held.deadline else None for held in self.model.get(key, NOTHING))

    def expired(self, key: str) -> Possible:
        """What may still be there for those who ask for stale records."""
        now = self.clock.wall()
        return frozenset(held for held in self.model.get(key, NOTHING) if held and now >= held.deadline)

    def new(self, ttl: float) -> Held:
        return Held(next(self.texts), self.clock.wall() + ttl)

    @property
    def unreadable(self) -> bool:
        return self.excused and (bool(self.failing) or not all(level.in_service for level in self.cache.levels))

    def write(self, act: Callable[[], object], change: Callable[[str], Possible], keys: str = NAMES) -> bool:
        """Do `act`, which changes `keys` as `change` says. If it raises nothing was done, or nobody knows."""
        scripted = tier(self.cache, self.authority)
        raises = bool(scripted._after)
        try:
            act()
        except CacheStorageError:
            assert self.excused
            if raises and not scripted._after:  # it was done, and then it failed
                self.model |= {key: self.alive(key) | change(key) for key in keys}
                self.unsettled |= set(keys)
            return False
        finally:
            scripted.forget()
        self.model |= {key: change(key) for key in keys}
        self.unsettled -= set(keys)
        self.damaged -= set(keys)
        return True

    def trouble(self) -> None:
        self.calm = self.bounded = False
        self.excused = True

    def found(self, key: str, entry: Note | None, allowed: Possible | None = None) -> None:
        """What a read found must be allowed, and settles what it was."""
        self.requests += 1
        allowed = self.alive(key) if allowed is None else allowed
        if entry is None:
            assert None in allowed or self.forgets or self.unreadable, f"{key} is lost: {allowed}"
            if None in allowed and not self.failing and key not in self.unsettled | self.damaged:
                self.model[key] = self.expired(key) | NOTHING
            return
        matching = self.matching(key, entry, allowed)
        if key not in self.unsettled | self.damaged:
            self.model[key] = matching
        self.count_read(key, entry)

    @staticmethod
    def matching(key: str, entry: Note, allowed: Possible) -> Possible:
        """Those of `allowed` that `entry` is: one at least."""
        assert entry.expires_at is not None
        found = Held(entry.text, entry.expires_at.timestamp(), entry.failure_count, entry.health_status.value)
        matching = [held for held in allowed if held and held == found._replace(deadline=held.deadline)]
        assert matching, f"{key} is {found}, and should be one of {allowed}"
        assert found.deadline == pytest.approx(matching[0].deadline, abs=1e-5)
        return frozenset(matching)

    def count_read(self, key: str, entry: Note) -> None:
        least, most = self.reads.get(key, Reads(0, 0))
        self.reads[key] = Reads(least + 1, most + 1)
        assert entry.access_count <= most + 1, f"{key} counts {entry.access_count} reads of {most + 1}"

    def forget_reads(self, keys: str = NAMES) -> None:
        """Their records may be gone, and with them their usage."""
        self.reads |= {key: Reads(0, self.reads.get(key, Reads(0, 0)).most) for key in keys}

    # -- writing -----------------------------------------------------------------------------------------------------

    @rule(key=KEYS, ttl=TTLS)
    def put(self, key: str, ttl: float) -> None:
        held = self.new(ttl)
        entry = note(key, held.text, ttl_seconds=ttl)
        if self.write(lambda: self.cache.put(entry), lambda _: frozenset([held]), key):
            self.bounded = not self.excused  # what a level is owed is pinned above

    @rule(keys=st.lists(KEYS, max_size=5), ttl=TTLS)
    def put_many(self, keys: list[str], ttl: float) -> None:
        new = [(key, self.new(ttl)) for key in keys]
        last = dict(new)
        entries = [note(key, held.text, ttl_seconds=ttl) for key, held in new]
        self.write(lambda: self.cache.put_many(entries), lambda key: frozenset([last[key]]), "".join(last))

    @rule(key=KEYS)
    def put_and_outlive(self, key: str) -> None:
        self.put(key, 2.0)
        self.wait(2.0)
        self.get(key)

    @rule(key=KEYS)
    def put_slowly(self, key: str) -> None:
        tier(self.cache, self.authority).after("put", lambda: self.clock.advance(11))
        held = self.new(1000.0)
        try:
            self.cache.put(note(key, held.text, ttl_seconds=1000.0))
        except CacheStorageError:
            assert self.excused
        else:
            self.model[key] = frozenset([held])
            self.unsettled.discard(key)
            self.damaged.discard(key)
        tier(self.cache, self.authority).forget()
        self.forget_reads()

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        if self.write(lambda: self.cache.delete(key), lambda _: NOTHING, key):
            self.forget_reads(key)

    @rule()
    def clear(self) -> None:
        if self.write(self.cache.clear, lambda _: NOTHING):
            self.forget_reads()

    @rule(key=KEYS, bulk=st.booleans())
    def fail_record(self, key: str, bulk: bool) -> None:
        threshold = self.settings["failure_threshold"] if self.settings["enable_health_invalidation"] else 10**9
        counted = frozenset(
            held and held._replace(failures=held.failures + 1, health="unhealthy") for held in self.alive(key)
        )
        after = frozenset(held if held and held.failures < threshold else None for held in counted)
        if not self.judge(key, after, bulk, healthy=False) and any(held and held not in after for held in counted):
            self.model[key] = self.model.get(key, NOTHING) | counted  # counted, it may be, but not removed
        if None in after:
            self.forget_reads(key)

    def fail_one(self, key: str) -> None:
        self.fail_record(key, bulk=False)

    @rule(key=KEYS, bulk=st.booleans())
    def succeed(self, key: str, bulk: bool) -> None:
        after = frozenset(held and held._replace(failures=0, health="healthy") for held in self.alive(key))
        self.judge(key, after, bulk, healthy=True)

    def judge(self, key: str, after: Possible, bulk: bool, *, healthy: bool) -> bool:
        """Tell the cache the result of a check, one way or the other. Answers whether it was taken."""
        before = self.alive(key)
        answers: list[Any] = []

        def act() -> None:
            if bulk:
                result = self.cache.record_health({key: healthy})
                answers.append(result)
                if result.error is not None:
                    raise result.error
            else:
                answers.append((self.cache.record_success if healthy else self.cache.invalidate_by_health)(key))

        if not self.write(act, lambda _: after | self.expired(key), key):
            return False
        gone = bool(answers[0].removed + answers[0].missing) if bulk else answers[0] is None
        if not gone:
            assert after > NOTHING or NOTHING.isdisjoint(after), f"{key} should be gone"
            self.model[key] = after - NOTHING if bulk else self.matching(key, answers[0], after)
        else:
            assert None in after or self.forgets
            if before > NOTHING:  # it may have been damaged in the authority, and be whole above
                self.model[key] = after | before
        return True

    # -- reading -----------------------------------------------------------------------------------------------------

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        self.found(key, self.cache.get(key))

    @rule()
    def read_all(self) -> None:
        entries = self.cache.get_many(NAMES)
        for key in NAMES:
            self.found(key, entries.get(key))

    @rule(key=KEYS)
    def get_with_level(self, key: str) -> None:
        entry, name = self.cache.get_with_level(key)
        assert (entry is None) == (name is None)
        self.found(key, entry)

    @rule(key=KEYS)
    def get_stale(self, key: str) -> None:
        entry = self.cache.get(key, allow_stale=True)
        if entry is None or not entry.is_stale:
            self.found(key, entry)
            return
        self.found(key, entry, self.expired(key))
        assert entry.expires_at is not None
        assert self.clock.wall() < entry.expires_at.timestamp() + self.settings["grace_seconds"]

    @precondition(lambda self: not self.unreadable)
    @rule()
    def scan(self) -> None:
        found = {entry.key: entry for entry in self.cache.scan()}
        for key in NAMES:
            allowed, entry = self.alive(key), found.get(key)
            texts = {held and held.text for held in allowed}
            assert (entry and entry.text) in texts or (self.forgets and entry is None), f"{key}: {entry}, {allowed}"

    @precondition(lambda self: self.persists and not self.forgets and self.authority not in self.failing)
    @rule()
    def flush(self) -> None:
        """Afterwards the authority knows of every read, and of none twice."""
        self.cache.flush()
        for key, row in tier(self.cache, self.authority).tier.get_many(NAMES).items():
            least, most = self.reads.get(key, Reads(0, 0))
            assert (least if self.calm else 0) <= row.access_count <= most, f"{key}: {row.access_count} of {most}"

    # -- time, room, ends --------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 2.0, 5.0]))
    def wait(self, seconds: float) -> None:
        before = {key: self.alive(key) for key in NAMES}
        self.clock.advance(seconds)
        self.forget_reads("".join(key for key in NAMES if self.alive(key) != before[key]))

    @rule(seconds=st.sampled_from([-7200.0, 7200.0]))
    def step_wall_clock(self, seconds: float) -> None:
        """An administrator sets the clock: nothing becomes older or younger by that, until the next start."""
        self.clock.step_wall(seconds)
        self.clock.step_wall(-seconds)

    @rule()
    def sweep(self) -> None:
        self.cache.sweep()
        if not self.failing and all(level.in_service for level in self.cache.levels):
            now = self.clock.wall()
            held = [record for level in self.cache.levels for record in tier(self.cache, level.name).tier.scan()]
            assert all(record.purge_at > now for record in held)

    @rule()
    def restart(self) -> None:
        self.world.close()
        self._start_again()

    @rule()
    def crash(self) -> None:
        self.trouble()
        self.world.crash()
        self._start_again()

    def _start_again(self) -> None:
        self.calm = self.calm and not self.failing
        if not self.persists:
            self.model.clear()
            self.forget_reads()
        self.reopen()

    # -- trouble -----------------------------------------------------------------------------------------------------

    def _name(self, place: int) -> str:
        return f"L{place % len(self.levels) + 1}"

    @rule(place=PLACES, kind=st.sampled_from([*DOWN, "full"]))
    def fail(self, place: int, kind: str) -> None:
        name = self._name(place)
        error = TierFull("made to be full") if kind == "full" else TierUnavailable("made to fail")
        tier(self.cache, name).fail(*(FULL if kind == "full" else DOWN[kind]), error=error)
        self.failing.add(name)
        self.trouble()

    @rule(key=KEYS, method=st.sampled_from(["put", "delete", "replace", "put_many"]))
    def fail_after_the_fact(self, key: str, method: str) -> None:
        """The authority does what it is told, and then says that it failed."""

        def fail() -> None:
            raise TierUnavailable("made to fail after the fact")

        self.trouble()
        tier(self.cache, self.authority).after(method, fail)
        acts = {"put": self.put, "put_many": lambda key, ttl: self.put_many([key], ttl)}
        if method in acts:
            acts[method](key, 1000.0)
        else:
            (self.delete if method == "delete" else self.fail_one)(key)

    @precondition(lambda self: self.failing)
    @rule()
    def heal(self) -> None:
        for level in reversed(self.cache.levels):
            tier(self.cache, level.name).heal()
        for level in reversed(self.cache.levels):
            level.reset_failures()
        self.failing.clear()
        self.excused = False
        self.cache._stack.settle()
        self.bounded = True

    @precondition(lambda self: self.failing)
    @rule()
    def recover(self) -> None:
        """The storage is well again, and time does the rest."""
        for level in self.cache.levels:
            tier(self.cache, level.name).heal()
        self.wait(61.0)
        self.cache.recover()
        assert all(level.in_service for level in self.cache.levels)
        self.failing.clear()
        self.excused = False

    @rule(place=PLACES, key=KEYS)
    def rot(self, place: int, key: str) -> None:
        name = self._name(place)
        level = self.cache.levels[int(name[1]) - 1]
        if not level.live and corrupt(self.world, self.cache, name, key):
            self.calm = False
            self.rotten = True
            if name == self.authority or self.excused:  # a level that stands in has the only copy
                self.model[key] = self.alive(key) | NOTHING
                self.damaged.add(key)

    # -- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def bounds_hold(self) -> None:
        for level in self.cache.levels if hasattr(self, "cache") and self.bounded and not self.rotten else ():
            assert level.max_entries is None or tier(self.cache, level.name).tier.size() <= level.max_entries

    @invariant()
    def every_request_is_counted_once(self) -> None:
        if hasattr(self, "cache"):
            hits = sum(level.counters.hits for level in self.cache.levels)
            counting = self.settings["enable_statistics"]
            assert hits + self.cache._stack.counters.misses == (self.requests if counting else 0)

    def teardown(self) -> None:
        try:
            if hasattr(self, "cache"):
                self.heal()
                self.read_all()
        finally:
            self.world.end()
