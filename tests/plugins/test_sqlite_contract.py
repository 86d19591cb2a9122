"""The SQLite tier keeps the contract."""

from collections.abc import Iterable
from pathlib import Path
from unittest.mock import patch

import pytest

from tierkit import Finding, TierContext
from tierkit.testing import TierContract
from tierkit_sqlite import SQLiteCacheTier, SQLiteOptions, library
from tierkit_sqlite.examining import examine


class TestContract(TierContract):
    pytestmark = pytest.mark.req("US1-1")

    def open_tier(self, context: TierContext, path: Path) -> SQLiteCacheTier:
        return SQLiteCacheTier(context, path)

    def examine(self, context: TierContext, path: Path) -> Iterable[Finding]:
        return examine(context, SQLiteOptions(path=path))


class TestContractOnALibraryWithTheWalFault(TierContract):
    def open_tier(self, context: TierContext, path: Path) -> SQLiteCacheTier:
        with patch.object(library, "has_wal_fault", lambda: True):
            return SQLiteCacheTier(context, path)
