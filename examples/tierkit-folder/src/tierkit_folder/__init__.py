"""A tier that keeps each record in a file of its own: a whole third-party plugin."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import portalocker
from pydantic import BaseModel

from tierkit import BlobTier, TierContext, TierSpec, Trait, hookimpl, key_digest


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
            if self.context.durability == "full":
                os.fsync(file.fileno())
        os.replace(file.name, self.folder / key_digest(key))

    def remove(self, key: str) -> None:
        (self.folder / key_digest(key)).unlink(missing_ok=True)

    def iterate(self, pattern: str = "?" * 32) -> Iterator[bytes]:
        for file in self.folder.glob(pattern):
            with suppress(FileNotFoundError):  # removed since
                yield file.read_bytes()

    @contextmanager
    def exclusive(self, key: str) -> Iterator[None]:
        with ExitStack() as held:
            held.enter_context(self.lock)
            if not self.context.read_only:  # a time-out raises, which counts as this tier's failure
                held.enter_context(portalocker.Lock(self.folder / "all.lock", timeout=5, check_interval=0.002))
            yield


@hookimpl
def register_tiers() -> list[TierSpec]:
    return [TierSpec(kind="folder", factory=FolderTier, options=FolderOptions, traits=FolderTier.traits, api=1)]
