"""Where the state machine lives: real tiers in a directory, each behind one that fails when it is told to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.core.engine.support import Disk, NoOptions, Note, ScriptedTier, World, tier
from tests.plugins.sqlite_support import own_connection

from tierkit import ANY_POLICY, EVICTION_POLICIES, CacheManager, CacheTier, Row, TierContext, TierSpec, hookimpl
from tierkit.plugins import discover
from tierkit_jsonl import FileCacheTier
from tierkit_sqlite import SQLiteCacheTier

REAL = ("jsonl", "sqlite")
STORED = (*REAL, "disk")
SPECS = {kind: discover([]).spec(kind) for kind in ("memory", *REAL)}
OFFERED = {
    kind: tuple(sorted(EVICTION_POLICIES if spec.eviction_policies >= ANY_POLICY else spec.eviction_policies))
    for kind, spec in SPECS.items()
} | {"disk": ("fifo", "lru")}
"""The eviction policies of each kind."""


class RealWorld(World):
    """Also offers the tiers that ship: kinds `real-jsonl` and `real-sqlite`, in a directory of its own."""

    def __init__(self, clock: Any) -> None:
        super().__init__(clock)
        self.folder = TemporaryDirectory()

    @hookimpl
    def register_tiers(self) -> list[TierSpec]:
        makers: dict[str, Callable[[TierContext, Any], CacheTier[Any]]] = {"jsonl": self._jsonl, "sqlite": self._sqlite}
        return [
            *super().register_tiers(),
            *(
                TierSpec(
                    kind=f"real-{kind}",
                    factory=makers[kind],
                    options=NoOptions,
                    traits=SPECS[kind].traits,
                    api=1,
                    eviction_policies=SPECS[kind].eviction_policies,
                )
                for kind in REAL
            ),
        ]

    def _jsonl(self, context: TierContext, options: object) -> CacheTier[Any]:
        place = Path(self.folder.name, context.name)
        return ScriptedTier(
            FileCacheTier(context, place, shards=1, lock_timeout_seconds=5, compact_ratio=1), self.calls
        )

    def _sqlite(self, context: TierContext, options: object) -> CacheTier[Any]:
        place = Path(self.folder.name, f"{context.name}.db")
        made = SQLiteCacheTier(context, place, busy_timeout_seconds=5, cache_size_mb=1)
        return ScriptedTier(made, self.calls)

    def crash(self) -> None:
        """End every cache as a killed process does: nothing is flushed, nothing is emptied."""
        while self.caches:
            cache = self.caches.pop()
            cache._closed = True
            cache._finalizer.detach()
            if cache._sweeper is not None:
                cache._sweeper.stop(lambda: None)
            for made in (*cache._stack.sides.opened(), *(level.tier for level in cache.levels)):
                made.close()

    def end(self) -> None:
        """Close everything, and remove the directory."""
        self.close()
        self.folder.cleanup()


def peek(cache: CacheManager[Note], name: str) -> dict[str, Any]:
    """What a level holds, behind the engine's back: no read is counted, nor is anything used by it."""
    return {record.key: record for record in tier(cache, name).tier.scan()}


def stored_text(record: Any) -> str | None:
    """The text of a record; None for the deletion that a level below is owed."""
    return record.columns.get("text") if isinstance(record, Row) else str(record.text)


def corrupt(world: RealWorld, cache: CacheManager[Note], name: str, key: str) -> bool:
    """Change what a stored level holds for `key`, behind the engine's back. Answers whether there was anything."""
    held = tier(cache, name).tier
    row = held.get_many([key]).get(key)
    if row is None or "text" not in row.columns:  # nothing, or the deletion that a level below is owed
        return False
    text = str(row.columns["text"])
    if isinstance(held, SQLiteCacheTier):
        own_connection(held).execute(
            f"UPDATE {held.context.namespace} SET text = ? WHERE key = ?",  # noqa: S608 - our own table
            (text.swapcase(), key),
        )
    elif isinstance(held, FileCacheTier):
        for shard in Path(world.folder.name, name).rglob("*.jsonl"):
            with shard.open("r+b") as file:  # in place: the tier has it open
                damaged = file.read().replace(text.encode(), text.swapcase().encode())
                file.seek(0)
                file.write(damaged)
    else:
        assert isinstance(held, Disk)
        held.blobs[key] = held.blobs[key].replace(text.encode(), text.swapcase().encode())
    return True
