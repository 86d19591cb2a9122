"""How the command ends: exit codes by error, and an error as one line."""

from __future__ import annotations

import re
import traceback
from typing import Final, NamedTuple

import click

from tierkit.cli.text import clean
from tierkit.errors import (
    CacheConfigError,
    CacheCorruptionError,
    CacheStorageError,
    CacheValidationError,
    KeyNotHeldError,
    SchemaMismatchError,
    SealingError,
    TransferError,
)


class Exit(NamedTuple):
    """A way to end.

    Attributes:
        code: What the shell sees.
        meaning: What it tells.
        errors: Those that end the command so.
    """

    code: int
    meaning: str
    errors: tuple[type[BaseException], ...] = ()


class Unreadable(click.ClickException):
    """A record is there and cannot be read."""


class ReaderGone(Exception):
    """Whoever read standard output has gone. click would make a broken pipe an exit with 1."""


OK: Final = Exit(0, "done; `warm` may have skipped rows, which it names")
NOT_FOUND: Final = Exit(
    1,
    "`get`: no such record, or it has expired; `explain`: nothing is known of it; `delete`: none of the keys has one;"
    " `leases --release`: no such lease",
)
USAGE: Final = Exit(
    2,
    "the command line, the configuration or a plugin is at fault",
    (click.ClickException, CacheConfigError, CacheValidationError),
)
STORAGE: Final = Exit(
    3, "a tier could not be read or written, or the last scrape of `stats --watch` failed", (CacheStorageError, OSError)
)
TRANSFER: Final = Exit(
    4, "a file could not be imported, exported or restored, or nothing in it could", (TransferError,)
)
SECRET: Final = Exit(5, "the encryption key is missing or malformed, or its file unsafe", (SealingError,))
RECORD: Final = Exit(
    6,
    "a record is damaged, sealed with another key, or of another entry type",
    (Unreadable, KeyNotHeldError, CacheCorruptionError, SchemaMismatchError),
)
DOUBTFUL: Final = Exit(7, "`doctor`: warnings are left, and no errors")
DAMAGED: Final = Exit(8, "`doctor`: errors are left")
INTERNAL: Final = Exit(70, "a fault in tierkit or in a plugin; `-v` shows where")
INTERRUPTED: Final = Exit(130, "interrupted", (KeyboardInterrupt, click.Abort))
BROKEN_PIPE: Final = Exit(141, "whoever read the output has gone", (BrokenPipeError, ReaderGone))

EXITS: Final = (
    OK,
    NOT_FOUND,
    USAGE,
    STORAGE,
    TRANSFER,
    SECRET,
    RECORD,
    DOUBTFUL,
    DAMAGED,
    INTERNAL,
    INTERRUPTED,
    BROKEN_PIPE,
)
"""Every way to end, by code. Errors are matched in the order of `_PRECEDENCE`."""

_USERINFO: Final = re.compile(r"[^\s'\"]+@")
_PRECEDENCE: Final = (BROKEN_PIPE, INTERRUPTED, RECORD, SECRET, TRANSFER, USAGE, STORAGE)


def exit_of(error: BaseException) -> Exit:
    """The way to end for `error`."""
    return next((way for way in _PRECEDENCE if isinstance(error, way.errors)), INTERNAL)


def describe(error: BaseException) -> str:
    """`error` as one printable line, without the text of an error that nobody foresaw: it may hold a secret."""
    if isinstance(error, click.UsageError):
        return f"{clean(_without_arguments(error.format_message()))} (see `{_command_of(error)} --help`)"
    if isinstance(error, click.ClickException):
        return clean(error.format_message())
    if exit_of(error) is INTERNAL:
        return f"this is a bug: {type(error).__name__} {_place_of(error)}; `tierkit -v ...` shows the traceback"
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename else ""
        return clean(f"{named}{error.strerror}")
    return clean(_on_one_line(str(error)) or type(error).__name__)


def _without_arguments(text: str) -> str:
    """What click says of a command line, without what may be credentials in it."""
    if text.startswith("Got unexpected extra argument"):
        return text.partition(" (")[0]
    return _USERINFO.sub("***@", text)


def _on_one_line(text: str) -> str:
    """A list of problems, a line for each, joined."""
    return text.replace(":\n- ", ": ").replace("\n- ", "; ").replace("\n", " ")


def _command_of(error: click.UsageError) -> str:
    return error.ctx.command_path if error.ctx else "tierkit"


def _place_of(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"in {frames[-1].name} (line {frames[-1].lineno})" if frames else "from nowhere"
