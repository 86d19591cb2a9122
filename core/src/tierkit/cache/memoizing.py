"""Functions whose results are kept."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterable
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeVar, cast

import msgspec
from pydantic import BaseModel

from tierkit.cache.options import LoadOptions
from tierkit.check_runners import is_async
from tierkit.errors import CacheValidationError

if TYPE_CHECKING:
    from tierkit.cache.face import Cache

_NAMELESS: Final = "<lambda>"

P = ParamSpec("P")
R = TypeVar("R")


class Memoized(Generic[P, R]):
    """A function whose results are kept in a cache, one for each set of arguments.

    Arguments that mean the same call, by position, by name or by default, share a result. Results have the tag
    `tag`, which is the name of the function.

    Attributes:
        tag: Module and name of the function.
    """

    __wrapped__: Callable[P, R]

    def __init__(
        self,
        cache: Cache[Any],
        function: Callable[P, R],
        options: LoadOptions,
        key: Callable[P, str] | None,
        ignore: Iterable[str],
    ) -> None:
        """Keep the results of `function` in `cache`: see `Cache.memoize`."""
        signature = _signature_of(function, named_by_key=key is not None)
        functools.update_wrapper(self, function)
        self.tag = f"{function.__module__}.{function.__qualname__}"
        self._cache = cache
        self._function = function
        self._options = replace(options, tags=(*options.tags, self.tag))
        self._key = key
        self._signature = signature
        self._ignored = frozenset(ignore)
        if unknown := self._ignored - self._signature.parameters.keys():
            raise CacheValidationError(f"ignore names {min(unknown)!r}, which is no argument of {self.tag}")

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """The result that is kept for these arguments, or that of a call, which is kept then."""
        key = self.cache_key(*args, **kwargs)
        return cast("R", self._cache._load(key, lambda: self._function(*args, **kwargs), self._options))

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key of the result for these arguments: the same in every process.

        Raises:
            CacheValidationError: An argument cannot be part of a key.
        """
        if self._key is not None:
            return f"{self.tag}:{self._key(*args, **kwargs)}"
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        named = [
            [name, self._fixed(name, value)] for name, value in bound.arguments.items() if name not in self._ignored
        ]
        return f"{self.tag}:{blake2b(msgspec.msgpack.encode(named), digest_size=16).hexdigest()}"

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result for these arguments. Answers whether there was one."""
        return self._cache.delete(self.cache_key(*args, **kwargs))

    def invalidate_all(self) -> int:
        """Forget all results. Answers how many there were."""
        return self._cache.invalidate_tag(self.tag)

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, and keep what it answers in place of what is kept."""
        cache, options, key = self._cache, self._options, self.cache_key(*args, **kwargs)
        entry = cache._entry(key, self._function(*args, **kwargs), options.ttl, options.tags)
        cache.manager.put(entry)  # it need not stay: the cache may be off, or somebody deletes it
        return cast("R", cache._codec.decode(key, entry.encoded))

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        """As a method: the instance is the first argument."""
        return self if instance is None else BoundMemoized(self, instance)

    def _fixed(self, name: str, value: Any) -> bytes:
        try:
            return msgspec.msgpack.encode(_canonical(value))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            advice = "leave it out with ignore, or give memoize a key"
            raise CacheValidationError(
                f"the argument {name!r} of {self.tag} cannot be part of a key: {error}; {advice}"
            ) from None


class BoundMemoized:
    """A memoized function as a method: of all that takes its arguments the instance is the first.

    What else is asked of it the function answers.
    """

    def __init__(self, memoized: Memoized[Any, Any], instance: object) -> None:
        """Bind `memoized` to `instance`."""
        self.__func__: Any = memoized
        self.__self__ = instance

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As of `Memoized`."""
        return self.__func__(self.__self__, *args, **kwargs)

    def cache_key(self, *args: Any, **kwargs: Any) -> str:
        """As of `Memoized`."""
        return str(self.__func__.cache_key(self.__self__, *args, **kwargs))

    def invalidate(self, *args: Any, **kwargs: Any) -> bool:
        """As of `Memoized`."""
        return bool(self.__func__.invalidate(self.__self__, *args, **kwargs))

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """As of `Memoized`."""
        return self.__func__.refresh(self.__self__, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        """What the function has."""
        if name == "__func__":  # of one that is being made
            raise AttributeError(name)
        return getattr(self.__func__, name)

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(types.MethodType(self.__func__, self.__self__))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as methods are: the instance, and the name."""
        return getattr, (self.__self__, self.__func__.__name__)

    def __eq__(self, other: object) -> bool:
        """As of methods: the same function, of the same instance."""
        return isinstance(other, BoundMemoized) and self._both() == other._both()

    def __hash__(self) -> int:
        """Fits `==`."""
        return hash(self._both())

    def _both(self) -> tuple[int, int]:
        return id(self.__func__), id(self.__self__)


def _signature_of(function: Any, *, named_by_key: bool) -> inspect.Signature:
    """The arguments of `function`, if its name and these can tell its results from all others.

    Raises:
        CacheValidationError: They cannot.
    """
    if not callable(function) or is_async(function):
        raise CacheValidationError(f"memoize takes a function, not {kind_of(function)}")
    name = getattr(function, "__qualname__", None)
    if name is None:
        raise CacheValidationError(
            f"memoize needs the name of a function, and a {kind_of(function)} has none: call it in one of your own"
        )
    if name.endswith(_NAMELESS) and not named_by_key:
        raise CacheValidationError("memoize cannot tell one lambda from another: give the function a name, or a key")
    try:
        return inspect.signature(function)
    except ValueError:
        raise CacheValidationError(
            f"memoize needs the arguments of a function, and those of {name} cannot be told: call it in one of your own"
        ) from None


def kind_of(function: Any) -> str:
    """What `function`, which cannot be called as one, is."""
    return "a coroutine function" if callable(function) and is_async(function) else type(function).__name__


def _canonical(value: Any) -> Any:
    """`value` in one form for equal values, and another for values of another type."""
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(_canonical, value)]
    if isinstance(value, (set, frozenset)):
        return ["set", *sorted(msgspec.msgpack.encode(_canonical(part)) for part in value)]
    if isinstance(value, dict):
        pairs = [[_canonical(key), _canonical(part)] for key, part in value.items()]
        return ["dict", *sorted(map(msgspec.msgpack.encode, pairs))]
    plain = value.model_dump() if isinstance(value, BaseModel) else msgspec.to_builtins(value)
    return [f"{type(value).__module__}.{type(value).__qualname__}", _canonical(plain)]
