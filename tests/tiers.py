"""Small tiers, to test the contract, the defaults and the engine with."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from tierkit import (
    BlobTier,
    CacheTier,
    EvictionPolicy,
    Row,
    TierContext,
    TierReadOnly,
    TierUnavailable,
    Trait,
    delete_refusal,
    key_digest,
    refusal,
    with_usage,
)


class FiveMethodTier(CacheTier[Row]):
    """The least that a tier can be: the five methods, over a dictionary, and the two that must know of its marks."""

    def __init__(self, context: TierContext) -> None:
        super().__init__(context)
        self.rows: dict[str, Row] = {}
        self.marks: dict[str, tuple[int, float]] = {}
        self.closed = False

    def get(self, key: str) -> Row | None:
        self._check_open()
        return self.rows.get(key)

    def put(self, record: Row) -> int | None:
        with self.lock:
            self._check_writable()
            held = self.rows.get(record.key)
            refused = refusal(record, held, self._mark(record.key))
            if refused is None:
                usage = (held.access_count, held.last_accessed) if held else (0, 0.0)
                self.rows[record.key] = with_usage(record, *usage)
            return refused

    def delete(self, key: str, version: int) -> int | None:
        with self.lock:
            self._check_writable()
            refused = delete_refusal(version, self.rows.get(key), self._mark(key))
            if refused is None:
                self.rows.pop(key, None)
                self.marks[key] = (version + 1, self.context.now())
            return refused

    def scan(self) -> Iterator[Row]:
        self._check_open()
        found = (self.rows.get(key) for key in list(self.rows))
        return (row for row in found if row is not None)

    def purge(self, now: float) -> int:
        removed = super().purge(now)
        with self.lock:
            self._check_writable()
            oldest = now - self.context.tombstone_seconds
            self.marks = {key: mark for key, mark in self.marks.items() if mark[1] > oldest}
        return removed

    def highest_version(self) -> int:
        with self.lock:
            return max([super().highest_version(), *(mark - 1 for mark, _ in self.marks.values())])

    def close(self) -> None:
        self.closed = True

    def _mark(self, key: str) -> int:
        mark, marked_at = self.marks.get(key, (0, 0.0))
        return mark if marked_at + self.context.tombstone_seconds > self.context.now() else 0

    def _check_open(self) -> None:
        if self.closed:
            raise TierUnavailable("closed")

    def _check_writable(self) -> None:
        self._check_open()
        if self.context.read_only:
            raise TierReadOnly("read-only")


class DictBlobTier(BlobTier):
    """Blobs in a dictionary."""

    def __init__(self, context: TierContext) -> None:
        super().__init__(context)
        self.blobs: dict[str, bytes] = {}

    def load(self, key: str) -> bytes | None:
        return self.blobs.get(key)

    def store(self, key: str, blob: bytes) -> None:
        self.blobs[key] = blob

    def remove(self, key: str) -> None:
        self.blobs.pop(key, None)

    def iterate(self) -> Iterator[bytes]:
        return iter(list(self.blobs.values()))


class FileBlobTier(BlobTier):
    """A file for each key, and one lock file for all writers."""

    traits: ClassVar[Trait] = Trait.PERSISTENT | Trait.CRASH_SAFE | Trait.SHARED

    def __init__(self, context: TierContext, path: Path) -> None:
        super().__init__(context)
        self.folder = path / context.namespace
        if not context.read_only:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self, key: str) -> bytes | None:
        return self.read(self.folder / key_digest(key))

    def store(self, key: str, blob: bytes) -> None:
        file = self.folder / key_digest(key)
        beside = file.with_suffix(".new")
        beside.write_bytes(blob)
        os.replace(beside, file)

    def remove(self, key: str) -> None:
        (self.folder / key_digest(key)).unlink(missing_ok=True)

    def iterate(self) -> Iterator[bytes]:
        files = [file for file in self.folder.glob("*") if not file.suffix and file.name != "lock"]
        blobs = (self.read(file) for file in files)
        return (blob for blob in blobs if blob is not None)

    @contextmanager
    def exclusive(self, key: str) -> Iterator[None]:
        with self.lock:
            if self.context.read_only:
                yield
                return
            with (self.folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield

    @staticmethod
    def read(file: Path) -> bytes | None:
        try:
            return file.read_bytes()
        except FileNotFoundError:
            return None


class Listing(EvictionPolicy):
    """Keys in the order of writing, whose answers a test may change."""

    counts_hits = False

    def __init__(self, capacity: int) -> None:
        self.keys: dict[str, None] = {}

    def hit(self, key: str) -> None: ...

    def admit(self, key: str) -> None:
        self.keys[key] = None

    def remove(self, key: str) -> None:
        self.keys.pop(key, None)

    def coldest(self, count: int) -> list[str]:
        return list(self.keys)[:count]
