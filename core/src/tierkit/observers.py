"""Observers: what watches a cache from outside, and how it is told.

Counts are pulled: an observer asks for the statistics when it is scraped, so that a hit costs nothing more. Only what
is rare is pushed: evictions, promotions, a level that goes out or comes back, damage, sweeps.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from tierkit.statistics import CacheStatistics

logger = logging.getLogger("tierkit.observers")


class CacheObserver:
    """What an observer may want to know. Subclass it and override what you need; each method does nothing here.

    The engine calls these after the fact, in the thread in which it happened, which may hold a lock of the engine: do
    not block, and do not call the cache. A method that raises is logged once, and its observer is told nothing more.
    """

    def on_open(self, statistics: Callable[[], CacheStatistics]) -> None:
        """The cache is open.

        Args:
            statistics: Answers what was counted until now, and asks the tiers for their sizes, which may block on I/O.
                May be called from any thread. Raises `CacheClosedError` once the cache is closed, which this does not
                keep alive.
        """

    def on_eviction(self, level: str, cause: str) -> None:
        """A record left a level: for room (the policy's name), found expired (ttl), for health, or damaged."""

    def on_promotion(self, level: str) -> None:
        """A record was copied up into a level on a read."""

    def on_level_out(self, level: str, reason: str) -> None:
        """A level was taken out of service, or takes no writes any more."""

    def on_level_back(self, level: str) -> None:
        """A level came back into service, or takes writes again."""

    def on_corruption(self, level: str) -> None:
        """A damaged record was found."""

    def on_sweep(self, level: str, removed: int) -> None:
        """A level was swept; so many expired records were removed."""

    def on_close(self) -> None:
        """The cache closes: release everything. Called once."""


class Observers:
    """Those of one cache. Told of what happens, and dropped if they raise."""

    def __init__(self, observers: Mapping[str, Any] | None = None) -> None:
        """Tell `observers`, by name."""
        self._observers = dict(observers or {})

    @property
    def by_name(self) -> dict[str, Any]:
        """Those that are still told."""
        return dict(self._observers)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._observers)

    def tell(self, event: str, *args: Any) -> None:
        """Call the method `event` of each observer that has it."""
        for name, observer in list(self._observers.items()):
            try:
                if (method := getattr(observer, event, None)) is not None:
                    method(*args)
            except Exception as error:  # noqa: BLE001 - a stranger's fault must not become one of the cache
                self._drop(name, event, error)

    def _drop(self, name: str, event: str, error: Exception) -> None:
        observer = self._observers.pop(name, None)
        if observer is None:
            return  # another thread was first
        logger.error("the observer %s failed in %s and is told nothing more", name, event, exc_info=error)
        if event != "on_close":
            with suppress(Exception):
                observer.on_close()

    def close(self) -> None:
        """Tell all of them that the cache closes, and forget them."""
        self.tell("on_close")
        self._observers.clear()
