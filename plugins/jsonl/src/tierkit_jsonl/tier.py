"""The tier: keys to shards, and what concerns all shards at once."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import ClassVar, Final
from zlib import crc32

from tierkit import (
    CacheStorageError,
    CacheTier,
    Delta,
    Row,
    TierContext,
    TierReadOnly,
    Trait,
)
from tierkit_jsonl.batch import Batch, parts
from tierkit_jsonl.failures import mapped
from tierkit_jsonl.following import Following
from tierkit_jsonl.lines import encode_row, key_crc
from tierkit_jsonl.log import Log
from tierkit_jsonl.order import RANKS
from tierkit_jsonl.shard import Shard
from tierkit_jsonl.store import Store
from tierkit_jsonl.victims import Victims

LOOKED_AT: Final = 1000
"""Rows, or marks, that one step of a purge looks at."""
REMOVED: Final = 32
"""Rows that a purge removes in one write."""


class FileCacheTier(CacheTier[Row]):
    """Records in JSON Lines files: an append-only log per shard, chosen by the key, indexed in memory.

    A read is one `fstat`, one `pread` and the check of one line; a write one append under the lock of its shard. In
    durability `full` a write returns after an fsync; `process` and `none` are the same: what is written is with the
    operating system, and survives the end of this process but not a power cut.
    """

    traits: ClassVar[Trait] = Trait.PERSISTENT | Trait.CRASH_SAFE | Trait.SHARED

    def __init__(
        self,
        context: TierContext,
        path: str | os.PathLike[str],
        *,
        shards: int | None = None,
        lock_timeout_seconds: float = 5.0,
        compact_ratio: float = 1.0,
    ) -> None:
        """Open the store under `path`, making it if it is not there. Shards are read when they are first used.

        Args:
            context: What a tier is told; its namespace becomes a directory under `path`.
            path: The directory that holds the store.
            shards: How many files it spreads its records over. One that has another number is spread anew, if that can
                be done now. By default one that is there keeps its number, and a new one gets 16.
            lock_timeout_seconds: How long a writer waits for other threads and processes.
            compact_ratio: Bytes that are dead for each that is alive, above which a shard is rewritten.

        Raises:
            CacheConfigError: The system, the namespace or the eviction policy is not supported.
            CacheStorageError: The directory cannot be made, is not safe, or holds a newer format.
        """
        super().__init__(context)
        if context.eviction_policy not in RANKS:
            context.new_policy()  # refuses one that is not there, before anything is made
        self._following = Following(
            context,
            partial(
                Store,
                os.path.abspath(path),
                context,
                shards=shards,
                lock_timeout_seconds=lock_timeout_seconds,
                compact_ratio=compact_ratio,
            ),
        )
        self._victims = Victims(self, self._following)
        _open_tiers.add(self)

    @property
    def damaged_lines(self) -> int:
        """How many damaged lines and records were met in the files that are open."""
        return sum(shard.damaged() for shard in self._store.shards)

    def get(self, key: str) -> Row | None:
        """The row held for `key`, or None. Takes no lock unless another process has written."""
        while True:
            shards = self._following.store.shards
            shard = shards[crc32(key.encode("utf-8", "surrogatepass")) % len(shards)]
            try:
                return shard.get(key)
            except CacheStorageError:
                raise
            except OSError as error:
                self.settle(error)

    @mapped
    def put(self, record: Row) -> int | None:
        """Append the row if nothing newer is known."""
        crc = key_crc(record.key)
        line = encode_row(record, crc)
        return self._writable(crc).write(lambda batch: batch.put(record, line))

    @mapped
    def put_many(self, records: Sequence[Row]) -> list[int | None]:
        """Put each row in order, with one append and one fsync for each shard.

        If it raises, the rows of some shards may be there. A row that cannot be written as JSON is refused with all
        others before anything is written.
        """
        answers: list[int | None] = [None] * len(records)
        items = []
        for number, row in enumerate(records):
            crc = key_crc(row.key)
            items.append((crc, (number, row, encode_row(row, crc))))

        def put_all(batch: Batch, group: list[tuple[int, tuple[int, Row, bytes]]]) -> None:
            for _, (number, row, line) in group:
                answers[number] = batch.put(row, line)

        self._refuse_read_only()
        self._following.write_groups(items, put_all)
        return answers

    @mapped
    def delete(self, key: str, version: int) -> int | None:
        """Append a mark that removes the row and refuses versions up to `version`."""
        return self._writable(key_crc(key)).write(lambda batch: batch.delete(key, version))

    @mapped
    def delete_many(self, versions: Mapping[str, int]) -> dict[str, int]:
        """Delete each key at its version, with one append for each shard."""
        refused: dict[str, int] = {}

        def delete_all(batch: Batch, group: list[tuple[int, str]]) -> None:
            for _, key in group:
                answer = batch.delete(key, versions[key])
                if answer is not None:
                    refused[key] = answer

        self._refuse_read_only()
        self._following.write_groups(_with_crcs(versions), delete_all)
        return refused

    @mapped
    def replace(self, record: Row, expected_version: int) -> bool:
        """Compare and set, atomic between processes."""
        crc = key_crc(record.key)
        line = encode_row(record, crc)
        return self._writable(crc).write(lambda batch: batch.replace(record, line, expected_version))

    @mapped
    def replace_many(self, replacements: Sequence[tuple[Row, int]]) -> list[bool]:
        """Compare and set each in order, with one append and one fsync for each shard.

        If it raises, the rows of some shards may be there.
        """
        answers = [False] * len(replacements)
        items = []
        for number, (row, expected_version) in enumerate(replacements):
            crc = key_crc(row.key)
            items.append((crc, (number, row, encode_row(row, crc), expected_version)))

        def replace_all(batch: Batch, group: list[tuple[int, tuple[int, Row, bytes, int]]]) -> None:
            for _, (number, row, line, expected_version) in group:
                answers[number] = batch.replace(row, line, expected_version)

        self._refuse_read_only()
        self._following.write_groups(items, replace_all)
        return answers

    @mapped
    def discard(self, record: Row) -> bool:
        """Remove the row if it still has this version; the same version may come back."""
        shard = self._writable(key_crc(record.key))
        return shard.write(lambda batch: batch.discard(record.key, record.version))

    @mapped
    def touch_many(self, deltas: Mapping[str, Delta]) -> None:
        """Append the usage of the rows held, as absolute numbers."""

        def touch_all(batch: Batch, group: list[tuple[int, str]]) -> None:
            batch.touch({key: deltas[key] for _, key in group})

        self._refuse_read_only()
        self._following.write_groups(_with_crcs(deltas), touch_all)

    def purge_in_steps(self, now: float) -> Iterator[int]:
        """Discard rows whose `purge_at` has come, 32 in one write; forget old marks. Reads no file."""
        self._refuse_read_only()
        try:
            for shard, log in self._store.logs():
                yield from _purge_shard(shard, log, now, now - self.context.tombstone_seconds)
        except OSError as error:
            self.settle(error)
        else:
            return
        yield from self.purge_in_steps(now)

    @mapped
    def clear(self) -> None:
        """Delete every row at its own version."""
        self._refuse_read_only()
        for shard, log in self._store.logs():
            if log.index:
                shard.write(Batch.clear)

    @mapped
    def overflow(self) -> list[Row]:
        """The rows to evict, coldest first. The order is kept in memory; only their own lines are read.

        Under `lru` and `fifo` it is that of all processes, else of this one: see `tierkit.KeyOrder`.
        """
        limit = self.context.max_entries
        if limit is None:
            return []
        while True:
            logs = list(self._store.logs())
            excess = sum(len(log.index) for _, log in logs) - limit
            if excess <= 0:
                return []
            victims = [shard.read(log, place) for shard, log, place in self._victims.coldest(logs, excess)]
            rows = [row for row in victims if row is not None]
            if len(rows) == len(victims):  # else some were damaged, and are set aside by now
                return rows

    def scan(self) -> Iterator[Row]:
        """Every row held, shard by shard, in the order of the file. A rewrite meanwhile does no harm."""
        for shard, log, is_left in self._following.walk():
            for place in sorted(log.index.values(), key=lambda place: place.offset):
                if is_left(place.key) and (shard.log is not log or place.key in log.index):
                    row = self._following.read(shard, log, place)
                    if row is not None:
                        yield row

    def keys(self) -> Iterator[str]:
        """The key of every row held, without reading."""
        for _, log, is_left in self._following.walk():
            yield from filter(is_left, list(log.index))

    @mapped
    def size(self) -> int:
        """How many rows are held, without reading."""
        return sum(len(log.index) for _, log in self._store.logs())

    @mapped
    def highest_version(self) -> int:
        """The highest version held by a row or known by a mark, or 0."""
        return max(chain.from_iterable(_versions(log) for _, log in self._store.logs()), default=0)

    @mapped
    def bytes_on_disk(self) -> int:
        """The size of all files of the store."""
        return self._store.size_on_disk()

    @mapped
    def compact(self) -> None:
        """Write every shard anew without what is dead, whatever the ratio."""
        self._refuse_read_only()
        for shard in self._store.shards:
            shard.compact()

    def close(self) -> None:
        """Close the files. Later calls raise `TierUnavailable`."""
        self._following.close()
        _open_tiers.discard(self)

    def after_fork(self) -> None:
        """Make locks and descriptors of one's own in a child; called by itself."""
        self._following.after_fork()

    def settle(self, error: OSError) -> None:
        """Raise what the contract says for `error`, or return if the call that met it is to be made again."""
        self._following.settle(error)

    @property
    def _store(self) -> Store:
        return self._following.store

    def _refuse_read_only(self) -> None:
        if self.context.read_only:
            raise TierReadOnly(f"{self.context.name} was opened read-only")

    def _writable(self, crc: int) -> Shard:
        self._refuse_read_only()
        return self._store.shard(crc)


def _with_crcs(keys: Iterable[str]) -> Iterator[tuple[int, str]]:
    return ((key_crc(key), key) for key in keys)


def _purge_shard(shard: Shard, log: Log, now: float, horizon: float) -> Iterator[int]:
    old = [mark for mark in list(log.marks.values()) if mark.marked_at <= horizon]
    for marks in parts(old, LOOKED_AT):
        shard.write(partial(Batch.forget, marks=marks))
        yield 0
    for places in parts(list(log.index.values()), LOOKED_AT):
        for due in parts([place for place in places if place.purge_at <= now], REMOVED):
            yield shard.write(partial(Batch.purge, places=due))
        yield 0


def _versions(log: Log) -> Iterator[int]:
    yield from [place.version for place in list(log.index.values())]
    yield from [mark.version - 1 for mark in list(log.marks.values())]


def _after_fork() -> None:
    for tier in _open_tiers:
        tier.after_fork()


_open_tiers: weakref.WeakSet[FileCacheTier] = weakref.WeakSet()
os.register_at_fork(after_in_child=_after_fork)
