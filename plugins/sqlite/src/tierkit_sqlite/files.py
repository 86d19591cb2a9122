"""What is done to the file system beside SQLite: safe creation, setting aside, the lock file.

The database file itself is never opened here while SQLite may have it open: closing any descriptor of a file drops
all POSIX locks that the process holds on it, SQLite's too.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from contextlib import suppress
from types import TracebackType
from typing import Final

from tierkit import TierTimeout, TierUnavailable
from tierkit import files as system
from tierkit_sqlite import failures

Identity = tuple[int, int]
"""What tells a file from another that takes its name while it is open: device and inode."""
BESIDE: Final = ("-wal", "-shm")
"""What SQLite keeps beside a database in WAL mode."""
_LOCK_STEP_SECONDS: Final = 0.001
_TICK_SECONDS: Final = 0.02
_creating = threading.Lock()


def prepare(path: str) -> None:
    """Make the folder (0700) and the file (0600) where they are not there, whatever the umask.

    Raises:
        TierUnavailable: The file is a link or no file, or others may write to its folder.
        OSError: The file system refuses.
    """
    folder = os.path.dirname(path)
    system.make_directories(folder)
    check(path)
    with _creating, suppress(FileExistsError):  # another process was faster
        if system.stat(path) is None:
            system.close(system.create(path))
            system.fsync_dir(folder)


def check(path: str) -> None:
    """Refuse what is not safe to open.

    Raises:
        TierUnavailable: The file is a link or no file, or others may write to its folder.
    """
    folder = os.path.dirname(path)
    if os.path.isdir(folder) and system.others_can_write(os.stat(folder)):
        raise TierUnavailable(f"{folder} can be written by others: keep the database in a folder of your own, 0700")
    mode = _mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        raise TierUnavailable(f"{path} is {'a link' if stat.S_ISLNK(mode) else 'not a file'}: links are not followed")


def size(path: str) -> int:
    """Bytes in the file, or 0 if it is not there."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def identity(path: str) -> Identity | None:
    """That of the file at `path`; None if there is none."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_dev, found.st_ino


def is_empty(path: str) -> bool:
    """Whether the file is there and holds nothing."""
    try:
        return os.stat(path).st_size == 0
    except FileNotFoundError:
        return False


def stamp(path: str) -> tuple[int, ...]:
    """Inode, size and time of the database, and the size of its log: one of them changes when anything is written."""
    found = os.stat(path)
    return found.st_ino, found.st_size, found.st_mtime_ns, size(path + "-wal")


def settled_stamp(path: str) -> tuple[int, ...] | None:
    """The stamp if the log is empty, so that all is in the database itself; else None.

    Waits a little after a write: two writes within one tick of the file system's clock leave one time.
    """
    age = time.time() - os.stat(path).st_mtime
    if 0 <= age < _TICK_SECONDS:
        time.sleep(_TICK_SECONDS - age)
    found = stamp(path)
    return None if found[-1] else found


def name_aside(path: str, now: float) -> str:
    """A name, not yet taken, for a damaged database that is kept."""
    aside = f"{path}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(now))}"
    number = 0
    while os.path.lexists(aside + (suffix := f".{number}" if number else "")):
        number += 1
    return aside + suffix


def put_in_place(new: str, path: str, now: float) -> str:
    """Put the database `new` in place of a damaged one, which is kept with its log. Returns the name of that.

    At no moment is there no database at `path`: it would be taken for one that has nothing to be brought over.
    """
    aside = name_aside(path, now)
    system.link(path, aside)
    for beside in BESIDE:
        if os.path.lexists(path + beside):
            system.replace(path + beside, aside + beside)
    system.replace(new, path)
    system.fsync_dir(os.path.dirname(path))
    return aside


def remove(path: str) -> None:
    """Remove a database, if it is there, with what is beside it."""
    for name in ("", *BESIDE):
        system.unlink(path + name)


def _mode(path: str) -> int | None:
    try:
        return os.lstat(path).st_mode
    except FileNotFoundError:
        return None


class LockFile:
    """A lock between processes and threads, as a context manager: `flock` on a file that is never removed.

    Each object has a descriptor of its own, so that two of one process exclude each other too.
    """

    def __init__(self, path: str, timeout_seconds: float) -> None:
        """Open nothing yet."""
        self.path = path
        self.timeout_seconds = timeout_seconds
        self._descriptor: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        """Take the lock, waiting at most `timeout_seconds`. Whoever has it may take it again.

        Raises:
            TierTimeout: Another holds it.
        """
        if self._depth == 0:
            self._lock()
        self._depth += 1

    def _lock(self) -> None:
        descriptor = self._open()
        give_up = time.monotonic() + self.timeout_seconds
        while not system.lock(descriptor):
            if time.monotonic() >= give_up:
                raise TierTimeout(f"{self.path} was locked by another for {self.timeout_seconds} s")
            time.sleep(_LOCK_STEP_SECONDS)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock; the descriptor stays open for the next time."""
        self._depth -= 1
        if self._depth == 0:
            system.unlock(self._open())

    def release(self) -> None:
        """Release the lock, however often it was taken: an interrupt may have kept `__exit__` from doing so."""
        self._depth = 0
        if self._descriptor is not None:
            system.unlock(self._descriptor)

    def close(self) -> None:
        """Close the descriptor, unless the lock is held."""
        if self._depth:
            return
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            system.close(descriptor)

    def __del__(self) -> None:
        self.close()

    def _open(self) -> int:
        if self._descriptor is None:
            try:
                self._descriptor = system.open_lock(self.path)
            except OSError as error:
                raise failures.translated(error, self.path) from None
        return self._descriptor
