"""A file that takes its name only when it is whole: written beside it, flushed, and put in the place of the former one.

While it is written it is locked. What a process that was killed has left is not: the next file of that name removes it.
"""

from __future__ import annotations

import gzip
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tierkit import files
from tierkit.errors import TransferError
from tierkit.transfer.files import is_packed
from tierkit.transfer.report import shown

SUFFIX: Final = ".export.tmp"
"""What the name of a file ends with that is not whole yet: `.<name>.<8 hexadecimal digits>.export.tmp`."""
_BLOCK: Final = 1024 * 1024
_LEVEL: Final = 6
_AS_BEFORE: Final = "what was there before is as it was"
_SHOWN: Final = 50  # characters of the name


class FileBeside:
    """A file on its way to its name, for its owner only.

    Attributes:
        size: How many bytes it has so far.
    """

    def __init__(self, path: Path) -> None:
        """Make it. Blocks on I/O, as all of it does.

        Raises:
            TransferError: From any method: the system refuses. What was at `path` before is as it was.
        """
        self._path = path
        self.size = 0
        with _trouble(path, _AS_BEFORE):
            _check_target(path)
            remove_stale(path)
            self._temporary, self._descriptor = _created(path)

    def append(self, data: bytes) -> None:
        """Write on."""
        with _trouble(self._path, _AS_BEFORE):
            files.append(self._descriptor, data)
        self.size += len(data)

    def finish(self, check: Callable[[Path], object] = lambda _: None) -> None:
        """Flush it and give it its name, unless `check`, called with the one that it has until then, raises."""
        with _trouble(self._path, _AS_BEFORE):
            files.fsync(self._descriptor)
        check(self._temporary)
        with _trouble(self._path, _AS_BEFORE):
            files.replace(str(self._temporary), str(self._path))
        with _trouble(self._path, "the file is there, but after a power cut it may be what was there before"):
            files.fsync_dir(str(self._path.parent))

    def __enter__(self) -> Self:
        """The file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it; if it has no name by now nothing is left of it."""
        with suppress(OSError):
            files.unlink(str(self._temporary))
        with suppress(OSError):  # what had to be is flushed
            files.close(self._descriptor)


def write(path: Path, pieces: Iterable[bytes], check: Callable[[Path], object] = lambda _: None) -> int:
    """Put a file with the content of `pieces` at `path`, for its owner only. Blocks on I/O.

    Args:
        path: Its name; with `.gz` at the end it is compressed. What is there is replaced, once all is on the medium.
        pieces: Its content. If they raise, what was there stays as it is.
        check: Called with the name that the file has until then; what it raises keeps it from the other.

    Returns:
        How many bytes it has.

    Raises:
        TransferError: It could not be written. What was there is as before.
    """
    with FileBeside(path) as file:
        for block in _blocks(_compressed(pieces) if is_packed(path) else pieces):
            file.append(block)
        file.finish(check)
        return file.size


@contextmanager
def _trouble(path: Path, state: str) -> Iterator[None]:
    """Says of an error of the file system what it means; what the records or a callback raise comes through."""
    try:
        yield
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise TransferError(f"{shown(path)} could not be written: {why}; {state}") from None


def _created(path: Path) -> tuple[Path, int]:
    while True:
        temporary = path.with_name(f"{_start(path)}{secrets.token_hex(4)}{SUFFIX}")
        descriptor = files.create(str(temporary))
        if _is_ours(temporary, descriptor):
            return temporary, descriptor
        files.close(descriptor)  # before it was locked another process took it for one that was left


def _is_ours(temporary: Path, descriptor: int) -> bool:
    try:
        return files.lock(descriptor) and files.stat(str(temporary)) is not None
    except OSError:
        return True  # a file system without locks: then nobody can take it away either


def remove_stale(path: Path) -> int:
    """Remove what processes that were killed have left of a file at `path`. Answers how many there were."""
    form = re.compile(f"{re.escape(_start(path))}[0-9a-f]{{8}}{re.escape(SUFFIX)}")
    names = [name for name in files.listdir(str(path.parent)) if form.fullmatch(name)]
    return sum(_remove_if_left(str(path.with_name(name))) for name in names)


def _remove_if_left(path: str) -> bool:
    try:
        opened = files.open_log(path, write=True)
    except OSError:
        return False
    if opened is None:
        return False
    try:
        left = files.lock(opened[0])
        if left:
            files.unlink(path)
        return left
    finally:
        files.close(opened[0])


def _start(path: Path) -> str:
    return f".{path.name[:_SHOWN]}."


def _check_target(path: Path) -> None:
    held = files.stat(str(path))
    if held is not None and not stat.S_ISREG(held.st_mode):
        what = "a directory" if stat.S_ISDIR(held.st_mode) else "no regular file, or a link"
        raise TransferError(f"{shown(path)} is {what}: name a file")
    if files.stat(str(path.parent)) is None:
        raise TransferError(f"{shown(path)} cannot be written: there is no folder {shown(path.parent)}")


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same content in blocks, so that there are fewer calls."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _BLOCK:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


class _Sink:
    """Keeps what is written to it until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, part: bytes) -> int:
        self._parts.append(bytes(part))
        return len(part)

    def flush(self) -> None: ...

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


def _compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    sink = _Sink()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=sink, mtime=0) as packed:
        for piece in pieces:
            packed.write(piece)
            yield sink.take()
    yield sink.take()
