"""A storage under test: opens its tier as often as a test likes, and closes what was opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tierkit.row import ColumnValue
from tierkit.testing.clock import FakeClock
from tierkit.testing.records import COLUMNS, FAR, make_entry, make_row
from tierkit.tier import CacheTier, TierContext, Trait

OpenTier = Callable[[TierContext, Path], CacheTier[Any]]


class Storage:
    """Where a tier keeps its records, and a clock of its own.

    Attributes:
        path: What `open_tier` is given each time; nothing is there at first, but its parent is.
        clock: The clock of every tier opened here.
    """

    def __init__(self, open_tier: OpenTier, path: Path) -> None:
        """Nothing is opened yet."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = path
        self.clock = FakeClock()
        self._open_tier = open_tier
        self._opened: list[CacheTier[Any]] = []
        self._traits: Trait | None = None

    def open(self, **settings: Any) -> CacheTier[Any]:
        """Open the tier; `settings` are fields of its `TierContext`."""
        tier = self._open_tier(self.context(**settings), self.path)
        self._opened.append(tier)
        self._traits = tier.traits
        return tier

    def context(self, **settings: Any) -> TierContext:
        """What a tier of this storage is told; `settings` are fields of it."""
        return TierContext(**{"columns": COLUMNS, "now": self.clock.wall, **settings})

    def reopen(self, **settings: Any) -> CacheTier[Any]:
        """Close all that is open, then open the tier."""
        self.close()
        return self.open(**settings)

    def beside(self, name: str) -> Storage:
        """Another storage, empty, for the same kind of tier."""
        return Storage(self._open_tier, self.path.parent.parent / name / "storage")

    def claims(self, trait: Trait) -> bool:
        """Whether the tier claims `trait`."""
        if self._traits is None:
            with self.beside("probe") as probe:
                self._traits = probe.open().traits
        return trait in self._traits

    def record(
        self,
        key: str = "key",
        version: int = 1,
        *,
        purge_at: float = FAR,
        columns: Mapping[str, ColumnValue] | None = None,
        **more: ColumnValue,
    ) -> Any:
        """A record for the tier: a live entry if it is `LIVE`, else a row. `more` are columns too."""
        make: Callable[..., Any] = make_entry if self.claims(Trait.LIVE) else make_row
        return make(key, version, purge_at=purge_at, **(columns or {}), **more)

    def files(self) -> dict[str, bytes]:
        """The content of every file at and beside `path`, by name; folders end in a slash."""
        root = self.path.parent
        found = sorted(root.rglob("*"))
        return {f"{p.relative_to(root)}{'/' * p.is_dir()}": b"" if p.is_dir() else p.read_bytes() for p in found}

    def close(self) -> None:
        """Close every tier that was opened."""
        while self._opened:
            self._opened.pop().close()

    def __enter__(self) -> Self:
        """The storage itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every tier."""
        self.close()
