"""Health between processes and over restarts: on the tiers that ship."""

from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tierkit import CacheConfig, CacheManager, ValueEntry
from tierkit.testing.suite.processes import forked, receive, send

pytestmark = [pytest.mark.req("US3-1"), pytest.mark.req("US3-2")]
PROCESSES, TURNS, RECORDS = 3, 12, 40
KEYS = [f"k{n}" for n in range(RECORDS)]
AUTHORITIES: dict[str, dict[str, Any]] = {
    "sqlite": {"backend": "sqlite", "path": "cache.db"},
    "jsonl": {"backend": "jsonl", "path": "records"},
}


def opened(folder: Path, authority: str, **settings: Any) -> CacheManager[ValueEntry]:
    bottom = AUTHORITIES[authority] | {"path": str(folder / AUTHORITIES[authority]["path"])}
    config = CacheConfig(tiers=({"backend": "memory"}, bottom), **settings)
    return CacheManager(config, entry_type=ValueEntry)


@pytest.mark.parametrize("authority", AUTHORITIES)
def test_processes_lose_no_count_and_remove_each_record_once(tmp_path: Path, authority: str) -> None:
    threshold = PROCESSES * TURNS * 2

    def child(pipe: Connection) -> None:
        with opened(tmp_path, authority, failure_threshold=threshold) as cache:
            send(pipe, 1)
            receive(pipe)
            for turn in range(TURNS):
                result = cache.record_health(dict.fromkeys(KEYS, False))
                assert result.unhealthy == RECORDS, result
                assert cache.invalidate_by_health(KEYS[turn]) is not None
            send(pipe, 2)
            receive(pipe)
            for _ in range(TURNS):
                cache.record_health(dict.fromkeys(KEYS, False))
            send(pipe, cache.get_statistics().tiers[-1].evictions_health)

    with opened(tmp_path, authority, failure_threshold=threshold) as cache:
        cache.put_many(ValueEntry.from_value(key, 1) for key in KEYS)
    with forked(child) as one, forked(child) as two, forked(child) as three:
        children = [one, two, three]
        for other in children:
            assert other.receive() == 1
        for other in children:
            other.send(1)
        for other in children:
            assert other.receive() == 2
        with opened(tmp_path, authority, failure_threshold=threshold) as cache:
            found = {entry.key: entry.failure_count for entry in cache.scan()}
        expected = {key: PROCESSES * (TURNS + (n < TURNS)) for n, key in enumerate(KEYS)}
        assert found == expected
        for other in children:
            other.send(3)
        removed = [other.receive() for other in children]
    with opened(tmp_path, authority) as cache:
        assert list(cache.scan()) == []
    assert sum(removed) == RECORDS


@pytest.mark.req("US5-1")
@pytest.mark.parametrize("authority", AUTHORITIES)
def test_a_process_that_warms_undoes_no_failure_that_others_count(tmp_path: Path, authority: str) -> None:
    def count(pipe: Connection) -> None:
        with opened(tmp_path, authority, failure_threshold=999) as cache:
            send(pipe, 1)
            receive(pipe)
            for turn in range(TURNS):
                cache.record_health(dict.fromkeys(KEYS, False))
                cache.invalidate_by_health(KEYS[turn])
            send(pipe, 2)

    def warm(pipe: Connection) -> None:
        with opened(tmp_path, authority) as cache:
            send(pipe, 1)
            receive(pipe)
            for turn in range(TURNS):
                cache.put_many((ValueEntry.from_value(key, turn) for key in KEYS), merge=True)
            send(pipe, 2)

    with opened(tmp_path, authority) as cache:
        cache.put_many(ValueEntry.from_value(key, -1) for key in KEYS)
    with forked(count) as one, forked(count) as two, forked(warm) as three:
        for message in (1, 2):
            for child in (one, two, three):
                assert child.receive() == message
            for child in (one, two, three) if message == 1 else ():
                child.send(1)
    with opened(tmp_path, authority) as cache:
        found = {entry.key: (entry.value, entry.failure_count) for entry in cache.scan()}
    assert found == {key: (TURNS - 1, 2 * (TURNS + (n < TURNS))) for n, key in enumerate(KEYS)}


@pytest.mark.parametrize("authority", AUTHORITIES)
def test_counts_go_on_where_they_were_after_a_restart(tmp_path: Path, authority: str) -> None:
    with opened(tmp_path, authority) as cache:
        cache.put_many(ValueEntry.from_value(key, 1) for key in KEYS)
    for restart in range(3):
        with opened(tmp_path, authority) as cache:
            result = cache.record_health({key: key == "k0" for key in KEYS})
            removed = RECORDS - 1 if restart == 2 else 0
            assert (result.healthy, result.unhealthy, result.removed) == (1, RECORDS - 1 - removed, removed)
    with opened(tmp_path, authority) as cache:
        assert list(cache.keys()) == ["k0"]
