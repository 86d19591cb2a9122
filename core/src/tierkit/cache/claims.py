"""Claims: which process loads a key, as a lease beside the records.

A lease is renewed while its load goes on, so it may be short: when a loader is killed another process takes over after
`seconds`. Where no other process can open the storage there is nothing to claim.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from tierkit.errors import CacheStorageError
from tierkit.forking import renewed
from tierkit.leases import Lease, LeaseStore
from tierkit.row import key_digest
from tierkit.stack import Stack
from tierkit.tier import Trait

logger: Final = logging.getLogger("tierkit.cache")

_RENEWALS: Final = 3
"""How often a claim is renewed before it would run out."""


class Claims:
    """The claims of one cache in this process. Thread-safe."""

    def __init__(self, stack: Stack[Any], seconds: float, *, keep: bool) -> None:
        """Claim keys for `seconds` at a time; `keep` says whether a thread may renew the claims."""
        self.seconds = seconds
        self._keep = keep
        authority = stack.authority
        shared = authority is not None and bool(authority.tier.traits & Trait.SHARED)
        self._store = LeaseStore(stack, "loads") if shared and not stack.settings.read_only else None
        self._ended = threading.Event()
        self.renew()

    def renew(self) -> None:
        """Hold none: in a forked child, whose parent holds them."""
        self._lock = threading.Lock()
        self._ended = renewed(self._ended)
        self._held: dict[str, Lease] = {}
        self._keeper: threading.Thread | None = None

    @contextmanager
    def claimed(self, key: str) -> Iterator[bool]:
        """Within, no other process loads `key`. Yields False if one does so now.

        While the storage fails everybody may load: better too often than not at all.
        """
        taken = self._taken(key)
        try:
            yield taken
        finally:
            if taken:
                self._release(key)

    def close(self) -> None:
        """Renew no more. Waits for the thread that did so."""
        self._ended.set()
        keeper = self._keeper
        if keeper is not None and keeper is not threading.current_thread():
            keeper.join(self.seconds)

    def _taken(self, key: str) -> bool:
        if self._store is None:
            return True
        try:
            lease = self._store.acquire(key, self.seconds)
        except CacheStorageError as error:
            logger.warning("the load of %s is not claimed, and others may load it too: %s", key_digest(key), str(error))
            return True
        if lease is not None:
            with self._lock:
                self._held[key] = lease
                self._begin_keeping()
        return lease is not None

    def _release(self, key: str) -> None:
        with self._lock:
            lease = self._held.pop(key, None)
        if lease is not None and self._store is not None:
            with suppress(CacheStorageError):  # it runs out
                self._store.release(lease)

    def _begin_keeping(self) -> None:
        if self._keep and self._keeper is None and not self._ended.is_set():
            keeper = threading.Thread(target=self._keep_on, name="tierkit-claims", daemon=True)
            with suppress(RuntimeError):  # there are too many threads, or the program ends: then the claim runs out
                keeper.start()
                self._keeper = keeper

    def _keep_on(self) -> None:
        """Renew what is held, until nothing is."""
        while not self._ended.wait(self.seconds / _RENEWALS):
            with self._lock:
                if not self._held:
                    self._keeper = None
                    return
                held = list(self._held)
            for key in held:
                self._renew(key)

    def _renew(self, key: str) -> None:
        with self._lock:  # held meanwhile, so that what is released is not renewed after it
            lease = self._held.get(key)
            if lease is None or self._store is None:
                return
            with suppress(CacheStorageError):  # the next turn may do it
                self._held[key] = self._store.renew(lease, self.seconds) or lease
