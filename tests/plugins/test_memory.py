"""The memory tier."""

import gc
import tracemalloc
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pydantic import SecretStr, ValidationError
from tests.tiers import Listing

import tierkit_memory
from tierkit import (
    ANY_POLICY,
    CacheConfigError,
    CacheTier,
    EvictionPolicy,
    PluginError,
    ProxyEntry,
    TierContext,
    Trait,
    key_digest,
)
from tierkit.testing import FakeClock, TierContract, make_entry
from tierkit_memory import MemoryCacheTier, MemoryOptions

KEYS = st.sampled_from("abcd")


class TestMemoryCacheTier(TierContract):
    pytestmark = pytest.mark.req("US1-1")

    def open_tier(self, context: TierContext, path: Path) -> CacheTier[Any]:
        return MemoryCacheTier(context)


@pytest.mark.req("E-6")
class LruMachine(RuleBasedStateMachine):
    """Room for two of four keys, evicted as the engine does, against an OrderedDict."""

    def __init__(self) -> None:
        super().__init__()
        self.tier = MemoryCacheTier(TierContext(max_entries=2))
        self.model: OrderedDict[str, int] = OrderedDict()
        self.version = 0

    @rule(key=KEYS)
    def put(self, key: str) -> None:
        self.version += 1
        assert self.tier.put(make_entry(key, self.version)) is None
        self.model[key] = self.version
        self.model.move_to_end(key)
        victims = self.tier.overflow()
        if self.version % 2:
            assert self.tier.evict() == victims
        for victim in victims:
            oldest, version = self.model.popitem(last=False)
            assert (victim.key, victim.version) == (oldest, version)
            assert self.tier.discard(victim) is not bool(self.version % 2)

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        held = self.tier.get(key)
        assert (held.version if held else None) == self.model.get(key)
        if held:
            self.model.move_to_end(key)

    @rule(keys=st.lists(KEYS))
    def get_many(self, keys: list[str]) -> None:
        assert {key: held.version for key, held in self.tier.get_many(keys).items()} == {
            key: self.model[key] for key in keys if key in self.model
        }
        for key in keys:
            if key in self.model:
                self.model.move_to_end(key)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        self.version += 1
        assert self.tier.delete(key, self.version) is None
        self.model.pop(key, None)

    @rule(key=KEYS)
    def look_without_using(self, key: str) -> None:
        assert {entry.key for entry in self.tier.scan()} == set(self.model)

    @invariant()
    def the_bound_holds(self) -> None:
        assert self.tier.size() == len(self.model) <= 2
        assert self.tier.overflow() == []


TestLruAgainstAModel = LruMachine.TestCase


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_a_hit_takes_no_lock() -> None:
    tier = MemoryCacheTier(TierContext())
    tier.put(make_entry("key"))
    vars(tier)["lock"] = None  # who takes it fails
    assert tier.get("key") is not None
    assert tier.get("other") is None
    assert list(tier.get_many(["key"])) == ["key"]


def test_the_object_that_was_put_last_is_held() -> None:
    tier = MemoryCacheTier(TierContext())
    first, second = make_entry("key"), make_entry("key")
    tier.put(first)
    tier.put(second)
    assert tier.get("key") is second


def test_marks_do_not_grow_without_bound(clock: FakeClock) -> None:
    tier = MemoryCacheTier(TierContext(max_entries=1, now=clock.wall))
    for number in range(1, 20_001):
        tier.put(make_entry(f"key {number}"))
        for victim in tier.overflow():
            tier.discard(victim)
    assert len(tier._marks) == 10_000
    assert tier.delete("key 19999", 0) is None
    assert tier.put(make_entry("key 19998", 0)) == 0, "the newest marks are the ones that are kept"


def test_what_was_evicted_may_be_promoted_again(clock: FakeClock) -> None:
    tier = MemoryCacheTier(TierContext(max_entries=0, now=clock.wall))
    entry = make_entry("key", 5)
    for _ in range(3):
        assert tier.put(entry) is None
        assert tier.overflow() == [entry]
        assert tier.discard(entry)
    assert tier.put(make_entry("key", 4)) == 4


def test_an_unknown_policy_is_refused_by_name() -> None:
    with pytest.raises(CacheConfigError, match=r"'lruu'.*fifo, lfu, lru, s3fifo, sieve, wtinylfu"):
        MemoryCacheTier(TierContext(eviction_policy="lruu"))


def test_it_has_no_options() -> None:
    with pytest.raises(ValidationError):
        MemoryOptions(path="somewhere")  # type: ignore[call-arg]  # it is refused


def test_the_plugin_offers_it() -> None:
    (spec,) = tierkit_memory.register_tiers()
    assert (spec.kind, spec.traits, spec.api) == ("memory", Trait.LIVE, 1)
    assert spec.eviction_policies == ANY_POLICY
    assert isinstance(spec.factory(TierContext(), spec.options()), MemoryCacheTier)


def test_a_closed_tier_lets_go_of_its_entries() -> None:
    tier = MemoryCacheTier(TierContext())
    entry = make_entry("key")
    before = len(gc.get_referrers(entry))
    tier.put(entry)
    tier.close()
    assert len(gc.get_referrers(entry)) == before


def test_ten_thousand_proxies_with_credentials_fit_into_15_megabytes() -> None:
    gc.collect()
    tracemalloc.start()
    try:
        tier = MemoryCacheTier(TierContext(max_entries=10_000))
        tier.put_many([proxy(number) for number in range(10_000)])
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert tier.size() == 10_000
    assert used < 15_000_000


def proxy(number: int) -> ProxyEntry:
    """As the engine puts it: every field filled, no object shared with another entry."""
    fetched = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    return ProxyEntry(
        proxy_url=f"http://10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}:8080",
        username=SecretStr(f"user{number}"),
        password=SecretStr(f"password{number}"),
        source=f"list {number}",
        fetch_time=fetched,
        ttl_seconds=number + 0.5,
        expires_at=fetched + timedelta(hours=1),
        created_at=fetched + timedelta(seconds=1),
        updated_at=fetched + timedelta(seconds=2),
        version=number + 2**60,
    )


@pytest.mark.req("E-6")
@pytest.mark.parametrize("policy", ["lru", "fifo"])
@pytest.mark.parametrize("step", ["put", "delete"])
def test_a_call_that_was_interrupted_leaves_the_bound(policy: str, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting(dict[str, Any]):
        def __setitem__(self, key: str, entry: Any) -> None:
            if key == "ghost":
                raise KeyboardInterrupt
            super().__setitem__(key, entry)

    tier = MemoryCacheTier(TierContext(max_entries=2, eviction_policy=policy))
    if step == "put":
        tier._entries = Interrupting()
        with pytest.raises(KeyboardInterrupt):
            tier.put(make_entry("ghost", 1))
    else:
        tier.put(make_entry("ghost", 1))
        with monkeypatch.context() as patch:
            patch.setattr("tierkit.eviction.FIFO.remove", interrupted)
            with pytest.raises(KeyboardInterrupt):
                tier.delete("ghost", 1)
    for version, key in enumerate("abcd", 1):
        tier.put(make_entry(key, version))
    assert [entry.key for entry in tier.overflow()] == ["a", "b"]
    assert [entry.key for entry in tier.evict()] == ["a", "b"]


def test_an_interrupt_within_an_eviction_leaves_no_entry_over_the_bound() -> None:
    class Interrupting(dict[str, Any]):
        def pop(self, *_: object) -> Any:
            raise KeyboardInterrupt

    tier = MemoryCacheTier(TierContext(max_entries=2))
    tier.put_many([make_entry(key, version) for version, key in enumerate("abc", 1)])
    sound, tier._entries = tier._entries, Interrupting(tier._entries)
    with pytest.raises(KeyboardInterrupt):
        tier.evict()
    tier._entries = sound
    for version, key in enumerate("defg", 4):
        tier.put(make_entry(key, version))
        tier.evict()
        assert tier.size() == 2


@pytest.mark.parametrize("method", ["evict", "overflow"])
def test_a_policy_that_has_lost_its_keys_is_an_error_and_no_endless_loop(method: str) -> None:
    tier = MemoryCacheTier(TierContext(max_entries=1))
    tier.put_many([make_entry(key, 1) for key in "abc"])
    for key in "abc":
        tier._order.remove(key)
    with pytest.raises(PluginError, match="eviction policy 'lru' names no key that is held, though there are 3 of 1"):
        getattr(tier, method)()
    assert tier.size() == 3


def filled(policy: type[EvictionPolicy], limit: int = 1, keys: str = "abc") -> MemoryCacheTier:
    tier = MemoryCacheTier(TierContext(max_entries=limit, eviction_policy="mine", policy_factory=policy))
    tier.put_many([make_entry(key, 1) for key in keys])
    return tier


def test_a_policy_that_names_more_than_it_was_asked_for_empties_no_tier() -> None:
    class Generous(Listing):
        def coldest(self, count: int) -> list[str]:
            return list(self.keys)

    tier = filled(Generous, limit=2)
    assert [entry.key for entry in tier.overflow()] == ["a"]
    assert [entry.key for entry in tier.evict()] == ["a"]


class Deaf(Listing):
    """Does not hear what is gone."""

    def remove(self, key: str) -> None: ...


class Inventing(Listing):
    """Names a key that nobody holds."""

    def coldest(self, count: int) -> list[str]:
        return ["nope"]


@pytest.mark.parametrize("method", ["evict", "overflow"])
@pytest.mark.parametrize(("policy", "stranger"), [(Deaf, "a"), (Inventing, "nope")])
def test_a_policy_that_names_a_key_after_its_removal_is_an_error_and_no_endless_loop(
    method: str, policy: type[Listing], stranger: str
) -> None:
    tier = filled(policy, limit=2)
    tier.delete("a", 1)
    tier.put(make_entry("d", 1))
    with pytest.raises(PluginError, match=f"eviction policy 'mine' names a key .*{key_digest(stranger)}.*after"):
        getattr(tier, method)()
    assert set(tier.keys()) == {"b", "c", "d"}


def test_what_was_evicted_before_the_error_of_a_policy_is_told() -> None:
    tier = filled(Deaf)
    assert [entry.key for entry in tier.evict()] == ["a"]
    with pytest.raises(PluginError, match="'mine'"):
        tier.evict()


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_goes_while_the_overflow_waits_for_the_lock_is_not_missed() -> None:
    class Emptying:
        def __enter__(self) -> None:
            tier._entries.clear()

        def __exit__(self, *_: object) -> None:
            pass

    tier = MemoryCacheTier(TierContext(max_entries=2))
    for version, key in enumerate("abc", 1):
        tier.put(make_entry(key, version))
    tier.lock = Emptying()  # type: ignore[assignment]  # it is used as a lock is
    assert tier.overflow() == []


def test_a_purge_holds_the_lock_for_one_entry_at_a_time(clock: FakeClock) -> None:
    class Counting:
        def __enter__(self) -> None:
            sizes.append(tier.size())

        def __exit__(self, *_: object) -> None:
            removed.append(sizes.pop() - tier.size())

    sizes: list[int] = []
    removed: list[int] = []
    tier = MemoryCacheTier(TierContext(now=clock.wall))
    tier.put_many([make_entry(f"key {n}", purge_at=clock.wall()) for n in range(60)])
    tier.lock = Counting()  # type: ignore[assignment]  # it is used as a lock is
    assert tier.purge(clock.wall()) == 60
    assert max(removed) == 1
