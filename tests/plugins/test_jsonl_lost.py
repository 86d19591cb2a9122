"""A store whose folder, or a file in it, is removed or replaced while it is open."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.core.engine.support import Note, note
from tests.plugins.jsonl_tools import held, open_store, row, shard

from tierkit import CacheConfig, CacheManager, TierTimeout, TierUnavailable, files
from tierkit.testing import FakeClock
from tierkit_jsonl import FileCacheTier

BEGUN = "is begun anew in place of a store that is gone, and so is what was in it"


def _folder(root: Path) -> Path:
    return root / "store" / "entries"


def _empty_again(root: Path) -> None:
    shutil.rmtree(root / "store")
    _folder(root).mkdir(mode=0o700, parents=True)


LOSSES: dict[str, Callable[[Path], Any]] = {
    "the path": lambda root: shutil.rmtree(root / "store"),
    "the folder in it": lambda root: shutil.rmtree(_folder(root)),
    "the path, and made again": _empty_again,
}
CALLS: dict[str, Callable[[FileCacheTier], Any]] = {
    "get": lambda tier: tier.get("a"),
    "size": lambda tier: tier.size(),
    "scan": lambda tier: list(tier.scan()),
    "keys": lambda tier: list(tier.keys()),
    "put": lambda tier: tier.put(row("b")),
    "put many": lambda tier: tier.put_many([row(key) for key in "bcdefg"]),
    "delete": lambda tier: tier.delete("a", 5),
    "purge": lambda tier: tier.purge(1e12),
}


@pytest.mark.no_canary("it counts the lines of its log, which are more at DEBUG")
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_store_that_is_gone_fails_one_call_and_is_begun_anew(
    tmp_path: Path, loss: Callable[[Path], Any], call: Callable[[FileCacheTier], Any], caplog: pytest.LogCaptureFixture
) -> None:
    with open_store(tmp_path, shards=2, name="L2") as tier:
        tier.put_many([row(key) for key in "abcdefg"])
        loss(tmp_path)
        with pytest.raises(TierUnavailable, match=r"L2: .*entries was removed or replaced while it was open"):
            call(tier)
        assert caplog.messages == [f"L2: {_folder(tmp_path)} {BEGUN}"]
        assert caplog.records[0].levelno == logging.WARNING
        assert tier.get("a") is None
        assert tier.put(row("z")) is None
        assert _folder(tmp_path).stat().st_mode & 0o777 == 0o700
        with open_store(tmp_path, shards=7) as other:
            assert held(other) == {"z": row("z")}
            assert other.put(row("y")) is None
        assert tier.get("y") == row("y")
    assert len(caplog.messages) == 1


def test_a_store_that_was_put_in_place_is_used_with_its_own_number_of_shards(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_store(tmp_path / "other", shards=5) as other:
        other.put_many([row(key, 7) for key in "abcdefg"])
    with open_store(tmp_path, shards=2) as tier:
        tier.put_many([row(key) for key in "abcdefg"])
        shutil.rmtree(tmp_path / "store")
        (tmp_path / "other" / "store").rename(tmp_path / "store")
        with pytest.raises(TierUnavailable, match="removed or replaced"):
            tier.get("a")
        assert held(tier) == {key: row(key, 7) for key in "abcdefg"}
        assert tier.put(row("h")) is None
    with open_store(tmp_path) as again:
        assert again.size() == 8
    assert BEGUN not in caplog.text


def test_a_write_notices_that_the_folder_was_renamed(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier:
        tier.put(row("a"))
        (tmp_path / "store").rename(tmp_path / "moved")
        with pytest.raises(TierUnavailable, match="removed or replaced"):
            tier.put(row("b"))
        assert tier.put(row("b")) is None
        assert held(tier) == {"b": row("b")}


def test_a_file_that_was_deleted_takes_no_more_writes(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier:
        tier.put(row("a"))
        shard(tmp_path).unlink()
        assert tier.put(row("b")) is None
    with open_store(tmp_path) as again:
        assert held(again) == {"b": row("b")}


def test_a_lock_whose_file_was_deleted_keeps_nobody_out_and_is_taken_anew(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier:
        tier.put(row("a"))
        path = shard(tmp_path).with_suffix(".lock")
        path.unlink()
        descriptor = files.open_lock(str(path))
        try:
            assert files.lock(descriptor)
            with pytest.raises(TierTimeout, match="another process keeps"):
                tier.put(row("b"))
            files.unlock(descriptor)
            assert tier.put(row("b")) is None
        finally:
            files.close(descriptor)


def test_a_store_that_cannot_be_begun_anew_fails_until_it_can(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier:
        tier.put(row("a"))
        shutil.rmtree(tmp_path / "store")
        (tmp_path / "store").touch()
        for _ in range(2):
            with pytest.raises(TierUnavailable, match="Not a directory"):
                tier.get("a")
        (tmp_path / "store").unlink()
        with pytest.raises(TierUnavailable, match="removed or replaced"):
            tier.get("a")
        assert tier.get("a") is None


def test_a_bounded_store_that_is_gone_keeps_its_bound_when_it_is_begun_anew(tmp_path: Path) -> None:
    with open_store(tmp_path, shards=4, max_entries=3, eviction_policy="sieve") as tier:
        tier.put_many([row(key) for key in "abcdef"])
        assert len(tier.overflow()) == 3
        shutil.rmtree(tmp_path / "store")
        with pytest.raises(TierUnavailable):
            tier.put(row("a"))
        tier.put_many([row(key) for key in "uvwxyz"])
        for victim in tier.overflow():
            tier.discard(victim)
        assert tier.size() == 3


def test_a_reader_of_a_store_that_is_gone_fails_once_and_makes_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier:
        tier.put(row("a"))
    with open_store(tmp_path, read_only=True) as reader:
        assert reader.get("a") == row("a")
        shutil.rmtree(tmp_path / "store")
        with pytest.raises(TierUnavailable, match="removed or replaced"):
            reader.get("a")
        assert reader.get("a") is None
    assert not (tmp_path / "store").exists()


def test_a_closed_store_whose_folder_is_gone_is_closed(tmp_path: Path) -> None:
    tier = open_store(tmp_path)
    tier.put(row("a"))
    tier.close()
    shutil.rmtree(tmp_path / "store")
    with pytest.raises(TierUnavailable, match="closed"):
        tier.get("a")
    assert not (tmp_path / "store").exists()


@pytest.mark.req("E-3")
def test_a_level_whose_folder_is_deleted_fails_and_a_probe_brings_it_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    tiers = ({"backend": "jsonl", "path": tmp_path / "a"}, {"backend": "jsonl", "path": tmp_path / "b"})
    config = CacheConfig(tiers=tiers, tier_failure_threshold=1, recovery_initial_seconds=1)
    with CacheManager(config, entry_type=Note, clock=clock) as cache:
        cache.put_many(note(f"k{n}") for n in range(9))
        shutil.rmtree(tmp_path / "a")
        assert cache.get("k1") == cache.get("k1")
        assert not cache.levels[0].in_service
        caplog.clear()  # the error in it holds on to the frames where it was raised, and they to a file
        clock.advance(1)
        assert cache.recover() == 1
        assert {cache.get_with_level("k1")[1] for _ in range(2)} == {"L1", "L2"}
        cache.put(note("new"))
    with CacheManager(config, entry_type=Note, clock=clock) as again:
        assert len(again) == 10
        assert again.levels[0].tier.get("new") is not None
