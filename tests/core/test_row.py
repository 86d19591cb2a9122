"""Rows: what a persistent tier stores."""

from math import inf
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierkit import Delta, Row, TierCorrupt, pack_row, unpack_row, with_usage

columns = st.dictionaries(
    st.text(),
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
)


def row(**changes: Any) -> Row:
    return Row(**{"key": "k", "version": 1, "purge_at": 2.5, "check": "c1.0", "columns": {"a": 1}, **changes})


def whole(of: Row) -> tuple[object, ...]:
    return msgspec.structs.astuple(of)


@given(st.text(), st.integers(0, 2**63 - 1), st.floats(allow_nan=False) | st.just(inf), columns)
def test_a_packed_row_comes_back_whole(key: str, version: int, purge_at: float, held: dict[str, Any]) -> None:
    packed = row(key=key, version=version, purge_at=purge_at, columns=held, access_count=3, last_accessed=4.5)
    assert whole(unpack_row(pack_row(packed))) == whole(packed)


@pytest.mark.parametrize(
    "blob", [b"", b"\xc1", b"\x90", b"{}", pack_row(row())[:-1], pack_row(row()) + b"x", b"\x97\xa1\xff"]
)
def test_bytes_that_are_no_packed_row_are_corrupt(blob: bytes) -> None:
    with pytest.raises(TierCorrupt, match=f"{len(blob)} bytes are not a packed row"):
        unpack_row(blob)


@given(st.binary())
def test_no_bytes_at_all_raise_anything_else(blob: bytes) -> None:
    try:
        unpack_row(blob)
    except TierCorrupt:
        return


def test_none_in_a_column_means_the_same_as_no_column() -> None:
    assert row(columns={"a": 1, "b": None}) == row()
    assert row(columns={"a": 1, "b": None}).same_content(row())
    assert row(columns={"a": None}) != row()


def test_usage_is_no_part_of_what_makes_rows_equal() -> None:
    assert row(access_count=5, last_accessed=1.0) == row()
    assert not row(access_count=5, last_accessed=1.0) != row()  # noqa: SIM202 - it is a method of its own


@pytest.mark.parametrize(
    ("changes", "same_content"),
    [
        ({"key": "l"}, True),
        ({"version": 2}, True),
        ({"check": "c1.1"}, True),
        ({"purge_at": 3.0}, False),
        ({"columns": {"a": 2}}, False),
    ],
)
def test_rows_differ_by_anything_else(changes: dict[str, Any], same_content: bool) -> None:
    assert row(**changes) != row()
    assert not row(**changes) == row()  # noqa: SIM201 - it is a method of its own
    assert row(**changes).same_content(row()) is same_content


def test_a_row_is_found_in_a_set_by_key_and_version() -> None:
    assert hash(row(columns={})) == hash(row())
    assert row() != "k"


@pytest.mark.parametrize(
    ("count", "last", "expected"), [(5, 9.0, (5, 9.0)), (1, 9.0, (3, 9.0)), (5, 1.0, (5, 4.0)), (3, 4.0, (3, 4.0))]
)
def test_usage_merges_by_the_larger_value(count: int, last: float, expected: tuple[int, float]) -> None:
    merged = with_usage(row(access_count=3, last_accessed=4.0), count, last)
    assert (merged.access_count, merged.last_accessed) == expected
    again = with_usage(merged, count, last)
    assert again is merged


def test_a_delta_says_how_many_reads_and_when_the_last_was() -> None:
    assert Delta(2, 5.0) == Delta(count=2, last_accessed=5.0)
