"""A tier that fails when it is told to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from math import inf
from typing import Any, Final

from tierkit.errors import TierUnavailable
from tierkit.tier import CacheTier, purge_steps

WRITES: Final = (
    "put",
    "put_many",
    "delete",
    "delete_many",
    "replace",
    "replace_many",
    "discard",
    "evict",
    "touch_many",
    "purge",
    "clear",
    "compact",
)
READS: Final = (
    "get",
    "get_many",
    "scan",
    "query",
    "count",
    "keys",
    "size",
    "overflow",
    "highest_version",
    "bytes_on_disk",
)
METHODS: Final = (*WRITES, *READS)


def _forward(name: str) -> Any:
    def call(self: FaultyTier, *args: Any) -> Any:
        self.calls[name] += 1
        self.raise_if_told(name)
        return getattr(self.tier, name)(*args)

    call.__name__ = name
    call.__doc__ = f"`{name}` of the wrapped tier, or the error that was asked for."
    return call


class FaultyTier(CacheTier[Any]):
    """Wraps a tier, and makes chosen methods of it raise: for the next calls, or until healed.

    ```python
    tier = FaultyTier(MemoryCacheTier(context))
    tier.fail("put", "put_many", error=TierFull("no room"), times=2)
    ```

    A call that fails does not reach the wrapped tier. `close` is never made to fail.

    Attributes:
        tier: The wrapped tier.
        calls: How often each method was called, failures included.
    """

    def __init__(self, tier: CacheTier[Any]) -> None:
        """Wrap `tier`; nothing fails yet."""
        super().__init__(tier.context)
        self.tier = tier
        vars(self)["traits"] = tier.traits  # of the class elsewhere; a wrapper claims what its tier claims
        self.calls: Counter[str] = Counter()
        self._faults: dict[str, tuple[Exception, float]] = {}

    def fail(self, *methods: str, error: Exception | None = None, times: float = inf) -> None:
        """Make the next `times` calls of each of `methods` raise.

        Args:
            methods: Names of methods; by default all.
            error: What they raise; by default `TierUnavailable`.
            times: How many calls of each fail; by default all until `heal`.

        Raises:
            ValueError: A tier has no such method.
        """
        unknown = set(methods) - set(METHODS)
        if unknown:
            raise ValueError(f"cannot make {sorted(unknown)} fail: a tier has {', '.join(METHODS)}")
        error = error or TierUnavailable(f"{self.context.name}: made to fail")
        self._faults.update(dict.fromkeys(methods or METHODS, (error, times)))

    def heal(self) -> None:
        """Let every method work again."""
        self._faults.clear()

    def raise_if_told(self, method: str) -> None:
        """Raise what `fail` asked for, if calls of `method` still fail."""
        with self.lock:
            error, left = self._faults.pop(method, (None, 0))
            if error is not None and left > 1:
                self._faults[method] = (error, left - 1)
        if error is not None:
            raise error

    get = _forward("get")
    put = _forward("put")
    delete = _forward("delete")
    scan = _forward("scan")
    query = _forward("query")
    count = _forward("count")
    get_many = _forward("get_many")
    put_many = _forward("put_many")
    delete_many = _forward("delete_many")
    replace = _forward("replace")
    replace_many = _forward("replace_many")
    discard = _forward("discard")
    overflow = _forward("overflow")
    evict = _forward("evict")
    touch_many = _forward("touch_many")
    purge = _forward("purge")

    def purge_in_steps(self, now: float) -> Iterator[int]:
        """Those of the wrapped tier; counted, and made to fail, as one call of `purge`."""
        self.calls["purge"] += 1
        self.raise_if_told("purge")
        yield from purge_steps(self.tier, now)

    keys = _forward("keys")
    size = _forward("size")
    clear = _forward("clear")
    compact = _forward("compact")
    highest_version = _forward("highest_version")
    bytes_on_disk = _forward("bytes_on_disk")

    def close(self) -> None:
        """Close the wrapped tier."""
        self.tier.close()
