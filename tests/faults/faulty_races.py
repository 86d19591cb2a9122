"""Faults that show when others write meanwhile, after a restart or a crash, and with many or large records."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from tests.faults.planting import changed, fault
from tests.tiers import DictBlobTier, FileBlobTier, FiveMethodTier

from tierkit import CacheEntry, CacheTier, Delta, Row, TierContext, TierFull, TierTimeout, Trait, with_usage
from tierkit_memory import MemoryCacheTier

# -- looking first and writing later ----------------------------------------------------------------------------------


@fault("touch_many reads and stores without the lock")
class TouchInTwoSteps(FiveMethodTier):
    def touch_many(self, deltas: Mapping[str, Delta]) -> None:
        self._check_writable()
        for key, delta in deltas.items():
            if (row := self.rows.get(key)) is not None:
                touched = with_usage(row, row.access_count + delta.count, delta.last_accessed)
                self.rows[key] = touched


@fault("discard looks and removes without the lock")
class DiscardInTwoSteps(FiveMethodTier):
    def discard(self, record: Row) -> bool:
        self._check_writable()
        held = self.rows.get(record.key)
        if held is None or held.version != record.version:
            return False
        self.marks[record.key] = (record.version, self.context.now())
        return self.rows.pop(record.key, None) is not None


@fault("forgetting a mark removes what was put over it")
class ForgetsByKey(DictBlobTier):
    def purge(self, now: float) -> int:
        old = [
            envelope.key
            for envelope in self._envelopes()
            if envelope.row is None and envelope.marked_at + self.context.tombstone_seconds <= now
        ]
        for key in old:
            self.remove(key)
        return super().purge(now)


@fault("a clear marks what it saw and removes what is held by then")
class ClearByKey(FiveMethodTier):
    def clear(self) -> None:
        self._check_writable()
        for row in list(self.scan()):
            self.marks[row.key] = (row.version + 1, self.context.now())
            self.rows.pop(row.key, None)


@fault("claims SHARED with locks of the process")
class LocksOfTheProcess(FileBlobTier):
    """POSIX locks: another opening in the same process has them too."""

    @contextmanager
    def exclusive(self, key: str) -> Iterator[None]:
        with self.lock:
            if self.context.read_only or self._closed:
                yield
                return
            with (self.folder / "lock").open("w") as lock:
                fcntl.lockf(lock, fcntl.LOCK_EX)
                yield


# -- namespaces -------------------------------------------------------------------------------------------------------


@fault("a namespace shows those that begin with its name")
class NamespaceByPrefix(FileBlobTier):
    def __init__(self, context: TierContext, path: Path) -> None:
        super().__init__(context, path)
        self.root = path

    def iterate(self) -> Iterator[bytes]:
        files = [file for file in self.root.glob(f"{self.context.namespace}*/*") if len(file.name) == 32]
        return (blob for file in files if (blob := self.read(file)) is not None)


@fault("one namespace keeps the storage from the others")
class OneOpeningAtATime(FileBlobTier):
    traits: ClassVar[Trait] = Trait.PERSISTENT | Trait.CRASH_SAFE

    def __init__(self, context: TierContext, path: Path) -> None:
        super().__init__(context, path)
        self.whole = os.open(path, os.O_RDONLY) if path.exists() else -1
        try:
            if self.whole >= 0 and not context.read_only:
                fcntl.flock(self.whole, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self.whole)
            raise TierTimeout("in use") from None

    def close(self) -> None:
        if not self._closed and self.whole >= 0:
            os.close(self.whole)
        super().close()


# -- marks and time ---------------------------------------------------------------------------------------------------


@fault("marks go through a double")
class MarksAsDoubles(DictBlobTier):
    def _seal(self, envelope: Any) -> None:
        super()._seal(msgspec.structs.replace(envelope, mark=int(float(envelope.mark))))


@fault("a purge goes by the clock")
class PurgeByTheClock(FileBlobTier):
    def purge(self, now: float) -> int:
        return super().purge(self.context.now())


@fault("marks stay in the storage when they count no more")
class MarksStay(FiveMethodTier):
    def purge(self, now: float) -> int:
        return CacheTier.purge(self, now)


@fault("the mark of a purge is as old as the deadline")
class PurgeDatesMarksBack(DictBlobTier):
    def purge(self, now: float) -> int:
        due = [row for row in self.scan() if row.purge_at <= now]
        purged = super().purge(now)
        for row in due:
            there = self._there(row.key)
            if there.row is None and there.mark:
                self._seal(msgspec.structs.replace(there, marked_at=row.purge_at))
        return purged


@fault("the highest version leaves out marks in memory")
class HighestVersionOfRecords(FiveMethodTier):
    def highest_version(self) -> int:
        return CacheTier.highest_version(self)


# -- usage and order --------------------------------------------------------------------------------------------------


@fault("claims CRASH_SAFE and keeps usage until it is closed")
class UsageWhenClosed(FileBlobTier):
    def __init__(self, context: TierContext, path: Path) -> None:
        super().__init__(context, path)
        self.uses: list[Mapping[str, Delta]] = []

    def touch_many(self, deltas: Mapping[str, Delta]) -> None:
        if self.context.read_only:
            super().touch_many(deltas)
        self._check_open()
        self.uses.append(dict(deltas))

    def get(self, key: str) -> Row | None:
        self.flush()
        return super().get(key)

    def scan(self) -> Iterator[Row]:
        self.flush()
        return super().scan()

    def put(self, record: Row) -> int | None:
        self.flush()
        return super().put(record)

    def replace(self, record: Row, expected_version: int) -> bool:
        self.flush()
        return super().replace(record, expected_version)

    def flush(self) -> None:
        while self.uses:
            super().touch_many(self.uses.pop(0))

    def close(self) -> None:
        if not self._closed:
            self.flush()
        super().close()


class OrderedInMemory(FileBlobTier):
    """Knows the order only of what was done since it was opened."""

    policy: ClassVar[str]

    def __init__(self, context: TierContext, path: Path) -> None:
        super().__init__(context, path)
        self.order: dict[str, None] = {}

    def put(self, record: Row) -> int | None:
        self.order.pop(record.key, None)
        self.order[record.key] = None
        return super().put(record)

    def touch_many(self, deltas: Mapping[str, Delta]) -> None:
        super().touch_many(deltas)
        if self.context.eviction_policy == "lru":
            for key in deltas:
                self.order.pop(key, None)
                self.order[key] = None

    def overflow(self) -> list[Row]:
        coldest = super().overflow()
        if self.context.eviction_policy != self.policy:
            return coldest
        places = list(self.order)
        rows = sorted(self.scan(), key=lambda row: places.index(row.key) if row.key in places else -1)
        return rows[: len(coldest)]


@fault("the order of lru is lost at a restart")
class LruInMemory(OrderedInMemory):
    policy = "lru"


@fault("the order of fifo is lost at a restart")
class FifoInMemory(OrderedInMemory):
    policy = "fifo"


# -- live entries -----------------------------------------------------------------------------------------------------


@fault("claims LIVE and scans copies")
class ScansCopies(MemoryCacheTier):
    def scan(self) -> Iterator[CacheEntry]:
        return (msgspec.structs.replace(entry) for entry in super().scan())


@fault("claims LIVE and names copies")
class NamesCopies(MemoryCacheTier):
    def overflow(self) -> list[CacheEntry]:
        return [msgspec.structs.replace(entry) for entry in super().overflow()]


@fault("claims LIVE and evicts copies")
class EvictsCopies(MemoryCacheTier):
    def evict(self) -> list[CacheEntry]:
        return [msgspec.structs.replace(entry) for entry in super().evict()]


@fault("claims LIVE and reads copies in bulk")
class ReadsCopiesInBulk(MemoryCacheTier):
    def get_many(self, keys: Iterable[str]) -> dict[str, CacheEntry]:
        return {key: msgspec.structs.replace(entry) for key, entry in super().get_many(keys).items()}


# -- many, large, and answers -----------------------------------------------------------------------------------------


@fault("touch_many touches two thousand keys")
class TouchesTwoThousand(DictBlobTier):
    def touch_many(self, deltas: Mapping[str, Delta]) -> None:
        super().touch_many(dict(list(deltas.items())[:2000]))


@fault("get_many reads two thousand keys")
class ReadsTwoThousand(DictBlobTier):
    def get_many(self, keys: Iterable[str]) -> dict[str, Row]:
        return super().get_many(list(keys)[:2000])


@fault("delete_many deletes two thousand keys")
class DeletesTwoThousand(DictBlobTier):
    def delete_many(self, versions: Mapping[str, int]) -> dict[str, int]:
        return super().delete_many(dict(list(versions.items())[:2000]))


@fault("overflow names a thousand at most")
class NamesAThousand(DictBlobTier):
    def overflow(self) -> list[Row]:
        return super().overflow()[:1000]


@fault("large records are refused")
class LargeRefused(DictBlobTier):
    def store(self, key: str, blob: bytes) -> None:
        if len(blob) > 500_000:
            raise TierFull("too large")
        super().store(key, blob)


@fault("names of columns are case-folded")
class ColumnsFolded(DictBlobTier):
    def put(self, record: Row) -> int | None:
        return super().put(changed(record, columns={name.lower(): value for name, value in record.columns.items()}))


@fault("bytes_on_disk answers a text")
class OccupiesAText(DictBlobTier):
    def bytes_on_disk(self) -> Any:
        return "many"


# -- what is left behind ----------------------------------------------------------------------------------------------


@fault("close leaves a descriptor open")
class LeavesADescriptor(FileBlobTier):
    def __init__(self, context: TierContext, path: Path) -> None:
        super().__init__(context, path)
        self.descriptor = os.open(os.devnull, os.O_RDONLY)


@fault("close leaves a thread running")
class LeavesAThread(DictBlobTier):
    def __init__(self, context: TierContext) -> None:
        super().__init__(context)
        self.stop = threading.Event()
        threading.Thread(target=self.stop.wait, daemon=True).start()
