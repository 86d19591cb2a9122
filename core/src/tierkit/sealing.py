"""Sealing entries into rows and opening them again.

A secret becomes a token of one of the `ciphers`, bound to where it belongs: storage, record, field, and the public
fields that say where the secret goes. A token that is moved elsewhere does not open. The check of a row covers
everything in it but its usage.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from hmac import compare_digest
from math import inf
from typing import Any, Final
from zlib import crc32

import msgspec
from pydantic import SecretStr

from tierkit.ciphers import CIPHERS, DEFAULT_CIPHER, Cipher, CipherName, HoldsKeys
from tierkit.entry import CacheEntry, Usage
from tierkit.errors import (
    CacheCorruptionError,
    CacheValidationError,
    EncryptionKeyError,
    KeyNotHeldError,
    SchemaMismatchError,
    SealingError,
    TamperedError,
)
from tierkit.keys import KEY_VARIABLES, ForeignToken, Key, KeyRing, parse_keys, ring_from_environment
from tierkit.row import ColumnValue, Row, key_digest
from tierkit.schema import EntrySchema
from tierkit.values import secret_problem

SCHEMA_VERSION: Final = 1
"""The version of what tokens are bound to and of what checks cover."""

_TOKEN: Final = re.compile(rb"(s1|f1)\.([0-9a-f]{8})\.[A-Za-z0-9_-]+")
_PLAIN_FERNET: Final = re.compile(rb"gAAAA[A-Za-z0-9_-]+={0,2}")  # a version, and a time before the year 2106
_KEYED: Final = re.compile(r"k1\.([0-9a-f]{8})\.[0-9a-f]{32}")
_EXACT: Final = 2.0**53

_force: Final = msgspec.structs.force_setattr
_encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder(order="deterministic").encode


def mark_of(cipher: str) -> str:
    """The mark of the tokens that a cipher makes.

    Raises:
        CacheValidationError: There is no such cipher.
    """
    if cipher not in CIPHERS:
        raise CacheValidationError(f"cipher must be {' or '.join(map(repr, CIPHERS))}, not {cipher!r}")
    return CIPHERS[cipher].mark


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

    __slots__ = ("_mark", "_ring")

    def __init__(
        self,
        key: SecretStr | KeyRing | None = None,
        *,
        cipher: CipherName = DEFAULT_CIPHER,
        accept: tuple[ForeignToken, ...] = (),
    ) -> None:
        """Use `key`: a Fernet key, several of them separated by commas with the newest first, or a ring.

        Args:
            key: The keys.
            cipher: What new tokens are made with. Those of both ciphers are read.
            accept: `("fernet",)` decrypts plain Fernet tokens too, which other tools made with one of the keys itself.

        Raises:
            EncryptionKeyError: The key is malformed, or the ring was made to accept less.
            CacheValidationError: There is no such cipher, or nothing of that kind to accept.
        """
        self._mark = mark_of(cipher)
        if tuple(accept) not in ((), ("fernet",)):
            del key  # it may be no ring and no SecretStr, and a traceback may show the locals
            raise CacheValidationError(f'accept must be () or ("fernet",), not {accept!r}')
        if isinstance(key, KeyRing):
            self._ring = key
        elif key is None:
            found = ring_from_environment(KEY_VARIABLES, os.environ, accept=accept)
            self._ring = found or KeyRing.generate(accept=accept)
        else:
            self._ring = parse_keys(key, accept=accept)
        if not set(accept) <= set(self._ring.accept):
            raise EncryptionKeyError(f"the key ring was made without accept={tuple(accept)!r}: make it with that")

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
        return key.ciphers[self._mark].seal(secret, _unbound(key))

    def decrypt(self, token: bytes) -> SecretStr:
        """The secret in `token`.

        Raises:
            KeyNotHeldError: It was encrypted with a key that is not held. For a plain Fernet token, which names no
                key, that may also mean that it was changed.
            TamperedError: It is not a token that `encrypt` made, nor one that is accepted.
        """
        if self._ring.accept and _matches(_PLAIN_FERNET, token):
            return self._plain(token)
        key, cipher = _maker_of(self._ring, token)
        return _open(cipher, token, _unbound(key))

    def _plain(self, token: bytes) -> SecretStr:
        secret = self._ring.open_plain(token)
        if secret is None:
            held = ", ".join(self._ring.ids)
            raise KeyNotHeldError(f"none of the keys that are held ({held}) opens the plain Fernet token: add its key")
        return secret


class Sealer(HoldsKeys):
    """Makes rows of entries and entries of rows, for one entry class and one key ring.

    Thread-safe; nothing blocks.

    Attributes:
        schema: The compiled entry class.
    """

    __slots__ = ("_bound", "_mark", "_ring", "_secrets", "schema")

    def __init__(self, schema: EntrySchema, ring: KeyRing | None, cipher: CipherName = DEFAULT_CIPHER) -> None:
        """Seal entries of `schema` with the keys of `ring`, new secrets with `cipher`.

        A type without secrets needs no ring. One with secrets can do nothing without it but tell rows apart.
        """
        self.schema = schema
        self._mark = mark_of(cipher)
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

    def key_not_held(self, row: Row) -> str:
        """The id of a key that `row` needs, for its check or a secret, and that is not held; nothing if there is none.

        Looks at what the row names and opens nothing: cheap, and no judgement of the row.
        """
        check = _KEYED.fullmatch(_text(row.check))
        tokens = (_matches(_TOKEN, row.columns.get(column)) for _, column in self._secrets)
        ids = [check[1]] if check else []
        ids += [token[2].decode() for token in tokens if token]
        return next((key_id for key_id in ids if self._ring is None or self._ring.get(key_id) is None), "")

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
        columns = self.verify(row)
        secrets = self._open_secrets(row, columns) if self._secrets else {}
        usage = Usage(row.access_count, row.last_accessed)
        entry = self.schema.decode(row.key, row.version, columns, secrets, usage)
        _force(entry, "_fresh_until", columns.get("expires_at", inf))
        _force(entry, "_purge_at", row.purge_at)
        return entry

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

    def _open_secrets(self, row: Row, columns: dict[str, Any]) -> dict[str, SecretStr]:
        where = self._where(columns)
        opened = {}
        for name, column in self._secrets:
            token = columns.get(column)
            if token is not None:
                key, cipher = _maker_of(self._ring, token, row)
                opened[name] = _open(cipher, token, self._binding(key, row.key, name, where), row)
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


def _matches(form: re.Pattern[bytes], value: object) -> re.Match[bytes] | None:
    return form.fullmatch(value) if isinstance(value, bytes) else None


def _maker_of(ring: KeyRing | None, token: object, row: Row | None = None) -> tuple[Key, Cipher]:
    """The key that a token names, and its cipher that made the token."""
    found = _matches(_TOKEN, token)
    if found is None:
        raise TamperedError(f"{_name(row)} holds something that is not a sealed secret")
    key = _held(ring, found[2].decode(), row)
    return key, key.ciphers[found[1].decode()]


def _held(ring: KeyRing | None, key_id: str, row: Row | None) -> Key:
    key = None if ring is None else ring.get(key_id)
    if key is None:
        held = "no key is held" if ring is None else f"held: {', '.join(ring.ids)}"
        raise KeyNotHeldError(
            f"{_name(row)} was sealed with the key {key_id}, which is not in the key ring ({held}): add it"
        )
    return key


def _open(cipher: Cipher, token: bytes, bound_to: bytes, row: Row | None = None) -> SecretStr:
    secret = cipher.open(token, bound_to)
    if secret is None:
        raise TamperedError(
            f"{_name(row)} holds a sealed secret that was changed, or that was sealed for another place"
        )
    return secret
