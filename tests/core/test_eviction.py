"""Every eviction policy against its textbook form, and what all of them promise to a tier."""

import gc
import threading
import tracemalloc
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.core.eviction_references import REFERENCES, Reference

from tierkit import EVICTION_POLICIES, EvictionPolicy, Held
from tierkit.eviction.turnstile import READS
from tierkit.eviction.wtinylfu import Sketch

KEYS = st.sampled_from([f"key {number}" for number in range(16)])
NAMES = sorted(EVICTION_POLICIES)
each = pytest.mark.parametrize("name", NAMES)
stepping = pytest.mark.parametrize("name", ["lfu", "s3fifo", "sieve", "wtinylfu"])


class Shelf:
    """The keys of a tier, evicted as the engine does it: victims are named and removed, or popped one by one."""

    def __init__(self, name: str, capacity: int, *, popping: bool = False) -> None:
        self.policy = EVICTION_POLICIES[name](capacity)
        self.popping = popping
        self.capacity = capacity
        self.keys: dict[str, None] = {}

    def write(self, *keys: str) -> list[str]:
        """Write `keys`, then make room. Answers what was evicted."""
        for key in keys:
            self.policy.admit(key)
            self.keys[key] = None
        excess = max(0, len(self.keys) - self.capacity)
        victims = [str(self.policy.pop()) for _ in range(excess)] if self.popping else self.policy.coldest(excess)
        for key in victims:
            self.remove(key)
        return victims

    def read(self, *keys: str) -> None:
        for key in keys:
            self.policy.hit(key)

    def remove(self, key: str) -> None:
        del self.keys[key]
        self.policy.remove(key)  # what was popped is not there any more, which does no harm


class PolicyMachine(RuleBasedStateMachine):
    """A policy, and its textbook form."""

    policy = ""

    @initialize(capacity=st.integers(1, 12), popping=st.booleans())
    def start(self, capacity: int, popping: bool) -> None:
        self.shelf = Shelf(self.policy, capacity, popping=popping)
        self.reference: Reference = REFERENCES[self.policy](capacity)

    @rule(key=KEYS)
    def write(self, key: str) -> None:
        assert self.shelf.write(key) == self.reference.write(key)

    @rule(keys=st.lists(KEYS, unique=True, min_size=2))
    def write_in_bulk(self, keys: list[str]) -> None:
        new = [key for key in keys if key not in self.shelf.keys]
        expected = [victim for key in new for victim in self.reference.write(key)]
        assert self.shelf.write(*new) == expected

    @rule(key=KEYS)
    def read(self, key: str) -> None:
        if key in self.shelf.keys:
            self.shelf.read(key)
            self.reference.use(key)

    @rule(key=KEYS)
    def remove(self, key: str) -> None:
        if key in self.shelf.keys:
            self.shelf.remove(key)
            self.reference.delete(key)

    @invariant()
    def the_same_keys_are_held(self) -> None:
        assert sorted(self.shelf.keys) == sorted(self.reference.keys())


@pytest.mark.req("E-6")
@each
def test_a_policy_evicts_what_its_textbook_form_evicts(name: str) -> None:
    machine: Any = type("Machine", (PolicyMachine,), {"policy": name})
    run_state_machine_as_test(machine)


# -- what a tier is promised -------------------------------------------------------------------------------------------

ACTS = st.lists(st.tuples(st.sampled_from(["admit", "hit", "remove", "name", "pop"]), KEYS), max_size=60)


@pytest.mark.req("US4-3")
@each
@given(acts=ACTS, capacity=st.integers(1, 6))
def test_whatever_happens_every_key_is_named_once_and_asking_again_gives_the_same(
    name: str, acts: list[tuple[str, str]], capacity: int
) -> None:
    policy = EVICTION_POLICIES[name](capacity)
    held: set[str] = set()
    for act, key in acts:
        if act == "admit":
            policy.admit(key)
            held.add(key)
        elif act == "hit" and key in held:
            policy.hit(key)
        elif act == "remove":
            policy.remove(key)
            held.discard(key)
        elif act == "name":
            check_names(policy, held, excess=len(held) - capacity)
        elif act == "pop":
            check_pop(policy, held)
    check_names(policy, held, excess=len(held))


def check_pop(policy: EvictionPolicy, held: set[str]) -> None:
    coldest = policy.coldest(1)
    popped = policy.pop()
    assert popped == (coldest[0] if coldest else None)
    held.discard(popped or "")


def check_names(policy: EvictionPolicy, held: set[str], excess: int) -> None:
    for count in range(max(0, excess) + 1):
        named = policy.coldest(count)
        assert len(set(named)) == len(named) == count
        assert held.issuperset(named)
        assert policy.coldest(count) == named


@each
def test_what_is_not_there_can_be_removed(name: str) -> None:
    policy = EVICTION_POLICIES[name](2)
    policy.remove("nothing")
    assert policy.coldest(5) == []
    assert policy.pop() is None


@each
def test_a_read_of_what_is_not_there_leaves_no_trace_in_the_order(name: str) -> None:
    policy = EVICTION_POLICIES[name](2)
    policy.admit("a")
    for _ in range(3):
        try:
            policy.hit("nothing")
        except KeyError:
            continue
    assert policy.coldest(5) == ["a"]


@stepping
@pytest.mark.parametrize("popping", [False, True])
def test_a_victim_that_is_read_before_it_goes_stays(name: str, popping: bool) -> None:
    shelf = Shelf(name, 4)
    shelf.write(*"abcd")
    shelf.policy.admit("e")
    (victim,) = shelf.policy.coldest(1)
    assert victim != "e"
    shelf.read(victim)
    others = [str(shelf.policy.pop())] if popping else []
    assert victim not in others
    assert popping or shelf.policy.coldest(1) != [victim]
    assert sorted(others + shelf.policy.coldest(5)) == list("abcde")


@stepping
def test_a_victim_that_is_written_before_it_goes_stays(name: str) -> None:
    shelf = Shelf(name, 4)
    shelf.write(*"abcd")
    shelf.policy.admit("e")
    (victim,) = shelf.policy.coldest(1)
    shelf.policy.admit(victim)
    assert shelf.policy.coldest(1) != [victim]
    assert sorted(shelf.policy.coldest(5)) == list("abcde")


@stepping
def test_a_new_key_is_not_the_victim_of_keys_that_all_were_read(name: str) -> None:
    shelf = Shelf(name, 4)
    shelf.write(*"abcd")
    shelf.read(*"abcdabcd")
    for number in range(100):
        key = f"new {number}"
        assert key not in shelf.write(key)


@pytest.mark.parametrize("name", [name for name in NAMES if EVICTION_POLICIES[name].counts_hits])  # type: ignore[attr-defined]  # those that ship are classes
def test_a_key_that_is_read_again_and_again_outlives_a_stream_of_others(name: str) -> None:
    shelf = Shelf(name, 10)
    shelf.write("hot")
    for number in range(200):
        shelf.write(f"cold {number}")
        shelf.read("hot")
    assert "hot" in shelf.keys


def test_fifo_alone_counts_no_reads() -> None:
    assert [name for name, make in EVICTION_POLICIES.items() if not make(1).counts_hits] == ["fifo"]


def test_what_was_popular_once_does_not_stay_for_ever_under_lfu() -> None:
    shelf = Shelf("lfu", 4)
    shelf.write("old")
    shelf.read(*["old"] * 50)
    for number in range(500):
        shelf.write(f"new {number}")
    assert "old" not in shelf.keys


def test_a_rotation_through_more_keys_than_fit_keeps_a_part_under_w_tinylfu_alone() -> None:
    kept = {}
    for name in NAMES:
        shelf = Shelf(name, 50)
        kept[name] = 0
        for number in range(20 * 200):
            key = f"proxy {number % 200}"
            if key in shelf.keys:
                shelf.read(key)
                kept[name] += 1
            else:
                shelf.write(key)
    assert kept.pop("wtinylfu") > 0.15 * 20 * 200
    assert set(kept.values()) == {0}


# -- restoring ---------------------------------------------------------------------------------------------------------


@each
def test_a_policy_takes_up_the_order_that_was_stored(name: str) -> None:
    policy = EVICTION_POLICIES[name](4)
    policy.restore([Held("c", 3, 0, 30.0), Held("a", 1, 9, 50.0), Held("d", 4, 0, 40.0), Held("b", 2, 9, 60.0)])
    expected = "ab" if name == "fifo" else "cd"
    if name != "wtinylfu":
        assert policy.coldest(2) == list(expected)
    assert sorted(policy.coldest(9)) == list("abcd")


def test_lfu_takes_up_any_number_of_reads() -> None:
    policy = EVICTION_POLICIES["lfu"](4)
    policy.restore([Held("a", 1, 1000, 9.0), Held("b", 2, 999, 8.0), Held("c", 3, 10**9, 7.0), Held("d", 4, 30, 6.0)])
    assert policy.coldest(4) == ["d", "b", "a", "c"]


@each
def test_more_stored_keys_than_fit_are_all_known(name: str) -> None:
    policy = EVICTION_POLICIES[name](2)
    policy.restore(Held(key, version, version % 3, float(version)) for version, key in enumerate("abcdef", 1))
    assert sorted(policy.coldest(6)) == list("abcdef")


# -- reads from any thread ---------------------------------------------------------------------------------------------


@stepping
def test_reads_by_other_threads_do_no_harm_and_take_no_memory(name: str) -> None:
    shelf = Shelf(name, 50)
    stopped = threading.Event()

    def read() -> None:
        while not stopped.is_set():
            for number in range(100):
                shelf.policy.hit(f"key {number}")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(2000):
        shelf.write(f"key {number % 150}")
        assert len(shelf.keys) <= 50
    stopped.set()
    for reader in readers:
        reader.join()
    assert sorted(shelf.policy.coldest(50)) == sorted(shelf.keys)


@stepping
def test_reads_without_a_write_take_no_memory(name: str) -> None:
    shelf = Shelf(name, 10)
    shelf.write(*map(str, range(10)))
    shelf.read(*(str(number % 10) for number in range(2 * READS)))
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(10_000):
        shelf.policy.hit(str(number % 10))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 64_000


def test_flags_of_keys_that_are_gone_do_not_heap_up_under_sieve() -> None:
    shelf = Shelf("sieve", 4)
    for number in range(1000):
        shelf.write(f"key {number}")
        shelf.read(f"gone {number}")
    assert len(shelf.policy._visited) < 2 * 4 + 64 + 2  # type: ignore[attr-defined]  # that of SIEVE


def test_a_hit_while_the_coldest_are_collected_does_no_harm() -> None:
    order: Any = EVICTION_POLICIES["lru"](3)
    for key in "abc":
        order.admit(key)

    class Interrupted:
        """An order that another thread changes once, in the middle."""

        def __init__(self) -> None:
            self.times = 0

        def __iter__(self) -> Any:
            self.times += 1
            for number, key in enumerate(list(wrapped)):
                if self.times == 1 and number == 1:
                    raise RuntimeError("OrderedDict mutated during iteration")
                yield key

    wrapped = order._order
    order._order = Interrupted()
    assert order.coldest(2) == ["a", "b"]


# -- the sketch of W-TinyLFU -------------------------------------------------------------------------------------------


@given(uses=st.lists(st.integers(0, 30), max_size=150))
def test_a_count_is_never_too_small_and_stops_at_15(uses: list[int]) -> None:
    sketch = Sketch(20)
    for key in uses:
        sketch.add(f"key {key}")
    for key in range(31):
        assert min(15, uses.count(key)) <= sketch.count(f"key {key}") <= 15


def test_most_counts_are_exact_where_few_keys_share_many_counters() -> None:
    sketch = Sketch(1000)
    for key in range(1000):
        for _ in range(key % 5):
            sketch.add(f"key {key}")
    wrong = sum(sketch.count(f"key {key}") != key % 5 for key in range(1000))
    assert wrong < 50


def test_counts_are_halved_after_ten_uses_for_each_key_of_the_capacity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tierkit.eviction.wtinylfu.hash", lambda key: crc32(key.encode()) * 0x9E3779B9, raising=False)
    sketch = Sketch(4)  # so small that keys meet in it, by a hash that differs from run to run
    for _ in range(12):
        sketch.add("often")
    for number in range(27):
        sketch.add(f"key {number % 3}")
    assert sketch.count("often") == 12
    sketch.add("the fortieth")
    assert sketch.count("often") == 6
