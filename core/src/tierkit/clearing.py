"""Clearing: every key is deleted in every level, and nothing that was on its way brings one back."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

from tierkit.entry import CacheEntry
from tierkit.errors import TierkitError, TierUnavailable
from tierkit.level import Level
from tierkit.progress import Meter, OnProgress
from tierkit.writing import ATTEMPTS, BATCH, Writer

logger = logging.getLogger("tierkit.stack")

E = TypeVar("E", bound=CacheEntry)


class Clearing(Generic[E]):
    """Clears a stack. Keys that are put meanwhile stay."""

    def __init__(self, writer: Writer[E]) -> None:
        """Delete as `writer` does."""
        self.writer = writer
        self.stack = writer.stack

    def clear(self, on_progress: OnProgress | None = None) -> None:
        """Delete every key in every level, the authority first; `on_progress` is told of the keys deleted so far.

        Each level gets a mark for each key that any stored level had, against copies that are on their way up. If the
        authority fails half way, some keys are deleted, in every level, and the others stay.
        """
        stack = self.stack
        if not stack.levels:
            return
        self.writer.authority()
        if not stack.owing.replay_all():
            raise TierUnavailable("the authority did not take what it is owed, and cannot be cleared before it has")
        stack.filling.reset()
        try:
            if stack.stored:
                self._clear_stored(on_progress)
        finally:
            stack.filling.reset()  # before L1 is emptied: what was read until now cannot fill it any more
            for level in reversed(stack.live):
                self._clear_live(level)
        stack.ledger.take()
        logger.info("cleared")

    def _clear_live(self, level: Level) -> None:
        if not level.begin_write():
            return
        try:
            level.call(level.tier.clear)
        except TierkitError as error:
            if level is self.stack.authority:
                raise
            level.miss(error)
        finally:
            level.end_write()

    def _clear_stored(self, on_progress: OnProgress | None) -> None:
        stack = self.stack
        *above, authority = stack.stored
        keys = dict.fromkeys(_keys(authority))
        for level in above:
            keys |= dict.fromkeys(self._keys_above(level))  # another process may owe them to the authority
        deleted: dict[str, int] = {}
        meter = Meter("clearing", len(keys), on_progress=on_progress, log=logger)
        try:
            for batch in _batches(list(keys)):
                deleted.update(self._delete_batch(authority, batch))
                stack.decisions.note_many(authority.name, "deleted", batch, "with all others")
                meter.advance(len(batch))
            meter.finish()
        finally:  # what is deleted is gone from every level, though the rest may stay
            for level in reversed(above):
                self._clear_above(level, deleted)

    def _keys_above(self, level: Level) -> list[str]:
        try:
            return _keys(level) if level.in_service else []
        except TierkitError as error:
            level.miss(error)
            return []

    def _delete_batch(self, authority: Level, keys: list[str]) -> Mapping[str, int]:
        try:
            return self._delete_in(authority, keys)
        except BaseException:
            for key in keys:
                self.writer.doubt(key)
            raise

    def _delete_in(self, authority: Level, keys: list[str]) -> Mapping[str, int]:
        versions = dict.fromkeys(keys, self.stack.versions.next())
        pending = versions
        for _ in range(ATTEMPTS):
            refused = authority.mark(authority.tier.delete_many, pending)
            if not refused:
                return versions
            pending = {key: self.stack.versions.above(version) for key, version in refused.items()}
            versions.update(pending)
        raise TierUnavailable(f"{authority.name} refused {ATTEMPTS} stamps: others write the same keys all the time")

    def _clear_above(self, level: Level, deleted: Mapping[str, int]) -> None:
        if not level.begin_write(deleted):
            level.missed_writes = True  # what it alone may hold was not listed
            return
        try:
            for keys in _batches(list(deleted)):
                refused = level.mark(level.tier.delete_many, {key: deleted[key] for key in keys})
                for key, newer in refused.items():
                    if self.writer.came_before(level, key, newer):
                        self.writer.delete(key)
        except TierkitError as error:
            level.miss(error, deleted)
        finally:
            level.end_write()


def _keys(level: Level) -> list[str]:
    return level.call(lambda: list(level.tier.keys()))


def _batches(keys: list[str]) -> Iterator[list[str]]:
    return (keys[start : start + BATCH] for start in range(0, len(keys), BATCH))
