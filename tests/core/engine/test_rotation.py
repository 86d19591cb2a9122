"""Rotation: everything is sealed with the current key, in every level, and nothing else about a record changes."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
from pydantic import SecretStr
from tests.core.engine.support import World, note, tier

from tierkit import (
    CacheClosedError,
    CacheEntry,
    CacheManager,
    HealthStatus,
    KeyStatus,
    RotationResult,
    Row,
    TierFull,
    TierReadOnly,
    TierTimeout,
    TierUnavailable,
    rotation,
    upkeep,
)
from tierkit.keys import parse_keys
from tierkit.row import OWED, is_owed
from tierkit.testing import FakeClock

OLD, NEW, OTHER = (f"{letter * 42}A=" for letter in "abc")
OLD_ID, NEW_ID, OTHER_ID = (parse_keys(key).primary.id for key in (OLD, NEW, OTHER))
BOTH = f"{NEW},{OLD}"
STACKS = [("disk",), ("live", "disk"), ("disk", "disk"), ("live", "disk", "disk"), ("live", ("disk", 3), "disk")]
Cache = CacheManager[Any]
stacks = pytest.mark.parametrize("levels", STACKS, ids=str)


class Account(CacheEntry):
    token: SecretStr
    text: str = ""


class Paid(Account):
    """Shares the storage of `Account`, which does not declare its second secret."""

    card: SecretStr | None = None


class Bound(Account):
    """Shares it too, and binds its secret to a field that `Account` does not know."""

    __bind__: ClassVar[tuple[str, ...]] = ("host",)

    host: str = "example.org"


def account(key: str, text: str = "", **fields: Any) -> Account:
    return Account(key=key, text=text, token=SecretStr(f"token of {key} {text}"), **fields)


@pytest.fixture
def opened(world: World) -> Callable[..., Cache]:
    """Opens a cache of accounts after closing others."""

    def opened(*levels: Any, key: str, beside: bool = False, entry_type: Any = Account, **more: Any) -> Cache:
        if not beside:
            world.close()
        pairs = [(level, None) if isinstance(level, str) else level for level in levels]
        tiers = [{"backend": kind, "max_entries": bound} for kind, bound in pairs]
        more = {"tiers": tiers, **more}
        return world.open_config(more.pop("tiers"), entry_type=entry_type, encryption_key=SecretStr(key), **more)

    return opened


def filled(cache: Cache, count: int = 5) -> Cache:
    cache.put_many(account(f"k{n}", str(n)) for n in range(count))
    return cache


def got(cache: Cache, key: str) -> Any:
    return cache.get(key)


def rows(cache: Cache, name: str) -> dict[str, Row]:
    return {row.key: row for row in tier(cache, name).tier.scan()}


def named(world: World) -> set[bytes]:
    """Which of the three keys any blob of any disk names."""
    blobs = [blob for disk in world.disks.values() for blob in disk.values()]
    return {key.encode() for key in (OLD_ID, NEW_ID, OTHER_ID) if any(key.encode() in blob for blob in blobs)}


def contents(cache: Cache) -> dict[str, tuple[str, str]]:
    return {entry.key: (entry.text, entry.token.get_secret_value()) for entry in cache.scan()}


def expected(count: int = 5) -> dict[str, tuple[str, str]]:
    return {f"k{n}": (str(n), f"token of k{n} {n}") for n in range(count)}


# -- everything -------------------------------------------------------------------------------------------------------


@stacks
def test_afterwards_the_new_key_alone_opens_everything_and_no_byte_names_the_old_one(
    world: World, opened: Callable[..., Cache], levels: tuple[Any, ...]
) -> None:
    cache = filled(opened(*levels, key=OLD))
    for n in range(3):
        cache.get(f"k{n}")
    assert named(world) == {OLD_ID.encode()}
    cache = opened(*levels, key=BOTH)
    result = cache.rotate()
    assert (result.resealed, result.retired, result.complete, list(result.remains())) == (5, (OLD_ID,), True, [])
    assert contents(cache) == expected()
    assert named(world) == {NEW_ID.encode()}
    assert contents(opened(*levels, key=NEW)) == expected()


@stacks
def test_a_second_one_finds_nothing_to_do(opened: Callable[..., Cache], levels: tuple[Any, ...]) -> None:
    filled(opened(*levels, key=OLD))
    cache = opened(*levels, key=BOTH)
    cache.rotate()
    before = {row.key: row.version for row in tier(cache, cache.levels[-1].name).tier.scan()}
    assert cache.rotate().resealed == 0
    assert {row.key: row.version for row in tier(cache, cache.levels[-1].name).tier.scan()} == before


def test_nothing_about_a_record_changes_but_its_version(opened: Callable[..., Cache], clock: FakeClock) -> None:
    levels = ("live", "disk", "disk")
    cache = filled(opened(*levels, key=OLD), 2)
    cache.invalidate_by_health("k0")
    for _ in range(3):
        cache.get("k0")
    cache.put(account("short", ttl_seconds=7.5, source="feed"))
    clock.advance(5)
    cache = opened(*levels, key=BOTH)
    before = {entry.key: entry for entry in cache.scan()}
    usage = {key: (row.access_count, row.last_accessed) for key, row in rows(cache, "L3").items()}
    assert cache.rotate().complete
    after = {entry.key: entry for entry in cache.scan()}
    for key, entry in before.items():
        assert after[key].evolve(version=0) == entry.evolve(version=0)
        assert after[key].version > entry.version
    assert {key: (row.access_count, row.last_accessed) for key, row in rows(cache, "L3").items()} == usage
    assert usage["k0"][0] == 3
    assert after["k0"].health_status is HealthStatus.UNHEALTHY
    clock.advance(3)
    assert cache.get("short") is None


def test_columns_that_the_class_does_not_declare_stay_and_their_secrets_are_sealed_anew(
    world: World, opened: Callable[..., Cache]
) -> None:
    cache = opened("disk", key=OLD, entry_type=Paid)
    cache.put(Paid(key="a", token=SecretStr("t"), card=SecretStr("4111")))
    assert opened("disk", key=BOTH).rotate().complete
    assert named(world) == {NEW_ID.encode()}
    found = got(opened("disk", key=NEW, entry_type=Paid), "a")
    assert found.card.get_secret_value() == "4111"


def test_what_a_class_has_written_that_binds_its_secrets_otherwise_is_said_to_remain(
    opened: Callable[..., Cache],
) -> None:
    """As if another program rotated with a class that knows less: no record is lost by that."""
    cache = opened("disk", key=OLD, entry_type=Bound)
    cache.put(Bound(key="a", token=SecretStr("t")))
    cache = opened("disk", key=BOTH)
    result = cache.rotate()
    assert (result.resealed, result.retired) == (0, ())
    cache = opened("disk", key=BOTH, entry_type=Bound)
    assert cache.rotate().complete
    assert got(cache, "a").token.get_secret_value() == "t"


@stacks
def test_secrets_of_the_other_cipher_are_sealed_anew_in_every_level(
    opened: Callable[..., Cache], levels: tuple[Any, ...]
) -> None:
    filled(opened(*levels, key=NEW))
    cache = opened(*levels, key=NEW, cipher="fernet")
    assert cache.rotate().resealed == 5
    held = [row for level in cache.levels for row in rows(cache, level.name).values() if not level.live]
    assert {row.columns["token_encrypted"][:3] for row in held} == {b"f1."}
    assert contents(cache) == expected()
    assert cache.rotate().resealed == 0


def test_what_expired_names_no_old_key_afterwards(world: World, opened: Callable[..., Cache], clock: FakeClock) -> None:
    cache = opened("live", "disk", "disk", key=OLD)
    cache.put(account("gone", ttl_seconds=5.0))
    cache.put(account("graced", ttl_seconds=50.0))
    clock.advance(10)
    cache = opened("live", "disk", "disk", key=BOTH)
    assert cache.rotate().complete
    assert set(rows(cache, "L3")) == {"graced"}
    assert named(world) == {NEW_ID.encode()}


def test_a_type_without_secrets_is_checked_with_the_new_key(world: World) -> None:
    world.open("disk", encryption_key=SecretStr(OLD)).put(note("a", "x"))
    cache = world.reopen("disk", encryption_key=SecretStr(BOTH))
    assert cache.rotate().retired == (OLD_ID,)
    assert named(world) == {NEW_ID.encode()}


def test_without_a_key_there_is_nothing_to_do(world: World) -> None:
    cache = world.open("disk")
    cache.put(note("a", "x"))
    result = cache.rotate()
    assert (result.resealed, result.retired, result.complete) == (0, (), True)
    assert str(cache.key_status()) == "records on the current key (none): L1: 1 of 1"


@pytest.mark.parametrize("settings", [{}, {"cache_enabled": False}])
def test_where_no_level_stores_rows_there_is_nothing_to_do(world: World, settings: Any) -> None:
    cache = world.open("live", **settings)
    assert cache.rotate().complete
    assert "there is no level that stores any" in str(cache.key_status())


# -- what comes between -----------------------------------------------------------------------------------------------


@contextmanager
def after_the_scan(cache: Cache, name: str, act: Callable[[], object]) -> Iterator[None]:
    """Let `act` happen once, between the reading of the last row of a level and what is done with it."""
    scanned, left = tier(cache, name).tier.scan, [act]

    def scan() -> Iterator[Row]:
        yield from scanned()
        while left:
            left.pop()()

    with patch.object(tier(cache, name).tier, "scan", scan):
        yield


CHANGES: dict[str, Callable[[Cache], object]] = {
    "put": lambda cache: cache.put(account("k1", "newer")),
    "delete": lambda cache: cache.delete("k1"),
    "failure": lambda cache: cache.invalidate_by_health("k1"),
    "read": lambda cache: cache.get("k1"),
}


@stacks
@pytest.mark.parametrize("what", CHANGES)
def test_a_write_that_comes_between_wins(
    world: World, opened: Callable[..., Cache], levels: tuple[Any, ...], what: str
) -> None:
    filled(opened(*levels, key=OLD))
    cache = opened(*levels, key=BOTH)
    with after_the_scan(cache, cache.levels[-1].name, lambda: CHANGES[what](cache)):
        result = cache.rotate()
    assert result.complete
    assert named(world) == {NEW_ID.encode()}
    found = got(cache, "k1")
    if what == "delete":
        assert found is None
    else:
        assert found.text == ("newer" if what == "put" else "1")
        assert found.failure_count == (what == "failure")
    assert contents(cache).keys() == expected().keys() - ({"k1"} if what == "delete" else set())


def test_another_process_that_still_writes_with_the_old_key_is_found_out(opened: Callable[..., Cache]) -> None:
    cache = filled(opened("disk", key=BOTH))
    other = opened("disk", key=f"{OLD},{NEW}", beside=True)
    with after_the_scan(cache, "L1", lambda: None):
        pass
    tier(cache, "L1").after("compact", lambda: other.put(account("late", "x")))
    result = cache.rotate()
    assert not result.complete
    assert list(result.remains()) == [f"L1: 1 records name the key {OLD_ID}, which is held"]
    assert cache.rotate().complete


def test_a_cache_that_holds_both_keys_finds_every_record_all_the_while(opened: Callable[..., Cache]) -> None:
    filled(opened("disk", "disk", key=OLD), 20)
    cache = opened("disk", "disk", key=BOTH)
    other = opened("disk", "disk", key=f"{OLD},{NEW}", beside=True, read_only=True)
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        assert contents(other) == expected(20)
        assert all(other.get(key) is not None for key in expected(20))

    for name in ("L1", "L2"):
        for method in ("replace_many", "discard", "get_many", "put", "compact", "delete_many"):
            tier(cache, name).before(method, look)
            tier(cache, name).after(method, look)
    assert cache.rotate().complete
    look()
    assert looks > 8


def test_its_progress_is_told(opened: Callable[..., Cache]) -> None:
    filled(opened("disk", key=OLD), 7)
    told: list[tuple[int, int | None]] = []
    with patch.object(rotation, "BATCH", 3):
        opened("disk", key=BOTH).rotate(lambda done, total: told.append((done, total)))
    assert told == [(3, 7), (6, 7), (7, 7)]


# -- levels above -----------------------------------------------------------------------------------------------------


def test_an_old_copy_above_is_dropped_though_the_authority_needs_nothing(
    world: World, opened: Callable[..., Cache]
) -> None:
    """As a process that was killed between the two leaves it, in a level that is not compared when a cache opens."""
    filled(opened("disk", "disk", key=OLD))
    before = dict(world.disks["L1"])
    cache = opened("disk", "disk", key=BOTH)
    cache.rotate()
    world.disks["L1"].update(before)
    assert cache.rotate().complete
    assert named(world) == {NEW_ID.encode()}
    assert contents(cache) == expected()
    assert got(cache, "k1").text == "1"


def test_what_the_authority_has_lost_comes_down_and_is_sealed_anew(world: World, opened: Callable[..., Cache]) -> None:
    filled(opened("disk", "disk", key=OLD))
    cache = opened("disk", "disk", key=BOTH)
    world.disks["L2"].clear()
    result = cache.rotate()
    assert (result.resealed, result.complete) == (5, True)
    assert named(world) == {NEW_ID.encode()}
    assert contents(opened("disk", "disk", key=NEW)) == expected()


@pytest.mark.parametrize("policy", ["behind", "demote"])
def test_what_waits_for_the_authority_comes_down_and_is_sealed_anew(
    world: World, opened: Callable[..., Cache], policy: str
) -> None:
    tiers = [{"backend": "disk"}, {"backend": "disk", "write_policy": policy}]
    cache = opened(key=OLD, tiers=tiers)
    cache.put_many(account(f"k{n}", str(n)) for n in range(5))
    tier(cache, "L2").fail("put_many", "touch_many", error=TierUnavailable("not now"))
    world.close()
    assert all(map(is_owed, unpacked(world, "L1")))
    cache = opened(key=BOTH, tiers=tiers)
    assert cache.rotate().complete
    assert named(world) == {NEW_ID.encode()}
    assert contents(opened(key=NEW, tiers=tiers)) == expected()


def test_what_another_process_leaves_for_the_authority_meanwhile_comes_down_too(
    world: World, opened: Callable[..., Cache]
) -> None:
    tiers = [{"backend": "disk"}, {"backend": "disk", "write_policy": "behind"}]
    cache = opened(key=BOTH, tiers=tiers)
    other = opened(key=f"{OLD},{NEW}", tiers=tiers, beside=True)
    tier(cache, "L1").before("scan", lambda: other.put(account("late", "x")))
    assert cache.rotate().complete
    assert named(world) == {NEW_ID.encode()}
    assert contents(cache)["late"][0] == "x"


def unpacked(world: World, name: str) -> list[Row]:
    from tierkit.blob import _unpack

    found = [_unpack(blob) for blob in world.disks[name].values()]
    return [envelope.row for envelope in found if envelope is not None and envelope.row is not None]


def test_writes_that_the_authority_does_not_take_are_said_to_remain(world: World, opened: Callable[..., Cache]) -> None:
    tiers = [{"backend": "disk"}, {"backend": "disk", "write_policy": "behind"}]
    cache = opened(key=OLD, tiers=tiers)
    cache.put(account("a", "x"))
    tier(cache, "L2").fail("put_many", error=TierFull("no room"))
    world.before_opening["L2"] = lambda made: made.fail("put_many", error=TierFull("no room"))
    cache = opened(key=BOTH, tiers=tiers)
    result = cache.rotate()
    assert result.retired == ()
    assert f"L1: 1 records name the key {OLD_ID}, which is held" in result.remains()
    tier(cache, "L2").heal()
    cache.levels[-1].reset_failures()
    assert cache.rotate().complete


# -- what cannot be done ----------------------------------------------------------------------------------------------


def test_records_of_a_key_that_is_not_held_stay_and_are_told_of(opened: Callable[..., Cache]) -> None:
    opened("disk", "disk", key=OTHER).put(account("theirs", "x"))
    filled(opened("disk", "disk", key=f"{OLD},{OTHER}"))
    cache = opened("disk", "disk", key=BOTH)
    result = cache.rotate()
    assert result.retired == (OLD_ID,)
    assert not result.complete
    assert list(result.remains()) == [
        f"{name}: 1 records name the key {OTHER_ID}, which is not held: nothing can be done about them without it"
        for name in ("L1", "L2")
    ]
    assert got(opened("disk", "disk", key=f"{NEW},{OTHER}"), "theirs").text == "x"


def test_a_damaged_record_is_evicted_as_by_a_read(world: World, opened: Callable[..., Cache]) -> None:
    cache = filled(opened("disk", key=OLD))
    row = rows(cache, "L1")["k1"]
    damaged = Row(row.key, row.version + 1, row.purge_at, row.check, row.columns)
    tier(cache, "L1").tier.put(damaged)
    cache = opened("disk", key=BOTH)
    (level,) = cache.key_status().levels
    assert (level.records, level.current, level.damaged, level.others) == (5, 0, 1, {OLD_ID: 5})
    assert cache.rotate().complete
    assert cache.get_statistics().tiers[0].corruptions == 1
    assert named(world) == {NEW_ID.encode()}
    assert contents(cache).keys() == expected().keys() - {"k1"}


def test_a_level_that_is_out_of_service_keeps_the_old_keys_from_going(opened: Callable[..., Cache]) -> None:
    filled(opened("disk", "disk", key=OLD))
    cache = opened("disk", "disk", key=BOTH)
    cache.levels[0].take_out(TierUnavailable("pulled"))
    result = cache.rotate()
    assert result.retired == ()
    assert list(result.remains()) == ["L1 cannot be read: it is out of service"]
    cache.levels[0].reset_failures()
    assert cache.rotate().complete


def test_a_level_that_fails_on_the_way_keeps_the_old_keys_from_going(opened: Callable[..., Cache]) -> None:
    filled(opened("disk", "disk", key=OLD))
    cache = opened("disk", "disk", key=BOTH)
    tier(cache, "L1").fail("scan", error=TierUnavailable("gone"), times=2)
    result = cache.rotate()
    assert list(result.remains()) == ["L1 cannot be read: gone"]


def test_a_tier_that_cannot_be_compacted_keeps_the_old_keys_from_going(
    opened: Callable[..., Cache], caplog: pytest.LogCaptureFixture
) -> None:
    filled(opened("disk", key=OLD))
    cache = opened("disk", key=BOTH)
    tier(cache, "L1").fail("compact", error=TierTimeout("a reader is in the way"), times=1)
    with caplog.at_level(logging.INFO, "tierkit.rotation"):
        result = cache.rotate()
        assert (result.retired, result.complete) == ((), False)
        assert str(result) == (
            "5 records sealed anew; no older key can go (L1 could not be compacted: a reader is in the way)"
        )
        assert str(cache.rotate()) == f"0 records sealed anew; these keys can go: {OLD_ID}"
    results = [record.levelname for record in caplog.records if "sealed anew;" in record.getMessage()]
    assert results == ["WARNING", "INFO"]


@pytest.mark.parametrize(
    ("error", "said"), [(TierFull("no room"), "no room"), (ValueError("what it says is not known"), "ValueError")]
)
def test_a_tier_without_room_to_be_compacted_stays_in_service(
    opened: Callable[..., Cache], error: Exception, said: str
) -> None:
    cache = filled(opened("disk", key=BOTH))
    tier(cache, "L1").fail("compact", error=error)
    assert cache.rotate().failures == {"L1": said}
    assert cache.levels[0].writable
    assert cache.levels[0].in_service


def test_an_authority_that_fails_ends_it_and_the_next_goes_on(world: World, opened: Callable[..., Cache]) -> None:
    filled(opened("live", "disk", "disk", key=OLD))
    cache = opened("live", "disk", "disk", key=BOTH)
    tier(cache, "L3").fail("replace_many", error=TierUnavailable("gone"), times=1)
    with pytest.raises(TierUnavailable):
        cache.rotate()
    assert contents(cache) == expected()
    assert cache.rotate().complete
    cache.levels[-1].take_out(TierUnavailable("pulled"))
    with pytest.raises(TierUnavailable):
        cache.rotate()


def test_it_writes_and_so_a_cache_that_is_read_only_or_closed_refuses_it(opened: Callable[..., Cache]) -> None:
    filled(opened("disk", key=OLD))
    cache = opened("disk", key=BOTH, read_only=True)
    with pytest.raises(TierReadOnly):
        cache.rotate()
    assert cache.key_status().levels[0].others == {OLD_ID: 5}
    cache.close()
    for call in (cache.rotate, cache.key_status):
        with pytest.raises(CacheClosedError):
            call()


# -- status -----------------------------------------------------------------------------------------------------------


def test_the_status_tells_which_keys_the_records_of_each_level_name(opened: Callable[..., Cache]) -> None:
    filled(opened("live", ("disk", 2), "disk", key=OLD), 4)
    cache = opened("live", ("disk", 2), "disk", key=BOTH)
    cache.put(account("k0", "new"))
    cache.invalidate_by_health("k1")  # its check is made with the new key, and its token is the old one
    status = cache.key_status()
    assert (status.primary, status.older, status.retired) == (NEW_ID, (OLD_ID,), ())
    assert [(level.name, level.kind, level.records, level.current) for level in status.levels] == [
        ("L2", "disk", 2, 1),
        ("L3", "disk", 4, 1),
    ]
    assert status.levels[1].others == {OLD_ID: 3}
    assert str(status) == f"records on the current key {NEW_ID}: L2: 1 of 2, L3: 1 of 4"
    assert not hasattr(status, "key")


def test_names_of_keys_are_all_that_a_status_shows(opened: Callable[..., Cache]) -> None:
    cache = filled(opened("disk", key=BOTH))
    for shown in (repr(cache.key_status()), repr(cache.rotate()), str(cache.rotate())):
        assert OLD[:20] not in shown
        assert NEW[:20] not in shown
    assert isinstance(cache.key_status(), KeyStatus)
    assert isinstance(cache.rotate(), RotationResult)


# -- what was read ----------------------------------------------------------------------------------------------------


def test_what_was_read_is_sealed_anew_by_the_next_sweep_and_not_by_the_read(
    world: World, opened: Callable[..., Cache]
) -> None:
    levels = ("live", "disk", "disk")
    filled(opened(*levels, key=OLD), 3)
    cache = opened(*levels, key=BOTH)
    world.calls.clear()
    assert got(cache, "k1").text == "1"
    assert world.calls_of("replace_many", "replace") == []
    cache.sweep()
    assert cache.key_status().levels[-1].others == {OLD_ID: 2}
    world.calls.clear()
    cache.sweep()
    assert world.calls_of("replace_many", "get_many") == []
    assert got(cache, "k1").text == "1"
    assert contents(cache) == expected(3)


def test_no_more_is_noted_than_there_is_room_for(opened: Callable[..., Cache]) -> None:
    filled(opened("disk", key=OLD), 30)
    cache = opened("disk", key=BOTH)
    with patch.object(upkeep, "MOST_OUTDATED", 20):
        assert len(list(cache.scan())) == 30
    cache.sweep()
    assert cache.key_status().levels[0].others == {OLD_ID: 10}


def test_an_authority_that_fails_then_keeps_no_sweep_from_going_on(
    opened: Callable[..., Cache], clock: FakeClock
) -> None:
    cache = filled(opened("disk", key=OLD))
    cache.put(account("short", ttl_seconds=5.0))
    cache = opened("disk", key=BOTH)
    cache.get("k1")
    clock.advance(10)
    tier(cache, "L1").fail("replace_many", error=TierUnavailable("gone"), times=1)
    assert cache.sweep() == 1
    cache.get("k1")
    cache.sweep()
    assert cache.key_status().levels[0].others == {OLD_ID: 4}


def test_the_background_thread_ends_early_once_it_is_told_to(opened: Callable[..., Cache]) -> None:
    filled(opened("disk", key=OLD), 100)
    cache = opened("disk", key=BOTH)
    list(cache.scan())
    cache._stack.halt.set()
    cache._stack.sweep()
    assert cache.key_status().levels[0].others == {OLD_ID: 36}


def test_who_only_reads_or_holds_one_key_notes_nothing(world: World, opened: Callable[..., Cache]) -> None:
    filled(opened("disk", key=OLD))
    for key, read_only in ((BOTH, True), (OLD, False)):
        cache = opened("disk", key=key, read_only=read_only)
        assert cache._stack.reseal is None
        world.calls.clear()
        list(cache.scan())
        cache._stack.sweep()
        assert world.calls_of("replace_many", "put") == []


def test_writers_who_come_first_all_the_time_do_not_hold_it_up_for_ever(opened: Callable[..., Cache]) -> None:
    filled(opened("disk", key=OLD), 1)
    cache = opened("disk", key=BOTH)
    with patch.object(tier(cache, "L1").tier, "replace_many", lambda replacements: [False] * len(replacements)):
        result = cache.rotate()
    assert (result.resealed, result.retired) == (0, ())


def test_a_row_that_says_it_is_owed_and_lies_in_the_authority_is_left(opened: Callable[..., Cache]) -> None:
    """As in a store that was the level above of another stack."""
    cache = opened("disk", key=OLD)
    sealer = cache._stack.sealer
    tier(cache, "L1").tier.put(sealer.remade(Row("a", 5, 9e9, "", {OWED: "delete"})))
    cache = opened("disk", key=BOTH)
    assert cache.rotate().resealed == 0
    assert cache.key_status().levels[0].others == {OLD_ID: 1}


def test_what_a_clock_has_stamped_that_was_days_ahead_is_sealed_anew(
    opened: Callable[..., Cache], clock: FakeClock
) -> None:
    filled(opened("disk", key=OLD))
    clock.step_wall(-10 * 86400)
    cache = opened("disk", key=f"{NEW},{OLD}")
    assert cache.rotate().complete
    assert contents(cache) == expected()
