"""The contract of a tier, as tests to inherit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from inspect import getattr_static
from pathlib import Path
from typing import Any

import pytest

from tierkit.findings import Finding
from tierkit.testing.storage import Storage
from tierkit.testing.suite.bulk import Bulk
from tierkit.testing.suite.concurrency import Concurrency
from tierkit.testing.suite.durability import Durability
from tierkit.testing.suite.eviction import Eviction
from tierkit.testing.suite.examination import Examinations
from tierkit.testing.suite.iteration import Iteration
from tierkit.testing.suite.lifetime import Lifetime
from tierkit.testing.suite.marks import Marks
from tierkit.testing.suite.model import Model
from tierkit.testing.suite.queries import Queries
from tierkit.testing.suite.races import Races
from tierkit.testing.suite.resources import Resources
from tierkit.testing.suite.round_trips import RoundTrips
from tierkit.testing.suite.sharing import Sharing
from tierkit.testing.suite.usage import Usage
from tierkit.testing.suite.versions import Versions
from tierkit.tier import CacheTier, TierContext


class TierContract(  # pytest runs the last of these first
    Model,
    Sharing,
    Races,
    Concurrency,
    Durability,
    Resources,
    Examinations,
    Lifetime,
    Queries,
    Iteration,
    Bulk,
    Eviction,
    Usage,
    Marks,
    Versions,
    RoundTrips,
):
    """Tests that any tier must pass. Inherit from it and write `open_tier`; override nothing else but `examine`.

    ```python
    class TestMyTier(TierContract):
        def open_tier(self, context: TierContext, path: pathlib.Path) -> MyTier:
            return MyTier(context, path)
    ```

    A test that cannot apply to a tier, by what it claims, is skipped with the reason.

    What it cannot decide, and you must see to yourself: that a tier claims too little of `SHARED` and `CRASH_SAFE`;
    that a write torn by a crash is never read as whole; that what was damaged in the storage raises `TierCorrupt` once
    and is set aside, and that a storage which fails raises and is not silent, for it cannot reach into your storage;
    that `NATIVE_TTL` and `WATCHABLE` are true, and that a `QUERYABLE` tier goes by an index where there is one; that a
    power cut loses nothing under `durability="full"`.
    """

    def open_tier(self, context: TierContext, path: Path) -> CacheTier[Any]:
        """Open the tier over the storage at `path`.

        Called again with the same path for the same storage; while it is open, with another `context.namespace`, or if
        the tier is `SHARED` with the same.
        Nothing is at `path` at first, but its parent is there. A tier that keeps nothing ignores it.
        """
        raise NotImplementedError(f"{type(self).__name__} must define open_tier(context, path)")

    def examine(self, context: TierContext, path: Path) -> Iterable[Finding] | None:
        """Call what your `TierSpec` has as `examine`, for the storage at `path`; None if it has none."""
        return None

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a subclass in which a part of the contract is replaced or switched off.

        Raises:
            TypeError: It overrides something other than `open_tier` and `examine`.
        """
        super().__init_subclass__(**options)
        changed = [name for name in _WHOLE if _attribute(cls, name) is not _attribute(TierContract, name)]
        if not getattr(cls, "__test__", True):
            changed.append("__test__")
        if changed:
            raise TypeError(f"{cls.__qualname__} overrides {', '.join(changed)}: the contract of a tier is kept whole")

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Iterator[Storage]:
        """An empty storage."""
        with Storage(self.open_tier, tmp_path / "main" / "storage") as storage:
            yield storage

    @pytest.fixture
    def tier(self, storage: Storage) -> CacheTier[Any]:
        """The tier, opened over an empty storage."""
        return storage.open()


def _attribute(cls: type, name: str) -> object:
    return getattr_static(cls, name, None)


_WHOLE = [name for name in dir(TierContract) if not name.startswith("__") and name not in {"open_tier", "examine"}]
