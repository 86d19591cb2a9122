"""Compare and set on the authority, and the health that is counted by it. The rules are at the head of `stack`."""

from __future__ import annotations

import logging
from typing import Any, Generic, TypeVar

import msgspec

from tierkit.entry import CacheEntry, HealthStatus, Usage
from tierkit.errors import CacheCorruptionError, TierUnavailable
from tierkit.level import Level
from tierkit.tier import key_digest
from tierkit.writing import ATTEMPTS, Writer

logger = logging.getLogger("tierkit.stack")

E = TypeVar("E", bound=CacheEntry)


class Comparing(Generic[E]):
    """Changes of a record that count only if nobody else changed it meanwhile."""

    def __init__(self, writer: Writer[E]) -> None:
        """Compare with what the authority of `writer` holds, and write as it does."""
        self.writer = writer
        self.stack = writer.stack

    def record_failure(self, key: str, threshold: int, remove: bool) -> E | None:
        """Count a failure of `key` by compare and set; remove it everywhere at the threshold.

        Returns:
            The entry as it is now, or None if it is not there or was removed.
        """
        authority = self.writer.authority()
        for _ in range(ATTEMPTS):
            held = self._held(authority, key)
            entry: E | None = None if held is None else self.stack.fresh(authority, held)
            if entry is None:
                return None
            failures = entry.failure_count + 1
            changed = self._replace(entry.evolve(failure_count=failures, health_status=HealthStatus.UNHEALTHY), held)
            if changed is not None:
                removed = remove and failures >= threshold and self._remove_unhealthy(changed)
                return None if removed else changed
        raise TierUnavailable(f"{authority.name}: {ATTEMPTS} other writers of one record came first")

    def _held(self, authority: Level, key: str) -> Any:
        try:
            return authority.call(authority.tier.get, key)
        except CacheCorruptionError as error:
            self.stack.damaged(authority, key, error)
            return None

    def _remove_unhealthy(self, entry: E) -> bool:
        """Delete `entry` at its own version: a record that was put meanwhile stays. Answers whether it was removed."""
        refused: int | None = None

        def delete_stored(authority: Level) -> int:
            nonlocal refused
            refused = authority.call(authority.tier.delete, entry.key, entry.version)
            return entry.version

        self.writer.delete_by(entry.key, delete_stored)
        if refused is not None:
            return False
        for level in self.stack.levels:
            level.counters.evictions["health"] += level.counters.step * level.in_service
        logger.info("%s was removed: %d failures", key_digest(entry.key), entry.failure_count)
        return True

    def _replace(self, entry: E, held: Any) -> E | None:
        stack = self.stack
        started = stack.time.monotonic()
        stack.versions.observe(held.version)
        usage = Usage(held.access_count, held.last_accessed) if stack.stored else held._usage
        stamped = self.writer.stamp(entry, usage)
        msgspec.structs.force_setattr(stamped, "_fresh_until", stamped.purge_at)
        row = stack.sealer.seal(stamped, ciphertext_of=held) if stack.stored else None
        expected = stack.filling.begin(entry.key)
        try:
            authority = self.writer.authority()
            if not authority.call(authority.tier.replace, stamped if row is None else row, held.version):
                self.writer.drop_live(entry.key)
                return None
            self.writer.store_above((stamped, row), started)
            self.writer.fill_live(stamped, expected, started, done=authority)
        except BaseException:
            self.writer.drop_live(entry.key)
            raise
        stack.settle()
        return stamped
