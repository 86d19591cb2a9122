"""The deadline travels with the record and is never computed again on the way, whatever way that is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.core.engine.support import Note, World, note, tier

from tierkit import CacheConfig, CacheEntry, CacheManager, ProxyEntry, Row
from tierkit.cli.read import fields_of
from tierkit.testing import FakeClock

THREE: tuple[Any, ...] = (("live", 2), ("disk", 3), "disk")
LIFE = 1000.0
GRACE = 50.0
Journey = Callable[[World, Any], Any]


def stay(world: World, cache: Any) -> Any:
    return cache


def restart(world: World, cache: Any) -> Any:
    return world.reopen(*THREE, default_ttl_seconds=77, grace_seconds=GRACE, ttl_jitter=1)


def promotion(world: World, cache: Any) -> Any:
    cache.levels[0].empty()
    world.disks["L2"].clear()
    assert cache.get_with_level("a")[1] == "L3"
    assert cache.get_with_level("a")[1] == "L1"
    return cache


def promotion_from_the_middle(world: World, cache: Any) -> Any:
    cache.levels[0].empty()
    assert cache.get_with_level("a")[1] == "L2"
    return cache


def demotion(world: World, cache: Any) -> Any:
    for n in range(4):
        cache.put(note(f"filler {n}", "z"))
    assert cache.get_with_level("a")[1] == "L3"
    return cache


def reconciling(world: World, cache: Any) -> Any:
    world.close()
    world.disks["L3"].clear()
    return restart(world, cache)


def healing(world: World, cache: Any) -> Any:
    world.disks["L3"]["a"] = b"garbage"
    cache.levels[0].empty()
    world.disks["L2"].clear()
    cache.get("a")
    return cache


def health(world: World, cache: Any) -> Any:
    assert cache.invalidate_by_health("a").failure_count == 1
    return cache


def put_as_read(world: World, cache: Any) -> Any:
    cache.put(cache.get("a"))
    return cache


def put_changed(world: World, cache: Any) -> Any:
    cache.put(cache.get("a").evolve(text="changed"))
    return cache


def put_in_bulk(world: World, cache: Any) -> Any:
    cache.put_many([cache.get("a")])
    return cache


def late_put(world: World, cache: Any) -> Any:
    entry = cache.get("a")
    tier(cache, "L3").before("put", lambda: world.clock.advance(20))
    cache.put(entry)
    return cache


def refused_put(world: World, cache: Any) -> Any:
    """Another process has put the record meanwhile: it is stamped again."""
    entry = cache.get("a")
    other = world.open_config([{"backend": "disk", "name": "L3"}])
    tier(cache, "L3").before("put", lambda: [other.put(note("a")) for _ in range(2)])
    cache.put(entry)
    return cache


def rules_changed(world: World, cache: Any) -> Any:
    cache.ttl.set_ttl(None, 5)
    cache.ttl.set_ttl("list", 5)
    return cache


def flush_and_sweep(world: World, cache: Any) -> Any:
    cache.get("a")
    cache.flush()
    cache.sweep()
    return cache


JOURNEYS = [
    stay,
    restart,
    promotion,
    promotion_from_the_middle,
    demotion,
    reconciling,
    health,
    put_as_read,
    put_changed,
    put_in_bulk,
    late_put,
    refused_put,
    rules_changed,
    flush_and_sweep,
]


def deadlines(cache: Any) -> set[tuple[float, float]]:
    """Deadline and time of purging of every copy of the record, behind the engine's back."""
    found = set()
    for level in cache.levels:
        record = level.tier.tier.get("a")
        if isinstance(record, Row):
            found.add((record.columns["expires_at"], record.purge_at))
        elif isinstance(record, CacheEntry) and record.expires_at is not None:
            found.add((record.expires_at.timestamp(), record.purge_at))
            assert record._fresh_until == record.expires_at.timestamp()
    return found


@pytest.mark.parametrize("source", ["unknown", "list"])
@pytest.mark.parametrize("again", [stay, restart, promotion, demotion], ids=lambda journey: journey.__name__)
@pytest.mark.parametrize("journey", JOURNEYS, ids=lambda journey: journey.__name__)
def test_a_deadline_travels(world: World, clock: FakeClock, journey: Journey, again: Journey, source: str) -> None:
    clock.advance(0.25)
    cache: Any = world.open(*THREE, default_ttl_seconds=LIFE, per_source_ttl={"list": LIFE}, grace_seconds=GRACE)
    put = cache.put(note("a", "x", source=source))
    deadline = put.expires_at.timestamp()
    assert deadline == clock.wall() + LIFE
    for step in (journey, again):
        clock.advance(100.125)
        cache = step(world, cache)
        assert deadlines(cache) == {(deadline, deadline + GRACE)}
        found = cache.get("a")
        assert (found.expires_at, found.ttl_seconds, found.fetch_time) == (
            put.expires_at,
            put.ttl_seconds,
            put.fetch_time,
        )
    clock.advance(deadline - clock.wall() - 0.001)
    assert cache.get("a") is not None
    clock.advance(0.001)
    assert cache.get("a") is None


def test_a_deadline_is_the_same_in_a_copy_that_heals_the_authority(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk", "disk", grace_seconds=GRACE)
    put = cache.put(note("a", "x"))
    assert put.expires_at is not None
    for emptied in (True, False):
        clock.advance(100)
        world.disks["L3"]["a"] = b"garbage"
        if emptied:
            cache.levels[0].empty()  # it is healed from the row in L2, else from the entry in L1
        assert cache.invalidate_by_health("a") is None
        deadline = put.expires_at.timestamp()
        assert deadlines(cache) == {(deadline, deadline + GRACE)}


def test_a_deadline_travels_through_an_export_and_an_import(clock: FakeClock, tmp_path: Path) -> None:
    config = CacheConfig(tiers=({"backend": "memory"},))
    with CacheManager(config, clock=clock) as first, CacheManager(config, clock=clock) as second:
        deadline = datetime.fromtimestamp(clock.wall(), UTC) + timedelta(seconds=LIFE, microseconds=250_000)
        put = first.put(ProxyEntry(proxy_url="http://192.0.2.1:80", expires_at=deadline, source="list"))
        clock.advance(100)
        exported = tmp_path / "export.jsonl"
        exported.write_bytes(b"\n".join(msgspec.json.encode(fields_of(entry)) for entry in first.scan()))
        clock.advance(100)
        assert second.warm_from_file(exported).loaded == 1
        found = second.get(put.key)
        assert found is not None
        assert (found.expires_at, found.ttl_seconds, found.fetch_time) == (deadline, put.ttl_seconds, put.fetch_time)


@pytest.mark.req("US2-1")
@pytest.mark.parametrize("levels", [("live",), ("live", "live"), ("live", "disk")])
def test_what_was_changed_by_compare_and_set_expires_as_before(
    world: World, clock: FakeClock, levels: tuple[str, ...]
) -> None:
    cache = world.open(*levels)
    cache.put(note("a", ttl_seconds=LIFE))
    clock.advance(LIFE - 1)
    cache.invalidate_by_health("a")
    assert cache.get("a") is not None
    clock.advance(1)
    assert cache.get("a") is None


def test_a_step_of_the_wall_clock_changes_no_deadline(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk")
    put = cache.put(note("a", ttl_seconds=LIFE))
    clock.step_wall(-86400)
    cache.levels[0].empty()
    found = cache.get("a")
    assert isinstance(found, Note)
    assert found.expires_at == put.expires_at
    clock.advance(LIFE)
    assert cache.get("a") is None
