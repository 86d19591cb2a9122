"""The directory of a store: who may write it, which files are its shards, and what a crash left behind."""

from __future__ import annotations

import os
import re
import stat as modes
import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from tierkit import CacheConfigError, TierContext, TierUnavailable, files
from tierkit_jsonl.home import META, Home, first_line, read_header
from tierkit_jsonl.lines import FORMAT, Header, encode_header
from tierkit_jsonl.locks import ShardLock
from tierkit_jsonl.shard import logger

META_LOCK: Final = "meta.lock"
_SYSTEMS: Final = frozenset({"linux", "darwin"})
_SHARD_FILE: Final = re.compile(r"[0-9a-f]{2}(?:\.([1-9][0-9]{0,17}))?\.jsonl(?:\.tmp)?")


def prepare(path: str, context: TierContext, shards: int, lock_timeout_seconds: float) -> str:
    """The directory for `context.namespace` under `path`, made with `shards` shards if it may be.

    Raises:
        TierUnavailable: Others can write the directory, or it holds a newer format.
        OSError: It cannot be made or read.
    """
    directory = os.path.join(path, context.namespace)
    if not context.read_only:
        files.make_directories(directory)
    elif files.stat(directory) is None:
        return directory
    above = os.stat(path)  # the user may have made it a link
    if not above.st_mode & modes.S_ISVTX:  # in a folder such as /tmp nobody can take away what is another's
        _refuse_unsafe(path, above)
    _refuse_unsafe(directory, files.stat(directory))
    if not context.read_only and read_meta(directory) is None:
        _make_meta(directory, context, shards, lock_timeout_seconds)
    return directory


def shard_name(number: int, generation: int) -> str:
    """The file of a shard: its number in two hexadecimal digits, and how often the records were spread anew."""
    return f"{number:02x}.{generation}.jsonl" if generation else f"{number:02x}.jsonl"


def shard_path(directory: str, header: Header, number: int) -> str:
    """The file of a shard of the store that has `header`."""
    return os.path.join(directory, shard_name(number, header.generation))


def lock_path(directory: str, number: int) -> str:
    """The lock of a shard, and of the one with its number in other generations."""
    return os.path.join(directory, f"{number:02x}.lock")


def read_meta(directory: str) -> Header | None:
    """What `meta.json` says, or None if it is not there or damaged."""
    opened = files.open_log(os.path.join(directory, META), write=False)
    if opened is None:
        return None
    try:
        return read_header(opened[0], directory)
    finally:
        files.close(opened[0])


def replace_meta(directory: str, header: Header) -> None:
    """Have `meta.json` say `header`: from then on it is so. The caller flushes the directory."""
    path = os.path.join(directory, META)
    files.unlink(path + ".tmp")
    fd = files.create(path + ".tmp")
    try:
        files.append(fd, encode_header(header))
        files.fsync(fd)
        files.replace(path + ".tmp", path)
    except BaseException:
        files.unlink(path + ".tmp")
        raise
    finally:
        files.close(fd)


def recover(directory: str) -> Header | None:
    """What shard files say where `meta.json` is damaged: those of the oldest generation that is whole.

    A newer one may be unfinished. The files of an older one are removed before the newer takes a write: until the first
    is gone, both hold the same records.
    """
    found = [header for names in _generations(directory).values() if (header := _common_header(directory, names))]
    whole = [header for header in found if _is_whole(directory, header)]
    return min(whole or found, key=lambda header: header.generation, default=None)


def sweep(home: Home, header: Header) -> None:
    """Remove the files of other generations, which a process left when it died.

    A reader that has old ones open must see them gone before the new ones take a write.
    """
    for generation, names in _generations(home.directory).items():
        if generation < header.generation:
            files.fsync_dir(home.directory)  # else a power cut may leave the old `meta.json` and none of its files
            _remove(home.directory, names)
        elif generation > header.generation:
            _remove_unfinished(home, names)


def remove_newer(directory: str, generation: int) -> None:
    """Remove what there is of generations after this one; the lock of `meta.json` is held."""
    for found, names in _generations(directory).items():
        if found > generation:
            _remove(directory, names)


def _remove_unfinished(home: Home, names: Iterable[str]) -> None:
    """Remove `names` unless a process is at work on them."""
    lock = ShardLock(os.path.join(home.directory, META_LOCK), 0.0)
    try:
        if lock.try_file() and home.is_there():
            _remove(home.directory, names)
    finally:
        lock.close()


def _remove(directory: str, names: Iterable[str]) -> None:
    for name in names:
        files.unlink(os.path.join(directory, name))


def _generations(directory: str) -> dict[int, list[str]]:
    """The names of the shard files in `directory`, by generation."""
    found: defaultdict[int, list[str]] = defaultdict(list)
    for name in sorted(files.listdir(directory)) if files.stat(directory) is not None else ():
        match = _SHARD_FILE.fullmatch(name)
        if match is not None:
            found[int(match[1] or 0)].append(name)
    return found


def _common_header(directory: str, names: Iterable[str]) -> Header | None:
    """What the first good header in the files `names` says."""
    headers = (_first_line(os.path.join(directory, name)) for name in names if name.endswith(".jsonl"))
    return next((header for header in headers if header is not None and header.is_possible()), None)


def _is_whole(directory: str, header: Header) -> bool:
    paths = (shard_path(directory, header, number) for number in range(header.shards))
    return all(files.stat(path) is not None for path in paths)


def _first_line(path: str) -> Header | None:
    opened = files.open_log(path, write=False)
    if opened is None:
        return None
    try:
        return first_line(opened[0])
    finally:
        files.close(opened[0])


def _make_meta(directory: str, context: TierContext, shards: int, lock_timeout_seconds: float) -> None:
    """Write `meta.json`; one that is damaged is moved aside and made anew from what the shards say."""
    lock = ShardLock(os.path.join(directory, META_LOCK), lock_timeout_seconds)
    try:
        lock.acquire_file()
        if read_meta(directory) is None:
            header = recover(directory) or Header(FORMAT, shards)
            _move_meta_aside(directory, context.now())
            _make_shards(directory, header)
            replace_meta(directory, header)
            files.fsync_dir(directory)
    finally:
        lock.close()


def _make_shards(directory: str, header: Header) -> None:
    """Make those that are missing, with one flush of the directory for all."""
    for number in range(header.shards):
        path = shard_path(directory, header, number)
        if files.stat(path) is None:
            fd = files.create(path)
            try:
                files.append(fd, encode_header(header, number))  # a torn one is mended by the first writer
            finally:
                files.close(fd)
    files.fsync_dir(directory)


def _move_meta_aside(directory: str, now: float) -> None:
    path = os.path.join(directory, META)
    if files.stat(path) is not None:
        aside = files.free_name(f"{path}.corrupt-{now:.0f}")
        logger.warning("%s cannot be read; moved to %s", path, aside)
        files.replace(path, aside)


def _refuse_unsafe(directory: str, status: os.stat_result | None) -> None:
    """Whoever can write the directory can put other files in place of ours."""
    if status is None or not modes.S_ISDIR(status.st_mode):
        raise TierUnavailable(f"{directory} is not a directory (links are not followed)")
    if files.others_can_write(status):
        raise TierUnavailable(
            f"{directory} can be written by others: chmod go-w it, make it your own, or choose another"
        )


def check_namespace(namespace: str) -> None:
    """Refuse what must not become the name of a directory, and a system on which this does not run.

    Raises:
        CacheConfigError: The system or the namespace is not supported.
    """
    if sys.platform not in _SYSTEMS:
        raise CacheConfigError(f"the tier jsonl runs on Linux and macOS, not on {sys.platform}")
    if not (namespace.isidentifier() and namespace.isascii() and len(namespace) <= 200):
        raise CacheConfigError(f"the namespace {namespace!r} is not an identifier of ASCII letters and digits")
