"""What the SQLite tier does to the file system, and what it leaves alone."""

import contextlib
import errno
import functools
import multiprocessing
import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from tests.faults.rooms import mounted, no_mounting, own_namespace
from tests.plugins.sqlite_support import open_tier, own_connection, proxy

from tierkit import TierFull, TierkitError, TierReadOnly, TierUnavailable
from tierkit import files as system
from tierkit.testing.suite.processes import forked, send
from tierkit_sqlite import library


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tierkit.db"


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def modes(root: Path) -> dict[str, int]:
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in root.rglob("*")}


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.suffix != ".lock")


@pytest.mark.req("F-5")
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o277], ids=oct)
def test_files_and_folders_are_private_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    expected = {"new": 0o700, "folder": 0o700} | {f"tierkit.db{end}": 0o600 for end in ("", "-wal", "-shm", ".lock")}
    fault = patch.object(library, "has_wal_fault", lambda: True)
    with fault, umask(mask), open_tier(tmp_path / "new" / "folder" / "tierkit.db") as tier:
        tier.put(proxy(1))
        assert modes(tmp_path) == expected


def test_a_link_is_not_followed(path: Path) -> None:
    for target in (path.parent / "elsewhere.db", path.parent / "missing.db"):
        (path.parent / "elsewhere.db").touch()
        path.symlink_to(target)
        for read_only in (False, True):
            with pytest.raises(TierUnavailable, match="a link"):
                open_tier(path, context={"read_only": read_only})
        path.unlink()
    assert (path.parent / "elsewhere.db").stat().st_size == 0


def test_a_folder_in_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(TierUnavailable, match="not a file"):
        open_tier(path)


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_a_folder_that_others_can_write_is_refused(path: Path, mode: int) -> None:
    path.parent.chmod(mode)
    with pytest.raises(TierUnavailable, match="written by others"):
        open_tier(path)
    assert names(path.parent) == []


@pytest.mark.parametrize("name", ["a b.db", "100%.db", "%2e.db", "what?.db", "a#b.db", "größe.db", "a&mode=ro.db"])
def test_any_file_name_will_do(tmp_path: Path, name: str) -> None:
    with open_tier(tmp_path / name) as tier:
        tier.put(proxy(1))
    assert names(tmp_path) == [name]
    with open_tier(tmp_path / name, context={"read_only": True}) as tier:
        assert tier.get("key 1") == proxy(1)


@pytest.mark.req("SC-10")
def test_ten_thousand_records_take_less_than_seven_megabytes(path: Path) -> None:
    secrets: dict[str, Any] = {"username_encrypted": b"u" * 64, "password_encrypted": b"p" * 120}
    with open_tier(path) as tier:
        tier.put_many([proxy(n, proxy_url=f"http://203.0.113.{n % 250}:{n}", **secrets) for n in range(10_000)])
    with open_tier(path) as tier:
        assert tier.bytes_on_disk() < 7_000_000


# -- room and permission -----------------------------------------------------------------------------------------------


@pytest.mark.req("E-2")
def test_a_full_disk_refuses_writes_and_serves_reads_until_there_is_room(path: Path) -> None:
    with open_tier(path) as tier:
        taken = []
        pages = own_connection(tier).execute("PRAGMA page_count").fetchone()[0] + 8
        own_connection(tier).execute(f"PRAGMA max_page_count = {pages}").fetchall()

        def fill() -> None:
            for n in range(1000):
                tier.put(proxy(n, source="x" * 500))
                taken.append(n)

        with pytest.raises(TierFull, match="no room"):
            fill()
        with pytest.raises(TierFull):
            tier.put_many([proxy(n, source="x" * 500) for n in range(2000, 2100)])
        assert not own_connection(tier).in_transaction
        assert [row.version for row in tier.get_many([f"key {n}" for n in taken]).values()] == [1] * len(taken)
        assert tier.size() == len(taken)
        own_connection(tier).execute("PRAGMA max_page_count = 100000").fetchall()
        assert tier.put(proxy(5000)) is None


@pytest.mark.skipif(bool(no_mounting()), reason=no_mounting())
def test_a_log_that_fills_up_the_disk_is_brought_into_the_database_and_written_anew(tmp_path: Path) -> None:
    with forked(functools.partial(write_much_on_a_small_disk, tmp_path)) as child:
        assert child.receive() == 0


def write_much_on_a_small_disk(folder: Path, pipe: Connection) -> None:
    own_namespace()
    with mounted(folder):
        with open_tier(folder / "tierkit.db") as tier:
            tier.put_many([proxy(n) for n in range(10)])
        refused = 0
        with open_tier(folder / "tierkit.db") as tier:
            for version in range(2, 502):
                try:
                    tier.put(proxy(version % 10, version))
                except TierFull:
                    refused += 1
            if not refused:
                assert [tier.get(f"key {n % 10}") for n in range(492, 502)] == [
                    proxy(n % 10, n) for n in range(492, 502)
                ]
        send(pipe, refused)


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, TierFull), (errno.EACCES, TierReadOnly), (errno.EROFS, TierReadOnly), (errno.EIO, TierUnavailable)],
)
def test_a_file_that_cannot_be_made_is_the_tiers_own_failure(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[TierkitError]
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(system, "create", refuse)
    with pytest.raises(kind, match=r"tierkit\.db"):
        open_tier(path)


# -- reading only ------------------------------------------------------------------------------------------------------


def test_read_only_over_a_closed_database_leaves_no_trace(path: Path) -> None:
    with open_tier(path) as tier:
        tier.put(proxy(1))
    before = path.read_bytes()
    with open_tier(path, context={"read_only": True}) as reader:
        assert reader.get("key 1") == proxy(1)
        assert names(path.parent) == [path.name]
    assert names(path.parent) == [path.name]
    assert path.read_bytes() == before


def test_read_only_sees_a_database_that_comes_changes_and_closes(path: Path) -> None:
    with open_tier(path, context={"read_only": True}) as reader:
        assert reader.get("key 1") is None
        open_tier(path, context={"namespace": "other"}).close()
        assert reader.size() == 0
        for version in range(1, 5):
            with open_tier(path) as tier:
                tier.put(proxy(1, version))
                assert reader.get("key 1") == proxy(1, version)
                tier.put(proxy(version + 100))
                assert reader.size() == version + 1
            assert reader.get("key 1") == proxy(1, version)
            assert sum(1 for _ in reader.scan()) == version + 1


def test_read_only_sees_a_write_to_a_database_that_was_closed(path: Path) -> None:
    """It was read without locks, in the belief that nobody writes."""
    with open_tier(path) as tier:
        tier.put_many([proxy(n) for n in range(150)])
    with open_tier(path, context={"read_only": True}) as reader:
        assert reader.get("key 1") == proxy(1)
        scan = reader.scan()
        assert next(scan) == proxy(0)
        with open_tier(path) as tier:
            tier.put(proxy(1, 2))
            assert reader.get("key 1") == proxy(1, 2)
        assert sum(1 for _ in scan) == 149


def test_read_only_sees_a_write_that_began_and_ended_meanwhile(path: Path) -> None:
    for version in (1, 2):
        with open_tier(path) as tier:
            tier.put(proxy(1, version))
        if version == 1:
            reader = open_tier(path, context={"read_only": True})
            assert reader.get("key 1") == proxy(1)
    with reader:
        assert reader.get("key 1") == proxy(1, 2)


def test_read_only_sees_what_a_killed_writer_left_in_the_log(path: Path, tmp_path: Path) -> None:
    left = tmp_path / "left"
    with open_tier(path) as tier:
        tier.put(proxy(1))
        shutil.copytree(path.parent, left, ignore=shutil.ignore_patterns("left"))
    assert names(left) == ["tierkit.db", "tierkit.db-shm", "tierkit.db-wal"]
    left.chmod(0o700)
    before = {name: (left / name).read_bytes() for name in ("tierkit.db", "tierkit.db-wal")}
    with open_tier(left / path.name, context={"read_only": True}) as reader:
        assert reader.get("key 1") == proxy(1)
    assert {name: (left / name).read_bytes() for name in before} == before
    with open_tier(left / path.name) as tier:
        assert tier.get("key 1") == proxy(1)


def test_read_only_over_an_empty_file_is_empty(path: Path) -> None:
    path.touch(0o600)
    with open_tier(path, context={"read_only": True}) as reader:
        assert reader.size() == 0
        with pytest.raises(TierReadOnly):
            reader.put(proxy(1))
    assert path.stat().st_size == 0
    assert names(path.parent) == [path.name]


def test_read_only_sees_a_table_that_another_widens(path: Path) -> None:
    with open_tier(path) as tier, open_tier(path, context={"read_only": True}) as reader:
        tier.put(proxy(1))
        assert reader.get("key 1") == proxy(1)
        with open_tier(path, context={"columns": {"region": "text"}}) as newer:
            newer.put(proxy(2, region="eu"))
        assert reader.get("key 2") == proxy(2, region="eu")


# -- a folder that cannot be written -----------------------------------------------------------------------------------


@pytest.fixture
def foreign_folder() -> Iterator[Path]:
    """A folder that an ordinary user can read and not write; root can write to any."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)  # noqa: S103 - others must be able to read it
        yield Path(folder)


def as_nobody(work: Callable[[], None]) -> None:
    """Run `work` in a forked child that gives up its rights."""

    def run() -> None:
        os.setgid(65534)
        os.setuid(65534)
        work()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        child = multiprocessing.get_context("fork").Process(target=run)
        child.start()
    child.join(60)
    assert child.exitcode == 0
    child.close()


@pytest.mark.req("E-2")
@pytest.mark.parametrize("writing", [False, True], ids=["closed", "while another writes"])
@pytest.mark.parametrize("fault", [False, True], ids=["sound library", "library with the WAL fault"])
def test_storage_that_cannot_be_written_is_still_read(foreign_folder: Path, writing: bool, fault: bool) -> None:
    path = foreign_folder / "tierkit.db"

    def work() -> None:
        with patch.object(library, "has_wal_fault", lambda: fault), open_tier(path) as tier:
            for _ in range(2):
                assert tier.get("key 1") == proxy(1)
                with pytest.raises(TierReadOnly):
                    tier.put(proxy(2))
        with open_tier(path, context={"read_only": True}) as tier:
            assert list(tier.scan()) == [proxy(1)]
        with pytest.raises(TierReadOnly):
            open_tier(foreign_folder / "new.db")

    with open_tier(path) as tier:
        tier.put(proxy(1))
        if writing:
            _open_to_readers(foreign_folder)
            as_nobody(work)
    if not writing:
        _open_to_readers(foreign_folder)
        as_nobody(work)


def _open_to_readers(folder: Path) -> None:
    for file in folder.iterdir():
        file.chmod(0o644)
