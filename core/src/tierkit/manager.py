"""`CacheManager`: the face of the engine."""

from __future__ import annotations

import logging
import os
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar, overload

from tierkit.bulk import Bulk, OnInvalid
from tierkit.checks import check_checker, check_entry, check_key, check_keys, check_results
from tierkit.clearing import Clearing
from tierkit.clock import CacheTime, Clock, SystemClock
from tierkit.comparing import Comparing
from tierkit.config import CacheConfig
from tierkit.entry import CacheEntry, ProxyEntry
from tierkit.errors import CacheClosedError, CacheConfigError, TierReadOnly, TierUnavailable
from tierkit.expiry import TTLManager, deadline_of
from tierkit.forking import in_child
from tierkit.health import Health, HealthResult, Outcome
from tierkit.level import Level
from tierkit.merging import Merging
from tierkit.observers import Observers
from tierkit.opening import open_stack
from tierkit.plugins import PluginRegistry, discover
from tierkit.recovery import recover
from tierkit.sliding import Sliding
from tierkit.stack import Found, Stack
from tierkit.statistics import CacheStatistics, new_counters
from tierkit.sweeper import Sweeper
from tierkit.timing import Latencies, measured, time_cache, time_level
from tierkit.writing import Writer

if TYPE_CHECKING:
    from tierkit.checking import Checker, CheckResult, CheckRun, OnChecked
    from tierkit.rotation import KeyStatus, OnRotated, RotationResult
    from tierkit.transfer import OnProgress, WarmResult

logger = logging.getLogger("tierkit")

E = TypeVar("E", bound=CacheEntry)


class CacheManager(Generic[E]):
    """A stack of tiers that holds one type of entry.

    Opened when it is made; close it, or use it in a `with` statement. All methods may be called from many threads.
    Those that go below L1 block on I/O. After `close` every call raises `CacheClosedError`, and whatever would write to
    a cache that was opened read-only raises `TierReadOnly`.

    Attributes:
        config: What it was opened by.
        entry_type: The class of its entries.
        read_only: Whether it was opened so.
        ttl: The rules that give deadlines; they may be changed while it runs, for what is put from then on.
    """

    @overload
    def __init__(
        self: CacheManager[ProxyEntry],
        config: CacheConfig | None = ...,
        *,
        read_only: bool = ...,
        clock: Clock = ...,
        plugins: Sequence[object] = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        config: CacheConfig | None = ...,
        *,
        entry_type: type[E],
        read_only: bool = ...,
        clock: Clock = ...,
        plugins: Sequence[object] = ...,
    ) -> None: ...

    def __init__(
        self,
        config: CacheConfig | None = None,
        *,
        entry_type: type[Any] = ProxyEntry,
        read_only: bool = False,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        plugins: Sequence[object] = (),
    ) -> None:
        """Open the tiers that `config` names.

        Args:
            config: What to open; by default what `CacheConfig.load()` finds.
            entry_type: The class of the entries.
            read_only: Create, repair and change nothing, generate no key, do not sweep. Writing raises `TierReadOnly`.
            clock: Where the time comes from.
            plugins: Plugin modules or objects besides those that are installed.

        Raises:
            CacheConfigError: The configuration cannot work. What was opened is closed again.
            CacheValidationError: The entry type cannot be stored.
            EncryptionKeyError: There is no usable encryption key.
            CacheStorageError: A tier could not be opened.
        """
        self.config = CacheConfig.load() if config is None else _checked(config)
        self.entry_type = entry_type
        self.read_only = read_only
        self._time = CacheTime(clock)
        self._monotonic, self._offset = self._time.monotonic, self._time.offset
        registry = discover(plugins)
        self._stack: Stack[E] = open_stack(self.config, entry_type, self._time, read_only, registry)
        self.ttl = TTLManager(
            self.config.default_ttl_seconds,
            self.config.per_source_ttl,
            jitter=self.config.ttl_jitter,
            grace_seconds=self.config.grace_seconds,
        )
        self._writer: Writer[E] = Writer(self._stack, self.ttl)
        self._comparing: Comparing[E] = Comparing(self._writer)
        self._health: Health[E] = Health(
            self._comparing, self.config.failure_threshold, self.config.enable_health_invalidation
        )
        longest = self.config.sliding_max_seconds
        self._sliding = None if longest is None or read_only else Sliding(self._comparing, longest)
        if len(self._stack.sealer.key_ids) > 1 and not read_only:
            self._stack.reseal = self._resealing()
        self._closed = False
        self._checks: set[CheckRun[E]] = set()
        self._latencies: Latencies = {}
        if self.config.latency_histograms:
            for level in self._stack.levels:
                time_level(level, self._monotonic)
            self._latencies = time_cache(self, self._monotonic)
        self._hot: Callable[[str], E | None] = _nothing
        self._hot_counters = new_counters()
        self._renew()
        in_child(self, CacheManager._renew)
        self._find_hot_path()
        changed = weakref.WeakMethod(self._level_changed)  # a level must not keep a dropped cache alive
        for level in self._stack.levels:
            level.on_change = lambda: (method := changed()) and method()
        background = bool(self._stack.levels) and getattr(clock, "background", True)
        interval = None if read_only else self.config.cleanup_interval_seconds
        self._sweeper = Sweeper(self._stack, interval) if background else None
        self._finalizer = weakref.finalize(self, _dropped_open, self._stack, self._sweeper)
        self._observe(registry)
        self._warm_at_start()

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, key: str, *, allow_stale: bool = False) -> E | None:
        """The entry for `key`, or None if there is none that may be returned.

        A hit in L1 takes no lock. Below, the record is read once for all callers who want it, and promoted.

        Args:
            key: Names the record.
            allow_stale: If no level has a fresh record, take the newest that expired less than `grace_seconds` ago.
                Its `is_stale` is true.

        Raises:
            CacheValidationError: `key` cannot be a key.
        """
        # The whole of an L1 hit, kept in one place: no call but the tier's own look-up and the clock.
        try:
            entry = self._hot(key)
        except Exception:  # noqa: BLE001 - it comes again in the slow path, where it is counted
            entry = None  # the slow path says what is wrong
        if entry is not None:
            now = self._monotonic() + self._offset
            if now < entry._fresh_until:
                usage = entry._usage
                usage.hits += 1
                usage.last_accessed = now
                counters = self._hot_counters
                counters.hits += counters.step
                return entry
        found = self._find(key, allow_stale)
        return None if found is None else found.entry

    def get_with_level(self, key: str, *, allow_stale: bool = False) -> tuple[E | None, str | None]:
        """As `get`, and the name of the level that answered."""
        found = self._find(key, allow_stale)
        return (None, None) if found is None else (found.entry, found.level.name)

    def get_many(self, keys: Iterable[str], *, allow_stale: bool = False) -> dict[str, E]:
        """What `get` finds of `keys`, by key. One after another: no picture of a single moment.

        Blocks on I/O for what is not in L1.

        Args:
            keys: Each counts as a read.
            allow_stale: As for `get`.

        Raises:
            CacheValidationError: A key cannot be one, or `keys` is a single string.
        """
        check_keys(keys)
        get = partial(self.get, allow_stale=True) if allow_stale else self.get
        return {key: entry for key in keys if (entry := get(key)) is not None}

    def keys(self) -> Iterator[str]:
        """The keys of the records that may be returned: of what `scan` finds, and at the cost of that.

        Every row is read and opened, since what has expired or is damaged is left out.

        Raises:
            CacheStorageError: On the way: the level failed.
        """
        return (entry.key for entry in self.scan())

    def scan(self, *, include_expired: bool = False) -> Iterator[E]:
        """Every entry, in any order, from the authority or, while that is out, the lowest level in service.

        Touches neither usage nor statistics. Blocks on I/O at each step and holds no lock between two. What is written
        or removed meanwhile may or may not be seen. Damaged records are evicted, unless the cache is read-only, and
        left out.

        Args:
            include_expired: Also those that expired and are still held.

        Raises:
            CacheStorageError: On the way: the level failed.
        """
        self._check_open()
        now = self._time.now
        return (entry for entry in self._stack.scan() if include_expired or now() < entry._deadline)

    def size(self) -> int:
        """How many records the authority holds, expired ones that were not swept yet included. Blocks on I/O.

        What waits for the authority, under write-behind and demote-only or after an outage, is not counted before it
        has it.

        Raises:
            CacheStorageError: The authority failed.
        """
        self._check_open()
        authority = self._stack.authority
        if authority is None:
            return 0
        if not authority.in_service:
            raise TierUnavailable(f"{authority.name} ({authority.kind}) is out of service; it is tried again by itself")
        return authority.call(authority.tier.size)

    # -- writing -----------------------------------------------------------------------------------------------------

    def put(self, entry: E) -> E:
        """Write `entry`, to the authority first and then to the levels above; what is held for the key is replaced.

        An entry whose deadline has passed is refused: put `entry.renewed()`.

        When it returns, the record is kept as durably as `durability` says: in the authority or, under write-behind and
        demote-only and while the authority cannot be written, in the level that stands in for it; with
        `durability = "none"` that may be memory. `docs/explanation/reliability.md` has the table. The bounds of all
        levels hold, but for what waits for the authority. Blocks on I/O.

        Returns:
            The entry as stored: with version, deadline and times.

        Raises:
            CacheValidationError: The entry cannot be stored. Nothing was written.
            CacheStorageError: Nobody took it. It may or may not be there.
        """
        self._check_writable()
        return self._writer.put(check_entry(entry, self.entry_type))

    def put_many(self, entries: Iterable[E], *, on_invalid: OnInvalid | None = None, merge: bool = False) -> int:
        """Put `entries`, in batches that use the bulk methods of the tiers. Atomic one by one, not as a whole.

        Args:
            entries: Consumed as they are written.
            on_invalid: Called with the position and the error of each entry that cannot be stored, which is then left
                out. Without it the first one raises, after those before it were written.
            merge: Keep the health, the count of failures, `created_at` and the usage of records that are there and
                have not expired, and take the rest from `entries`: as `warm_from_file` does. By compare and set: a
                failure that is counted meanwhile is not lost. Without it what is there is replaced, health included.

        Returns:
            How many were written.

        Raises:
            CacheValidationError: An entry cannot be stored.
            CacheStorageError: Nobody took a batch or, with `merge`, the authority did not; earlier batches are there.
        """
        self._check_writable()
        bulk = Merging(self._comparing, on_invalid) if merge else Bulk(self._writer, on_invalid)
        return bulk.put(entries)

    def delete(self, key: str) -> bool:
        """Remove `key` from every level, the authority first. No late write brings the record back.

        Where `put` would leave the record with a level that stands in for the authority, the deletion is held there.
        Atomic in each level, not over all of them. Blocks on I/O.

        Returns:
            Whether there was a record, as seen just before: another process may have come between.

        Raises:
            CacheValidationError: `key` cannot be a key.
            CacheStorageError: Nobody took it. The record may or may not be there.
        """
        self._check_writable()
        check_key(key)
        present = self._present(key)
        if self._stack.levels:
            self._writer.delete(key)
        return present

    def delete_many(self, keys: Iterable[str]) -> int:
        """Delete each of `keys`, one after another. Atomic one by one, not as a whole. Blocks on I/O.

        Returns:
            How many there were.

        Raises:
            CacheValidationError: A key cannot be one; those before it are deleted. Or `keys` is a single string.
            CacheStorageError: Nobody took a deletion. Those before it are deleted.
        """
        check_keys(keys)
        return sum(self.delete(key) for key in keys)

    def clear(self) -> None:
        """Remove every record from every level, the authority first. Blocks on I/O.

        Not atomic: what is put meanwhile may stay. The keys of all records are held in memory.

        Raises:
            TierUnavailable: The authority is out of service, or did not take what it is owed. Nothing was removed.
            CacheStorageError: It failed on the way. Some records may be gone.
        """
        self._check_writable()
        Clearing(self._writer).clear()

    def invalidate_by_health(self, key: str) -> E | None:
        """Count a failure of the record, mark it UNHEALTHY, and remove it everywhere when the threshold is reached.

        The count is kept by compare and set: no failure is lost between threads or processes, or by a restart. With
        `enable_health_invalidation = false` failures are counted and nothing is removed.

        Returns:
            The entry as it is now, or None if it is not there any more.

        Raises:
            TierUnavailable: The authority is out of service. Nothing was counted.
            CacheStorageError: It failed. The failure may or may not be counted.
        """
        outcome, entry = self._judge(key, healthy=False)
        return None if outcome == "removed" else entry

    def record_success(self, key: str) -> E | None:
        """Mark the record HEALTHY and forget its failures. Nothing is written where that is so already.

        By compare and set, as `invalidate_by_health`.

        Returns:
            The entry as it is now, or None if it is not there.

        Raises:
            TierUnavailable: The authority is out of service. Nothing was changed.
            CacheStorageError: It failed. The record may or may not be changed.
        """
        return self._judge(key, healthy=True)[1]

    def record_health(self, results: Mapping[str, bool]) -> HealthResult:
        """Apply the results of many checks in one sweep: `record_success` for True, `invalidate_by_health` for False.

        In batches of 1000, each a bulk read, a bulk compare and set, and a bulk deletion: in SQLite a transaction, in
        JSON Lines an append per shard. Atomic one by one, not as a whole; counts are as exact as single ones. Blocks
        on I/O.

        Args:
            results: By key, whether the record was found good.

        Returns:
            How many were healthy, unhealthy, removed and missing; and what the storage did not take if it failed on
            the way, to be given again.

        Raises:
            CacheValidationError: It is no mapping, a key cannot be one, or a result is neither True nor False. Nothing
                was applied.
            TierUnavailable: The authority is out of service. Nothing was applied.
        """
        self._check_writable()
        check_results(results)
        return self._health.judge_all(results) if self._stack.levels else HealthResult(missing=len(results))

    def check_all(
        self,
        checker: Checker[E],
        *,
        concurrency: int = 10,
        on_progress: OnChecked | None = None,
        keys: Iterable[str] | None = None,
        timeout_seconds: float | None = None,
        batch_size: int = 1000,
    ) -> CheckResult:
        """Run `checker` over the records that may be returned, and apply what it finds as `record_health` does.

        Memory does not grow with the number of records; each is checked at most once, and what is written meanwhile is
        left for the next run. Reading counts as no use. Blocks until all are checked; in a program with an event loop
        call it by `asyncio.to_thread`. Whatever stops it, what was found by then is applied: an exception of
        `on_progress`, an interrupt, a cache error that the checker raises (these are raised again), `close`.

        Args:
            checker: Called with an entry, answers whether it is good; from many threads at once, so it must be
                thread-safe. A coroutine function runs in tasks on an event loop of its own, in one thread. An
                exception is a failure of the record, logged at DEBUG without its text; a cache error is not. If every
                check raises the same, one WARNING says so.
            concurrency: How many checks are under way at once.
            on_progress: Called in this thread after each check with the records checked and how many there seem to be.
            keys: Check only these.
            timeout_seconds: After how long a check counts as failed; by default it is waited for. A thread cannot be
                ended from outside: it is left to itself, its result is not used and another takes its place. It does
                not hold up the end of the program. When 200 such threads are still there the run stops.
            batch_size: After how many checks their results are applied.

        Returns:
            How many were checked, what became of them, what the storage did not take, and whether the run was complete.

        Raises:
            CacheValidationError: A number is not above 0, a key cannot be one, or the checker cannot be called with an
                entry, or answered neither True nor False.
            CacheStorageError: The authority is out of service: nothing was checked. Or it could not be read on.
        """
        from tierkit.checking import CheckResult, CheckRun, CheckSettings, entries_now, entries_of

        self._check_writable()
        check_checker(checker)
        settings = CheckSettings(concurrency=concurrency, timeout_seconds=timeout_seconds, batch_size=batch_size)
        if keys is not None:
            check_keys(keys)
        if not self._stack.levels:
            return CheckResult()
        authority = self._writer.authority()
        if keys is None:
            self._stack.owing.replay_all()
            total: int | None = authority.call(authority.tier.size)
            entries: Iterator[E | None] = entries_now(self._stack, authority, self.scan())
        else:
            total = len(keys) if isinstance(keys, Sized) else None
            entries = entries_of(self._comparing, keys)
        run = CheckRun(self._health, checker, settings, total, on_progress)
        self._checks.add(run)
        try:
            return run.run(entries)
        finally:
            self._checks.discard(run)

    def warm_from_file(
        self,
        path: str | os.PathLike[str],
        ttl_override: float | None = None,
        *,
        source: str | None = None,
        scheme: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> WarmResult:
        """Put the records of a file: JSON, JSONL, CSV or a list of `host:port` lines, each also gzipped.

        Args:
            path: The file; its ending says the format.
            ttl_override: Seconds to live from now on for all of them, whatever the file says; at most 100 years.
            source: Their source, whatever the file says.
            scheme: The scheme of lines that have none.
            on_progress: Called with the number of records done and the number there are, if known.

        Returns:
            What was found, loaded, skipped and failed, and why.

        Raises:
            TransferError: The file cannot be imported at all.
            CacheStorageError: The authority failed; the records before are there.
            CacheValidationError: An option has a value that cannot work; the file was not read.
        """
        from tierkit.transfer import refusal, warm

        self._check_writable()
        if refused := refusal(path, source, scheme):
            del path, source, scheme  # a traceback may show the locals of the frame that raises
            raise refused
        return warm(
            Path(path),
            entry_type=self.entry_type,
            put_many=partial(self.put_many, merge=True),
            now=self._time.now,
            source=source,
            scheme=scheme,
            ttl_override=ttl_override,
            open_plain=self._stack.sealer.open_plain if self.config.accept else None,
            on_progress=on_progress,
        )

    # -- looking after it ----------------------------------------------------------------------------------------------

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels, from the top."""
        return self._stack.levels

    @property
    def observers(self) -> dict[str, Any]:
        """What watches the cache, by name: see the setting `observers`."""
        return self._stack.observers.by_name

    def get_statistics(self) -> CacheStatistics:
        """What was counted since the cache was opened. Asks the tiers for their sizes."""
        self._check_open()
        tiers = tuple(level.snapshot() for level in self._stack.levels)
        answered = sum(tier.hits for tier in tiers)
        return CacheStatistics(
            name=self.config.name,
            enabled=self.config.enable_statistics,
            requests=answered + self._stack.counters.totals()["misses"],
            answered=answered,
            tiers=tiers,
            intents=len(self._stack.owing.intents),
            latencies=measured(self._latencies),
        )

    def log_statistics(self) -> None:
        """Write the statistics to the log `tierkit`, as one line at INFO. Asks the tiers for their sizes."""
        logger.info("%s", self.get_statistics().summary())

    def recover(self) -> int:
        """Probe the levels that are out of service and whose back-off is over, as the background thread does.

        A level that answers is brought in line with what passed it by, and serves again. To bring one back at once,
        call its `reset_failures`.

        Returns:
            How many levels came back.
        """
        self._check_open()
        return recover(self._stack)

    def flush(self) -> None:
        """Bring usage (counts and times of reads), and writes that wait, to the levels that they are for.

        Blocks on I/O. What a level does not take now is kept, and tried again: that raises nothing. A cache that was
        opened read-only has nothing to bring.
        """
        self._check_open()
        if not self.read_only:
            self._stack.owing.replay_all()  # first: there is no usage of what the authority does not have
            self._stack.settle()  # copies took the place of what was pinned
        self._stack.flush()

    def sweep(self) -> int:
        """Remove what expired from every level now, as the background sweeper does, but without resting.

        Returns:
            How many records were removed, over all levels.
        """
        self._check_writable()
        return self._stack.sweep(paced=False)

    def key_status(self) -> KeyStatus:
        """Which keys are held, and which the stored records name. Reads every level; changes nothing. Blocks on I/O."""
        from tierkit.rotation import key_status

        self._check_open()
        return key_status(self._stack)

    def rotate(self, on_progress: OnRotated | None = None) -> RotationResult:
        """Seal everything that an older key has sealed with the current one, in every level, and compact the tiers.

        The current key is the first of those that are held. Every program that has the storage open must hold it and
        the older ones: then all of them find every record at every moment. Of a record only the version changes. It may
        be stopped and called again at any time; the background thread does the same with records that were read.
        Secrets that another cipher than the one that is set has sealed are sealed anew as well.

        Args:
            on_progress: Called with the records of the authority looked at so far, and how many there seem to be.

        Returns:
            How many records were sealed anew, which keys can go, and what stands against it if they cannot.

        Raises:
            CacheStorageError: The authority is out of service or failed. What was sealed anew stays so.
        """
        from tierkit.rotation import Rotation

        self._check_writable()
        return Rotation(self._comparing).rotate(on_progress)

    def close(self) -> None:
        """Stop the background thread, bring down usage and writes that wait, close the tiers, the authority last.

        Checks that are under way apply what they found and end. Blocks on I/O, and until a sweep has ended its step.
        May be called twice, and by many threads: the first closes.

        Raises:
            CacheStorageError: A tier could not be closed. The others are, and so is the cache.
        """
        with self._close_lock:
            if self._closed:
                return
            for run in list(self._checks):
                run.cancel()
            self._closed = True
            self._find_hot_path()  # so that the next call comes to where it is refused
            self._finalizer.detach()
            self._stack.halt.set()
            if self._sweeper is None:
                self._stack.close()
            else:
                self._sweeper.stop(self._stack.close)

    @staticmethod
    def generate_cache_key(url: str, username: str | None = None) -> str:
        """The key of the proxy at `url` as `username`: see `ProxyEntry.key_for`."""
        return ProxyEntry.key_for(url, username)

    def __contains__(self, key: object) -> bool:
        """Whether `get` would find `key`; counts as a read."""
        return isinstance(key, str) and self.get(key) is not None

    def __bool__(self) -> bool:
        """True: an empty cache is a cache."""
        return True

    def __len__(self) -> int:
        """As `size`."""
        return self.size()

    def __enter__(self) -> Self:
        """The cache itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __reduce__(self) -> NoReturn:
        """Refused: a pickled cache would carry its key."""
        raise TypeError("a CacheManager cannot be pickled: open one in each process")

    # -- inside --------------------------------------------------------------------------------------------------------

    def _find(self, key: str, allow_stale: bool) -> Found[E] | None:
        self._check_open()
        check_key(key)
        found = self._stack.find(key, allow_stale=allow_stale)
        if self._sliding is None or found is None or found.stale:
            return found
        return Found(self._sliding.renew(found.entry), found.level)

    def _renew(self) -> None:
        self._hot_lock = threading.Lock()
        self._close_lock = threading.RLock()

    def _level_changed(self) -> None:
        self._find_hot_path()
        self._stack.alarm()

    def _find_hot_path(self) -> None:
        top = self._stack.levels[0] if self._stack.levels else None
        with self._hot_lock:  # the last one to come sees the latest state, and leaves what fits it
            serves = top is not None and top.live and top.in_service and not top.limited and not self._closed
            self._hot = top.tier.get if top and serves else _nothing
            if self._sliding is not None:
                self._hot = self._sliding.unless_due(self._hot)
            self._hot_counters = top.counters if top else new_counters()

    def _resealing(self) -> Callable[[list[str]], object]:
        from tierkit.rotation import Resealing

        comparing = self._comparing  # and not self: what the stack holds must not keep a dropped cache alive
        return lambda keys: Resealing(comparing).reseal(keys)

    def _judge(self, key: str, *, healthy: bool) -> tuple[Outcome, E | None]:
        self._check_writable()
        check_key(key)
        return self._health.judge(key, healthy) if self._stack.levels else ("missing", None)

    def _present(self, key: str) -> bool:
        authority = self._stack.authority
        owed = self._stack.owing.look(key)
        if owed is not None:
            return owed.row is not None and self._time.now() < deadline_of(owed.row)
        held = self._stack.fetch(authority, key) if authority is not None and authority.in_service else None
        return held is not None and self._time.now() < deadline_of(held)

    def _check_open(self) -> None:
        if self._closed:
            raise CacheClosedError("this cache has been closed")

    def _check_writable(self) -> None:
        self._check_open()
        if self.read_only:
            raise TierReadOnly("this cache was opened with read_only=True")

    def _observe(self, registry: PluginRegistry) -> None:
        method = weakref.WeakMethod(self.get_statistics)  # an observer must not keep a dropped cache alive

        def statistics() -> CacheStatistics:
            if (ask := method()) is None:
                raise CacheClosedError("this cache has been dropped")
            return ask()

        try:
            observers = Observers(self.config.make_observers(registry))
        except BaseException:
            self.close()
            raise
        self._stack.observe(observers)
        observers.tell("on_open", statistics)

    def _warm_at_start(self) -> None:
        try:
            if not self.read_only:
                deque(map(self.warm_from_file, self.config.warm_files), 0)  # no local holds a name: it may be a URL
        except BaseException:
            self.close()
            raise


def _checked(config: object) -> CacheConfig:
    if not isinstance(config, CacheConfig):  # not shown: a dict of settings may hold a key
        raise CacheConfigError(
            f"config must be a CacheConfig, not {type(config).__name__}: CacheConfig.load(path) takes a file,"
            " CacheConfig(name=value, ...) takes settings"
        )
    return config


def _nothing(_: str) -> None:
    return None


def _dropped_open(stack: Stack[Any], sweeper: Sweeper | None) -> None:
    def close() -> None:
        stack.close()
        warnings.warn("a CacheManager was dropped without close(); it was closed now", ResourceWarning, stacklevel=2)

    stack.halt.set()
    if sweeper is None:
        close()
    else:  # with patience that ends: the collector may have come while its thread holds what a sweep waits for
        sweeper.stop(close, patience_seconds=5.0)
