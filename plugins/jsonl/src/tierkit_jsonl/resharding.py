"""Spreading the records of a store over another number of files.

What holds it together:

- The new files are written beside the old ones, under names of their own, and are flushed, all of them, before
  `meta.json` is replaced. That is the one moment at which the store changes: a process that dies before it leaves the
  old store, and files that the next opening removes; one that dies after it leaves the new store, and old files that
  the next opening removes before it writes.
- The locks of all old shards are held from before the first record is copied until `meta.json` is replaced. A writer
  that has waited for one of them looks at `meta.json` before it writes, and goes to the new files.
- Readers take no lock. The old files tell them nothing wrong until the new ones take a write, and are gone by then.
- `meta.lock` is held all the while, so that two processes never spread one store at once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Final

from tierkit import TierContext, files
from tierkit_jsonl.batch import Batch, parts
from tierkit_jsonl.compaction import copy_record
from tierkit_jsonl.failures import storage_error
from tierkit_jsonl.layout import META_LOCK, lock_path, read_meta, remove_newer, replace_meta, shard_path
from tierkit_jsonl.lines import FORMAT, Header, encode_header, key_crc
from tierkit_jsonl.locks import ShardLock
from tierkit_jsonl.log import Log
from tierkit_jsonl.shard import logger

_AT_ONCE: Final = 5000
"""Records that are kept in memory on the way."""


def spread(directory: str, shards: int, context: TierContext, lock_timeout_seconds: float) -> None:
    """Have the store in `directory` spread its records over `shards` files, or say why that cannot be done now."""
    held = read_meta(directory)
    if held is None or held.shards == shards:
        return
    keeps = f"{directory} keeps its {held.shards} shards, not {shards}"
    if context.read_only:
        logger.info("%s: it is opened read-only", keeps)
        return
    try:
        _spread(directory, shards, context, lock_timeout_seconds)
    except OSError as error:
        logger.warning("%s, until it is opened again: %s", keeps, str(storage_error(context.name, error)))


def _spread(directory: str, shards: int, context: TierContext, lock_timeout_seconds: float) -> None:
    """Spread the records anew. The caller flushes the directory, and then removes the old files.

    Raises:
        OSError: The store is as it was.
    """
    with _locked([os.path.join(directory, META_LOCK)], lock_timeout_seconds):
        old = read_meta(directory)
        if old is None or old.shards == shards:  # another process was faster
            return
        begun = time.perf_counter()
        remove_newer(directory, old.generation)
        new = Header(FORMAT, shards, old.generation + 1)
        with _locked([lock_path(directory, number) for number in range(old.shards)], lock_timeout_seconds):
            try:
                count = _copy(directory, old, new, context)
                replace_meta(directory, new)
            except BaseException:
                with suppress(OSError):  # the next opening removes them, too
                    if read_meta(directory) == old:  # else they are the store by now
                        remove_newer(directory, old.generation)
                raise
    what = f"{directory}: {count} records were spread over {shards} shards instead of {old.shards}"
    logger.info("%s in %.2f s", what, time.perf_counter() - begun)


@contextmanager
def _locked(paths: Sequence[str], timeout_seconds: float) -> Iterator[None]:
    """Hold the locks at `paths`, waiting no longer than that for all of them."""
    deadline = time.monotonic() + timeout_seconds
    with ExitStack() as closing:
        for path in paths:
            lock = ShardLock(path, max(0.0, deadline - time.monotonic()))
            closing.callback(lock.close)
            lock.acquire_file()
        yield


def _copy(directory: str, old: Header, new: Header, context: TierContext) -> int:
    """Write the files of the store that has the header `new`, and flush them; how many records there are."""
    copy = _Copy(directory, new, context)
    for number in range(old.shards):
        log = _read(shard_path(directory, old, number), context, copy.horizon)
        if log is not None:
            copy.take(log)
    for log in copy.logs:
        files.fsync(log.fd)
    files.fsync_dir(directory)
    return sum(len(log.index) for log in copy.logs)


def _read(path: str, context: TierContext, horizon: float) -> Log | None:
    """What an old shard holds. One that cannot be read is moved aside, since old shards are removed."""
    opened = files.open_log(path, write=False)
    if opened is None:
        return None
    log = Log(opened[0], writable=False)
    log.catch_up(horizon)
    if log.damage:
        logger.warning("%s: %d damaged lines left out, the first at byte %d", path, len(log.damage), log.damage[0])
    if not log.intact and files.fstat(log.fd).st_size:
        aside = files.free_name(f"{path}.corrupt-{context.now():.0f}")
        logger.warning("%s holds nothing that can be read; moved to %s", path, aside)
        files.replace(path, aside)
    return log


class _Copy:
    """The shards of a store to be.

    Attributes:
        logs: Their files.
        horizon: Marks made before this time are left out.
    """

    def __init__(self, directory: str, header: Header, context: TierContext) -> None:
        """Make the files."""
        self._now = context.now()
        self.horizon = self._now - context.tombstone_seconds
        self.logs: list[Log] = []
        for number in range(header.shards):
            self.logs.append(Log(files.create(shard_path(directory, header, number)), writable=True))
            first = Batch(self.logs[-1], self._now, self.horizon)
            first.header(encode_header(header, number))
            first.commit(sync=False)

    def take(self, log: Log) -> None:
        """Copy what is alive in an old shard."""
        for places in parts(sorted(log.index.values(), key=lambda place: place.offset), _AT_ONCE):
            with self._batches() as batches:
                for place in places:
                    copy_record(log, place, batches[key_crc(place.key) % len(batches)])
        for marks in parts(list(log.marks.values()), _AT_ONCE):
            with self._batches() as batches:
                for mark in marks:
                    batches[key_crc(mark.key) % len(batches)].keep(mark)

    @contextmanager
    def _batches(self) -> Iterator[list[Batch]]:
        batches = [Batch(log, self._now, self.horizon) for log in self.logs]
        yield batches
        for batch in batches:
            batch.commit(sync=False)
