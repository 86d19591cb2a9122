"""The memory tier: live entries in a dictionary, evicted in the order of a policy."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import inf
from typing import ClassVar, Final, NoReturn

from pydantic import BaseModel, ConfigDict

from tierkit import (
    ANY_POLICY,
    CacheEntry,
    CacheTier,
    Delta,
    EvictionPolicy,
    PluginError,
    TierContext,
    TierReadOnly,
    TierSpec,
    TierUnavailable,
    Trait,
    delete_refusal,
    hookimpl,
    key_digest,
    refusal,
)

__all__ = ["MemoryCacheTier", "MemoryOptions", "register_tiers"]

_MARKS: Final = 10_000
"""How many marks are kept at least; more, if the tier may hold more entries than that."""
_LOOKED_AT: Final = 250  # entries in one step of a purge: cold ones take a microsecond each,
_REMOVED: Final = 25  # of which as many are removed at most


class MemoryCacheTier(CacheTier[CacheEntry]):
    """Holds the entries themselves, as they are put. Thread-safe; `get` takes no lock.

    Marks are kept in memory too: the newest 10,000, or as many as `max_entries` if that is more, so that evictions at a
    high rate do not fill memory with marks. Beyond these, the engine's rule for filling the first level keeps late
    writes out.
    """

    traits: ClassVar[Trait] = Trait.LIVE

    def __init__(self, context: TierContext) -> None:
        """Hold nothing yet.

        Raises:
            CacheConfigError: There is no such eviction policy.
        """
        super().__init__(context)
        self._entries: dict[str, CacheEntry] = {}
        self._order = context.new_policy()
        self._marks: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._most_marks = max(_MARKS, context.max_entries or 0)
        self._now = context.now
        self._limit: float = inf if context.max_entries is None else context.max_entries
        self._refusing = context.read_only
        self._closed = False
        self._get_by(_finder(self._entries, self._order))

    def get(self, key: str) -> CacheEntry | None:
        """The entry held for `key`, or None; a use of it, for a policy that counts reads. O(1), no lock."""
        raise NotImplementedError  # the constructor puts a faster function in its place

    def get_many(self, keys: Iterable[str]) -> dict[str, CacheEntry]:
        """What is held of `keys`, by key."""
        get = self.get
        return {key: entry for key in keys if (entry := get(key)) is not None}

    def put(self, record: CacheEntry) -> int | None:
        """Hold `record` if nothing newer is known; a use of it. It replaces the object held, usage included. O(1)."""
        with self.lock:
            if self._refusing:
                self._refuse()
            return self._put(record)

    def put_many(self, records: Sequence[CacheEntry]) -> list[int | None]:
        """Put each record in order, under one lock."""
        with self.lock:
            if self._refusing:
                self._refuse()
            return [self._put(record) for record in records]

    def delete(self, key: str, version: int) -> int | None:
        """Hold nothing for `key` up to `version`, and set the mark. O(1)."""
        with self.lock:
            if self._refusing:
                self._refuse()
            refused = delete_refusal(version, self._entries.get(key), self._mark(key))
            if refused is None:
                self._remove(key, version + 1)
            return refused

    def replace(self, record: CacheEntry, expected_version: int) -> bool:
        """Compare and set. O(1)."""
        with self.lock:
            if self._refusing:
                self._refuse()
            held = self._entries.get(record.key)
            return (held.version if held else 0) == expected_version and self._put(record) is None

    def discard(self, record: CacheEntry) -> bool:
        """Remove the entry if it still has this version; the same version may come back. O(1)."""
        key, version = record.key, record.version
        with self.lock:
            if self._refusing:
                self._refuse()
            held = self._entries.get(key)
            if held is None or held.version != version:
                return False
            self._remove(key, version)
            return True

    def overflow(self) -> list[CacheEntry]:
        """The entries to evict, coldest first. O(1) while there are none.

        Raises:
            PluginError: The policy goes on naming a key that was removed, or names none.
        """
        entries, limit = self._entries, self._limit
        if len(entries) <= limit:
            return []
        self._check_open()
        removed: set[str] = set()
        with self.lock:
            order = self._order
            while (excess := int(len(entries) - limit)) > 0:
                keys = list(islice(order.coldest(excess), excess))
                if not keys:
                    self._refuse_policy(_names_none(len(entries), limit))
                try:
                    return [entries[keys[0]]] if len(keys) == 1 else [entries[key] for key in keys]
                except KeyError:
                    for key in [key for key in keys if key not in entries]:
                        self._note_removed(key, removed)
                        order.remove(key)  # left by a `put` or a removal that was interrupted
            return []

    def evict(self) -> list[CacheEntry]:
        """Discard the entries that are too many, in one step; answer them, coldest first. O(1) for each.

        Raises:
            PluginError: The policy goes on naming a key that was removed, or names none.
        """
        entries, limit = self._entries, self._limit
        if len(entries) <= limit:
            return []
        evicted: list[CacheEntry] = []
        removed: set[str] = set()
        with self.lock:
            if self._refusing:
                self._refuse()
            pop, now = self._order.pop, self._now()
            while len(entries) > limit and (key := pop()) is not None:
                victim = entries.pop(key, None)
                if victim is not None:
                    self._keep_mark(key, victim.version, now)
                    evicted.append(victim)
                elif evicted and key in removed:
                    break  # an error would hide what has gone: the next call raises it
                else:  # it was left by a `put` or a removal that was interrupted
                    self._note_removed(key, removed)
            if not evicted and len(entries) > limit:
                self._refuse_policy(_names_none(len(entries), limit))
        return evicted

    def touch_many(self, deltas: Mapping[str, Delta]) -> None:
        """Do nothing: a live entry owns its usage, which the engine counts in it."""

    def scan(self) -> Iterator[CacheEntry]:
        """Every entry held."""
        entries = self._entries
        return (entry for key in self.keys() if (entry := entries.get(key)) is not None)

    def keys(self) -> Iterator[str]:
        """The key of every entry held when it was called."""
        self._check_open()
        return iter(list(self._entries))

    def size(self) -> int:
        """How many entries are held. O(1)."""
        self._check_open()
        return len(self._entries)

    def purge_in_steps(self, now: float) -> Iterator[int]:
        """Discard the entries whose `purge_at` has come, and forget old marks. The lock is held for one at a time."""
        get, keys = self._entries.get, list(self.keys())
        for start in range(0, len(keys), _LOOKED_AT):
            held = map(get, keys[start : start + _LOOKED_AT])
            due = [entry for entry in held if entry is not None and entry.purge_at <= now]
            for first in range(0, len(due) or 1, _REMOVED):
                yield sum([self.discard(entry) for entry in due[first : first + _REMOVED]])
        while self._forget_some(now - self.context.tombstone_seconds):
            yield 0

    def highest_version(self) -> int:
        """The highest version held by an entry or known by a mark, or 0."""
        with self.lock:
            deleted = max((mark - 1 for mark, _ in self._marks.values()), default=0)
            return max(super().highest_version(), deleted)

    def close(self) -> None:
        """Let go of every entry, and refuse every call from now on."""
        with self.lock:
            self._closed = self._refusing = True
            self._limit = -1  # so that `overflow` looks twice
            self._get_by(_closed(self.context.name))
            self._entries.clear()
            self._marks.clear()
            self._order = self.context.new_policy()

    def _get_by(self, find: Callable[[str], CacheEntry | None]) -> None:
        # Each L1 hit calls `get`: a function made for the policy saves a quarter of a method's time.
        self.get = find  # type: ignore[method-assign, assignment]  # it takes the place of the method

    def _put(self, record: CacheEntry) -> int | None:
        key = record.key
        refused = refusal(record, self._entries.get(key), self._mark(key))
        if refused is None:
            self._order.admit(key)  # first, so that a `get` which finds the entry finds the key in the order
            self._entries[key] = record
            self._marks.pop(key, None)
        return refused

    def _remove(self, key: str, mark: int) -> None:
        """Hold nothing for `key`, and take only versions from `mark` on."""
        self._entries.pop(key, None)
        self._order.remove(key)
        self._keep_mark(key, mark, self._now())

    def _note_removed(self, key: str, removed: set[str]) -> None:
        if key in removed:
            self._refuse_policy(
                f"names a key that is not held ({key_digest(key)}) again after it was removed: "
                "mend its `remove` or `coldest`"
            )
        removed.add(key)

    def _refuse_policy(self, fault: str) -> NoReturn:
        raise PluginError(f"eviction policy {self.context.eviction_policy!r} {fault}")

    def _keep_mark(self, key: str, mark: int, now: float) -> None:
        marks = self._marks
        if key in marks:
            del marks[key]
        marks[key] = (mark, now)
        if len(marks) > self._most_marks:
            marks.popitem(last=False)

    def _forget_some(self, oldest: float) -> bool:
        """Forget some marks set up to `oldest`; answer whether there may be more of them."""
        with self.lock:
            marks = self._marks
            old = [key for key, (_, marked_at) in islice(marks.items(), _REMOVED) if marked_at <= oldest]
            for key in old:
                del marks[key]
            return len(old) == _REMOVED

    def _mark(self, key: str) -> int:
        found = self._marks.get(key)
        if found is None:
            return 0
        mark, marked_at = found
        return mark if mark and marked_at + self.context.tombstone_seconds > self.context.now() else 0

    def _check_open(self) -> None:
        if self._closed:
            raise _closed_error(self.context.name)

    def _refuse(self) -> NoReturn:
        self._check_open()
        raise TierReadOnly(f"{self.context.name}: the tier was opened read-only")


class MemoryOptions(BaseModel):
    """The memory tier has no settings of its own."""

    model_config = ConfigDict(extra="forbid")


@hookimpl
def register_tiers() -> list[TierSpec]:
    """The memory tier."""
    return [
        TierSpec(
            kind="memory",
            factory=lambda context, options: MemoryCacheTier(context),  # noqa: ARG005 - there are none
            options=MemoryOptions,
            traits=MemoryCacheTier.traits,
            api=1,
            summary="live entries in memory",
            eviction_policies=ANY_POLICY,
            default_policy="s3fifo",
        )
    ]


def _finder(entries: dict[str, CacheEntry], order: EvictionPolicy) -> Callable[[str], CacheEntry | None]:
    """The fastest `get` there is for a policy."""
    if not order.counts_hits:
        return entries.get
    hit = order.hit

    def get(key: str) -> CacheEntry | None:
        try:
            entry = entries[key]
            hit(key)
        except KeyError:  # not there, or removed between the two steps
            return None
        return entry

    return get


def _names_none(held: int, limit: float) -> str:
    return f"names no key that is held, though there are {held} of {limit}: mend its `coldest`"


def _closed(name: str) -> Callable[[str], CacheEntry | None]:
    def get(_: str) -> CacheEntry | None:
        raise _closed_error(name)

    return get


def _closed_error(name: str) -> TierUnavailable:
    return TierUnavailable(f"{name}: the tier has been closed")
