"""The success criteria at a size that a test can afford; `python -m benchmarks criteria` measures them whole.

Of those that are a time nothing is asserted but that they are measured: how long something takes is no fact to test.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import benchmarks.__main__ as command
import pytest
from benchmarks import concurrent, criteria, expiring, footprint, restarts
from benchmarks.criteria import CRITERIA, Outcome, Size
from benchmarks.records import default_stack, entries
from benchmarks.replay import Scale

from tierkit import CacheConfig, CacheManager
from tierkit.testing import FakeClock

SMALL = Size(
    records=500, gets=6000, puts=40, operations=4000, restarts=4, replay=Scale(lists=3, share=57, runs=3, work=20)
)
TIMES = ["SC-2", "SC-3", "SC-7", "SC-9"]


def test_each_criterion_of_the_requirements_has_its_measurement() -> None:
    assert list(CRITERIA) == [name for name in criteria.known_requirements() if name.startswith("SC-")]


@pytest.mark.req("SC-1")
def test_a_typical_workload_is_answered_in_four_of_five_cases(tmp_path: Path) -> None:
    outcome = criteria.hit_ratio(tmp_path, SMALL)
    assert outcome.holds, outcome
    assert "of 6,000 gets, from a cold start" in outcome.measured


def test_a_workload_that_repeats_nothing_misses_the_hit_ratio(tmp_path: Path) -> None:
    assert not criteria.hit_ratio(tmp_path, replace(SMALL, gets=20)).holds


@pytest.mark.req("SC-2")
@pytest.mark.req("SC-3")
@pytest.mark.req("SC-7")
@pytest.mark.req("SC-9")
@pytest.mark.parametrize("name", TIMES)
def test_a_criterion_that_is_a_time_is_measured(name: str, tmp_path: Path) -> None:
    outcome = CRITERIA[name](tmp_path, SMALL)
    assert any(unit in outcome.measured for unit in (" s", " ms", " µs", " ns"))
    assert "under" in outcome.target


@pytest.mark.req("SC-4")
def test_the_cache_spares_fetches(tmp_path: Path) -> None:
    outcome = criteria.fetches_saved(tmp_path, SMALL)
    assert outcome == Outcome("66.7% fewer: 3 fetches for 9 runs of a client", "60 % fewer", holds=True)


def test_a_client_that_runs_once_for_each_list_saves_no_fetch(tmp_path: Path) -> None:
    size = replace(SMALL, replay=Scale(lists=1, share=97, runs=1, work=5))
    assert not criteria.fetches_saved(tmp_path, size).holds


@pytest.mark.req("SC-5")
def test_restarts_lose_nothing_whether_a_process_closes_or_is_killed(tmp_path: Path) -> None:
    outcome = criteria.restarts_lose_nothing(tmp_path, SMALL)
    assert outcome == Outcome("0 lost or wrong of 500, after 4 processes, 2 killed", "0 lost", holds=True)


def test_a_record_that_is_gone_or_changed_counts_as_lost(tmp_path: Path) -> None:
    second, *others = entries(10)[1:]
    with CacheManager(default_stack(tmp_path)) as cache:
        cache.put_many([second.evolve(source="another"), *others])
        assert restarts.missing(cache, 10) == 2


@pytest.mark.req("SC-6")
def test_expired_records_are_gone_from_every_level_after_one_interval_of_the_sweeper(tmp_path: Path) -> None:
    clock, config = FakeClock(), default_stack(tmp_path)
    with CacheManager(config, clock=clock) as cache:
        cache.put_many(entry.evolve(ttl_seconds=float(life)) for life, entry in enumerate(entries(240), start=1))
        for elapsed in range(60, 241, int(config.cleanup_interval_seconds)):
            clock.advance(60)
            cache.sweep()
            assert [level.tier.size() for level in cache.levels] == [240 - elapsed] * 3


@pytest.mark.req("SC-6")
def test_how_late_the_sweeper_is_is_measured_in_its_own_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeClock()

    def opened(config: CacheConfig) -> CacheManager[Any]:
        cache: CacheManager[Any] = CacheManager(config, clock=clock)
        return cache

    def sleep(cache: CacheManager[Any]) -> None:
        clock.advance(1)
        if clock.monotonic() % 60 == 0:
            cache.sweep()

    late = expiring.latest_removal(tmp_path, 30, 60.0, opened=opened, pause=sleep, clock=clock.wall)
    assert 0 < late <= 60


@pytest.mark.req("SC-8")
@pytest.mark.req("E-4")
@pytest.mark.req("US6-2")
def test_concurrent_operations_leave_what_a_dict_would(tmp_path: Path) -> None:
    config = default_stack(tmp_path, cache_l1_max_entries=20, cache_l2_max_entries=80)
    tally = concurrent.run(config, SMALL.operations, keys=200)
    assert tally.problems == []
    assert tally.operations == SMALL.operations
    assert min(tally.hits, tally.misses) > 100


@pytest.mark.parametrize("fault", ["loses a put", "forgets a deletion", "miscounts", "answers another"])
def test_a_cache_with_a_fault_is_found_out_by_concurrent_operations(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = {name: getattr(CacheManager, name) for name in ("put", "delete", "get")}
    calls = iter(range(10**9))

    def put(self: Any, entry: Any) -> Any:
        return entry if next(calls) % 10 == 0 else true["put"](self, entry)

    def delete(self: Any, key: str) -> bool:
        return next(calls) % 3 == 0 or true["delete"](self, key)

    def get(self: Any, key: str) -> Any:
        if next(calls) % 100:
            return true["get"](self, key)
        return None if fault == "miscounts" else next(iter(self.scan()), None)

    planted = {"loses a put": ("put", put), "forgets a deletion": ("delete", delete)}.get(fault, ("get", get))
    monkeypatch.setattr(CacheManager, *planted)
    assert concurrent.run(default_stack(tmp_path), 3000, keys=100).problems


@pytest.mark.req("SC-10")
def test_a_thousand_records_take_a_tenth_of_the_storage_allowed(tmp_path: Path) -> None:
    assert footprint.occupied(tmp_path, 1000) < 10_000_000


def test_the_command_prints_each_criterion_and_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert criteria.main(["SC-10", "SC-1"], SMALL) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in printed if "SC-" in line] == ["| SC-10", "| SC-1"]
    assert "under 100 MB of storage for 10,000 records" in printed[2]
    assert printed[2].endswith("| under 100 MB | met |")


def test_a_criterion_that_is_missed_fails_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert criteria.main(["SC-10", "SC-1"], replace(SMALL, gets=20)) == 1
    assert "| 80 % or more | **missed** |" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["criteria", "SC-1", "--write"], ["points", "--write"], ["criteria", "SC-99"]])
def test_a_part_is_not_written_and_an_unknown_one_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err


def test_all_criteria_are_written_into_their_section(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[str, str]] = []
    monkeypatch.setattr(criteria, "write_section", lambda *section: written.append(section))
    monkeypatch.setattr(criteria, "CRITERIA", {"SC-9": lambda *_: Outcome("3 ms", "p99 under 10 ms", holds=True)})
    assert criteria.main(["--write"]) == 0
    [(title, body)] = written
    assert title == "Success criteria"
    assert "| SC-9 | under 10 ms added by an eviction | 3 ms | p99 under 10 ms | met |" in body
