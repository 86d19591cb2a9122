"""One shard: a log under two locks, one for the threads of this process and one for all processes.

What holds it together:

- A write takes the thread lock, then the file lock, then catches up, then appends with one call, and only then indexes.
- Holding the lock, the *name* decides which file is written: another process may have replaced the file meanwhile, and
  an append to the old one would vanish.
- Once the folder of the store is gone, or another one is in its place, or its records were spread over other files,
  nothing is written any more: `meta.json` is looked at with the lock held before each write. A reader looks at it when
  a file is not where it was.
- A read takes no lock while the file is as long as the index knows and still has a name. If it grew, the reader indexes
  the new whole lines under the thread lock alone; a torn tail is left to the next writer.
- While this process itself holds the file lock, nobody else can write, so readers go on with the index as it is and do
  not wait for an fsync.
- A failed append is taken back by truncating. Another process may have read those lines already: `Log.catch_up` notices
  that its last line is no longer there, `get` that a place holds another record. What neither shows, until the file
  grows again, is a line of just the same length.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

from tierkit import Row, TierContext, TierCorrupt, TierUnavailable, files
from tierkit_jsonl.batch import Batch
from tierkit_jsonl.compaction import SUFFIX, rewrite
from tierkit_jsonl.home import Home
from tierkit_jsonl.lines import Place
from tierkit_jsonl.locks import ShardLock
from tierkit_jsonl.log import Log
from tierkit_jsonl.order import Rank

T = TypeVar("T")

MIN_COMPACT_BYTES: Final = 64 * 1024
logger: Final = logging.getLogger("tierkit.jsonl")


@dataclass(frozen=True)
class ShardSettings:
    """What the shards of a tier have in common."""

    context: TierContext
    lock_timeout_seconds: float
    compact_ratio: float
    home: Home


class Shard:
    """One shard of a store. Thread-safe; safe with several processes.

    Attributes:
        path: Its file.
        lock: Its locks.
        log: The file as far as it was read, or None before the first use and after a failure.
        set_aside: How many damaged records `get` has set aside.
    """

    def __init__(self, path: str, lock_path: str, header: bytes, settings: ShardSettings) -> None:
        """Open nothing yet."""
        self.path = path
        self.lock = ShardLock(lock_path, settings.lock_timeout_seconds)
        self.log: Log | None = None
        self.set_aside = 0
        self._header = header
        self._settings = settings
        self._context = settings.context
        self._sync = settings.context.durability == "full"
        self._writing = False
        self._closed = False
        self._unflushed = False
        self._warned = False
        self._names_to_sync = False
        self._compact_above = 0

    def after_fork(self) -> None:
        """Start anew in a child: what another thread of the parent was doing will never be finished here."""
        self.lock.after_fork()
        self._writing = False
        self.log = None

    # -- reading ---------------------------------------------------------------------------------------------------

    def current(self) -> Log | None:
        """The log, with all that was acknowledged before the call; None if there is no file."""
        log = self.log
        if log is not None:
            status = files.fstat(log.fd)
            if status.st_size == log.end and status.st_nlink:
                return log
        return self._refresh()

    def get(self, key: str) -> Row | None:
        """The row held for `key`.

        Raises:
            TierCorrupt: It is damaged. It has been set aside.
        """
        log = self.current()
        if log is None or (place := log.index.get(key)) is None:
            return None
        return log.read(place) or self._read_again(log, place)

    def read(self, log: Log, place: Place) -> Row | None:
        """The row at `place`, or None if it was damaged: then it is set aside, too."""
        try:
            return log.read(place) or self._read_again(log, place)
        except TierCorrupt:
            return None

    def coldest(self, log: Log, count: int, rank: Callable[[Place], Rank]) -> list[Place]:
        """Up to `count` of the records in `log`, coldest first."""
        return self.lock.run(partial(log.coldest, count, rank))

    def damaged(self) -> int:
        """How many damaged lines and records were met."""
        return self.set_aside + (len(self.log.damage) if self.log else 0)

    def _refresh(self) -> Log | None:
        log = self.log
        return log if self._writing and log is not None else self.lock.run(self._read_on)

    def _read_on(self) -> Log | None:
        self._check_open()
        status = files.stat(self.path)
        log = self.log
        if status is None or log is None or not log.is_file(status):
            self._settings.home.check()
        if status is None:
            log = None
        elif log is None or not log.is_file(status) or not self._catch_up(log):
            log = self._load(files.open_for_reading(self.path, read_only=self._context.read_only))
        self.log = log
        return log

    def _load(self, opened: tuple[int, bool] | None) -> Log | None:
        if opened is None:
            return None
        log = Log(opened[0], writable=opened[1])
        self._catch_up(log)
        return log

    def _catch_up(self, log: Log) -> bool:
        continued = log.catch_up(self._horizon())
        if log.damage and not self._warned:
            self._warned = True
            first = log.damage[0]
            logger.warning("%s: %d damaged lines skipped, the first at byte %d", self.path, len(log.damage), first)
        return continued

    def _read_again(self, seen: Log, place: Place) -> Row | None:
        """The row that cannot be read at `place`: moved, or damaged and to be set aside."""
        self._forget_log()  # another process may have taken lines back and written others in their place
        log = self.current()
        moved = log.index.get(place.key) if log is not None else None
        lies_there = log is not None and log.inode == seen.inode and place.offset in log.damage
        if log is not None and moved is not None and not lies_there:
            row = log.read(moved)
            if row is not None:
                return row
        elif not lies_there:
            return None
        self._quarantine(place)
        where = f"the record at byte {place.offset} of {self.path}"
        raise TierCorrupt(f"{self._context.name}: {where} is damaged; it has been set aside")

    def _forget_log(self) -> None:
        """Have the file read anew; not while a writer of this process relies on what was read."""
        self.lock.run(self._without_log)

    def _without_log(self) -> None:
        self.log = None

    def _quarantine(self, place: Place) -> None:
        """Hold nothing for this key up to this version, and note it for other processes and the next start."""
        self.set_aside += 1
        logger.warning("%s: damaged record at byte %d set aside", self.path, place.offset)
        if not self._context.read_only:
            with contextlib.suppress(OSError):
                self.write(lambda batch: _set_aside(batch, place))
        self.lock.run(partial(self._drop, place))

    def _drop(self, place: Place) -> None:
        held = self.log.index.get(place.key) if self.log else None
        if self.log and held and held.version <= place.version:
            self.log.drop(place.key)

    # -- writing ---------------------------------------------------------------------------------------------------

    def write(self, work: Callable[[Batch], T]) -> T:
        """Run `work` with all locks held; what it staged is in the file when this returns.

        Raises:
            OSError: Nothing of it is in the file.
        """
        return self.lock.run(partial(self._write, work))

    def _write(self, work: Callable[[Batch], T]) -> T:
        batch = None
        try:
            self._check_open()
            self._lock_file()
            batch = Batch(self._log_to_write(), self._context.now(), self._horizon())
            self._writing = True
            answer = work(batch)
            batch.commit(sync=self._sync)
            self._compact_if_due()
        except BaseException:
            self._writing = False
            self._take_back(batch)
            raise
        else:
            return answer
        finally:
            self._writing = False

    def _lock_file(self) -> None:
        """Take the file lock; where its folder is gone, say so."""
        try:
            self.lock.acquire_file()
        except FileNotFoundError:
            self._settings.home.check()
            raise

    def compact(self) -> None:
        """Write the file anew without what is dead."""
        self.write(lambda batch: self._compact(batch.log))

    def sweep(self) -> None:
        """Remove the temporary that a process left when it died; one that is being written is left alone."""
        temporary = self.path + SUFFIX
        if files.stat(temporary) is not None:
            self.lock.run(partial(self._sweep, temporary))

    def close(self) -> None:
        """Let go of the files."""
        self._closed = True
        self.lock.close()
        self.log = None

    def _sweep(self, temporary: str) -> None:
        if self.lock.try_file():
            files.unlink(temporary)

    def _log_to_write(self) -> Log:
        """The log, caught up, its tail repaired; the file lock is held."""
        self._settings.home.check()
        self._sync_names()
        status = files.stat(self.path)
        log = self.log
        if status is None or log is None or not log.writable or not log.is_file(status):
            log = self._open_to_write()
        elif status.st_size == log.end and log.intact and not self._unflushed:
            return log
        elif not self._catch_up(log):
            log = self._open_to_write()
        self.log = log = self._repaired(log)
        return self._in_another_file(log) if self._unflushed else log

    def _open_to_write(self) -> Log:
        log = self._load(files.open_log(self.path, write=True))
        return log or Log(files.create(self.path), writable=True)

    def _repaired(self, log: Log) -> Log:
        """Cut off a torn tail; move a file aside that is none of ours; begin a new one."""
        size = files.fstat(log.fd).st_size
        if size and not log.intact and not self._header.startswith(files.pread(log.fd, size, 0)):
            log = self._move_aside(log)
        elif size > log.end:
            logger.info("%s: a torn tail of %d bytes is cut off", self.path, size - log.end)
            files.truncate(log.fd, log.end)
        if not log.end:
            first = Batch(log, 0.0, 0.0)
            first.header(self._header)
            first.commit(sync=self._sync)
            self._names_to_sync = True
            self._sync_names()
        return log

    def _in_another_file(self, log: Log) -> Log:
        """Write the file anew: after a flush that failed no flush of the same file tells what is on the medium."""
        self._compact(log)
        self._unflushed = False
        return self.log or log

    def _move_aside(self, log: Log) -> Log:
        aside = files.free_name(f"{self.path}.corrupt-{self._context.now():.0f}")
        logger.warning("%s holds nothing that can be read; moved to %s", self.path, aside)
        files.replace(self.path, aside)
        with contextlib.suppress(OSError):
            files.append(log.fd, b"\n")  # readers that have it open look for its name when it grows
        return Log(files.create(self.path), writable=True)

    def _sync_names(self) -> None:
        if self._names_to_sync:
            files.fsync_dir(os.path.dirname(self.path))
            self._names_to_sync = False

    def _take_back(self, batch: Batch | None) -> None:
        """After a failure: truncate to where the file ended before, and read it anew when it is next used.

        Data whose fsync failed is never synced again. If it cannot be taken back either, the next write begins with a
        rewrite. A file that a rewrite has replaced meanwhile is without a name: to cut it does no harm.
        """
        self.log = None
        if batch is None or not batch.wrote:
            return
        try:
            files.truncate(batch.log.fd, batch.start)
        except OSError as error:
            self._unflushed = self._sync
            logger.error("%s: a failed write is not taken back: %s", self.path, str(error))  # noqa: TRY400 - it says why

    def _compact_if_due(self) -> None:
        log = self.log
        if log is None or log.end < max(MIN_COMPACT_BYTES, self._compact_above):
            return
        if log.end - log.live <= log.live * self._settings.compact_ratio:
            return
        try:
            self._compact(log)
        except OSError as error:  # what was written is written; try again when there is more to win
            self._compact_above = log.end + log.end // 4
            logger.warning("%s: could not be compacted: %s", self.path, str(error))

    def _compact(self, log: Log) -> None:
        self.log = rewrite(log, self.path, self._header, self._context.now(), self._horizon())
        self._names_to_sync = True
        self._compact_above = 0
        self._sync_names()

    def _check_open(self) -> None:
        if self._closed:
            self._settings.home.check()  # then it was closed because of that
            raise TierUnavailable(f"{self._context.name} is closed")

    def _horizon(self) -> float:
        return self._context.now() - self._context.tombstone_seconds


def _set_aside(batch: Batch, place: Place) -> None:
    held = batch.held(place.key)
    if held is None or held.version <= place.version:
        batch.mark(place.key, place.version, "quarantine")
