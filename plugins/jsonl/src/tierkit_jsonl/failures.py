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


class _Failing(Protocol):
    def failure(self, error: OSError) -> CacheStorageError: ...


N = TypeVar("N", bound=_Failing)


def storage_error(name: str, error: OSError) -> CacheStorageError:
    """What the tier `name` raises for `error`."""
    if isinstance(error, CacheStorageError):
        return error
    kind = _KINDS.get(error.errno or 0, TierUnavailable)
    return kind(f"{name}: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""))


def mapped(method: Callable[Concatenate[N, P], T], /) -> Callable[Concatenate[N, P], T]:
    """Let `method` of a tier raise only errors of the contract."""

    @functools.wraps(method)
    def call(tier: N, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(tier, *args, **kwargs)
        except CacheStorageError:
            raise
        except OSError as error:
            raise tier.failure(error) from error

    return call
