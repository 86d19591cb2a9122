"""Records that are not what was written, and records that we have no key or class for."""

import logging
from typing import Any

import msgspec
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from tests.core.engine.support import Note, World, note, tier, where

from tierkit import CacheEntry, ProxyEntry, Row, TierCorrupt

KEY = SecretStr(Fernet.generate_key().decode())
OTHER = SecretStr(Fernet.generate_key().decode())
PROXY = ProxyEntry.from_url("http://user:canary@192.0.2.1:80")


def tamper(cache: Any, level: str, key: str, **changes: Any) -> Row:
    """Change the row behind the engine's back."""
    inner = tier(cache, level).tier
    row = inner.get(key)
    assert isinstance(row, Row)
    columns = {**row.columns, **changes.pop("columns", {})}
    bad = msgspec.structs.replace(row, columns=columns, **changes)
    inner._seal(msgspec.structs.replace(inner._there(key), row=bad))  # type: ignore[attr-defined]  # a blob tier's own
    return bad


@pytest.mark.req("E-1")
@pytest.mark.parametrize(
    "change",
    [
        {"columns": {"text": "changed"}},
        {"check": "c1.00000000"},
        {"check": "nonsense"},
        {"purge_at": 4e9},
        {"version": 2**62},
        {"version": 2**63 - 1},
        {"columns": {"failure_count": "many"}},
    ],
    ids=str,
)
def test_a_damaged_copy_is_evicted_with_a_warning_and_the_next_level_answers(
    world: World, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    cache = world.open("disk", "disk")
    cache.put(note("a", "x"))
    cache.put(note("b", "y"))
    tamper(cache, "L1", "a", **change)
    entry, level = cache.get_with_level("a")
    assert (entry and entry.text, level) == ("x", "L2")
    warning = next(record for record in caplog.records if "damaged" in record.message)
    assert (warning.levelname, "evicted" in warning.message) == ("WARNING", True)
    statistics = cache.get_statistics().tiers
    assert [(t.corruptions, t.evictions_corruption, t.failures) for t in statistics] == [(1, 1, 0), (0, 0, 0)]
    assert cache.get_with_level("b")[1] == "L1"
    assert cache.put(note("a", "z")) == cache.get("a")


@pytest.mark.req("E-1")
def test_a_record_damaged_everywhere_is_a_miss_and_its_key_can_be_put_again(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    for version in (1, 2**62, 2**63 - 2**41):
        cache.put(note("a", "x"))
        tier(cache, "L1").tier.clear()
        for name in ("L2", "L3"):
            tamper(cache, name, "a", version=version)
        assert cache.get("a") is None
        assert where(cache, "a") == {}
        cache.put(note("a", "again"))
        entry = cache.get("a")
        assert entry is not None
        assert entry.text == "again"
        cache.clear()


def test_a_damaged_deadline_and_version_above_remove_nothing_good_below(world: World) -> None:
    cache = world.open("disk", "disk")
    cache.put(note("a", "x"))
    tamper(cache, "L1", "a", purge_at=0.0, version=2**62)
    entry = cache.get("a")
    assert entry is not None
    assert entry.text == "x"


@pytest.mark.req("E-1")
def test_what_a_tier_cannot_decode_is_a_miss_at_its_level(world: World, caplog: pytest.LogCaptureFixture) -> None:
    cache = world.open("disk", "disk")
    cache.put(note("a", "x"))
    world.disks["L1"]["a"] = b"garbage"
    assert cache.get_with_level("a")[1] == "L2"
    assert cache.get_statistics().tiers[0].corruptions == 1
    assert any("damaged" in record.message for record in caplog.records)
    assert cache.get_with_level("a")[1] == "L1"


def test_scan_and_keys_leave_damage_out_and_evict_it(world: World) -> None:
    cache = world.open("disk")
    cache.put_many([note("a"), note("b")])
    tamper(cache, "L1", "a", columns={"text": "changed"})
    assert list(cache.keys()) == ["b"]
    assert where(cache, "a") == {}


def test_damage_found_while_a_failure_is_counted_is_no_error(world: World) -> None:
    cache = world.open("disk")
    cache.put(note("a"))
    tier(cache, "L1").fail("get", error=TierCorrupt("bad"), times=1)
    assert cache.invalidate_by_health("a") is None
    assert cache.get_statistics().tiers[0].corruptions == 1


@pytest.mark.req("E-1")
def test_a_token_moved_to_another_record_is_not_opened(world: World) -> None:
    cache = world.open("disk", entry_type=ProxyEntry, encryption_key=KEY)
    one = cache.put(PROXY)
    two = cache.put(ProxyEntry.from_url("http://user:other@192.0.2.2:80"))
    row = tier(cache, "L1").tier.get(one.key)
    assert isinstance(row, Row)
    tamper(cache, "L1", two.key, columns={"password_encrypted": row.columns["password_encrypted"]})
    assert cache.get(two.key) is None
    assert cache.get(one.key) == one


def test_a_record_sealed_with_a_key_that_is_not_held_is_left_untouched(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    put = world.open("disk", entry_type=ProxyEntry, encryption_key=KEY).put(PROXY)
    before = dict(world.disks["L1"])
    cache = world.reopen("disk", entry_type=ProxyEntry, encryption_key=OTHER)
    for _ in range(3):
        assert cache.get(put.key) is None
    assert list(cache.scan()) == []
    cache.flush()
    assert world.disks["L1"] == before
    assert cache.get_statistics().tiers[0].unreadable == 4
    left = [record for record in caplog.records if "left as it is" in record.message]
    assert len(left) == 1
    both = SecretStr(f"{OTHER.get_secret_value()},{KEY.get_secret_value()}")
    assert world.reopen("disk", entry_type=ProxyEntry, encryption_key=both).get(put.key) == put


def test_the_wrong_key_is_told_at_once_when_the_cache_is_opened(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.open("disk", entry_type=ProxyEntry, encryption_key=KEY).put(PROXY)
    with caplog.at_level(logging.WARNING):
        world.reopen("disk", entry_type=ProxyEntry, encryption_key=OTHER)
    assert any("left as they are" in record.message for record in caplog.records)


class Needs(Note):
    __namespace__ = "note"

    must: int


def test_a_record_of_a_class_that_does_not_fit_is_left_untouched(world: World) -> None:
    world.open("disk").put(note("a", "x"))
    before = dict(world.disks["L1"])
    cache = world.reopen("disk", entry_type=Needs)
    assert cache.get("a") is None
    assert world.disks["L1"] == before
    assert cache.get_statistics().tiers[0].unreadable == 1
    assert cache.put(Needs(key="a", must=1)) == cache.get("a")


class Wider(CacheEntry):
    __namespace__ = "note"

    text: str = ""
    more: int = 7


@pytest.mark.req("US1-3")
def test_a_class_that_gained_and_lost_fields_reads_what_the_other_wrote(world: World) -> None:
    world.open("live", "disk").put(note("a", "x"))
    cache = world.reopen("live", "disk", entry_type=Wider)
    wide = cache.get("a")
    assert wide is not None
    assert (wide.text, wide.more) == ("x", 7)
    cache.put(wide.evolve(more=8))
    narrow = world.reopen("live", "disk").get("a")
    assert narrow is not None
    assert narrow.text == "x"


@pytest.mark.req("US1-6")
def test_no_log_tells_the_key_of_a_record(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "tierkit")
    key = "session canary"
    cache = world.open("live", ("disk", 1), "disk", failure_threshold=1)
    changes: list[dict[str, Any]] = [
        {"check": "c1.00000000"},
        {"check": "nonsense"},
        {"check": "k1.0123456789abcdef.x"},
    ]
    for change in changes:
        cache.put(note(key, "x"))
        cache.levels[0].empty()
        tamper(cache, "L2", key, **change)
        cache.get(key)
    damaged = tier(cache, "L3").tier
    damaged.store(key, b"nothing that could be decoded")  # type: ignore[attr-defined]  # a blob tier's own
    cache.levels[0].empty()
    cache.levels[1].empty()
    cache.get(key)
    cache.put(note(key, "y", ttl_seconds=60))
    cache.get(key)
    cache.invalidate_by_health(key)
    cache.put(note(key, "z"))
    cache.delete(key)
    assert "damaged" in caplog.text
    assert "canary" not in caplog.text
