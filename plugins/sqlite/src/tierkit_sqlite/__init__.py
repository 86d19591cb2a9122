"""The SQLite tier of tierkit: a real table, one per entry type, that any tool can query.

`SQLiteCacheTier` is loaded when it is first asked for, and with it the SQLite library.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from tierkit import ANY_POLICY, CacheTier, Finding, Row, TierContext, TierSpec, Trait, hookimpl

if TYPE_CHECKING:
    from tierkit_sqlite.tier import SQLiteCacheTier

__all__ = ["SQLiteCacheTier", "SQLiteOptions", "register_tiers"]


class SQLiteOptions(BaseModel):
    """Settings of the kind `sqlite`.

    Attributes:
        path: The database file. It and its folder are made if they are not there.
        busy_timeout_seconds: How long to wait for another writer before `TierTimeout`; 0 for not at all.
        cache_size_mb: The most memory that a connection uses for pages, in MiB. There is one connection per thread.
        indexes: Columns of the entry type that get an index, for queries; several in one with commas between:
            `["country", "health_status, last_accessed"]`. One that is taken out of the list is dropped at opening.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    busy_timeout_seconds: float = Field(default=5.0, ge=0, le=600)
    cache_size_mb: float = Field(default=8.0, gt=0, le=65536)
    indexes: tuple[str, ...] = ()


@hookimpl
def register_tiers() -> list[TierSpec]:
    """The kind `sqlite`."""
    return [
        TierSpec(
            kind="sqlite",
            factory=_make,
            options=SQLiteOptions,
            traits=Trait.PERSISTENT | Trait.CRASH_SAFE | Trait.SHARED | Trait.QUERYABLE,
            api=1,
            summary="one SQLite table per entry type, shared by processes, open to queries",
            eviction_policies=ANY_POLICY,
            examine=_examine,
        )
    ]


def _make(context: TierContext, options: SQLiteOptions) -> CacheTier[Row]:
    from tierkit_sqlite.tier import SQLiteCacheTier

    return SQLiteCacheTier(
        context,
        options.path,
        busy_timeout_seconds=options.busy_timeout_seconds,
        cache_size_mb=options.cache_size_mb,
        indexes=options.indexes,
    )


def _examine(context: TierContext, options: SQLiteOptions) -> Iterator[Finding]:
    from tierkit_sqlite.examining import examine

    return examine(context, options)


def __getattr__(name: str) -> Any:
    if name == "SQLiteCacheTier":
        from tierkit_sqlite.tier import SQLiteCacheTier

        return SQLiteCacheTier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
