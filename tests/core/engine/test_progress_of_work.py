"""Progress of the work that a cache does: what is told, what is logged, and what a callback leaves that stops it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from tests.core.engine.support import Note, World, note, tier

from tierkit import CacheEntry, CacheManager, TierUnavailable
from tierkit.inspection import survey
from tierkit.testing import FakeClock

MANY = 2300
Told = list[tuple[int, int | None]]


class Stop(Exception):
    """What a callback raises that has seen enough."""


def stop_at(steps: int) -> Callable[[int, int | None], None]:
    def stop(done: int, _total: int | None) -> None:
        if done >= steps:
            raise Stop

    return stop


def filled(world: World, *levels: str, **fields: Any) -> CacheManager[Note]:
    cache = world.open(*(levels or ("live", "disk")))
    cache.put_many(note(f"k{n}", **fields) for n in range(MANY))
    return cache


def lines(caplog: pytest.LogCaptureFixture, name: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == name and record.levelname == "INFO"]


def test_a_sweep_tells_how_many_it_has_removed(
    world: World, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    cache = filled(world, ttl_seconds=60)
    clock.advance(60)
    told: Told = []
    with caplog.at_level(logging.INFO):
        assert cache.sweep(lambda *now: told.append(now)) == 2 * MANY
    assert told[-1] == (2 * MANY, 2 * MANY)
    assert all(total is None for _, total in told[:-1])
    logged = lines(caplog, "tierkit.sweeper")
    assert (logged[0], logged[-1]) == ("sweeping", f"swept: {2 * MANY} expired records were removed")


def test_a_sweep_that_is_stopped_leaves_the_rest_to_the_next(world: World, clock: FakeClock) -> None:
    cache = filled(world, ttl_seconds=60)
    cache.put(note("fresh"))
    clock.advance(60)
    with pytest.raises(Stop):
        cache.sweep(stop_at(100))
    assert 1 < cache.size() <= MANY + 1
    cache.sweep()
    assert (cache.size(), [entry.key for entry in cache.scan()]) == (1, ["fresh"])


def test_clearing_tells_how_many_are_deleted(world: World, caplog: pytest.LogCaptureFixture) -> None:
    cache = filled(world)
    told: Told = []
    with caplog.at_level(logging.INFO):
        cache.clear(lambda *now: told.append(now))
    assert told == [(1000, MANY), (2000, MANY), (MANY, MANY)]
    assert lines(caplog, "tierkit.stack") == [
        "clearing", f"clearing: {MANY} found", f"clearing: 1000 of {MANY}", f"clearing: 2000 of {MANY}", "cleared",
    ]  # fmt: skip


def test_a_clearing_that_is_stopped_has_deleted_the_same_in_every_level(world: World) -> None:
    cache = filled(world, "live", "disk", "disk")
    with pytest.raises(Stop):
        cache.clear(stop_at(1000))
    left = set(tier(cache, "L3").tier.keys())
    assert len(left) == MANY - 1000
    assert set(tier(cache, "L2").tier.keys()) == left
    assert all((cache.get(f"k{n}") is not None) == (f"k{n}" in left) for n in range(MANY))
    cache.clear()
    assert cache.size() == 0


class Login(CacheEntry):
    """An entry with a secret."""

    password: SecretStr


def logins(world: World, keys: str) -> CacheManager[Login]:
    return world.open_config([{"backend": "disk"}] * 2, entry_type=Login, encryption_key=SecretStr(keys))


def test_the_keys_of_records_are_read_with_progress_and_stopping_changes_nothing(world: World) -> None:
    cache = filled(world, "live", "disk", "disk")
    told: Told = []
    cache.key_status(lambda *now: told.append(now))
    assert told == [(n, 2 * MANY) for n in range(100, 2 * MANY + 1, 100)]
    before = dict(world.disks)
    with pytest.raises(Stop):
        cache.key_status(stop_at(100))
    assert dict(world.disks) == before


def test_a_rotation_that_is_stopped_is_gone_on_with(world: World) -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    logins(world, old).put_many(Login(key=f"k{n}", password=SecretStr("pw")) for n in range(1500))
    world.close()
    cache = logins(world, f"{new},{old}")
    with pytest.raises(Stop):
        cache.rotate(stop_at(1000))
    told: Told = []
    result = cache.rotate(lambda *now: told.append(now))
    assert (result.resealed, result.complete) == (500, True)
    assert told == [(1000, 1500), (1500, 1500)]
    assert all(cache.get(f"k{n}") is not None for n in range(0, 1500, 100))


def test_a_warming_that_is_stopped_leaves_what_was_read(world: World, tmp_path: Path) -> None:
    file = tmp_path / "notes.jsonl"
    file.write_text("\n".join(f'{{"key": "k{n}", "text": "t"}}' for n in range(1500)))
    cache = world.open("live", "disk")
    with pytest.raises(Stop):
        cache.warm_from_file(file, on_progress=stop_at(1200))
    assert cache.size() == 1199
    assert cache.get("k1198") is not None
    assert cache.warm_from_file(file).loaded == 1500


def test_a_survey_tells_how_many_it_has_counted(world: World) -> None:
    cache = filled(world, "live", "disk")
    told: Told = []
    survey(cache.levels, 0.0, lambda *now: told.append(now))
    assert told[0] == (100, MANY)
    assert told[-1] == (MANY, MANY)
    with pytest.raises(Stop):
        survey(cache.levels, 0.0, stop_at(100))


def test_a_level_that_cannot_tell_its_size_leaves_the_total_open(world: World) -> None:
    cache = filled(world, "live", "disk")
    tier(cache, "L2").fail("size", error=TierUnavailable("away"), times=1)
    told: Told = []
    cache.key_status(lambda *now: told.append(now))
    assert told[0] == (100, None)
    assert told[-1] == (MANY, MANY)


def test_the_end_of_checks_is_told_where_there_are_fewer_records_than_there_seemed(
    world: World, clock: FakeClock
) -> None:
    cache = world.open("live", "disk")
    cache.put_many([note("fresh"), note("short", ttl_seconds=60)])
    clock.advance(60)
    told: Told = []
    cache.check_all(lambda _: True, on_progress=lambda *now: told.append(now))
    assert told == [(1, 2), (1, 1)]
