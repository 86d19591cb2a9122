"""A write that the authority is owed, in the files of the tiers that ship: as people and other tools find it."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.core.engine.support import Note, note

from tierkit import CacheConfig, CacheManager
from tierkit.row import is_owed
from tierkit.testing import FakeClock
from tierkit.testing.faulty import FaultyTier
from tierkit_sqlite.library import sqlite3


def opened(path: Path, clock: FakeClock, above: str, **settings: Any) -> CacheManager[Note]:
    stored = {
        "jsonl": {"backend": "jsonl", "path": path / "rows"},
        "sqlite": {"backend": "sqlite", "path": path / "s.db"},
    }
    tiers = ({"backend": "memory"}, stored[above], {"backend": "sqlite", "path": path / "authority.db"})
    return CacheManager(CacheConfig(tiers=tiers, **settings), entry_type=Note, clock=clock)


def break_authority(cache: CacheManager[Note]) -> FaultyTier:
    level = cache.levels[-1]
    faulty = FaultyTier(level.tier)
    level.tier = faulty
    faulty.fail()
    level.take_out(OSError("gone"))
    return faulty


@pytest.mark.req("E-3")
@pytest.mark.parametrize("above", ["jsonl", "sqlite"])
def test_what_a_real_level_holds_for_the_authority_survives_and_gets_there(tmp_path: Path, above: str) -> None:
    clock = FakeClock()
    cache = opened(tmp_path, clock, above)
    cache.put_many([note("a", "old"), note("b", "old")])
    faulty = break_authority(cache)
    cache.put(note("a", "new", ttl_seconds=600))
    cache.delete("b")
    cache.put_many([note("c", "c")])
    clock.advance(60)
    cache.sweep()
    row = cache.levels[1].tier.get("a")
    assert row is not None
    assert is_owed(row)
    cache.close()
    faulty.heal()
    with opened(tmp_path, clock, above) as again:
        assert {entry.key: entry.text for entry in again.scan()} == {"a": "new", "c": "c"}
        assert again.levels[-1].tier.get("b") is None
        held = again.levels[-1].tier.get("a")
        assert held is not None
        assert not is_owed(held)
        assert held.purge_at == clock.wall() + 540
        assert again.levels[1].tier.get("a") == held


@pytest.mark.parametrize("above", ["jsonl", "sqlite"])
def test_write_behind_over_real_tiers_ends_with_the_same_in_both(tmp_path: Path, above: str) -> None:
    clock = FakeClock()
    stored = {
        "jsonl": {"backend": "jsonl", "path": tmp_path / "rows"},
        "sqlite": {"backend": "sqlite", "path": tmp_path / "s.db"},
    }
    tiers = (
        {"backend": "memory", "max_entries": 10},
        {**stored[above], "max_entries": 20},
        {"backend": "sqlite", "path": tmp_path / "authority.db", "write_policy": "behind"},
    )
    with CacheManager(CacheConfig(tiers=tiers), entry_type=Note, clock=clock) as cache:
        for number in range(100):
            cache.put(note(f"k{number}", str(number)))
        cache.flush()
        assert cache.size() == 100
        assert cache.levels[1].tier.size() == 20
        assert all((entry := cache.get(f"k{number}")) and entry.text == str(number) for number in range(100))


def test_an_owed_row_can_be_seen_in_the_files(tmp_path: Path) -> None:
    clock = FakeClock()
    cache = opened(tmp_path, clock, "jsonl")
    break_authority(cache)
    cache.put(note("a", "new"))
    cache.delete("b")
    cache.close()
    lines = [
        json.loads(line) for file in (tmp_path / "rows").rglob("*.jsonl") for line in file.read_text().splitlines()
    ]
    owed = {line["key"]: line["tierkit.owed"] for line in lines if "tierkit.owed" in line}
    assert owed == {"a": "put", "b": "delete"}


def test_a_query_of_the_table_can_leave_out_what_is_owed(tmp_path: Path) -> None:
    cache = opened(tmp_path, FakeClock(), "sqlite")
    break_authority(cache)
    cache.put(note("a", "new"))
    cache.delete("b")
    cache.close()
    connection = sqlite3.connect(tmp_path / "s.db")
    assert connection.execute("SELECT key FROM note WHERE text IS NOT NULL").fetchall() == [("a",)]
    connection.close()
