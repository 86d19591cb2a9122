"""Storage that cannot be written: by its modes, a mount, or a flag of the file system.

A cache is opened over it. What it holds is served, each write is refused, which is logged once and not at each call;
and when it can be written again, writes succeed without anybody's doing.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, Final
from unittest.mock import patch

import msgspec
from tests.faults.logs import warnings_kept
from tests.faults.trials import Effort, Outcome, Trial

from tierkit import CacheConfig, CacheEntry, CacheManager, CacheStorageError, TierUnavailable, files
from tierkit.level import Level
from tierkit.testing import FakeClock
from tierkit.testing.suite.processes import forked, send
from tierkit_sqlite.opening import Settings

KEYS: Final = tuple(f"key {number}" for number in range(5))
REFUSED_CALLS: Final = 10
ROUNDS: Final[Mapping[Effort, int]] = {"short": 1, "long": 20}
AUTHORITIES: Final[Mapping[str, str]] = {"jsonl": "store", "sqlite": "store.db"}
_NEW_MOUNTS: Final = 0x20000  # CLONE_NEWNS
_CAPABILITY_VERSION: Final = 0x20080522


class Entry(CacheEntry):
    text: str


class Obstruction(ABC):
    """What keeps a folder from being written to."""

    name: ClassVar[str]

    @abstractmethod
    def prepare(self, folder: Path) -> None:
        """Do what is to be done once, in the process that the trial is made in, and which ends with it."""

    @abstractmethod
    def block(self, folder: Path) -> None:
        """Let nothing in `folder` be written."""

    @abstractmethod
    def unblock(self, folder: Path) -> None:
        """Let everything be written again."""

    def obstacle(self) -> str:
        """Why this cannot be done here, or nothing."""
        return "" if sys.platform == "linux" else "needs Linux"


class Modes(Obstruction):
    """Files that their owner may not write, who has no capability to do it all the same, as root would."""

    name = "modes, and no capabilities"

    def prepare(self, folder: Path) -> None:
        header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
        assert ctypes.CDLL(None).capset(header, bytes(24)) == 0

    def block(self, folder: Path) -> None:
        _change_modes(folder, 0o500, 0o400)

    def unblock(self, folder: Path) -> None:
        _change_modes(folder, 0o700, 0o600)


def _change_modes(folder: Path, of_folder: int, of_file: int) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(of_folder if path.is_dir() else of_file)


class Mount(Obstruction):
    """A bind mount that is read-only, in a mount namespace of its own."""

    name = "a read-only mount"

    def prepare(self, folder: Path) -> None:
        assert ctypes.CDLL(None).unshare(_NEW_MOUNTS) == 0
        _run("mount", "--make-rprivate", "/")
        _run("mount", "--bind", str(folder), str(folder))

    def block(self, folder: Path) -> None:
        _run("mount", "-o", "remount,bind,ro", str(folder))

    def unblock(self, folder: Path) -> None:
        _run("mount", "-o", "remount,bind,rw", str(folder))

    def obstacle(self) -> str:
        if which("unshare") is None or which("mount") is None or os.geteuid():
            return "needs Linux, mount and root"
        probe = 'mount --make-rprivate / && mount --bind "$0" "$0"'
        with TemporaryDirectory() as folder:
            made = subprocess.run(["unshare", "-m", "sh", "-c", probe, folder], capture_output=True, check=False)
        return "" if made.returncode == 0 else "needs to be allowed to mount"


class Immutable(Obstruction):
    """Files and folders with the flag of that name: `chattr +i`."""

    name = "chattr +i"

    def prepare(self, folder: Path) -> None:
        """Nothing."""

    def block(self, folder: Path) -> None:
        _run("chattr", "-R", "+i", str(folder))

    def unblock(self, folder: Path) -> None:
        _run("chattr", "-R", "-i", str(folder))

    def obstacle(self) -> str:
        if which("chattr") is None or os.geteuid():
            return "needs chattr and root"
        with TemporaryDirectory() as folder:
            try:
                self.block(Path(folder))
            except subprocess.CalledProcessError:
                return "needs a file system with chattr +i"
            self.unblock(Path(folder))
        return ""


def _run(*command: str) -> None:
    subprocess.run(command, capture_output=True, check=True)


def run(obstruction: Obstruction, folder: Path, effort: Effort) -> Outcome:
    """The trial of one obstruction, in a process of its own."""
    with forked(partial(_run_all, obstruction, folder, ROUNDS[effort])) as child:
        while child.receive():
            pass
    return msgspec.json.decode((folder / "outcome").read_bytes(), type=Outcome)


def _run_all(obstruction: Obstruction, folder: Path, rounds: int, pipe: Connection) -> None:
    outcome = Outcome()
    blocked = folder / "blocked"
    blocked.mkdir(mode=0o700)
    obstruction.prepare(blocked)
    for backend, name in AUTHORITIES.items():
        for number in range(rounds):
            outage(outcome, obstruction, blocked, partial(opened, {"backend": backend, "path": blocked / name}), number)
            send(pipe, 1)
    (folder / "outcome").write_bytes(msgspec.json.encode(outcome))
    send(pipe, 0)


def opened(authority: dict[str, Any], clock: FakeClock) -> CacheManager[Entry]:
    """A cache over memory and `authority`: nobody stands in for that."""
    return CacheManager(CacheConfig(tiers=({"backend": "memory"}, authority)), entry_type=Entry, clock=clock)


def outage(
    outcome: Outcome,
    obstruction: Obstruction,
    folder: Path,
    open_cache: Callable[[FakeClock], CacheManager[Entry]],
    number: int,
) -> None:
    """Fill a cache, block its storage, open it again; and unblock that under it."""
    clock = FakeClock()
    with open_cache(clock) as cache:
        for key in KEYS:
            cache.put(Entry(key=key, text=f"{number}"))
    obstruction.block(folder)
    try:
        cache = open_cache(clock)
        with warnings_kept() as told:
            refuse(outcome, cache, number)
        outcome.check(len(told) == 1, f"{len(told)} messages for one change of state: {told[:3]}")
    finally:
        obstruction.unblock(folder)
    with cache, warnings_kept() as told:
        clock.advance(120.0)
        cache.recover()
        succeed(outcome, cache, number)
    outcome.check(not told, f"messages though all is well: {told[:3]}")
    outcome.count("outages")


def refuse(outcome: Outcome, cache: CacheManager[Entry], number: int) -> None:
    """Writes are refused and reads served, of L1 and of what lies below."""
    for _ in range(REFUSED_CALLS):
        for key in KEYS:
            entry = cache.get(key)
            outcome.check(entry and entry.text == f"{number}", f"{key} is not served")
            outcome.count("reads while it is blocked")
        with contextlib.suppress(CacheStorageError):
            cache.put(Entry(key=KEYS[0], text="refused"))
            outcome.violations.append("a write is acknowledged that cannot be there")
        outcome.count("writes refused")
        cache.levels[0].empty()


def succeed(outcome: Outcome, cache: CacheManager[Entry], number: int) -> None:
    """Writes succeed, and reach the storage."""
    for key in KEYS:
        try:
            cache.put(Entry(key=key, text="after"))
        except CacheStorageError as error:
            outcome.violations.append(f"{key} cannot be written though nothing is blocked: {error}")
    cache.levels[0].empty()
    for key in KEYS:
        entry = cache.get(key)
        outcome.check(entry and entry.text == "after", f"{key} is {entry and entry.text} and not what was written last")
    outcome.check(cache.levels[-1].writable, "the level is not back")
    outcome.count("records written afterwards", len(KEYS))


# -- what could be wrong -----------------------------------------------------------------------------------------------


@contextmanager
def talkative() -> Iterator[None]:
    """A level that takes no writes says so at each call."""
    true = Level._refuse_writes

    def refuse_writes(level: Level, error: Exception) -> None:
        level.writable = True
        true(level, error)

    with patch.object(Level, "_refuse_writes", refuse_writes):
        yield


@contextmanager
def not_read() -> Iterator[None]:
    """Storage that cannot be written is not opened at all."""

    def refuse(*_: object, **__: object) -> Any:
        raise TierUnavailable("it cannot be written")

    with (
        patch.object(Settings, "_can_only_be_read", lambda *_: False),
        patch.object(files, "open_for_reading", refuse),
    ):
        yield


FAULTS: Final[Mapping[str, Callable[[], AbstractContextManager[object]]]] = {
    "a message at each call": talkative,
    "a level never comes back": lambda: patch.object(Level, "_found_room", lambda _: None),
    "what cannot be written is not read": not_read,
}
TRIALS: Final = tuple(
    Trial(5, f"storage that cannot be written: {kind.name}", partial(run, kind()), FAULTS, kind().obstacle)
    for kind in (Modes, Mount, Immutable)
)
