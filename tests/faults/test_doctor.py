"""The doctor finds each kind of damage and nothing else, repairs what it says, and raises no false alarm.

`python -m tests.faults.doctor_damage` switches off every check, and looks for false alarms for longer.
"""

from pathlib import Path

import pytest
from tests.docs.test_reference_findings import every_kind
from tests.faults.doctor_damage import (
    DAMAGES,
    SWITCHED_OFF,
    alarms_beside_a_writer,
    problems,
    survivors,
    without_waiting,
)
from tests.faults.ill_stores import Damage, Store, entry, make

from tierkit import CacheConfig, CacheManager
from tierkit.testing import FakeClock


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make(tmp_path_factory.mktemp("doctor") / "sound")


@pytest.mark.parametrize("done", DAMAGES, ids=lambda done: done.name)
def test_damage_is_found_and_repaired(done: Damage, sound: Store, tmp_path: Path) -> None:
    assert list(problems(done, sound, tmp_path / "store")) == []


def test_there_is_a_damage_for_every_kind_of_finding() -> None:
    planted = {code for done in DAMAGES for code in done.codes}
    assert planted == {kind.code for kind in every_kind()} - {"file-owner"}  # which root cannot see
    assert len({done.name for done in DAMAGES}) == len(DAMAGES) >= 15


def test_a_check_that_is_switched_off_is_noticed(sound: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.faults.doctor_damage.SWITCHED_OFF", SWITCHED_OFF[5::12])
    assert list(survivors(sound, tmp_path)) == []


def test_a_check_that_is_left_on_survives(sound: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, _, plant = SWITCHED_OFF[5]
    monkeypatch.setattr("tests.faults.doctor_damage.SWITCHED_OFF", [(owner, name, getattr(owner, name), plant)])
    assert list(survivors(sound, tmp_path)) == [f"{owner.__name__}.{name}"]


def test_a_store_that_is_written_to_raises_no_alarm_nor_one_whose_writer_was_killed(tmp_path: Path) -> None:
    assert alarms_beside_a_writer(tmp_path / "store", looks=2) == []


def test_a_sound_store_has_no_findings(sound: Store) -> None:
    found = sound.examine()
    assert (found.findings, found.ok, str(found)) == ((), True, "nothing is wrong")
    assert found.records == {"L2": 24, "L3": 24}


@pytest.mark.parametrize("policy", ["behind", "demote"])
def test_what_waits_is_in_its_grace_or_was_evicted_is_no_damage(policy: str, tmp_path: Path) -> None:
    config = CacheConfig(
        encryption_key_file=tmp_path / "key",
        grace_seconds=600.0,
        tiers=(
            {"backend": "memory", "max_entries": 4},
            {"backend": "jsonl", "path": tmp_path / "files", "shards": 2, "max_entries": 8},
            {"backend": "sqlite", "path": tmp_path / "tierkit.db", "write_policy": policy},
        ),
    )
    clock = FakeClock()
    with CacheManager(config, clock=clock) as cache, without_waiting():
        cache.put_many(entry(number) for number in range(40))
        cache.delete(entry(3).key)
        clock.advance(86_400 + 60)
        cache.put_many(entry(number) for number in range(5, 12))
        cache.flush()
        assert cache.examine().codes() <= {"owed"}
