"""The order that tiers on disk keep in memory, over a tier in a dictionary that other processes may change."""

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.tiers import DictBlobTier, Listing

from tierkit import EVICTION_POLICIES, Delta, EvictionPolicy, Held, KeyOrder, PluginError, Row, TierContext, key_digest
from tierkit.testing import make_row

STEPPING = sorted(set(EVICTION_POLICIES) - {"fifo", "lru"})


class Ordered(DictBlobTier):
    """What an author writes."""

    def __init__(self, context: TierContext) -> None:
        super().__init__(context)
        self.surveys = 0
        self.order = KeyOrder(context.new_policy, context.max_entries or 0)
        self.order.watch(self)

    def overflow(self) -> list[Row]:
        total = self.size()
        excess = max(0, total - (self.context.max_entries or 0))
        return self.order.victims(excess, total, self.find, self.survey) if excess else []

    def find(self, key: str) -> Row | None:
        return DictBlobTier.get(self, key)

    def survey(self) -> Iterator[Held]:
        self.surveys += 1
        for row in self.scan():
            yield Held(row.key, row.version, row.access_count, row.last_accessed)


def opened(policy: str = "lru", limit: int = 3, keys: str = "abc") -> Ordered:
    """A tier that is full and has evicted once, so that its order is built."""
    tier = Ordered(TierContext(eviction_policy=policy, max_entries=limit))
    for version, key in enumerate(["first", *keys], 1):
        tier.put(make_row(key, version))
    settle(tier)
    return tier


def settle(tier: Ordered) -> list[str]:
    victims = tier.overflow()
    for victim in victims:
        assert tier.discard(victim)
    return [victim.key for victim in victims]


def put(tier: Ordered, *keys: str) -> list[str]:
    for key in keys:
        tier.put(make_row(key, tier.highest_version() + 1))
    return settle(tier)


def test_nothing_is_kept_before_victims_are_needed() -> None:
    tier = Ordered(TierContext(max_entries=3))
    for version, key in enumerate("abc", 1):
        tier.put(make_row(key, version))
        tier.get(key)
        tier.touch_many({key: Delta(1, 5.0)})
        tier.order.gone("nothing")
    assert tier.overflow() == []
    assert (len(tier.order), tier.surveys) == (0, 0)


def test_from_then_on_it_is_fed_by_every_way_of_writing_and_reading() -> None:
    tier = opened()
    assert tier.get("a") is not None
    assert put(tier, "d") == ["b"]
    tier.put_many([make_row("c", 30)])
    assert put(tier, "e") == ["a"]
    assert tier.replace(make_row("d", 50), tier.find("d").version)  # type: ignore[union-attr]  # it was just put
    assert tier.replace_many([(make_row("c", 60), 30)]) == [True]
    assert put(tier, "f") == ["e"]
    tier.touch_many({"d": Delta(1, 9.0)})
    assert put(tier, "g") == ["c"]
    assert tier.surveys == 1


def test_what_is_removed_is_forgotten_at_once() -> None:
    tier = opened()
    tier.delete("a", 100)
    assert tier.delete_many({"b": 100}) == {}
    assert len(tier.order) == 1
    tier.clear()
    assert len(tier.order) == 0


def test_what_was_refused_changes_nothing() -> None:
    tier = opened()
    assert tier.put(make_row("a", 1)) is not None
    assert tier.put_many([make_row("a", 1)]) != [None]
    assert not tier.replace(make_row("a", 100), 77)
    assert tier.replace_many([(make_row("a", 100), 77)]) == [False]
    assert tier.delete("a", 1) is not None
    assert tier.delete_many({"a": 1}) != {}
    assert not tier.discard(make_row("a", 77))
    assert tier.get("nothing") is None
    assert put(tier, "d") == ["a"]


@pytest.mark.parametrize("policy", STEPPING)
def test_what_others_wrote_and_removed_is_learned_when_it_matters(policy: str) -> None:
    tier = opened(policy)
    other = DictBlobTier(TierContext())
    other.blobs = tier.blobs
    for key in list(tier.keys()):
        other.delete(key, 100)
    for version, key in enumerate("vwxyz", 200):
        other.put(make_row(key, version))
    assert len(settle(tier)) == 2
    assert set(tier.keys()) < set("vwxyz")
    assert tier.size() == 3
    assert len(put(tier, "new")) == 1
    assert tier.find("new") is not None


def test_a_read_counts_once_though_it_is_told_when_it_happens_and_when_it_is_flushed() -> None:
    counts: dict[str, int] = {}

    class Counting(EvictionPolicy):
        def hit(self, key: str) -> None:
            counts[key] = counts.get(key, 0) + 1

        def admit(self, key: str) -> None: ...

        def remove(self, key: str) -> None: ...

        def coldest(self, count: int) -> list[str]:
            return []

    order = KeyOrder(Counting, 10)
    order.victims(0, 2, lambda key: key, lambda: [Held("a", 1, 0, 0.0), Held("b", 2, 0, 0.0)])
    for _ in range(3):
        order.read("a")
    order.touched({"a": 2, "nothing": 4})
    assert counts == {"a": 3}
    order.touched({"a": 5, "b": 1})
    assert counts == {"a": 7, "b": 1}
    order.touched({"b": 10**9})
    assert counts["b"] == 16


def test_keys_that_are_never_named_do_not_heap_up() -> None:
    tier = opened()
    for number in range(500):
        tier.put(make_row(f"key {number}", 100 + number, purge_at=0.0))
        tier.purge(1.0)
    assert len(tier.order) <= 2 * 3 + 64
    assert len(put(tier, *"wxyz")) == 4
    assert tier.size() == 3


def test_a_key_that_cannot_be_found_again_does_not_hold_the_tier_up() -> None:
    order = KeyOrder(TierContext(eviction_policy="sieve", max_entries=2).new_policy, 2)
    held = [Held(key, version, 0, 0.0) for version, key in enumerate("abc", 1)]
    assert order.victims(1, 3, lambda key: key if key == "c" else None, lambda: held) == ["c"]
    assert order.victims(1, 3, lambda _: None, lambda: held) == []


def test_a_policy_that_names_more_than_it_was_asked_for_empties_no_tier() -> None:
    class Generous(Listing):
        def coldest(self, count: int) -> list[str]:
            return list(self.keys)

    order = KeyOrder(lambda: Generous(2), 2)
    held = [Held(key, version, 0, 0.0) for version, key in enumerate("abc", 1)]
    assert order.victims(1, 3, lambda key: key, lambda: held) == ["a"]


class Deaf(Listing):
    """Does not hear what is gone."""

    def remove(self, key: str) -> None: ...


class Inventing(Listing):
    """Names a key that nobody holds."""

    def coldest(self, count: int) -> list[str]:
        return ["nope"]


@pytest.mark.parametrize("policy", [Deaf, Inventing])
def test_a_policy_that_names_a_key_after_its_removal_is_an_error_and_no_endless_loop(policy: type[Listing]) -> None:
    order = KeyOrder(lambda: policy(2), 2)
    held = [Held(key, version, 0, 0.0) for version, key in enumerate("abc", 1)]
    stranger = key_digest("a" if policy is Deaf else "nope")
    with pytest.raises(PluginError, match=f"eviction policy {policy.__name__} names a key .*{stranger}.*after"):
        order.victims(1, 3, {"b": "b", "c": "c"}.get, lambda: held)


def test_a_policy_that_names_none_of_the_keys_there_are_is_an_error() -> None:
    class Silent(Listing):
        def coldest(self, count: int) -> list[str]:
            return []

    order = KeyOrder(lambda: Silent(2), 2)
    held = [Held(key, version, 0, 0.0) for version, key in enumerate("abc", 1)]
    with pytest.raises(PluginError, match="eviction policy Silent names no key, though there are 3"):
        order.victims(1, 3, lambda key: key, lambda: held)
    assert order.victims(0, 3, lambda key: key, lambda: held) == []


def test_after_an_error_of_its_policy_the_order_is_built_anew() -> None:
    tier = Ordered(TierContext(max_entries=1, policy_factory=Deaf))
    for version, key in enumerate("ab", 1):
        tier.put(make_row(key, version))
    assert settle(tier) == ["a"]
    tier.put(make_row("c", 3))
    with pytest.raises(PluginError):
        tier.overflow()
    assert settle(tier) == ["b"]


def test_a_key_that_an_interrupted_removal_left_is_passed_over() -> None:
    class Interrupted(Listing):
        def remove(self, key: str) -> None:
            if interrupts:
                raise interrupts.pop()
            super().remove(key)

    interrupts = [KeyboardInterrupt()]
    tier = Ordered(TierContext(max_entries=2, policy_factory=Interrupted))
    for version, key in enumerate("abc", 1):
        tier.put(make_row(key, version))
    (victim,) = tier.overflow()
    with pytest.raises(KeyboardInterrupt):
        tier.discard(victim)
    assert put(tier, "d") == ["b"]


def test_a_child_process_builds_its_own() -> None:
    tier = opened("sieve")
    taken = threading.Event()
    done = threading.Event()

    def hold() -> None:
        with tier.order._lock:
            taken.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait(30)
    child = os.fork()
    if not child:  # pragma: no cover - in the child
        tier.order.wrote("x", 500)
        os._exit(len(tier.order))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    done.set()
    holder.join()
    assert len(tier.order) == 3


def test_reads_and_writes_by_many_threads_keep_the_bound() -> None:
    tier = opened("wtinylfu", limit=20)
    failures: list[Any] = []

    def work(seed: int) -> None:
        try:
            for number in range(200):
                key = f"key {(number * seed) % 60}"
                if tier.get(key) is None:
                    with tier.lock:
                        put(tier, key)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 7, 11)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert tier.size() == 20
