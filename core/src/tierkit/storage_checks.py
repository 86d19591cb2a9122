"""What an examination looks at in any storage that keeps files: who may use them, links, and the room that is left.

A plugin calls these from the function in `TierSpec.examine`: `from tierkit import storage_checks`.
"""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final

from tierkit import files
from tierkit.findings import Finding, FindingKind

LEAST_FREE_BYTES: Final = 64 * 1024 * 1024
"""Less room than this is told, whatever the size of the storage."""

FILE_EXPOSED: Final = FindingKind(
    code="file-exposed",
    severity="warning",
    means="Other users can read or write a file of the storage. Secrets in it are sealed, the rest is not.",
    advice="chmod 600 it, and see what changed it: tierkit makes files for their owner only.",
    fix="takes the rights of others away",
)
FOLDER_WRITABLE: Final = FindingKind(
    code="folder-writable",
    severity="error",
    means="Other users can put files into the folder of the storage, or take some out: the level does not open.",
    advice="chmod go-w it, or keep the storage in a folder of your own.",
    fix="takes the right to write from others, where the folder is yours",
)
FOLDER_EXPOSED: Final = FindingKind(
    code="folder-exposed",
    severity="warning",
    means="Other users can list or enter a folder that tierkit made for its owner only.",
    advice="chmod 700 it.",
    fix="takes the rights of others away",
)
LINK: Final = FindingKind(
    code="file-link",
    severity="error",
    means="In place of a file of the storage stands a link, or something else that is no file. It is not followed.",
    advice="Find out who put it there; move it away, and the file that belongs there back.",
)
OTHER_OWNER: Final = FindingKind(
    code="file-owner",
    severity="error",
    means="A file of the storage belongs to another user: it cannot be repaired, and perhaps not be written.",
    advice="Run tierkit as one user; chown the file to that one.",
)
UNWRITABLE: Final = FindingKind(
    code="not-writable",
    severity="error",
    means="This user cannot write a file or folder of the storage: what should be written there is refused, or waits.",
    advice="See its owner and mode, and whether its file system is mounted read-only, or has become so after a fault.",
)
LITTLE_ROOM: Final = FindingKind(
    code="room-little",
    severity="warning",
    means="The file system has little room left. Writes will be refused, and to compact or repair needs room too.",
    advice="Make room, or give the level a bound (max_entries).",
)
SET_ASIDE: Final = FindingKind(
    code="kept-aside",
    severity="note",
    means="Something damaged was kept aside. tierkit never reads it again, and never removes it.",
    advice="Take from it what you need (docs: Read a damaged store), then remove it. Guard it like the storage.",
)

KINDS: Final = (FILE_EXPOSED, FOLDER_WRITABLE, FOLDER_EXPOSED, LINK, OTHER_OWNER, UNWRITABLE, LITTLE_ROOM, SET_ASIDE)


def check_files(paths: Iterable[str]) -> Iterator[Finding]:
    """See that each of `paths` that is there is a file, and its owner's alone."""
    for path in paths:
        status = files.stat(path)
        if status is None:
            continue
        if not modes.S_ISREG(status.st_mode):
            yield LINK.at(path)
        elif _is_foreign(status):
            yield OTHER_OWNER.at(path, f"user {status.st_uid}")
        elif status.st_mode & 0o077:
            yield FILE_EXPOSED.at(path, mode_of(status), partial(_restrict, path, 0o077))


def check_folder(path: str, *, own: bool, sticky: bool = False) -> Iterator[Finding]:
    """See that others cannot write into the folder `path`; nor enter it, if it is one that tierkit made (`own`).

    With `sticky` one such as /tmp will do, where nobody can take away what is another's.
    """
    try:
        status = os.stat(path)  # a user may have made it a link
    except FileNotFoundError:
        return
    is_sticky = status.st_mode & modes.S_ISVTX
    if files.others_can_write(status) and not (sticky and is_sticky):
        mine = not (_is_foreign(status) or is_sticky)
        yield FOLDER_WRITABLE.at(path, mode_of(status), partial(_restrict, path, 0o022) if mine else None)
    elif own and status.st_mode & 0o077:
        yield FOLDER_EXPOSED.at(path, mode_of(status), partial(_restrict, path, 0o077))


def check_writable(folder: str, paths: Iterable[str] = ()) -> Iterator[Finding]:
    """See that this user can write into `folder`, and those of `paths` that are there."""
    if not os.access(folder, os.W_OK) and os.path.isdir(folder):
        yield UNWRITABLE.at(folder)
        return
    yield from (UNWRITABLE.at(path) for path in paths if not os.access(path, os.W_OK) and os.path.isfile(path))


def check_room(path: str, size: int) -> Iterator[Finding]:
    """See that there is room beside `path` to write its `size` bytes anew."""
    found = os.statvfs(path)
    free = found.f_bavail * found.f_frsize
    if free < max(size, LEAST_FREE_BYTES):
        yield LITTLE_ROOM.at(path, f"{free // 2**20} MiB free, and its storage takes {size // 2**20} MiB")


def _is_foreign(status: os.stat_result) -> bool:
    return bool(os.geteuid()) and status.st_uid not in {os.geteuid(), 0}


def mode_of(status: os.stat_result) -> str:
    """Its mode, as a person is told it."""
    return f"mode {modes.S_IMODE(status.st_mode):04o}"


def _restrict(path: str, rights: int) -> None:
    """Take `rights` away. By name: a descriptor that is closed would end SQLite's locks on the file."""
    status = os.stat(path)
    os.chmod(path, modes.S_IMODE(status.st_mode) & ~rights)
