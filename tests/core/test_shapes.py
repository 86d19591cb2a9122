"""What is known of rows with the same columns: that it is told apart, and does not fill the memory."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tierkit import CacheEntry, SchemaMismatchError, shapes
from tierkit.schema import schema_of
from tierkit.sealing import Sealer


class Place(CacheEntry):
    """Something with a number that may be left out."""

    height: float | None = None


SCHEMA = schema_of(Place)
SEALER = Sealer(SCHEMA, None)


def test_rows_that_differ_in_their_values_alone_have_one_shape() -> None:
    known = shapes.Shapes(SCHEMA.fields)
    assert known.of({"source": "a", "height": 1.0}) is known.of({"source": "b", "height": 2.0})


@pytest.mark.parametrize("other", [{"source": "a", "height": 1}, {"source": "a", "height": None}, {"source": "a"}])
def test_rows_with_other_columns_or_types_have_another_shape(other: dict[str, Any]) -> None:
    known = shapes.Shapes(SCHEMA.fields)
    assert known.of({"source": "a", "height": 1.0}) is not known.of(other)


@pytest.mark.parametrize("height", [3.0, 3, None, 2.5])
def test_a_row_opens_in_each_form_that_a_tier_may_hand_it_back_in(height: float | None) -> None:
    row = SEALER.seal(Place(key="k", version=1, height=height, _purge_at=1.0))
    columns = {**row.columns, "height": height}
    for _ in range(2):  # as the first of its shape, and as another
        opened = SEALER.open(msgspec.structs.replace(row, columns=columns))
        assert isinstance(opened, Place)
        assert opened.height == height


def test_verifying_answers_columns_that_may_be_changed() -> None:
    row = SEALER.seal(Place(key="k", version=1, height=2.5, _purge_at=1.0))
    SEALER.verify(row)["height"] = 9.0
    assert row.columns["height"] == 2.5


def test_a_column_of_another_type_is_told_each_time() -> None:
    class Named(CacheEntry):
        """The same storage, and another type."""

        __namespace__ = SCHEMA.namespace
        height: str | None = None

    row = Sealer(schema_of(Named), None).seal(Named(key="k", version=1, height="tall", _purge_at=1.0))
    for _ in range(2):
        with pytest.raises(SchemaMismatchError, match="does not agree"):
            SEALER.open(row)


def test_shapes_of_rows_that_rotted_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "_MOST", 3)
    known = shapes.Shapes(SCHEMA.fields)
    for n in range(10):
        known.of({f"rotten{n}": n})
    assert len(known) <= 3
