"""Sealing entries into rows and opening them again.

A secret becomes a token of one of the `ciphers`, bound to where it belongs: storage, record, field, and the public
fields that say where the secret goes. A token that is moved elsewhere does not open. The check of a row covers
everything in it but its usage.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from hmac import compare_digest
from typing import Any, Final
from zlib import crc32

import msgspec
from pydantic import SecretStr

from tierkit.ciphers import DEFAULT_CIPHER, CipherName, HoldsKeys
from tierkit.entry import CacheEntry, Usage
from tierkit.errors import (
    CacheCorruptionError,
    EncryptionKeyError,
    KeyNotHeldError,
    SchemaMismatchError,
    TamperedError,
)
from tierkit.keys import Key, KeyRing
from tierkit.row import ColumnValue, Row
from tierkit.schema import ENCRYPTED, EntrySchema
from tierkit.shapes import Shape
from tierkit.tokens import SCHEMA_VERSION, encode, held_key, maker_of, mark_of, name_of, open_token

_HEAD: Final = re.compile(rb"[a-z]1\.([0-9a-f]{8})\.")  # of a token of any cipher
_KEYED: Final = re.compile(r"k1\.([0-9a-f]{8})\.[0-9a-f]{32}")
_EXACT: Final = 2.0**53


def needs_key(schema: EntrySchema) -> bool:
    """Whether entries of this schema hold secrets, so that a cache of them needs an encryption key."""
    return bool(schema.secrets)


class Sealer(HoldsKeys):
    """Makes rows of entries and entries of rows, for one entry class and one key ring.

    Thread-safe; nothing blocks.

    Attributes:
        schema: The compiled entry class.
    """

    __slots__ = ("_bound", "_mark", "_ring", "_secret_columns", "_secrets", "schema")

    def __init__(self, schema: EntrySchema, ring: KeyRing | None, cipher: CipherName = DEFAULT_CIPHER) -> None:
        """Seal entries of `schema` with the keys of `ring`, new secrets with `cipher`.

        A type without secrets needs no ring. One with secrets can do nothing without it but tell rows apart.
        """
        self.schema = schema
        self._mark = mark_of(cipher)
        self._ring = ring
        self._secrets = tuple((field.name, field.column) for field in schema.secrets)
        self._secret_columns = frozenset(column for _, column in self._secrets)
        self._bound = tuple(field.column for field in schema.bound)

    def seal(self, entry: CacheEntry, *, ciphertext_of: Row | None = None) -> Row:
        """The row of `entry`, which is stamped and complete.

        Args:
            entry: The entry.
            ciphertext_of: A row of the same record with equal secrets and bound fields, whose tokens are used
                again, and whose columns that this class does not declare are kept.

        Raises:
            CacheValidationError: A field holds what cannot be stored.
            EncryptionKeyError: The type has secrets, and there is no key.
        """
        columns = self.schema.encode(entry)
        if ciphertext_of is not None:
            columns.update(self._undeclared(ciphertext_of))
        if self._secrets:
            self._seal_secrets(entry.key, columns, {} if ciphertext_of is None else ciphertext_of.columns)
        purge_at, usage = entry.purge_at, entry._usage
        return Row(
            key=entry.key,
            version=entry.version,
            purge_at=purge_at,
            check=self._check(entry.key, entry.version, purge_at, columns),
            columns=columns,
            access_count=usage.flushed,
            last_accessed=usage.last_accessed,
        )

    def restamp(self, row: Row, version: int) -> Row:
        """`row` with another version and the check that this needs.

        The row must be one that was sealed or verified here: what is restamped is vouched for.

        Raises:
            EncryptionKeyError: The type has secrets, and there is no key.
        """
        return self.remade(row, version=version)

    def remade(self, row: Row, **changes: Any) -> Row:
        """`row` with other fields and the check that this needs; as `restamp`."""
        changed = msgspec.structs.replace(row, **changes)
        columns = self.schema.normalise(changed.columns)
        check = self._check(changed.key, changed.version, changed.purge_at, columns)
        return msgspec.structs.replace(changed, check=check)

    def verify(self, row: Row) -> dict[str, ColumnValue]:
        """The columns of `row`, None left out and each of its declared type, if its check fits.

        Raises:
            KeyNotHeldError: The check was made with a key that is not held.
            CacheCorruptionError: The row is not what was written.
            SchemaMismatchError: It is, but a column has a type that this class does not give it.
        """
        return dict(self._verified(row, self.schema.shapes.of(row.columns)))

    def _verified(self, row: Row, shape: Shape) -> Mapping[str, ColumnValue]:
        """What `verify` answers, or the row's own columns if that is the same."""
        key = self._checking_key(row)
        problem = ""
        reals: Iterable[str] | None = shape.reals
        try:
            columns = row.columns if shape.normal else self.schema.normalise(row.columns, shape)
        except (TypeError, ValueError, OverflowError) as error:
            problem, columns, reals = str(error), _present(row.columns), None
        if not self._fits(row, key, _whole(columns, reals)):
            raise CacheCorruptionError(f"{name_of(row)} is not what was written: its check does not fit")
        if problem:
            name = self.schema.entry_type.__name__
            raise SchemaMismatchError(
                f"{name_of(row)} was written by a class that {name} does not agree with: {problem}"
            )
        return columns

    def is_foreign(self, row: Row) -> bool:
        """Whether `row` is of a key that is not held, or of a class that does not agree: not ours to judge.

        One that is damaged is not: it is nobody's.
        """
        try:
            self.verify(row)
        except (KeyNotHeldError, SchemaMismatchError):
            return True
        except CacheCorruptionError:
            return False
        return False

    def key_not_held(self, row: Row) -> str:
        """The id of a key that `row` needs, for its check or a secret, and that is not held; nothing if there is none.

        Looks at what the row names and opens nothing: cheap, and no judgement of the row.
        """
        return min(self.named_keys(row).difference(self.key_ids), default="")

    def open_plain(self, token: bytes) -> SecretStr | None:
        """The secret in a plain Fernet token of another tool; None if no key that is held opens it."""
        return None if self._ring is None else self._ring.open_plain(token)

    def open(self, row: Row) -> CacheEntry:
        """The entry in `row`.

        Raises:
            KeyNotHeldError: It was sealed with a key that is not held.
            CacheCorruptionError: It is not what was written, or a secret in it was not sealed for it.
            SchemaMismatchError: The entry class cannot hold it.
        """
        shape = self.schema.shapes.of(row.columns)
        columns = self._verified(row, shape)
        secrets = self._open_secrets(row, columns) if self._secrets else {}
        usage = Usage(row.access_count, row.last_accessed)
        return self.schema.decode(row.key, row.version, columns, secrets, usage, purge_at=row.purge_at, shape=shape)

    # -- to files and from files ---------------------------------------------------------------------------------------

    def intact(self, row: Row) -> Mapping[str, ColumnValue]:
        """The columns of `row`, None left out, if its check fits: as `verify`, but as the tier hands them back.

        Raises:
            KeyNotHeldError, CacheCorruptionError, SchemaMismatchError: As `verify`.
        """
        columns, whole = row.columns, _whole(row.columns)
        key = self._checking_key(row)
        if not self._fits(row, key, whole):
            return self.verify(row)
        return columns if len(columns) == len(whole) else _present(columns)

    def unsealed(self, row: Row) -> dict[str, ColumnValue]:
        """The columns of `row`, with the secrets of this class in the clear, by the names of their fields.

        Raises:
            KeyNotHeldError, CacheCorruptionError, SchemaMismatchError: As `verify`, or of a secret, as `open`.
        """
        columns = self.verify(row)
        for name, secret in self._open_secrets(row, columns).items():
            columns[name] = secret.get_secret_value()
        return {name: value for name, value in columns.items() if name not in self._secret_columns}

    def without_secrets(self, row: Row) -> dict[str, ColumnValue]:
        """The columns of `row`, but for those that hold secrets, of this class or of another.

        Raises:
            KeyNotHeldError, CacheCorruptionError, SchemaMismatchError: As `verify`.
        """
        columns = self.verify(row)
        sealed = self._sealed_columns(columns)
        return {name: value for name, value in columns.items() if name not in sealed}

    def plain_columns(self, row: Row) -> tuple[dict[str, Any], dict[str, SecretStr]]:
        """The columns of `row`, which are as `unsealed` answers them, and apart from them the secrets, by field name.

        Raises:
            SchemaMismatchError: A column has a type that this class does not give it.
        """
        secrets = {name: row.columns[name] for name, _ in self._secrets if name in row.columns}
        others = {name: value for name, value in row.columns.items() if name not in secrets}
        if not all(isinstance(secret, str) for secret in secrets.values()) or self._secret_columns & others.keys():
            del row, secrets, others  # a traceback may show the locals of the frame that raises
            raise SchemaMismatchError("a secret in the clear must be text, under the name of its field")
        try:
            columns = self.schema.normalise(others)
        except (TypeError, ValueError, OverflowError):
            said = f"a column of {name_of(row)} has a type that {self.schema.entry_type.__name__} does not give it"
            del row, secrets, others
            raise SchemaMismatchError(said) from None
        return columns, {name: SecretStr(secret) for name, secret in secrets.items()}

    # -- changing keys ------------------------------------------------------------------------------------------------

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The ids of the keys that are held, that of the primary first; none if there is no ring."""
        return () if self._ring is None else self._ring.ids

    def named_keys(self, row: Row) -> set[str]:
        """The ids of the keys that `row` names: in its check, and in the tokens that it holds."""
        keyed = _KEYED.fullmatch(_text(row.check))
        heads = [_HEAD.match(row.columns[column]) for column in self._sealed_columns(row.columns)]
        return {head[1].decode() for head in heads if head} | ({keyed[1]} if keyed else set())

    def is_outdated(self, row: Row) -> bool:
        """Whether `row` names a key that is held and is not the primary."""
        older = self.key_ids[1:]
        return bool(older) and not self.named_keys(row).isdisjoint(older)

    def is_of_other_cipher(self, row: Row) -> bool:
        """Whether a secret in `row` was sealed with another cipher than new ones are."""
        mark = f"{self._mark}.".encode()
        return any(not row.columns[column].startswith(mark) for column in self._sealed_columns(row.columns))

    def resealed(self, row: Row, version: int, more: Mapping[str, ColumnValue]) -> Row:
        """`row` at another version, its content unchanged and all of it sealed with the primary key.

        Secrets that this class does not declare, as those of a subclass, are sealed anew too.

        Args:
            row: The row.
            version: Its new version.
            more: Columns of the engine's own that it gets.

        Raises:
            KeyNotHeldError: A key that it names is not held.
            CacheCorruptionError: It is not what was written.
            SchemaMismatchError: A column has a type that this class does not give it, or a secret is bound otherwise.
        """
        columns = self.verify(row)
        where = self._where(columns)
        for column in self._sealed_columns(columns):
            columns[column] = self._resealed_token(row, column, where)
        return self.remade(row, version=version, columns={**columns, **more})

    def _sealed_columns(self, columns: Mapping[str, Any]) -> list[str]:
        """The columns that hold tokens, those of secrets that this class does not declare included."""
        present = [name for name, value in columns.items() if name.endswith(ENCRYPTED) and isinstance(value, bytes)]
        own, declared = {column for _, column in self._secrets}, self.schema.columns
        return [name for name in present if name in own or (name not in declared and _HEAD.match(columns[name]))]

    def _resealed_token(self, row: Row, column: str, where: list[tuple[str, Any]]) -> bytes:
        token, field, primary = row.columns[column], column.removesuffix(ENCRYPTED), self._primary()
        key, cipher = maker_of(self._ring, token, row)
        try:
            secret = open_token(cipher, token, self._binding(key, row.key, field, where), row)
        except TamperedError:  # and yet the check fits: whoever wrote it binds secrets to other columns
            name = self.schema.entry_type.__name__
            raise SchemaMismatchError(
                f"{name_of(row)} was written by a class that binds {column} as {name} does not"
            ) from None
        return primary.ciphers[self._mark].seal(secret, self._binding(primary, row.key, field, where))

    def _undeclared(self, row: Row) -> dict[str, Any]:
        declared = self.schema.columns
        return {name: value for name, value in row.columns.items() if name not in declared and value is not None}

    # -- secrets ------------------------------------------------------------------------------------------------------

    def _seal_secrets(self, key: str, columns: dict[str, Any], sealed: Mapping[str, Any]) -> None:
        primary = self._primary()
        cipher = primary.ciphers[self._mark]
        where = self._where(columns)
        for name, column in self._secrets:
            if column in columns:
                columns[column] = sealed.get(column) or cipher.seal(
                    columns[column], self._binding(primary, key, name, where)
                )

    def _open_secrets(self, row: Row, columns: Mapping[str, Any]) -> dict[str, SecretStr]:
        where = self._where(columns)
        opened = {}
        for name, column in self._secrets:
            token = columns.get(column)
            if token is not None:
                key, cipher = maker_of(self._ring, token, row)
                opened[name] = open_token(cipher, token, self._binding(key, row.key, name, where), row)
        return opened

    def _where(self, columns: Mapping[str, Any]) -> list[tuple[str, Any]]:
        return [(column, columns.get(column)) for column in self._bound]

    def _binding(self, key: Key, record: str, field: str, where: list[tuple[str, Any]]) -> bytes:
        return encode((self.schema.namespace, SCHEMA_VERSION, key.id, record, field, where))

    def _primary(self) -> Key:
        if self._ring is None:
            name = self.schema.entry_type.__name__
            raise EncryptionKeyError(
                f"{name} has secrets and there is no encryption key: set encryption_key, or the variable that "
                "encryption_key_env names"
            )
        return self._ring.primary

    # -- checks -------------------------------------------------------------------------------------------------------

    def _check(self, key: str, version: int, purge_at: float, columns: Mapping[str, Any]) -> str:
        keyed = self._ring is not None or self._secrets
        return _check_of(self._primary() if keyed else None, self._covered(key, version, purge_at, _whole(columns)))

    def _covered(self, key: str, version: int, purge_at: float, whole: Mapping[str, Any]) -> bytes:
        return encode((self.schema.namespace, SCHEMA_VERSION, key, version, float(purge_at), whole))

    def _fits(self, row: Row, key: Key | None, whole: Mapping[str, Any]) -> bool:
        try:
            covered = self._covered(row.key, row.version, row.purge_at, whole)
            return compare_digest(_check_of(key, covered), row.check)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return False

    def _checking_key(self, row: Row) -> Key | None:
        check = _text(row.check)
        if check.startswith("c1."):
            if self._secrets:
                raise TamperedError(f"{name_of(row)} has secrets, and a check that anyone could have made")
            return None
        keyed = _KEYED.fullmatch(check)
        if keyed is None:
            raise CacheCorruptionError(f"{name_of(row)} has no check that can be read")
        return held_key(self._ring, keyed[1], row)


def _present(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in columns.items() if value is not None}


def _whole(columns: Mapping[str, Any], reals: Iterable[str] | None = None) -> dict[str, Any]:
    """`columns` as checks cover them: without None, and with one form for 3600 and 3600.0.

    A tier may not tell these apart, nor a class know the type of the column.

    Args:
        columns: By name.
        reals: Those that hold floats, if that is known; then none of `columns` is None.
    """
    if reals is not None:
        covered = dict(columns)
        for name in reals:
            value = covered[name]
            if type(value) is float and value.is_integer() and -_EXACT < value < _EXACT:
                covered[name] = int(value)
        return covered
    return {
        name: int(value) if type(value) is float and value.is_integer() and -_EXACT < value < _EXACT else value
        for name, value in columns.items()
        if value is not None
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _check_of(key: Key | None, covered: bytes) -> str:
    if key is None:
        return f"c1.{crc32(covered):08x}"
    digest = key.hasher.copy()
    digest.update(covered)
    return f"k1.{key.id}.{digest.hexdigest()}"
