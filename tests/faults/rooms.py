"""What can be filled up: a small file system, files that may not grow, a database that may not get more pages."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final
from unittest.mock import patch

from tests.faults.workload import in_memory

from tierkit.testing.suite.processes import forked, send
from tierkit_sqlite import opening
from tierkit_sqlite.library import sqlite3

_NEW_NAMESPACE: Final = 0x00020000
_PRIVATE: Final = 1 << 18 | 1 << 14
_DETACH: Final = 2


class Room(ABC):
    """What can be filled up.

    Attributes:
        root: Where the store is.
        unit: In how many bytes room comes.
    """

    unit = 1

    def __init__(self, root: Path) -> None:
        """There is room."""
        self.root = root

    @abstractmethod
    def leave(self, units: int) -> None:
        """Leave room for so much more."""

    @abstractmethod
    def free(self) -> None:
        """There is room again."""


class Tmpfs(Room):
    """A file system in memory, mounted at `root`, with a file that takes up the room."""

    unit = 4096
    size = 1024 * 1024

    def leave(self, units: int) -> None:
        left = os.statvfs(self.root)
        with (self.root / "ballast").open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, (left.f_bavail - units) * self.unit)

    def free(self) -> None:
        (self.root / "ballast").unlink()


class FileSize(Room):
    """How far this process may let a file grow."""

    def leave(self, units: int) -> None:
        largest = max(path.stat().st_size for path in self.root.rglob("*") if path.is_file())
        self._limit(largest + units)

    def free(self) -> None:
        self._limit(resource.getrlimit(resource.RLIMIT_FSIZE)[1])

    @staticmethod
    def _limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


class PageCount(Room):
    """How many pages the connections of a tier let the database have.

    Attributes:
        connections: They.
    """

    unit = 4096
    everything = 2**31

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.connections: list[sqlite3.Connection] = []
        self._most = self.everything

    def leave(self, units: int) -> None:
        with closing(sqlite3.connect(next(self.root.rglob("store.db")))) as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
        self._limit(pages + units)

    def free(self) -> None:
        self._limit(self.everything)

    def take(self, connection: sqlite3.Connection) -> None:
        """A connection was made."""
        self.connections.append(connection)
        connection.execute(f"PRAGMA max_page_count = {self._most}").fetchall()

    def _limit(self, pages: int) -> None:
        self._most = pages
        for connection in self.connections:
            with suppress(sqlite3.ProgrammingError):  # closed by now
                connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()


@contextmanager
def mounted(folder: Path) -> Iterator[Room]:
    """A file system in memory at `folder`, in a mount namespace that is this process's own."""
    libc = ctypes.CDLL(None, use_errno=True)
    target = os.fsencode(folder)
    if libc.mount(b"tmpfs", target, b"tmpfs", 0, f"size={Tmpfs.size},mode=0700".encode()):
        raise OSError(ctypes.get_errno(), "mount")
    try:
        yield Tmpfs(folder)
    finally:
        libc.umount2(target, _DETACH)


def own_namespace() -> None:
    """What this process mounts from here on nobody else sees, and ends with it. It has no other thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_NAMESPACE) or libc.mount(b"none", b"/", None, _PRIVATE, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@cache
def no_mounting() -> str:
    """Why no file system can be mounted here, or nothing."""
    if sys.platform != "linux":
        return "needs Linux, to mount a tmpfs"

    def work(pipe: Connection) -> None:
        try:
            own_namespace()
        except OSError as error:
            send(pipe, error.errno or 1)
        else:
            send(pipe, 0)

    with forked(work) as child:
        code = child.receive()
    return f"no file system can be mounted: {os.strerror(code)}" if code else ""


@contextmanager
def in_small_files(folder: Path) -> Iterator[Room]:
    """Files that this process may let grow so far."""
    with in_memory(folder) as quick:
        yield FileSize(quick)


@contextmanager
def in_few_pages(folder: Path) -> Iterator[Room]:
    """A database that may have so many pages."""
    true = opening._tune
    with in_memory(folder) as quick:
        room = PageCount(quick)

        def tune(connection: sqlite3.Connection, settings: opening.Settings) -> None:
            true(connection, settings)
            room.take(connection)

        with patch.object(opening, "_tune", tune):
            yield room
