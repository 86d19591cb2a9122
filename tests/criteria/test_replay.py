"""The replay of the real lists, shortened; `python -m benchmarks replay` replays all of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import benchmarks.__main__ as command
import pytest
from benchmarks import replay
from benchmarks.replay import Replay, Scale

from tierkit import CacheManager

SHORT = Scale(lists=4, share=43, runs=3, work=60)


def test_there_are_eight_lists_about_three_hours_apart() -> None:
    names = [path.name for path in replay.list_paths()]
    assert len(names) == len(set(names)) == 8
    assert names[0] == "2026-08-14T0936Z.jsonl.gz"
    assert names[-1] == "2026-08-15T0623Z.jsonl.gz"


@pytest.mark.req("SC-4")
@pytest.mark.req("US2-3")
@pytest.mark.req("US3-1")
@pytest.mark.req("US5-1")
def test_after_each_list_and_run_the_cache_holds_what_a_dict_would(tmp_path: Path) -> None:
    tally = Replay(tmp_path, SHORT).run()
    assert tally.differences == []
    assert (tally.runs, tally.fetches, tally.lost) == (12, 4, 0)
    assert tally.compared > 4 * 4 * 100
    assert tally.removed > 10
    assert tally.bad > 10
    assert tally.requests - tally.hits > tally.bad  # some had expired


def faulty(name: str, fault: Callable[..., Any]) -> tuple[Any, str, Any]:
    true = getattr(CacheManager, name)
    calls = iter(range(10**9))

    def call(cache: object, *args: Any, **options: Any) -> Any:
        return fault(lambda: true(cache, *args, **options), next(calls))

    return CacheManager, name, call


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("get", lambda act, call: None if call % 100 == 0 else act()),
        ("invalidate_by_health", lambda act, call: None if call == 7 else act()),
        ("warm_from_file", lambda act, call: None if call == 2 else act()),
        ("flush", lambda *_: None),
    ],
)
def test_a_cache_that_does_not_do_what_it_is_told_is_found_out(
    name: str, fault: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(*faulty(name, fault))
    assert Replay(tmp_path, SHORT).run().differences


def test_the_command_prints_what_was_found_and_writes_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[tuple[str, str]] = []
    monkeypatch.setattr(replay, "write_section", lambda *section: written.append(section))
    assert replay.main(["--write"], SHORT) == 0
    printed = capsys.readouterr().out
    assert "| fetches saved | 66.7%: 4 fetches | without a cache 12, one for each run | 60 % | met |" in printed
    assert written[0][0] == "Replay of eight lists"
    assert printed.strip() in written[0][1]


def test_a_replay_that_saves_too_little_fails_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main([], Scale(lists=2, share=97, runs=2, work=20)) == 1
    assert "| 60 % | **missed** |" in capsys.readouterr().out


def test_the_benchmarks_command_knows_the_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(command.COMMANDS, "replay", len)
    assert command.main(["replay", "--write"]) == 1
