"""Explaining: what every level has, what `get` would answer and why, and what was decided; nothing is changed by it."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from tests.core.engine.support import ScriptedTier, World, note, tier

from tierkit import CacheEntry, CacheManager, CacheValidationError, TierCorrupt, TierFull, TierUnavailable
from tierkit.decision_log import ROWS_KEPT, DecisionRow
from tierkit.decisions import WORDS, Decisions, last_of_each
from tierkit.schema import schema_of
from tierkit.testing import FakeClock

CANARY = "s3cret-canary"


def decided(cache: CacheManager[Any], key: str) -> list[tuple[str, str]]:
    return [(decision.level, decision.what) for decision in cache.explain(key).decisions]


def why(cache: CacheManager[Any], level: str, what: str, key: str = "a") -> str:
    return next(one.why for one in cache.explain(key).decisions if (one.level, one.what) == (level, what))


def states(cache: CacheManager[Any], key: str = "a") -> list[str]:
    return [level.state for level in cache.explain(key).levels]


class Account(CacheEntry):
    password: SecretStr


# -- where it is ------------------------------------------------------------------------------------------------------


def test_a_record_that_was_put_is_in_every_level_and_get_answers_from_the_first(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    entry = cache.put(note("a", ttl_seconds=60))
    found = cache.explain("a")
    assert (found.answer, found.why, found.known) == ("L1", "a hit from L1", True)
    assert [(level.name, level.state, level.version, level.newest) for level in found.levels] == [
        (name, "fresh", entry.version, True) for name in ("L1", "L2", "L3")
    ]
    assert {level.seconds_left for level in found.levels} == {60.0}
    assert found.levels[0].written_at == entry.updated_at
    assert found.levels[0].size_bytes is None
    assert found.levels[2].size_bytes
    assert json.loads(json.dumps(found.as_json()))["levels"][2]["health"] == "unknown"
    assert "L3 (disk): fresh" in str(found)


def test_an_unknown_key_is_known_to_be_unknown(world: World) -> None:
    found = world.open("live", "disk").explain("nobody")
    assert (found.known, found.answer) == (False, None)
    assert found.why == "a miss: L1 does not hold it; L2 does not hold it"
    assert str(found).splitlines()[1:] == ["L1 (live): absent", "L2 (disk): absent"]
    with pytest.raises(CacheValidationError):
        world.open("live").explain("")


def test_an_expired_record_is_a_miss_and_stays_until_the_sweep(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk", grace_seconds=60)
    cache.put(note("a", ttl_seconds=60))
    clock.advance(90)
    assert states(cache) == ["stale", "stale"]
    assert "allow_stale=True returns it" in cache.explain("a").why
    clock.advance(60)
    assert states(cache) == ["expired", "expired"]
    cache.sweep()
    found = cache.explain("a")
    assert [level.holds for level in found.levels] == [False, False]
    assert found.decisions[-2].until is not None  # it was written to live until a moment that has passed


def test_a_level_that_is_out_of_service_says_why_and_those_below_answer(world: World) -> None:
    cache = world.open("disk", "disk", tier_failure_threshold=1)
    cache.put(note("a"))
    tier(cache, "L1").fail("get", error=TierUnavailable("gone fishing"))
    cache.get("a")
    found = cache.explain("a")
    assert (found.levels[0].in_service, found.levels[0].state, found.answer) == (False, "unknown", "L2")
    assert "gone fishing" in found.levels[0].trouble
    assert "gone fishing" in found.why


def test_a_damaged_record_is_told_and_left(world: World) -> None:
    cache = world.open("disk", "disk")
    cache.put(note("a", "text"))
    blobs = world.disks["L1"]
    for name, blob in blobs.items():
        blobs[name] = blob.replace(b"text", b"tuxt", 1)
    before = {name: dict(held) for name, held in world.disks.items() if held}
    found = cache.explain("a")
    assert (found.levels[0].state, found.answer) == ("damaged", "L2")
    assert {name: dict(held) for name, held in world.disks.items() if held} == before
    assert cache.get_statistics().tiers[0].corruptions == 0


def test_a_write_that_the_lowest_level_is_owed_is_told(world: World) -> None:
    cache = world.open("disk", "disk")
    cache.put(note("old"))
    tier(cache, "L2").fail("put", error=TierFull("full"))
    cache.put(note("a"))
    found = cache.explain("a")
    assert (found.waits_in, found.answer, found.levels[0].owed) == ("L1", "L1", True)
    assert why(cache, "L2", "owed") == "written, and held by L1"
    cache.delete("old")
    tier(cache, "L2").heal()
    cache.levels[1].reset_failures()
    cache.flush()
    assert ("L2", "replayed") in decided(cache, "a")


def test_the_keys_that_a_record_needs_are_named_and_no_secret_is_shown(world: World) -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    tiers = [{"backend": "disk"}] * 2
    with world.open_config(tiers, entry_type=Account, encryption_key=SecretStr(old)) as cache:
        cache.put(Account(key="a", password=SecretStr(CANARY)))
        found = cache.explain("a")
        assert (len(found.levels[0].key_ids), found.levels[0].keys_not_held) == (1, ())
        assert CANARY not in repr(found) + str(found) + json.dumps(found.as_json())
    cache = world.open_config(tiers, entry_type=Account, encryption_key=SecretStr(new))
    found = cache.explain("a")
    assert states(cache) == ["unreadable", "unreadable"]
    assert found.levels[0].keys_not_held == found.levels[0].key_ids != ()
    assert old not in repr(found)


def test_who_holds_it_is_told(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a"))
    with cache.lease(ttl=60) as entry:
        found = cache.explain("a")
        assert entry is not None
        assert found.leased_by
        assert found.leased_until is not None
    assert cache.explain("a").leased_by is None


@pytest.mark.parametrize("levels", [("live", "disk", "disk"), ("live",)])
def test_explaining_changes_nothing(world: World, levels: tuple[str, ...]) -> None:
    cache = world.open(*levels)
    cache.put_many(note(f"k{n}") for n in range(3))
    cache.get("k0")
    disks = {name: dict(blobs) for name, blobs in world.disks.items()}
    statistics, usage = cache.get_statistics(), [entry.access_count for entry in cache.scan()]
    for key in ("k0", "k1", "nobody"):
        cache.explain(key)
    assert cache.get_statistics() == statistics
    assert [entry.access_count for entry in cache.scan()] == usage
    assert {name: dict(blobs) for name, blobs in world.disks.items() if blobs} == {n: b for n, b in disks.items() if b}
    assert cache._stack.sides.opened() == []  # an empty table would be a change, too


# -- what was decided -------------------------------------------------------------------------------------------------


def test_a_put_is_written_and_admitted(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    cache.put(note("a"))
    assert decided(cache, "a") == [("L3", "written"), ("L2", "admitted"), ("L1", "admitted")]
    cache.delete("a")
    assert decided(cache, "a")[-1] == ("L3", "deleted")


def test_a_bulk_put_and_a_clear_are_told_for_each_key(world: World) -> None:
    cache = world.open("disk", "disk")
    cache.put_many([note("a"), note("b")])
    assert decided(cache, "b") == [("L2", "written"), ("L1", "admitted")]
    cache.clear()
    assert decided(cache, "b")[-1] == ("L2", "deleted")


def test_what_filters_delete_and_what_is_popped_is_told(world: World) -> None:
    cache = world.open("disk", "disk")
    cache.put_many([note("a", source="list"), note("b")])
    cache.delete_where(source="list")
    assert decided(cache, "a")[-1] == ("L2", "deleted")
    assert why(cache, "L2", "deleted") == "by a filter that held of it"
    cache.pop("b")
    assert decided(cache, "b")[-1] == ("L2", "deleted")


def test_what_an_admission_policy_refuses_is_told(world: World) -> None:
    cache = world.open_config([{"backend": "disk", "max_entries": 9, "admission": "second_use"}, {"backend": "disk"}])
    cache.put(note("a"))
    assert "admission policy" in why(cache, "L1", "refused")
    cache.get("a")
    assert decided(cache, "a")[-1] == ("L1", "promoted")


def test_a_promotion_tells_from_where(world: World) -> None:
    world.open("disk", "disk").put(note("a"))
    cache = world.reopen("live", "disk", "disk")
    cache.get("a")
    assert why(cache, "L1", "promoted").startswith("from L")


def test_an_eviction_tells_the_bound_and_the_policy(world: World) -> None:
    cache = world.open(("live", 1), "disk")
    cache.put(note("a"))
    cache.put(note("b"))
    evicted = next(key for key in "ab" if ("L1", "evicted") in decided(cache, key))
    assert why(cache, "L1", "evicted", evicted).startswith("max_entries = 1, by the policy ")
    bounded = world.open(("disk", 1), name="other")
    bounded.put(note("c"))
    bounded.put(note("d"))
    assert "it left the levels above" in why(bounded, "L1", "evicted", "c")


def test_a_demotion_tells_where_the_victim_went(world: World) -> None:
    demoting = {"backend": "disk", "write_policy": "demote", "max_entries": 9}
    cache = world.open_config([{"backend": "live", "max_entries": 1}, demoting, {"backend": "disk"}])
    cache.put(note("a"))
    cache.put(note("b"))
    victim = next(key for key in "ab" if ("L1", "evicted") in decided(cache, key))
    assert ("L2", "demoted") in decided(cache, victim)
    assert "demote" in why(cache, "L2", "refused", victim)


def test_health_expiry_damage_and_repair_are_told(world: World, clock: FakeClock) -> None:
    cache = world.open("disk", "disk", failure_threshold=2)
    cache.put(note("a", "text"))
    cache.invalidate_by_health("a")
    assert ("L2", "changed") in decided(cache, "a")
    cache.invalidate_by_health("a")
    assert why(cache, "L2", "removed") == "2 failures"
    cache.put(note("b", "text", ttl_seconds=60))
    blobs = world.disks["L2"]
    for name, blob in blobs.items():
        blobs[name] = blob.replace(b"text", b"tuxt", 1)
    cache.levels[0].empty()
    cache.get("b")
    assert why(cache, "L2", "dropped", "b").startswith("it was damaged")
    cache.put(note("c", ttl_seconds=60))
    clock.advance(60)
    cache.get("c")
    assert {("L1", "expired"), ("L2", "expired")} <= set(decided(cache, "c"))


def test_what_the_authority_had_lost_is_put_back(world: World) -> None:
    world.open("disk", "disk").put(note("a"))
    world.close()
    world.disks["L2"].clear()
    cache = world.open("disk", "disk")
    assert why(cache, "L2", "put back") == "from L1"


def test_every_word_is_explained() -> None:
    assert {"admitted", "promoted", "demoted", "refused", "evicted", "dropped"} <= set(WORDS)


# -- how much is kept, and for whom -----------------------------------------------------------------------------------


def test_no_more_is_kept_than_is_said_and_none_with_0(world: World) -> None:
    cache = world.open("disk", decisions_kept=2, decisions_persisted=False)
    for key in "abc":
        cache.put(note(key))
    assert (decided(cache, "a"), decided(cache, "c")) == ([], [("L1", "written")])
    cache.put_many(note(f"k{n}") for n in range(3))
    cache.put_many(note(f"m{n}") for n in range(3))
    assert (decided(cache, "k0"), decided(cache, "m0")) == ([], [("L1", "written")])
    off = world.open("disk", decisions_kept=0)
    off.put(note("z"))
    assert decided(off, "z") == []


def test_refusals_push_out_no_other_decision() -> None:
    decisions = Decisions(2, lambda: 0.0)
    decisions.note("L2", "written", "a", until=60.0)
    for _ in range(5):
        decisions.note("L1", "refused", "a")
    assert [(one.level, one.what) for one in last_of_each(decisions.of("a"))] == [("L2", "written"), ("L1", "refused")]
    assert decisions.of("a")[0].until("a") == 60.0


def test_another_process_is_told_what_was_decided_after_a_flush(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk")
    cache.put_many([note("a", ttl_seconds=600), note("b")])
    other = world.open("live", "disk", name="other")
    assert decided(other, "a") == []
    cache.flush()
    assert ("L2", "written") in decided(other, "a")
    assert next(one.until for one in other.explain("a").decisions if one.what == "written") is not None
    with world.open_config([{"backend": "live"}, {"backend": "disk"}], read_only=True) as reader:
        assert ("L2", "written") in decided(reader, "b")
    assert ("L2", "written") in decided(world.reopen("live", "disk"), "a")


def test_what_was_decided_before_the_clock_was_set_back_came_before(world: World, clock: FakeClock) -> None:
    world.open("disk").put_many([note("a", ttl_seconds=600), note("b")])
    world.close()
    clock.step_wall(-3600)
    cache = world.open("disk")
    cache.delete("a")
    cache.put(note("b", ttl_seconds=60))
    assert decided(cache, "a") == [("L1", "written"), ("L1", "deleted")]
    (written,) = cache.explain("b").decisions
    assert written.at.timestamp() == clock.wall()


def test_decisions_are_kept_for_a_day_and_each_process_keeps_few_rows(world: World, clock: FakeClock) -> None:
    cache = world.open("disk")
    for n in range(ROWS_KEPT + 3):
        cache.put(note(f"k{n}"))
        cache.flush()
    assert len(world.disks["L1 decisions"]) <= 2 * ROWS_KEPT  # rows, and marks of those that were taken away
    other = world.open("disk", name="other")
    assert (decided(other, "k0"), decided(other, f"k{ROWS_KEPT + 2}")) == ([], [("L1", "written")])
    clock.advance(86_401)
    cache.sweep()
    assert decided(other, f"k{ROWS_KEPT + 2}") == []


def test_without_persistence_nothing_is_kept_beside_the_records(world: World) -> None:
    cache = world.open("disk", decisions_persisted=False)
    cache.put(note("a"))
    cache.flush()
    assert "L1 decisions" not in world.disks
    assert decided(cache, "a") == [("L1", "written")]


def test_a_storage_that_takes_no_decisions_keeps_nothing_from_closing(world: World) -> None:
    cache = world.open("disk")
    cache.put(note("a"))
    tier(cache, "L1").fail("replace", error=TierFull("full"))
    cache.flush()
    assert cache.get("a") is not None


@pytest.mark.parametrize("bulk", [False, True])
def test_more_decisions_than_a_record_holds_are_kept_in_several(world: World, bulk: bool) -> None:
    cache = world.open("disk")
    keys = [f"{number:04}".ljust(4096, "k") for number in range(400)]
    if bulk:
        cache.put_many([note(key) for key in keys])
    else:
        for key in keys:
            cache.put(note(key))
    cache.flush()
    other = world.open("disk", name="other")
    assert [decided(other, key) for key in (keys[0], keys[-1])] == [[("L1", "written")]] * 2


def test_a_storage_that_takes_but_a_part_of_the_decisions_does_not_fill_with_it(world: World) -> None:
    cache = world.open("disk")
    cache.put_many([note(f"{number:04}".ljust(4096, "k")) for number in range(400)])
    side = cache._stack.sides.tier("decisions", schema_of(DecisionRow).columns)
    taken = side.replace
    for _ in range(ROWS_KEPT + 3):
        answers = iter([taken])
        with patch.object(side, "replace", lambda *args, answers=answers: next(answers, _full)(*args)):
            cache.flush()
    assert side.size() <= ROWS_KEPT


def _full(*_: object) -> bool:
    raise TierFull("full")


def test_decisions_that_cannot_be_kept_say_nothing_about_the_records(world: World) -> None:
    cache = world.open("disk", tier_failure_threshold=1)
    cache.put(note("a"))
    with patch.object(cache._stack.sides, "_opener", side_effect=TierUnavailable("no room for another table")):
        cache.flush()
        assert (cache.levels[0].in_service, cache.levels[0].snapshot().failures) == (True, 1)
        assert decided(cache, "a") == [("L1", "written")]
    cache.flush()
    assert decided(world.open("disk", name="other"), "a") == [("L1", "written")]


# -- what is rare -----------------------------------------------------------------------------------------------------


def test_a_deletion_that_the_lowest_level_is_owed_is_a_miss(world: World) -> None:
    cache = world.open("disk", "disk")
    cache.put(note("a"))
    tier(cache, "L2").fail("delete", "put", error=TierFull("full"))
    cache.delete("a")
    found = cache.explain("a")
    assert (found.levels[0].state, found.answer, found.waits_in) == ("deleted", None, "L1")
    assert "a deletion" in found.why
    assert cache.get("a") is None
    assert found.levels[0].health is None
    assert why(cache, "L2", "owed") == "deleted, and held by L1"
    tier(cache, "L2").heal()
    cache.levels[1].reset_failures()
    cache.flush()
    assert why(cache, "L2", "replayed") == "a deletion"


def test_what_waits_in_memory_is_told_until_it_has_expired(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk", durability="none")
    tier(cache, "L2").fail("put", "put_many", error=TierFull("full"))
    cache.put(note("a", ttl_seconds=60))
    tier(cache, "L1").tier.discard(cache.get("a"))
    found = cache.explain("a")
    assert (found.waits_in, found.answer) == ("memory", "L2")
    assert "memory holds" in found.why
    assert cache.get("a") is not None
    tier(cache, "L1").tier.discard(cache.get("a"))
    clock.advance(60)
    assert "has expired" in cache.explain("a").why
    tier(cache, "L2").fail("delete", "delete_many", error=TierFull("full"))
    cache.delete("a")
    assert "memory holds a deletion" in cache.explain("a").why


def test_a_copy_that_is_too_old_is_read_again_from_below(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk", staleness_seconds=5)
    cache.put(note("a"))
    clock.advance(6)
    found = cache.explain("a")
    assert (found.levels[0].state, found.answer) == ("outdated", "L2")
    assert "staleness_seconds" in found.why


def test_what_is_older_than_what_has_expired_above_is_not_answered(world: World, clock: FakeClock) -> None:
    cache = world.open("disk", "disk")
    cache.put(note("a", "older", ttl_seconds=900))
    older = dict(world.disks["L2"])
    cache.put(note("a", "newer", ttl_seconds=60))
    world.disks["L2"].update(older)
    clock.advance(60)
    found = cache.explain("a")
    assert [level.state for level in found.levels] == ["expired", "fresh"]
    assert found.answer is None
    assert "older than one that has expired above" in found.why
    assert cache.get("a") is None


def test_a_level_that_cannot_decode_or_fails_is_told(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    cache.put(note("a"))
    tier(cache, "L1").tier.clear()
    tier(cache, "L2").fail("get", error=TierCorrupt("no row"), times=1)
    tier(cache, "L3").fail("get", error=TierUnavailable("away"), times=1)
    found = cache.explain("a")
    assert [(level.state, level.trouble) for level in found.levels[1:]] == [("damaged", "no row"), ("unknown", "away")]


def test_while_the_lowest_level_is_out_of_service_those_above_are_told(world: World) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a"))
    cache.levels[1].take_out(TierUnavailable("away"))
    found = cache.explain("a")
    assert (found.answer, found.leased_by) == ("L1", None)
    assert ("L1", "admitted") in decided(cache, "a")


def test_a_cache_that_is_turned_off_holds_nothing(world: World) -> None:
    cache = world.open("disk", cache_enabled=False)
    found = cache.explain("a")
    assert (found.why, found.levels, found.leased_by) == ("a miss", (), None)


def test_a_lease_is_shown_to_a_person(world: World) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a"))
    with cache.lease():
        assert "leased by " in str(cache.explain("a"))


def test_a_record_without_end_lives_for_ever(world: World) -> None:
    cache = world.open("disk")
    cache.put(note("a"))
    assert "s left" in str(cache.explain("a").levels[0])


def test_decisions_that_could_not_be_kept_are_kept_the_next_time(world: World) -> None:
    cache = world.open("disk")
    cache.put(note("a"))
    cache.flush()
    (side,) = cache._stack.sides.opened()
    assert isinstance(side, ScriptedTier)
    side.fail("replace", error=TierFull("full"), times=1)
    cache.put(note("b"))
    cache.flush()
    other = world.open("disk", name="other")
    assert decided(other, "b") == []
    cache.flush()
    assert decided(other, "b") == [("L1", "written")]
    side.fail("scan", error=TierUnavailable("away"), times=1)
    assert decided(cache, "b") == [("L1", "written")]


def test_rows_of_another_version_are_passed_over(world: World) -> None:
    cache = world.open("disk")
    cache.put(note("a"))
    with patch("tierkit.decision_log._packed", return_value=b"\xc1"):
        cache.flush()
    assert decided(world.open("disk", name="other"), "a") == []
