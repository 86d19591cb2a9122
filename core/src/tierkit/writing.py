"""Writing: put, delete, bulk puts, clear, and compare and set. The rules are at the head of `stack`."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final, Generic, TypeVar

import msgspec

from tierkit.entry import CacheEntry, HealthStatus, Usage
from tierkit.errors import CacheStorageError, CacheValidationError, TierUnavailable
from tierkit.expiry import TTLManager
from tierkit.level import Level
from tierkit.row import Row
from tierkit.stack import Stack
from tierkit.tier import key_digest

logger = logging.getLogger("tierkit.stack")

E = TypeVar("E", bound=CacheEntry)
OnInvalid = Callable[[int, CacheValidationError], None]

BATCH: Final = 1000
_ATTEMPTS: Final = 64  # each means that another writer came first, or that a call was late

Write = tuple[Any, Row | None]
"""An entry and its row; None where no level stores rows."""


class Writer(Generic[E]):
    """The writing half of a stack."""

    def __init__(self, stack: Stack[E], ttl: TTLManager) -> None:
        """Write into `stack`, with deadlines by `ttl`."""
        self.stack = stack
        self.ttl = ttl

    # -- one record --------------------------------------------------------------------------------------------------

    def put(self, entry: E) -> E:
        """Stamp `entry` and write it to every level, the authority first."""
        stack = self.stack
        started = stack.time.monotonic()
        write = self._prepare(entry)
        if not stack.levels:
            return write[0]  # type: ignore[no-any-return]
        expected = stack.filling.begin(entry.key)
        try:
            write = self._store(write, started)
        except BaseException:
            self._drop_live(entry.key)
            raise
        self._fill_live(write[0], expected, started)
        stack.settle()
        logger.debug("put %s: version %d", key_digest(entry.key), write[0].version)
        return write[0]  # type: ignore[no-any-return]

    def delete(self, key: str) -> None:
        """Delete `key` at a new version in every level, the authority first."""
        stack = self.stack
        started = stack.time.monotonic()
        stack.filling.begin(key)
        try:
            version = self._delete_stored(key, started)
        except BaseException:
            self._drop_live(key)
            raise
        self._in_live(key, lambda level: level.call(level.tier.delete, key, version))
        stack.ledger.pop(key)
        logger.debug("delete %s: version %d", key_digest(key), version)

    def clear(self) -> None:
        """Empty every level, the authority first, those out of service left for when they come back."""
        self.stack.filling.reset()
        try:
            for level in reversed(self.stack.levels):
                if level.in_service:
                    level.call(level.tier.clear)
                else:
                    self._missed(level)
        finally:
            self.stack.filling.reset()
        self.stack.ledger.take()

    def _prepare(self, entry: E) -> Write:
        stack = self.stack
        stamped = self._stamp(entry)
        if stack.stored:
            return stamped, stack.sealer.seal(stamped)
        stack.sealer.schema.encode(stamped)  # refuses what no tier could hold
        return stamped, None

    def _stamp(self, entry: E) -> E:
        stack = self.stack
        return self.ttl.stamp(entry, stack.time.now(), version=stack.versions.next(), _usage=Usage())

    def _restamp(self, write: Write, version: int) -> Write:
        entry, row = write
        return (
            msgspec.structs.replace(entry, version=version),
            None if row is None else self.stack.sealer.restamp(row, version),
        )

    # -- stored levels -----------------------------------------------------------------------------------------------

    def _store(self, write: Write, started: float) -> Write:
        if not self.stack.stored:
            return write
        authority = self._authority()
        current = write

        def attempt(version: int) -> int | None:
            nonlocal current
            if version != current[0].version:
                current = self._restamp(current, version)
            return authority.call(authority.tier.put, current[1])

        self._until_taken(attempt, write[0].version, started)
        self._store_above(current, started)
        return current

    def _delete_stored(self, key: str, started: float) -> int:
        version = self.stack.versions.next()
        if not self.stack.stored:
            return version
        authority = self._authority()
        version = self._until_taken(lambda stamp: authority.call(authority.tier.delete, key, stamp), version, started)
        for level in reversed(self.stack.stored[:-1]):
            self._guarded(level, key, version, level.tier.delete, key, version)
        return version

    def _until_taken(self, attempt: Callable[[int], int | None], version: int, started: float) -> int:
        """Attempt with ever newer versions until none refuses; a late one is stamped again first."""
        stack = self.stack
        for _ in range(_ATTEMPTS):
            if stack.late(started):
                started, version = stack.time.monotonic(), stack.versions.next()
            refused = attempt(version)
            if refused is None:
                return version
            stack.versions.observe(refused)
            version = stack.versions.next()
        raise TierUnavailable(f"{stack.levels[-1].name} refused {_ATTEMPTS} stamps; it knows version {refused}")

    def _store_above(self, write: Write, started: float) -> None:
        entry, row = write
        for level in reversed(self.stack.stored[:-1]):
            if self.stack.late(started):
                self._guarded(level, entry.key, entry.version, level.drop, entry.key, entry.version)
            else:
                self._guarded(level, entry.key, entry.version, level.tier.put, row)

    def _guarded(self, level: Level, key: str, version: int, operation: Callable[..., Any], *args: Any) -> None:
        """Do `operation` on a level above the authority; if it fails drop its copy, or else take the level out."""
        if not level.in_service:
            return self._missed(level)
        try:
            level.call(operation, *args)
        except CacheStorageError as error:
            try:
                level.drop(key, version)
            except CacheStorageError:
                self._missed(level)
                level.take_out(error)
        return None

    def _missed(self, level: Level) -> None:
        level.missed_writes = True

    def _authority(self) -> Level:
        authority = self.stack.levels[-1]
        if not authority.in_service:
            raise TierUnavailable(
                f"{authority.name} ({authority.kind}) is out of service and nothing can be written; when its storage is "
                "well again call reset_failures() on the level"
            )
        return authority

    # -- live levels -------------------------------------------------------------------------------------------------

    def _fill_live(self, entry: E, expected: int, started: float) -> None:
        stack = self.stack
        stripe = stack.filling.stripe(entry.key)

        def step(level: Level) -> None:
            raced = stack.filling.counters[stripe] != expected or stack.late(started)
            if raced and stack.stored:
                level.drop(entry.key, entry.version)
            else:  # without a stored level the live one is the truth, and versions alone decide
                stack.fill(level, entry, started)

        self._in_live(entry.key, step)

    def _drop_live(self, key: str) -> None:
        """After a write of unknown outcome: let the next read fetch the truth."""
        if self.stack.stored:
            self._in_live(key, lambda level: level.drop(key, 2**63))

    def _in_live(self, key: str, step: Callable[[Level], Any]) -> None:
        """End a write: do `step` on every live level and bump the counter, as one step to readers."""
        filling = self.stack.filling
        stripe = filling.stripe(key)
        with filling.locks[stripe]:
            for level in self.stack.live:
                self._live_step(level, step)
            filling.bump(stripe, key)

    def _live_step(self, level: Level, step: Callable[[Level], Any]) -> None:
        try:
            if level.in_service:
                step(level)
            else:
                self._missed(level)
        except CacheStorageError as error:
            self._missed(level)
            level.take_out(error)
            if not self.stack.stored:
                raise

    # -- many records ------------------------------------------------------------------------------------------------

    def put_many(self, entries: Iterable[E], on_invalid: OnInvalid | None = None) -> int:
        """Put `entries` in batches; a bounded level above the authority gets no more than it will keep."""
        bulk = _Bulk(self)
        numbered = enumerate(entries)
        while batch := list(islice(numbered, BATCH)):
            bulk.put(batch, on_invalid)
        bulk.finish()
        return bulk.written

    # -- compare and set ---------------------------------------------------------------------------------------------

    def record_failure(self, key: str, threshold: int, remove: bool) -> E | None:
        """Count a failure of `key` by compare and set; remove it everywhere at the threshold.

        Returns:
            The entry as it is now, or None if it is not there or was removed.
        """
        authority = self._authority()
        for _ in range(_ATTEMPTS):
            held = authority.call(authority.tier.get, key)
            entry: E | None = None if held is None else self.stack._fresh(authority, held, self.stack.time.now())
            if held is None or entry is None:
                return None
            failures = entry.failure_count + 1
            if remove and failures >= threshold:
                self._remove_unhealthy(key)
                return None
            changed = entry.evolve(failure_count=failures, health_status=HealthStatus.UNHEALTHY)
            replaced = self._replace(changed, held)
            if replaced is not None:
                return replaced
        raise TierUnavailable(f"{authority.name}: {_ATTEMPTS} other writers of one record came first")

    def _remove_unhealthy(self, key: str) -> None:
        self.delete(key)
        for level in self.stack.levels:
            level.counters.evictions["health"] += level.counters.step
        logger.info("%s was removed: too many failures", key_digest(key))

    def _replace(self, entry: E, held: Any) -> E | None:
        stack = self.stack
        started = stack.time.monotonic()
        stack.versions.observe(held.version)
        stamped = self._stamp(entry)
        row = stack.sealer.seal(stamped, ciphertext_of=held) if stack.stored else None
        expected = stack.filling.begin(entry.key)
        authority = self._authority()
        replaced = False
        try:
            replaced = authority.call(authority.tier.replace, stamped if row is None else row, held.version)
            if replaced:
                self._store_above((stamped, row), started)
        finally:
            if replaced:
                self._fill_live(stamped, expected, started)
            else:
                self._drop_live(entry.key)
        return stamped if replaced else None


class _Bulk(Generic[E]):
    """One bulk put. Keeps for each bounded level above the authority the last records, as many as it will keep."""

    def __init__(self, writer: Writer[E]) -> None:
        self.writer = writer
        self.stack = writer.stack
        self.written = 0
        self.expected = self.stack.filling.snapshot()
        above = self.stack.levels[:-1] if self.stack.stored else ()
        self.waiting: dict[Level, deque[tuple[Write, float]]] = {
            level: deque(maxlen=level.max_entries) for level in above if level.max_entries is not None
        }

    def put(self, batch: Sequence[tuple[int, E]], on_invalid: OnInvalid | None) -> None:
        writes: list[Write] = []
        try:
            for index, entry in batch:
                try:
                    writes.append(self.writer._prepare(check_entry(entry, self.stack.sealer.schema.entry_type)))
                except CacheValidationError as error:
                    if on_invalid is None:
                        raise
                    on_invalid(index, error)
        finally:
            self._write(writes)

    def finish(self) -> None:
        for level in reversed(list(self.waiting)):
            if level.live:
                for write, started in self.waiting[level]:
                    self._fill(level, write[0], started)
            else:
                self._store_waiting(level)
        self.stack.settle()

    def _write(self, writes: list[Write]) -> None:
        self.written += len(writes)
        if not writes or not self.stack.levels:
            return
        started = self.stack.time.monotonic()
        keys = [write[0].key for write in writes]
        self.stack.filling.begin_many(keys, self.expected)
        try:
            if self.stack.stored:
                self._store(writes, started)
        except BaseException:
            for key in keys:
                self.writer._drop_live(key)
            raise
        self._fill_or_wait(writes, started)
        self.stack.filling.begin_many(keys, self.expected)

    def _store(self, writes: list[Write], started: float) -> None:
        authority = self.writer._authority()
        refusals = authority.call(authority.tier.put_many, [row for _, row in writes])
        for index, refused in enumerate(refusals):
            if refused is not None:
                self.stack.versions.observe(refused)
                again = self.writer._restamp(writes[index], self.stack.versions.next())
                writes[index] = self.writer._store(again, started)
        for level in reversed(self.stack.stored[:-1]):
            if level in self.waiting:
                self._refresh(level, writes, started)
            else:
                self._store_above(level, [row for _, row in writes])

    def _refresh(self, level: Level, writes: list[Write], started: float) -> None:
        """Write at once what the level holds already, so that it is never older than the authority; let the rest wait."""
        try:
            held = level.call(level.tier.get_many, [entry.key for entry, _ in writes]) if level.in_service else {}
        except CacheStorageError as error:
            self.writer._missed(level)
            level.take_out(error)
            return
        self._store_above(level, [row for entry, row in writes if entry.key in held])
        self.waiting[level].extend((write, started) for write in writes if write[0].key not in held)

    def _store_above(self, level: Level, rows: list[Row | None]) -> None:
        if not level.in_service:
            return self.writer._missed(level)
        try:
            if rows:
                level.call(level.tier.put_many, rows)
        except CacheStorageError:
            for row in rows:
                if row is not None:
                    self.writer._guarded(level, row.key, row.version, level.drop, row.key, row.version)
        return None

    def _store_waiting(self, level: Level) -> None:
        rows = [write[1] for write, started in self.waiting[level] if not self.stack.late(started)]
        self._store_above(level, rows)

    def _fill_or_wait(self, writes: list[Write], started: float) -> None:
        for level in self.stack.live:
            waiting = self.waiting.get(level)
            for write in writes:
                if waiting is None:
                    self._fill(level, write[0], started)
                else:
                    self._drop_older(level, write[0])
                    waiting.append((write, started))

    def _drop_older(self, level: Level, entry: E) -> None:
        with self.stack.filling.locks[self.stack.filling.stripe(entry.key)]:
            self.writer._live_step(level, lambda level: level.drop(entry.key, entry.version))

    def _fill(self, level: Level, entry: E, started: float) -> None:
        stack = self.stack
        stripe = stack.filling.stripe(entry.key)

        def step(level: Level) -> None:
            raced = stack.filling.counters[stripe] != self.expected[stripe] or stack.late(started)
            if raced and stack.stored:
                level.drop(entry.key, entry.version)
            else:
                stack.fill(level, entry, started)

        with stack.filling.locks[stripe]:
            self.writer._live_step(level, step)


def check_entry(entry: Any, entry_type: type[CacheEntry]) -> Any:
    """`entry` if a cache for `entry_type` can take it.

    Raises:
        CacheValidationError: It is not of that type, or its key is none.
    """
    if not isinstance(entry, entry_type):
        raise CacheValidationError(f"this cache holds {entry_type.__name__}, not {type(entry).__name__}")
    if type(entry) is not entry_type:
        raise CacheValidationError(
            f"this cache holds {entry_type.__name__}; open it with entry_type={type(entry).__name__} to store its fields"
        )
    check_key(entry.key)
    return entry


def check_key(key: Any) -> None:
    """Refuse what cannot be a key.

    Raises:
        CacheValidationError: Not a string, empty, too long, or not encodable as UTF-8.
    """
    if type(key) is not str:
        raise CacheValidationError(f"a key must be a string, not {type(key).__name__}")
    if not key or len(key) > 4096:
        raise CacheValidationError(f"a key must have 1 to 4096 characters, not {len(key)}")
    if not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise CacheValidationError(f"a key holds a lone surrogate at position {error.start}") from None
