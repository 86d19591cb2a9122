"""What the tests of the JSON Lines tier share."""

import json
from pathlib import Path
from typing import Any

from tierkit import Row, TierContext
from tierkit.testing import make_row
from tierkit_jsonl import FileCacheTier

NOW = 1_700_000_000.0


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


def row(key: str, version: int = 1, **columns: Any) -> Row:
    """A row with a secret."""
    return make_row(key, version, token_encrypted=f"s1.k.{key}-{version}".encode(), text=key * 3, **columns)
