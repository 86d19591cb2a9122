"""What rows with the same columns, of the same types, have in common: looked at once for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from tierkit.values import AS_IT_IS, PYTHON, decoder_of

if TYPE_CHECKING:
    from tierkit.schema import EntrySchema

_MOST: Final = 1024
"""Shapes that are kept: those of sound rows are few, and rows that rotted must not fill the memory."""


class Shape:
    """One set of columns, each with a type.

    Attributes:
        normal: Whether each has a value, and each that is declared the type that is declared.
        public: Whether each is a field that is no secret.
        decoding: The columns to decode, each with how.
        lacking: Whether the class may want more fields.
    """

    __slots__ = ("decoding", "lacking", "normal", "public")

    def __init__(self, schema: EntrySchema, columns: Mapping[str, Any]) -> None:
        """Look at `columns`."""
        present = {name for name, value in columns.items() if value is not None}
        fields = [field for field in schema.fields if not field.secret and field.name in present]
        self.normal = len(present) == len(columns) and all(
            type(columns[name]) is PYTHON[kind] for name, kind in schema.columns.items() if name in present
        )
        self.public = len(fields) == len(present)
        self.decoding = [(field.name, decoder_of(field.decode)) for field in fields if field.decode is not AS_IT_IS]
        self.lacking = any(
            field.secret or field.name not in present
            for field in schema.fields
            if field.required or field.optional
        )


class Shapes(dict[tuple[Any, ...], Shape]):
    """The shapes that rows of one class were found to have, by the names and types of their columns."""

    def __init__(self, schema: EntrySchema) -> None:
        """Have seen none."""
        self._schema = schema

    def of(self, columns: Mapping[str, Any]) -> Shape:
        """The shape of `columns`."""
        named = (*columns, *map(type, columns.values()))
        return self.get(named) or self._new(named, columns)

    def _new(self, named: tuple[Any, ...], columns: Mapping[str, Any]) -> Shape:
        if len(self) >= _MOST:
            self.clear()
        shape = self[named] = Shape(self._schema, columns)
        return shape
