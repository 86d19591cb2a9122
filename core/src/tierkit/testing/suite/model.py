"""Contract: a tier against a dictionary, through random histories."""

from __future__ import annotations

from itertools import count
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tierkit.row import Delta
from tierkit.testing.records import FAR
from tierkit.testing.storage import Storage
from tierkit.testing.suite.examples import examples
from tierkit.tier import CacheTier, Trait, delete_refusal, refusal

KEPT = 900.0
SOON = 30.0
STEPS = 25
assert STEPS * SOON < KEPT, "so that only a long wait makes marks old enough to be forgotten"
keys = st.sampled_from(("a", "b"))
versions = st.integers(1, 5)
numbers = st.sampled_from((0, 1))
deadlines = st.sampled_from((FAR * 2, SOON))


class TierMachine(RuleBasedStateMachine):
    """Two keys, five versions, two values: small, so that histories meet themselves."""

    def __init__(self, storage: Storage) -> None:
        """Start over the empty `storage`."""
        super().__init__()
        self.storage = storage
        self.tier = storage.open(tombstone_seconds=KEPT)
        self.held: dict[str, Any] = {}
        self.marks: dict[str, int] = {}
        self.usage: dict[str, tuple[int, float]] = {}
        self.discard_deletes = type(self.tier).discard is CacheTier.discard

    def teardown(self) -> None:
        """Close the tier."""
        self.storage.close()

    def record(self, key: str, version: int, number: int, deadline: float) -> Any:
        """A record; one that is due soon is so by the clock of the machine."""
        soon = deadline == SOON and not self.storage.claims(Trait.NATIVE_TTL)
        purge_at = self.storage.clock.wall() + SOON if soon else FAR * 2
        return self.storage.record(key, version, number=number, purge_at=purge_at)

    def model_put(self, record: Any) -> int | None:
        """What a put must answer."""
        held = self.held.get(record.key)
        refused = refusal(record, held, self.marks.get(record.key, 0))
        if refused is None:
            self.held[record.key] = record
            self.usage.setdefault(record.key, (0, 0.0))
        return refused

    def model_replace(self, record: Any, expected: int) -> bool:
        """What `replace` must answer; done, if it must be."""
        held = self.held.get(record.key)
        return (held.version if held else 0) == expected and self.model_put(record) is None

    def model_remove(self, key: str, mark: int) -> None:
        """Hold nothing for `key`, and only take versions from `mark` on."""
        self.held.pop(key, None)
        self.usage.pop(key, None)
        self.marks[key] = mark

    @rule(key=keys, version=versions, number=numbers, deadline=deadlines)
    def put(self, key: str, version: int, number: int, deadline: float) -> None:
        """One record."""
        record = self.record(key, version, number, deadline)
        assert self.tier.put(record) == self.model_put(record)

    @rule(wanted=st.lists(st.tuples(keys, versions, numbers, deadlines), min_size=1, max_size=4))
    def put_many(self, wanted: list[tuple[str, int, int, float]]) -> None:
        """Several records."""
        records = [self.record(*each) for each in wanted]
        assert self.tier.put_many(records) == [self.model_put(record) for record in records]

    @rule(key=keys, version=versions)
    def delete(self, key: str, version: int) -> None:
        """One key."""
        refused = delete_refusal(version, self.held.get(key), self.marks.get(key, 0))
        assert self.tier.delete(key, version) == refused
        if refused is None:
            self.model_remove(key, version + 1)

    @rule(key=keys, version=versions, number=numbers, expected=st.integers(0, 5))
    def replace(self, key: str, version: int, number: int, expected: int) -> None:
        """Whatever is expected."""
        record = self.record(key, version, number, FAR * 2)
        assert self.tier.replace(record, expected) == self.model_replace(record, expected)

    @rule(wanted=st.lists(st.tuples(keys, versions, numbers, st.integers(0, 5)), min_size=1, max_size=4))
    def replace_many(self, wanted: list[tuple[str, int, int, int]]) -> None:
        """Several records, whatever is expected."""
        pairs = [(self.record(key, version, number, FAR * 2), expected) for key, version, number, expected in wanted]
        answers = self.tier.replace_many(pairs)
        assert answers == [self.model_replace(record, expected) for record, expected in pairs]

    @rule(key=keys, version=versions)
    def discard(self, key: str, version: int) -> None:
        """Whether it is held or not."""
        held = self.held.get(key)
        right = held is not None and held.version == version
        assert self.tier.discard(self.record(key, version, 0, FAR * 2)) == right
        if right:
            self.model_remove(key, version + self.discard_deletes)

    @precondition(lambda self: not self.storage.claims(Trait.LIVE))
    @rule(key=keys, hits=st.integers(1, 3), time=st.sampled_from((10.5, 20.25)))
    def touch(self, key: str, hits: int, time: float) -> None:
        """Whether it is held or not."""
        self.tier.touch_many({key: Delta(hits, time)})
        if key in self.held:
            number, last = self.usage[key]
            self.usage[key] = (number + hits, max(last, time))

    @rule(seconds=st.sampled_from((1.0, SOON, KEPT + 1)))
    def purge(self, seconds: float) -> None:
        """After some time: marks older than they must be kept are forgotten."""
        self.storage.clock.advance(seconds)
        now = self.storage.clock.wall()
        due = [record for record in self.held.values() if record.purge_at <= now]
        assert self.tier.purge(now) == len(due)
        if seconds > KEPT:
            self.marks.clear()
        for record in due:
            self.model_remove(record.key, record.version + self.discard_deletes)

    @precondition(lambda self: self.storage.claims(Trait.PERSISTENT))
    @rule()
    def reopen(self) -> None:
        """Nothing may be lost."""
        self.tier = self.storage.reopen(tombstone_seconds=KEPT)

    @rule()
    def clear(self) -> None:
        """Every record at its version."""
        self.tier.clear()
        for record in list(self.held.values()):
            self.model_remove(record.key, record.version + 1)

    @invariant()
    def holds_the_same(self) -> None:
        """By every way of reading."""
        for key in ("a", "b"):
            assert self.tier.get(key) == self.held.get(key)
        assert self.tier.get_many(["a", "b"]) == self.held
        assert sorted(self.tier.scan(), key=lambda record: str(record.key)) == [
            self.held[key] for key in sorted(self.held)
        ]
        assert self.tier.size() == len(self.held)
        if not self.storage.claims(Trait.LIVE):
            usage = {row.key: (row.access_count, row.last_accessed) for row in self.tier.scan()}
            assert usage == self.usage


class Model:
    """A tier against a dictionary, through random histories."""

    def test_random_histories_end_as_in_a_dictionary(self, storage: Storage) -> None:
        """Every answer and the whole state after every step."""
        names = map(str, count())

        class Machine(TierMachine):
            def __init__(self) -> None:
                super().__init__(storage.beside(next(names)))

        run_state_machine_as_test(Machine, settings=examples(40, STEPS))
