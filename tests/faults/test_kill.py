"""How what is found after a kill is compared with what was acknowledged. The kills are trials of the campaign."""

import pytest
from tests.faults.kills import Step, Tally


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
