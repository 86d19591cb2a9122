"""Levels that fail: what is counted, when a level leaves service, and how it comes back."""

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.core.engine.support import PATIENCE, Note, Reader, World, held, note, tier, where

from tierkit import (
    CacheManager,
    CacheStorageError,
    TierCorrupt,
    TierFull,
    TierReadOnly,
    TierTimeout,
    TierUnavailable,
)

THREE = ("live", "disk", "disk")
WRITES: dict[str, Callable[[CacheManager[Note]], object]] = {
    "put": lambda cache: cache.put(note("a", "new")),
    "delete": lambda cache: cache.delete("a"),
    "put_many": lambda cache: cache.put_many([note("a", "new")]),
    "clear": lambda cache: cache.clear(),
    "invalidate_by_health": lambda cache: cache.invalidate_by_health("a"),
}
FIRST_CALL = {
    "put": ("put", "put"),
    "delete": ("delete", "delete"),
    "put_many": ("put", "put_many"),
    "clear": ("clear", "delete_many"),
    "invalidate_by_health": ("put", "replace_many"),
}
"""What a write calls first of a level in memory, and of a stored one."""


def three(world: World, **settings: Any) -> CacheManager[Note]:
    cache = world.open(*THREE, **settings)
    cache.put(note("a", "old"))
    return cache


def serving(cache: CacheManager[Note], name: str) -> bool:
    return next(level.in_service for level in cache.levels if level.name == name)


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("level", ["L1", "L2"])
def test_a_level_above_that_fails_a_write_drops_its_copy_and_stays_in_service(
    world: World, level: str, write: str
) -> None:
    cache = three(world)
    tier(cache, level).fail(FIRST_CALL[write][level == "L2"], times=1)
    WRITES[write](cache)
    assert cache.get_statistics().tiers[int(level[1]) - 1].failures == 1
    taken_out = write == "clear"  # which has no single copy that it could drop
    assert all(level.in_service for level in cache.levels) is not taken_out
    found = {"delete": None, "clear": None, "invalidate_by_health": "old"}.get(write, "new")
    assert held(cache, "L3", "a") == found
    assert taken_out or held(cache, level, "a") in (None, found)
    entry = cache.get("a")
    assert (entry.text if entry else None) == found
    assert entry is None or entry.failure_count == (write == "invalidate_by_health")


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("level", ["L1", "L2"])
def test_a_level_above_that_cannot_drop_its_copy_leaves_service_and_is_emptied_before_it_returns(
    world: World, level: str, write: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = three(world)
    failing = next(found for found in cache.levels if found.name == level)
    tier(cache, level).fail()
    WRITES[write](cache)
    assert not failing.in_service
    assert [r.levelname for r in caplog.records if "is out of service" in r.message] == ["ERROR"]
    assert getattr(cache.get_statistics(), f"{level.lower()}_degraded")
    assert cache.get_statistics().tiers[int(level[1]) - 1].size == -1
    found = {"delete": None, "clear": None, "invalidate_by_health": "old"}.get(write, "new")
    for _ in range(2):
        entry = cache.get("a")
        assert (entry.text if entry else None) == found
        assert entry is None or entry.failure_count == (write == "invalidate_by_health")
    with pytest.raises(TierUnavailable):
        failing.reset_failures()
    assert not serving(cache, level)
    tier(cache, level).heal()
    failing.reset_failures()
    assert serving(cache, level)
    assert held(cache, level, "a") is None
    cache.levels[0].empty()
    entry = cache.get("a")
    assert (entry.text if entry else None) == found
    assert held(cache, level, "a") == found  # and takes promotions of what it had before


@pytest.mark.req("E-3")
def test_a_level_out_of_service_is_neither_read_nor_written(world: World) -> None:
    cache = three(world)
    cache.levels[1].take_out(OSError("gone"))
    world.calls.clear()
    cache.put(note("b"))
    cache.get("b")
    cache.get("none")
    cache.put_many([note("c")])
    cache.delete("c")
    cache.sweep()
    cache.flush()
    cache.clear()
    assert not [call for call in world.calls if call[0] == "L2"]


@pytest.mark.req("E-3")
def test_l1_serves_when_all_below_fail(world: World) -> None:
    cache = three(world)
    for name in ("L2", "L3"):
        tier(cache, name).fail()
    for _ in range(5):
        assert cache.get("a") is not None
        assert cache.get("none") is None
    assert [level.in_service for level in cache.levels] == [True, False, False]


@pytest.mark.req("E-3")
def test_below_a_broken_l1_the_others_serve(world: World) -> None:
    cache = three(world)
    tier(cache, "L1").fail()
    for _ in range(5):
        entry, level = cache.get_with_level("a")
        assert (entry and entry.text, level) == ("old", "L2")
    assert cache.get("a") is not None
    assert cache.get_statistics().l1_degraded


@pytest.mark.req("F-8")
def test_only_failures_in_a_row_take_a_level_out_of_service(world: World) -> None:
    cache = world.open("disk", tier_failure_threshold=3)
    for _ in range(4):
        tier(cache, "L1").fail("get", times=2)
        for _ in range(3):
            cache.get("a")
    assert cache.levels[0].in_service
    assert cache.levels[0].counters.failures == 8
    tier(cache, "L1").fail("get")
    for _ in range(3):
        assert serving(cache, "L1")
        cache.get("a")
    assert not serving(cache, "L1")
    tier(cache, "L1").heal()
    cache.levels[0].reset_failures()
    assert cache.put(note("a")) == cache.get("a")


@pytest.mark.req("F-8")
def test_a_user_can_count_failures_and_bring_a_level_back(world: World) -> None:
    cache = three(world)
    level = cache.levels[0]
    for _ in range(3):
        level.handle_failure(TierTimeout("too slow"))
    assert not level.in_service
    assert cache.get_with_level("a")[1] == "L2"
    level.reset_failures()
    assert cache.get_with_level("a")[1] == "L1"  # no write passed it by: it was not emptied


@pytest.mark.parametrize(
    "error", [TierFull("f"), TierReadOnly("r"), TierTimeout("t"), OSError("o"), ValueError("v"), RuntimeError("x")]
)
def test_whatever_a_tier_raises_becomes_a_storage_error(world: World, error: Exception) -> None:
    cache = world.open("disk")
    tier(cache, "L1").fail("put", error=error)
    with pytest.raises(CacheStorageError) as caught:
        cache.put(note("a"))
    expected = type(error) if isinstance(error, CacheStorageError) else TierUnavailable
    assert type(caught.value) is expected
    assert cache.levels[0].counters.failures == 1
    tier(cache, "L1").fail("get", "scan", error=error)
    assert cache.get("a") is None
    with pytest.raises(CacheStorageError):
        list(cache.keys())


def test_the_error_of_another_library_names_level_and_kind(world: World) -> None:
    cache = world.open("disk")
    tier(cache, "L1").fail("put", error=ValueError("boom"))
    with pytest.raises(TierUnavailable, match=r"L1 \(disk\) failed: ValueError: boom"):
        cache.put(note("a"))


@pytest.mark.req("F-8")
def test_the_trouble_of_one_record_never_counts_as_a_failure(world: World) -> None:
    cache = world.open("disk", tier_failure_threshold=1)
    for method in ("get", "discard", "replace"):
        tier(cache, "L1").fail(method, error=TierCorrupt("this one"), times=1)
    cache.put(note("a"))
    assert cache.get("a") is None
    assert cache.get("a") is not None
    assert cache.levels[0].in_service
    assert cache.levels[0].counters.failures == 0


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("level", ["L1", "L2"])
def test_a_level_above_may_find_damage_while_it_is_written(world: World, level: str, write: str) -> None:
    cache = three(world)
    tier(cache, level).fail(FIRST_CALL[write][level == "L2"], error=TierCorrupt("bad"), times=1)
    WRITES[write](cache)
    found = {"delete": None, "clear": None, "invalidate_by_health": "old"}.get(write, "new")
    entry = cache.get("a")
    assert (entry.text if entry else None) == found


def test_an_older_promotion_on_its_way_does_not_follow_a_write_that_failed(world: World) -> None:
    cache = three(world)
    old = tier(cache, "L2").tier.get("a")
    tier(cache, "L2").fail("put", times=1)
    cache.put(note("a", "new"))
    assert tier(cache, "L2").tier.put(old) is not None


def test_an_older_promotion_on_its_way_does_not_follow_the_return_of_a_level(world: World) -> None:
    cache = three(world)
    tier(cache, "L1").tier.clear()
    world.disks["L2"].clear()

    def outage() -> None:
        cache.levels[1].take_out(OSError("gone"))
        cache.put(note("a", "new"))
        cache.levels[1].reset_failures()

    tier(cache, "L3").after("get", outage)
    slow = cache.get("a")
    assert slow is not None
    assert slow.text == "old"
    assert held(cache, "L2", "a") is None


def test_a_read_within_a_write_that_passes_a_level_by_does_not_follow_its_return(world: World) -> None:
    cache = three(world)
    level = cache.levels[1]
    tier(cache, "L1").tier.clear()
    level.take_out(OSError("gone"))
    level.missed_writes = True
    seen: list[Any] = []

    def read() -> None:
        tier(cache, "L3").after("get", level.reset_failures)
        seen.append(cache.get("a"))

    tier(cache, "L3").after("put", lambda: tier(cache, "L3").after("get", lambda: None))
    tier(cache, "L3").before("put", read)
    cache.put(note("a", "new"))
    assert [entry.text for entry in seen] == ["old"]
    assert where(cache, "a") == {"L2": "new", "L3": "new"}


def test_a_write_from_before_an_outage_does_not_follow_the_return_of_a_level(world: World) -> None:
    cache = three(world)
    level = cache.levels[1]
    reached, opened, waiting = threading.Event(), threading.Event(), threading.Event()

    def stall() -> None:
        reached.set()
        assert opened.wait(PATIENCE)

    def wait_for(*args: Any) -> Any:
        waiting.set()
        return real(*args)

    real = level._writes.wait_for
    vars(level._writes)["wait_for"] = wait_for
    tier(cache, "L2").before("put", stall)
    slow = threading.Thread(target=lambda: cache.put(note("a", "first")))
    slow.start()
    assert reached.wait(PATIENCE)
    level.take_out(OSError("gone"))
    cache.put(note("a", "second"))  # passes L2 by
    back = threading.Thread(target=level.reset_failures)
    back.start()
    assert waiting.wait(PATIENCE)
    assert not level.in_service
    opened.set()
    slow.join(PATIENCE)
    back.join(PATIENCE)
    assert serving(cache, "L2")
    assert held(cache, "L2", "a") is None


def test_a_write_that_passes_by_in_the_moment_of_a_return_is_noticed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = three(world)
    level = cache.levels[1]
    level.take_out(OSError("gone"))  # and nothing is missed until it is about to come back
    real = level._come_back

    def come_back(**state: bool) -> bool:
        monkeypatch.undo()
        cache.put(note("a", "new"))
        return real(**state)

    monkeypatch.setattr(level, "_come_back", come_back)
    level.reset_failures()
    assert serving(cache, "L2")
    assert held(cache, "L2", "a") is None


def test_a_fill_from_before_an_outage_does_not_follow_the_emptying_of_l1(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = three(world)
    level = cache.levels[0]
    level.empty()
    copy_up = cache._stack._copy_up
    reached, opened = threading.Event(), threading.Event()

    def held_up(to: Any, *args: Any) -> bool:
        reached.set()
        assert opened.wait(PATIENCE)
        return copy_up(to, *args)

    monkeypatch.setattr(cache._stack, "_copy_up", held_up)
    slow = Reader(cache)  # has seen L1 in service, and is about to fill it
    assert reached.wait(PATIENCE)
    level.take_out(OSError("gone"))
    level.missed_writes = True
    empty = level.empty

    def then_fill_and_write() -> None:
        empty()
        opened.set()
        assert slow.text() == "old"
        cache.put(note("a", "new"))  # passes L1 by

    monkeypatch.setattr(level, "empty", then_fill_and_write)
    level.reset_failures()
    assert serving(cache, "L1")
    assert held(cache, "L1", "a") is None


def test_reads_counted_in_l1_survive_its_way_out_of_service_and_back(world: World) -> None:
    cache = three(world)
    for _ in range(3):
        cache.get("a")
    level = cache.levels[0]
    level.take_out(OSError("gone"))
    cache.put(note("b"))  # passes L1 by
    level.reset_failures()
    cache.flush()
    row: Any = tier(cache, "L3").tier.get("a")
    assert row.access_count == 3


def test_at_close_a_level_that_missed_writes_is_emptied(world: World) -> None:
    cache = three(world)
    tier(cache, "L2").fail("put", "delete", times=1)
    cache.put(note("a", "new"))
    assert not cache.levels[1].in_service
    cache = world.reopen(*THREE)
    assert where(cache, "a") == {"L3": "new"}


def test_a_level_that_cannot_be_emptied_at_close_is_reported(world: World, caplog: pytest.LogCaptureFixture) -> None:
    cache = three(world)
    tier(cache, "L2").fail()
    cache.put(note("a", "new"))
    with caplog.at_level(logging.ERROR):
        cache.close()
    assert any("may be older than the authority" in record.message for record in caplog.records)


@pytest.mark.parametrize("failing", ["scan", "purge", "touch_many", "overflow", "size", "highest_version"])
def test_upkeep_that_fails_on_one_level_reaches_the_others(world: World, failing: str) -> None:
    cache = world.open(("live", 2), ("disk", 2), "disk")
    cache.put(note("a", ttl_seconds=60))
    cache.get("a")
    tier(cache, "L2").fail(failing)
    cache.put_many([note("b"), note("c"), note("d")])
    cache.sweep()
    cache.get_statistics()
    row: Any = tier(cache, "L3").tier.get("a")
    assert row.access_count == 1
    assert tier(cache, "L1").tier.size() == 2


def test_a_level_comes_and_goes_without_the_hot_path_losing_track(world: World) -> None:
    cache = three(world)
    level = cache.levels[0]
    for _ in range(3):
        level.take_out(OSError("gone"))
        assert cache.get_with_level("a")[1] != "L1"
        level.reset_failures()
        cache.get("a")
        world.calls.clear()
        cache.get("a")
        assert world.calls == [("L1", "get", "a")]
