"""The two locks of a shard: one for the threads of this process, one for all processes."""

from __future__ import annotations

import threading
import time
from typing import Final

from tierkit import TierTimeout
from tierkit_jsonl import files

STEP_SECONDS: Final = 0.001


class ShardLock:
    """A thread lock, and an flock on a descriptor that stays open. The file at `path` is never removed."""

    def __init__(self, path: str, timeout_seconds: float) -> None:
        """Open nothing yet."""
        self._path = path
        self._timeout = timeout_seconds
        self._fd = -1
        self.mutex = threading.Lock()

    def after_fork(self) -> None:
        """Make locks of one's own. Closing the inherited descriptor leaves the parent's lock alone."""
        self.mutex = threading.Lock()
        self._close()

    def acquire(self) -> None:
        """Take the thread lock.

        Raises:
            TierTimeout: Another thread kept it too long.
        """
        if not self.mutex.acquire(timeout=self._timeout):
            raise TierTimeout(f"another thread keeps {self._path}")

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
        return files.lock(self._fd)

    def release_file(self) -> None:
        """Give the file lock back; it need not be held."""
        try:
            if self._fd >= 0:
                files.unlock(self._fd)
        except OSError:  # closing gives it back, too
            self._close()

    def close(self) -> None:
        """Close the file."""
        with self.mutex:
            self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            files.close(fd)
