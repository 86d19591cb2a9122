"""What a clock stamped that was days ahead, before it was set right: what takes its place goes above it."""

from typing import Any, Final

import pytest
from tests.core.engine.support import Note, World, note

from tierkit import CacheManager
from tierkit.leases import LeaseStore
from tierkit.testing import FakeClock
from tierkit.updating import Updating

AHEAD: Final = 10 * 86400.0
LEVELS: Final = ("live", "disk", "disk")


@pytest.fixture
def cache(world: World, clock: FakeClock) -> CacheManager[Any]:
    """Opened with a clock that was set right, over what was written before that."""
    before = world.open(*LEVELS)
    before.put_many([note(key, "1", ttl_seconds=4 * AHEAD) for key in "abcdefg"])
    before.put(note("late", "1", ttl_seconds=1.0))
    with before.lease(key="a"):
        pass
    before.delete("g")
    before.close()
    clock.step_wall(-AHEAD)
    return world.reopen(*LEVELS)


def text(cache: CacheManager[Any], key: str) -> str | None:
    entry = cache.get(key)
    return None if entry is None else entry.text


def changed(held: Note | None) -> Note:
    return note("g", "2") if held is None else held.evolve(text="2")


def test_a_record_is_judged_changed_popped_and_merged(cache: CacheManager[Any]) -> None:
    assert cache.record_success("a") is not None
    assert cache.record_health({"b": False, "c": True}).unhealthy == 1
    cache.update("d", changed)
    assert cache.pop("e") is not None
    assert cache.put_many([note("f", "2")], merge=True) == 1
    assert [text(cache, key) for key in "bdef"] == ["1", "2", None, "2"]


def test_what_was_deleted_can_be_put_by_compare_and_set(cache: CacheManager[Any]) -> None:
    cache.update("g", changed)
    assert text(cache, "g") == "2"
    cache.delete("g")
    assert cache.put_many([note("g", "3")], merge=True) == 1
    assert text(cache, "g") == "3"


def test_a_record_is_leased_though_its_lease_was_returned_in_days_to_come(cache: CacheManager[Any]) -> None:
    for _ in range(2):
        with cache.lease(key="a", ttl=5) as entry:
            assert entry is not None
    assert LeaseStore(cache._stack, "loads").acquire("a", 5) is not None


@pytest.mark.parametrize("key", ["late", "g"])
def test_what_is_loaded_in_place_of_it_is_kept(cache: CacheManager[Any], clock: FakeClock, key: str) -> None:
    clock.advance(AHEAD + 2 if key == "late" else 0)
    updating: Updating[Any] = Updating(cache._comparing)
    _, expected, since = updating.begin(key)
    assert updating.fill(note(key, "2"), expected, since) is not None
    assert text(cache, key) == "2"


def test_what_is_deleted_during_its_load_is_not_put_back(cache: CacheManager[Any]) -> None:
    updating: Updating[Any] = Updating(cache._comparing)
    for key in ("f", "new"):
        _, expected, since = updating.begin(key)
        cache.delete(key)
        assert updating.fill(note(key, "2"), expected, since) is None
        assert text(cache, key) is None


@pytest.mark.parametrize("policy", ["behind", "demote"])
@pytest.mark.parametrize("levels", [("live", "disk", "disk"), ("live", "disk")])
def test_what_waits_for_the_lowest_level_takes_its_place(
    world: World, clock: FakeClock, policy: str, levels: tuple[str, ...]
) -> None:
    tiers: list[dict[str, Any]] = [{"backend": kind, "max_entries": 4} for kind in levels]
    tiers[-1] = {"backend": "disk", "write_policy": policy}
    before = world.open_config(tiers, durability="none")
    before.put_many([note(key, "1", ttl_seconds=4 * AHEAD) for key in "abcd"])
    before.flush()
    before.delete("d")
    world.close()
    clock.step_wall(-AHEAD)
    cache = world.open_config(tiers, durability="none")
    assert [text(cache, key) for key in "abcd"] == ["1", "1", "1", None]
    cache.put(note("a", "2"))
    cache.put_many([note("b", "2"), note("d", "2")])
    cache.delete("c")
    for opened in (cache, world.open_config(tiers, durability="none")):
        assert [text(opened, key) for key in "abcd"] == ["2", "2", None, "2"]
        cache.flush()
        assert [text(opened, key) for key in "abcd"] == ["2", "2", None, "2"]
