"""What the tests of the JSON Lines tier share."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tierkit import Row, TierContext, files
from tierkit.testing import make_row
from tierkit_jsonl import FileCacheTier

NOW = 1_700_000_000.0

CALLS = (
    "append",
    "close",
    "create",
    "fstat",
    "fsync",
    "fsync_dir",
    "listdir",
    "lock",
    "mkdir",
    "open_dir",
    "open_for_reading",
    "open_lock",
    "open_log",
    "pread",
    "replace",
    "stat",
    "truncate",
    "unlink",
    "unlock",
)


def open_store(root: Path, *, shards: int | None = None, compact_ratio: float = 1.0, **context: Any) -> FileCacheTier:
    """A tier in `root` whose time stands still; one shard if it is new and nothing else is asked for."""
    if not (root / "store" / "entries").exists():
        shards = shards or 1
    return FileCacheTier(
        TierContext(**{"now": lambda: NOW, **context}),
        root / "store",
        shards=shards,
        compact_ratio=compact_ratio,
        lock_timeout_seconds=0.05,
    )


def shard(root: Path, number: int = 0) -> Path:
    """The file of a shard."""
    return root / "store" / "entries" / f"{number:02x}.jsonl"


def lines_of(root: Path, number: int = 0) -> list[dict[str, Any]]:
    """The lines of a shard, as any JSON reader sees them."""
    return [json.loads(line) for line in shard(root, number).read_text("utf-8").splitlines()]


def held(tier: FileCacheTier) -> dict[str, Row]:
    """What the tier holds, by key."""
    return {row.key: row for row in tier.scan()}


class Faults:
    """Counts the calls of `tierkit.files`, and fails some of them."""

    def __init__(self, patch: pytest.MonkeyPatch, fails: Callable[[int, str], OSError | None]) -> None:
        self.count = 0
        self.names: list[str] = []
        self.on = True
        for name in CALLS:
            patch.setattr(files, name, self._wrapped(name, getattr(files, name), fails))

    def _wrapped(
        self, name: str, real: Callable[..., Any], fails: Callable[[int, str], OSError | None]
    ) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.on:
                self.count += 1
                self.names.append(name)
                error = fails(self.count, name)
                if error is not None:
                    if name == "append":  # a part of it may be there
                        real(args[0], args[1][: len(args[1]) // 2])
                    elif name == "close":  # it is closed all the same
                        real(*args)
                    raise error
            return real(*args, **kwargs)

        return call


def row(key: str, version: int = 1, **columns: Any) -> Row:
    """A row with a secret."""
    return make_row(key, version, token_encrypted=f"s1.k.{key}-{version}".encode(), text=key * 3, **columns)
