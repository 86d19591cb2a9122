"""How the fields of an entry class become the columns of a row, and back.

A class is checked once, when it is first used. Fields may be of type `str`, `int`, `float`, `bool`, `bytes`,
`datetime`, `SecretStr`, a string enum, a tuple or a frozen msgspec Struct of these, each also as `X | None`. A secret
becomes the column `<name>_encrypted`. Metadata columns come first, in the order of the documented table.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import lru_cache
from math import inf
from typing import Any, Final, cast

import msgspec
from pydantic import SecretStr

from tierkit.entry import CacheEntry, Usage
from tierkit.errors import CacheValidationError, SchemaMismatchError
from tierkit.row import ColumnType, ColumnValue, key_digest
from tierkit.shapes import Field, Shape, Shapes
from tierkit.values import (
    KINDS,
    NORMALISE,
    PYTHON,
    Codec,
    Unfit,
    enum_encoder,
    json_encoder,
    refuse_none,
    type_name,
)

MAX_RECORD_BYTES: Final = 960 * 1024
"""A record with more characters and bytes than this is refused, so that it fits a line of a file."""

ENCRYPTED: Final = "_encrypted"
"""What the column of a secret ends with."""

_ROW_FIELDS: Final = frozenset({"key", "version"})
_RESERVED: Final = frozenset({"access_count", "last_accessed", "purge_at", "check", "row_check"})
_CHANGING: Final = frozenset(CacheEntry.__struct_fields__) - {"source"}


class EntrySchema:
    """An entry class, compiled.

    Attributes:
        entry_type: The class.
        namespace: Its name in a storage.
        fields: Its fields without key and version.
        columns: Column types by name, in order.
        secrets: The fields that are secret.
        bound: The public fields that secrets are bound to.
        shapes: What is known of rows with the same columns.
    """

    def __init__(self, entry_type: type[CacheEntry]) -> None:
        """Check the class.

        Raises:
            CacheValidationError: A field has a type or a name that cannot be stored, or the class is not frozen.
        """
        self.entry_type = entry_type
        self.namespace = namespace_of(entry_type)
        self.fields = _fields(entry_type)
        self.columns: dict[str, ColumnType] = {field.column: field.type for field in self.fields}
        self.secrets = tuple(field for field in self.fields if field.secret)
        self.bound = _bound(entry_type, self.fields)
        self._normalise = {field.column: field.normalise for field in self.fields}
        self._kinds = {field.column: PYTHON[field.type] for field in self.fields}
        self._encoding = [(field.name, field.column, field.encode, field.optional) for field in self.fields]
        self._public = frozenset(field.column for field in self.fields if not field.secret)
        self.shapes = Shapes(self.fields)
        self._sized = [field.column for field in self.fields if field.type in ("text", "blob")]
        self._by_column = {field.column: field for field in self.fields}
        self._expected = frozenset(field.name for field in self.fields if field.required or field.optional)

    def encode(self, entry: CacheEntry) -> dict[str, Any]:
        """The columns of `entry`; secrets as they are, masked, and None left out.

        Raises:
            CacheValidationError: A field holds what its type does not allow, or the record is too large.
        """
        columns: dict[str, Any] = {}
        name = ""
        try:
            for name, column, encode, optional in self._encoding:
                value = getattr(entry, name)
                if value is not None:
                    columns[column] = encode(value)
                elif not optional:
                    refuse_none()
        except Unfit as unfit:
            value = None  # it may be a secret in the clear, and a traceback may show the locals
            raise CacheValidationError(f"{self.entry_type.__name__}.{name} {unfit}", reason=f"{name} {unfit}") from None
        self._check_size(entry.key, columns)
        return columns

    def decode(
        self,
        key: str,
        version: int,
        columns: Mapping[str, Any],
        secrets: Mapping[str, SecretStr],
        usage: Usage,
        *,
        purge_at: float | None = None,
        shape: Shape | None = None,
    ) -> CacheEntry:
        """The entry whose normalised columns and opened secrets (by field name) are given.

        Args:
            key: Its key.
            version: Its version.
            columns: What `normalise` answered.
            secrets: Opened, by field name.
            usage: Its usage.
            purge_at: When it may be dropped, in POSIX seconds; by default with its deadline.
            shape: Of the columns, or of what they were before; found if it is not given.

        Raises:
            SchemaMismatchError: A column is missing that the class requires, or does not fit it.
        """
        shape = shape or self.shapes.of(columns)
        names = self._public  # a column that is no secret has the name of its field
        known = columns if shape.public else {name: columns[name] for name in columns.keys() & names}
        values: dict[str, Any] = {
            **known,
            **secrets,
            "key": key,
            "version": version,
            "_usage": usage,
            "_fresh_until": columns.get("expires_at", inf),
            "_purge_at": purge_at,
        }
        name = ""
        try:
            for name, decode in shape.decoding:
                values[name] = decode(values[name])
        except (ValueError, TypeError, OverflowError, OSError) as error:
            raise SchemaMismatchError(
                f"record {key_digest(key)}: {self.entry_type.__name__}.{name} cannot hold what is stored: {error}"
            ) from None
        if shape.lacking and not self._expected <= values.keys():
            self._fill_in(key, values)
        return self._made(key, values)

    def column_of(self, entry: CacheEntry, column: str) -> ColumnValue:
        """What the row of `entry`, which can be stored, has in `column`; None where that is a secret, or unknown."""
        field = self._by_column.get(column)
        value = None if field is None or field.secret else getattr(entry, field.name)
        return None if value is None or field is None else cast("ColumnValue", field.encode(value))

    def normalise(self, columns: Mapping[str, ColumnValue], shape: Shape | None = None) -> dict[str, ColumnValue]:
        """`columns`, whose shape may be given, with None left out and each declared one of its own type again.

        Raises:
            ValueError, TypeError: A column holds what its type cannot have come from.
        """
        if (shape or self.shapes.of(columns)).normal:
            return dict(columns)
        own, kinds = self._normalise, self._kinds
        # Nearly always each has its type as it is: a call for each column would take a third of opening a row.
        return {
            name: value if name not in own or type(value) is kinds[name] else own[name](value)
            for name, value in columns.items()
            if value is not None
        }

    def _check_size(self, key: str, columns: Mapping[str, Any]) -> None:
        size = sum([len(columns[column]) for column in self._sized if column in columns])
        if size > MAX_RECORD_BYTES:
            too_much = f"holds {size} characters and bytes; {MAX_RECORD_BYTES} are allowed"
            raise CacheValidationError(f"the record {key[:80]!r} {too_much}", reason=f"the record {too_much}")

    def _fill_in(self, key: str, values: dict[str, Any]) -> None:
        for field in self.fields:
            if field.name in self._expected and field.name not in values:
                self._check_optional(key, field)
                values[field.name] = None

    def _check_optional(self, key: str, field: Field) -> None:
        if not field.optional:
            raise SchemaMismatchError(
                f"record {key_digest(key)} has no {field.column!r}, which {self.entry_type.__name__} requires: "
                "give the field a default"
            )

    def _made(self, key: str, values: dict[str, Any]) -> CacheEntry:
        try:
            return self.entry_type(**values)
        except (ValueError, TypeError) as error:  # from a __post_init__
            raise SchemaMismatchError(
                f"record {key_digest(key)}: {self.entry_type.__name__} refuses what is stored: {error}"
            ) from None


@lru_cache(maxsize=256)
def schema_of(entry_type: type[CacheEntry]) -> EntrySchema:
    """The compiled schema of `entry_type`, made once.

    Raises:
        CacheValidationError: The class cannot be stored.
    """
    given: object = entry_type
    if not (isinstance(given, type) and issubclass(given, CacheEntry)):
        raise CacheValidationError(f"an entry type is a subclass of CacheEntry, not {entry_type!r}")
    return EntrySchema(entry_type)


def namespace_of(entry_type: type[CacheEntry]) -> str:
    """What keeps `entry_type` apart from others in one storage.

    Its `__namespace__`, or else the name, in snake case, of the class among it and its bases that stands directly below
    `CacheEntry`: a subclass shares the storage of the class that it extends.
    """
    named = entry_type.__namespace__ or _snake(_family(entry_type).__name__)
    if not re.fullmatch(r"(?!sqlite_)[a-z](?:_?[a-z0-9])*_?", str(named)) or len(named) > 48:
        raise CacheValidationError(f"{entry_type.__name__}.__namespace__ {named!r} is not of the form [a-z][a-z0-9_]*")
    return named


def _family(entry_type: type[CacheEntry]) -> type[CacheEntry]:
    lineage = [base for base in entry_type.__mro__ if issubclass(base, CacheEntry)]
    return lineage[-2] if len(lineage) > 1 else CacheEntry


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower().lstrip("_")


# -- checking a class ----------------------------------------------------------------------------------------------


def _fields(entry_type: type[CacheEntry]) -> tuple[Field, ...]:
    if not entry_type.__struct_config__.frozen:
        raise CacheValidationError(f"{entry_type.__name__} is not frozen: leave out frozen=False")
    try:
        declared = msgspec.structs.fields(entry_type)
    except (NameError, TypeError) as error:
        raise CacheValidationError(f"the annotations of {entry_type.__name__} cannot be read: {error}") from None
    _check_overrides(entry_type, declared)
    private = {name for name in CacheEntry.__struct_fields__ if name.startswith("_")}
    fields = tuple(_field(entry_type, info) for info in declared if info.name not in _ROW_FIELDS | private)
    _check_names(entry_type, fields)
    return fields


def _check_overrides(entry_type: type[CacheEntry], declared: tuple[msgspec.structs.FieldInfo, ...]) -> None:
    """A class may give a field of `CacheEntry` another default, but nothing of it another meaning."""
    own = {info.name: info.type for info in msgspec.structs.fields(CacheEntry)}
    for info in declared:
        if info.name in own and info.type != own[info.name]:
            raise CacheValidationError(
                f"{entry_type.__name__}.{info.name} must stay {type_name(own[info.name])}, as CacheEntry declares it"
            )
        if info.name not in own and hasattr(CacheEntry, info.name):
            raise CacheValidationError(
                f"{entry_type.__name__}.{info.name} hides CacheEntry.{info.name}: choose another name"
            )


def _check_names(entry_type: type[CacheEntry], fields: tuple[Field, ...]) -> None:
    seen: dict[str, str] = {name: f"tierkit's own {name}" for name in _ROW_FIELDS | _RESERVED}
    for field in fields:
        if field.name.startswith("_"):
            raise CacheValidationError(f"{entry_type.__name__}.{field.name}: a field's name cannot start with '_'")
        for name in {field.name, field.column}:
            other = seen.setdefault(name.lower(), field.name)
            if other != field.name:
                raise CacheValidationError(
                    f"{entry_type.__name__}.{field.name} collides with {other!r}: names must differ by more than case"
                )


def _bound(entry_type: type[CacheEntry], fields: tuple[Field, ...]) -> tuple[Field, ...]:
    public = {field.name: field for field in fields if not field.secret}
    changing = [name for name in entry_type.__bind__ if name in _CHANGING]
    if changing:
        raise CacheValidationError(
            f"{entry_type.__name__}.__bind__ names {changing[0]!r}, which changes while the record lives"
        )
    missing = [name for name in entry_type.__bind__ if name not in public]
    if missing:
        raise CacheValidationError(f"{entry_type.__name__}.__bind__ names {missing[0]!r}, which is not a public field")
    return tuple(public[name] for name in entry_type.__bind__)


def _field(entry_type: type[CacheEntry], info: msgspec.structs.FieldInfo) -> Field:
    core, optional = _split_optional(info.type)
    kind = _kind(core)
    if kind is None:
        raise CacheValidationError(
            f"{entry_type.__name__}.{info.name} has type {type_name(info.type)}, which cannot be stored; use str, int, "
            "float, bool, bytes, datetime, SecretStr, a string enum, or a tuple or frozen Struct of these"
        )
    secret = core is SecretStr
    return Field(
        name=info.name,
        column=f"{info.name}{ENCRYPTED}" if secret else info.name,
        type=kind[0],
        encode=kind[1],
        decode=kind[2],
        normalise=NORMALISE[kind[0]],
        items=tuple(item for item in typing.get_args(core) if item is not Ellipsis),
        nested=_storable(core),
        secret=secret,
        optional=optional,
        required=info.required,
    )


def _split_optional(annotation: Any) -> tuple[Any, bool]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        rest = [part for part in typing.get_args(annotation) if part is not type(None)]
        if len(rest) == 1:
            return rest[0], True
    return annotation, False


def _kind(core: Any) -> tuple[ColumnType, Codec, Codec] | None:
    if core in KINDS:
        return KINDS[core]
    if isinstance(core, type) and issubclass(core, Enum) and issubclass(core, str):
        return "text", enum_encoder(core), core
    if _storable(core):
        return "text", json_encoder(core), msgspec.json.Decoder(core).decode
    return None


def _storable(part: Any) -> bool:
    """Whether `part` is a tuple or a frozen Struct all the way down to plain immutable types."""
    part, _ = _split_optional(part)
    if typing.get_origin(part) is tuple:
        return all(_nestable(item) for item in typing.get_args(part) if item is not Ellipsis)
    if isinstance(part, type) and issubclass(part, msgspec.Struct):
        return bool(part.__struct_config__.frozen) and all(
            _nestable(info.type) for info in msgspec.structs.fields(part)
        )
    return False


def _nestable(part: Any) -> bool:
    core, _ = _split_optional(part)
    return core in {str, int, float, bool, bytes, datetime} or _storable(core)
