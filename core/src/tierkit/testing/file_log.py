"""What was done to files, in order: enough to build what a power cut at any moment may leave of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tierkit import files
from tierkit.testing.file_faults import wrapped_files

File = int
"""Stands for a file whatever its names, as an inode does, but is never given twice."""


@dataclass(frozen=True, slots=True)
class Write:
    """`data` at `offset` of a file."""

    file: File
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """A file cut, or filled up with zeros, to `size` bytes."""

    file: File
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """The content of a file flushed to the medium."""

    file: File


@dataclass(frozen=True, slots=True)
class Enter:
    """A name in a directory: of a file, of a directory of its own (`file` is None), or taken from another name."""

    directory: str
    name: str
    file: File | None
    instead_of: str | None = None


@dataclass(frozen=True, slots=True)
class Remove:
    """A name taken out of a directory."""

    directory: str
    name: str


@dataclass(frozen=True, slots=True)
class SyncDirectory:
    """The names in a directory flushed to the medium."""

    directory: str


@dataclass(frozen=True, slots=True)
class Note:
    """What the test says: that a write begins, or is acknowledged."""

    what: Any


Operation = Write | Truncate | Sync | Enter | Remove | SyncDirectory | Note


class FileLog:
    """The operations on what is below a directory, which is empty at first and is there for certain.

    `recorded_files` fills it with the calls of `tierkit.files`. Whoever watches calls of another kind tells it by the
    methods here, each after the call has succeeded. Paths are absolute; what is not below `root` is not noted.

    Attributes:
        root: The directory.
        operations: What was done, in order. Directories are told by their path below `root`: "" is that itself.
    """

    def __init__(self, root: Path) -> None:
        """Nothing is done yet."""
        self.root = root
        self.operations: list[Operation] = []
        self._files: dict[str, File] = {}
        self._sizes: list[int] = []

    def note(self, what: Any) -> None:
        """Note `what` between the operations."""
        self.operations.append(Note(what))

    def file_at(self, path: str) -> File | None:
        """The file that has this name now, if it was made since the log began."""
        return self._files.get(path)

    def created(self, path: str) -> File:
        """A new file was made."""
        file = len(self._sizes)
        self._sizes.append(0)
        self._files[path] = file
        self._enter(path, file)
        return file

    def wrote(self, file: File, data: bytes, offset: int | None = None) -> None:
        """`data` was written at `offset`; by default it was appended."""
        at = self._sizes[file] if offset is None else offset
        self._sizes[file] = max(self._sizes[file], at + len(data))
        self.operations.append(Write(file, at, data))

    def truncated(self, file: File, size: int) -> None:
        """The file was cut, or filled up with zeros."""
        self._sizes[file] = size
        self.operations.append(Truncate(file, size))

    def synced(self, file: File) -> None:
        """The content of a file was flushed."""
        self.operations.append(Sync(file))

    def made_directory(self, path: str) -> None:
        """A directory was made."""
        self._enter(path, None)

    def synced_directory(self, path: str) -> None:
        """The names in a directory were flushed."""
        directory = self._below(path)
        if directory is not None:
            self.operations.append(SyncDirectory(directory))

    def renamed(self, source: str, target: str) -> None:
        """A file got the name `target`, in the same directory, whatever had that before."""
        file = self._files.pop(source)
        self._files[target] = file
        self._enter(target, file, os.path.basename(source))

    def unlinked(self, path: str) -> None:
        """A name was removed."""
        directory = self._below(os.path.dirname(path))
        if self._files.pop(path, None) is not None and directory is not None:
            self.operations.append(Remove(directory, os.path.basename(path)))

    def _enter(self, path: str, file: File | None, instead_of: str | None = None) -> None:
        directory = self._below(os.path.dirname(path))
        if directory is not None:
            self.operations.append(Enter(directory, os.path.basename(path), file, instead_of))

    def _below(self, path: str) -> str | None:
        relative = os.path.relpath(path, self.root)
        if relative == os.curdir:
            return ""
        return None if relative.startswith(os.pardir) else relative


@contextmanager
def recorded_files(root: Path) -> Iterator[FileLog]:
    """Log the calls of `tierkit.files` below `root`, an empty directory, by this process alone.

    ```python
    with recorded_files(tmp_path) as log:
        with MyTier(context, tmp_path / "store") as tier:
            tier.put(row)
            log.note("put")
    ```
    """
    recorder = _Recorder(FileLog(root))
    with wrapped_files(recorder.wrapped):
        yield recorder.log


class _Recorder:
    """Tells a log what the calls of `tierkit.files` have done. Descriptors are told apart by their inodes."""

    def __init__(self, log: FileLog) -> None:
        self.log = log
        self._by_inode: dict[int, File] = {}
        self._fstat = files.fstat
        self._tell: dict[str, Callable[..., None]] = {
            "create": self._create,
            "append": lambda _, fd, data: log.wrote(self._file(fd), data),
            "truncate": lambda _, fd, size: log.truncated(self._file(fd), size),
            "fsync": lambda _, fd: log.synced(self._file(fd)),
            "fsync_dir": lambda _, path: log.synced_directory(path),
            "replace": lambda _, source, target: log.renamed(source, target),
            "unlink": lambda _, path: log.unlinked(path),
            "mkdir": lambda made, path: log.made_directory(path) if made else None,
        }

    def wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        tell = self._tell.get(name)
        if tell is None:
            return real

        def call(*args: Any) -> Any:
            result = real(*args)
            tell(result, *args)
            return result

        return call

    def _create(self, fd: int, path: str) -> None:
        self._by_inode[self._fstat(fd).st_ino] = self.log.created(path)

    def _file(self, fd: int) -> File:
        return self._by_inode[self._fstat(fd).st_ino]
