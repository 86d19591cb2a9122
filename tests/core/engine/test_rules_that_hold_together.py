"""Rules of the engine that nothing else shows to be needed, and which hold together with others."""

import threading
from typing import Any

import pytest
from tests.core.engine.support import PATIENCE, Reader, World, held, note, tier, where

from tierkit import TierFull, Trait
from tierkit.reconciling import reconcile
from tierkit.testing import FakeClock

TWO = ("live", "disk")
THREE = ("live", "disk", "disk")


def ahead(cache: Any, clock: FakeClock) -> None:
    cache._stack.versions.observe(int((clock.wall() + 100) * 1e6) * 1024)


@pytest.mark.parametrize("known", ["read", "at open"])
def test_a_write_that_is_owed_is_newer_than_what_its_writer_knows_of(
    world: World, clock: FakeClock, known: str
) -> None:
    other = world.open(*THREE)
    cache = world.open(*THREE) if known == "read" else None
    ahead(other, clock)
    other.levels[1].take_out(OSError("gone"))
    other.put(note("a", "theirs"))
    cache = cache or world.open(*THREE)
    if known == "read":
        tier(cache, "L2").fail("put", times=1)  # the promotion
        entry = cache.get("a")
        assert entry is not None
        assert entry.text == "theirs"
    assert held(cache, "L2", "a") is None
    tier(cache, "L3").fail("put", times=1)
    cache.put(note("a", "mine"))
    cache.flush()
    assert held(cache, "L3", "a") == "mine"


def test_a_write_that_is_owed_after_a_refusal_is_newer_than_what_refused(world: World, clock: FakeClock) -> None:
    cache, other = world.open(*THREE), world.open(*THREE)
    ahead(other, clock)
    other.levels[1].take_out(OSError("gone"))
    other.put(note("a", "theirs"))
    tier(cache, "L3").after("put", lambda: tier(cache, "L3").fail("put", times=1))  # once it has refused
    cache.put(note("a", "mine"))
    assert list(cache._stack.owing.intents) == ["a"]
    cache.flush()
    assert held(cache, "L3", "a") == "mine"


def test_an_owed_write_does_not_come_back_from_under_a_newer_one_that_has_expired(
    world: World, clock: FakeClock
) -> None:
    cache = world.open(*THREE, durability="none")
    other = world.open(*THREE, durability="none")
    tier(cache, "L2").fail("put", "put_many", error=TierFull("no room"))
    cache.put(note("b"))  # L2 takes no writes from here on
    tier(cache, "L3").fail("put", times=1)
    cache.put(note("a", "owed"))
    assert list(cache._stack.owing.intents) == ["a"]
    clock.advance(1.0)
    other.put(note("a", "newer", ttl_seconds=5))
    clock.advance(6.0)
    cache.levels[0].empty()
    assert cache.get("a") is None


@pytest.mark.parametrize("write", ["put", "put_many", "delete", "clear"])
def test_what_is_held_in_memory_is_forgotten_when_something_newer_was_written(world: World, write: str) -> None:
    cache = world.open(*TWO, durability="none")
    tier(cache, "L2").fail("put", times=1)
    cache.put(note("a", "owed"))
    assert list(cache._stack.owing.intents) == ["a"]
    acts: dict[str, Any] = {
        "put": lambda: cache.put(note("a", "newer")),
        "put_many": lambda: cache.put_many([note("a", "newer")]),
        "delete": lambda: cache.delete("a"),
        "clear": cache.clear,
    }
    acts[write]()
    cache.levels[0].empty()
    entry = cache.get("a")
    assert (entry and entry.text) == ("newer" if write.startswith("put") else None)
    assert not cache._stack.owing.intents


@pytest.mark.parametrize("end", ["clear", "delete", "remove"])
@pytest.mark.parametrize("levels", [("disk",), TWO])
def test_reads_of_a_record_that_is_gone_are_not_counted_for_the_next_one(world: World, levels: Any, end: str) -> None:
    cache = world.open(*levels, failure_threshold=1)
    cache.put(note("a", "first"))
    for level in cache.levels:
        if level.live:
            level.empty()
    if len(levels) > 1:
        cache.levels[0].take_out(OSError("gone"))
    cache.get("a")
    acts: dict[str, Any] = {
        "clear": cache.clear,
        "delete": lambda: cache.delete("a"),
        "remove": lambda: cache.record_health({"a": False}),
    }
    acts[end]()
    assert cache.get("a") is None
    cache.put(note("a", "second"))
    cache.flush()
    row: Any = tier(cache, f"L{len(levels)}").tier.get("a")
    assert row.access_count == 0


def test_a_level_that_missed_everything_returns_only_after_promotions_into_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierkit.level.MOST_MISSED", 0)
    cache = world.open(*THREE, late_seconds=PATIENCE)
    cache.put(note("a", "old"))
    cache.levels[0].empty()
    row = tier(cache, "L2").tier.get("a")
    tier(cache, "L2").tier.discard(row)
    level = cache.levels[1]
    reached, opened, waits = threading.Event(), threading.Event(), threading.Event()

    def stall() -> None:
        reached.set()
        assert opened.wait(PATIENCE)

    promotions = cache._stack.filling._promotions
    real = promotions.wait_for

    def wait_for(*args: Any) -> Any:
        waits.set()
        return real(*args)

    vars(promotions)["wait_for"] = wait_for
    tier(cache, "L2").before("put", stall)
    slow = Reader(cache)
    assert reached.wait(PATIENCE)
    level.take_out(OSError("gone"))
    cache.put(note("a", "new"))  # passes L2 by, which does not note what
    back = threading.Thread(target=level.reset_failures)
    back.start()
    if waits.wait(1.0):
        assert not level.in_service
    else:
        back.join(PATIENCE)
    opened.set()
    slow.text()
    back.join(PATIENCE)
    assert level.in_service
    assert held(cache, "L2", "a") in (None, "new")


def test_a_bulk_put_leaves_no_old_copy_in_an_l1_that_would_rather_keep_it(world: World) -> None:
    cache = world.open_config(
        [{"backend": "live", "max_entries": 2, "eviction_policy": "lfu"}, {"backend": "disk"}],
    )
    cache.put(note("a", "old"))
    for _ in range(9):
        cache.get("a")
    cache.put_many([note("a", "new"), note("b"), note("c")])  # there is room for the last two
    entry = cache.get("a")
    assert entry is not None
    assert entry.text == "new"


def test_what_waited_too_long_for_a_bounded_level_is_only_dropped_there(world: World, clock: FakeClock) -> None:
    cache = world.open("live", ("disk", 2), "disk", late_seconds=10)
    tier(cache, "L3").after("put_many", lambda: clock.advance(10.001))
    cache.put_many([note("a"), note("b")])
    assert [held(cache, "L2", key) for key in "ab"] == [None, None]
    assert [held(cache, "L3", key) for key in "ab"] == ["", ""]


def test_reads_counted_in_l1_survive_the_record_that_it_drops_when_it_comes_back(world: World) -> None:
    cache = world.open(*THREE)
    cache.put(note("a", "old"))
    for _ in range(3):
        cache.get("a")
    level = cache.levels[0]
    level.take_out(OSError("gone"))
    cache.put(note("a", "new"))  # passes L1 by, which drops what it has
    level.reset_failures()
    cache.flush()
    row: Any = tier(cache, "L3").tier.get("a")
    assert row.access_count == 3


def test_a_level_that_is_out_while_the_others_are_compared_is_compared_before_it_comes_back(
    world: World, clock: FakeClock
) -> None:
    cache = world.open(*THREE)
    cache.put(note("a", "old"))
    old = tier(cache, "L2").tier.get("a")
    cache.delete("a")
    level = cache.levels[1]
    level.take_out(OSError("gone"))
    world.disks["L2"].clear()
    assert tier(cache, "L2").tier.put(old) is None  # a crash left it there
    reconcile(cache._stack)
    clock.advance(1.0)
    assert cache.recover() == 1
    assert where(cache, "a") == {}


def test_a_level_that_is_emptied_at_close_keeps_what_the_authority_is_owed(world: World) -> None:
    cache = world.open(*THREE)
    cache.put(note("a", "old"))
    tier(cache, "L3").fail("put", "put_many")
    cache.put(note("a", "new"))
    cache.levels[1].take_out(OSError("gone"))
    cache.levels[1].missed_writes = True  # as a clear does that passes it by
    cache.close()
    again = world.open(*THREE)
    assert where(again, "a") == {"L2": "new", "L3": "new"}


def test_a_read_within_a_write_that_passes_a_level_by_while_it_returns_is_not_copied_up_into_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierkit.level.MOST_MISSED", 0)
    cache = world.open(*THREE, late_seconds=PATIENCE)
    cache.put(note("a", "old"))
    cache.levels[0].empty()
    level = cache.levels[1]
    level.take_out(OSError("gone"))
    level.missed_writes = True
    events = {name: threading.Event() for name in ("read", "read on", "passed", "write on")}
    readers: list[Reader] = []

    def pause(reached: str, until: str) -> None:
        events[reached].set()
        assert events[until].wait(PATIENCE)

    def read_within() -> None:
        tier(cache, "L3").after("get", lambda: pause("read", "read on"))
        readers.append(Reader(cache))
        assert events["read"].wait(PATIENCE)

    writer = threading.Thread(target=lambda: cache.put(note("a", "new")))

    def write() -> None:
        tier(cache, "L3").before("put", read_within)
        writer.start()
        assert events["passed"].wait(PATIENCE)

    fill_live = cache._writer.fill_live

    def then_fill(*args: Any) -> None:  # the stored levels are written, and passed by
        pause("passed", "write on")
        fill_live(*args)

    monkeypatch.setattr(cache._writer, "fill_live", then_fill)
    tier(cache, "L2").after("scan", write)  # while it is compared
    level.reset_failures()
    assert level.in_service
    events["read on"].set()
    assert readers[0].text() == "old"
    events["write on"].set()
    writer.join(PATIENCE)
    assert held(cache, "L2", "a") in (None, "new")


def hiccup(cache: Any, text: str) -> None:
    lowest = cache.levels[-1].name
    tier(cache, lowest).fail("put", times=1)
    cache.put(note("a", text))
    assert cache.levels[-1].in_service
    assert "a" in cache._stack.owing.intents


def test_what_is_owed_is_read_again_if_that_took_too_long(world: World, clock: FakeClock) -> None:
    cache = world.open(*THREE, late_seconds=10, tombstone_seconds=100)
    other = world.open(*THREE, late_seconds=10, tombstone_seconds=100)
    hiccup(cache, "owed")

    def meanwhile() -> None:
        other.delete("a")
        clock.advance(101.0)
        other.sweep()  # the mark of the deletion is forgotten

    tier(cache, "L2").after("get", meanwhile)
    cache.flush()
    assert where(cache, "a").get("L3") is None
    assert not cache._stack.owing.intents


def test_a_replay_does_not_forget_what_became_owed_within_it(world: World) -> None:
    cache = world.open(*TWO, durability="none")
    hiccup(cache, "first")
    tier(cache, "L2").before("put_many", lambda: hiccup(cache, "second"))
    cache.flush()
    cache.flush()
    assert held(cache, "L2", "a") == "second"


def test_a_change_is_made_to_what_another_process_holds_for_the_authority(world: World) -> None:
    cache, other = world.open(*THREE), world.open(*THREE)
    for opened in (cache, other):
        for name in ("L2", "L3"):
            vars(tier(opened, name))["traits"] |= Trait.SHARED
    cache.put(note("a", "old"))
    hiccup(other, "new")
    changed = cache.invalidate_by_health("a")
    assert changed is not None
    assert (changed.text, changed.failure_count) == ("new", 1)


def test_what_expired_while_it_waited_to_be_demoted_is_swept(world: World, clock: FakeClock) -> None:
    tiers: list[dict[str, Any]] = [
        {"backend": "live"},
        {"backend": "disk"},
        {"backend": "disk", "write_policy": "demote"},
    ]
    cache = world.open_config(tiers)
    cache.put(note("a", ttl_seconds=5))
    clock.advance(6.0)
    cache.sweep()
    assert [level.tier.size() for level in cache.levels] == [0, 0, 0]
    assert not cache._stack.owing.intents


DEMOTING: list[dict[str, Any]] = [
    {"backend": "live", "max_entries": 1},
    {"backend": "disk", "write_policy": "demote"},
    {"backend": "disk"},
]


def test_a_copy_that_another_process_has_replaced_is_not_demoted(world: World) -> None:
    cache, other = world.open_config(DEMOTING), world.open_config(DEMOTING)
    for opened in (cache, other):
        vars(tier(opened, "L3"))["traits"] |= Trait.SHARED
    cache.put(note("a", "old"))
    other.levels[1].take_out(OSError("gone"))
    other.put(note("a", "new"))  # leaves no mark in L2
    cache.put(note("b"))
    assert held(cache, "L2", "a") is None


def test_a_victim_that_was_written_past_the_level_below_is_not_demoted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierkit.level.MOST_MISSED", 0)
    cache = world.open_config(DEMOTING)
    cache.put(note("a", "old"))

    def meanwhile() -> None:
        cache.levels[1].take_out(OSError("gone"))
        cache.put(note("a", "new"))
        cache.levels[1].reset_failures()

    tier(cache, "L3").after("get_many", meanwhile)  # which shows what the authority has of the victim
    cache.put(note("b"))
    assert held(cache, "L2", "a") in (None, "new")


def test_a_victim_whose_way_down_takes_too_long_is_not_demoted(world: World, clock: FakeClock) -> None:
    """By then another process may have replaced it, and the mark that this left be forgotten."""
    cache = world.open_config(DEMOTING, late_seconds=10)
    cache.put(note("a"))
    tier(cache, "L3").after("get_many", lambda: clock.advance(10.001))
    cache.put(note("b"))
    assert held(cache, "L2", "a") is None
    cache.put(note("c"))
    assert held(cache, "L2", "b") is not None


def test_a_read_that_makes_a_victim_leaves_room_where_that_goes(world: World) -> None:
    tiers = [DEMOTING[0], {**DEMOTING[1], "max_entries": 1}, DEMOTING[2]]
    cache = world.open_config(tiers)
    for key in "abc":
        cache.put(note(key))
    for key in "abcabc":
        assert cache.get(key) is not None
        assert [level.tier.size() for level in cache.levels] == [1, 1, 3]


def test_what_was_brought_down_is_not_copied_back_when_that_took_too_long(world: World, clock: FakeClock) -> None:
    cache = world.open_config([{"backend": "disk"}, {"backend": "disk", "write_policy": "behind"}])
    cache.put(note("a"))
    tier(cache, "L1").after("discard", lambda: clock.advance(11.0))
    cache.flush()
    assert where(cache, "a") == {"L2": ""}
