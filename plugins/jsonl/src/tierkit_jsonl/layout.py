"""The directory of a store: who may write it, how many shards it has, and what a crash left behind."""

from __future__ import annotations

import os
import stat as modes
import sys
from typing import Final

from tierkit import CacheConfigError, TierContext, TierUnavailable, files
from tierkit_jsonl.lines import FORMAT, MAX_LINE, Header, decode_header, encode_header
from tierkit_jsonl.locks import ShardLock
from tierkit_jsonl.shard import free_name, logger

META: Final = "meta.json"
_SYSTEMS: Final = frozenset({"linux", "darwin"})
_OTHERS_WRITE: Final = modes.S_IWGRP | modes.S_IWOTH


def prepare(path: str, context: TierContext, shards: int, lock_timeout_seconds: float) -> tuple[str, int]:
    """The directory for `context.namespace` under `path`, made if it may be, and its number of shards.

    Raises:
        CacheConfigError: The system or the namespace is not supported.
        TierUnavailable: Others can write the directory, or it holds a newer format.
        OSError: It cannot be made or read.
    """
    _refuse_unsupported(context.namespace)
    directory = os.path.join(path, context.namespace)
    if not context.read_only:
        files.make_directories(directory)
    elif files.stat(directory) is None:
        return directory, shards
    _refuse_unsafe(path, os.stat(path))  # the user may have made it a link
    _refuse_unsafe(directory, files.stat(directory))
    header = read_meta(directory) or (None if not context.read_only else _recover(directory))
    if header is None and not context.read_only:
        header = _make_meta(directory, context, shards, lock_timeout_seconds)
    if header is not None and header.shards != shards:
        logger.info("%s keeps its %d shards; the setting is %d", directory, header.shards, shards)
    return directory, header.shards if header is not None else shards


def shard_name(number: int) -> str:
    """The file of a shard: its number in two hexadecimal digits."""
    return f"{number:02x}.jsonl"


def read_meta(directory: str) -> Header | None:
    """What `meta.json` says, or None if it is not there or damaged."""
    header = _first_line(os.path.join(directory, META))
    if header is not None and header.format > FORMAT:
        raise TierUnavailable(f"{directory} has format {header.format}, newer than {FORMAT}: upgrade tierkit-jsonl")
    return header if header is not None and 1 <= header.shards <= 256 else None


def _make_meta(directory: str, context: TierContext, shards: int, lock_timeout_seconds: float) -> Header:
    """Write `meta.json`; one that is damaged is moved aside and made anew from what the shards say."""
    lock = ShardLock(os.path.join(directory, "meta.lock"), lock_timeout_seconds)
    try:
        lock.acquire_file()
        header = read_meta(directory)
        if header is None:
            header = _recover(directory) or Header(FORMAT, shards)
            _move_meta_aside(directory, context.now())
            _make_shards(directory, header.shards)
            _write_meta(directory, header.shards)
        return header
    finally:
        lock.close()


def _make_shards(directory: str, shards: int) -> None:
    """Make those that are missing, with one flush of the directory for all."""
    for number in range(shards):
        path = os.path.join(directory, shard_name(number))
        if files.stat(path) is None:
            fd = files.create(path)
            try:
                files.append(fd, encode_header(shards, number))  # a torn one is mended by the first writer
            finally:
                files.close(fd)
    files.fsync_dir(directory)


def _write_meta(directory: str, shards: int) -> None:
    path = os.path.join(directory, META)
    files.unlink(path + ".tmp")
    fd = files.create(path + ".tmp")
    try:
        files.append(fd, encode_header(shards))
        files.fsync(fd)
        files.replace(path + ".tmp", path)
    except BaseException:
        files.unlink(path + ".tmp")
        raise
    finally:
        files.close(fd)
    files.fsync_dir(directory)


def _move_meta_aside(directory: str, now: float) -> None:
    path = os.path.join(directory, META)
    if files.stat(path) is not None:
        aside = free_name(f"{path}.corrupt-{now:.0f}")
        logger.warning("%s cannot be read; moved to %s", path, aside)
        files.replace(path, aside)


def _recover(directory: str) -> Header | None:
    """What the first good header of a shard file says."""
    for name in sorted(files.listdir(directory)):
        if name.endswith(".jsonl"):
            header = _first_line(os.path.join(directory, name))
            if header is not None and 1 <= header.shards <= 256:
                return header
    return None


def _first_line(path: str) -> Header | None:
    opened = files.open_log(path, write=False)
    if opened is None:
        return None
    try:
        return decode_header(files.pread(opened[0], min(MAX_LINE, 4096), 0).partition(b"\n")[0])
    finally:
        files.close(opened[0])


def _refuse_unsafe(directory: str, status: os.stat_result | None) -> None:
    """Whoever can write the directory can put other files in place of ours."""
    if status is None or not modes.S_ISDIR(status.st_mode):
        raise TierUnavailable(f"{directory} is not a directory (links are not followed)")
    if status.st_mode & _OTHERS_WRITE and not status.st_mode & modes.S_ISVTX:
        raise TierUnavailable(f"{directory} can be written by others: chmod go-w it, or choose another path")


def _refuse_unsupported(namespace: str) -> None:
    if sys.platform not in _SYSTEMS:
        raise CacheConfigError(f"the tier jsonl runs on Linux and macOS, not on {sys.platform}")
    if not (namespace.isidentifier() and namespace.isascii() and len(namespace) <= 200):
        raise CacheConfigError(f"the namespace {namespace!r} is not an identifier of ASCII letters and digits")
