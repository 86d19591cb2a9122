"""While the authority cannot be written, the next persistent level stands in: nothing is lost, nothing comes back."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.core.engine.support import Note, World, held, note, tier, where

from tierkit import CacheManager, Row, TierFull, TierReadOnly, TierUnavailable
from tierkit.row import is_owed
from tierkit.testing import FakeClock

THREE = ("live", "disk", "disk")


@pytest.fixture
def cache(world: World) -> CacheManager[Note]:
    opened = world.open(*THREE)
    opened.put_many([note("a", "old"), note("b", "b"), note("c", "c")])
    return opened


def text(cache: CacheManager[Note], key: str) -> str | None:
    entry = cache.get(key)
    return None if entry is None else entry.text


def away(cache: CacheManager[Any], name: str = "L3") -> None:
    tier(cache, name).fail()
    next(level for level in cache.levels if level.name == name).take_out(OSError("gone"))


def back(cache: CacheManager[Any], clock: FakeClock, name: str = "L3") -> None:
    tier(cache, name).heal()
    clock.advance(60.0)
    assert cache.recover() >= 1


def row_of(cache: CacheManager[Any], name: str, key: str) -> Row | None:
    row: Row | None = tier(cache, name).tier.get(key)
    return row


WRITES: dict[str, tuple[Callable[[CacheManager[Note]], object], str | None]] = {
    "put": (lambda cache: cache.put(note("a", "new")), "new"),
    "put_many": (lambda cache: cache.put_many([note("a", "new")]), "new"),
    "delete": (lambda cache: cache.delete("a"), None),
}


@pytest.mark.req("E-3")
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("forget", [False, True], ids=["from L1", "from L2"])
def test_what_is_written_in_an_outage_is_read_in_it_and_after_it(
    cache: CacheManager[Note], clock: FakeClock, write: str, forget: bool
) -> None:
    act, expected = WRITES[write]
    away(cache)
    act(cache)
    if forget:
        cache.levels[0].empty()
    assert text(cache, "a") == expected
    assert cache.get_statistics().intents == 1
    back(cache, clock)
    assert cache.get_statistics().intents == 0
    assert text(cache, "a") == expected
    assert held(cache, "L3", "a") == expected
    assert not cache._stack.owing.intents
    row = row_of(cache, "L2", "a")
    assert row is None or not is_owed(row)
    put = row_of(cache, "L3", "a")
    assert row is None or row == put


@pytest.mark.req("E-3")
@pytest.mark.parametrize("write", WRITES)
def test_what_was_written_in_an_outage_survives_the_end_of_the_process(
    cache: CacheManager[Note], world: World, write: str
) -> None:
    act, expected = WRITES[write]
    away(cache)
    act(cache)
    cache.close()
    again = world.open(*THREE)
    assert text(again, "a") == expected
    assert held(again, "L3", "a") == expected
    assert not again._stack.owing.intents


@pytest.mark.parametrize("write", WRITES)
def test_a_reader_that_may_change_nothing_sees_what_was_written_in_an_outage(
    cache: CacheManager[Note], world: World, write: str
) -> None:
    act, expected = WRITES[write]
    away(cache)
    act(cache)
    reader = world.open_config([{"backend": kind} for kind in THREE], read_only=True)
    assert text(reader, "a") == expected
    assert {entry.key: entry.text for entry in reader.scan()}.get("a") == expected
    row = row_of(reader, "L2", "a")
    assert row is not None
    assert is_owed(row)


@pytest.mark.parametrize("write", WRITES)
def test_another_process_that_reaches_the_authority_sees_it_too_and_replays_it(
    cache: CacheManager[Note], world: World, clock: FakeClock, write: str
) -> None:
    act, expected = WRITES[write]
    other = world.open(*THREE)
    other.levels[0].empty()
    away(cache)
    act(cache)
    assert text(other, "a") == expected
    clock.advance(60.0)
    other.recover()
    assert held(other, "L3", "a") == expected
    back(cache, clock)  # which has nothing left to do
    assert text(cache, "a") == expected
    assert held(other, "L3", "a") == expected


def test_the_newest_write_of_an_outage_is_the_one_that_counts(cache: CacheManager[Note], clock: FakeClock) -> None:
    away(cache)
    cache.put(note("a", "first"))
    cache.delete("a")
    cache.delete("b")
    cache.put(note("b", "again"))
    back(cache, clock)
    assert where(cache, "a") == {}
    assert held(cache, "L3", "b") == "again"


def test_a_replay_that_the_authority_refuses_drops_the_copy(
    cache: CacheManager[Note], world: World, clock: FakeClock
) -> None:
    away(cache)
    cache.put(note("a", "in the outage"))
    row = row_of(cache, "L2", "a")
    assert row is not None
    paid = cache._stack.owing.paid(row)
    newer = cache._stack.sealer.remade(paid, version=paid.version + 1024, columns={**paid.columns, "text": "newer"})
    assert tier(cache, "L3").tier.put(newer) is None
    back(cache, clock)
    assert where(cache, "a")["L3"] == "newer"
    assert held(cache, "L2", "a") is None


def test_a_write_to_the_authority_never_loses_against_an_older_one_that_it_is_owed(
    world: World, clock: FakeClock
) -> None:
    cache = world.open(*THREE)
    other = world.open(*THREE)
    other.put(note("a", "old"))
    away(cache)
    cache._stack.versions.observe(int((clock.wall() + 100) * 1e6) * 1024)  # its clock is ahead
    cache.put(note("a", "in the outage"))
    other.put(note("a", "after it"))  # stamped lower at first
    cache.levels[0].empty()
    back(cache, clock)
    assert (text(cache, "a"), text(other, "a")) == ("after it", "after it")
    assert held(cache, "L3", "a") == "after it"


def test_a_bulk_write_to_the_authority_never_loses_against_an_older_one_that_it_is_owed(
    world: World, clock: FakeClock
) -> None:
    cache = world.open(*THREE)
    other = world.open(*THREE)
    away(cache)
    cache._stack.versions.observe(int((clock.wall() + 100) * 1e6) * 1024)
    cache.put(note("a", "in the outage"))
    other.put_many([note("a", "after it"), note("b", "b")])
    cache.levels[0].empty()
    back(cache, clock)
    assert (text(cache, "a"), text(other, "a")) == ("after it", "after it")


def test_a_deletion_never_loses_against_an_older_write_that_the_authority_is_owed(
    world: World, clock: FakeClock
) -> None:
    cache = world.open(*THREE)
    other = world.open(*THREE)
    away(cache)
    cache._stack.versions.observe(int((clock.wall() + 100) * 1e6) * 1024)
    cache.put(note("a", "in the outage"))
    other.delete("a")
    cache.levels[0].empty()
    back(cache, clock)
    assert (text(cache, "a"), text(other, "a")) == (None, None)


def test_a_single_write_that_the_authority_fails_is_held_and_replayed_without_an_outage(
    cache: CacheManager[Note], clock: FakeClock
) -> None:
    tier(cache, "L3").fail("put", error=TierUnavailable("hiccup"), times=1)
    cache.put(note("a", "new"))
    cache.levels[0].empty()
    assert cache.levels[-1].in_service
    assert text(cache, "a") == "new"
    assert held(cache, "L3", "a") == "old"
    cache.recover()
    assert held(cache, "L3", "a") == "new"


def test_what_is_owed_without_an_outage_does_not_wait_as_long_as_write_behind_may(
    world: World, clock: FakeClock
) -> None:
    cache = world.open(*THREE, flush_interval_seconds=3600.0)
    for key in "ab":
        tier(cache, "L3").fail("put", times=1)
        cache.put(note(key))
        clock.advance(1.0)
        cache.recover()
        assert held(cache, "L3", key) == ""


def test_a_full_authority_is_not_asked_for_each_write_that_waits_when_another_is_put(
    world: World, clock: FakeClock
) -> None:
    cache = world.open("live", ("disk", 2), "disk")
    authority = tier(cache, "L3")
    authority.fail("put", "put_many", error=TierFull("no room"))
    for key in "abcd":
        cache.put(note(key))
    assert (authority.calls["put"], authority.calls["put_many"]) == (1, 0)
    clock.advance(60.0)
    cache.put(note("d"))  # tried again, once
    assert (authority.calls["put"], authority.calls["put_many"]) == (2, 0)
    authority.heal()
    clock.advance(60.0)
    cache.recover()
    assert [held(cache, "L3", key) for key in "abcd"] == [""] * 4
    assert tier(cache, "L2").tier.size() == 2


@pytest.mark.req("E-2")
@pytest.mark.parametrize("error", [TierFull("no room"), TierReadOnly("read-only")])
def test_a_full_authority_is_read_on_while_another_level_takes_the_writes(
    cache: CacheManager[Note], clock: FakeClock, error: Exception
) -> None:
    tier(cache, "L3").fail("put", "put_many", "delete", "delete_many", error=error)
    cache.put(note("a", "new"))
    cache.delete("b")
    cache.levels[0].empty()
    assert (text(cache, "a"), text(cache, "b"), text(cache, "c")) == ("new", None, "c")
    assert cache.get_statistics().l3_degraded
    assert {entry.key: entry.text for entry in cache.scan()} == {"a": "new", "c": "c"}
    tier(cache, "L3").heal()
    clock.advance(60.0)
    cache.recover()
    assert not cache.get_statistics().l3_degraded
    assert (held(cache, "L3", "a"), held(cache, "L3", "b")) == ("new", None)


def test_a_write_that_is_owed_is_never_evicted(world: World, clock: FakeClock) -> None:
    cache = world.open("live", ("disk", 1), "disk")
    away(cache)
    cache.put(note("a", "1"))
    cache.put(note("b", "2"))
    with pytest.raises(TierFull, match="at most 2 may wait"):
        cache.put(note("c", "3"))
    cache.put(note("a", "4"))
    back(cache, clock)
    assert (held(cache, "L3", "a"), held(cache, "L3", "b")) == ("4", "2")
    cache.put_many([note("d"), note("e")])
    assert tier(cache, "L2").tier.size() == 1


def test_what_another_process_is_owed_is_replayed_before_it_is_evicted(world: World) -> None:
    cache = world.open("live", ("disk", 2), "disk")
    other = world.open("live", ("disk", 2), "disk")
    away(cache)
    cache.put(note("a", "in the outage"))
    for key in "bcd":
        other.put(note(key))
    assert held(other, "L3", "a") == "in the outage"
    assert tier(other, "L2").tier.size() == 2


def test_a_record_that_expired_while_it_was_owed_does_not_bring_back_an_older_one(
    cache: CacheManager[Note], clock: FakeClock
) -> None:
    away(cache)
    cache.put(note("a", "short", ttl_seconds=30))
    clock.advance(31.0)
    cache.sweep()
    assert text(cache, "a") is None
    tier(cache, "L3").heal()
    assert cache.recover() == 1
    assert text(cache, "a") is None
    assert where(cache, "a") == {}


def test_a_damaged_row_that_is_owed_is_quarantined_and_counted(cache: CacheManager[Note], clock: FakeClock) -> None:
    away(cache)
    cache.put(note("a", "new"))
    row = row_of(cache, "L2", "a")
    assert row is not None
    cache.levels[0].empty()
    tier(cache, "L2").tier.discard(row)
    forged = Row(row.key, row.version, row.purge_at, row.check, {**row.columns, "text": "forged"})
    assert tier(cache, "L2").tier.put(forged) is None
    assert text(cache, "a") is None
    assert cache.levels[1].counters.corruptions == 1
    back(cache, clock)
    assert text(cache, "a") in (None, "old")


def test_when_the_stand_in_fails_too_writes_raise_and_what_it_holds_waits(
    cache: CacheManager[Note], clock: FakeClock
) -> None:
    away(cache)
    cache.put(note("a", "new"))
    cache.levels[0].empty()
    away(cache, "L2")
    with pytest.raises(TierUnavailable):
        cache.put(note("a", "newer"))
    tier(cache, "L3").heal()
    clock.advance(60.0)
    assert cache.recover() == 0  # the authority would answer with the old one
    assert text(cache, "a") is None
    tier(cache, "L2").heal()
    clock.advance(120.0)
    cache.recover()
    clock.advance(120.0)
    cache.recover()
    assert all(level.in_service for level in cache.levels)
    assert held(cache, "L3", "a") == "new"


def test_compare_and_set_and_clear_need_the_authority(cache: CacheManager[Note], clock: FakeClock) -> None:
    away(cache)
    cache.put(note("a", "new"))
    with pytest.raises(TierUnavailable, match="L3"):
        cache.invalidate_by_health("a")
    with pytest.raises(TierUnavailable):
        cache.clear()
    back(cache, clock)
    changed = cache.invalidate_by_health("a")
    assert changed is not None
    assert (changed.text, changed.failure_count) == ("new", 1)


def test_compare_and_set_replays_what_is_owed_for_its_key_first(cache: CacheManager[Note]) -> None:
    tier(cache, "L3").fail("put", error=TierUnavailable("hiccup"), times=1)
    cache.put(note("a", "new"))
    changed = cache.invalidate_by_health("a")
    assert changed is not None
    assert (changed.text, changed.failure_count) == ("new", 1)
    assert not cache._stack.owing.intents


def test_delete_says_whether_there_was_a_record_in_an_outage_too(cache: CacheManager[Note]) -> None:
    away(cache)
    cache.put(note("d", "new"))
    assert cache.delete("d")
    assert not cache.delete("d")


def test_a_stack_that_promises_nothing_holds_writes_in_memory(world: World, clock: FakeClock) -> None:
    cache = world.open(("live", 1), "disk", durability="none")
    cache.put(note("a", "old"))
    cache.put(note("b", "b"))
    away(cache, "L2")
    cache.put(note("a", "new"))
    cache.delete("b")
    cache.put(note("c", "c"))  # L1 has room for one
    assert [text(cache, key) for key in "abc"] == ["new", None, "c"]
    back(cache, clock, "L2")
    assert [held(cache, "L2", key) for key in "abc"] == ["new", None, "c"]


def test_writes_held_in_memory_that_are_lost_at_close_are_reported(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    cache = world.open("live", "disk", durability="none")
    away(cache, "L2")
    cache.put(note("a", "new"))
    cache.close()
    assert any("1 writes that were held in memory are lost" in record.message for record in caplog.records)


@pytest.mark.req("US3-2")
def test_results_of_checks_never_replace_a_newer_write_that_the_authority_is_owed(
    world: World, clock: FakeClock
) -> None:
    cache = world.open(*THREE)
    other = world.open(*THREE)
    cache.put(note("a", "old"))

    def put_in_an_outage() -> None:
        away(other)
        other._stack.versions.observe(int((clock.wall() + 100) * 1e6) * 1024)
        other.put(note("a", "new"))

    tier(cache, "L3").after("replace_many", put_in_an_outage)
    cache.record_health({"a": False})
    cache.levels[0].empty()
    back(other, clock)
    assert (text(cache, "a"), text(other, "a")) == ("new", "new")
