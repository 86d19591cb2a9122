"""A write that comes between two steps of another: what was acknowledged last is what is there in the end."""

from collections.abc import Callable, Iterator

import pytest
from tests.core.engine.support import Note, World, held, note, tier, where

from tierkit import CacheManager, TierFull, TierTimeout, TierUnavailable
from tierkit.testing import FakeClock
from tierkit.writing import BATCH

Cache = CacheManager[Note]
THREE = ("live", "disk", "disk")
BOUNDED = ("live", ("disk", 50), "disk")


def away(cache: Cache, name: str) -> None:
    tier(cache, name).fail()
    next(level for level in cache.levels if level.name == name).take_out(OSError("gone"))


def back(cache: Cache, clock: FakeClock) -> None:
    for level in cache.levels:
        tier(cache, level.name).heal()
    clock.advance(100.0)
    cache.recover()
    assert all(level.in_service for level in cache.levels)


def text(cache: Cache, key: str) -> str | None:
    entry = cache.get(key)
    return None if entry is None else entry.text


def assert_everywhere(cache: Cache, key: str, expected: str | None) -> None:
    """In every level that has the key, and in the end in the authority."""
    assert text(cache, key) == expected
    cache.flush()
    cache.levels[0].empty()
    assert text(cache, key) == expected
    assert set(where(cache, key).values()) == ({expected} if expected is not None else set())


def delete_owed(cache: Cache, key: str) -> None:
    """Delete while the authority fails, for a moment."""
    tier(cache, "L3").fail("delete", times=1)
    cache.delete(key)


def put_owed(cache: Cache, key: str) -> None:
    """Put "new" while the authority fails, for a moment."""
    tier(cache, "L3").fail("put", times=1)
    cache.put(note(key, "new"))


# -- within a bulk put -------------------------------------------------------------------------------------------------


def in_two_batches(first: Note, between: Callable[[], object], *then: Note) -> Iterator[Note]:
    """`first` is the last of a full batch; when that is written comes what is `between`, and then the rest."""
    yield from (note(f"k{number}") for number in range(BATCH - 1))
    yield first
    between()
    yield from then


@pytest.mark.parametrize("way", ["the same call", "a put", "a deletion"])
def test_what_waited_for_the_end_does_not_replace_a_newer_write_that_is_owed(
    world: World, clock: FakeClock, way: str
) -> None:
    cache = world.open(*BOUNDED)

    def between() -> None:
        away(cache, "L3")
        if way == "a put":
            cache.put(note("a", "new"))
        elif way == "a deletion":
            cache.delete("a")

    then = note("a" if way == "the same call" else "z", "new")
    expected = None if way == "a deletion" else "new"
    assert cache.put_many(in_two_batches(note("a", "old"), between, then)) == BATCH + 1
    assert text(cache, "a") == expected
    back(cache, clock)
    assert_everywhere(cache, "a", expected)


@pytest.mark.parametrize("then", [1, 60], ids=["at the end", "pushed out"])
@pytest.mark.parametrize("whose", ["of this process", "of another"])
def test_what_waited_does_not_undo_a_deletion_that_is_owed(
    world: World, clock: FakeClock, then: int, whose: str
) -> None:
    cache = world.open(*BOUNDED)
    writer = cache if whose == "of this process" else world.open(*BOUNDED)
    later = [note(f"z{number}") for number in range(then)]

    def between() -> None:
        clock.advance(1.0)  # the other process has not stamped a batch
        delete_owed(writer, "a")

    cache.put_many(in_two_batches(note("a", "old"), between, *later))
    writer.flush()
    cache.levels[0].empty()  # of what others write, it may have an older copy
    assert_everywhere(cache, "a", None)


def test_only_the_last_write_of_a_key_waits(world: World) -> None:
    cache = world.open("live", ("disk", 2), "disk")
    cache.put_many(in_two_batches(note("a", "old"), lambda: None, note("b", "new"), note("a", "new")))
    assert [held(cache, "L2", key) for key in "ab"] == ["new", "new"]
    cache.put_many(in_two_batches(note("c", "old"), lambda: None, note("c", "new")))
    assert [held(cache, "L2", key) for key in (f"k{BATCH - 2}", "c")] == ["", "new"]
    cache.put_many(in_two_batches(note("d", "old"), lambda: None, note("e"), note("d", "new"), note("f")))
    assert [held(cache, "L2", key) for key in "def"] == ["new", None, ""]


def test_a_bounded_level_that_returns_within_a_bulk_put_is_not_older_than_what_waits(
    world: World, clock: FakeClock
) -> None:
    cache = world.open(*BOUNDED)
    cache.put(note("a", "old"))
    away(cache, "L2")
    found = []

    def between() -> None:
        back(cache, clock)
        cache.levels[0].empty()
        found.append(text(cache, "a"))

    cache.put_many(in_two_batches(note("a", "new"), between))
    assert found == ["new"]
    assert_everywhere(cache, "a", "new")


# -- within a single write ---------------------------------------------------------------------------------------------


def test_a_put_does_not_undo_a_deletion_that_came_when_it_had_been_seen(world: World) -> None:
    cache = world.open(*THREE)
    tier(cache, "L3").after("put", lambda: delete_owed(cache, "a"))
    cache.put(note("a", "old"))
    assert_everywhere(cache, "a", None)


def test_a_bulk_put_does_not_undo_a_deletion_that_came_when_it_had_been_seen(world: World) -> None:
    cache = world.open(*THREE)
    tier(cache, "L3").after("put_many", lambda: delete_owed(cache, "a"))
    cache.put_many([note("a", "old"), note("b")])
    assert_everywhere(cache, "a", None)


def test_a_deletion_does_not_take_a_put_that_came_when_it_had_been_seen(world: World) -> None:
    cache = world.open(*THREE)
    cache.put(note("a", "old"))
    tier(cache, "L3").after("delete", lambda: put_owed(cache, "a"))
    cache.delete("a")
    assert_everywhere(cache, "a", "new")


def test_a_clear_does_not_take_a_put_that_came_when_it_had_been_seen(world: World) -> None:
    cache = world.open(*THREE)
    cache.put_many([note("a", "old"), note("b", "old")])
    tier(cache, "L3").after("delete_many", lambda: put_owed(cache, "a"))
    cache.clear()
    assert_everywhere(cache, "a", "new")
    assert_everywhere(cache, "b", None)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("act", ["put", "put_many", "delete"])
def test_a_write_comes_after_what_another_process_with_a_clock_that_is_ahead_is_owed(
    world: World, clock: FakeClock, known: bool, act: str
) -> None:
    cache = world.open(*THREE)
    other = World(FakeClock(clock.wall() + 30.0))
    other.disks = world.disks
    writer = other.open(*THREE)
    world.caches.append(writer)
    if act == "delete":
        put_owed(writer, "a")
    else:
        cache.put(note("a", "old"))
        delete_owed(writer, "a")
    if known:
        cache.levels[0].empty()
        assert text(cache, "a") == ("new" if act == "delete" else None)
    acts: dict[str, Callable[[], object]] = {
        "put": lambda: cache.put(note("a", "mine")),
        "put_many": lambda: cache.put_many([note("a", "mine")]),
        "delete": lambda: cache.delete("a"),
    }
    acts[act]()
    writer.flush()
    assert_everywhere(cache, "a", None if act == "delete" else "mine")


def test_a_write_of_another_process_that_becomes_known_within_a_put_was_there_before(
    world: World, clock: FakeClock
) -> None:
    cache = world.open(*THREE)
    other = World(FakeClock(clock.wall() + 30.0))
    other.disks = world.disks
    writer = other.open(*THREE)
    world.caches.append(writer)
    delete_owed(writer, "a")
    tier(cache, "L3").after("put", lambda: cache.get("a"))
    cache.put(note("a", "mine"))
    writer.flush()
    assert_everywhere(cache, "a", "mine")


# -- within a clear ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("above", ["in service", "out of service"])
@pytest.mark.parametrize("outcome", ["nothing", "it took effect"])
def test_a_clear_that_fails_half_way_leaves_no_copy_of_what_it_has_deleted(
    world: World, clock: FakeClock, above: str, outcome: str
) -> None:
    cache = world.open(*THREE)
    keys = [f"k{number}" for number in range(2 * BATCH + 1)]
    cache.put_many([note(key) for key in keys])
    authority = tier(cache, "L3")

    def fail() -> None:
        raise TierUnavailable("it failed")

    then = authority.after if outcome == "it took effect" else authority.before
    authority.after("delete_many", lambda: then("delete_many", fail))
    if above == "out of service":
        away(cache, "L2")
    with pytest.raises(TierUnavailable, match="it failed"):
        cache.clear()
    back(cache, clock)
    left = [key for key in keys if held(cache, "L3", key) is not None]
    assert len(left) == (1 if outcome == "it took effect" else BATCH + 1)
    assert [key for key in keys if cache.get(key) is not None] == left


# -- held in memory ----------------------------------------------------------------------------------------------------


def holding_in_memory(world: World, clock: FakeClock, act: Callable[[Cache], object]) -> Cache:
    """A cache whose L3 is away; what `act` does is held in memory, since L2 had no room, which it may have again."""
    cache = world.open(*THREE, durability="none")
    cache.put(note("a", "first"))
    away(cache, "L3")
    tier(cache, "L2").fail("put_many", error=TierFull("full"), times=1)
    with pytest.raises(TierFull):
        cache.put(note("b"))
    act(cache)
    intent = cache._stack.owing.intents.get("a")
    assert intent is not None
    assert intent.level is None
    clock.advance(5.0)
    return cache


ACTS: dict[str, tuple[Callable[[Cache], object], str | None]] = {
    "put": (lambda cache: cache.put(note("a", "acknowledged")), "acknowledged"),
    "delete": (lambda cache: cache.delete("a"), None),
}


@pytest.mark.parametrize("held_in_memory", ACTS)
@pytest.mark.parametrize("failed", ["put", "put_many", "delete"])
def test_a_write_that_fails_does_not_take_what_is_held_in_memory(
    world: World, clock: FakeClock, held_in_memory: str, failed: str
) -> None:
    act, expected = ACTS[held_in_memory]
    cache = holding_in_memory(world, clock, act)
    tier(cache, "L2").fail("put_many", error=TierFull("still full"), times=1)
    fails: dict[str, Callable[[], object]] = {
        "put": lambda: cache.put(note("a", "failed")),
        "put_many": lambda: cache.put_many([note("a", "failed")]),
        "delete": lambda: cache.delete("a"),
    }
    with pytest.raises(TierFull):
        fails[failed]()
    assert text(cache, "a") == expected
    back(cache, clock)
    assert_everywhere(cache, "a", expected)


@pytest.mark.parametrize("held_in_memory", ACTS)
def test_what_is_held_in_memory_is_read_until_a_level_has_the_next_write(
    world: World, clock: FakeClock, held_in_memory: str
) -> None:
    act, expected = ACTS[held_in_memory]
    cache = holding_in_memory(world, clock, act)
    tier(cache, "L3").heal()
    cache.levels[2].in_service = True  # it answers reads
    tier(cache, "L3").fail("put", "put_many", "delete", error=TierFull("full"))
    found: list[str | None] = []

    def read() -> None:
        cache.levels[0].empty()
        found.append(text(cache, "a"))

    tier(cache, "L2").before("put_many", read)
    cache.put(note("a", "next"))
    assert found == [expected]
    assert text(cache, "a") == "next"
    tier(cache, "L3").heal()
    clock.advance(100.0)
    cache.flush()
    assert_everywhere(cache, "a", "next")


def test_a_write_that_landed_though_it_failed_is_newer_than_what_is_held_in_memory(
    world: World, clock: FakeClock
) -> None:
    cache = holding_in_memory(world, clock, ACTS["put"][0])

    def fail() -> None:
        raise TierTimeout("it took effect, and then")

    tier(cache, "L2").after("put_many", fail)
    with pytest.raises(TierTimeout):
        cache.put(note("a", "landed"))
    back(cache, clock)
    assert_everywhere(cache, "a", "landed")
