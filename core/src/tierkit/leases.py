"""Leases: who holds what, for how long, kept by compare and set beside the records.

A lease is a row with the key of what is held, the holder, and an end. It is taken by compare and set: where there is
none, or one that has run out, and only one taker can win that. It is returned by dropping the row at its own version,
so that nobody returns what another has taken since. Whoever was killed returns nothing: his lease runs out.

The version of the row is the *token* of the lease. For one key it grows with each lease and each renewal, so a resource
that notes the highest it has seen can refuse a holder who was held up beyond the end of his lease (Kleppmann, "How to
do distributed locking", 2016).
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

from tierkit.clock import CacheTime
from tierkit.entry import CacheEntry
from tierkit.errors import CacheValidationError, TierUnavailable
from tierkit.side import SideStore, SideTiers
from tierkit.stack import Stack
from tierkit.writing import ATTEMPTS

LONGEST_LEASE_SECONDS: Final = 86_400.0
"""A lease that its holder cannot return stands in the way for as long."""


class Lease(CacheEntry):
    """That somebody holds something until then.

    Attributes:
        key: What is held: the key of a record, or any other name.
        holder: Who holds it: host, process id, thread, and a random word for each lease.
    """

    __namespace__: ClassVar[str] = "leases"

    holder: str = ""

    @property
    def since(self) -> datetime:
        """When it was taken."""
        return self.created_at or _LONG_AGO

    @property
    def until(self) -> datetime:
        """When it runs out, if it is not returned or renewed."""
        return self.expires_at or _LONG_AGO

    @property
    def token(self) -> int:
        """Grows, for one key, with each lease and each renewal."""
        return self.version


class LeaseStore:
    """Leases beside the records of a cache. Thread-safe; all methods block on I/O.

    Each raises `CacheStorageError` if the storage failed, and `TierUnavailable` while the authority is out of service.
    """

    def __init__(self, stack: Stack[Any], name: str = "leases", sides: SideTiers | None = None) -> None:
        """Keep leases in the side store `name` of the authority of `stack`; in one of `sides`, if it is given."""
        if stack.authority is None:
            raise TierUnavailable("the cache has no levels: it is turned off, and nothing can be leased")
        self._side = SideStore(name, Lease, stack.authority, sides or stack.sides, stack.versions)
        self._time: CacheTime = stack.time

    def acquire(self, key: str, ttl_seconds: float) -> Lease | None:
        """Take a lease of `key` for `ttl_seconds`, or answer None if somebody holds it.

        Raises:
            CacheValidationError: `ttl_seconds` is not above 0 and at most `LONGEST_LEASE_SECONDS`.
            CacheStorageError: The storage failed. If it took the lease all the same, that runs out.
        """
        check_lease_seconds(ttl_seconds)
        marked = 0
        for _ in range(ATTEMPTS):
            held = self._side.get(key)
            if held is not None and self._runs(held):
                return None
            version = held.version if held else 0
            lease = self._stamped(Lease(key=key, holder=_me()), ttl_seconds, max(version, marked))
            if self._side.replace(lease, version):
                return lease
            if held is None:  # by another, or by the mark of a clock that is ahead of ours
                marked = self._side.known_version(key)
        raise TierUnavailable(f"{ATTEMPTS} others took and returned the lease of one key first")

    def release(self, lease: Lease) -> bool:
        """Return `lease`. Answers whether it was still there; one that another has taken since is not touched."""
        return self._side.discard(lease)

    def renew(self, lease: Lease, ttl_seconds: float) -> Lease | None:
        """Let `lease` run for `ttl_seconds` from now. Answers it as it is then, or None if it is lost.

        One that has run out and that nobody has taken yet is renewed as well.

        Raises:
            CacheValidationError: `ttl_seconds` is not above 0 and at most `LONGEST_LEASE_SECONDS`.
        """
        check_lease_seconds(ttl_seconds)
        renewed = self._stamped(lease, ttl_seconds, lease.version)
        return renewed if self._side.replace(renewed, lease.version) else None

    def holds(self, lease: Lease) -> bool:
        """Whether `lease` is still held: nobody has taken it since, and it has not run out."""
        held = self.running(lease.key)
        return held is not None and held.version == lease.version

    def free(self, key: str) -> Lease | None:
        """End the lease of `key`, whoever holds it. Answers the one that was ended."""
        held = self.running(key)
        return held if held is not None and self._side.discard(held) else None

    def running(self, key: str) -> Lease | None:
        """The lease of `key` that runs now, or None."""
        held = self._side.get(key)
        return held if held is not None and self._runs(held) else None

    def held(self) -> Iterator[Lease]:
        """The leases that run now, in any order."""
        return filter(self._runs, self._side.scan())

    def _runs(self, lease: Lease) -> bool:
        return self._time.now() < lease._deadline

    def _stamped(self, lease: Lease, ttl_seconds: float, version: int) -> Lease:
        """`lease` as it runs from now on, in place of one with this version."""
        now = self._time.now()
        moment = datetime.fromtimestamp(now, UTC)
        return lease.evolve(
            ttl_seconds=float(ttl_seconds),
            fetch_time=moment,
            created_at=lease.created_at or moment,
            updated_at=moment,
            expires_at=datetime.fromtimestamp(now + ttl_seconds, UTC),
            version=self._side.version_above(version),
        )


def check_lease_seconds(seconds: Any) -> None:
    """Refuse what a lease cannot last.

    Raises:
        CacheValidationError: It is not a number above 0 and at most `LONGEST_LEASE_SECONDS`.
    """
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not (number and 0 < seconds <= LONGEST_LEASE_SECONDS):
        raise CacheValidationError(
            f"ttl = {seconds!r}: a lease lasts more than 0 and at most {LONGEST_LEASE_SECONDS:.0f} seconds; renew it to"
            " hold it for longer"
        )


def _me() -> str:
    return f"{socket.gethostname()} {os.getpid()} {threading.current_thread().name} {secrets.token_hex(4)}"


_LONG_AGO: Final = datetime.fromtimestamp(0, UTC)
