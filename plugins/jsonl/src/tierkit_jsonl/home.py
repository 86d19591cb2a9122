"""The directory of a store: while its files are open, its name may come to lead elsewhere, or nowhere."""

from __future__ import annotations

import os

from tierkit import files


class HomeLost(OSError):
    """The directory is not the one that the store was opened in."""


class Home:
    """The directory of an open store. It is kept open, so that no other gets its number.

    Attributes:
        directory: Its path.
    """

    def __init__(self, directory: str) -> None:
        """Open it. One that is not there, which only a reader meets, is not watched."""
        self.directory = directory
        status = files.stat(directory)
        self._identity = None if status is None else _identity(status)
        self._fd = -1 if status is None else files.open_dir(directory)

    def is_there(self) -> bool:
        """Whether its name still leads to it."""
        if self._identity is None:
            return True
        status = files.stat(self.directory)
        return status is not None and _identity(status) == self._identity

    def check(self) -> None:
        """See that it is still there.

        Raises:
            HomeLost: It is not, or another is in its place.
        """
        if not self.is_there():
            raise HomeLost(f"{self.directory} was removed or replaced while it was open")

    def close(self) -> None:
        """Let go of it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            files.close(fd)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
