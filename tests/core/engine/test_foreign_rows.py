"""An owed write that this process cannot read stays where it is, and holds up nothing else."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from tests.core.engine.support import Note, World, held, tier

from tierkit import CacheManager, TierUnavailable
from tierkit.row import is_owed
from tierkit.testing import FakeClock

OURS, THEIRS = (base64.urlsafe_b64encode(bytes([number]) * 32).decode() for number in (1, 2))
BEHIND: list[dict[str, Any]] = [{"backend": "live"}, {"backend": "disk"}, {"backend": "disk", "write_policy": "behind"}]
Cache = CacheManager[Note]


class Counted(Note):
    count: int = 0


class Theirs(Note):
    """Another class, which gives the same column another type."""

    count: str = "many"


def theirs(world: World, way: str) -> Callable[[str], object]:
    """Another process, with another key or class, which can leave a write of a key that the authority is owed."""
    entry_type, keys = (Counted, f"{THEIRS},{OURS}") if way == "key" else (Theirs, OURS)
    other: CacheManager[Any] = world.open_config(BEHIND, entry_type=entry_type, encryption_key=keys)
    return lambda key: other.put(entry_type(key=key, text="theirs"))


def ours(world: World, bound: int | None = None, policy: str = "behind") -> Cache:
    tiers: list[dict[str, Any]] = [
        {"backend": "live"},
        {"backend": "disk", "max_entries": bound},
        {"backend": "disk", "write_policy": policy},
    ]
    return world.open_config(tiers, entry_type=Counted, encryption_key=OURS)


def assert_left(cache: Cache, key: str) -> None:
    row = tier(cache, "L2").tier.get(key)
    assert row is not None
    assert is_owed(row)
    assert held(cache, "L3", key) is None


@pytest.mark.parametrize("way", ["key", "class"])
def test_a_full_level_does_not_adopt_it(world: World, way: str) -> None:
    cache, leave = ours(world, 2), theirs(world, way)
    leave("x")
    for key in "abcdef":
        cache.put(Counted(key=key))
    cache.flush()
    assert {key: held(cache, "L3", key) for key in "abcdef"} == dict.fromkeys("abcdef", "")
    assert list(cache._stack.owing.intents) == []
    assert_left(cache, "x")


@pytest.mark.parametrize("way", ["key", "class"])
def test_an_authority_comes_back_over_it(world: World, clock: FakeClock, way: str) -> None:
    cache, leave = ours(world, 2, "through"), theirs(world, way)
    leave("x")
    tier(cache, "L3").fail()
    cache.levels[2].take_out(TierUnavailable("away"))
    for key in "abc":
        cache.put(Counted(key=key))
    tier(cache, "L3").heal()
    clock.advance(100.0)
    assert cache.recover() == 1
    assert [held(cache, "L3", key) for key in "abc"] == [""] * 3
    assert_left(cache, "x")


@pytest.mark.parametrize("way", ["key", "class"])
def test_it_may_take_the_place_of_a_write_of_ours(world: World, clock: FakeClock, way: str) -> None:
    cache, leave = ours(world), theirs(world, way)
    cache.put_many([Counted(key="a"), Counted(key="b")])
    clock.advance(0.1)
    leave("a")
    cache.flush()
    assert held(cache, "L3", "b") == ""
    assert list(cache._stack.owing.intents) == []
    assert_left(cache, "a")


def test_one_that_is_damaged_is_lost_and_leaves(world: World) -> None:
    ours(world).put(Counted(key="x", text="theirs"))
    blob = world.disks["L2"]["x"]
    world.disks["L2"]["x"] = blob.replace(b"theirs", b"tHeirs")
    cache = ours(world, 2)
    for key in "abcdef":
        cache.put(Counted(key=key))
    cache.flush()
    assert tier(cache, "L2").tier.get("x") is None
    assert list(cache._stack.owing.intents) == []
