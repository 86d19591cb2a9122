"""A tier that keeps each record in a file of its own: a whole third-party plugin."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel

from tierkit import BlobTier, TierContext, TierSpec, TierTimeout, Trait, hookimpl, key_digest


class FolderOptions(BaseModel, extra="forbid"):
    path: Path


class FolderTier(BlobTier):
    traits = Trait.PERSISTENT | Trait.CRASH_SAFE | Trait.SHARED

    def __init__(self, context: TierContext, options: FolderOptions) -> None:
        super().__init__(context)
        self.folder = options.path / context.namespace
        if not context.read_only:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def load(self, key: str) -> bytes | None:
        return next(self.iterate(key_digest(key)), None)

    def store(self, key: str, blob: bytes) -> None:
        with (self.folder / f"{key_digest(key)}.new").open("wb") as file:
            file.write(blob)
            file.flush()
            (os.fsync if self.context.durability == "full" else int)(file.fileno())
        os.replace(file.name, self.folder / key_digest(key))

    def remove(self, key: str) -> None:
        (self.folder / key_digest(key)).unlink(missing_ok=True)

    def iterate(self, pattern: str = "?" * 32) -> Iterator[bytes]:
        for file in self.folder.glob(pattern):
            with suppress(FileNotFoundError):  # removed since
                yield file.read_bytes()

    @contextmanager
    def exclusive(self, key: str) -> Iterator[None]:
        with self.lock, open(os.devnull if self.context.read_only else self.folder / "all.lock", "w") as held:
            for attempt in range(0 if self.context.read_only else 2500):
                with suppress(BlockingIOError):
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                if attempt == 2499:
                    raise TierTimeout(f"{self.context.name}: {held.name} is locked by another process")
                time.sleep(0.002)
            yield


@hookimpl
def register_tiers() -> list[TierSpec]:
    return [TierSpec(kind="folder", factory=FolderTier, options=FolderOptions, traits=FolderTier.traits, api=1)]
