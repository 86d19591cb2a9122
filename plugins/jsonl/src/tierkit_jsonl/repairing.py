"""Repairs of what `examining` finds. Each opens the store as a writer does, which mends much by itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from tierkit import TierContext, files
from tierkit_jsonl.batch import Batch
from tierkit_jsonl.home import META
from tierkit_jsonl.layout import META_LOCK
from tierkit_jsonl.lines import MAX_LINE, encode_row, key_crc
from tierkit_jsonl.locks import ShardLock
from tierkit_jsonl.log import Log
from tierkit_jsonl.shard import Shard
from tierkit_jsonl.store import Store

if TYPE_CHECKING:
    from tierkit_jsonl import JsonlOptions

Work = Callable[[Store, int], object]
"""What is done to the shard of a store with this number."""


class Repairs:
    """The repairs of one store. What is asked for twice is one object, so that it is done once."""

    def __init__(self, context: TierContext, options: JsonlOptions) -> None:
        """Open nothing yet."""
        self._context = replace(context, read_only=False)
        self._options = options
        self._made: dict[tuple[Work, int], Callable[[], None]] = {}

    def of(self, work: Work, number: int = 0) -> Callable[[], None]:
        """A repair that does `work`."""
        return self._made.setdefault((work, number), partial(self._do, work, number))

    def moving_aside(self, path: str) -> Callable[[], None]:
        """A repair that gives the file at `path` another name."""
        return partial(_move_aside, path, self._context.now())

    def _do(self, work: Work, number: int) -> None:
        options = self._options
        store = Store(
            os.path.abspath(options.path),
            self._context,
            shards=None,
            lock_timeout_seconds=options.lock_timeout_seconds,
            compact_ratio=options.compact_ratio,
        )
        with closing(store):
            work(store, number)


def reopen(store: Store, _: int) -> None:
    """Nothing: the store was opened. What is left of a description that was being written goes, too."""
    directory = store.home.directory
    lock = ShardLock(os.path.join(directory, META_LOCK), 0.0)
    with closing(lock):
        if lock.try_file():
            files.unlink(os.path.join(directory, f"{META}.tmp"))


def write_nothing(store: Store, number: int) -> None:
    """Have a shard mended as its next writer would."""
    store.shards[number].write(lambda _: None)


def compact(store: Store, number: int) -> None:
    """Write a shard anew."""
    store.shards[number].compact()


def drop_damage(store: Store, number: int) -> None:
    """Write a shard anew without its damaged lines, which are kept beside it."""
    shard = store.shards[number]
    shard.write(partial(_keep_damage, shard, store))
    shard.compact()


def put_in_place(store: Store, number: int) -> None:
    """Move records to the shards of their keys, unless something newer is there."""
    shard = store.shards[number]
    log = shard.current()
    strayed = [] if log is None else [key for key in list(log.index) if store.shard(key_crc(key)) is not shard]
    for key in strayed:
        row = log.read(log.index[key]) if log is not None else None
        if row is not None:
            line = encode_row(row, key_crc(key))
            store.shard(key_crc(key)).write(partial(Batch.put, row=row, line=line))
            shard.write(partial(Batch.delete, key=key, version=row.version))
    shard.compact()


def _keep_damage(shard: Shard, store: Store, batch: Batch) -> None:
    """With the locks of the shard held."""
    if not batch.log.damage:
        return
    fd = files.create(files.free_name(f"{shard.path}.corrupt-{batch.now:.0f}"))
    try:
        for line in _damaged_lines(batch.log):
            files.append(fd, line)
        files.fsync(fd)
    finally:
        files.close(fd)
    files.fsync_dir(store.home.directory)


def _damaged_lines(log: Log) -> Iterator[bytes]:
    for offset in log.damage:
        yield files.pread(log.fd, MAX_LINE, offset).partition(b"\n")[0] + b"\n"


def _move_aside(path: str, now: float) -> None:
    files.replace(path, files.free_name(f"{path}.corrupt-{now:.0f}"))
    files.fsync_dir(os.path.dirname(path))
