"""What can still be read of a damaged database is kept."""

import logging
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from tests.plugins.sqlite_support import open_tier, proxy, raw

from tierkit import Row, TierUnavailable
from tierkit import files as system
from tierkit.testing.suite.processes import forked, send
from tierkit_sqlite import SQLiteCacheTier, files, library, opening, salvage
from tierkit_sqlite.library import sqlite3

PAGE = 4096
ROWS = [proxy(n) for n in range(1000, 1400)]
ASIDE = "tierkit.db.corrupt-19700101T000000Z"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tierkit.db"


def open_then(path: Path, **context: object) -> SQLiteCacheTier:
    return open_tier(path, context={"now": lambda: 0.0, **context})


def fill(path: Path) -> None:
    with open_then(path) as tier:
        tier.put_many(ROWS)
        tier.put(proxy(999))
        tier.delete("key 999", 1)


def spoil_page_of(path: Path, row: Row) -> bytes:
    """Damage the head of the page that holds `row`; what the file then is."""
    content = bytearray(path.read_bytes())
    page = content.rindex(row.check.encode()) // PAGE * PAGE
    content[page + 3 : page + 5] = b"\xff\xff"
    path.write_bytes(content)
    return bytes(content)


def is_sound(path: Path) -> bool:
    with raw(path) as connection:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.req("E-1")
@pytest.mark.parametrize("fault", [False, True], ids=["", "with the WAL fault"])
def test_a_damaged_page_costs_only_the_rows_on_it(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, *, fault: bool
) -> None:
    monkeypatch.setattr(library, "has_wal_fault", lambda: fault)
    fill(path)
    damaged = spoil_page_of(path, ROWS[20])
    with caplog.at_level(logging.WARNING, "tierkit.sqlite"), open_then(path) as tier:
        found = [row for wanted in ROWS if (row := tier.get(wanted.key)) is not None]
        assert 300 < len(found) < 400
        assert list(tier.scan()) == found
        assert all(row in ROWS for row in found)
        assert tier.put(proxy(999)) == 1, "marks are kept"
        assert tier.put_many(ROWS) == [None] * len(ROWS)
        assert len(list(tier.scan())) == len(ROWS)
    assert is_sound(path)
    assert (path.parent / ASIDE).read_bytes()[PAGE:] == damaged[PAGE:]
    assert (path.parent / ASIDE).stat().st_mode & 0o777 == 0o600
    assert f"{len(found)} records that can be read were put into new tables" in caplog.text
    assert ASIDE in caplog.text


def test_damaged_pages_apart_cost_only_the_rows_on_them(path: Path) -> None:
    fill(path)
    for number in (0, 200, 399):
        spoil_page_of(path, ROWS[number])
    with open_then(path) as tier:
        found = list(tier.scan())
    assert ROWS[100] in found
    assert ROWS[300] in found
    assert 200 < len(found) < 380


@pytest.mark.parametrize("read", ["scan", "keys"])
def test_a_page_that_gives_rows_out_of_order_ends_no_scan(path: Path, read: str) -> None:
    """SQLite reads on without an error where the count of rows on a page has grown."""
    rows = [proxy(n, proxy_url="x" * 200) for n in range(1000, 1060)]
    with open_then(path) as tier:
        tier.put_many(rows)
    content = bytearray(path.read_bytes())
    content[content.rindex(rows[30].check.encode()) // PAGE * PAGE + 3] ^= 1
    path.write_bytes(content)
    with open_then(path) as tier:
        assert len(list(getattr(tier, read)())) == len(rows)
    assert is_sound(path)


def test_others_that_have_the_file_open_go_on(path: Path) -> None:
    fill(path)
    spoil_page_of(path, ROWS[20])
    with open_then(path) as tier, open_then(path) as other:
        assert other.put(proxy(500)) is None
        kept = len(list(tier.scan()))
        assert other.get("key 500") == proxy(500)
        assert other.put(proxy(501)) is None
        assert tier.get("key 501") == proxy(501)
        assert len(list(other.scan())) == kept + 1
    assert is_sound(path)


def test_a_repair_that_fails_leaves_all_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(path)
    spoil_page_of(path, ROWS[20])

    def refuse(_: str) -> None:
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.WARNING, "tierkit.sqlite"), open_then(path) as tier:
        with monkeypatch.context() as patch:
            patch.setattr(system, "create", refuse)
            with pytest.raises(TierUnavailable):
                list(tier.scan())
        assert "could not be repaired" in caplog.text
        with pytest.raises(TierUnavailable):
            list(tier.scan())
        assert caplog.text.count("could not be repaired") == 1, "it is not tried at each call"
        assert tier.put(proxy(999, 5)) is None
    assert not (path.parent / ASIDE).exists()
    with open_then(path) as tier:
        assert 300 < len(list(tier.scan())) < 402


def test_a_reader_repairs_nothing(path: Path) -> None:
    fill(path)
    content = spoil_page_of(path, ROWS[20])
    with open_then(path, read_only=True) as tier, pytest.raises(TierUnavailable):
        list(tier.scan())
    assert path.read_bytes() == content
    assert not (path.parent / ASIDE).exists()


@pytest.mark.req("E-1")
def test_a_file_whose_schema_is_damaged_loses_no_row(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'ON "proxy_entry" (source)', b'ON "proxy_entry" (sourse)'))
    with caplog.at_level(logging.WARNING, "tierkit.sqlite"), open_then(path) as tier:
        assert list(tier.scan()) == ROWS
        assert tier.put(proxy(999)) == 1
    assert f"400 records of {path.parent / ASIDE} could be read" in caplog.text
    assert is_sound(path)


@pytest.mark.parametrize(
    ("was", "is_now"),
    [
        (b"indexidx_proxy_entry_source", b"indexidx_proxy_entry_sourcE"),
        (b'INDEX "idx_proxy_entry_source"', b'INDEX "idx_\xe5roxy_entry_source"'),
        (b"CREATE TABLE", b"CREATE \xe5ABLE"),
        (b"tableproxy_entry__marks", b"tableproxy_entry__markS"),
    ],
)
def test_a_schema_that_contradicts_itself_is_damage(path: Path, was: bytes, is_now: bytes) -> None:
    fill(path)
    content = path.read_bytes()
    assert was in content
    path.write_bytes(content.replace(was, is_now, 1))
    with open_then(path) as tier:
        assert tier.put(proxy(1100, 2)) is None
        assert tier.get("key 1100") == proxy(1100, 2)


def spoil_schema(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[110:130] = b"y" * 20
    path.write_bytes(content)


def held_after_repair(path: Path) -> int:
    with open_then(path) as tier:
        return sum(tier.get(row.key) is not None for row in ROWS)


@pytest.mark.parametrize("step", ["bring_over", "put_in_place"])
def test_a_process_that_is_killed_while_it_makes_a_database_anew_loses_no_row(path: Path, step: str) -> None:
    fill(path)
    spoil_schema(path)

    def killed(pipe: Connection) -> None:
        owner = {"bring_over": salvage, "put_in_place": files}[step]
        setattr(owner, step, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        open_then(path).close()
        send(pipe, 1)

    with forked(killed) as child, pytest.raises(EOFError):
        child.receive()
    assert held_after_repair(path) == len(ROWS)
    assert sorted(name.name for name in path.parent.glob("tierkit.db*")) == sorted(
        ["tierkit.db", "tierkit.db.lock", ASIDE]
    )


def test_a_database_for_which_there_is_no_room_stays_as_it_was_until_there_is(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(path)
    spoil_schema(path)
    damaged = path.read_bytes()
    true = opening._tune

    def small(connection: sqlite3.Connection, settings: opening.Settings) -> None:
        true(connection, settings)
        connection.execute("PRAGMA max_page_count = 20").fetchall()

    with monkeypatch.context() as full:
        full.setattr(opening, "_tune", small)
        with pytest.raises(TierUnavailable):
            open_then(path)
    assert "could not be repaired" in caplog.text
    assert path.read_bytes() == damaged
    assert not list(path.parent.glob("*.corrupt-*")), "nothing was moved"
    assert held_after_repair(path) == len(ROWS)


def test_what_a_file_that_was_cut_off_holds_is_kept(path: Path) -> None:
    fill(path)
    os.truncate(path, path.stat().st_size - 2 * PAGE)
    with open_then(path) as tier:
        found = list(tier.scan())
        assert 200 < len(found) < 400
        assert found == ROWS[: len(found)]
    assert is_sound(path)


def test_keys_that_two_rows_came_to_share_are_told_apart_again(path: Path) -> None:
    fill(path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"key 1022", b"key 1023"))
    with open_then(path) as tier:
        assert tier.put(proxy(1023, 2)) is None
        assert tier.get("key 1023") == proxy(1023, 2)
