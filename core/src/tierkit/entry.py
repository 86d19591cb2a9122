"""Entries: a user's records, live and typed.

An entry is a frozen, keyword-only struct. Subclass `CacheEntry` to declare your own: each added field is stored by
name, and a field of type `SecretStr` is a secret. Which field types can be stored, `tierkit.schema` says.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from inspect import get_annotations
from math import inf
from typing import Any, ClassVar, Self, dataclass_transform

import msgspec
from msgspec import StructMeta
from pydantic import SecretStr

from tierkit.errors import CacheValidationError
from tierkit.proxy_url import holds_credentials, is_normal, redact, split_proxy_url


class HealthStatus(StrEnum):
    """What is known of a record's health."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class Usage:
    """How often and when a record was read in this process, and how much of that is flushed.

    It lives beside the record, outside its version and check, and changes on every hit.

    Attributes:
        flushed: Hits that the persistent levels know of, or that wait in the ledger to be told them.
        hits: Hits since then. In CPython with the GIL `usage.hits += 1` is not interrupted by another thread.
        last_accessed: POSIX seconds of the last hit, or 0.0 if there was none.
    """

    __slots__ = ("flushed", "hits", "last_accessed")

    def __init__(self, flushed: int = 0, last_accessed: float = 0.0) -> None:
        """Start from what the persistent levels know."""
        self.flushed = flushed
        self.hits = 0
        self.last_accessed = last_accessed

    def take(self) -> int:
        """Take the hits that are not flushed yet, in one step; give them back with `put_back` if the flush fails."""
        hits = self.hits
        self.hits -= hits
        self.flushed += hits
        return hits

    def put_back(self, hits: int) -> None:
        """Undo `take`: these hits did not reach a persistent level."""
        self.flushed -= hits
        self.hits += hits


class _EntryMeta(StructMeta):
    """Makes every subclass of `CacheEntry` keyword-only, which msgspec does not inherit."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> _EntryMeta:
        options.setdefault("kw_only", True)
        return super().__new__(mcls, name, bases, namespace, **options)


# On the class, not on its metaclass: of the decorators that it inherits, a type checker goes by that of msgspec.Struct.
@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class CacheEntry(msgspec.Struct, metaclass=_EntryMeta, frozen=True, kw_only=True, eq=False):
    """The metadata that every record has. Frozen: change a copy with `evolve`.

    Times are aware datetimes; naive ones are refused when the entry is put. What is left out is filled in by the cache
    when the entry is put; `put` answers the filled entry.

    Attributes:
        key: Names the record; any non-empty string that can be encoded as UTF-8.
        source: Where the record came from; TTL rules go by it.
        fetch_time: When it was fetched; by default the time of the put.
        ttl_seconds: Seconds to live after `fetch_time`; by default what the cache's rules give.
        expires_at: The deadline; by default `fetch_time` plus `ttl_seconds`. It travels with the record.
        health_status: What is known of its health.
        failure_count: Failures counted against it since the last success.
        created_at: When it was first put.
        updated_at: When it was last put.
        version: The stamp of the write that made it; 0 for an entry that was never put.
    """

    __namespace__: ClassVar[str] = ""
    """Name of the table, folder or key prefix; by default the class below `CacheEntry` in snake case."""
    __bind__: ClassVar[tuple[str, ...]] = ()
    """Public fields that say where the secrets go: a secret cannot be opened in a record where they differ."""

    key: str = ""
    source: str = "unknown"
    fetch_time: datetime | None = None
    ttl_seconds: float | None = None
    expires_at: datetime | None = None
    health_status: HealthStatus = HealthStatus.UNKNOWN
    failure_count: int = 0
    created_at: datetime | None = None
    updated_at: datetime | None = None
    version: int = 0
    _usage: Usage = msgspec.field(default_factory=Usage)
    _fresh_until: float = inf
    _purge_at: float | None = None
    _stale: bool = False

    @property
    def is_expired(self) -> bool:
        """Whether the deadline has come, by the wall clock."""
        return self.expires_at is not None and datetime.now(UTC) >= self.expires_at

    @property
    def is_stale(self) -> bool:
        """Whether a cache returned it past its deadline, within the grace period: see `CacheManager.get`."""
        return self._stale

    @property
    def is_healthy(self) -> bool:
        """Whether the status is `HEALTHY`."""
        return self.health_status is HealthStatus.HEALTHY

    @property
    def access_count(self) -> int:
        """How often the record was read, as far as this process knows. It goes on counting while you look."""
        return self._usage.flushed + self._usage.hits

    @property
    def last_accessed(self) -> datetime | None:
        """When the record was last read, or None."""
        seconds = self._usage.last_accessed
        return datetime.fromtimestamp(seconds, UTC) if seconds else None

    @property
    def purge_at(self) -> float:
        """When a tier may drop the record, in POSIX seconds: the deadline, or later if there is a grace period."""
        return self._deadline if self._purge_at is None else self._purge_at

    @property
    def _deadline(self) -> float:
        return inf if self.expires_at is None else self.expires_at.timestamp()

    def evolve(self, **changes: Any) -> Self:
        """A copy with `changes`, to be put in place of this entry.

        A change of `fetch_time` or `ttl_seconds` without one of `expires_at` makes the next put compute the deadline
        anew.
        """
        if changes.keys() & {"fetch_time", "ttl_seconds"}:
            changes.setdefault("expires_at", None)
        unused = {"version": 0, "_usage": Usage(), "_fresh_until": inf, "_purge_at": None, "_stale": False}
        try:
            return msgspec.structs.replace(self, **{**unused, **changes})
        except BaseException:
            changes.clear()  # a traceback may show the locals of this frame
            raise

    def renewed(self, ttl_seconds: float | None = None) -> Self:
        """A copy with a new life from the next put on, to be put in place of this entry; its health is kept.

        Args:
            ttl_seconds: Seconds to live; by default what the cache's rules give, not what this entry had.
        """
        return self.evolve(fetch_time=None, expires_at=None, ttl_seconds=ttl_seconds)

    def _public(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in self.__struct_fields__ if not name.startswith("_"))

    def __eq__(self, other: object) -> bool:
        """Equal if of one class with equal fields; usage does not count."""
        if not isinstance(other, CacheEntry) or type(self) is not type(other):
            return NotImplemented
        return self._public() == other._public()

    def __ne__(self, other: object) -> bool:
        """The opposite; msgspec's own compares identity."""
        return not self == other

    def __hash__(self) -> int:
        """By key and version."""
        return hash((self.key, self.version))

    def __repr__(self) -> str:
        """The fields that are set; secrets are masked."""
        names = (name for name in self.__struct_fields__ if not name.startswith("_"))
        hidden = _secret_names(type(self))
        shown = (
            f"{name}={_shown(value, name in hidden)}" for name in names if (value := getattr(self, name)) is not None
        )
        return f"{type(self).__name__}({', '.join(shown)})"


_CREDENTIALS = ("username", "password")


class ProxyEntry(CacheEntry):
    """A proxy. Credentials given in the URL are taken out of it and kept as secrets.

    `ProxyEntry(proxy_url="http://user:pw@Host:8080")` has the bare URL `http://host:8080` and two secrets. Without a
    `key` it gets the one of `key_for`.

    Attributes:
        proxy_url: `scheme://host:port`, normalised.
        username: Secret, or None; a plain string is masked.
        password: Secret, or None; a plain string is masked.
    """

    __bind__: ClassVar[tuple[str, ...]] = ("proxy_url",)

    proxy_url: str
    username: SecretStr | None = None
    password: SecretStr | None = None

    def __post_init__(self) -> None:
        """Take the credentials out of the URL and give the entry its key."""
        if type(self.proxy_url) is not str or not is_normal(self.proxy_url):
            address = split_proxy_url(self.proxy_url)
            force = msgspec.structs.force_setattr
            if isinstance(address, str):
                force(self, "proxy_url", redact(self.proxy_url))  # a traceback may show the locals of this frame
                raise CacheValidationError(address)
            force(self, "proxy_url", address.url)
            for name, found in (("username", address.username), ("password", address.password)):
                if found is not None and getattr(self, name) is None:
                    force(self, name, SecretStr(found))
        _mask(self, "username", self.username)
        _mask(self, "password", self.password)
        if not self.key:
            username = self.username.get_secret_value() if isinstance(self.username, SecretStr) else None
            msgspec.structs.force_setattr(self, "key", _proxy_key(self.proxy_url, username))

    def evolve(self, **changes: Any) -> Self:
        """As for any entry; another URL or user name gives another key, and another URL no credentials but its own."""
        if "proxy_url" in changes:
            changes = {"username": None, "password": None, **changes}
        if "username" in changes:
            changes.setdefault("key", "")
        try:
            return super().evolve(**changes)
        except BaseException:
            changes.clear()  # a traceback may show the locals of this frame
            raise

    @classmethod
    def from_url(cls, url: str, *, source: str = "unknown", ttl_seconds: float | None = None, **fields: Any) -> Self:
        """An entry for the proxy at `url`, which may hold credentials (percent-encoded where they need it).

        Args:
            url: `scheme://[user[:password]@]host[:port]`.
            source: Where the proxy came from.
            ttl_seconds: Seconds to live; by default what the cache's rules give.
            fields: Any other field.

        Raises:
            CacheValidationError: `url` is not a proxy URL.
        """
        hidden = SecretStr(url)  # a traceback may show the locals of this frame
        del url
        fields |= {name: SecretStr(fields[name]) for name in _CREDENTIALS if type(fields.get(name)) is str}
        try:
            return cls(proxy_url=hidden.get_secret_value(), source=source, ttl_seconds=ttl_seconds, **fields)
        except BaseException:
            fields.clear()  # as the URL
            raise

    @staticmethod
    def key_for(url: str, username: str | None = None) -> str:
        """The key of the proxy at `url` as `username` (by default the one in the URL): a stable hash.

        The password is not part of it. Spellings of one URL that differ by case, a default port or a closing slash
        give one key.

        Raises:
            CacheValidationError: `url` is not a proxy URL.
        """
        address = split_proxy_url(url)
        if isinstance(address, str):
            del url, username  # a traceback may show the locals of the frame that raises
            raise CacheValidationError(address)
        return _proxy_key(address.url, username if username is not None else address.username)


class ValueEntry(CacheEntry):
    """A plain value: anything that msgspec can encode as MessagePack.

    The value is held encoded and decoded on each access, so that no caller can change what the cache holds.

    Attributes:
        encoded: The value as MessagePack.
        tags: Words that it can be found and removed by.
    """

    encoded: bytes = b"\xc0"
    tags: tuple[str, ...] = ()

    @classmethod
    def from_value(cls, key: str, value: object, **fields: Any) -> Self:
        """An entry for `value` under `key`.

        Raises:
            CacheValidationError: The value has a part that cannot be encoded.
        """
        try:
            encoded = msgspec.msgpack.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise CacheValidationError(f"the value for {key!r} cannot be stored: {error}") from None
        return cls(key=key, encoded=encoded, **fields)

    @property
    def value(self) -> Any:
        """A fresh copy of the value.

        Raises:
            CacheValidationError: `encoded` is not one value as MessagePack.
        """
        try:
            return msgspec.msgpack.decode(self.encoded)
        except (TypeError, ValueError, RecursionError) as error:  # msgspec's own is a ValueError
            raise CacheValidationError(f"the value of {self.key!r} cannot be decoded: {error}") from None


def _mask(entry: ProxyEntry, name: str, given: object) -> None:
    if isinstance(given, str):
        msgspec.structs.force_setattr(entry, name, SecretStr(given))


@lru_cache(maxsize=256)
def _secret_names(entry_type: type[CacheEntry]) -> frozenset[str]:
    annotated = [item for base in entry_type.__mro__ for item in get_annotations(base).items()]
    return frozenset(name for name, annotation in annotated if "SecretStr" in str(annotation))


def _shown(value: object, hidden: bool) -> str:
    # A secret that is a plain string or stands in a source is refused when the entry is put, and masked until then.
    if holds_credentials(value):
        value = redact(value)
    return repr(value if not hidden or isinstance(value, SecretStr) else SecretStr("?"))


def _proxy_key(bare_url: str, username: str | None) -> str:
    named = f"{bare_url}\0{username or ''}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(named, digest_size=16).hexdigest()
