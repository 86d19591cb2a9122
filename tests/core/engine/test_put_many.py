"""Bulk puts equal single puts, and cost a bounded level no more than it will keep."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.engine.support import PATIENCE, Gate, Note, Reader, World, held, note, tier, where

from tierkit import CacheValidationError, TierUnavailable
from tierkit.testing import FakeClock
from tierkit.writing import BATCH

BOUNDED = (("live", 2), ("disk", 3), "disk")


def contents(cache: Any) -> list[dict[str, str]]:
    """Key and text of what each level holds."""
    names = [level.name for level in cache.levels]
    return [{key: held(cache, name, key) for key in sorted(tier(cache, name).tier.keys())} for name in names]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("xy")), max_size=12), st.booleans())
def test_bulk_puts_equal_single_puts(writes: list[tuple[str, str]], bounded_authority: bool) -> None:
    levels = (("live", 2), ("disk", 3), ("disk", 4)) if bounded_authority else BOUNDED
    found = []
    for bulk in (True, False):
        clock = FakeClock()
        world = World(clock)
        cache = world.open(*levels)
        cache.put_many([note("a", "before"), note("f", "before")])
        entries = [note(key, text) for key, text in writes]
        if bulk:
            assert cache.put_many(iter(entries)) == len(entries)
        else:
            for entry in entries:
                cache.put(entry)
        found.append(contents(cache))
        world.close()
    assert found[0][2] == found[1][2]
    for bulk_level, truth in ((found[0][0], found[0][2]), (found[0][1], found[0][2])):
        assert bulk_level.items() <= truth.items()
    assert [len(level) for level in found[0]] == [len(level) for level in found[1]]


@pytest.mark.req("US5-3")
def test_a_bounded_level_gets_no_more_writes_than_it_will_keep(world: World) -> None:
    cache = world.open(("live", 5), ("disk", 7), "disk")
    world.calls.clear()
    cache.put_many(note(f"k{number}") for number in range(3 * BATCH))
    written = [len(rows) for level, method, rows in world.calls if (level, method) == ("L2", "put_many")]
    assert sum(written) == 7
    assert world.calls_of("put", "put_many").count(("L1", "put")) == 5
    assert world.calls_of("put_many").count(("L3", "put_many")) == 3
    assert not [call for call in world.calls_of("put", "delete", "discard") if call[0] == "L2"]
    assert [level.tier.size() for level in cache.levels] == [5, 7, 3 * BATCH]


def test_what_a_bounded_level_holds_already_is_renewed_at_once(world: World) -> None:
    cache = world.open("live", ("disk", 2), "disk")
    cache.put_many([note("a", "old"), note("b", "old")])

    def entries() -> Iterator[Note]:
        yield note("a", "new")
        yield from (note(f"k{number}") for number in range(BATCH))
        assert where(cache, "a") == {"L1": "new", "L2": "new", "L3": "new"}

    cache.put_many(entries())
    assert where(cache, "a")["L3"] == "new"


def test_the_last_of_a_key_in_a_batch_wins_even_if_the_first_is_refused(world: World) -> None:
    cache = world.open("live", "disk")

    def race() -> None:
        """Another process writes with a version between those of the two."""
        last = world.calls[-1][2][-1]
        between = cache._stack.sealer.restamp(last, last.version - 2 * 1024 + 1)
        assert tier(cache, "L2").tier.put(between) is None

    tier(cache, "L2").before("put_many", race)
    assert cache.put_many([note("a", "first"), note("b"), note("a", "last")]) == 3
    assert where(cache, "a") == {"L1": "last", "L2": "last"}


def test_refused_ones_are_stamped_again(world: World) -> None:
    cache = world.open(*BOUNDED)
    ahead = world.open(*BOUNDED)
    ahead._stack.versions.observe(ahead._stack.versions.next() + 2**40)
    ahead.put_many([note("a", "theirs"), note("b", "theirs")])
    assert cache.put_many([note("a", "mine"), note("c", "mine"), note("b", "mine")]) == 3
    assert all(held(cache, "L3", key) == "mine" for key in "abc")
    assert all(entry.text == "mine" for entry in cache.get_many([*"abc"]).values())
    assert [level.tier.size() for level in cache.levels] == [2, 3, 3]


def test_the_first_invalid_one_raises_after_those_before_it_were_written(world: World) -> None:
    cache = world.open(*BOUNDED)
    with pytest.raises(CacheValidationError, match="ttl_seconds"):
        cache.put_many([note("a"), note("b", ttl_seconds=-1), note("c")])
    assert (where(cache, "a"), where(cache, "c")) == ({"L1": "", "L2": "", "L3": ""}, {})


@pytest.mark.req("US5-2")
def test_invalid_ones_are_told_with_their_position_and_left_out(world: World) -> None:
    cache = world.open(*BOUNDED)
    told: list[tuple[int, str]] = []
    entries: list[Any] = [note("a"), note("b", ttl_seconds=-1), "no entry", note(""), note("c", "\ud800"), note("d")]
    written = cache.put_many(entries, on_invalid=lambda index, error: told.append((index, type(error).__name__)))
    assert written == 2
    assert told == [(index, "CacheValidationError") for index in (1, 2, 3, 4)]
    assert sorted(cache.keys()) == ["a", "d"]


def test_an_authority_that_fails_in_the_second_batch_keeps_the_first(world: World) -> None:
    cache = world.open("live", "disk")
    cache.put(note("k1500", "old"))

    def entries() -> Iterator[Note]:
        for number in range(2 * BATCH):
            if number == BATCH:
                tier(cache, "L2").fail("put_many", error=TierUnavailable("full"), times=1)
            yield note(f"k{number}", "new")

    with pytest.raises(TierUnavailable, match="full"):
        cache.put_many(entries())
    assert cache.size() == BATCH + 1
    assert held(cache, "L1", "k1500") is None
    assert held(cache, "L2", f"k{BATCH - 1}") == "new"


@pytest.mark.parametrize("levels", [BOUNDED, ("live", ("disk", 2)), (("live", 2),)])
def test_what_a_generator_gave_before_it_raised_is_written_and_the_bounds_hold(world: World, levels: Any) -> None:
    def entries() -> Iterator[Note]:
        for number in range(BATCH + 10):
            yield note(f"k{number}")
        raise RuntimeError("no more")

    cache = world.open(*levels)
    with pytest.raises(RuntimeError, match="no more"):
        cache.put_many(entries())
    assert f"k{BATCH + 9}" in cache
    for level in cache.levels:
        assert level.tier.size() <= (level.max_entries or BATCH + 10)


def test_an_interrupt_in_a_batch_leaves_no_old_copy_in_l1(world: World) -> None:
    cache = world.open("live", "disk")
    cache.put_many([note("a", "old"), note("b", "old")])

    def interrupt() -> None:
        raise KeyboardInterrupt

    tier(cache, "L1").before("put", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cache.put_many([note("a", "new"), note("b", "new")])
    assert {entry.text for entry in cache.get_many([*"ab"]).values()} == {"new"}


def test_a_read_within_a_bulk_put_does_not_leave_an_old_copy_in_l1(world: World) -> None:
    cache = world.open(("live", 1), "disk")
    cache.put(note("a", "old"))
    inner = tier(cache, "L1").tier
    inner.clear()
    vars(inner)["_marks"].clear()

    def read_slowly() -> None:
        # It reads the old record and fills L1 when the bulk put has dealt with this key.
        tier(cache, "L2").after("get", lambda: None)
        cache.get("a")

    tier(cache, "L2").before("put_many", read_slowly)
    cache.put_many([note("a", "new"), note("b", "new")])
    assert held(cache, "L1", "a") is None
    entry = cache.get("a")
    assert entry is not None
    assert entry.text == "new"


def test_a_slow_read_does_not_fill_l1_with_what_a_bulk_put_replaced(world: World) -> None:
    world.open(("live", 1), "disk").put(note("a", "old"))
    cache = world.reopen(("live", 1), "disk")

    def bulk() -> None:
        def entries() -> Iterator[Note]:
            yield note("a", "new")
            yield from (note(f"k{number}") for number in range(BATCH))

        cache.put_many(entries())
        vars(tier(cache, "L1").tier)["_marks"].clear()

    tier(cache, "L2").after("get", bulk)
    cache.get("a")
    assert held(cache, "L1", "a") is None


def test_no_promotion_brings_an_old_row_into_a_level_that_a_bulk_put_skips(world: World) -> None:
    cache = world.open("live", ("disk", 1), "disk")
    cache.put_many([note("a", "old"), note("z")])  # L2 holds z
    read: list[Any] = []

    def read_it() -> None:
        tier(cache, "L1").tier.clear()
        vars(tier(cache, "L1").tier)["_marks"].clear()
        read.append(cache.get("a"))

    tier(cache, "L3").before("put_many", read_it)
    cache.put_many([note("a", "new"), note("b"), note("c")])
    assert [entry.text for entry in read] == ["old"]
    assert held(cache, "L2", "a") is None
    slow: list[Any] = []
    tier(cache, "L3").after("get", lambda: slow.append(cache.put_many([note("a", "newer"), note("b"), note("c")])))
    tier(cache, "L1").tier.clear()
    vars(tier(cache, "L1").tier)["_marks"].clear()
    cache.get("a")  # begins before, promotes after
    assert slow
    assert held(cache, "L2", "a") is None


def read_meanwhile(cache: Any, clock: FakeClock, method: str) -> None:
    """During the next bulk put a thread reads what it replaces, and goes on when L2 was asked by `method`."""
    authority, readers = tier(cache, cache.levels[-1].name), []

    def begin() -> None:
        gate = Gate(cache, authority.context.name, "after")
        readers.append((gate, Reader(cache)))
        assert gate.reached.wait(PATIENCE)

    def go_on() -> None:
        gate, reader = readers[0]
        clock.advance(1)  # what is read is warmer than what is written
        gate.opened.set()
        assert reader.text() == "old"

    authority.before("put_many", begin)
    tier(cache, "L2").after(method, go_on)


def test_a_slow_promotion_brings_no_old_row_into_a_level_that_a_bulk_put_skips(world: World, clock: FakeClock) -> None:
    cache = world.open("live", ("disk", 1), "disk")
    cache.put_many([note("a", "old"), note("z")])
    cache.levels[0].empty()
    read_meanwhile(cache, clock, "get_many")
    cache.put_many([note("a", "new"), note("b"), note("c")])
    assert held(cache, "L2", "a") is None
    entry = cache.get("a")
    assert entry is not None
    assert entry.text == "new"


def test_a_read_that_began_within_a_bulk_put_fills_l1_no_more_after_it(world: World) -> None:
    cache = world.open(("live", 1), "disk")
    cache.put_many([note("a", "old"), note("z")])
    cache.levels[0].empty()
    vars(tier(cache, "L1").tier)["_marks"].clear()
    gates: list[tuple[Gate, Reader]] = []

    def begin() -> None:
        gate = Gate(cache, "L2", "after")
        gates.append((gate, Reader(cache)))
        assert gate.reached.wait(PATIENCE)

    tier(cache, "L2").before("put_many", begin)
    cache.put_many([note("a", "new"), note("b")])
    cache.levels[0].empty()
    gates[0][0].opened.set()
    assert gates[0][1].text() == "old"
    assert held(cache, "L1", "a") is None


def test_a_bulk_put_waits_for_promotions_that_are_under_way(world: World) -> None:
    filling = world.open("live", ("disk", 1), "disk", late_seconds=0.01)._stack.filling
    assert filling.begin_promotion("a", filling.counters[filling.stripe("a")])
    with filling.promotions_aside():  # and not for ever
        assert not filling.begin_promotion("b", filling.counters[filling.stripe("b")])
    filling.end_promotion()
    assert filling.begin_promotion("b", filling.counters[filling.stripe("b")])
    filling.end_promotion()


def test_a_late_bulk_put_drops_what_is_older_above_the_authority(world: World, clock: FakeClock) -> None:
    for levels in (("live", "disk", "disk"), BOUNDED):
        cache = world.reopen(*levels, late_seconds=10)
        cache.put_many([note("a", "old"), note("b", "old")])
        tier(cache, "L3").after("put_many", lambda: clock.advance(10.001))
        cache.put_many([note("a", "new"), note("b", "new")])
        assert where(cache, "a") == {"L3": "new"}


def test_a_level_above_that_fails_a_bulk_put_drops_what_is_older(world: World) -> None:
    for levels in (("live", "disk", "disk"), BOUNDED):
        for method in ("put_many", "get_many"):
            cache = world.reopen(*levels)
            cache.put_many([note("a", "old"), note("b", "old")])
            tier(cache, "L2").fail(method, times=1)
            cache.put_many([note("a", "new"), note("b", "new")])
            assert held(cache, "L2", "a") in (None, "new")
            assert [level.in_service for level in cache.levels] == [True, True, True]
            tier(cache, "L2").fail(method, "delete_many", times=1)
            cache.put_many([note("a", "newer"), note("b", "newer")])
            for level in cache.levels:
                assert not level.in_service or held(cache, level.name, "a") in (None, "newer")


def test_a_bulk_put_of_nothing_does_nothing(world: World) -> None:
    cache = world.open(*BOUNDED)
    world.calls.clear()
    assert cache.put_many([]) == 0
    assert world.calls_of("put", "put_many", "get_many") == []


@pytest.mark.parametrize("levels", [(("disk", 1), "disk"), BOUNDED])
def test_a_record_for_which_a_bounded_level_has_no_room_keeps_older_copies_out_of_it(world: World, levels: Any) -> None:
    cache = world.open(*levels)
    stored = f"L{len(levels) - 1}"
    cache.put(note("a", "old"))
    old = tier(cache, f"L{len(levels)}").tier.get("a")
    assert old is not None
    tier(cache, stored).tier.discard(old)
    cache.put_many([note("a", "new"), *(note(f"k{number}") for number in range(4))])
    assert tier(cache, stored).tier.put(old) is not None
    cache.put(note("z"))
    found = cache.get("a")
    assert found is not None
    assert found.text == "new"


def test_a_bulk_put_that_is_held_up_before_the_authority_is_stamped_again(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = world.open("disk", late_seconds=10)
    begin_many = cache._stack.filling.begin_many

    def held_up(keys: Any, expected: Any) -> None:
        clock.advance(10.001)
        begin_many(keys, expected)

    monkeypatch.setattr(cache._stack.filling, "begin_many", held_up)
    cache.put_many([note("a"), note("b")])
    for key in "ab":
        row = tier(cache, "L1").tier.get(key)
        assert row is not None
        assert row.version / 1024 / 1_000_000 >= clock.wall() - 0.001
