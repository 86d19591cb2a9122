"""All file I/O of tiers that keep files; of key files, what makes their folder and flushes them.

It stands in one place so that a test can fail the N-th call, and can record the calls and enumerate what a power cut
would leave. Call these through the module (`from tierkit import files`, `files.append(...)`): then a tier of yours can
be tested so, too.

Each call raises `OSError` if the system refuses. No file is opened by a link, though a directory may be one, and what
is made is for its owner only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat as modes
from typing import Final

from portalocker import LockFlags
from portalocker.portalocker import FlockLocker

_BASE: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # a pipe in place of a file must not block
_NO_WRITING: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_EXCLUSIVE: Final = int(LockFlags.EXCLUSIVE | LockFlags.NON_BLOCKING)
_RELEASE: Final = int(LockFlags.UNBLOCK)
_FULL_SYNC: Final[int | None] = getattr(fcntl, "F_FULLFSYNC", None)  # on macOS fsync stops at the drive's cache
# What portalocker locks with; its own `lock` checks its arguments at each call, which costs five times the lock.
_flock: Final = FlockLocker().locker

pread = os.pread
fstat = os.fstat
truncate = os.ftruncate
replace = os.replace
link = os.link
close = os.close
listdir = os.listdir


def stat(path: str) -> os.stat_result | None:
    """What is at `path`, links not followed, or None."""
    try:
        return os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return None


def open_log(path: str, *, write: bool) -> tuple[int, bool] | None:
    """The descriptor of an existing file and whether it can be written, or None if there is none."""
    try:
        return _regular(_open(path, write), path), write
    except FileNotFoundError:
        return None


def open_for_reading(path: str, *, read_only: bool) -> tuple[int, bool] | None:
    """As `open_log`, for writing where that is possible."""
    if not read_only:
        try:
            return open_log(path, write=True)
        except OSError as error:
            if error.errno not in _NO_WRITING:
                raise
    return open_log(path, write=False)


def create(path: str) -> int:
    """A new file, open for reading and appending, for its owner only whatever the umask."""
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | _BASE, 0o600)
    try:
        os.fchmod(fd, 0o600)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_lock(path: str) -> int:
    """The descriptor of a lock file, which is made if it is not there and never removed."""
    try:
        return os.open(path, os.O_RDWR | _BASE)
    except FileNotFoundError:
        pass
    try:
        return create(path)
    except FileExistsError:  # another process was faster
        return os.open(path, os.O_RDWR | _BASE)


def lock(fd: int) -> bool:
    """Take the lock of `fd` if nobody holds it; whether that was so."""
    try:
        _flock(fd, _EXCLUSIVE)
    except BlockingIOError:
        return False
    return True


def unlock(fd: int) -> None:
    """Give the lock of `fd` back."""
    _flock(fd, _RELEASE)


def append(fd: int, data: bytes) -> None:
    """Append `data` with one call.

    Raises:
        OSError: It is not all there; a part of it may be. A short write means that there is no room.
    """
    if os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fsync(fd: int) -> None:
    """Return when the content of `fd` is on the medium."""
    if _FULL_SYNC is not None:
        fcntl.fcntl(fd, _FULL_SYNC)
    else:
        os.fsync(fd)


def open_dir(path: str) -> int:
    """The descriptor of the directory `path`."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def fsync_dir(path: str) -> None:
    """Return when the names in the directory `path` are on the medium."""
    fd = open_dir(path)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def free_name(path: str) -> str:
    """`path`, or with a number behind it if that is taken."""
    number, name = 0, path
    while stat(name) is not None:
        number += 1
        name = f"{path}-{number}"
    return name


def unlink(path: str) -> None:
    """Remove `path` if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def mkdir(path: str) -> bool:
    """Make a directory for its owner only, whatever the umask; False if something is there already."""
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return False
    os.chmod(path, 0o700)
    return True


def others_can_write(status: os.stat_result) -> bool:
    """Whether another user than this one and root can put files into the directory that has `status`, or take some out.

    Files that such a user has put there would be read, and written to, as if they were ours.
    """
    foreign = os.geteuid() and status.st_uid not in {os.geteuid(), 0}
    return bool(foreign or status.st_mode & (modes.S_IWGRP | modes.S_IWOTH))


def make_directories(path: str) -> None:
    """Make what is missing of the path to the directory `path`, each for its owner only, and flush its name."""
    missing, path = [], os.path.abspath(path)
    while stat(path) is None:
        missing.append(path)
        path = os.path.dirname(path)
    for directory in reversed(missing):
        if mkdir(directory):
            fsync_dir(os.path.dirname(directory))


def _open(path: str, write: bool) -> int:
    return os.open(path, _BASE | (os.O_RDWR | os.O_APPEND if write else os.O_RDONLY))


def _regular(fd: int, path: str) -> int:
    if modes.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "not a regular file", path)
