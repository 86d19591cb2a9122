"""Compacting: no byte of what was replaced or removed is left in any file, and nothing else changes."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from tests.plugins.sqlite_support import open_tier, own_connection, raw

from tierkit import CacheTier, Delta, TierContext, TierReadOnly, TierTimeout
from tierkit.testing import make_row
from tierkit_jsonl import FileCacheTier
from tierkit_sqlite import library

OLD, NEW = "0a1b2c3d", "4e5f6a7b"
Opener = Callable[..., CacheTier[Any]]
OPENERS: dict[str, Opener] = {
    "jsonl": lambda root, **told: FileCacheTier(TierContext(**told), root / "store", shards=2),
    "sqlite": lambda root, **told: open_tier(root / "store.db", context=told),
}
openers = pytest.mark.parametrize("opener", OPENERS.values(), ids=OPENERS)


@pytest.fixture(params=[False, True], ids=["sound library", "library with the WAL fault"])
def faulty(request: pytest.FixtureRequest) -> Iterator[bool]:
    with patch.object(library, "has_wal_fault", lambda: request.param):
        yield request.param


def row(number: int, version: int, key_id: str) -> Any:
    return make_row(f"key {number}", version, username_encrypted=f"s1.{key_id}.{'x' * 100}".encode())


def mentions(root: Path, key_id: str) -> int:
    return sum(path.read_bytes().count(key_id.encode()) for path in root.rglob("*") if path.is_file())


@openers
def test_nothing_that_was_replaced_or_removed_is_left_in_a_file(opener: Opener, tmp_path: Path) -> None:
    with opener(tmp_path) as tier:
        tier.put_many([row(n, 1, OLD) for n in range(200)])
        tier.touch_many({f"key {n}": Delta(n + 1, 1.0) for n in range(200)})
        tier.delete_many({f"key {n}": 2 for n in range(100, 200)})
        tier.replace_many([(row(n, 2, NEW), 1) for n in range(100)])
        assert mentions(tmp_path, OLD)
        tier.compact()
        assert mentions(tmp_path, OLD) == 0
        assert [tier.get(f"key {n}") for n in range(100)] == [row(n, 2, NEW) for n in range(100)]
        assert sorted(held.access_count for held in tier.scan()) == list(range(1, 101))
    assert mentions(tmp_path, OLD) == 0
    assert mentions(tmp_path, NEW) >= 100


@openers
def test_what_is_opened_for_reading_only_is_not_compacted(opener: Opener, tmp_path: Path) -> None:
    opener(tmp_path).close()
    with opener(tmp_path, read_only=True) as tier, pytest.raises(TierReadOnly):
        tier.compact()


def test_a_scan_that_goes_on_meanwhile_sees_each_row_of_a_database_once(tmp_path: Path, faulty: bool) -> None:
    """A scan goes by the numbers of rows, and a vacuum keeps those of a table with an index."""
    with open_tier(tmp_path / "store.db") as tier:
        tier.put_many([row(n, 1, OLD) for n in range(1000)])
        tier.delete_many({f"key {n}": 1 for n in range(0, 1000, 2)})
        scan = tier.scan()
        seen = [next(scan).key for _ in range(10)]
        tier.compact()
        seen += [held.key for held in scan]
        assert sorted(seen) == sorted(f"key {n}" for n in range(1, 1000, 2))


def test_a_reader_that_stands_still_holds_up_the_log_of_a_database_for_so_long_and_no_longer(
    tmp_path: Path, faulty: bool
) -> None:
    with open_tier(tmp_path / "store.db", busy_timeout_seconds=0.05) as tier:
        tier.put(row(1, 1, OLD))
        with raw(tmp_path / "store.db") as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM proxy_entry").fetchall()
            tier.put(row(1, 2, NEW))
            with pytest.raises(TierTimeout, match="its log could not be emptied"):
                tier.compact()
            reader.execute("ROLLBACK")
        assert tier.get("key 1") == row(1, 2, NEW)
        tier.compact()
        assert mentions(tmp_path, OLD) == 0


def test_a_writer_in_the_way_is_waited_for_no_longer_than_any_other(tmp_path: Path) -> None:
    with open_tier(tmp_path / "store.db", busy_timeout_seconds=0.05) as tier, raw(tmp_path / "store.db") as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(TierTimeout):
            tier.compact()
        writer.execute("ROLLBACK")
        assert own_connection(tier).execute("PRAGMA temp_store").fetchone()[0] == 2
        tier.compact()


def test_another_process_goes_on_with_a_database_that_was_compacted(tmp_path: Path, faulty: bool) -> None:
    path = tmp_path / "store.db"
    with open_tier(path) as tier, closing(open_tier(path)) as other:
        tier.put_many([row(n, 1, OLD) for n in range(10)])
        assert other.size() == 10
        tier.compact()
        assert other.get("key 3") == row(3, 1, OLD)
        assert other.put(row(3, 2, NEW)) is None
        assert tier.get("key 3") == row(3, 2, NEW)
