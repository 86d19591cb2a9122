"""The calls by which SQLite reaches the system, watched: failed by number, and logged.

SQLite does its own I/O, by a table of functions that it lets others replace (sqlite.org/vfs.html); its own tests for
failing calls and crashes are made so. Here every file that it opens gets a copy of its table of methods whose entries
go through this module. Nothing is changed while nobody watches, but files that were opened meanwhile keep their copy.

A test of the tests holds the log to be whole: what it says was written is what stands in the files.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p
from functools import cache
from typing import Any, Final, Protocol

from tierkit.testing import FileFaults, FileLog
from tierkit_sqlite.library import sqlite3

_METHODS: Final[dict[str, Any]] = {
    "xClose": CFUNCTYPE(c_int, c_void_p),
    "xRead": CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64),
    "xWrite": CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64),
    "xTruncate": CFUNCTYPE(c_int, c_void_p, c_int64),
    "xSync": CFUNCTYPE(c_int, c_void_p, c_int),
    "xFileSize": CFUNCTYPE(c_int, c_void_p, c_void_p),
    "xLock": CFUNCTYPE(c_int, c_void_p, c_int),
    "xUnlock": CFUNCTYPE(c_int, c_void_p, c_int),
    "xCheckReservedLock": c_void_p,
    "xFileControl": c_void_p,
    "xSectorSize": c_void_p,
    "xDeviceCharacteristics": c_void_p,
    "xShmMap": CFUNCTYPE(c_int, c_void_p, c_int, c_int, c_int, c_void_p),
    "xShmLock": CFUNCTYPE(c_int, c_void_p, c_int, c_int, c_int),
    "xShmBarrier": c_void_p,
    "xShmUnmap": c_void_p,
    "xFetch": c_void_p,
    "xUnfetch": c_void_p,
}
# A name is given on as the pointer that it is: SQLite keeps it, and looks for more behind its end.
_OPEN: Final[Any] = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, c_void_p)
_DELETE: Final[Any] = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_OPEN_DIRECTORY: Final[Any] = CFUNCTYPE(c_int, c_char_p, c_void_p)
_WATCHED: Final = ("xRead", "xWrite", "xTruncate", "xSync", "xFileSize", "xLock", "xShmMap", "xShmLock")
_IOERR: Final = 10
# What the functions of SQLite for Unix answer when the system refuses (sqlite.org/rescode.html).
_ANSWERS: Final = {
    "open": 14,
    "delete": _IOERR | 10 << 8,
    "read": _IOERR | 1 << 8,
    "write": _IOERR | 3 << 8,
    "sync": _IOERR | 4 << 8,
    "truncate": _IOERR | 6 << 8,
    "filesize": _IOERR | 7 << 8,
    "lock": _IOERR | 15 << 8,
    "shmlock": _IOERR | 20 << 8,
    "shmmap": _IOERR | 21 << 8,
}
_FULL: Final = 13
_UNLOCK: Final = 1
"""Of a lock in shared memory; to release one does not fail."""


class _Methods(Structure):
    _fields_ = (("iVersion", c_int), *((name, kind) for name, kind in _METHODS.items()))


class _Vfs(Structure):
    _fields_ = (
        *((name, c_int) for name in ("iVersion", "szOsFile", "mxPathname")),
        *((name, c_void_p) for name in ("pNext", "zName", "pAppData")),
        ("xOpen", _OPEN),
        ("xDelete", _DELETE),
        *((name, c_void_p) for name in ("xAccess", "xFullPathname", "xDlOpen", "xDlError", "xDlSym", "xDlClose")),
        *((name, c_void_p) for name in ("xRandomness", "xSleep", "xCurrentTime", "xGetLastError")),
        ("xCurrentTimeInt64", c_void_p),
        ("xSetSystemCall", CFUNCTYPE(c_int, c_void_p, c_char_p, c_void_p)),
        ("xGetSystemCall", CFUNCTYPE(c_void_p, c_void_p, c_char_p)),
    )


class Watcher(Protocol):
    """Is told of calls."""

    def code(self, name: str) -> int:
        """Before a call: the errno that it fails with, or 0."""

    def done(self, name: str, path: str, *arguments: Any) -> None:
        """After a call that succeeded."""


class Failing:
    """Fails what `faults` says, which counts these calls along with those of `tierkit.files`."""

    def __init__(self, faults: FileFaults) -> None:
        self.faults = faults

    def code(self, name: str) -> int:
        return self.faults.code(f"sqlite {name}")

    def done(self, name: str, path: str, *arguments: Any) -> None: ...


class Logging:
    """Tells `log` what was done, but for `-shm`: that is mapped memory, never flushed, and made anew after a crash."""

    def __init__(self, log: FileLog) -> None:
        self.log = log

    def code(self, name: str) -> int:
        return 0

    def done(self, name: str, path: str, *arguments: Any) -> None:
        if name == "open":
            if self.log.file_at(path) is None:
                self.log.created(path)
        elif name == "delete":
            self.log.unlinked(path)
        elif name == "directory":
            self.log.synced_directory(os.path.dirname(path))
        elif name in {"write", "truncate", "sync"}:
            self._changed(name, path, *arguments)

    def _changed(self, name: str, path: str, *arguments: Any) -> None:
        file = self.log.file_at(path)
        if file is None:
            return
        if name == "write":
            address, length, offset = arguments
            self.log.wrote(file, ctypes.string_at(address, length), offset)
        elif name == "truncate":
            self.log.truncated(file, *arguments)
        else:
            self.log.synced(file)


class _Hooks:
    """The functions that are put in place of SQLite's. They live as long as the process: open files refer to them."""

    def __init__(self, library: ctypes.CDLL) -> None:
        library.sqlite3_vfs_find.restype = POINTER(_Vfs)
        self.vfs = library.sqlite3_vfs_find(None).contents
        self.watcher: Watcher | None = None
        self._paths: dict[int, str] = {}
        self._tables: dict[int, _Methods] = {}
        self._reals = [_real(kind, getattr(self.vfs, name)) for name, kind in (("xOpen", _OPEN), ("xDelete", _DELETE))]
        self._ours = (_OPEN(self.open), _DELETE(self.delete))
        directory = self.vfs.xGetSystemCall(ctypes.addressof(self.vfs), b"openDirectory")
        self._open_directory = _OPEN_DIRECTORY(directory)
        self._our_open_directory = _OPEN_DIRECTORY(self.open_directory)

    def install(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.vfs.xOpen, self.vfs.xDelete = self._ours
        self._set_open_directory(self._our_open_directory)

    def remove(self) -> None:
        self.watcher = None
        self.vfs.xOpen, self.vfs.xDelete = self._reals
        self._set_open_directory(self._open_directory)

    def open(self, vfs: int, name: int | None, file: int, flags: int, out: int) -> int:
        return self._run("open", _text(name), lambda: self._open(vfs, name, file, flags, out))

    def delete(self, vfs: int, name: bytes, sync: int) -> int:
        return self._run("delete", os.fsdecode(name), lambda: self._reals[1](vfs, name, sync))

    def open_directory(self, path: bytes, out: int) -> int:
        """Called for nothing else than to flush it."""
        answer: int = self._open_directory(path, out)
        if answer == 0 and self.watcher is not None:
            self.watcher.done("directory", os.fsdecode(path))
        return answer

    def _open(self, vfs: int, name: int | None, file: int, flags: int, out: int) -> int:
        answer: int = self._reals[0](vfs, name, file, flags, out)
        methods = c_void_p.from_address(file)
        if answer == 0 and methods.value:
            self._paths[file] = _text(name)
            methods.value = ctypes.addressof(self._table(methods.value))
        return answer

    def _table(self, address: int) -> _Methods:
        """Our copy of the table at `address`."""
        if address not in self._tables:
            real = _Methods.from_address(address)
            table = _Methods.from_buffer_copy(real)
            for method in _WATCHED:
                setattr(table, method, _METHODS[method](self._method(method, getattr(real, method))))
            table.xClose = _METHODS["xClose"](self._closing(real.xClose))
            self._tables[address] = table
        return self._tables[address]

    def _method(self, method: str, real: Callable[..., int]) -> Callable[..., int]:
        name = method[1:].lower()

        def call(file: int, *arguments: int) -> int:
            if name == "shmlock" and arguments[-1] & _UNLOCK:
                return real(file, *arguments)
            return self._run(name, self._paths.get(file, ""), lambda: real(file, *arguments), *arguments)

        return call

    def _closing(self, real: Callable[[int], int]) -> Callable[[int], int]:
        def close(file: int) -> int:
            self._paths.pop(file, None)
            return real(file)

        return close

    def _run(self, name: str, path: str, real: Callable[[], int], *arguments: int) -> int:
        watcher = self.watcher
        if watcher is None:
            return real()
        code = watcher.code(name)
        if code:
            return _FULL if name == "write" and code == errno.ENOSPC else _ANSWERS[name]
        answer = real()
        if answer == 0:
            watcher.done(name, path, *arguments)
        return answer

    def _set_open_directory(self, function: Any) -> None:
        self.vfs.xSetSystemCall(ctypes.addressof(self.vfs), b"openDirectory", ctypes.cast(function, c_void_p))


def _text(name: int | None) -> str:
    return os.fsdecode(ctypes.string_at(name)) if name else ""


def _real(kind: Any, function: Any) -> Any:
    """The function that is there now, not the place where it is."""
    return kind(ctypes.cast(function, c_void_p).value)


@cache
def _hooks() -> _Hooks:
    module = sys.modules[sqlite3.connect.__module__]
    return _Hooks(ctypes.CDLL(module.__file__))


def no_hooks() -> str:
    """Why SQLite's calls cannot be watched here, or nothing."""
    try:
        _hooks()
    except (AttributeError, OSError, TypeError) as error:
        return f"this SQLite does not show its functions: {error}"
    return ""


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Tell `watcher` of the calls of SQLite. What is opened before is not watched."""
    _hooks().install(watcher)
    try:
        yield
    finally:
        _hooks().remove()
