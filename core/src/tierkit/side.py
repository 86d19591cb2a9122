"""Side stores: rows of the engine's own, beside the records, in the storage of the authority.

What must not be lost when somebody puts a record anew, such as who holds it, cannot be a column of the record. It is a
row of its own in a second tier of the authority's kind and options, whose namespace is that of the records with a name
after it: `proxy_entry__leases`. No entry class can have such a namespace. The tier is opened when it is first needed.

It fails as the authority does: each call goes through the authority's level, its breaker and its time limit. Its rows
hold no secret and name no key, so a change of keys does not concern them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar, cast

from tierkit.clock import VersionClock
from tierkit.entry import CacheEntry
from tierkit.errors import CacheCorruptionError, SchemaMismatchError, TierkitError, TierUnavailable
from tierkit.level import Level
from tierkit.row import ColumnType, Record, key_digest
from tierkit.schema import schema_of
from tierkit.sealing import Sealer
from tierkit.tier import CacheTier, known_version

logger = logging.getLogger("tierkit.side")

SEPARATOR: Final = "__"
"""Between the namespace of the records and the name of a side store."""

S = TypeVar("S", bound=CacheEntry)
Opener = Callable[[str, Mapping[str, ColumnType]], CacheTier[Any]]
"""Opens the tier of the side store with a name, for rows with these columns."""


def side_namespace(namespace: str, name: str) -> str:
    """The namespace of the side store `name` of the records in `namespace`."""
    return f"{namespace}{SEPARATOR}{name}"


class SideTiers:
    """The tiers beside an authority's, by name: opened when they are first asked for, and closed with the stack.

    Attributes:
        read_only: Whether they are only looked at: then what is damaged stays as it is.
    """

    def __init__(self, opener: Opener | None = None, reader: Opener | None = None, *, read_only: bool = False) -> None:
        """None is open yet, and without an opener none can be; `reader` opens one to be read, and creates nothing."""
        self.read_only = read_only
        self._opener = opener or _no_storage
        self._reader = reader or _no_storage
        self._tiers: dict[str, CacheTier[Any]] = {}
        self._closed = False
        self.renew()

    def renew(self) -> None:
        """Make locks of one's own: in a forked child."""
        self._lock = threading.RLock()
        for tier in self._tiers.values():
            tier.lock = threading.RLock()

    def opened(self) -> list[CacheTier[Any]]:
        """Those that are open."""
        return list(self._tiers.values())

    def tier(self, name: str, columns: Mapping[str, ColumnType]) -> CacheTier[Any]:
        """The tier of the side store `name`, opened if it is not. Blocks on I/O.

        Raises:
            CacheStorageError: It could not be opened, or the stack has been closed.
        """
        tier = self._tiers.get(name)
        return self._open(name, columns) if tier is None else tier

    @contextmanager
    def reading(self) -> Iterator[SideTiers]:
        """The same tiers, to look at: one that is not open is opened read-only, and closed at the end."""
        looking = SideTiers(self._reader, read_only=True)
        looking._tiers.update(self._tiers)
        opened = set(looking._tiers)
        try:
            yield looking
        finally:
            for name in opened:
                looking._tiers.pop(name, None)
            looking.close()

    def _open(self, name: str, columns: Mapping[str, ColumnType]) -> CacheTier[Any]:
        with self._lock:
            if self._closed:
                raise TierUnavailable(f"the side store {name} has been closed")
            if name not in self._tiers:
                self._tiers[name] = self._opener(name, columns)
            return self._tiers[name]

    def close(self) -> None:
        """Close them all; one that cannot be is logged."""
        with self._lock:
            self._closed = True
            while self._tiers:
                name, tier = self._tiers.popitem()
                try:
                    tier.close()
                except TierkitError as error:
                    logger.error("the side store %s could not be closed: %s", name, str(error))  # noqa: TRY400 - the message says it


class SideStore(Generic[S]):
    """Entries of one class beside the records of a cache. All methods block on I/O.

    Every one raises `CacheStorageError` if the storage failed, and `TierUnavailable` while the authority is out of
    service. Expiry is the caller's: what has expired is held until the sweep.
    """

    def __init__(
        self,
        name: str,
        entry_type: type[S],
        authority: Level,
        tiers: SideTiers,
        versions: VersionClock,
        *,
        counted: bool = True,
    ) -> None:
        """Keep entries of `entry_type`, which have no secrets, in the side store `name` of `authority`.

        With `counted` a failure counts as one of the authority. Without it nothing depends on what is kept, and a
        failure says nothing about the records.
        """
        self._name = name
        self._sealer = Sealer(schema_of(entry_type), None)
        self._level = authority
        self._tiers = tiers
        self._versions = versions
        self._counted = counted

    def get(self, key: str) -> S | None:
        """What is held for `key`, or None; what is damaged is dropped, unless it is only looked at, and logged."""
        try:
            record = self._call(lambda tier: tier.get(key))
        except CacheCorruptionError as error:  # the tier has set it aside
            self._damaged(key, error)
            return None
        return None if record is None else self._opened(record)

    def scan(self) -> Iterator[S]:
        """Everything that is held, in any order."""
        records = self._call(lambda tier: iter(tier.scan()))
        end = object()
        while (record := self._call(lambda _: next(records, end))) is not end:
            entry = self._opened(record)
            if entry is not None:
                yield entry

    def replace(self, entry: S, expected_version: int) -> bool:
        """Compare and set: hold `entry` if the version held for its key is `expected_version` (0: none). Atomic.

        Its version must be above that: see `version_above`. Where nothing is held, the mark of what was dropped may
        refuse it, if that came from a clock that is ahead of ours: see `known_version`.
        """
        record = self._record(entry)
        return bool(self._call(lambda tier: tier.replace(record, expected_version), writing=True))

    def known_version(self, key: str) -> int:
        """The newest version that is known of `key`, held or dropped, or 0."""
        return int(self._call(lambda tier: known_version(tier, key)))

    def discard(self, entry: S) -> bool:
        """Drop what is held for the key of `entry` if it still has this version. Answers whether it had."""
        record = self._record(entry)
        try:
            return bool(self._call(lambda tier: tier.discard(record)))
        except CacheCorruptionError as error:  # the tier has set it aside
            self._damaged(entry.key, error)
            return False

    def version_above(self, version: int) -> int:
        """A new version, above `version`."""
        return self._versions.above(version)

    def _call(self, operation: Callable[[CacheTier[Any]], Any], *, writing: bool = False) -> Any:
        level = self._level
        if not level.in_service:
            raise TierUnavailable(f"{level.name} ({level.kind}) is out of service; it is tried again by itself")
        act = (level.write if writing else level.call) if self._counted else level.try_call
        return act(lambda: operation(self._tiers.tier(self._name, self._sealer.schema.columns)))

    def _record(self, entry: S) -> Record:
        return entry if self._level.live else self._sealer.seal(entry)

    def _opened(self, record: Any) -> S | None:
        if self._level.live:
            return cast("S", record)
        try:
            return cast("S", self._sealer.open(record))
        except (CacheCorruptionError, SchemaMismatchError) as error:
            if not self._tiers.read_only:
                self._call(lambda tier: tier.discard(record))
            self._damaged(record.key, error)
            return None

    def _damaged(self, key: str, error: TierkitError) -> None:
        level = self._level
        level.counters.corruptions += level.counters.step
        fate = "left, since it is only looked at" if self._tiers.read_only else "dropped"
        logger.warning(
            "%s: what the side store %s held for %s is damaged and was %s: %s",
            level.name, self._name, key_digest(key), fate, str(error),
        )  # fmt: skip


def _no_storage(name: str, _: Mapping[str, ColumnType]) -> CacheTier[Any]:
    raise TierUnavailable(f"there is no storage for the side store {name}: the cache has no levels")
