"""A stack of one to four real levels, however configured and in whatever trouble, is a dictionary whose items expire.

The dictionary holds for each key what a read may find: one thing, unless a call failed in a way that leaves open
whether it was done, or a record was damaged behind the engine's back. What is read settles which it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.core.engine.support import Note, note, tier
from tests.model.machine_stacks import KEYS, NAMES, NOTHING, STACKS, TTLS, Held, Possible, Reads, renewed
from tests.model.machine_world import RealWorld, corrupt, peek, stored_text

from tierkit import CacheStorageError, TierFull, TierUnavailable
from tierkit.level import Level
from tierkit.row import Row, is_owed
from tierkit.testing import FakeClock

PICKS = st.integers(0, 11)
"""Chooses a key: see `Machine.pick`."""
PLACES = st.integers(0, 3)
CLEARLY_MORE = 6
"""Reads and writes before what makes an end of everything may come again."""
PUTS = ("put", "put_many", "replace", "replace_many")
DOWN: dict[str, tuple[str, ...]] = {
    "all": (),
    "put": PUTS,
    "delete": ("delete", "delete_many"),
    "get": ("get", "get_many"),
}


class Machine(RuleBasedStateMachine):
    """Three keys, room for two, short lives, and levels in trouble."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.world = RealWorld(self.clock)
        self.model: dict[str, Possible] = {}
        self.below: dict[str, Possible] = {}  # what the authority may hold while a newer write waits for it
        self.unsettled: set[str] = set()  # keys whose copies may differ, since a call failed after it was done
        self.reads: dict[str, Reads] = {}
        self.texts = (f"text{number}." for number in count())
        self.damaged: set[str] = set()  # keys whose record in the authority is rotten, as far as nobody has looked
        self.failing: set[str] = set()
        self.calm = True  # nothing happened yet that may lose usage
        self.bounded = True  # a write has returned since a level was in trouble
        self.rotten = False  # a level may hold what it cannot name as a victim
        self.requests = 0
        self.acts = 0  # reads and writes since the last end of everything
        self.drift = 0.0  # of the wall clock
        self.offset = self.clock.wall() - self.clock.monotonic()

    @initialize(drawn=STACKS)
    def start(self, drawn: tuple[list[dict[str, Any]], dict[str, Any]]) -> None:
        self.levels, self.settings = drawn
        self.authority = f"L{len(self.levels)}"
        self.room = self.levels[-1]["max_entries"]
        self.persists = self.levels[-1]["backend"] != "live"
        self.policy = self.levels[-1]["write_policy"]
        self.reopen()

    def reopen(self) -> None:
        before, self.offset = self.now(), self.clock.wall() - self.clock.monotonic()
        self.cache = self.world.open_config(self.levels, **self.settings)
        self.failing.clear()
        self.unsettled.clear()
        self.requests = self.acts = 0
        if self.now() != before:
            self.forget_reads()
        for key, possible in self.model.items():  # the clock was set back: what had expired may be there, or be gone
            if any(held and held.deadline <= before for held in possible):
                self.model[key] = possible | NOTHING

    # -- what the dictionary says ------------------------------------------------------------------------------------

    def now(self) -> float:
        """By the wall clock when the cache was opened, and what has passed since."""
        return self.clock.monotonic() + self.offset

    def alive(self, key: str) -> Possible:
        now = self.now()
        return frozenset(held if held and now < held.deadline else None for held in self.model.get(key, NOTHING))

    def expired(self, key: str) -> Possible:
        """What may still be there for those who ask for stale records."""
        now = self.now()
        return frozenset(held for held in self.model.get(key, NOTHING) if held and now >= held.deadline)

    def new(self, ttl: float) -> Held:
        return Held(next(self.texts), self.now() + ttl, ttl, self.now())

    def pick(self, choice: int | str) -> str:
        """A key: most often one that is held, if any is."""
        if isinstance(choice, str):
            return choice
        held = [key for key in NAMES if self.alive(key) != NOTHING]
        return held[choice % len(held)] if held and choice % 4 else NAMES[choice % 3]

    @property
    def forgets(self) -> bool:
        """Whether the authority may have had more records than it has room for."""
        return self.room is not None and sum(self.model.get(key, NOTHING) != NOTHING for key in NAMES) > self.room

    def sure(self, key: str) -> bool:
        """Whether every level that holds `key` has the same, and it is sound, as far as anyone knows."""
        return key not in self.unsettled | self.damaged and not self.forgets

    # -- trouble, as a write or a read may know it -------------------------------------------------------------------

    @property
    def top_down(self) -> tuple[Level, ...]:
        return self.cache.levels

    @property
    def above(self) -> list[Level]:
        """The stored levels above the authority, which may hold writes for it; the nearest first."""
        return [level for level in reversed(self.top_down[:-1]) if not level.live]

    def troubled(self, level: Level) -> bool:
        ill = level.name in self.failing or not level.in_service or not level.writable
        return ill or bool(tier(self.cache, level.name)._after)

    @property
    def well(self) -> bool:
        return not any(map(self.troubled, self.top_down))

    def holds_owed(self, level: Level, keys: str = NAMES) -> bool:
        held = peek(self.cache, level.name)
        return any(key in held and is_owed(held[key]) for key in keys)

    def in_memory(self) -> list[str]:
        """The keys of which a write is acknowledged and held in memory alone: `durability` promises nothing."""
        held = [key for key, intent in self.cache._stack.owing.intents.items() if intent.level is None]
        assert not held or self.settings["durability"] == "none"
        return held

    def owed(self, key: str) -> bool:
        return key in self.cache._stack.owing.intents

    def unreadable(self, keys: str = NAMES) -> bool:
        """Whether the authority cannot be read now, or a level that holds what it is owed."""
        authority = self.top_down[-1]
        gone = authority.name in self.failing or not authority.in_service
        return gone or any(self.troubled(level) and self.holds_owed(level, keys) for level in self.above)

    def may_raise(self, *, compares: bool) -> bool:
        """Whether a write that starts now may find nobody to take it."""
        authority = self.top_down[-1]
        lost = self.troubled(authority)
        if compares:
            return lost or any(self.troubled(level) and self.holds_owed(level) for level in self.above)
        if not lost:
            return False
        stands_in = (
            self.above[0].max_entries is None and not any(map(self.troubled, self.above))
            if self.above
            else (self.persists and self.settings["durability"] == "none")
        )
        return not stands_in

    # -- one act -----------------------------------------------------------------------------------------------------

    def write(
        self,
        act: Callable[[], object],
        change: Callable[[str], Possible],
        keys: str = NAMES,
        *,
        compares: bool = False,
    ) -> bool:
        """Do `act`, which changes `keys` as `change` says. If it raises nothing was done, or nobody knows.

        `compares`: it needs the authority itself.
        """
        self.acts += 1
        allowed = self.may_raise(compares=compares)
        for key in keys:
            self.below[key] = self.model.get(key, NOTHING) | (self.below.get(key, NOTHING) if self.owed(key) else set())
        scripted = [tier(self.cache, level.name) for level in self.top_down]
        waiting = [script for script in scripted if script._after]
        try:
            act()
        except CacheStorageError:
            assert allowed, "a write raised, and somebody could have taken it"
            if not all(script._after for script in waiting):  # it was done, and then it failed
                self.model |= {key: self.model.get(key, NOTHING) | change(key) for key in keys}
                self.unsettled |= set(keys)
                for level in self.top_down[:-1]:
                    left = set(keys) & peek(self.cache, level.name).keys() if level.live and self.persists else set()
                    assert not left or self.troubled(level), f"copies of {left} stay in {level.name}: are they old?"
                self.forget_what_has_no_room()
            return False
        finally:
            for script in scripted:
                script.forget()
        self.model |= {key: change(key) for key in keys}
        self.unsettled -= set(keys)
        self.damaged -= set(keys)
        self.forget_what_has_no_room()
        return True

    def forget_what_has_no_room(self) -> None:
        if self.forgets:
            self.model |= {key: possible | NOTHING for key, possible in self.model.items()}

    def trouble(self) -> None:
        self.calm = self.bounded = False

    def found(self, key: str, entry: Note | None) -> None:
        """What a read found must be allowed, and settles what it was."""
        self.requests += 1
        self.acts += 1
        allowed = self.alive(key)
        if entry is None:
            assert None in allowed or self.forgets or self.unreadable(key), f"{key} is lost: {allowed}"
            if (None in allowed or self.forgets) and not self.unreadable() and key not in self.unsettled | self.damaged:
                self.model[key] = self.expired(key) | NOTHING
            return
        longest = self.settings["sliding_max_seconds"]
        after = frozenset(held and renewed(held, self.now(), longest) for held in allowed)
        if self.sure(key) and self.well:
            self.model[key] = self.matching(key, entry, after)
        else:  # it may not have been renewed
            matching = self.matching(key, entry, after | allowed)
            self.model[key] = matching if self.sure(key) else self.model[key] | matching
        self.count_read(key, entry)

    def matching(self, key: str, entry: Note, allowed: Possible) -> Possible:
        """Those of `allowed` that `entry` is: one at least."""
        assert entry.expires_at is not None
        assert entry.created_at is not None
        found = (entry.text, entry.failure_count, entry.health_status.value)
        deadline, created = entry.expires_at.timestamp(), pytest.approx(entry.created_at.timestamp(), abs=1e-5)
        alike = [held for held in allowed if held and (held.text, held.failures, held.health) == found]
        alike = [held for held in alike if held.created == created]
        matching = [held for held in alike if deadline == pytest.approx(held.deadline, abs=1e-5)]
        assert matching, f"{key} is {found} until {deadline} at {self.now()}, and should be one of {allowed}"
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
        before = self.copies()
        if self.write(lambda: self.cache.put(entry), lambda _: frozenset([held]), key):
            self.bounded = self.bounded or self.well  # what a level is owed is pinned above
            self.in_their_places({key: held.text}, before)

    @rule(choice=PICKS, ttl=TTLS)
    def put_again(self, choice: int, ttl: float) -> None:
        self.put(self.pick(choice), ttl)

    @rule(keys=st.lists(KEYS, min_size=1, max_size=5), ttl=TTLS)
    def put_many(self, keys: list[str], ttl: float) -> None:
        new = [(key, self.new(ttl)) for key in keys]
        last = dict(new)
        entries = [note(key, held.text, ttl_seconds=ttl) for key, held in new]
        before = self.copies()
        answers: list[int] = []
        if self.write(
            lambda: answers.append(self.cache.put_many(entries)), lambda key: frozenset([last[key]]), "".join(last)
        ):
            assert answers == [len(keys)]
            self.in_their_places({key: held.text for key, held in last.items()}, before)

    @rule(choices=st.lists(PICKS, min_size=1, max_size=4), ttl=TTLS)
    def put_merged(self, choices: list[int], ttl: float) -> None:
        """What was found out about a record stays, and its first moment; the rest is new."""
        new = [(self.pick(choice), self.new(ttl)) for choice in choices]
        last = dict(new)
        entries = [note(key, held.text, ttl_seconds=ttl) for key, held in new]
        answers: list[int] = []

        def merged(key: str) -> Possible:
            after = {_merged(last[key], held) for held in self.alive(key)}
            return frozenset(after if self.sure(key) else {*after, last[key]})

        if self.write(
            lambda: answers.append(self.cache.put_many(entries, merge=True)), merged, "".join(last), compares=True
        ):
            assert answers == [len(new)]

    @rule(key=KEYS)
    def put_and_outlive(self, key: str) -> None:
        self.put(key, 2.0)
        self.wait(2.0)
        self.get(key)

    @rule(key=KEYS, ttl=TTLS)
    def put_and_read_on(self, key: str, ttl: float) -> None:
        """So that a hit renews it, where hits do, until its last moment and no longer."""
        self.put(key, ttl)
        for _ in range(5):
            self.wait(1.0)
            self.get(key)

    @rule()
    def put_more_than_there_is_room_for(self) -> None:
        for key in NAMES:
            self.put(key, 1000.0)
        self.read_all()

    @rule(key=KEYS)
    def put_slowly(self, key: str) -> None:
        tier(self.cache, self.authority).after("put", lambda: self.clock.advance(11))
        held = self.new(1000.0)
        entry = note(key, held.text, ttl_seconds=1000.0)
        allowed = self.troubled(self.top_down[-1])
        scripted = tier(self.cache, self.authority)
        before = self.model.get(key, NOTHING)
        self.below[key] = before | (self.below.get(key, NOTHING) if self.owed(key) else set())
        try:
            self.cache.put(entry)
        except CacheStorageError:
            assert allowed
        else:
            self.model[key] = frozenset([held])
            self.unsettled.discard(key)
            self.damaged.discard(key)
        self.forget_what_has_no_room()
        scripted.forget()
        self.forget_reads()

    @rule(choice=PICKS)
    def delete(self, choice: int | str) -> None:
        key = self.pick(choice)
        known, allowed = self.sure(key) and not self.unreadable(), self.alive(key)
        answers: list[bool] = []
        if self.write(lambda: answers.append(self.cache.delete(key)), lambda _: NOTHING, key):
            self.forget_reads(key)
            if known:
                assert answers[0] in {held is not None for held in allowed}, f"{key}: {answers[0]}, {allowed}"

    @precondition(lambda self: self.acts >= CLEARLY_MORE)
    @rule()
    def clear(self) -> None:
        if self.write(self.cache.clear, lambda _: NOTHING, compares=True):
            self.forget_reads()
            self.acts = 0

    @rule(choice=PICKS, bulk=st.booleans())
    def fail_record(self, choice: int | str, bulk: bool) -> None:
        key = self.pick(choice)
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

    @rule(choice=PICKS, bulk=st.booleans())
    def succeed(self, choice: int | str, bulk: bool) -> None:
        key = self.pick(choice)
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

        unsure = not self.sure(key)
        if not self.write(act, lambda _: after | self.expired(key), key, compares=True):
            return False
        gone = bool(answers[0].removed + answers[0].missing) if bulk else answers[0] is None
        if not gone:
            assert after > NOTHING or NOTHING.isdisjoint(after), f"{key} should be gone"
            self.model[key] = after - NOTHING if bulk else self.matching(key, answers[0], after)
        else:
            assert None in after or unsure, f"{key} is gone, and should be one of {after}"
            if before > NOTHING:  # it may have been damaged in the authority, and be whole above
                self.model[key] = after | before
        return True

    # -- where things are --------------------------------------------------------------------------------------------

    def copies(self) -> dict[str, dict[str, Any]] | None:
        """What each level holds; None while it does not matter, since a level is in trouble."""
        return {level.name: peek(self.cache, level.name) for level in self.top_down} if self.well else None

    def in_their_places(self, new: dict[str, str], before: dict[str, dict[str, Any]] | None) -> None:
        """What was put is where the write policies say, and what was evicted where it is demoted to."""
        after = self.copies()
        if before is None or after is None:
            return

        def was_owed(key: str) -> bool:
            records = [before[level.name].get(key) for level in self.above]
            return any(record is not None and is_owed(record) for record in records)

        crowded = False  # a level above has evicted something, or may have
        for place, level in enumerate(self.top_down):
            config = self.levels[place]
            held = after[level.name]
            lowest = level.name == self.authority
            waits = config["write_policy"] != "through" and (lowest or not self._stands_in(place))
            if waits and not crowded:
                there = {key for key, text in new.items() if key in held and stored_text(held[key]) == text}
                assert not there, f"{there} in {level.name}, which is to get only what is evicted above it"
            takes_all = config["max_entries"] is None or len(held) < config["max_entries"]
            if config["write_policy"] == "demote" and not lowest and takes_all:
                high = self.top_down[place - 1].name
                written = self.policy == self.levels[place - 1]["write_policy"] == "through" and len(new) == 1
                came = new.keys() if written else set()  # of many only those that there is room for
                there = (before[high].keys() - new.keys()) | came
                gone = {key for key in there - after[high].keys() if self._is_current(key) and not was_owed(key)}
                assert gone <= held.keys(), f"{gone - held.keys()} left {high}, and did not come to {level.name}"
            crowded = crowded or config["max_entries"] is not None

    def _stands_in(self, place: int) -> bool:
        """Whether writes wait in this level for the authority."""
        return self.policy != "through" and place == len(self.levels) - 2

    def _is_current(self, key: str) -> bool:
        return self.sure(key) and None not in self.alive(key)

    # -- reading -----------------------------------------------------------------------------------------------------

    @rule(choice=PICKS)
    def get(self, choice: int | str) -> None:
        key = self.pick(choice)
        self.found(key, self.cache.get(key))

    @rule()
    def read_all(self) -> None:
        entries = self.cache.get_many([*NAMES])
        for key in NAMES:
            self.found(key, entries.get(key))

    @rule(choice=PICKS)
    def get_with_level(self, choice: int) -> None:
        key = self.pick(choice)
        entry, name = self.cache.get_with_level(key)
        assert (entry is None) == (name is None)
        self.found(key, entry)

    @rule(key=KEYS, waits=st.booleans())
    def get_stale(self, key: str, waits: bool) -> None:
        if waits:
            self.put(key, 2.0)
            self.wait(2.0)
        entry = self.cache.get(key, allow_stale=True)
        if entry is None or not entry.is_stale:
            self.found(key, entry)
            return
        self.requests += 1
        self.matching(key, entry, self.expired(key))
        self.count_read(key, entry)
        assert entry.expires_at is not None
        assert self.now() < entry.expires_at.timestamp() + self.settings["grace_seconds"]

    @precondition(lambda self: not self.unreadable())
    @rule()
    def scan(self) -> None:
        found = {entry.key: entry for entry in self.cache.scan()}
        for key in NAMES:
            allowed, entry = self.alive(key), found.get(key)
            texts = {held and held.text for held in allowed}
            assert (entry and entry.text) in texts or (self.forgets and entry is None), f"{key}: {entry}, {allowed}"

    @precondition(lambda self: self.persists and self.well)
    @rule()
    def flush(self) -> None:
        """Afterwards the authority has every write, and knows of every read, and of none twice."""
        self.cache.flush()
        rows = peek(self.cache, self.authority)
        waits = [
            key for key in NAMES if key not in self.damaged and any(self.holds_owed(high, key) for high in self.above)
        ]
        assert not waits, f"{waits} still wait for the authority"
        for key in NAMES:
            allowed, row = self.alive(key), rows.get(key)
            if self.sure(key) and None not in allowed:
                texts = {held and held.text for held in allowed}
                assert row is not None, f"{key} did not come to the authority"
                assert stored_text(row) in texts, f"{key} is {stored_text(row)} in the authority, not one of {texts}"
            least, most = self.reads.get(key, Reads(0, 0))
            if row is not None and self.room is None:
                assert (least if self.calm else 0) <= row.access_count <= most, f"{key}: {row.access_count} of {most}"

    # -- time, room, ends --------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1.0, 1.0, 2.0, 5.0]))
    def wait(self, seconds: float) -> None:
        before = {key: self.alive(key) for key in NAMES}
        self.clock.advance(seconds)
        self.forget_reads("".join(key for key in NAMES if self.alive(key) != before[key]))

    @rule(drift=st.sampled_from([-200.0, 0.0, 200.0]), back=st.booleans())
    def step_wall_clock(self, drift: float, back: bool) -> None:
        """An administrator sets the clock: nothing becomes older or younger by that, until the next start."""
        stays, self.drift = self.drift, drift
        self.clock.step_wall(drift - stays)
        self.read_all()
        if back:
            self.clock.step_wall(stays - drift)
            self.drift = stays
            self.read_all()

    @rule()
    def sweep(self) -> None:
        self.cache.sweep()
        if self.well:
            now = self.now()
            held = [record for level in self.top_down for record in peek(self.cache, level.name).values()]
            assert all(record.purge_at > now for record in held)

    @precondition(lambda self: self.acts >= CLEARLY_MORE)
    @rule()
    def restart(self) -> None:
        self.may_be_lost(self.in_memory() if self.authority in self.failing else [])
        self.world.close()
        self._start_again()

    @precondition(lambda self: self.acts >= CLEARLY_MORE)
    @rule()
    def crash(self) -> None:
        self.trouble()
        self.may_be_lost(self.in_memory())
        self.world.crash()
        self._start_again()

    def may_be_lost(self, keys: Iterable[str]) -> None:
        """What was held for the authority; then it has what it had."""
        for key in keys:
            self.model[key] = self.model.get(key, NOTHING) | self.below.get(key, NOTHING)

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
        tier(self.cache, name).fail(*(PUTS if kind == "full" else DOWN[kind]), error=error)
        self.failing.add(name)
        self.trouble()

    @rule(place=PLACES, kind=st.sampled_from([*DOWN, "full"]), choices=st.lists(PICKS, max_size=3), waits=st.booleans())
    def fail_and_come_back(self, place: int, kind: str, choices: list[int], waits: bool) -> None:
        """An outage from its beginning to its end, with writes and reads in it."""
        self.fail(place, kind)
        for choice in choices:
            self.put_again(choice, 1000.0)
            self.get(choice + 1)
        if waits:
            self.recover()
        else:
            self.heal()
        self.read_all()

    @rule(choice=PICKS, place=PLACES, method=st.sampled_from(["put", "delete", "replace", "put_many"]))
    def fail_after_the_fact(self, choice: int, place: int, method: str) -> None:
        """A level, most often the authority, does what it is told, and then says that it failed."""

        def fail() -> None:
            raise TierUnavailable("made to fail after the fact")

        self.trouble()
        key = self.pick(choice)
        name = self.above[0].name if place == 0 and self.above else self.authority
        tier(self.cache, name).after(method, fail)
        acts = {"put": self.put, "put_many": lambda key, ttl: self.put_many([key], ttl)}
        if method in acts:
            acts[method](key, 1000.0)
        else:
            (self.delete if method == "delete" else self.fail_one)(key)

    @precondition(lambda self: self.failing)
    @rule()
    def heal(self) -> None:
        for level in reversed(self.top_down):
            tier(self.cache, level.name).heal()
        for level in reversed(self.top_down):
            level.reset_failures()
        self.failing.clear()
        self.cache._stack.settle()
        self.bounded = True

    @precondition(lambda self: self.failing)
    @rule()
    def recover(self) -> None:
        """The storage is well again, and time does the rest."""
        for level in self.top_down:
            tier(self.cache, level.name).heal()
        self.wait(61.0)
        self.cache.recover()
        assert all(level.in_service for level in self.top_down)
        self.failing.clear()

    @precondition(lambda self: any(level["backend"] != "live" for level in self.levels) and self.model)
    @rule(choice=st.integers(0, 23), looks=st.booleans())
    def rot(self, choice: int, looks: bool) -> None:
        """A record that is stored somewhere is damaged."""
        stored = [level for level in self.top_down if not level.live]
        there = [
            (level.name, key)
            for level in stored
            for key, record in sorted(peek(self.cache, level.name).items())
            if (stored_text(record) or "").islower()  # else there is none, or it is damaged already
        ]
        if there:
            self.damage(*there[choice % len(there)], looks=looks)

    def damage(self, name: str, key: str, *, looks: bool) -> None:
        row = peek(self.cache, name)[key]
        whole = [
            level.name
            for level in self.top_down[:-1]
            if (record := peek(self.cache, level.name).get(key)) is not None
            and record.version == row.version
            and (not is_owed(record) if isinstance(record, Row) else self.now() < record._fresh_until)
        ]
        owed = self.owed(key)
        assert corrupt(self.world, self.cache, name, key)
        self.calm = False
        self.rotten = True
        if is_owed(row):
            self.may_be_lost(key)
            self.model[key] |= NOTHING
        elif name == self.authority and owed:
            self.below[key] = self.below.get(key, NOTHING) | NOTHING
            return
        elif name == self.authority:
            known = self.sure(key) and None not in self.alive(key)
            self.model[key] = self.model.get(key, NOTHING) | NOTHING
            self.damaged.add(key)
            if looks and self.well:
                self.healed(key, row, whole if known else [])
            return
        else:
            return
        self.damaged.add(key)

    def healed(self, key: str, row: Row, whole: list[str]) -> None:
        """Who comes to a damaged record sees it gone, and a sound copy that there is in its place."""
        self.succeed(key, bulk=False)
        now = peek(self.cache, self.authority).get(key)
        text = stored_text(row) or ""
        assert now is None or stored_text(now) != text.swapcase(), f"{key} is damaged, and is still there"
        if whole and self.room is None:
            assert now is not None, f"{key} was not put back from {whole}"

    # -- what always holds -------------------------------------------------------------------------------------------

    @invariant()
    def bounds_hold(self) -> None:
        """Of every level, but for what waits there for the authority."""
        for level in self.top_down if hasattr(self, "cache") and self.bounded and not self.rotten else ():
            size = tier(self.cache, level.name).tier.size()
            if level.max_entries is not None and size > level.max_entries:
                waiting = sum(is_owed(row) for row in peek(self.cache, level.name).values()) if not level.live else 0
                assert size - waiting <= level.max_entries, f"{level.name} holds {size}, {waiting} of which wait"

    @invariant()
    def every_request_is_counted_once(self) -> None:
        if hasattr(self, "cache"):
            hits = sum(level.counters.hits for level in self.top_down)
            counting = self.settings["enable_statistics"]
            assert hits + self.cache._stack.counters.misses == (self.requests if counting else 0)

    def teardown(self) -> None:
        try:
            if hasattr(self, "cache"):
                self.heal()
                self.read_all()
        finally:
            self.world.end()


def _merged(new: Held, held: Held | None) -> Held:
    if held is None:
        return new
    known = held.failures or held.health != "unknown"
    kept = new._replace(failures=held.failures, health=held.health) if known else new
    return kept._replace(created=held.created)
