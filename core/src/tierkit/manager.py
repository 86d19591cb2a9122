"""`CacheManager`: the face of the engine."""

from __future__ import annotations

import logging
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, overload

from tierkit.checks import check_key, check_keys
from tierkit.clock import CacheTime, Clock, SystemClock
from tierkit.comparing import Comparing
from tierkit.config import CacheConfig
from tierkit.entry import CacheEntry, ProxyEntry
from tierkit.errors import CacheClosedError, CacheConfigError
from tierkit.expiry import TTLManager
from tierkit.face import (
    ChangingMethods,
    ExaminationMethods,
    FileMethods,
    FilterMethods,
    LeaseMethods,
    UpkeepMethods,
    WarmingMethods,
)
from tierkit.forking import in_child
from tierkit.health import Health
from tierkit.level import Level
from tierkit.observers import Observers
from tierkit.opening import open_stack
from tierkit.plugins import PluginRegistry, discover
from tierkit.sliding import Sliding
from tierkit.stack import Found, Stack
from tierkit.statistics import CacheStatistics, new_counters
from tierkit.sweeper import Sweeper
from tierkit.timing import Latencies, measured, time_cache, time_level
from tierkit.writing import Writer

if TYPE_CHECKING:
    from tierkit.checking import CheckRun
    from tierkit.leasing import Leasing

logger = logging.getLogger("tierkit")

E = TypeVar("E", bound=CacheEntry)


class CacheManager(
    ChangingMethods[E],
    FilterMethods[E],
    ExaminationMethods[E],
    LeaseMethods[E],
    WarmingMethods[E],
    FileMethods[E],
    UpkeepMethods[E],
):
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
        registry = self._registry = discover(plugins)
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
        self._leasing: Leasing[E] | None = None
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
            **({} if self._leasing is None else self._leasing.counts),
            latencies=measured(self._latencies),
        )

    def log_statistics(self) -> None:
        """Write the statistics to the log `tierkit`, as one line at INFO. Asks the tiers for their sizes."""
        logger.info("%s", self.get_statistics().summary())

    def close(self) -> None:
        """Stop the background thread, bring down usage and writes that wait, close the tiers, the authority last.

        Checks that are under way apply what they found and end; leases in hand are returned. Blocks on I/O, and until a
        sweep has ended its step. May be called twice, and by many threads: the first closes.

        Raises:
            CacheStorageError: A tier could not be closed. The others are, and so is the cache.
        """
        with self._close_lock:
            if self._closed:
                return
            for run in list(self._checks):
                run.cancel()
            self._closed = True
            if self._leasing is not None:
                self._leasing.close()
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
        self._lease_lock = threading.RLock()

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
