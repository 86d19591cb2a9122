"""From the errors of the operating system to those of the contract, in one place."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

from tierkit import CacheStorageError, TierFull, TierReadOnly, TierTimeout, TierUnavailable

P = ParamSpec("P")
T = TypeVar("T")

_KINDS: Final[dict[int, type[CacheStorageError]]] = {
    errno.ENOSPC: TierFull,
    errno.EDQUOT: TierFull,
    errno.EFBIG: TierFull,
    errno.EROFS: TierReadOnly,
    errno.EACCES: TierReadOnly,
    errno.EPERM: TierReadOnly,
    errno.ETIMEDOUT: TierTimeout,
}


_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})
_WHAT_TO_DO: Final = "an open store takes two for each shard: raise the limit (ulimit -n), or set fewer shards"


class _Settling(Protocol):
    def settle(self, error: OSError) -> None: ...


N = TypeVar("N", bound=_Settling)


def storage_error(name: str, error: OSError) -> CacheStorageError:
    """What the tier `name` raises for `error`."""
    if isinstance(error, CacheStorageError):
        return error
    kind = _KINDS.get(error.errno or 0, TierUnavailable)
    where = f": {error.filename}" if error.filename else ""
    advice = f"; {_WHAT_TO_DO}" if error.errno in _NO_DESCRIPTORS else ""
    return kind(f"{name}: {error.strerror or error}{where}{advice}")


def mapped(method: Callable[Concatenate[N, P], T], /) -> Callable[Concatenate[N, P], T]:
    """Let `method` of a tier raise only errors of the contract, and call it again where that settles one."""

    @functools.wraps(method)
    def call(tier: N, /, *args: P.args, **kwargs: P.kwargs) -> T:
        while True:
            try:
                return method(tier, *args, **kwargs)
            except CacheStorageError:
                raise
            except OSError as error:
                tier.settle(error)

    return call
