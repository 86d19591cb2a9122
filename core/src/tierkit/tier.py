"""The contract of a storage backend.

A tier is storage only: no TTL arithmetic, no statistics, no encryption, no retries, no knowledge of its neighbours. It
never calls the engine, and holds no lock while anyone else runs. It raises, never swallows: `TierUnavailable`,
`TierFull`, `TierReadOnly`, `TierTimeout` for its own trouble, `TierCorrupt` for one record's.

Writes of a key are ordered by version, not by locks. For each key a tier holds at most one record and keeps a *mark*,
the lowest version that it still takes: a delete at version v sets v + 1, a discard at v sets v. Marks are kept for
`context.tombstone_seconds`, in the storage where that is persistent. Without them a late write would bring a deleted
or evicted version back.

To write a tier, subclass `CacheTier` and write five methods, or subclass `tierkit.blob.BlobTier` and write load, store,
remove and iterate, which know of marks already. Everything else has a default that is slow, and correct for what the
five can tell it. They cannot tell it of marks: a tier that keeps marks overrides `highest_version`, where they count,
and `purge_in_steps` (or `purge`), which forgets them. Nor of reads: a tier with the trait `LIVE` that evicts by use
overrides `overflow`. `tierkit.testing.TierContract` tests what you wrote.
"""

from __future__ import annotations

import enum
import heapq
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from types import TracebackType
from typing import Any, ClassVar, Final, Generic, Literal, Self, TypeVar, cast

from pydantic import BaseModel

from tierkit.errors import CacheConfigError, PluginError, TierCorrupt
from tierkit.eviction import EVICTION_POLICIES, EvictionPolicy, PolicyFactory, Unordered, last_used
from tierkit.findings import Finding
from tierkit.query import Query
from tierkit.row import ColumnType, Delta, Record, Row, with_usage

API_VERSION: Final = 1
"""The version of this contract. A tier whose `TierSpec` says that it was written for another one is refused by name."""

QUERY_STEP: Final = 256
"""Records that a default `query` reads at once, where it holds no more than their keys."""
PURGE_STEP: Final = 64
"""Records that a default purge looks at in one step."""
_MOST_FAILURES: Final = 8  # of single records; more are the tier's trouble, and each may cost a time-out

ANY_POLICY: Final = frozenset({"*"})
"""For `TierSpec.eviction_policies`: every policy that ships or that a plugin registers."""

Durability = Literal["full", "process", "none"]
"""What an acknowledged write survives: a power cut, the death of the process, or nothing."""

R = TypeVar("R", bound=Record)


class Trait(enum.Flag):
    """Claims that a tier makes about itself. The contract tests try to refute them, in both directions."""

    NONE = 0
    PERSISTENT = enum.auto()
    """What it holds outlives the tier object. Where any level has it the lowest must: that is the authority."""
    CRASH_SAFE = enum.auto()
    """An acknowledged write outlives kill -9 of the process.

    The engine lets such a tier stand in for an authority below that cannot be written, and hold the writes that wait
    under write-behind and demote-only. The authority of a cache with `durability = "full"` must have it.
    """
    SHARED = enum.auto()
    """Many processes may open it at once; put, delete and replace are atomic between them.

    The engine looks into such a tier for writes that another process left there for the authority. Where the authority
    has it, a victim is compared with it before it is copied down into a level between.
    """
    LIVE = enum.auto()
    """It holds live entries of this process, not rows. It must stand above all tiers that store rows."""
    NATIVE_TTL = enum.auto()
    """It drops records at `purge_at` by itself. Nothing in the engine depends on it yet."""
    QUERYABLE = enum.auto()
    """It answers `query` and `count` by itself, by an index where there is one, and does not go over every record."""
    WATCHABLE = enum.auto()
    """It can tell of writes made by other processes. Nothing depends on it yet."""


@dataclass(frozen=True, kw_only=True)
class TierContext:
    """What a tier is told when it is made.

    Attributes:
        name: The level's name, for messages: L1, L2, ...
        namespace: Keeps entry types apart in one storage: a table, a folder, a key prefix. An identifier; one may be
            the beginning of another. Several are open at once.
        columns: The columns that the entry type declares, with their types, in order. A row may hold others, which are
            kept as well: those of an earlier class, and the engine's own, whose names begin with "tierkit.". They say
            that the authority is owed the row; its `purge_at` is infinite until it has it.
        max_entries: The bound that `overflow` goes by; None for none.
        eviction_policy: Which record `overflow` names first, by name.
        policy_factory: What makes that policy, where a plugin brought it; None for those that ship.
        durability: What an acknowledgement must mean.
        tombstone_seconds: How long a mark is kept.
        read_only: Create, repair, and write nothing; a storage that is not there reads as empty.
        beside: The rows are the engine's own, kept beside the records, such as leases: options of the tier that speak
            of the records' columns do not concern them.
        now: The time, in POSIX seconds. Use no other clock.
    """

    name: str = "tier"
    namespace: str = "entries"
    columns: Mapping[str, ColumnType] = field(default_factory=dict)
    max_entries: int | None = None
    eviction_policy: str = "lru"
    policy_factory: PolicyFactory | None = None
    durability: Durability = "process"
    tombstone_seconds: float = 900.0
    read_only: bool = False
    beside: bool = False
    now: Callable[[], float] = time.time

    def new_policy(self) -> EvictionPolicy:
        """A policy as configured, for a tier that keeps its keys in order; without a bound one that keeps nothing.

        Raises:
            CacheConfigError: There is no policy of that name.
            PluginError: What a plugin offers under that name makes no policy.
        """
        make = self.policy_factory or EVICTION_POLICIES.get(self.eviction_policy)
        if make is None:
            known = ", ".join(sorted(EVICTION_POLICIES))
            raise CacheConfigError(f"{self.name}: no eviction policy {self.eviction_policy!r}; there are {known}")
        if self.max_entries is None:
            return Unordered()
        try:
            policy: object = make(self.max_entries)
        except Exception as error:
            failure = f"{type(error).__name__}: {error}"
            raise PluginError(f"eviction policy {self.eviction_policy!r} could not be made: {failure}") from error
        made = f"eviction policy {self.eviction_policy!r} made a {type(policy).__name__}"
        if not isinstance(policy, EvictionPolicy):
            raise PluginError(f"{made}, which is no EvictionPolicy")
        if not callable(getattr(policy, "hit", None)):  # not abstract, since some set it on the object
            raise PluginError(f"{made} without a method `hit`: write one, which may do nothing")
        return policy


class CacheTier(ABC, Generic[R]):
    """A storage backend. `R` is `Row`, or `CacheEntry` for a tier with the trait `LIVE`.

    **Locks.** Any thread may call any method at any time. The defaults that look and then write (`replace`, `discard`,
    `evict`, `touch_many`) hold `self.lock`, which is reentrant. They are atomic between the threads of a process only
    where `put` and `delete` hold it too: do so, or override `replace`, `discard` and `touch_many` as well. Read
    `self.lock` each time and keep no copy: after a fork it may be another. A tier with the trait `SHARED` makes put,
    delete and replace atomic between processes. Methods may block on I/O but not without a time limit.

    **Limits.** A key has 1 to 4096 characters of any kind and is compared exactly. The text and the bytes of a record
    are at most 960 * 1024 characters and bytes, before secrets are sealed, which makes these a third longer. Versions
    and marks have up to 63 bits, more than a double holds. `purge_at` may be infinite.

    Attributes:
        traits: What its tiers claim about themselves; the `TierSpec` says the same.
        context: What it was told when it was made.
        lock: Held by the defaults: see above.

    Raises:
        TierUnavailable: From any method: the storage is out of reach or broken, or the tier has been closed.
        TierTimeout: From any method: the storage, or a lock on it, did not answer in time.
        TierFull: From a method that writes: there is no room left.
        TierReadOnly: From a method that writes: the storage does not allow it, or `context.read_only` is true.
        TierCorrupt: From `get` and, by way of it, from the defaults of `replace` and `discard`: one record is damaged.
    """

    traits: ClassVar[Trait] = Trait.NONE

    def __init__(self, context: TierContext) -> None:
        """Keep the context; make the lock that the defaults use."""
        self.context = context
        self.lock = threading.RLock()

    # -- the five that a tier must write ---------------------------------------------------------------------------

    @abstractmethod
    def get(self, key: str) -> R | None:
        """The record held for `key`, or None.

        Raises:
            TierCorrupt: What is held cannot be decoded. It has been set aside: the next call answers None.
        """

    @abstractmethod
    def put(self, record: R) -> int | None:
        """Hold `record` if nothing newer is known: see `refusal`. Never evicts.

        Usage is merged with that of the record it replaces, by the larger value.

        Returns:
            None if taken, else the version that refused.
        """

    @abstractmethod
    def delete(self, key: str, version: int) -> int | None:
        """Hold nothing for `key` up to `version`, and set the mark to `version + 1`, held record or not.

        Returns:
            None if taken, else the newer version that refused.
        """

    @abstractmethod
    def scan(self) -> Iterator[R]:
        """Every record held, in any order, each once; what cannot be decoded is left out.

        Records written or removed meanwhile may or may not be seen; the others all are. No lock is held between two
        steps, and memory does not grow with the number of records beyond their keys.
        """

    @abstractmethod
    def close(self) -> None:
        """Release everything. May be called twice."""

    # -- defaults: slow; `purge`, `highest_version` and `overflow` say what they cannot know -----------------------

    def get_many(self, keys: Iterable[str]) -> dict[str, R]:
        """What is held of `keys`, by key. Records that cannot be decoded are left out."""
        found = {}
        for key in keys:
            try:
                record = self.get(key)
            except TierCorrupt:
                continue
            if record is not None:
                found[key] = record
        return found

    def put_many(self, records: Sequence[R]) -> list[int | None]:
        """Put each record in order; the answers in the same order. Atomic one by one, not as a whole."""
        return [self.put(record) for record in records]

    def delete_many(self, versions: Mapping[str, int]) -> dict[str, int]:
        """Delete each key at its version. Answers what refused, by key: empty if all were taken."""
        answers = {key: self.delete(key, version) for key, version in versions.items()}
        return {key: refused for key, refused in answers.items() if refused is not None}

    def replace(self, record: R, expected_version: int) -> bool:
        """Compare and set: put `record` if the version held for its key is `expected_version` (0: none). Atomic.

        Returns:
            Whether it was put.
        """
        with self.lock:
            held = self.get(record.key)
            if (held.version if held else 0) != expected_version:
                return False
            return self.put(record) is None

    def replace_many(self, replacements: Sequence[tuple[R, int]]) -> list[bool]:
        """`replace` each record by the version expected with it, in order; the answers in the same order.

        Atomic one by one, not as a whole. Where what is held cannot be decoded the answer is False.
        """

        def replaced(record: R, expected_version: int) -> bool:
            with suppress(TierCorrupt):
                return self.replace(record, expected_version)
            return False

        return [replaced(record, expected_version) for record, expected_version in replacements]

    def discard(self, record: R) -> bool:
        """Remove what is held for `record.key` if it still has `record.version`, and set the mark to that version.

        The record lives on elsewhere, so the same version may come back. This default sets the mark of a deletion, so
        that it may not, for as long as marks are kept: correct, but it costs hits.

        Returns:
            Whether a record was removed.
        """
        with self.lock:
            held = self.get(record.key)
            if held is None or held.version != record.version:
                return False
            return self.delete(record.key, record.version) is None

    def overflow(self) -> list[R]:
        """The records to evict so that `context.max_entries` holds, coldest first. Removes none.

        This default goes by the `last_accessed` of rows. It knows no reads of live entries: a tier with the trait
        `LIVE` notes them in `get`, and overrides it.
        """
        limit = self.context.max_entries
        if limit is None:
            return []
        records = list(self.scan())
        cold = coldness(self.context.eviction_policy)
        return heapq.nsmallest(max(0, len(records) - limit), records, key=cold)

    def evict(self) -> list[R]:
        """Discard what `overflow` names. The engine does so where nothing is to be done with a victim before it goes.

        Returns:
            The records that were removed, coldest first.
        """
        with self.lock:
            return [victim for victim in self.overflow() if self.discard(victim)]

    def touch_many(self, deltas: Mapping[str, Delta]) -> None:
        """Add usage to the records held; keys that are not held are left out. Changes no version."""
        for key, delta in deltas.items():
            with self.lock, suppress(TierCorrupt):
                held = self.get(key)
                if isinstance(held, Row):
                    self.put(cast("R", with_usage(held, held.access_count + delta.count, delta.last_accessed)))

    def purge(self, now: float) -> int:
        """Discard every record whose `purge_at` has come by `now`, and forget marks that are old enough by then.

        This default does what `purge_in_steps` does, to its end.

        Returns:
            How many records were removed.
        """
        return sum(self.purge_in_steps(now))

    def purge_in_steps(self, now: float) -> Iterator[int]:
        """As `purge`, in steps that are short (a millisecond or so), telling after each how many records it removed.

        Between two steps no lock is held, and the caller may rest, write to the tier, or stop. A record that cannot be
        removed does not keep the others: its error is raised at the end, or when there are several such. A tier
        that overrides `purge` alone is purged in one step.

        This default forgets no marks, for it knows of none: a tier that keeps marks overrides this or `purge`.
        """
        failures: list[Exception] = []
        records = iter(self.scan())
        while some := list(islice(records, PURGE_STEP)):
            yield sum([purged(partial(_discard_due, self, record, now), failures) for record in some])
        if failures:
            raise failures[0]

    def query(self, query: Query) -> Iterator[R]:
        """The records that `query` asks for, in its order; else like `scan`: no use of them, no lock between two steps.

        This default goes over every record. It holds those that it answers where `query.is_held_whole`, and else the
        keys of all that match with what orders them.
        """
        if query.is_held_whole or Trait.LIVE in self.traits:  # what is live is in memory as it is
            return query.answer(self.scan())
        return islice(self._in_order(query), query.limit)

    def _in_order(self, query: Query) -> Iterator[R]:
        matching = filter(query.matches, self.scan())
        keys = (position[-1] for position in sorted(map(query.position, matching), reverse=query.descending))
        while some := list(islice(keys, QUERY_STEP)):
            found = self.get_many(some)
            yield from (record for key in some if (record := found.get(key)) is not None and query.matches(record))

    def count(self, query: Query) -> int:
        """How many records match `query`, whose order and limit do not count."""
        return sum(map(query.matches, self.scan()))

    def keys(self) -> Iterator[str]:
        """The key of every record held; else like `scan`."""
        return (record.key for record in self.scan())

    def size(self) -> int:
        """How many records are held."""
        return sum(1 for _ in self.keys())

    def clear(self) -> None:
        """Delete every record at its own version."""
        for record in self.scan():
            self.delete(record.key, record.version)

    def highest_version(self) -> int:
        """The highest version held by a record or known by a mark, or 0.

        This default knows of no marks: a tier that keeps them overrides it.
        """
        return max((record.version for record in self.scan()), default=0)

    def compact(self) -> None:
        """Write anew what is held, so that nothing that was replaced or removed is left in the storage.

        The engine asks for it when keys have been changed. Readers and writers go on meanwhile, or wait for as long as
        they would for a writer. This default does nothing: right for storage that keeps no old bytes.
        """

    def bytes_on_disk(self) -> int | None:
        """What the storage occupies, in bytes, or None where that has no meaning."""
        return None

    def __enter__(self) -> Self:
        """The tier itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()


@dataclass(frozen=True, kw_only=True)
class TierSpec:
    """What a plugin registers for each kind of tier that it offers.

    Attributes:
        kind: The name by which a configuration asks for it (`backend = "..."`).
        factory: Makes the tier; imports what it needs when it is called, not before.
        options: A pydantic model of the settings of this kind; unknown ones are refused. None may be called as a
            setting of every level is: name, backend, enabled, max_entries, eviction_policy, admission, write_policy,
            timeout_seconds.
        traits: The traits of the tiers it makes.
        api: The version of the contract that it was written for, as a number: `api=1`. Never `API_VERSION`:
            that is of the tierkit which it happens to be installed with.
        summary: One line for `tierkit plugins`.
        eviction_policies: Those that its `overflow` honours, by name; `ANY_POLICY` for a tier that asks
            `TierContext.new_policy`.
        default_policy: The one that a level has if its configuration asks for none.
        examine: For `tierkit doctor`: looks at the storage as it lies there, whether a tier has it open, and whether
            one could open it. Yields what is wrong with it, each with a repair if there is one; nothing if it is sound,
            not there, or in use. Called with a context that is read-only, and the options; changes nothing itself.
            None where only the rows are looked at.
    """

    kind: str
    factory: Callable[[TierContext, Any], CacheTier[Any]]
    options: type[BaseModel]
    traits: Trait
    api: int
    summary: str = ""
    eviction_policies: frozenset[str] = frozenset({"lru", "fifo"})
    default_policy: str = "lru"
    examine: Callable[[TierContext, Any], Iterator[Finding]] | None = None


def refusal(record: Record, held: Record | None, mark: int) -> int | None:
    """Whether a put of `record` is refused where `held` is held and `mark` is kept (0: none).

    An older version never wins. An equal one is taken when its content is equal, and refused when it is different or
    when a deletion has it.

    Returns:
        None if it must be taken, else the version that refuses.
    """
    if held is None or held.version < record.version:
        return mark - 1 if record.version < mark else None
    if held.version == record.version and _same(record, held):
        return None
    return held.version


def delete_refusal(version: int, held: Record | None, mark: int) -> int | None:
    """Whether a delete at `version` is refused: as `refusal` says for a put."""
    if held is not None and held.version > version:
        return held.version
    return mark - 1 if mark > version + 1 else None


def known_version(tier: CacheTier[Any], key: str) -> int:
    """The newest version that `tier` knows of `key`, by a record or a mark, or 0. Removes nothing; blocks on I/O."""
    return tier.delete(key, 0) or 0


def purge_steps(tier: CacheTier[Any], now: float) -> Iterator[int]:
    """The steps of a purge of `tier`: its own, or a single one if its class overrides `purge` and not the steps."""
    own = next(vars(base) for base in type(tier).__mro__ if {"purge", "purge_in_steps"} & vars(base).keys())
    if "purge_in_steps" in own:
        yield from tier.purge_in_steps(now)
    else:
        yield tier.purge(now)


def purged(purge: Callable[[], bool], failures: list[Exception]) -> bool:
    """Purge one record. What goes wrong with it is added to `failures`, and raised once there are too many."""
    try:
        return purge()
    except TierCorrupt:
        return False  # the tier has set it aside
    except Exception as error:
        failures.append(error)
        if len(failures) == _MOST_FAILURES:
            raise
        return False


def coldness(eviction_policy: str) -> Callable[[Record], tuple[float, int]]:
    """A sort key that puts first what `eviction_policy` ("lru" or "fifo") evicts first.

    Raises:
        CacheConfigError: It is another, which goes by more than a record shows: see `TierContext.new_policy`.
    """
    if eviction_policy == "fifo":
        return lambda record: (0.0, record.version)
    if eviction_policy != "lru":
        raise CacheConfigError(f"eviction policy {eviction_policy!r}: this tier has fifo and lru")
    return lambda record: (_last_used(record), record.version)


def _discard_due(tier: CacheTier[Any], record: Record, now: float) -> bool:
    return record.purge_at <= now and tier.discard(record)


def _last_used(record: Record) -> float:
    return last_used(record.version, record.last_accessed if isinstance(record, Row) else 0.0)


def _same(record: Record, held: Record) -> bool:
    return record.same_content(held) if isinstance(record, Row) and isinstance(held, Row) else record == held
