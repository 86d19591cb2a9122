"""Histories that are known to be linearizable, or not to be."""

import pytest
from tests.faults.registers import WRONG, Call, Kind, violations


def call(kind: Kind, version: int, answer: int, begin: int, end: int, *, expected: int = 0, key: str = "a") -> Call:
    return Call(key, kind, version, expected, answer, begin, end)


LINEARIZABLE = {
    "nothing": [],
    "one after the other": [
        call("get", 0, 0, 1, 2),
        call("put", 5, 0, 3, 4),
        call("get", 0, 5, 5, 6),
        call("delete", 5, 0, 7, 8),
        call("get", 0, 0, 9, 10),
    ],
    "a read during a put sees it or not": [
        call("put", 5, 0, 1, 9),
        call("get", 0, 0, 2, 3),
        call("get", 0, 5, 4, 5),
    ],
    "a read sees what is put by a call that returns much later": [
        call("put", 1, 0, 0, 1),
        call("put", 2, 0, 2, 20),
        call("get", 0, 2, 3, 4),
        call("put", 1, 2, 5, 6),
    ],
    "an older record is refused by a newer one, by a deletion too": [
        call("put", 5, 0, 1, 2),
        call("put", 4, 5, 3, 4),
        call("delete", 4, 5, 5, 6),
        call("delete", 6, 0, 7, 8),
        call("put", 6, 6, 9, 10),
        call("delete", 5, 6, 11, 12),
        call("put", 7, 0, 13, 14),
    ],
    "one of two that compare and set wins": [
        call("put", 1, 0, 1, 2),
        call("replace", 2, 0, 3, 9, expected=1),
        call("replace", 3, 1, 4, 8, expected=1),
        call("get", 0, 3, 10, 11),
    ],
    "a record is set where none was, above the mark": [
        call("delete", 3, 0, 1, 2),
        call("replace", 3, 0, 3, 4),
        call("replace", 4, 1, 5, 6),
    ],
    "the same put again is taken": [call("put", 1, 0, 1, 2), call("put", 1, 0, 3, 4)],
    "keys have nothing to do with each other": [
        call("put", 5, 0, 1, 2),
        call("get", 0, 0, 3, 4, key="b"),
    ],
    "many at once": [
        *(call("put", version, 0, 1, 100) for version in range(1, 11)),
        *(call("get", 0, version, 10 * version, 10 * version + 1) for version in range(1, 10)),
    ],
}
NOT_LINEARIZABLE = {
    "a stale read": [call("put", 5, 0, 1, 2), call("get", 0, 0, 3, 4)],
    "a read that goes back": [
        call("put", 5, 0, 1, 9),
        call("get", 0, 5, 2, 3),
        call("get", 0, 0, 4, 5),
    ],
    "a lost update": [
        call("put", 1, 0, 1, 2),
        call("replace", 2, 1, 3, 9, expected=1),
        call("replace", 3, 1, 4, 8, expected=1),
    ],
    "an older record in place of a newer one": [call("put", 5, 0, 1, 2), call("put", 4, 0, 3, 4)],
    "a deleted record that is back": [
        call("put", 5, 0, 1, 2),
        call("delete", 5, 0, 3, 4),
        call("get", 0, 5, 5, 6),
    ],
    "a refusal by nothing": [call("put", 4, 5, 1, 2), call("put", 5, 0, 3, 4)],
    "a deletion refused by a mark that is not there": [call("delete", 4, 5, 1, 2)],
    "a comparison that fails with what is there": [
        call("put", 1, 0, 1, 2),
        call("replace", 2, 0, 3, 4, expected=1),
    ],
    "what nobody wrote": [call("get", 0, WRONG, 1, 2)],
    "two reads that see two puts in different orders": [
        call("delete", 1, 0, 0, 1),
        call("put", 2, 0, 2, 20),
        call("delete", 2, 0, 2, 20),
        call("get", 0, 2, 3, 4),
        call("get", 0, 0, 5, 6),
        call("get", 0, 2, 7, 8),
    ],
}


@pytest.mark.parametrize("history", LINEARIZABLE.values(), ids=LINEARIZABLE)
def test_a_history_that_has_an_order_is_linearizable(history: list[Call]) -> None:
    assert violations(history) == []
    assert violations(reversed(history)) == []


@pytest.mark.parametrize("history", NOT_LINEARIZABLE.values(), ids=NOT_LINEARIZABLE)
def test_a_history_without_an_order_is_not(history: list[Call]) -> None:
    assert len(violations(history)) == 1
    assert "a is not linearizable" in violations(reversed(history))[0]
