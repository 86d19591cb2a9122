"""A cache that is opened read-only changes nothing at all."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.core.engine.support import World, note

from tierkit import CacheManager, ProxyEntry, TierReadOnly, TierUnavailable
from tierkit.testing import FakeClock

WRITES = (
    "put",
    "put_many",
    "delete",
    "delete_many",
    "discard",
    "replace",
    "touch_many",
    "purge",
    "clear",
)


def test_reading_writes_nothing_promotes_nothing_and_touches_nothing(world: World, clock: FakeClock) -> None:
    cache = world.open("live", ("disk", 1), "disk")
    cache.put_many([note("damaged"), note("a", ttl_seconds=60), note("b"), note("c")])
    world.close()
    world.disks["L3"]["damaged"] = b"garbage"
    before = {name: dict(disk) for name, disk in world.disks.items()}
    cache = world.open("live", ("disk", 1), "disk", read_only=True, staleness_seconds=5)
    world.calls.clear()
    for _ in range(2):
        assert cache.get("b") is not None
        assert cache.get("damaged") is None
        clock.advance(60)
        assert cache.get("a") is None
    assert len(list(cache.scan())) == 2
    cache.flush()
    cache.close()
    assert world.calls_of(*WRITES) == []
    assert before == {name: dict(disk) for name, disk in world.disks.items()}


@pytest.mark.parametrize(
    "write",
    [
        lambda cache: cache.put(note("a")),
        lambda cache: cache.put_many([note("a")]),
        lambda cache: cache.delete("a"),
        lambda cache: cache.delete_many(["a"]),
        lambda cache: cache.clear(),
        lambda cache: cache.sweep(),
        lambda cache: cache.invalidate_by_health("a"),
        lambda cache: cache.warm_from_file("none.csv"),
    ],
)
def test_every_write_is_refused(world: World, write: Callable[[CacheManager[Any]], object]) -> None:
    with pytest.raises(TierReadOnly, match="read_only"):
        write(world.open("disk", read_only=True))


def test_what_was_never_written_reads_as_empty(world: World) -> None:
    cache = world.open("live", "disk", read_only=True)
    assert cache.get("a") is None
    assert (cache.size(), list(cache.keys()), world.disks["L2"]) == (0, [], {})


def test_there_is_no_sweeper_and_no_file_is_warmed(world: World) -> None:
    cache = world.open("disk", read_only=True, warm_files=("none.csv",))
    assert cache._sweeper is None


def test_no_key_is_made_and_records_without_secrets_are_not_kept_back(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("TIERKIT_ENCRYPTION_KEY", "PROXYWHIRL_CACHE_ENCRYPTION_KEY"):
        monkeypatch.delenv(name, raising=False)
    cache = world.open("disk", entry_type=ProxyEntry, read_only=True)
    assert cache.get("a") is None
    assert list(tmp_path.iterdir()) == []


def test_reads_shared_with_others_are_not_kept_for_a_flush_that_never_comes(world: World) -> None:
    world.open("disk").put(note("a"))
    cache = world.open("disk", read_only=True)
    found = cache._stack.find("a")
    assert found is not None
    cache._stack._share("a", found)
    assert len(cache._stack.ledger) == 0


def test_a_level_that_could_not_be_opened_is_left_alone_at_close(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.open("live", "disk", "disk").put(note("a"))

    def fail(_: object) -> None:
        raise TierUnavailable("no such disk")

    world.before_opening["L2"] = fail
    cache = world.open("live", "disk", "disk", read_only=True)
    assert cache.get("a") is not None
    world.calls.clear()
    caplog.clear()
    cache.close()
    assert (world.calls_of(*WRITES), [record.message for record in caplog.records]) == ([], [])
