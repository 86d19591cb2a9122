"""An open store: its shards, and the directory that they are in."""

from __future__ import annotations

import os
from collections.abc import Iterator

from tierkit import TierContext, files
from tierkit_jsonl.home import Home
from tierkit_jsonl.layout import META, prepare, shard_name
from tierkit_jsonl.lines import encode_header
from tierkit_jsonl.log import Log
from tierkit_jsonl.shard import Shard, ShardSettings


class Store:
    """The shards of one directory. Once that is gone, each use of them raises `HomeLost`.

    Attributes:
        home: The directory.
        shards: In order.
        is_new: Whether nothing was there, and it was made.
    """

    def __init__(
        self, path: str, context: TierContext, *, shards: int, lock_timeout_seconds: float, compact_ratio: float
    ) -> None:
        """Open the store under `path`, and make it if it is not there. Shards are read when they are first used."""
        self.is_new = not context.read_only and files.stat(os.path.join(path, context.namespace, META)) is None
        directory, count = prepare(path, context, shards, lock_timeout_seconds)
        self.home = Home(directory)
        settings = ShardSettings(context, lock_timeout_seconds, compact_ratio, self.home)
        self.shards = [
            Shard(os.path.join(directory, shard_name(number)), encode_header(count, number), settings)
            for number in range(count)
        ]
        try:
            for shard in () if context.read_only else self.shards:
                shard.sweep()
        except BaseException:
            self.close()
            raise

    def shard(self, crc: int) -> Shard:
        """The shard of the key with this checksum."""
        return self.shards[crc % len(self.shards)]

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
        for shard in self.shards:
            shard.close()
        self.home.close()
