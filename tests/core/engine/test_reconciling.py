"""What a level above the authority holds after a kill, a loss or damage, and what becomes of it."""

import logging
import re
from typing import Any

import pytest
from tests.core.engine.support import NoOptions, Note, World, note
from tests.tiers import DictBlobTier, FiveMethodTier

from tierkit import (
    CacheConfig,
    CacheConfigError,
    CacheManager,
    PluginError,
    ProxyEntry,
    TierContext,
    TierFull,
    TierSpec,
    TierUnavailable,
    Trait,
    hookimpl,
)
from tierkit.testing import FakeClock
from tierkit_memory import MemoryCacheTier

TWO = ("disk", "disk")
THREE = ("live", "disk", "disk")


def as_a_kill_leaves_it(world: World, l1_before: dict[str, bytes]) -> None:
    """The authority has the last write, L1 has not: it is as it was before."""
    world.close()
    world.disks["L1"] = l1_before


def test_an_old_copy_that_a_kill_left_above_is_dropped_at_open(world: World) -> None:
    cache = world.open(*TWO)
    cache.put(note("a", "old"))
    before = dict(world.disks["L1"])
    cache.put(note("a", "new"))
    as_a_kill_leaves_it(world, before)
    found = world.open(*TWO).get("a")
    assert found is not None
    assert found.text == "new"


def test_a_copy_of_a_deleted_record_that_a_kill_left_above_is_dropped_at_open(world: World) -> None:
    cache = world.open(*TWO)
    cache.put(note("a"))
    before = dict(world.disks["L1"])
    cache.delete("a")
    as_a_kill_leaves_it(world, before)
    again = world.open(*TWO)
    assert again.get("a") is None
    assert again.size() == 0


def test_what_the_authority_has_lost_is_put_back_from_above_at_open(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    cache = world.open(*TWO)
    stored = [cache.put(note(key)) for key in "abc"]
    cache.close()
    world.disks["L2"].clear()  # moved aside, or deleted by hand
    with caplog.at_level(logging.WARNING, "tierkit"):
        again = world.open(*TWO)
    assert sorted(again.keys()) == ["a", "b", "c"]
    assert again.levels[1].tier.size() == 3
    assert {entry.key: entry for entry in again.scan()} == {entry.key: entry for entry in stored}
    assert "3 records that L2 had lost were put back there" in caplog.text


def test_what_expired_above_is_not_put_back(world: World, clock: FakeClock) -> None:
    cache = world.open(*TWO)
    cache.put(note("a", ttl_seconds=60))
    cache.close()
    world.disks["L2"].clear()
    clock.advance(61)
    assert world.open(*TWO).size() == 0


def test_a_level_that_cannot_be_reconciled_is_not_read(world: World) -> None:
    cache = world.open(*TWO)
    cache.put(note("a", "old"))
    cache.close()
    fails = TierUnavailable("gone")
    original = world._disk

    def failing(context, options):  # type: ignore[no-untyped-def]  # as `World._disk`
        tier: Any = original(context, options)
        if context.name == "L1":
            tier.fail("scan", error=fails)
        return tier

    world._disk = failing  # type: ignore[method-assign]  # the fault
    again = world.open(*TWO)
    assert [level.in_service for level in again.levels] == [False, True]
    assert again.get_with_level("a")[1] == "L2"


@pytest.mark.req("E-1")
def test_a_record_that_is_damaged_in_the_authority_is_put_back_from_above(world: World) -> None:
    cache = world.open(*THREE)
    stored = cache.put(note("a"))
    for key in list(world.disks["L3"]):
        world.disks["L3"][key] = b"rot"
    assert cache.invalidate_by_health("a") is None  # it met the damage
    assert [entry.key for entry in cache.scan()] == ["a"]
    changed = cache.invalidate_by_health("a")
    assert changed is not None
    assert (changed.failure_count, changed.expires_at) == (1, stored.expires_at)


def test_a_promoted_record_is_the_warmest_of_its_level(world: World, clock: FakeClock) -> None:
    cache = world.open(("disk", 2), "disk")
    for key in "abc":
        cache.put(note(key))
        clock.advance(1)
    assert cache.get_with_level("a")[1] == "L2"
    assert cache.get_with_level("a")[1] == "L1"
    assert cache.get_with_level("b")[1] == "L2"


@pytest.mark.req("US3-1")
def test_counting_a_failure_keeps_columns_that_the_class_does_not_declare(world: World) -> None:
    class Wide(Note):
        country: str = ""

    wide = world.open("disk", entry_type=Wide)
    wide.put(Wide(key="a", country="SE"))
    wide.close()
    narrow = world.open("disk", entry_type=Note)
    narrow.invalidate_by_health("a")
    narrow.close()
    found: Any = world.open("disk", entry_type=Wide).get("a")
    assert (found.country, found.failure_count) == ("SE", 1)


@pytest.mark.req("E-2")
def test_a_full_authority_is_still_read_and_takes_writes_when_there_is_room(world: World) -> None:
    cache = world.open("disk", tier_failure_threshold=1)
    cache.put(note("a"))
    tier: Any = cache.levels[0].tier
    tier.fail("put", error=TierFull("no room"))
    for _ in range(5):
        with pytest.raises(TierFull):
            cache.put(note("b"))
    assert cache.get("a") is not None
    assert cache.delete("a")
    tier.heal()
    cache.put(note("b"))
    assert list(cache.keys()) == ["b"]


class Mismatched:
    """A plugin whose spec claims other traits than its tier, and one whose factory makes no tier."""

    @hookimpl
    def register_tiers(self) -> list[TierSpec]:
        return [
            TierSpec(kind="liar", factory=lambda c, _: MemoryCacheTier(c), options=NoOptions, traits=Trait.NONE, api=1),
            TierSpec(kind="none", factory=lambda *_: None, options=NoOptions, traits=Trait.NONE, api=1),  # type: ignore[arg-type]  # the fault
            TierSpec(kind="broken", factory=_broken, options=NoOptions, traits=Trait.NONE, api=1),
            TierSpec(kind="plain", factory=lambda c, _: DictBlobTier(c), options=NoOptions, traits=Trait.NONE, api=1),
            TierSpec(kind="bare", factory=lambda *_: Bare(), options=NoOptions, traits=Trait.NONE, api=1),
            TierSpec(kind="half", factory=lambda c, _: Half(c), options=NoOptions, traits=Trait.NONE, api=1),
            TierSpec(kind="mute", factory=lambda c, _: Mute(c), options=NoOptions, traits=Trait.NONE, api=1),
        ]


class Bare(DictBlobTier):
    """Does not call the constructor of its class."""

    def __init__(self) -> None: ...


class Half(DictBlobTier):
    """Keeps the context itself and has no lock."""

    def __init__(self, context: TierContext) -> None:
        self.context = context


class Mute(FiveMethodTier):
    """Returns nothing from `scan`."""

    def scan(self) -> Any: ...


def _broken(context: object, options: object) -> DictBlobTier:
    raise TierUnavailable("the disk is away")


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("liar", "claims .*NONE.*LIVE"),
        ("none", "made a NoneType"),
        ("bare", r"its Bare has no `context`: its __init__ must call super\(\).__init__\(context\)"),
        ("half", "its Half has no `lock`"),
    ],
)
def test_a_tier_that_is_not_what_its_spec_says_is_refused_by_name(kind: str, why: str) -> None:
    with pytest.raises(PluginError, match=f"L1 .{kind}.*{why}"):
        CacheManager(CacheConfig(tiers=({"backend": kind},)), plugins=[Mismatched()])


def test_a_tier_whose_scan_answers_nothing_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    wrong = "L1 (mute): its scan answered NoneType, no iterator of records"
    with CacheManager(CacheConfig(tiers=({"backend": "mute"},)), entry_type=Note, plugins=[Mismatched()]) as cache:
        assert wrong in caplog.text
        with pytest.raises(TierUnavailable, match=re.escape(wrong)):
            list(cache.keys())


@pytest.mark.req("E-3")
def test_a_level_above_the_authority_that_cannot_be_opened_is_out_of_service() -> None:
    config = CacheConfig(tiers=({"backend": "broken"}, {"backend": "plain"}))
    with CacheManager(config, entry_type=Note, plugins=[Mismatched()]) as cache:
        cache.put(note("a"))
        assert cache.get_with_level("a")[1] == "L2"
        assert [tier.degraded for tier in cache.get_statistics().tiers] == [True, False]
        with pytest.raises(TierUnavailable, match="the disk is away"):
            cache.levels[0].reset_failures()


def test_an_authority_that_cannot_be_opened_is_an_error_unless_it_is_only_read() -> None:
    config = CacheConfig(tiers=({"backend": "plain"}, {"backend": "broken"}))
    with pytest.raises(TierUnavailable, match="the disk is away"):
        CacheManager(config, entry_type=Note, plugins=[Mismatched()])
    with CacheManager(config, entry_type=Note, plugins=[Mismatched()], read_only=True) as cache:
        assert list(cache.scan()) == []


def test_full_durability_over_a_level_that_promises_none_is_refused() -> None:
    with pytest.raises(CacheConfigError, match='"full" needs a lowest level that is CRASH_SAFE'):
        CacheManager(CacheConfig(tiers=({"backend": "memory"},), durability="full"))


def test_a_staleness_bound_loses_nothing_where_the_live_level_is_all_there_is(clock: FakeClock) -> None:
    config = CacheConfig(tiers=({"backend": "memory"},), staleness_seconds=5)
    with CacheManager(config, entry_type=Note, clock=clock) as cache:
        cache.put(note("a"))
        clock.advance(6)
        assert cache.get("a") is not None


def test_a_short_answer_to_a_bulk_put_is_a_failure_and_acknowledges_nothing(world: World) -> None:
    cache = world.open("live", "disk")
    cache.levels[1].tier.put_many = lambda records: []  # type: ignore[method-assign]  # noqa: ARG005 - the fault
    with pytest.raises(TierUnavailable, match="given 2 rows, answered 0"):
        cache.put_many([note("a"), note("b")])


def test_an_answer_that_is_no_record_counts_as_a_failure_of_the_level(world: World) -> None:
    cache = world.open("disk", "disk")
    cache.put(note("a"))
    cache.levels[0].tier.get = lambda key: 42  # type: ignore[method-assign]  # noqa: ARG005 - the fault
    assert cache.get_with_level("a")[1] == "L2"
    assert cache.get_statistics().tiers[0].failures


def test_another_url_takes_no_credentials_along() -> None:
    entry = ProxyEntry.from_url("http://u:a@h:80")
    moved = entry.evolve(proxy_url="http://x:b@other:90")
    assert (moved.proxy_url, moved.key) == ("http://other:90", ProxyEntry.key_for("http://other:90", "x"))
    assert moved.password is not None
    assert moved.password.get_secret_value() == "b"
    assert entry.evolve(proxy_url="http://other:90").password is None
    assert entry.evolve(source="list").password == entry.password


def test_an_empty_cache_is_true(world: World) -> None:
    cache = world.open("disk")
    assert cache
    assert len(cache) == 0
