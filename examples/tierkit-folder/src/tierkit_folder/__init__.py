"""A tier that keeps each record in a file of its own: a whole third-party plugin."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel

from tierkit import BlobTier, TierContext, TierSpec, Trait, hookimpl, key_digest

TRAITS = Trait.PERSISTENT | Trait.CRASH_SAFE | Trait.SHARED


class FolderOptions(BaseModel, extra="forbid"):
    path: Path


class FolderTier(BlobTier):
    traits = TRAITS

    def __init__(self, context: TierContext, path: Path) -> None:
        super().__init__(context)
        self.folder = path / context.namespace
        if not context.read_only:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self, key: str) -> bytes | None:
        file = self.folder / key_digest(key)
        return file.read_bytes() if file.exists() else None

    def store(self, key: str, blob: bytes) -> None:
        beside = self.folder / f"{key_digest(key)}.new"
        beside.write_bytes(blob)
        os.replace(beside, self.folder / key_digest(key))

    def remove(self, key: str) -> None:
        (self.folder / key_digest(key)).unlink(missing_ok=True)

    def iterate(self) -> Iterator[bytes]:
        return (file.read_bytes() for file in self.folder.glob("*") if not file.suffix and file.exists())

    @contextmanager
    def exclusive(self, key: str) -> Iterator[None]:
        lock = None if self.context.read_only else self.folder / "all.lock"
        with self.lock, open(lock or os.devnull, "w") as held:
            if lock:
                fcntl.flock(held, fcntl.LOCK_EX)
            yield


@hookimpl
def register_tiers() -> list[TierSpec]:
    make = lambda context, options: FolderTier(context, options.path)  # noqa: E731
    return [TierSpec(kind="folder", factory=make, options=FolderOptions, traits=TRAITS, api=1, summary="A file each")]
