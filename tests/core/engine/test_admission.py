"""Admission: what a level refuses stays below, and no older copy of it stays above."""

from typing import Any

import pytest
from tests.core.engine.support import Note, World, note, tier, where

from tierkit import AdmissionPolicy, CacheConfig, CacheConfigError, CacheManager, PluginError, hookimpl
from tierkit.admission import Always, SecondUse
from tierkit.plugins import discover


class Door(AdmissionPolicy):
    """Refuses what it is told to."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.error: Exception | None = None

    def admit(self, key: str) -> bool:
        if self.error:
            raise self.error
        return key not in self.refused


class Brought:
    """A plugin with policies."""

    def __init__(self, policies: Any) -> None:
        self.policies = policies

    @hookimpl
    def register_admission_policies(self) -> Any:
        return self.policies


def opened(world: World, levels: list[dict[str, Any]], *plugins: Any) -> CacheManager[Any]:
    config = CacheConfig(tiers=tuple(levels))
    cache: CacheManager[Any] = CacheManager(config, entry_type=Note, clock=world.clock, plugins=[world, *plugins])
    world.caches.append(cache)
    return cache


@pytest.fixture
def door() -> Door:
    return Door()


@pytest.fixture
def cache(world: World, door: Door) -> CacheManager[Any]:
    above = [{"backend": kind, "admission": "door"} for kind in ("live", "disk")]
    return opened(world, [*above, {"backend": "disk"}], Brought({"door": lambda _: door}))


@pytest.mark.parametrize("many", [False, True])
def test_a_put_that_is_refused_leaves_no_older_copy_above(cache: CacheManager[Any], door: Door, many: bool) -> None:
    def put(*entries: Note) -> None:
        if many:
            cache.put_many(entries)
        else:
            for entry in entries:
                cache.put(entry)

    put(note("a", "old"), note("b", "old"))
    assert where(cache, "a") == dict.fromkeys(("L1", "L2", "L3"), "old")
    door.refused = {"a"}
    put(note("a", "new"), note("b", "new"))
    assert where(cache, "a") == {"L3": "new"}
    assert where(cache, "b") == dict.fromkeys(("L1", "L2", "L3"), "new")
    found = cache.get("a")
    assert found is not None
    assert found.text == "new"


def test_a_promotion_that_is_refused_copies_nothing_up(cache: CacheManager[Any], door: Door) -> None:
    door.refused = {"a"}
    cache.put(note("a"))
    assert cache.get("a") is not None
    assert list(where(cache, "a")) == ["L3"]
    door.refused = set()
    assert cache.get("a") is not None
    assert list(where(cache, "a")) == ["L1", "L2", "L3"]
    assert cache.get_statistics().promotions == 2


def test_a_policy_that_fails_admits_and_is_logged(
    cache: CacheManager[Any], door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    door.error = RuntimeError("no opinion")
    cache.put(note("a"))
    assert list(where(cache, "a")) == ["L1", "L2", "L3"]
    assert "L1: the admission policy failed" in caplog.text


def test_second_use_lets_in_what_is_wanted_again(world: World) -> None:
    cache = opened(world, [{"backend": "live", "max_entries": 4, "admission": "second_use"}, {"backend": "disk"}])
    cache.put(note("hot"))
    cache.get("hot")
    for number in range(20):
        cache.put(note(f"once {number}"))
    assert list(tier(cache, "L1").tier.keys()) == ["hot"]
    assert cache.get_statistics().tiers[0].evictions_for_room == 0


def test_second_use_forgets_what_was_long_ago() -> None:
    door = SecondUse(3)
    assert [door.admit(key) for key in "aabcdefa"] == [False, True, *[False] * 6]
    for number in range(1000):
        door.admit(str(number))
    assert len(door._young | door._old) <= 2 * 3


def test_always_admits_everything() -> None:
    assert Always(3).admit("anything")


@pytest.mark.parametrize(
    ("levels", "plugins", "error"),
    [
        (["live", "disk"], [], r"tiers.0.admission = 'door'.*no plugin offers the admission policy 'door'"),
        (["live", "disk"], [Brought({"door": 5})], "'door': int cannot be called"),
        (["live", "disk"], [Brought({"door": lambda _: 5})], "L1: its admission policy is a int"),
        (["live", "disk"], [Brought({"door": lambda _: 1 / 0})], "could not be made: ZeroDivisionError"),
        (["live", "disk"], [Brought({"door": Always})] * 2, "offered by 'Brought'"),
        (["disk"], [Brought({"door": Always})], "level L1 is the lowest and has every record"),
    ],
)
def test_what_cannot_work_is_refused(world: World, levels: list[str], plugins: list[Any], error: str) -> None:
    tiers: list[dict[str, Any]] = [{"backend": kind} for kind in levels]
    tiers[0]["admission"] = "door"
    plugins = [Brought(plugin.policies) for plugin in plugins]
    with pytest.raises((CacheConfigError, PluginError), match=error):
        opened(world, tiers, *plugins)


def test_an_answer_that_is_no_mapping_is_recorded_and_keeps_no_cache_from_opening(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    assert opened(world, [{"backend": "disk"}], Brought(["door"])).get("a") is None
    said = "register_admission_policies returned list, not a mapping of names"
    assert f"plugin Brought (code) cannot be used: TypeError: {said}" in caplog.text
    (broken,) = discover([Brought(["door"])], installed=()).broken
    assert said in broken.error
