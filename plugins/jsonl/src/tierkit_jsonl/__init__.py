"""The JSON Lines tier of tierkit: an append-only log per shard, with an index of offsets in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from tierkit import ANY_POLICY, Finding, TierContext, TierSpec, Trait, hookimpl

if TYPE_CHECKING:
    from tierkit_jsonl.tier import FileCacheTier

__all__ = ["FileCacheTier", "JsonlOptions", "register_tiers"]


class JsonlOptions(BaseModel):
    """The settings of a tier of kind `jsonl`.

    Attributes:
        path: The directory that holds it; made if it is not there.
        shards: How many files it spreads its records over; one that has another number is spread anew when it is
            opened. None keeps the number that it has, and means 16 for a new one.
        lock_timeout_seconds: How long a writer waits for the lock of a shard before it raises `TierTimeout`.
        compact_ratio: Bytes that are dead for each that is alive, above which a shard is rewritten.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    shards: int | None = Field(default=None, ge=1, le=256)
    lock_timeout_seconds: float = Field(default=5.0, ge=0, le=3600)
    compact_ratio: float = Field(default=1.0, ge=0.1, le=100)


@hookimpl
def register_tiers() -> Sequence[TierSpec]:
    """The kind `jsonl`."""
    return [
        TierSpec(
            kind="jsonl",
            factory=_make,
            options=JsonlOptions,
            traits=Trait.PERSISTENT | Trait.CRASH_SAFE | Trait.SHARED,
            api=1,
            summary="JSON Lines files: an append-only log per shard, readable with jq",
            eviction_policies=ANY_POLICY,
            examine=_examine,
        )
    ]


def _make(context: TierContext, options: JsonlOptions) -> FileCacheTier:
    from tierkit_jsonl.tier import FileCacheTier

    return FileCacheTier(context, **dict(options))


def _examine(context: TierContext, options: JsonlOptions) -> Iterator[Finding]:
    from tierkit_jsonl.examining import examine

    return examine(context, options)


def __getattr__(name: str) -> Any:
    if name == "FileCacheTier":
        from tierkit_jsonl.tier import FileCacheTier

        return FileCacheTier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
