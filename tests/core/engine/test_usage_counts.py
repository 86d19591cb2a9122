"""Reads are counted once each, follow the record, and are there after a restart."""

from typing import Any

import pytest
from tests.core.engine.support import World, note, tier

from tierkit import Row
from tierkit.room import LEDGER_KEYS
from tierkit.testing import FakeClock

pytestmark = pytest.mark.req("US4-4")

STACKS = [("live", "disk"), ("live", "disk", "disk"), ("disk",), ("disk", "disk"), (("live", 1), ("disk", 1), "disk")]


def stored(cache: Any, level: str, key: str = "a") -> tuple[int, float]:
    row = tier(cache, level).tier.get(key)
    assert isinstance(row, Row)
    return row.access_count, row.last_accessed


@pytest.mark.parametrize("levels", STACKS)
def test_every_read_is_there_after_a_restart_and_counted_once(
    world: World, clock: FakeClock, levels: tuple[Any, ...]
) -> None:
    cache = world.open(*levels)
    cache.put_many([note("a"), note("b")])
    expected = 0
    for _ in range(3):
        for _ in range(4):
            clock.advance(1)
            entry = cache.get("a")
            cache.get("b")
            expected += 1
            assert entry is not None
            assert (entry.access_count, entry.last_accessed and entry.last_accessed.timestamp()) == (
                expected,
                clock.wall(),
            )
        cache = world.reopen(*levels)
        assert stored(cache, f"L{len(levels)}") == (expected, clock.wall())


def test_reads_that_only_l1_knows_of_are_flushed_by_a_sweep_and_on_request(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    cache.put(note("a"))
    cache.get("a")
    assert stored(cache, "L3")[0] == 0
    cache.sweep()
    assert (stored(cache, "L3")[0], stored(cache, "L2")[0]) == (1, 1)
    cache.get("a")
    cache.flush()
    cache.flush()
    assert (stored(cache, "L3")[0], stored(cache, "L2")[0]) == (2, 2)


def test_reads_of_a_victim_are_kept(world: World) -> None:
    cache = world.open(("live", 1), "disk")
    cache.put(note("a"))
    for _ in range(3):
        cache.get("a")
    cache.put(note("b"))
    cache.flush()
    assert stored(cache, "L2")[0] == 3


def test_reads_survive_a_put_of_the_same_key(world: World) -> None:
    for levels in (("live", "disk"), ("live",), ("disk",)):
        cache = world.reopen(*levels)
        cache.put(note("a", "x"))
        cache.get("a")
        cache.put(note("a", "y"))
        entry = cache.get("a")
        assert entry is not None
        cache.flush()
        assert entry.access_count == 2 or stored(cache, "L1")[0] == 2
        cache.delete("a")


def test_reads_survive_a_copy_that_was_dropped(world: World) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a", "x"))
    cache.get("a")
    tier(cache, "L2").before("put", lambda: cache.put(note("a", "between")))  # the outer put drops the copy in L1
    cache.put(note("a", "y"))
    cache.flush()
    assert stored(cache, "L2")[0] == 1


def test_reads_of_a_copy_that_was_renewed_elsewhere_are_kept(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a", ttl_seconds=60))
    cache.get("a")
    world.open("live", "disk").put(note("a", ttl_seconds=600))
    clock.advance(60)
    cache.get("a")
    cache.flush()
    assert stored(cache, "L2")[0] == 2


def test_reads_past_the_staleness_bound_are_shown_once(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk", staleness_seconds=5)
    cache.put(note("a"))
    for count in range(1, 5):
        entry = cache.get("a")
        assert entry is not None
        assert entry.access_count == count
        clock.advance(3)


def test_a_flush_that_fails_loses_nothing_and_counts_nothing_twice(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    cache.put(note("a"))
    for _ in range(2):
        cache.get("a")
        tier(cache, "L3").fail("touch_many", times=1)
        cache.flush()
        assert stored(cache, "L3")[0] == 0
    cache.flush()
    assert stored(cache, "L3")[0] == 2


def test_a_level_above_that_takes_no_usage_keeps_it_from_nobody(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    cache.put(note("a"))
    cache.get("a")
    tier(cache, "L2").fail("touch_many", times=1)
    cache.flush()
    assert (stored(cache, "L2")[0], stored(cache, "L3")[0]) == (0, 1)


def test_reads_while_the_authority_is_out_of_service_are_flushed_when_it_is_back(world: World) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a"))
    cache.levels[1].take_out(OSError("gone"))
    cache.get("a")
    cache.flush()
    cache.levels[1].reset_failures()
    cache.flush()
    assert stored(cache, "L2")[0] == 1


def test_a_deletion_forgets_the_reads(world: World) -> None:
    for levels in (("disk",), ("live", "disk")):
        cache = world.reopen(*levels)
        cache.put(note("a"))
        cache.get("a")
        cache.delete("a")
        cache.put(note("a"))
        cache.flush()
        assert stored(cache, f"L{len(levels)}")[0] == 0


def test_the_ledger_is_flushed_when_it_is_full(world: World) -> None:
    cache = world.open("disk")
    cache.put_many([note(f"k{number}") for number in range(LEDGER_KEYS)])
    for number in range(LEDGER_KEYS):
        assert len(cache._stack.ledger) == number
        cache.get(f"k{number}")
    assert len(cache._stack.ledger) == 0
    assert stored(cache, "L1", "k0")[0] == 1


def test_a_full_ledger_is_not_taken_and_put_back_at_each_read_without_an_authority(world: World) -> None:
    cache = world.open("disk", "disk")
    cache.put_many([note(f"k{number}") for number in range(LEDGER_KEYS + 2)])
    cache.levels[1].take_out(OSError("gone"))
    world.calls.clear()
    for number in range(LEDGER_KEYS + 2):
        cache.get(f"k{number}")
    assert len(cache._stack.ledger) == LEDGER_KEYS + 2
    assert world.calls_of("touch_many") == []


def test_what_a_caller_passes_in_as_usage_is_ignored(world: World) -> None:
    cache = world.open("live", "disk")
    entry = cache.put(note("a"))
    for _ in range(5):
        cache.get("a")
    cache.delete("a")
    again = cache.put(entry)
    assert again.access_count == 0


def test_an_entry_does_not_share_its_usage_with_the_one_made_of_it(world: World) -> None:
    cache = world.open("live", "disk")
    entry = cache.put(note("a"))
    other = world.open("live", "disk").put(entry.evolve(text="y"))
    cache.get("a")
    assert (entry.access_count, other.access_count) == (1, 0)


def test_a_failure_counted_keeps_the_reads(world: World) -> None:
    for levels in (("live",), ("live", "disk"), ("disk",)):
        cache = world.reopen(*levels)
        cache.put(note("a"))
        cache.get("a")
        cache.flush()
        changed = cache.invalidate_by_health("a")
        assert changed is not None
        assert changed.access_count == 1
        cache.delete("a")


def test_a_read_that_waits_for_the_authority_is_counted_once_by_a_copy_that_becomes_stale(
    world: World, clock: FakeClock
) -> None:
    cache = world.open("live", "disk", staleness_seconds=1)
    cache.put(note("a"))
    cache.get("a")
    tier(cache, "L2").fail("touch_many", times=1)
    cache.flush()
    clock.advance(2)
    entry = cache.get("a")
    assert entry is not None
    assert entry.access_count == 2
    cache.flush()
    assert stored(cache, "L2")[0] == 2


def test_a_read_that_left_the_first_level_is_counted_once_where_a_second_live_level_has_the_entry(
    world: World,
) -> None:
    cache = world.open(("live", 1), "live", "disk")
    cache.put(note("a"))
    cache.get("a")
    cache.put(note("b"))  # evicts it from L1
    entry = cache.get("a")
    assert entry is not None
    assert entry.access_count == 2


def test_a_record_put_back_from_memory_brings_its_reads_along_once(world: World) -> None:
    cache = world.open(("live", 1), "live", "disk")
    cache.put(note("a"))
    cache.get("a")
    cache.put(note("b"))
    world.disks["L3"]["a"] = b"rotten"
    assert cache.invalidate_by_health("a") is None  # finds it damaged, and puts it back from L2
    cache.flush()
    assert stored(cache, "L3")[0] == 1
