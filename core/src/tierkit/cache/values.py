"""Plain values over records: get, set and what changes a value in one step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast, overload

from tierkit.cache.codec import Codec
from tierkit.cache.loading import Loader
from tierkit.cache.names import Names
from tierkit.cache.options import tags_of, ttl_seconds
from tierkit.checks import check_keys
from tierkit.duration import Duration
from tierkit.entry import ValueEntry
from tierkit.errors import CacheValidationError
from tierkit.filters import contains
from tierkit.manager import CacheManager
from tierkit.writing import BATCH

if TYPE_CHECKING:
    import typing_extensions

    V = typing_extensions.TypeVar("V", default=Any)
else:
    V = TypeVar("V")
D = TypeVar("D")

MISSING: Final[Any] = object()
"""What stands for no value: None is one."""


class ValueMethods(Generic[V]):
    """Values by key, in one namespace of a `CacheManager`."""

    manager: CacheManager[ValueEntry]
    _names: Names
    _codec: Codec[V]
    _loader: Loader

    # -- one value ---------------------------------------------------------------------------------------------------

    @overload
    def get(self, key: str, default: None = ..., *, allow_stale: bool = ...) -> V | None: ...

    @overload
    def get(self, key: str, default: D, *, allow_stale: bool = ...) -> V | D: ...

    def get(self, key: str, default: Any = None, *, allow_stale: bool = False) -> Any:
        """The value of `key`, a copy of one's own; `default` if there is none.

        Args:
            key: Names the value.
            default: What is answered instead.
            allow_stale: Also take a value that expired less than `grace_seconds` ago, if there is no fresh one.

        Raises:
            CacheValidationError: `key` cannot be a key.
            SchemaMismatchError: What is held does not fit the type of this cache.
        """
        stored = self._names.stored(key)
        entry = self.manager.get(stored, allow_stale=True) if allow_stale else self.manager.get(stored)
        return default if entry is None else self._codec.decode(key, entry.encoded)

    def set(self, key: str, value: V, ttl: Duration | None = None, *, tags: Iterable[str] = ()) -> None:
        """Keep `value` under `key`, in place of what is there. Blocks on I/O.

        Args:
            key: Names the value: any text but the empty one.
            value: What can be stored, of the type of this cache if it has one.
            ttl: How long it lives: seconds, a timedelta, or text such as "15m" and "2h30m". By default what the rules
                of the cache give; those of `per_source_ttl` go by the namespace.
            tags: Words to find and to remove it by.

        Raises:
            CacheValidationError: One of them cannot be stored; nothing was changed.
            CacheStorageError: Nobody took it.
        """
        self.manager.put(self._entry(key, value, ttl_seconds(ttl), tags_of(tags)))

    def add(self, key: str, value: V, ttl: Duration | None = None, *, tags: Iterable[str] = ()) -> bool:
        """As `set`, if there is no value. Answers whether it was kept: of many who add at once it is one."""
        return self._added(key, value, ttl, tags)[1]

    def replace(self, key: str, value: V, ttl: Duration | None = None, *, tags: Iterable[str] = ()) -> bool:
        """As `set`, if there is a value, in one step. Answers whether there was."""
        entry = self._entry(key, value, ttl_seconds(ttl), tags_of(tags))
        replaced = False

        def made(held: ValueEntry | None) -> ValueEntry | None:
            nonlocal replaced
            replaced = held is not None
            return entry if replaced else None

        self.manager.update(entry.key, made)
        return replaced

    def delete(self, key: str) -> bool:
        """Remove the value of `key`. Answers whether there was one. Blocks on I/O."""
        return self.manager.delete(self._names.stored(key))

    def incr(self, key: str, by: float = 1, initial: float = 0, ttl: Duration | None = None) -> Any:
        """Add `by` to the number under `key`, in one step between threads and processes. Blocks on I/O.

        A number that is there keeps its deadline and its tags.

        Args:
            key: Names the number.
            by: What is added.
            initial: What it is added to if there is no value.
            ttl: How long a new number lives.

        Returns:
            The number as it is then.

        Raises:
            CacheValidationError: What is there, or is added, is no finite number; or the sum does not fit 64 bits.
            CacheStorageError: The authority is out of service or failed.
        """
        _check_number("by", by)
        _check_number("initial", initial)
        seconds = ttl_seconds(ttl)

        def made(held: ValueEntry | None) -> ValueEntry:
            if held is None:
                return self._entry(key, cast("V", initial + by), seconds, ())
            number: Any = self._codec.decode(key, held.encoded)
            _check_number(f"the value of {key[:80]!r}", number)
            return held.evolve(encoded=self._codec.encode(key, cast("V", number + by)))

        return self._decoded(key, self.manager.update(self._names.stored(key), made))

    def decr(self, key: str, by: float = 1, initial: float = 0, ttl: Duration | None = None) -> Any:
        """As `incr`, but `by` is taken off."""
        _check_number("by", by)
        return self.incr(key, -by, initial, ttl)

    def touch(self, key: str, ttl: Duration | None = None) -> bool:
        """Give the value of `key` a new life from now on. Answers whether there is one. Blocks on I/O.

        Args:
            key: Names the value.
            ttl: How long; by default what the rules of the cache give.
        """
        seconds = ttl_seconds(ttl)

        def made(held: ValueEntry | None) -> ValueEntry | None:
            return None if held is None else held.renewed(seconds)

        return self.manager.update(self._names.stored(key), made) is not None

    def ttl(self, key: str) -> float | None:
        """How many seconds the value of `key` has left; None if there is none. Counts as no read."""
        entry = self.manager.peek(self._names.stored(key))
        return None if entry is None else entry._deadline - self.manager._time.now()

    # -- many values -------------------------------------------------------------------------------------------------

    def get_many(self, keys: Iterable[str]) -> dict[str, V]:
        """What `get` finds of `keys`, by key. One after another: no picture of a single moment."""
        check_keys(keys)
        found = ((key, self.get(key, MISSING)) for key in keys)
        return {key: value for key, value in found if value is not MISSING}

    def set_many(self, values: Mapping[str, V], ttl: Duration | None = None, *, tags: Iterable[str] = ()) -> int:
        """As `set` for each of `values`, in batches. Atomic one by one, not as a whole.

        Returns:
            How many there were.

        Raises:
            CacheValidationError: One cannot be stored; nothing was changed.
            CacheStorageError: Nobody took a batch; earlier ones are there.
        """
        seconds, words = ttl_seconds(ttl), tags_of(tags)
        return self.manager.put_many([self._entry(key, value, seconds, words) for key, value in values.items()])

    def delete_many(self, keys: Iterable[str]) -> int:
        """Remove the values of `keys`, one after another. Answers how many there were."""
        check_keys(keys)
        return self.manager.delete_many([self._names.stored(key) for key in keys])

    # -- tags --------------------------------------------------------------------------------------------------------

    def tagged(self, tag: str) -> Iterator[str]:
        """The keys of the values that have `tag`, in any order. Counts as no read. Blocks on I/O at each step."""
        (tag,) = tags_of([tag])
        return (key for key, _ in self._entries(tags=contains(tag)))

    def invalidate_tag(self, *tags: str) -> int:
        """Remove every value that has one of `tags`. Blocks on I/O. Answers how many were removed.

        A value that is set meanwhile may stay. One that is being loaded in this process is not stored; one that another
        process is loading may be.
        """
        wanted = set(tags_of(tags))
        self._loader.flights.disown(lambda flight: self._names.own(flight.key) is not None and wanted & {*flight.tags})
        return sum(self._remove(self._entries(tags=contains(tag))) for tag in wanted)

    def clear(self) -> None:
        """Remove every value of this namespace, and no others. Blocks on I/O. What is set meanwhile may stay."""
        self._loader.flights.disown(lambda flight: self._names.own(flight.key) is not None)
        self._remove(self._entries())

    # -- inside ------------------------------------------------------------------------------------------------------

    def _entry(self, key: str, value: V, ttl: float | None, tags: tuple[str, ...]) -> ValueEntry:
        stored, encoded = self._names.stored(key), self._codec.encode(key, value)
        return ValueEntry(key=stored, encoded=encoded, tags=tags, source=self._names.source, ttl_seconds=ttl)

    def _added(
        self, key: str, value: V, ttl: Duration | None, tags: Iterable[str] = ()
    ) -> tuple[ValueEntry | None, bool]:
        """What is held then, and whether it is `value`."""
        entry, added = self._entry(key, value, ttl_seconds(ttl), tags_of(tags)), False

        def made(held: ValueEntry | None) -> ValueEntry | None:
            nonlocal added
            added = held is None
            return entry if added else None

        return self.manager.update(entry.key, made), added

    def _decoded(self, key: str, entry: ValueEntry | None) -> V:
        return self._codec.decode(key, cast("ValueEntry", entry).encoded)  # something was put

    def _entries(self, **filters: Any) -> Iterator[tuple[str, ValueEntry]]:
        """The entries of this namespace that may be returned, with their keys, in any order."""
        found = self.manager.select(where=self._names.where | filters)
        entries = ((self._names.own(entry.key), entry) for entry in found)
        return ((key, entry) for key, entry in entries if key is not None)

    def _remove(self, entries: Iterator[tuple[str, ValueEntry]]) -> int:
        """Delete each at its own version, in batches."""
        self.manager._check_writable()
        removed = 0
        while batch := [entry for _, entry in islice(entries, BATCH)]:
            removed += len(self.manager._comparing.delete_many(batch))
        return removed


def _check_number(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CacheValidationError(f"{name} is {type(value).__name__}: it must be a number")
    if isinstance(value, float) and not isfinite(value):
        raise CacheValidationError(f"{name} is {value}: it must be finite")
