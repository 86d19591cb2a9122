"""The store of a tier, wherever it is: one that is gone, or whose records are in other files, is opened again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Final, TypeVar

from tierkit import Row, TierContext, TierCorrupt, TierUnavailable
from tierkit_jsonl.batch import Batch
from tierkit_jsonl.failures import storage_error
from tierkit_jsonl.home import HomeLost, Resharded
from tierkit_jsonl.lines import Place, key_crc
from tierkit_jsonl.log import Log
from tierkit_jsonl.shard import Shard
from tierkit_jsonl.store import Store

T = TypeVar("T")
Item = tuple[int, T]
"""What concerns a key, with the checksum of that before it."""

logger: Final = logging.getLogger("tierkit.jsonl")


class Following:
    """The store of a tier.

    Attributes:
        store: As it is now.
    """

    def __init__(self, context: TierContext, make: Callable[..., Store]) -> None:
        """Open the store that `make` makes.

        Raises:
            CacheStorageError: It cannot be opened.
        """
        self._context = context
        self._make = make
        self._opening = threading.RLock()
        self._closed = False
        try:
            self.store = make()
        except OSError as error:
            raise storage_error(context.name, error) from error

    def settle(self, error: OSError) -> None:
        """Raise what the contract says for `error`, or return if the call that met it is to be made again.

        If the store is gone it is opened again first, for the calls to come. If only its records were spread anew,
        nothing is lost, and nothing was written.
        """
        if isinstance(error, HomeLost):
            try:
                self._open_again()
            except OSError as reason:
                error = reason
        if not isinstance(error, Resharded):
            raise storage_error(self._context.name, error) from error

    def write_groups(self, items: Iterable[Item[T]], work: Callable[[Batch, list[Item[T]]], None]) -> None:
        """Have `work` write `items`, with one append for each shard.

        Raises:
            OSError: Those of some shards may be written.
        """
        groups = self.store.by_shard(items)
        while groups:
            shard, group = groups.popitem()
            try:
                shard.write(partial(_on, work, group))
            except Resharded as error:
                self.settle(error)
                groups = self.store.by_shard(chain(group, *groups.values()))

    def walk(self) -> Iterator[tuple[Shard, Log, Callable[[str], bool]]]:
        """Each shard that has a file, what is in it, and which of its keys are to be looked at.

        Where the records are spread anew meanwhile, it goes on with the keys of the old shards that were left.
        """
        return self._walk(_any_key)

    def read(self, shard: Shard, log: Log, place: Place) -> Row | None:
        """The row at `place`, unless it is damaged."""
        try:
            return shard.read(log, place)
        except OSError as error:
            self.settle(error)
        return self._read_elsewhere(place.key)

    def close(self) -> None:
        """Close the files, for good."""
        with self._opening:
            self._closed = True
            self.store.close()

    def after_fork(self) -> None:
        """Make locks and descriptors of one's own in a child."""
        self._opening = threading.RLock()
        for shard in self.store.shards:
            shard.after_fork()

    def _walk(self, is_left: Callable[[str], bool]) -> Iterator[tuple[Shard, Log, Callable[[str], bool]]]:
        store = self.store
        for number, shard in enumerate(store.shards):
            try:
                log = shard.current()
            except OSError as error:
                self.settle(error)
                left = frozenset(store.shards[number:])
                break
            if log is not None:
                yield shard, log, is_left
        else:
            return
        yield from self._walk(lambda key: is_left(key) and store.shard(key_crc(key)) in left)

    def _read_elsewhere(self, key: str) -> Row | None:
        try:
            return self.store.shard(key_crc(key)).get(key)
        except TierCorrupt:
            return None
        except OSError as error:
            self.settle(error)
        return self._read_elsewhere(key)

    def _open_again(self) -> None:
        """Put another store in the place of one that is gone, unless another thread was faster."""
        with self._opening:
            lost = self.store
            if self._closed:
                raise TierUnavailable(f"{self._context.name} is closed")
            if lost.home.is_there():
                return
            self.store = self._make(may_spread=False)  # else two programs would do so by turns for ever
            if self.store.is_new:
                logger.warning(
                    "%s: %s is begun anew in place of a store that is gone, and so is what was in it",
                    self._context.name,
                    lost.home.directory,
                )
            lost.close()


def _any_key(_: str) -> bool:
    return True


def _on(work: Callable[[Batch, list[Item[T]]], None], group: list[Item[T]], batch: Batch) -> None:
    work(batch, group)
