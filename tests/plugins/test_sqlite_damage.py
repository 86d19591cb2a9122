# ruff: noqa: S608 - the names are constants of the tests
"""What damage to its files does to the SQLite tier."""

import contextlib
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.plugins.sqlite_support import NAMESPACE, is_whole, open_tier, own_connection, proxy, raw

from tierkit import TierCorrupt, TierkitError, TierUnavailable, key_digest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tierkit.db"


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.suffix != ".lock")


@pytest.mark.req("E-1")
def test_a_file_that_is_no_database_is_moved_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(b"not a database " * 1000)
    with caplog.at_level(logging.WARNING, "tierkit.sqlite"), open_tier(path, context={"now": lambda: 0.0}) as tier:
        assert tier.put(proxy(1)) is None
    aside = path.parent / "tierkit.db.corrupt-19700101T000000Z"
    assert names(path.parent) == [path.name, aside.name]
    assert aside.read_bytes() == b"not a database " * 1000
    assert "damaged" in caplog.text
    assert aside.name in caplog.text


def test_a_second_one_does_not_take_the_place_of_the_first(path: Path) -> None:
    for n in range(3):
        path.write_bytes(bytes([65 + n]) * 5000)
        open_tier(path, context={"now": lambda: 0.0}).close()
    aside = path.parent / "tierkit.db.corrupt-19700101T000000Z"
    assert [Path(f"{aside}{suffix}").read_bytes()[:1] for suffix in ("", ".1", ".2")] == [b"A", b"B", b"C"]


def test_a_file_that_was_cut_off_is_moved_aside(path: Path) -> None:
    with open_tier(path) as tier:
        tier.put_many([proxy(n) for n in range(200)])
    os.truncate(path, path.stat().st_size // 2)
    with open_tier(path) as tier:
        assert tier.size() == 0
    assert len([name for name in names(path.parent) if ".corrupt-" in name]) == 1


def test_read_only_a_damaged_file_stays_where_it_is(path: Path) -> None:
    path.write_bytes(b"not a database " * 1000)
    with pytest.raises(TierUnavailable, match="not a database"):
        open_tier(path, context={"read_only": True})
    assert names(path.parent) == [path.name]


def test_damage_met_in_a_call_is_put_right_by_a_later_one(path: Path) -> None:
    """The call fails, its connection is closed, and the next one opens the file as at the start."""
    with open_tier(path) as tier:
        tier.put_many([proxy(n) for n in range(100)])
        with raw(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        own_connection(tier).execute("PRAGMA shrink_memory").fetchall()
        path.write_bytes(b"x" * path.stat().st_size)
        with pytest.raises(TierUnavailable):
            list(tier.scan())
        assert tier.put(proxy(1)) is None
        assert list(tier.scan()) == [proxy(1)]
    assert len([name for name in names(path.parent) if ".corrupt-" in name]) == 1


@pytest.mark.req("E-1")
@pytest.mark.parametrize(
    "damage",
    [
        "source = CAST(x'ff41' AS TEXT)",
        "row_check = CAST(x'80' AS TEXT)",
        "version = 'text'",
        "version = 2.5",
        "purge_at = 'never'",
        "access_count = 'often'",
        "undeclared = '{'",
        "undeclared = '[1]'",
        'undeclared = \'{"a": {"base64": "*"}}\'',
    ],
)
def test_a_damaged_row_is_removed_and_the_others_stay(path: Path, damage: str) -> None:
    rows = [proxy(n) for n in range(5)]
    with open_tier(path) as tier:
        tier.put_many(rows)
        with raw(path) as connection:
            connection.execute(f"UPDATE {NAMESPACE} SET {damage} WHERE key = 'key 2'")
        assert [row.key for row in tier.scan()] == ["key 0", "key 1", "key 3", "key 4"]
        assert "key 2" not in tier.get_many([row.key for row in rows])
        assert tier.get("key 2") is None, "the next call finds a miss"
        assert [tier.get(f"key {n}") for n in (0, 1, 3, 4)] == [rows[n] for n in (0, 1, 3, 4)]
        assert tier.put(rows[2]) is None
        assert tier.get("key 2") == rows[2]


def test_a_damaged_row_is_reported_once(path: Path) -> None:
    with open_tier(path) as tier:
        tier.put(proxy(1))
        with raw(path) as connection:
            connection.execute(f"UPDATE {NAMESPACE} SET version = 'text'")
        with open_tier(path, context={"read_only": True}) as reader:
            for _ in range(2):
                with pytest.raises(TierCorrupt, match=key_digest("key 1")):
                    reader.get("key 1")
        with pytest.raises(TierCorrupt, match=key_digest("key 1")):
            tier.get("key 1")
        assert tier.get("key 1") is None


@pytest.mark.parametrize("way", ["put", "put_many", "delete", "replace", "replace_many"])
def test_a_write_over_a_damaged_row_is_taken(path: Path, way: str) -> None:
    with open_tier(path) as tier:
        tier.put(proxy(1))
        with raw(path) as connection:
            connection.execute(f"UPDATE {NAMESPACE} SET version = 'text', source = CAST(x'ff' AS TEXT)")
        write: dict[str, Callable[[], int | None]] = {
            "put": lambda: tier.put(proxy(1, 2)),
            "put_many": lambda: tier.put_many([proxy(1, 2)])[0],
            "delete": lambda: tier.delete("key 1", 2),
            "replace": lambda: None if tier.replace(proxy(1, 2), 0) else 0,
            "replace_many": lambda: None if tier.replace_many([(proxy(1, 2), 0)])[0] else 0,
        }
        assert write[way]() is None
        assert tier.get("key 1") == (None if way == "delete" else proxy(1, 2))


@pytest.mark.parametrize("occurrence", [0, 1])
def test_a_key_that_rotted_gives_no_wrong_record(path: Path, occurrence: int) -> None:
    """It stands in the table and in an index: each in turn says what is not so."""
    rows = [proxy(n) for n in range(10, 40)]
    with open_tier(path) as tier:
        tier.put_many(rows)
    content = bytearray(path.read_bytes())
    places = [n for n in range(len(content)) if content.startswith(b"key 22", n)]
    assert len(places) == 2
    content[places[occurrence]] = ord("q")
    path.write_bytes(content)
    with open_tier(path) as tier:
        with contextlib.suppress(TierCorrupt):
            assert tier.get("key 22") in {None, rows[12]}
        found = tier.get_many([row.key for row in rows])
        assert all(found[row.key] == row for row in rows if row.key in found)
        # A wrong key in the index may also hide one beside it.
        assert len(found) >= len(rows) - 2
        assert tier.put(proxy(22, 9)) is None
        with contextlib.suppress(TierCorrupt):
            assert tier.get("key 22") == proxy(22, 9)


def test_an_index_that_does_not_fit_is_made_anew(path: Path) -> None:
    rows = [proxy(n) for n in range(30)]
    with open_tier(path) as tier:
        tier.put_many([proxy(n, source=f"list {n}x") for n in range(30)])
    content = path.read_bytes()
    assert content.count(b"list 22x") == 2
    path.write_bytes(content.replace(b"list 22x", b"lost 22x", 1))
    with open_tier(path) as tier:
        assert tier.put(proxy(22, 2)) is None
        assert tier.delete("key 22", 3) is None
        assert tier.put_many([proxy(n, 4) for n in range(30)]) == [None] * len(rows)


@pytest.mark.req("E-1")
@pytest.mark.parametrize("seed", range(6))
def test_bits_that_flip_give_no_value_that_was_not_written(path: Path, seed: int) -> None:
    """Whatever is hit: the right row, a row whose check tells, a miss, or one of tierkit's errors."""
    rows = {row.key: row for row in (proxy(n, username_encrypted=bytes(range(64))) for n in range(120))}
    with open_tier(path) as tier:
        tier.put_many(list(rows.values()))
    content = path.read_bytes()
    dice = random.Random(seed)
    for _ in range(15):
        for file in path.parent.iterdir():
            file.unlink()
        flipped = bytearray(content)
        flipped[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(flipped)
        wrong = 0
        with contextlib.suppress(TierUnavailable), open_tier(path) as tier:
            for key, row in rows.items():
                try:
                    found = tier.get(key)
                except TierkitError:
                    continue
                wrong += found is not None and not found == row  # noqa: SIM201 - equality is what a row defines
                assert found is None or found == row or not is_whole(found)
            with contextlib.suppress(TierUnavailable):
                assert all(found == rows.get(found.key) or not is_whole(found) for found in tier.scan())
            with contextlib.suppress(TierUnavailable):
                tier.put_many([proxy(n, 2) for n in range(120)])
                tier.purge(2e9 + 60)
                tier.clear()
        assert wrong <= 1
