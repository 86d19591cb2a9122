"""`Cache`: plain values over the same engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Any, ClassVar, Final, NoReturn, ParamSpec, Self, TypeVar, Unpack, cast, overload

from tierkit.cache.codec import Codec
from tierkit.cache.loading import Job, Loader
from tierkit.cache.mapping import MappingMethods
from tierkit.cache.memoizing import Memoized, kind_of
from tierkit.cache.names import Names
from tierkit.cache.options import LoadOptions, LoadSettings
from tierkit.cache.values import MISSING, V
from tierkit.check_runners import is_async
from tierkit.clock import Clock, SystemClock
from tierkit.config import CacheConfig
from tierkit.entry import ValueEntry
from tierkit.errors import CacheClosedError, CacheConfigError, CacheValidationError, LoadTimeout, SchemaMismatchError
from tierkit.leases import check_lease_seconds
from tierkit.manager import CacheManager
from tierkit.statistics import CacheStatistics
from tierkit.values import type_name

W = TypeVar("W")
P = ParamSpec("P")
R = TypeVar("R")

CLAIM_SECONDS: Final = 10.0


class Cache(MappingMethods[V]):
    """Plain values by key: a mapping, with lives, tags and loads.

    `Cache[User]` has values of that type, which are checked when they are set. All methods may be called from many
    threads; those that go below L1 block on I/O. Close it, or use it in a `with` statement.

    Attributes:
        manager: The cache of entries beneath it: its records are of the type `ValueEntry`.
    """

    _value_type: ClassVar[Any] = Any

    def __class_getitem__(cls, item: Any) -> Any:
        """The cache class for values of type `item`, so that the type is known when it runs too."""
        if isinstance(item, TypeVar):
            return super().__class_getitem__(item)  # type: ignore[misc]  # of Generic
        return _typed(cls, item)

    def __init__(
        self,
        manager: CacheManager[ValueEntry],
        *,
        value_type: Any = None,
        namespace: str = "",
        claim_seconds: float = CLAIM_SECONDS,
    ) -> None:
        """Keep values in `manager`, which stays open when this is closed: who opened it closes it.

        Args:
            manager: A cache of `ValueEntry`.
            value_type: The type of the values, as `Cache[type]` says it too; by default any.
            namespace: Keeps these values apart from others.
            claim_seconds: After how long another process takes over the load of a loader that was killed. The claim of
                one that is alive is renewed.

        Raises:
            CacheValidationError: One of them cannot work.
        """
        given: Any = manager
        if not isinstance(given, CacheManager) or given.entry_type is not ValueEntry:
            raise CacheValidationError("a Cache needs a CacheManager(entry_type=ValueEntry), or use Cache.open(config)")
        check_lease_seconds(claim_seconds)
        self._become(manager, value_type, Names(namespace), Loader(manager, claim_seconds))
        self._closes: tuple[Callable[[], object], ...] = (self._loader.close,)

    def _become(self, manager: CacheManager[ValueEntry], value_type: Any, names: Names, loader: Loader) -> None:
        self.manager = manager
        self._names = names
        self._codec = Codec(self._value_type if value_type is None else value_type)
        self._loader = loader

    @overload
    @classmethod
    def open(
        cls: type[Cache[Any]],
        config: CacheConfig | str | os.PathLike[str] | None = ...,
        *,
        value_type: type[W],
        namespace: str = ...,
        claim_seconds: float = ...,
        read_only: bool = ...,
        clock: Clock = ...,
        plugins: Sequence[object] = ...,
        **settings: Any,
    ) -> Cache[W]: ...

    @overload
    @classmethod
    def open(
        cls,
        config: CacheConfig | str | os.PathLike[str] | None = ...,
        *,
        value_type: None = ...,
        namespace: str = ...,
        claim_seconds: float = ...,
        read_only: bool = ...,
        clock: Clock = ...,
        plugins: Sequence[object] = ...,
        **settings: Any,
    ) -> Self: ...

    @classmethod
    def open(
        cls,
        config: CacheConfig | str | os.PathLike[str] | None = None,
        *,
        value_type: Any = None,
        namespace: str = "",
        claim_seconds: float = CLAIM_SECONDS,
        read_only: bool = False,
        clock: Clock = SystemClock(),  # noqa: B008 - it has no state
        plugins: Sequence[object] = (),
        **settings: Any,
    ) -> Any:
        """Open the tiers that a configuration names, and keep values there.

        Args:
            config: A configuration, or the path of a TOML file; by default what `CacheConfig.load` finds.
            value_type: As for a `Cache`.
            namespace: As for a `Cache`.
            claim_seconds: As for a `Cache`.
            read_only: As for a `CacheManager`.
            clock: As for a `CacheManager`.
            plugins: As for a `CacheManager`.
            settings: Settings that nothing overrides, such as `default_ttl_seconds`; not beside a `CacheConfig`.

        Raises:
            CacheConfigError: The configuration cannot work.
            CacheStorageError: A tier could not be opened.
        """
        if isinstance(config, CacheConfig):
            if settings:
                raise CacheConfigError(f"settings ({', '.join(settings)}) go into the CacheConfig that was given")
        else:
            config = CacheConfig.load(config, **settings)
        settings.clear()  # a traceback may show the locals of this frame
        manager = CacheManager(config, entry_type=ValueEntry, read_only=read_only, clock=clock, plugins=plugins)
        try:
            cache = cls(manager, value_type=value_type, namespace=namespace, claim_seconds=claim_seconds)
        except BaseException:
            manager.close()
            raise
        cache._closes = (*cache._closes, manager.close)
        return cache

    @overload
    def namespace(self, name: str, *, value_type: type[W]) -> Cache[W]: ...

    @overload
    def namespace(self, name: str, *, value_type: None = ...) -> Self: ...

    def namespace(self, name: str, *, value_type: Any = None) -> Any:
        """The values of the namespace `name` within this one, as a cache of its own over the same tiers.

        Neither sees the keys of the other. The TTL rule of `per_source_ttl` for `name` is that of its values. It is
        closed with the cache that it is of: its own `close` does nothing.

        Args:
            name: Letters, digits, `_`, `.` and `-`.
            value_type: The type of its values; by default as here.
        """
        inner: Cache[Any] = object.__new__(type(self))
        value_type = self._codec.value_type if value_type is None else value_type
        inner._become(self.manager, value_type, self._names.inner(name), self._loader)
        inner._closes = ()
        return inner

    def get_or_load(self, key: str, load: Callable[[], V], **options: Unpack[LoadSettings]) -> V:
        """The value of `key`; if there is none, what `load` answers, which is kept then.

        However many threads and processes ask at once, one loads and the others wait for its value. What `load` raises
        is raised by all who wait in this process; it is not kept. What is set or deleted while a load is under way is
        newer than what is loaded, and stays.

        Args:
            key: Names the value.
            load: Called without arguments. It may ask for other keys.
            options: `ttl`, `tags`, `stale`, `stale_on_error`, `early`, `timeout`: see `LoadSettings`.

        Raises:
            LoadTimeout: There was no value before `timeout`, and no stale one.
            LoadError: The load waits for itself: `load` asks for the key that it is to load.
            CacheValidationError: The value cannot be stored, or an option cannot work.
            Exception: What `load` raised.
        """
        checked = LoadOptions.of(self.manager.config.grace_seconds, options)
        return self._load(key, load, checked)

    @overload
    def memoize(self, function: Callable[P, R], /) -> Memoized[P, R]: ...

    @overload
    def memoize(
        self,
        function: None = ...,
        /,
        *,
        key: Callable[..., str] | None = ...,
        ignore: Iterable[str] = ...,
        **options: Unpack[LoadSettings],
    ) -> Callable[[Callable[P, R]], Memoized[P, R]]: ...

    def memoize(
        self,
        function: Any = None,
        /,
        *,
        key: Callable[..., str] | None = None,
        ignore: Iterable[str] = (),
        **options: Unpack[LoadSettings],
    ) -> Any:
        """Keep the results of a function: `@cache.memoize`, or `@cache.memoize(ttl="15m")`.

        The key is made of the name of the function and its arguments, and is the same in every process. The function
        has the methods `cache_key`, `invalidate`, `refresh`, which take its arguments, and `invalidate_all`.

        Args:
            function: The function.
            key: Makes the key of the arguments instead.
            ignore: Names of arguments that make no difference, such as `self` or a connection.
            options: As for `get_or_load`. The name of the function is a tag too.

        Raises:
            CacheValidationError: It is no function, or an option cannot work.
        """
        checked = LoadOptions.of(self.manager.config.grace_seconds, options)
        if function is not None:
            return Memoized(self, function, checked, key, ignore)
        return lambda function: Memoized(self, function, checked, key, ignore)

    def get_statistics(self) -> CacheStatistics:
        """As of the `CacheManager`, so over all namespaces."""
        return self.manager.get_statistics()

    def close(self) -> None:
        """Wait a moment for loads in the background, and close what was opened with it. May be called twice.

        Raises:
            CacheStorageError: A tier could not be closed.
        """
        for close in self._closes:
            close()

    def __enter__(self) -> Self:
        """The cache itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __repr__(self) -> str:
        """The name of the cache and the namespace."""
        names = ", ".join(filter(None, (self.manager.config.name, self._names.namespace)))
        return f"<{type(self).__name__} {names}>"

    def __reduce__(self) -> NoReturn:
        """Refused, as for a `CacheManager`."""
        raise TypeError("a Cache cannot be pickled: open one in each process")

    # -- loading -----------------------------------------------------------------------------------------------------

    def _load(self, key: str, load: Callable[[], V], options: LoadOptions) -> V:
        stored = self._names.stored(key)
        entry = self.manager.get(stored, allow_stale=True) if options.takes_stale else self.manager.get(stored)
        value: V = MISSING if entry is None else self._usable(key, entry)
        if entry is None or value is MISSING:
            return self._codec.decode(key, self._loader.load(self._job(key, load, options, entry)).encoded)
        if not entry.is_stale:
            if options.early is not None and self._is_due(entry, options.early):
                self._loader.refresh(self._job(key, load, options, entry))
            return value
        job = self._job(key, load, options, entry)
        if self._late(entry) < options.stale_seconds:
            self._loader.refresh(job)
            return value
        return self._loaded_or(key, value, job)

    def _job(self, key: str, load: Callable[[], V], options: LoadOptions, held: ValueEntry | None) -> Job:
        given: Any = load
        if not callable(given) or is_async(given):
            raise CacheValidationError(f"load must be a function that takes nothing, not {kind_of(given)}")
        return Job(
            self._names.stored(key),
            lambda: self._entry(key, load(), options.ttl, options.tags),
            lambda entry: self._usable(key, entry) is not MISSING,
            options,
            0 if held is None or held.is_stale else held.version,
        )

    def _loaded_or(self, key: str, stale: V, job: Job) -> V:
        """What is loaded, or `stale` if that fails, or takes too long."""
        try:
            return self._codec.decode(key, self._loader.load(job).encoded)
        except LoadTimeout:
            return stale
        except (CacheClosedError, CacheValidationError):
            raise
        except Exception as error:
            if not job.options.stale_on_error:
                raise
            self._loader.note_stale(job.key, error)
            return stale

    def _usable(self, key: str, entry: ValueEntry) -> V:
        """The value of `entry`, or `MISSING` if it does not fit the type: it is loaded anew."""
        try:
            return self._codec.decode(key, entry.encoded)
        except SchemaMismatchError:
            return cast("V", MISSING)

    def _late(self, entry: ValueEntry) -> float:
        return self.manager._time.now() - entry._deadline

    def _is_due(self, entry: ValueEntry, early: float) -> bool:
        """Whether the part of its life after which it is to be loaded anew is over."""
        if entry.updated_at is None:
            return False
        begun = entry.updated_at.timestamp()
        return self.manager._time.now() >= begun + early * (entry._deadline - begun)


@lru_cache(maxsize=256)
def _typed(cls: type[Cache[Any]], value_type: Any) -> type[Cache[Any]]:
    name = f"{cls.__name__}[{type_name(value_type)}]"
    return cast("type[Cache[Any]]", type(name, (cls,), {"_value_type": value_type, "__doc__": cls.__doc__}))
