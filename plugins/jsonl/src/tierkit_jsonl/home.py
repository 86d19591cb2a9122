"""The directory of a store, and the file in it that says which files are its shards: both may come to be others."""

from __future__ import annotations

import contextlib
import os
from typing import Final

from tierkit import TierUnavailable, files
from tierkit_jsonl.lines import FORMAT, Header, decode_header

META: Final = "meta.json"
_LONGEST: Final = 4096
_Identity = tuple[int, int]


class HomeLost(OSError):
    """The directory is not the one that the store was opened in."""


class Resharded(HomeLost):
    """The directory is the same, but the records are in other files. Raised before anything is written."""


class Home:
    """The directory of an open store. It and `meta.json` are kept open, so that no others get their numbers.

    Attributes:
        directory: Its path.
        header: What `meta.json` says; None if it is not there, which only a reader meets, or damaged.
    """

    def __init__(self, directory: str) -> None:
        """Open both. A directory that is not there, which only a reader meets, may come to be there."""
        self.directory = directory
        self.header: Header | None = None
        self._meta = os.path.join(directory, META)
        self._gone: HomeLost | None = None
        self._fds: list[int] = []
        try:
            self._folder_identity, self._meta_identity = self._open()
        except BaseException:
            self.close()
            raise

    def is_there(self) -> bool:
        """Whether its name still leads to it, and its records are in the same files. Once not, never again."""
        if self._gone is None and _identity(self._meta) != self._meta_identity:
            self._gone = self._what_happened()
        return self._gone is None

    def check(self) -> None:
        """See that it is still there.

        Raises:
            Resharded: Its records are in other files.
            HomeLost: It is not there, or another is in its place.
        """
        if not self.is_there() and self._gone is not None:
            raise type(self._gone)(*self._gone.args)

    def close(self) -> None:
        """Let go of it."""
        while self._fds:
            with contextlib.suppress(OSError):  # nothing was written
                files.close(self._fds.pop())

    def _open(self) -> tuple[_Identity | None, _Identity | None]:
        if files.stat(self.directory) is None:
            return None, None
        self._fds.append(files.open_dir(self.directory))
        opened = files.open_log(self._meta, write=False)
        if opened is None:
            return self._opened(0), None
        self._fds.append(opened[0])
        self.header = read_header(opened[0], self.directory)
        return self._opened(0), self._opened(1)

    def _opened(self, number: int) -> _Identity:
        status = files.fstat(self._fds[number])
        return status.st_dev, status.st_ino

    def _what_happened(self) -> HomeLost:
        same_folder = self._folder_identity in {None, _identity(self.directory)}
        if same_folder and files.stat(self._meta) is not None:
            return Resharded(f"{self.directory} was spread over other files while it was open")
        return HomeLost(f"{self.directory} was removed or replaced while it was open")


def read_header(fd: int, directory: str) -> Header | None:
    """What `meta.json` says, or None if it is damaged.

    Raises:
        TierUnavailable: It says that the store in `directory` has a newer format.
    """
    header = first_line(fd)
    if header is not None and header.format > FORMAT:
        raise TierUnavailable(f"{directory} has format {header.format}, newer than {FORMAT}: upgrade tierkit-jsonl")
    return header if header is not None and header.is_possible() else None


def first_line(fd: int) -> Header | None:
    """The header with which a file begins, if it does."""
    return decode_header(files.pread(fd, _LONGEST, 0).partition(b"\n")[0])


def _identity(path: str) -> _Identity | None:
    status = files.stat(path)
    return None if status is None else (status.st_dev, status.st_ino)
