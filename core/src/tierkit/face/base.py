"""What every family of methods needs of the cache that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from tierkit.clock import CacheTime
from tierkit.comparing import Comparing
from tierkit.config import CacheConfig
from tierkit.entry import CacheEntry
from tierkit.errors import CacheClosedError, TierReadOnly
from tierkit.health import Health
from tierkit.plugins import PluginRegistry
from tierkit.stack import Stack
from tierkit.writing import Writer

if TYPE_CHECKING:
    import threading

    from tierkit.checking import CheckRun
    from tierkit.leasing import Leasing

E = TypeVar("E", bound=CacheEntry)


class Face(Generic[E]):
    """What the methods of a cache share; `CacheManager.__init__` sets it."""

    config: CacheConfig
    entry_type: type[E]
    read_only: bool
    _closed: bool
    _registry: PluginRegistry
    _time: CacheTime
    _stack: Stack[E]
    _writer: Writer[E]
    _comparing: Comparing[E]
    _health: Health[E]
    _checks: set[CheckRun[E]]
    _lease_lock: threading.RLock
    _leasing: Leasing[E] | None

    def _check_open(self) -> None:
        if self._closed:
            raise CacheClosedError("this cache has been closed")

    def _check_writable(self) -> None:
        self._check_open()
        if self.read_only:
            raise TierReadOnly("this cache was opened with read_only=True")
