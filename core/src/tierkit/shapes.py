"""The fields of a class, and what rows with the same columns, of the same types, have in common: looked at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tierkit.row import ColumnType
from tierkit.values import AS_IT_IS, PYTHON, Codec, decoder_of

_MOST: Final = 1024
"""Shapes that are kept: those of sound rows are few, and rows that rotted must not fill the memory."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an entry class.

    Attributes:
        name: The field's name.
        column: The column's name.
        type: The column's type.
        encode: From the field's value to the column's; a secret stays as it is.
        decode: The way back.
        normalise: Makes what a tier handed back the column's type again.
        items: For a tuple, the type of its elements, or those of each; else nothing.
        nested: Whether the column holds JSON.
        secret: Whether the column holds ciphertext.
        optional: Whether None is allowed.
        required: Whether the class gives no default.
    """

    name: str
    column: str
    type: ColumnType
    encode: Codec
    decode: Codec
    normalise: Codec
    items: tuple[Any, ...]
    nested: bool
    secret: bool
    optional: bool
    required: bool


class Shape:
    """One set of columns, each with a type.

    Attributes:
        normal: Whether each has a value, and each that is declared the type that is declared.
        public: Whether each is a field that is no secret.
        decoding: The columns to decode, each with how.
        lacking: Whether the class may want more fields.
        reals: The columns that hold floats, once they are normalised.
    """

    __slots__ = ("decoding", "lacking", "normal", "public", "reals")

    def __init__(self, fields: Sequence[Field], columns: Mapping[str, Any]) -> None:
        """Look at `columns`, by the `fields` of the class."""
        present = {name for name, value in columns.items() if value is not None}
        types = {field.column: field.type for field in fields}
        public = [field for field in fields if not field.secret and field.name in present]
        self.normal = len(present) == len(columns) and all(
            type(columns[name]) is PYTHON[types[name]] for name in present & types.keys()
        )
        self.public = len(public) == len(present)
        self.decoding = [(field.name, decoder_of(field.decode)) for field in public if field.decode is not AS_IT_IS]
        wanted = [field for field in fields if field.required or field.optional]
        self.lacking = any(field.secret or field.name not in present for field in wanted)
        self.reals = [name for name in present if types.get(name, "real") == "real"]


class Shapes(dict[tuple[Any, ...], Shape]):
    """The shapes that rows of one class were found to have, by the names and types of their columns."""

    def __init__(self, fields: Sequence[Field]) -> None:
        """Have seen none of a class with `fields`."""
        self._fields = fields

    def of(self, columns: Mapping[str, Any]) -> Shape:
        """The shape of `columns`."""
        named = (*columns, *map(type, columns.values()))
        return self.get(named) or self._new(named, columns)

    def _new(self, named: tuple[Any, ...], columns: Mapping[str, Any]) -> Shape:
        if len(self) >= _MOST:
            self.clear()
        shape = self[named] = Shape(self._fields, columns)
        return shape
