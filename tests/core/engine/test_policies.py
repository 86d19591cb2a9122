"""Eviction policies in a stack: those that ship, and those that plugins bring."""

from typing import Any

import pytest
from tests.core.engine.support import Note, World, note, tier

from tierkit import (
    ANY_POLICY,
    EVICTION_POLICIES,
    CacheConfig,
    CacheConfigError,
    CacheManager,
    EvictionPolicy,
    PluginError,
    discover,
    hookimpl,
)


def sizes(cache: Any) -> list[int]:
    return [level.tier.size() for level in cache.levels]


class Loyal(EvictionPolicy):
    """The key that was written last goes first."""

    counts_hits = False

    def __init__(self, capacity: int) -> None:
        self.keys: list[str] = []

    def hit(self, key: str) -> None: ...

    def admit(self, key: str) -> None:
        self.remove(key)
        self.keys.append(key)

    def remove(self, key: str) -> None:
        self.keys = [other for other in self.keys if other != key]

    def coldest(self, count: int) -> list[str]:
        return self.keys[::-1][:count]


class Unhearing(EvictionPolicy):
    """Has no `hit`."""

    def __init__(self, capacity: int) -> None: ...

    def admit(self, key: str) -> None: ...

    def remove(self, key: str) -> None: ...

    def coldest(self, count: int) -> list[str]:
        return []


class Brought:
    """A plugin with policies."""

    def __init__(self, policies: Any) -> None:
        self.policies = policies

    @hookimpl
    def register_eviction_policies(self) -> Any:
        return self.policies


def with_policy(world: World, name: str, *plugins: Any) -> CacheManager[Any]:
    levels: Any = ({"backend": "live", "max_entries": 2, "eviction_policy": name}, {"backend": "disk"})
    cache: CacheManager[Any] = CacheManager(
        CacheConfig(tiers=levels), entry_type=Note, clock=world.clock, plugins=[world, *plugins]
    )
    world.caches.append(cache)
    return cache


@pytest.mark.req("US4-3")
@pytest.mark.parametrize("policy", sorted(EVICTION_POLICIES))
def test_every_policy_that_ships_keeps_the_bound_and_is_counted_by_its_name(world: World, policy: str) -> None:
    cache = with_policy(world, policy)
    for number in range(20):
        cache.put(note(f"key {number % 7}"))
        cache.get(f"key {number % 3}")
        assert sizes(cache)[0] <= 2
    assert sizes(cache) == [2, 7]
    first = cache.get_statistics().tiers[0]
    assert getattr(first, f"evictions_{policy}") == first.evictions_for_room == first.demotions > 0


@pytest.mark.req("US4-3")
def test_a_policy_that_a_plugin_registers_serves_by_its_name(world: World) -> None:
    cache = with_policy(world, "loyal", Brought({"loyal": Loyal}))
    for key in "abcd":
        cache.put(note(key))
    assert set(tier(cache, "L1").tier.keys()) == {"a", "b"}
    assert cache.get_statistics().tiers[0].evictions_other == 2
    with pytest.raises(CacheConfigError, match=r"the eviction policy 'loyl'.*did you mean 'loyal'"):
        with_policy(world, "loyl", Brought({"loyal": Loyal}))


def test_a_policy_named_as_another_cause_is_not_counted_as_that(world: World) -> None:
    cache = with_policy(world, "ttl", Brought({"ttl": Loyal}))
    for key in "abc":
        cache.put(note(key))
    first = cache.get_statistics().tiers[0]
    assert (first.evictions_ttl, first.evictions_other) == (0, 1)


@pytest.mark.parametrize(
    ("policies", "error"),
    [
        (
            [Brought({"loyal": Loyal}), Brought({"loyal": Loyal})],
            r"offered by 'Brought' \(code\) and 'Brought' \(code\)",
        ),
        ([Brought({"loyal": 5})], r"'loyal': int cannot be called"),
        ([Brought({"loyal": lambda _: []})], "made a list, which is no EvictionPolicy"),
        ([Brought({"loyal": lambda _: 1 / 0})], "'loyal' could not be made: ZeroDivisionError"),
        ([Brought({"loyal": Unhearing})], "'loyal' made a Unhearing without a method `hit`: write one"),
    ],
)
def test_a_policy_that_two_offer_or_that_is_broken_is_refused_when_it_is_asked_for(
    world: World, policies: list[Any], error: str
) -> None:
    with_policy(world, "lru", *policies)
    with pytest.raises(PluginError, match=error):
        with_policy(world, "loyal", *policies)


@pytest.mark.parametrize("wrong", [Unhearing, lambda _: [], lambda _: 1 / 0])
def test_a_wrong_policy_is_found_at_opening_though_its_tier_asks_for_it_late(world: World, wrong: Any) -> None:
    world.policies = ANY_POLICY
    levels: Any = ({"backend": "disk", "max_entries": 2, "eviction_policy": "loyal"},)
    plugins = [world, Brought({"loyal": wrong})]
    with pytest.raises(PluginError, match="eviction policy 'loyal'"):
        CacheManager(CacheConfig(tiers=levels), entry_type=Note, clock=world.clock, plugins=plugins)


class Silent(Loyal):
    """Names no victim."""

    def coldest(self, count: int) -> list[str]:
        return []


class Deaf(Loyal):
    """Names for ever what it has named once."""

    def remove(self, key: str) -> None: ...

    def coldest(self, count: int) -> list[str]:
        return self.keys[:count]


@pytest.mark.parametrize(("policy", "names"), [(Silent, "names no key"), (Deaf, "names a key that is not held")])
@pytest.mark.parametrize("write_policy", ["through", "demote"])
def test_a_level_whose_policy_is_wrong_serves_on_and_says_so_once(
    world: World, caplog: pytest.LogCaptureFixture, policy: type[Loyal], names: str, write_policy: str
) -> None:
    levels: Any = (
        {"backend": "live", "max_entries": 2, "eviction_policy": "wrong"},
        {"backend": "disk", "write_policy": write_policy},
        {"backend": "disk"},
    )
    plugins = [world, Brought({"wrong": policy})]
    cache = CacheManager(CacheConfig(tiers=levels), entry_type=Note, clock=world.clock, plugins=plugins)
    world.caches.append(cache)
    for number in range(12):
        cache.put(note(f"key {number}"))
    assert all(cache.get(f"key {number}") for number in range(12))
    assert all(level.in_service for level in cache.levels)
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith(f"L1 holds too many entries: eviction policy 'wrong' {names}")


def test_a_policy_with_the_name_of_one_that_ships_is_refused_naming_both(world: World) -> None:
    with pytest.raises(PluginError, match=r"'lru' is offered by tierkit itself and 'Brought' \(code\)"):
        with_policy(world, "lru", Brought({"lru": Loyal}))


@pytest.mark.parametrize("answer", [["loyal"], {"": Loyal}, {3: Loyal}])
def test_an_answer_that_is_no_mapping_of_names_is_recorded(answer: Any) -> None:
    (broken,) = discover([Brought(answer)], installed=()).broken
    assert (broken.name, broken.distribution) == ("Brought", "code")
