"""Looking at a store as it lies there, whether anybody has it open or could. Changes nothing, and makes nothing.

What a process may be at work on is looked at under the lock that it would hold: where another holds that, it is left
alone. The repairs open the store as any writer does, which mends much by itself.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Final

from tierkit import Finding, TierContext, TierUnavailable, files, storage_checks
from tierkit_jsonl import findings as kinds
from tierkit_jsonl.home import META, first_line
from tierkit_jsonl.layout import META_LOCK, lock_path, read_meta, shard_path
from tierkit_jsonl.lines import Header, encode_header, key_crc
from tierkit_jsonl.locks import ShardLock
from tierkit_jsonl.log import Log
from tierkit_jsonl.repairing import Repairs, compact, drop_damage, put_in_place, reopen, write_nothing

if TYPE_CHECKING:
    from tierkit_jsonl import JsonlOptions

_OURS: Final = re.compile(
    r"meta\.(?:json(?:\.tmp)?|lock)|([0-9a-f]{2})(?:\.([1-9][0-9]{0,17}))?\.(?:jsonl(\.tmp)?|lock)"
)
_ASIDE: Final = re.compile(r".+\.corrupt-\d+(?:-\d+)?")
_BESIDE: Final = "__"
"""Begins the name of a store that the engine keeps beside one of records."""
_LEAST_DEAD: Final = 1024 * 1024


def examine(context: TierContext, options: JsonlOptions) -> Iterator[Finding]:
    """What is wrong with the store that `options` name, and with those beside it; nothing if it is not there."""
    root = os.path.abspath(options.path)
    if not os.path.isdir(root):
        return
    yield from storage_checks.check_folder(root, own=False, sticky=True)
    beside = [name for name in sorted(files.listdir(root)) if name.startswith(f"{context.namespace}{_BESIDE}")]
    for namespace in (context.namespace, *beside):
        directory = os.path.join(root, namespace)
        if os.path.isdir(directory):
            yield from _examine(replace(context, namespace=namespace), options, directory)


def _examine(context: TierContext, options: JsonlOptions, directory: str) -> Iterator[Finding]:
    yield from storage_checks.check_folder(directory, own=True)
    names = sorted(files.listdir(directory))
    paths = [os.path.join(directory, name) for name in names]
    yield from storage_checks.check_files(paths)
    yield from storage_checks.check_writable(
        directory, [path for path in paths if _OURS.fullmatch(os.path.basename(path))]
    )
    found = map(files.stat, paths)
    yield from storage_checks.check_room(directory, sum(status.st_size for status in found if status is not None))
    yield from _Store(context, options, directory).findings(names)


class _Store:
    """A store that lies there."""

    def __init__(self, context: TierContext, options: JsonlOptions, directory: str) -> None:
        self._directory = directory
        self._compact_ratio = options.compact_ratio
        self._repairs = Repairs(context, options)

    def findings(self, names: list[str]) -> Iterator[Finding]:
        try:
            header = read_meta(self._directory)
        except TierUnavailable as error:
            yield kinds.NEWER_FORMAT.at(self._path(META), str(error))
            return
        if header is None:
            yield from self._without_description(names)
            return
        for name in names:
            yield from self._look_at_name(name, header)
        for number in range(header.shards):
            yield from self._look_at_shard(number, header)

    # -- the folder ---------------------------------------------------------------------------------------------------

    def _without_description(self, names: list[str]) -> Iterator[Finding]:
        there = META in names or any(name.endswith(".jsonl") for name in names)
        with self._quiet(self._path(META_LOCK)) as quiet:
            found = quiet and there and read_meta(self._directory) is None
        if found:
            what = "damaged" if META in names else "not there"
            yield kinds.NO_DESCRIPTION.at(self._path(META), what, self._repairs.of(reopen))

    def _look_at_name(self, name: str, header: Header) -> Iterator[Finding]:
        path, ours = self._path(name), _OURS.fullmatch(name)
        if _ASIDE.fullmatch(name):
            yield storage_checks.SET_ASIDE.at(path)
        elif ours is None:
            yield kinds.STRANGER.at(path)
        elif name == f"{META}.tmp":
            yield from self._left_over(path, self._path(META_LOCK), self._repairs.of(reopen))
        elif name.endswith(".lock") or name == META:
            return
        elif int(ours[2] or 0) != header.generation:
            yield from self._left_over(path, self._path(META_LOCK), self._repairs.of(reopen))
        elif ours[3]:
            yield from self._left_over(path, lock_path(self._directory, int(ours[1], 16)), self._repairs.of(reopen))
        elif int(ours[1], 16) >= header.shards:
            yield kinds.BEYOND.at(path, f"there are {header.shards}", self._repairs.moving_aside(path))

    def _left_over(self, path: str, lock: str, repair: Callable[[], object]) -> Iterator[Finding]:
        with self._quiet(lock) as quiet:
            found = quiet and files.stat(path) is not None
        if found:
            yield kinds.LEFT_OVER.at(path, repair=repair)

    # -- one shard ----------------------------------------------------------------------------------------------------

    def _look_at_shard(self, number: int, header: Header) -> Iterator[Finding]:
        path = shard_path(self._directory, header, number)
        try:
            opened = files.open_log(path, write=False)
        except OSError:  # a link, or no file: told already
            return
        if opened is None:
            if read_meta(self._directory) == header:  # else the records were spread anew just now
                yield kinds.SHARD_MISSING.at(path, repair=self._repairs.of(write_nothing, number))
            return
        log = Log(opened[0], writable=False)
        try:
            log.catch_up(-inf)
        except TierUnavailable as error:
            yield kinds.NEWER_FORMAT.at(path, str(error))
            return
        yield from self._look_at_log(log, path, number, header)

    def _look_at_log(self, log: Log, path: str, number: int, header: Header) -> Iterator[Finding]:
        size = files.fstat(log.fd).st_size
        if size and not log.intact and not encode_header(header, number).startswith(files.pread(log.fd, size, 0)):
            yield kinds.FOREIGN_CONTENT.at(path, f"{size} bytes", self._repairs.of(write_nothing, number))
            return
        for offset in log.damage:
            yield kinds.DAMAGED_LINE.at(f"{path} at byte {offset}", repair=self._repairs.of(drop_damage, number))
        yield from self._torn(log, path, number)
        yield from self._misplaced(log, path, number, header)
        expected = encode_header(header, number)
        if first_line(log.fd) is not None and files.pread(log.fd, len(expected), 0) != expected:
            yield kinds.OTHER_HEADER.at(path, repair=self._repairs.of(compact, number))
        dead = log.end - log.live
        if dead > max(_LEAST_DEAD, 4 * self._compact_ratio * log.live):
            yield kinds.DEAD_BYTES.at(path, f"{dead} of {log.end} bytes", self._repairs.of(compact, number))

    def _torn(self, log: Log, path: str, number: int) -> Iterator[Finding]:
        """A tail without an end; of a file that is written just now it is the beginning of a line."""
        if files.fstat(log.fd).st_size <= log.end:
            return
        with self._quiet(lock_path(self._directory, number)) as quiet:
            if quiet:
                log.catch_up(-inf)
            left = files.fstat(log.fd).st_size - log.end
        if quiet and left > 0:
            yield kinds.TORN_TAIL.at(path, f"{left} bytes", self._repairs.of(write_nothing, number))

    def _misplaced(self, log: Log, path: str, number: int, header: Header) -> Iterator[Finding]:
        count = sum(key_crc(key) % header.shards != number for key in log.index)
        if count:
            yield kinds.MISPLACED.at(path, f"{count} records", self._repairs.of(put_in_place, number))

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    @contextmanager
    def _quiet(self, path: str) -> Iterator[bool]:
        """Whether nobody holds the lock at `path`; nobody takes it meanwhile. Makes no file."""
        if files.stat(path) is None:
            yield True
            return
        lock = ShardLock(path, 0.0)
        try:
            try:
                quiet = lock.try_file()
            except OSError:  # it cannot be written, so nobody writes
                quiet = True
            yield quiet
        finally:
            lock.close()
