"""A database that is removed, renamed or replaced while it is open, and one that is empty when it is opened."""

import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from tests.core.engine.support import Note, note
from tests.plugins.sqlite_support import open_tier, proxy

from tierkit import CacheConfig, CacheManager, CacheStorageError, TierUnavailable
from tierkit.testing import FakeClock
from tierkit_sqlite import SQLiteCacheTier, connections, files, library, opening

BEGUN = "a new database was begun in place of one that is gone"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "tierkit.db"


@pytest.fixture(params=[False, True], ids=["sound library", "library with the WAL fault"])
def faulty(request: pytest.FixtureRequest) -> Iterator[bool]:
    with patch.object(library, "has_wal_fault", lambda: request.param):
        yield request.param


def _unlink(path: Path) -> None:
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        (path.parent / name).unlink()


LOSSES: dict[str, Callable[[Path], Any]] = {
    "the files removed": _unlink,
    "the folder removed": lambda path: shutil.rmtree(path.parent),
    "the file renamed": lambda path: path.rename(path.with_suffix(".moved")),
    "the folder renamed": lambda path: path.parent.rename(path.parent.parent / "moved"),
}
CALLS: dict[str, Callable[[SQLiteCacheTier], Any]] = {
    "get": lambda tier: tier.get("key 1"),
    "put": lambda tier: tier.put(proxy(3)),
    "put many": lambda tier: tier.put_many([proxy(3), proxy(4)]),
    "delete": lambda tier: tier.delete("key 1", 5),
    "scan": lambda tier: list(tier.scan()),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_database_that_is_gone_fails_one_call_and_the_next_begins_another(
    path: Path, loss: Callable[[Path], Any], call: Callable[[SQLiteCacheTier], Any], faulty: bool
) -> None:
    with open_tier(path) as tier:
        tier.put(proxy(1))
        loss(path)
        with pytest.raises(TierUnavailable, match=r"tierkit\.db\): the file was removed or replaced"):
            call(tier)
        assert not path.exists()
        call(tier)
        assert tier.put(proxy(2)) is None
        assert path.stat().st_mode & 0o777 == 0o600
        with open_tier(path) as other:
            assert other.get("key 2") == proxy(2)
            assert other.get("key 1") is None


def test_a_new_database_in_place_of_one_that_is_gone_is_told_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_tier(path) as tier, ThreadPoolExecutor(1) as other:
        other.submit(tier.get, "key 1").result()
        assert caplog.messages == []
        shutil.rmtree(path.parent)
        with pytest.raises(TierUnavailable):
            tier.put(proxy(1))
        tier.put(proxy(1))
        assert other.submit(tier.get, "key 1").result() == proxy(1)
        assert other.submit(tier.put, proxy(2)).result() is None
        assert tier.size() == 2
    assert [message for message in caplog.messages if BEGUN in message] == [f"tier ({path}): {BEGUN}"]


def test_a_thread_that_calls_for_the_first_time_notices_too(path: Path) -> None:
    with open_tier(path) as tier:
        _unlink(path)
        with ThreadPoolExecutor(1) as other, pytest.raises(TierUnavailable, match="removed or replaced"):
            other.submit(tier.get, "key 1").result()
        assert tier.put(proxy(1)) is None
        assert path.exists()


def test_the_name_is_opened_again_when_nobody_uses_the_file_that_is_gone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, noticed, order = threading.Event(), threading.Event(), []
    forget = connections.Connections._forget_file

    def long_read(*_: object) -> None:
        begun.set()
        assert noticed.wait(30)
        order.append("the read ended")

    def forget_file(self: connections.Connections) -> None:
        noticed.set()
        forget(self)
        order.append("the file is forgotten")

    monkeypatch.setattr(connections.Connections, "_forget_file", forget_file)
    with open_tier(path) as tier, ThreadPoolExecutor(1) as other:
        reading = other.submit(tier._connections.read, long_read)
        assert begun.wait(30)
        _unlink(path)
        with pytest.raises(TierUnavailable):
            tier.put(proxy(1))
        reading.result()
        assert order == ["the read ended", "the file is forgotten"]
        assert all(handle.opened is None for handle in tier._connections.handles)
        assert tier.put(proxy(1)) is None


@pytest.mark.parametrize("read_only", [False, True])
def test_a_database_that_was_replaced_fails_one_call_and_then_the_other_one_is_used(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, faulty: bool, read_only: bool
) -> None:
    with open_tier(tmp_path / "other" / "other.db") as other:
        other.put(proxy(1, 7))
    with open_tier(path) as writer, open_tier(path, context={"read_only": read_only}) as tier:
        writer.put(proxy(1))
        assert tier.get("key 1") == proxy(1)
        os.replace(tmp_path / "other" / "other.db", path)
        for beside in files.BESIDE:
            os.unlink(f"{path}{beside}")
        with pytest.raises(TierUnavailable, match="removed or replaced"):
            tier.get("key 1")
        assert tier.get("key 1") == proxy(1, 7)
        if not read_only:
            assert tier.put(proxy(2)) is None
    with open_tier(path) as again:
        assert again.get("key 1") == proxy(1, 7)
        assert again.size() == (1 if read_only else 2)
    assert BEGUN not in caplog.text


def test_the_lock_of_a_folder_that_is_gone_is_given_up_with_it(path: Path) -> None:
    """Else two processes would write under two lock files, of which each has one."""
    with patch.object(library, "has_wal_fault", lambda: True), open_tier(path) as tier:
        tier.put(proxy(1))
        shutil.rmtree(path.parent)
        with pytest.raises(TierUnavailable):
            tier.put(proxy(1))
        tier.put(proxy(1))
        with files.LockFile(f"{path}.lock", 0), pytest.raises(CacheStorageError, match="locked by another"):
            open_tier(path, busy_timeout_seconds=0)


@pytest.mark.req("E-3")
def test_a_cache_acknowledges_no_write_into_a_database_that_is_gone(path: Path) -> None:
    clock = FakeClock()
    config = CacheConfig(
        tiers=({"backend": "memory"}, {"backend": "sqlite", "path": path}),
        durability="full",
        tier_failure_threshold=1,
        recovery_initial_seconds=1,
    )

    def opened() -> CacheManager[Note]:
        return CacheManager(config, entry_type=Note, clock=clock)

    acknowledged = set()
    with opened() as cache:
        cache.put(note("before"))
        shutil.rmtree(path.parent)
        for n in range(50):
            try:
                acknowledged.add(cache.put(note(f"k{n}")).key)
            except TierUnavailable:
                assert not acknowledged
                clock.advance(1)
                cache.recover()
        assert len(acknowledged) == 49
    with opened() as again:
        assert set(again.keys()) == acknowledged


# -- an empty file -----------------------------------------------------------------------------------------------------

EMPTY = "was empty where a database was expected; it begins anew"


def test_an_empty_file_in_place_of_a_database_is_told(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "_MAKING_SECONDS", 0.0)
    open_tier(path).close()
    assert caplog.messages == []
    path.write_bytes(b"")
    open_tier(path).close()
    open_tier(path).close()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert caplog.messages == [f"tier: {path} {EMPTY}"]


def test_a_file_that_another_process_is_just_making_is_not_called_empty(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_tier(path) as tier:
        tier.put(proxy(1))
    made = path.read_bytes()
    path.write_bytes(b"")
    monkeypatch.setattr(opening, "sleep", lambda _: path.write_bytes(made))
    with open_tier(path) as tier:
        assert tier.get("key 1") == proxy(1)
    assert caplog.messages == []
