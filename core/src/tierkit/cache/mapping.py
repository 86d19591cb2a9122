"""The methods of a mapping, with the meaning that they have for a dict, but for values that expire."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, MutableMapping, ValuesView
from typing import Any

from tierkit.cache.values import MISSING, V, ValueMethods


class _Values(ValuesView[V]):
    """The values, read in one pass: one that expires on the way is left out."""

    _mapping: MappingMethods[V]

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self._mapping._pairs())

    def __contains__(self, value: object) -> bool:
        return any(held == value for held in self)


class _Items(ItemsView[str, V]):
    """The keys with their values, read in one pass."""

    _mapping: MappingMethods[V]

    def __iter__(self) -> Iterator[tuple[str, V]]:
        return self._mapping._pairs()


class MappingMethods(ValueMethods[V], MutableMapping[str, V]):
    """A mapping of keys to values: those of one namespace that have not expired."""

    def __getitem__(self, key: str) -> V:
        """The value of `key`, a copy of one's own; raises `KeyError` if there is none."""
        value: V = self.get(key, MISSING)
        if value is MISSING:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: V) -> None:
        """As `set`."""
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        """As `delete`; raises `KeyError` if there is no value."""
        if not self.delete(key):
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        """Whether there is a value for `key`. Counts as no read. Blocks on I/O."""
        return isinstance(key, str) and bool(key) and self.manager.peek(self._names.stored(key)) is not None

    def __iter__(self) -> Iterator[str]:
        """The keys, in any order. Counts as no read. Blocks on I/O at each step; memory does not grow."""
        return (key for key, _ in self._entries())

    def __len__(self) -> int:
        """How many values there are: all records are looked at."""
        return sum(1 for _ in self)

    def __bool__(self) -> bool:
        """True: an empty cache is a cache."""
        return True

    def __eq__(self, other: object) -> bool:
        """Whether it is the same object: what a cache holds changes by itself."""
        return self is other

    def __hash__(self) -> int:
        """By identity."""
        return id(self)

    def values(self) -> ValuesView[V]:
        """The values, in any order. Count as no reads."""
        return _Values(self)

    def items(self) -> ItemsView[str, V]:
        """The keys with their values, in any order. Count as no reads."""
        return _Items(self)

    def pop(self, key: str, default: Any = MISSING) -> Any:
        """Remove the value of `key` and answer it: no two callers get the same. Blocks on I/O.

        Raises:
            KeyError: There is none, and no `default`.
            SchemaMismatchError: It is not of the type of the cache's values. It stays.
        """
        stored = self._names.stored(key)
        held = self.manager.peek(stored)
        if held is not None:
            self._codec.decode(key, held.encoded)  # first: what cannot be answered stays
        entry = self.manager.pop(stored)
        if entry is not None:
            return self._codec.decode(key, entry.encoded)
        if default is MISSING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[str, V]:
        """Remove any one value and answer it with its key.

        Raises:
            KeyError: There is none.
        """
        for key in self:
            value = self.pop(key, MISSING)
            if value is not MISSING:
                return key, value
        raise KeyError("the cache is empty")

    def setdefault(self, key: str, default: Any = None) -> V:
        """The value of `key`; if there is none, `default`, which is kept then: of many who do so at once, one's."""
        value: V = self.get(key, MISSING)
        return self._decoded(key, self._added(key, default, None)[0]) if value is MISSING else value

    def _pairs(self) -> Iterator[tuple[str, V]]:
        return ((key, self._codec.decode(key, entry.encoded)) for key, entry in self._entries())
