"""An open store: its shards, and the directory that they are in."""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Final, TypeVar

from tierkit import TierContext, files
from tierkit_jsonl.home import META, Home
from tierkit_jsonl.layout import check_namespace, lock_path, prepare, recover, shard_path, sweep
from tierkit_jsonl.lines import FORMAT, Header, encode_header
from tierkit_jsonl.log import Log
from tierkit_jsonl.resharding import spread
from tierkit_jsonl.shard import Shard, ShardSettings

T = TypeVar("T")

SHARDS: Final = 16
"""How many a new store gets if no number was asked for."""


class Store:
    """The shards of one directory. Once that is gone, or they are others, each use of them raises `HomeLost`.

    Attributes:
        home: The directory.
        shards: In order.
        is_new: Whether nothing was there, and it was made.
    """

    def __init__(
        self,
        path: str,
        context: TierContext,
        *,
        shards: int | None,
        lock_timeout_seconds: float,
        compact_ratio: float,
        may_spread: bool = True,
    ) -> None:
        """Open the store under `path`, and make it if it is not there. Shards are read when they are first used.

        If it has another number of shards than `shards` its records are spread anew, unless `may_spread` is false.
        """
        check_namespace(context.namespace)
        self.is_new = not context.read_only and files.stat(os.path.join(path, context.namespace, META)) is None
        directory = prepare(path, context, shards or SHARDS, lock_timeout_seconds)
        if may_spread and shards is not None:
            spread(directory, shards, context, lock_timeout_seconds)
        self.home = Home(directory)
        self.shards: list[Shard] = []
        try:
            header = self.home.header or recover(directory) or Header(FORMAT, shards or SHARDS)
            settings = ShardSettings(context, lock_timeout_seconds, compact_ratio, self.home)
            self.shards += [_shard(header, number, settings) for number in range(header.shards)]
            if not context.read_only:
                self._sweep(header)
        except BaseException:
            self.close()
            raise

    def shard(self, crc: int) -> Shard:
        """The shard of the key with this checksum."""
        return self.shards[crc % len(self.shards)]

    def by_shard(self, items: Iterable[tuple[int, T]]) -> dict[Shard, list[tuple[int, T]]]:
        """`items`, each with the checksum of its key before it, by the shard of that key."""
        groups: defaultdict[Shard, list[tuple[int, T]]] = defaultdict(list)
        shards = self.shards
        for item in items:
            groups[shards[item[0] % len(shards)]].append(item)
        return groups

    def logs(self) -> Iterator[tuple[Shard, Log]]:
        """The shards that have a file, each with what is in it."""
        for shard in self.shards:
            log = shard.current()
            if log is not None:
                yield shard, log

    def size_on_disk(self) -> int:
        """The size of all its files, in bytes."""
        directory = self.home.directory
        if files.stat(directory) is None:
            return 0
        found = (files.stat(os.path.join(directory, name)) for name in files.listdir(directory))
        return sum(status.st_size for status in found if status is not None)

    def close(self) -> None:
        """Let go of the files."""
        with ExitStack() as closing:  # each, though another fails
            closing.callback(self.home.close)
            for shard in self.shards:
                closing.callback(shard.close)

    def _sweep(self, header: Header) -> None:
        """Remove what processes left that died, unless nobody can write there."""
        try:
            sweep(self.home, header)
            for shard in self.shards:
                shard.sweep()
        except OSError as error:
            if error.errno != errno.EROFS:
                raise


def _shard(header: Header, number: int, settings: ShardSettings) -> Shard:
    directory = settings.home.directory
    path = shard_path(directory, header, number)
    return Shard(path, lock_path(directory, number), encode_header(header, number), settings)
