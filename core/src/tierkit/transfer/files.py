"""Opening a file to import, and cutting it into lines, within limits whatever it holds."""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import zlib
from codecs import BOM_UTF8, getincrementaldecoder
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from tierkit.errors import TransferError
from tierkit.transfer.report import shown

MAX_LINE_BYTES: Final = 1024 * 1024
"""A longer line is skipped as one bad row."""
MAX_DOCUMENT_BYTES: Final = 512 * 1024 * 1024
"""A JSON document that is larger, when decompressed, is refused: it is read whole."""
TOO_LONG: Final = f"the line is longer than {MAX_LINE_BYTES} bytes"

_BLOCK: Final = 256 * 1024
_SAMPLE: Final = 8 * 1024
_TEXT_SHARE: Final = 20  # a file is binary if less than a twentieth of its beginning is text
_CORRUPT: Final = (zlib.error, gzip.BadGzipFile)
DAMAGED: Final = (EOFError, *_CORRUPT)
"""What a compressed file raises that is cut off or is not what was compressed."""
_GZIP_MAGIC: Final = b"\x1f\x8b"
_CONTROL: Final = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")

NumberedLine = tuple[int, bytes | None]
"""The number of a line, from 1, and its bytes without the newline; None for one that is too long."""


def trouble(path: Path, what: str) -> TransferError:
    """The error that says what is wrong with a whole file."""
    return TransferError(f"{shown(path)} {what}")


def open_bytes(path: Path) -> io.BufferedIOBase:
    """Open a file of text for reading, decompressed if its name ends in `.gz`.

    Raises:
        TransferError: It is missing, not readable, not a regular file, empty, binary, or not gzip though named so.
    """
    check_kind(path)
    stream = open_stream(path, packed=is_packed(path))
    try:
        _check_sample(path, _block(path, stream)[:_SAMPLE])
        stream.seek(0)
    except BaseException:
        stream.close()
        raise
    return stream


def read_document(path: Path) -> bytes:
    """All of a file, decompressed.

    Raises:
        TransferError: As `open_bytes`; or the file is cut off, damaged or too large.
    """
    parts: list[bytes] = []
    size = 0
    with open_bytes(path) as stream:
        while block := _block(path, stream):
            parts.append(block)
            size += len(block)
            if size > MAX_DOCUMENT_BYTES:
                raise trouble(path, f"is larger than {MAX_DOCUMENT_BYTES} bytes: use JSON Lines")
    return b"".join(parts).removeprefix(BOM_UTF8)


def numbered_lines(path: Path, stream: io.BufferedIOBase, on_cut: Callable[[int, str], None]) -> Iterator[NumberedLine]:
    """Yield the lines of `stream`, never holding more than a block and a line of it.

    Args:
        path: For messages.
        stream: From `open_bytes`.
        on_cut: Called with a line number and a reason if a compressed file is cut off; the lines before have been
            yielded, and what is left of that line is dropped.

    Raises:
        TransferError: The file could not be read on, or is compressed and damaged. That is found at the end at the
            latest, by its checksum: read all of it before believing any of it.
    """
    number, rest, too_long = 1, b"", False
    while True:
        try:
            block = _read(path, stream, _BLOCK)
        except EOFError:
            return on_cut(number, "the file is cut off from here on")
        except _CORRUPT as error:
            raise trouble(path, f"is damaged: what it holds is not what was compressed ({said(error)})") from None
        if not block:
            break
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            if number == 1:
                line = line.removeprefix(BOM_UTF8)  # noqa: PLW2901 - the first line only
            yield number, None if too_long or len(line) > MAX_LINE_BYTES else line
            number += 1
            too_long = False
        if len(rest) > MAX_LINE_BYTES:
            rest, too_long = b"", True
    if rest or too_long:
        yield number, None if too_long else rest.removeprefix(BOM_UTF8) if number == 1 else rest
    return None


def count_lines(path: Path) -> int:
    """How many lines of a file are not blank.

    Raises:
        TransferError: As `open_bytes`.
    """
    with open_bytes(path) as stream:
        lines = numbered_lines(path, stream, ignore_cut)
        return sum(1 for _, line in lines if line is None or line.strip())


def ignore_cut(_line: int, _reason: str) -> None:
    """For counting: that a file is cut off is reported when it is read."""


def check_kind(path: Path) -> None:
    """See that there is a file that can be read more than once.

    Raises:
        TransferError: It is missing, or not a regular file.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise trouble(path, "does not exist") from None
    except (OSError, ValueError) as error:
        raise trouble(path, f"cannot be read: {said(error)}") from None
    if stat.S_ISDIR(mode):
        raise trouble(path, "is a directory, not a file")
    if not stat.S_ISREG(mode):  # a pipe would be waited for, and cannot be read twice
        raise trouble(path, "is not a regular file")


def _check_sample(path: Path, sample: bytes) -> None:
    if not sample:
        raise trouble(path, "is empty")
    if not _is_text(sample):
        hint = ": it is gzip, so its name must end in .gz" if sample.startswith(_GZIP_MAGIC) else ""
        raise trouble(path, f"is binary, not text{hint}")


def is_packed(path: Path) -> bool:
    """Whether its name says that a file is compressed."""
    return path.suffix.lower() == ".gz"


def open_stream(path: Path, *, packed: bool) -> io.BufferedIOBase:
    """The bytes of a file, decompressed if it is `packed`.

    Raises:
        TransferError: The system refuses.
    """
    try:
        return gzip.open(path, "rb") if packed else path.open("rb")
    except OSError as error:
        raise trouble(path, f"cannot be read: {said(error)}") from None


def _read(path: Path, stream: io.BufferedIOBase, size: int) -> bytes:
    try:
        return stream.read1(size)  # not read(), which drops what came before a damaged place
    except DAMAGED:
        raise
    except OSError as error:
        raise trouble(path, f"cannot be read: {said(error)}") from None


def _block(path: Path, stream: io.BufferedIOBase) -> bytes:
    try:
        return _read(path, stream, _BLOCK)
    except DAMAGED as error:
        raise trouble(path, f"is cut off, damaged or not gzip ({type(error).__name__})") from None


def said(error: Exception) -> str:
    """What the system, or else the type of an error, says; no path."""
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__


def _is_text(sample: bytes) -> bool:
    """Whether a fair share of `sample` is in lines of UTF-8 without control characters."""
    clean = sum(len(line) for line in sample.splitlines() if _is_clean(line))
    return clean * _TEXT_SHARE >= len(sample.strip())


def _is_clean(line: bytes) -> bool:
    try:
        text = getincrementaldecoder("utf-8")().decode(line)
    except UnicodeDecodeError:
        return False
    return _CONTROL.search(text) is None
