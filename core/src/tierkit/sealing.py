"""Sealing entries into rows and opening them again.

A sealed secret is a token `s1.<key id>.<base64url(nonce, ciphertext, tag)>`, made with AES-256-GCM-SIV (RFC 8452). Its
associated data say where it belongs: storage, record, field, and the public fields that say where the secret goes. A
token that is moved elsewhere does not open. The check of a row covers everything in it but its usage.
"""

from __future__ import annotations

import os
import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping
from hmac import compare_digest
from math import inf
from typing import Any, Final
from zlib import crc32

import msgspec
from pydantic import SecretStr

from tierkit.entry import CacheEntry, Usage
from tierkit.errors import (
    CacheCorruptionError,
    EncryptionKeyError,
    KeyNotHeldError,
    SchemaMismatchError,
    SealingError,
    TamperedError,
)
from tierkit.keys import KEY_VARIABLES, HoldsKeys, Key, KeyRing, parse_keys, ring_from_environment
from tierkit.row import ColumnValue, Row, key_digest
from tierkit.schema import ENCRYPTED, EntrySchema
from tierkit.values import secret_problem

SCHEMA_VERSION: Final = 1
"""The version of what tokens are bound to and of what checks cover."""

_NONCE_BYTES: Final = 12
_TOKEN: Final = re.compile(rb"s1\.([0-9a-f]{8})\.([A-Za-z0-9_-]+)")
_HEAD: Final = re.compile(rb"[a-z]1\.([0-9a-f]{8})\.")  # of a token of any cipher
_KEYED: Final = re.compile(r"k1\.([0-9a-f]{8})\.[0-9a-f]{32}")
_TO_URL: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL: Final = bytes.maketrans(b"-_", b"+/")
_EXACT: Final = 2.0**53

_force: Final = msgspec.structs.force_setattr
_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder(order="deterministic").encode


def needs_key(schema: EntrySchema) -> bool:
    """Whether entries of this schema hold secrets, so that a cache of them needs an encryption key."""
    return bool(schema.secrets)


class CredentialEncryptor(HoldsKeys):
    """Encrypts single secrets, outside any cache.

    Without a key it takes the one in the environment variable `TIERKIT_ENCRYPTION_KEY` or
    `PROXYWHIRL_CACHE_ENCRYPTION_KEY`. If neither is set it generates a key **that lives and dies with this
    object**: nothing else will ever decrypt what it encrypted.

    Its tokens are bound to no record, and those of a cache do not open here.
    """

    __slots__ = ("_ring",)

    def __init__(self, key: SecretStr | KeyRing | None = None) -> None:
        """Use `key`: a Fernet key, several of them separated by commas with the newest first, or a ring.

        Raises:
            EncryptionKeyError: The key is malformed.
        """
        if key is None:
            self._ring = ring_from_environment(KEY_VARIABLES, os.environ) or KeyRing.generate()
        else:
            self._ring = key if isinstance(key, KeyRing) else parse_keys(key)

    def encrypt(self, secret: SecretStr) -> bytes:
        """The token of `secret`; a new one each time.

        Raises:
            SealingError: `secret` is not a `SecretStr` of text that can be encoded as UTF-8.
        """
        problem = _problem(secret)
        if problem:
            del secret  # a traceback may show the locals of the frame that raises
            raise SealingError(f"what is encrypted {problem}")
        key = self._ring.primary
        return _seal(key, secret, _unbound(key))

    def decrypt(self, token: bytes) -> SecretStr:
        """The secret in `token`.

        Raises:
            KeyNotHeldError: It was encrypted with a key that is not held.
            TamperedError: It is not a token that `encrypt` made.
        """
        key = _key_of(self._ring, token)
        return _open(key, token, _unbound(key))


class Sealer(HoldsKeys):
    """Makes rows of entries and entries of rows, for one entry class and one key ring.

    Thread-safe; nothing blocks.

    Attributes:
        schema: The compiled entry class.
    """

    __slots__ = ("_bound", "_ring", "_secrets", "schema")

    def __init__(self, schema: EntrySchema, ring: KeyRing | None) -> None:
        """Seal entries of `schema` with the keys of `ring`.

        A type without secrets needs no ring. One with secrets can do nothing without it but tell rows apart.
        """
        self.schema = schema
        self._ring = ring
        self._secrets = tuple((field.name, field.column) for field in schema.secrets)
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
        key = self._checking_key(row)
        problem = ""
        try:
            columns = self.schema.normalise(row.columns)
        except (TypeError, ValueError, OverflowError) as error:
            problem, columns = str(error), _present(row.columns)
        if not self._fits(row, key, columns):
            raise CacheCorruptionError(f"{_name(row)} is not what was written: its check does not fit")
        if problem:
            name = self.schema.entry_type.__name__
            raise SchemaMismatchError(f"{_name(row)} was written by a class that {name} does not agree with: {problem}")
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

    def open(self, row: Row) -> CacheEntry:
        """The entry in `row`.

        Raises:
            KeyNotHeldError: It was sealed with a key that is not held.
            CacheCorruptionError: It is not what was written, or a secret in it was not sealed for it.
            SchemaMismatchError: The entry class cannot hold it.
        """
        columns = self.verify(row)
        secrets = self._open_secrets(row, columns) if self._secrets else {}
        usage = Usage(row.access_count, row.last_accessed)
        entry = self.schema.decode(row.key, row.version, columns, secrets, usage)
        _force(entry, "_fresh_until", columns.get("expires_at", inf))
        _force(entry, "_purge_at", row.purge_at)
        return entry

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
        key = _key_of(self._ring, token, row)
        try:
            secret = _open(key, token, self._binding(key, row.key, field, where), row)
        except TamperedError:  # and yet the check fits: whoever wrote it binds secrets to other columns
            name = self.schema.entry_type.__name__
            raise SchemaMismatchError(
                f"{_name(row)} was written by a class that binds {column} as {name} does not"
            ) from None
        return _seal(primary, secret, self._binding(primary, row.key, field, where))

    def _undeclared(self, row: Row) -> dict[str, Any]:
        declared = self.schema.columns
        return {name: value for name, value in row.columns.items() if name not in declared and value is not None}

    # -- secrets ------------------------------------------------------------------------------------------------------

    def _seal_secrets(self, key: str, columns: dict[str, Any], sealed: Mapping[str, Any]) -> None:
        primary = self._primary()
        where = self._where(columns)
        for name, column in self._secrets:
            if column in columns:
                columns[column] = sealed.get(column) or _seal(
                    primary, columns[column], self._binding(primary, key, name, where)
                )

    def _open_secrets(self, row: Row, columns: dict[str, Any]) -> dict[str, SecretStr]:
        where = self._where(columns)
        opened = {}
        for name, column in self._secrets:
            token = columns.get(column)
            if token is not None:
                key = _key_of(self._ring, token, row)
                opened[name] = _open(key, token, self._binding(key, row.key, name, where), row)
        return opened

    def _where(self, columns: Mapping[str, Any]) -> list[tuple[str, Any]]:
        return [(column, columns.get(column)) for column in self._bound]

    def _binding(self, key: Key, record: str, field: str, where: list[tuple[str, Any]]) -> bytes:
        return _encode((self.schema.namespace, SCHEMA_VERSION, key.id, record, field, where))

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
        return _check_of(self._primary() if keyed else None, self._covered(key, version, purge_at, columns))

    def _covered(self, key: str, version: int, purge_at: float, columns: Mapping[str, Any]) -> bytes:
        # One form for 3600 and 3600.0: a tier may not tell them apart, nor this class know the column's type.
        whole = {
            name: int(value)
            for name, value in columns.items()
            if type(value) is float and value.is_integer() and -_EXACT < value < _EXACT
        }
        return _encode((self.schema.namespace, SCHEMA_VERSION, key, version, float(purge_at), {**columns, **whole}))

    def _fits(self, row: Row, key: Key | None, columns: Mapping[str, Any]) -> bool:
        try:
            covered = self._covered(row.key, row.version, row.purge_at, columns)
            return compare_digest(_check_of(key, covered), row.check)
        except (TypeError, ValueError, OverflowError, RecursionError):
            return False

    def _checking_key(self, row: Row) -> Key | None:
        check = _text(row.check)
        keyed = _KEYED.fullmatch(check)
        if keyed is not None:
            return _held(self._ring, keyed[1], row)
        if not check.startswith("c1."):
            raise CacheCorruptionError(f"{_name(row)} has no check that can be read")
        if self._secrets:
            raise TamperedError(f"{_name(row)} has secrets, and a check that anyone could have made")
        return None


def _present(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in columns.items() if value is not None}


def _name(row: Row | None) -> str:
    return "the token" if row is None else f"record {key_digest(row.key)}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _check_of(key: Key | None, covered: bytes) -> str:
    if key is None:
        return f"c1.{crc32(covered):08x}"
    digest = key.hasher.copy()
    digest.update(covered)
    return f"k1.{key.id}.{digest.hexdigest()}"


# -- tokens ----------------------------------------------------------------------------------------------------------


def _unbound(key: Key) -> bytes:
    return _encode(("", SCHEMA_VERSION, key.id, "", "", []))  # no entry class has an empty namespace


def _problem(secret: object) -> str:
    return secret_problem(secret) if isinstance(secret, SecretStr) else "must be a SecretStr"


def _seal(key: Key, secret: SecretStr, bound_to: bytes) -> bytes:
    nonce = os.urandom(_NONCE_BYTES)
    # The byte in front, since some builds of OpenSSL refuse to seal nothing at all.
    sealed = nonce + key.cipher.encrypt(nonce, b"\1" + secret.get_secret_value().encode(), bound_to)
    return key.token_head + _to_base64url(sealed)


def _key_of(ring: KeyRing | None, token: object, row: Row | None = None) -> Key:
    found = _TOKEN.fullmatch(token) if isinstance(token, bytes) else None
    if found is None:
        raise TamperedError(f"{_name(row)} holds something that is not a sealed secret")
    return _held(ring, found[1].decode(), row)


def _held(ring: KeyRing | None, key_id: str, row: Row | None) -> Key:
    key = None if ring is None else ring.get(key_id)
    if key is None:
        held = "no key is held" if ring is None else f"held: {', '.join(ring.ids)}"
        raise KeyNotHeldError(
            f"{_name(row)} was sealed with the key {key_id}, which is not in the key ring ({held}): add it"
        )
    return key


def _open(key: Key, token: bytes, bound_to: bytes, row: Row | None = None) -> SecretStr:
    secret = _opened(key, token[12:], bound_to)
    if secret is None:
        raise TamperedError(
            f"{_name(row)} holds a sealed secret that was changed, or that was sealed for another place"
        )
    return secret


def _opened(key: Key, body: bytes, bound_to: bytes) -> SecretStr | None:
    # Answers None instead of raising: an exception could carry the plaintext along in its context.
    try:
        sealed = a2b_base64(body.translate(_FROM_URL) + b"==")
        if _to_base64url(sealed) != body:
            return None  # another spelling of the same bytes
        return SecretStr(key.cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to)[1:].decode())
    except _refusals():
        return None


def _refusals() -> tuple[type[Exception], ...]:
    from cryptography.exceptions import InvalidTag

    return InvalidTag, ValueError


def _to_base64url(data: bytes) -> bytes:
    return b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URL)
