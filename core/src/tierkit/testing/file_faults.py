"""Failing calls of `tierkit.files`: the N-th one, those of a kind, or whichever a test says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Self
from unittest.mock import patch

from tierkit import files

FILE_CALLS: Final = (
    "append",
    "close",
    "create",
    "fstat",
    "fsync",
    "fsync_dir",
    "listdir",
    "lock",
    "mkdir",
    "open_dir",
    "open_for_reading",
    "open_lock",
    "open_log",
    "pread",
    "replace",
    "stat",
    "truncate",
    "unlink",
    "unlock",
)
"""The calls of `tierkit.files` that reach the system, by name."""

Fails = Callable[[int, str], int]
"""Given the number of a call, from 1, and its name: the `errno` that it fails with, or 0 for none."""
Wrap = Callable[[str, Callable[..., Any]], Callable[..., Any]]
"""Given the name of a call and what it does: what is done in its place."""


def nothing_fails(_number: int, _name: str) -> int:
    """Only count."""
    return 0


def nth_fails(number: int, code: int, *, lasting: bool = False) -> Fails:
    """Call `number` fails with the errno `code`, or with `lasting` each from then on."""
    return lambda count, _: code if count == number or (lasting and count > number) else 0


def these_fail(code: int, *names: str) -> Fails:
    """Each call of one of these names fails with the errno `code`."""
    return lambda _, name: code if name in names else 0


class FileFaults:
    """Counts the calls of `tierkit.files` and fails some of them, while it is entered.

    ```python
    with FileFaults(nth_fails(7, errno.ENOSPC)) as faults:
        ...
    assert faults.names[6] == "append"
    ```

    An `append` that fails has written the first half, and a `close` that fails has closed all the same: either may be
    so. Other calls that fail have done nothing.

    Attributes:
        names: The calls so far, those that failed included.
        failed: How many of them failed.
        on: Whether calls are counted and may fail.
    """

    def __init__(self, fails: Fails = nothing_fails) -> None:
        """Fail what `fails` says, once entered."""
        self.names: list[str] = []
        self.failed = 0
        self.on = True
        self._fails = fails
        self._patches = ExitStack()

    def code(self, name: str) -> int:
        """Count a call; the errno that it fails with, or 0. For those who watch other calls than these as well."""
        if not self.on:
            return 0
        self.names.append(name)
        code = self._fails(len(self.names), name)
        self.failed += bool(code)
        return code

    def __enter__(self) -> Self:
        """Watch from here on."""
        self._patches.enter_context(wrapped_files(self._wrapped))
        return self

    def __exit__(self, *_: object) -> None:
        """Leave `tierkit.files` as it was."""
        self._patches.close()

    def _wrapped(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            code = self.code(name)
            if not code:
                return real(*args, **kwargs)
            if name == "append":
                real(args[0], args[1][: len(args[1]) // 2])
            elif name == "close":
                real(*args)
            raise OSError(code, os.strerror(code))

        return call


@contextmanager
def wrapped_files(wrap: Wrap) -> Iterator[None]:
    """Have each call of `tierkit.files` done by what `wrap` makes of it."""
    with ExitStack() as patches:
        for name in FILE_CALLS:
            patches.enter_context(patch.object(files, name, wrap(name, getattr(files, name))))
        yield
