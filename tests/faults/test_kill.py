"""Kill -9 of a writer: the stack here, ten times; the command kills 200 writers on each tier and on the stack.

`uv run python -m tests.faults.kills`
"""

from pathlib import Path

import pytest
from tests.faults import kills
from tests.faults.kills import JsonlStore, StackStore, Step, Tally


class AcknowledgesTooEarly(JsonlStore):
    name = "early"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.waiting: list[Step] = []

    def do(self, step: Step) -> None:
        self.waiting.append(step)
        if len(self.waiting) == 4:
            for late in self.waiting:
                super().do(late)
            self.waiting.clear()


def test_killed_writers_of_the_stack_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    tally = kills.run(StackStore, tmp_path, 10)
    assert (tally.kills, tally.lost, tally.wrong) == (10, 0, 0)
    assert tally.acknowledged > 20
    assert tally.survived > 50


def test_the_command_passes_where_nothing_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    assert kills.main(["3"], [JsonlStore]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("jsonl: 3 kills (during open ")
    assert "lost 0, wrong 0" in printed


def test_a_store_that_acknowledges_too_early_fails_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert kills.main(["6"], [AcknowledgesTooEarly]) == 1
    assert "lost 0" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("found", "counted"),
    [
        ({"key 1": 5, "key 2": 6}, "survived 2"),
        ({"key 1": 7, "key 2": 6}, "survived 1, unheard 1"),
        ({"key 1": 5, "key 2": 7}, "survived 1, lost 1"),
        ({"key 1": 4, "key 2": 6}, "survived 1, lost 1"),
        ({"key 1": 5}, "survived 1, lost 1"),
        ({"key 1": 5, "key 2": 6, "key 3": 2}, "survived 2, lost 1"),
        ({"key 1": -1, "key 2": 6}, "survived 1, wrong 1"),
        ({"key 1": 5, "key 2": 6, "another": 2}, "survived 2, wrong 1"),
    ],
)
def test_what_is_found_is_compared_with_what_was_acknowledged(found: dict[str, int | None], counted: str) -> None:
    assert compared(found, found) == counted


@pytest.mark.parametrize(
    ("scanned", "counted"),
    [
        ({"key 1": 7, "key 2": 6}, "survived 1, apart 1"),
        ({"key 1": 5}, "survived 1, lost 1"),
        ({"key 1": 5, "key 2": -1}, "survived 1, wrong 1"),
    ],
)
def test_a_read_and_a_scan_may_differ_only_in_what_was_not_acknowledged(
    scanned: dict[str, int | None], counted: str
) -> None:
    assert compared({"key 1": 5, "key 2": 6}, scanned) == counted


def compared(read: dict[str, int | None], scanned: dict[str, int | None]) -> str:
    tally = Tally()
    tally.compare({"key 1": {5}, "key 2": {6}, "key 3": {None}}, Step(7, "put", ("key 1",)), (read, scanned))
    names = ("survived", "unheard", "apart", "lost", "wrong")
    return ", ".join(f"{name} {getattr(tally, name)}" for name in names if getattr(tally, name))
