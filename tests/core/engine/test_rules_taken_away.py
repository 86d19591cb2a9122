"""Rules of the engine that no schedule shows to be needed: each test fails when its rule is taken away."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from tests.core.engine.support import Note, World, held, note, tier, where

from tierkit import CacheManager, TierUnavailable

TWO = ("live", "disk")
THREE = ("live", "disk", "disk")


def text(cache: CacheManager[Note], key: str) -> str | None:
    entry = cache.get(key)
    return None if entry is None else entry.text


def forget(cache: CacheManager[Note], *names: str) -> None:
    """Let these levels know of no record and of no mark, as if more had been evicted than they keep marks of."""
    for name in names:
        inner: Any = tier(cache, name).tier
        inner.clear()
        vars(inner)["_marks"].clear()


def hiccup(cache: CacheManager[Note], write: Callable[[], object]) -> None:
    """Do `write` while the authority fails once, and stays in service: it is owed the write."""
    authority = cache.levels[-1]
    tier(cache, authority.name).fail("put", "delete", error=TierUnavailable("hiccup"), times=1)
    write()
    tier(cache, authority.name).heal()
    assert authority.in_service
    assert list(cache._stack.owing.intents) == ["a"]


# -- a level that is out of service is not read ------------------------------------------------------------------------


def test_a_level_that_is_not_asked_since_it_is_out_of_service_counts_no_miss(world: World) -> None:
    cache = world.open(*THREE)
    cache.put(note("a", "text"))
    for out in ("L1", "L2", "L3"):
        level = next(level for level in cache.levels if level.name == out)
        level.take_out(OSError("gone"))
        before = [(level.counters.hits, level.counters.misses) for level in cache.levels]
        assert cache.get("none") is None
        after = [(level.counters.hits, level.counters.misses) for level in cache.levels]
        asked = [level.name for level, was, now in zip(cache.levels, before, after, strict=True) if was != now]
        assert asked == [name for name in ("L1", "L2", "L3") if name != out]
        level.reset_failures()


def test_a_level_that_comes_back_within_a_read_is_left_to_the_next_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = world.open(*THREE)
    cache.put(note("a", "text"))
    forget(cache, "L1")
    level = cache.levels[1]
    level.take_out(OSError("gone"))
    read = cache._stack._read

    def comes_back(asked: Any, key: str) -> Any:
        if asked is level:
            level.reset_failures()
        return read(asked, key)

    monkeypatch.setattr(cache._stack, "_read", comes_back)
    assert cache.get_with_level("a")[1] == "L3"
    monkeypatch.undo()
    assert level.in_service


# -- L1 is filled only if no write came between ------------------------------------------------------------------------


@pytest.mark.parametrize("write", ["put", "delete", "clear"])
def test_nobody_can_read_in_l1_what_a_slow_read_brings_after_a_write(world: World, write: str) -> None:
    """An L1 hit takes no lock: a copy that is dropped again at once may have been read."""
    world.open("disk")
    cache = world.open(*TWO)
    cache.put(note("a", "old"))
    forget(cache, "L1")
    seen: list[str | None] = []
    acts: dict[str, Callable[[], object]] = {
        "put": lambda: cache.put(note("a", "new")),
        "delete": lambda: cache.delete("a"),
        "clear": cache.clear,
    }

    def meanwhile() -> None:
        acts[write]()
        forget(cache, "L1")
        tier(cache, "L1").after("put", lambda: seen.append(held(cache, "L1", "a")))

    tier(cache, "L2").after("get", meanwhile)
    assert text(cache, "a") == "old"  # it began before the write
    assert seen == []
    assert held(cache, "L1", "a") is None


@pytest.mark.parametrize("write", ["put", "delete", "clear", "bulk"])
@pytest.mark.parametrize("levels", [TWO, (("live", 2), "disk")])
def test_a_bulk_put_does_not_fill_l1_with_what_was_written_over_meanwhile(
    world: World, levels: Any, write: str
) -> None:
    cache = world.open(*levels)
    acts: dict[str, Callable[[], object]] = {
        "put": lambda: cache.put(note("a", "between")),
        "delete": lambda: cache.delete("a"),
        "clear": cache.clear,
        "bulk": lambda: cache.put_many([note("a", "between")]),
    }

    def meanwhile() -> None:
        acts[write]()
        forget(cache, "L1")

    tier(cache, "L2").after("put_many", meanwhile)
    cache.put_many([note("a", "first"), note("b", "b")])
    expected = "between" if write in ("put", "bulk") else None
    assert held(cache, "L2", "a") == expected
    assert held(cache, "L1", "a") is None
    assert text(cache, "a") == expected


def test_a_clear_in_the_midst_of_a_bulk_put_is_not_undone_in_l1(world: World) -> None:
    cache = world.open(*TWO)
    tier(cache, "L2").after("put_many", cache.clear)  # which leaves no marks in L1
    cache.put_many([note("a", "a"), note("b", "b")])
    assert (where(cache, "a"), where(cache, "b")) == ({}, {})


# -- the authority has what it is owed before it is compared with, and before it is read ------------------------------

CHANGES: dict[str, Callable[[CacheManager[Note]], object]] = {
    "invalidate_by_health": lambda cache: cache.invalidate_by_health("a"),
    "record_success": lambda cache: cache.record_success("a"),
    "record_health": lambda cache: cache.record_health({"a": False}),
    "put_many": lambda cache: cache.put_many([note("a", "new")], merge=True),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("owed", ["put", "delete"])
def test_a_change_is_made_to_what_the_authority_is_owed(world: World, change: str, owed: str) -> None:
    cache = world.open(*THREE)
    cache.put(note("a", "old"))
    hiccup(cache, lambda: cache.put(note("a", "new")) if owed == "put" else cache.delete("a"))
    CHANGES[change](cache)
    expected = "new" if owed == "put" or change == "put_many" else None
    forget_live(cache.levels)
    assert text(cache, "a") == expected
    assert held(cache, "L3", "a") == expected
    assert not cache._stack.owing.intents


def forget_live(levels: Iterable[Any]) -> None:
    for level in levels:
        if level.live:
            level.empty()


@pytest.mark.parametrize("owed", ["put", "delete"])
def test_an_authority_that_is_owed_a_write_does_not_answer_while_its_holder_is_out_of_service(
    world: World, owed: str
) -> None:
    cache = world.open(*THREE)
    cache.put(note("a", "old"))
    hiccup(cache, lambda: cache.put(note("a", "new")) if owed == "put" else cache.delete("a"))
    forget_live(cache.levels)
    cache.levels[1].take_out(OSError("gone"))
    assert held(cache, "L3", "a") == "old"
    assert text(cache, "a") is None
    cache.levels[1].reset_failures()
    assert text(cache, "a") == ("new" if owed == "put" else None)


@pytest.mark.parametrize("owed", ["put", "delete"])
def test_an_authority_that_is_owed_a_write_held_in_memory_does_not_answer_itself(world: World, owed: str) -> None:
    cache = world.open(*TWO, durability="none")
    cache.put(note("a", "old"))
    hiccup(cache, lambda: cache.put(note("a", "new")) if owed == "put" else cache.delete("a"))
    forget_live(cache.levels)
    assert held(cache, "L2", "a") == "old"
    assert text(cache, "a") == ("new" if owed == "put" else None)
