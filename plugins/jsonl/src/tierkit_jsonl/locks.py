"""The two locks of a shard: one for the threads of this process, one for all processes.

An interrupt, which a signal handler raises, may come between any two steps; and a signal handler or a finalizer may
call a tier in the midst of another call of its thread. So the thread lock knows its owner: to release it twice does no
harm, and a call within a call is refused, which could only wait for itself.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from tierkit import TierTimeout, TierUnavailable, files

T = TypeVar("T")

STEP_SECONDS: Final = 0.001


class ShardLock:
    """A thread lock, and an flock on a descriptor that stays open. The file at `path` is not to be removed."""

    def __init__(self, path: str, timeout_seconds: float) -> None:
        """Open nothing yet."""
        self._path = path
        self._timeout = timeout_seconds
        self._fd = -1
        self._closing = False
        self.after_fork()

    def after_fork(self) -> None:
        """Make locks of one's own. Closing the inherited descriptor leaves the parent's lock alone."""
        self.mutex = threading.RLock()
        self._owner = 0
        self._has_file = False
        self._close()

    def run(self, work: Callable[[], T]) -> T:
        """`work()` under the thread lock. The file lock, if that takes it, is given back, too.

        Raises:
            TierTimeout: Another thread kept the lock too long.
            TierUnavailable: It is called in the midst of another call of this thread.
        """
        me, mutex = threading.get_ident(), self.mutex
        if self._owner == me:
            raise TierUnavailable(f"{self._path}: used in the midst of another call of the same thread")
        try:
            if not mutex.acquire(timeout=self._timeout):
                raise TierTimeout(f"another thread keeps {self._path}")
            self._owner = me
            return work()
        finally:
            try:
                if self._owner == me and (self._has_file or self._closing):
                    self._leave_file()
            finally:
                if self._owner == me:
                    self._owner = 0
                try:  # noqa: SIM105 - calls nothing else, so that no interrupt comes before it
                    mutex.release()
                except RuntimeError:  # it was not taken
                    pass

    def acquire_file(self) -> None:
        """Take the file lock, holding the thread lock.

        Raises:
            TierTimeout: Another process kept it too long.
        """
        if self.try_file():
            return
        deadline = time.monotonic() + self._timeout
        while time.monotonic() < deadline:
            time.sleep(STEP_SECONDS)
            if self.try_file():
                return
        raise TierTimeout(f"another process keeps {self._path}")

    def try_file(self) -> bool:
        """Take the file lock if nobody has it; whether that was so."""
        if self._fd < 0:
            self._fd = files.open_lock(self._path)
        self._has_file = True  # before it is so: an interrupt must not leave it behind
        self._has_file = files.lock(self._fd)
        if self._has_file and not files.fstat(self._fd).st_nlink:
            self._close()  # it was removed: others lock the one that has its name now
            self._has_file = False
        return self._has_file

    def release_file(self) -> None:
        """Give the file lock back; it need not be held."""
        try:
            if self._fd >= 0:
                files.unlock(self._fd)
        except OSError:  # closing gives it back, too
            self._close()
        self._has_file = False

    def close(self) -> None:
        """Close the file: when the call that goes on has ended, but after a while at any rate."""
        self._closing = True
        try:
            self.run(self._close)
        except TierTimeout:
            self._close()
        except TierUnavailable:  # the call of this thread that goes on will close it
            pass

    def _leave_file(self) -> None:
        try:
            self._let_go()
        except BaseException:  # interrupted
            self._let_go()
            raise

    def _let_go(self) -> None:
        self.release_file()
        if self._closing:
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):  # closed all the same, and the lock gone with it
                files.close(fd)
