"""Records as they stand in an exported file, and the two lines around them.

The first record of a file says what the file is (`Head`), the last how many records there are, and their digest
(`Closing`). Neither has a key. The digest is of the records, not of the bytes, so that it holds for every format.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import inf
from typing import Any, Final, Literal, cast

import msgspec
from pydantic import SecretStr

from tierkit.checks import check_entry, check_key
from tierkit.entry import CacheEntry, Usage
from tierkit.errors import CacheValidationError, KeyNotHeldError
from tierkit.export_format import FlatRecord
from tierkit.row import ColumnValue, Row
from tierkit.sealing import Sealer
from tierkit.tokens import encode
from tierkit.values import Unfit

Secrets = Literal["sealed", "plain", "none"]
"""What becomes of secrets in a file: ciphertext as it is stored, in the clear, or left out."""

FORMAT: Final = 1
HEAD: Final = "tierkit.export"
CLOSING: Final = "tierkit.end"
REASON: Final = "tierkit.reason"
"""In a file of rejects: why the record did not go in."""
RAW: Final = "tierkit.raw"
"""In a file of rejects: a piece of the file of which no record could be made."""
OWN: Final = ("key", "version", "check", "purge_at", "access_count", "last_accessed")
"""What every record has besides the columns of its class."""

LATEST_VERSION: Final = 2**62
"""Of the year 2112. A record with the greatest version that fits 64 bits could never be changed or deleted again."""

_NO_VALUE: Final = "has a value that no column can hold"
_OWN: Final = frozenset({*OWN, REASON})
_VALUES: Final = frozenset({str, int, float, bytes})


@dataclass(frozen=True, slots=True)
class Head:
    """What a file is.

    Attributes:
        tierkit: The version that wrote it.
        entry_type: The name of the class of its records.
        namespace: What keeps that class apart in a storage.
        secrets: What became of secrets.
        columns: The columns of the class, with their types.
        format: The version of this form.
    """

    tierkit: str
    entry_type: str
    namespace: str
    secrets: Secrets
    columns: Mapping[str, str]
    format: int = FORMAT

    def flat(self) -> FlatRecord:
        """As the first record of a file."""
        columns = ", ".join(f"{name} {kind}" for name, kind in self.columns.items())
        return {
            HEAD: self.format,
            "tierkit": self.tierkit,
            "entry_type": self.entry_type,
            "namespace": self.namespace,
            "secrets": self.secrets,
            "columns": columns,
        }

    @classmethod
    def of(cls, record: FlatRecord) -> Head:
        """From the first record of a file.

        Raises:
            Unfit: It is none, or of a form that this version does not know.
        """
        version = record.get(HEAD)
        if type(version) is not int:
            raise Unfit("is no file that tierkit exported: warm_from_file (`tierkit warm`) takes lists of other make")
        if version != FORMAT:
            raise Unfit(f"is of the form {version}, and this tierkit knows {FORMAT}: upgrade tierkit")
        told = {name: record.get(name) for name in ("tierkit", "entry_type", "namespace", "secrets", "columns")}
        if not all(isinstance(value, str) for value in told.values()) or told["secrets"] not in _SECRETS:
            raise Unfit("begins with a line that does not say what it is: it was changed")
        columns = dict(pair.rsplit(" ", 1) for pair in str(told.pop("columns")).split(", ") if " " in pair)
        return cls(columns=columns, format=version, **cast("dict[str, Any]", told))


_SECRETS: Final = ("sealed", "plain", "none")


@dataclass(slots=True)
class Tally:
    """What the records of a file have in common: counted while they pass.

    Attributes:
        records: How many there were.
        keys: How many named each encryption key, by its id.
    """

    records: int = 0
    keys: Counter[str] = field(default_factory=Counter)
    _digest: Any = field(default_factory=lambda: blake2b(digest_size=16))

    def add(self, record: FlatRecord) -> None:
        """Count a record.

        Raises:
            Unfit: It has a value that no column can hold.
        """
        try:
            self._digest.update(encode(record))
        except (TypeError, OverflowError, RecursionError):
            raise Unfit(_NO_VALUE) from None
        self.records += 1

    def add_all(self, records: Sequence[FlatRecord]) -> None:
        """Count records whose values columns can hold."""
        self._digest.update(b"".join(map(encode, records)))
        self.records += len(records)

    @property
    def digest(self) -> str:
        """Of all records so far, in their order."""
        digest: str = self._digest.hexdigest()
        return digest

    def flat(self) -> FlatRecord:
        """As the last record of a file."""
        keys = ", ".join(f"{key} {count}" for key, count in sorted(self.keys.items()))
        return {CLOSING: self.records, "digest": self.digest, "keys": keys}


def keys_of(closing: FlatRecord) -> dict[str, int]:
    """The ids of the encryption keys that the records of a file need, each with how many do, by its last record."""
    pairs = (pair.partition(" ") for pair in str(closing.get("keys") or "").split(", "))
    return {key: int(count) for key, _, count in pairs if count.isdecimal()}


class Flattening:
    """Makes flat records of what a cache holds."""

    def __init__(self, sealer: Sealer, secrets: Secrets) -> None:
        """Open what is sealed with `sealer`, if it must be."""
        self._sealer = sealer
        self._secrets = secrets

    def flat(self, record: Row | CacheEntry) -> dict[str, ColumnValue]:
        """`record` as it stands in a file.

        Raises:
            KeyNotHeldError: It was sealed with a key that is not held.
            CacheCorruptionError: It is not what was written.
            SchemaMismatchError: A column has a type that this class does not give it.
            EncryptionKeyError: It is live and has secrets, which are to be sealed, and there is no key.
        """
        if isinstance(record, Row):
            usage, check, columns = (record.access_count, record.last_accessed), record.check, self._columns(record)
        elif self._secrets == "sealed":
            row = self._sealer.seal(record)
            usage, check, columns = _usage_of(record), row.check, row.columns
        else:
            usage, check, columns = _usage_of(record), "", self._columns_of_entry(record)
        count, last = usage
        flat: dict[str, ColumnValue] = {
            "key": record.key,
            "version": record.version,
            "check": check,
            "purge_at": record.purge_at,
            "access_count": count,
            "last_accessed": last,
            **columns,
        }
        if self._secrets != "sealed":
            del flat["check"]
        if record.purge_at == inf:
            del flat["purge_at"]
        return flat

    def _columns(self, row: Row) -> Mapping[str, ColumnValue]:
        if self._secrets == "sealed":
            return self._sealer.intact(row)
        if self._secrets == "plain":
            return self._sealer.unsealed(row)
        return self._sealer.without_secrets(row)

    def _columns_of_entry(self, entry: CacheEntry) -> Mapping[str, ColumnValue]:
        columns = self._sealer.schema.encode(entry)
        for secret in self._sealer.schema.secrets:
            masked = columns.pop(secret.column, None)
            if masked is not None and self._secrets == "plain":
                columns[secret.name] = masked.get_secret_value()
        return columns

    def names(self) -> list[str]:
        """Of what most records have, in order."""
        schema = self._sealer.schema
        secrets = {secret.column: secret.name for secret in schema.secrets}
        if self._secrets == "sealed":
            return [*OWN, *schema.columns]
        columns = [secrets.get(column, column) for column in schema.columns]
        if self._secrets == "none":
            columns = [column for column in schema.columns if column not in secrets]
        return [*(name for name in OWN if name != "check"), *columns]


def _usage_of(entry: CacheEntry) -> tuple[int, float]:
    return entry.access_count, entry._usage.last_accessed


class Rebuilding:
    """Makes records for a cache of flat ones."""

    def __init__(self, sealer: Sealer, secrets: Secrets, *, live: bool) -> None:
        """Seal, or verify, with `sealer`; answer entries if the cache is `live` and stores no rows."""
        self._sealer = sealer
        self._sealed = secrets == "sealed"
        self._live = live

    def record(self, flat: FlatRecord) -> Row | CacheEntry:
        """The record that `flat` stands for.

        Raises:
            Unfit: It is none.
            KeyNotHeldError: It was sealed with a key that is not held.
            CacheCorruptionError: It is not what was written.
            SchemaMismatchError: The entry class cannot hold it.
            CacheValidationError: The cache would refuse it when it is put.
            EncryptionKeyError: It has secrets in the clear, and there is no key to seal them with.
        """
        row = _row_of(flat)
        if self._sealed:
            self._sealer.verify(row)
            return self._sealer.open(row) if self._live else row
        columns, secrets = self._sealer.plain_columns(row)
        entry = self._entry(row, columns, secrets)
        if self._live:
            return entry
        others = msgspec.structs.replace(row, columns=columns)  # for what the class does not declare
        sealed = self._sealer.seal(entry, ciphertext_of=others)
        if needed := self._sealer.key_not_held(sealed):
            raise KeyNotHeldError(f"a secret in it was sealed with the key {needed}, which is not held: add it")
        return sealed

    def _entry(self, row: Row, columns: FlatRecord, secrets: Mapping[str, SecretStr]) -> CacheEntry:
        schema, usage = self._sealer.schema, Usage(row.access_count, row.last_accessed)
        entry = schema.decode(row.key, row.version, columns, secrets, usage, purge_at=row.purge_at)
        checked: CacheEntry = check_entry(entry, schema.entry_type)
        return checked


def _row_of(flat: FlatRecord) -> Row:
    columns = {name: value for name, value in flat.items() if name not in _OWN}
    fault = next(_faults(flat, columns), None)
    if fault is not None:
        raise Unfit(fault)
    own = (flat.get("purge_at", inf), flat.get("check", ""), columns)
    usage = (flat.get("access_count", 0), flat.get("last_accessed", 0.0))
    try:
        return msgspec.convert((flat["key"], flat["version"], *own, *usage), Row)
    except msgspec.ValidationError as error:
        raise Unfit(f"has a version, a time or a count that cannot be: {error}") from None


def _faults(flat: FlatRecord, columns: FlatRecord) -> Iterator[str]:
    try:
        check_key(flat.get("key"))
    except CacheValidationError as error:
        yield error.reason or "has no key"
    version = flat.get("version")
    if type(version) is not int or version < 1:
        yield "has no version"
    elif version > LATEST_VERSION:
        yield "has a version that leaves no room for later ones"
    if flat.get("purge_at") != flat.get("purge_at"):  # NaN, which comes neither before nor after anything
        yield "has a time at which it may be dropped that is none"
    if not _VALUES.issuperset(map(type, columns.values())):
        yield _NO_VALUE
