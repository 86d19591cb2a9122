"""The contract of a tier, held by the SQLite tier."""

from pathlib import Path

from tierkit import CacheTier, Row, TierContext
from tierkit.testing import TierContract
from tierkit_sqlite import SQLiteCacheTier


class TestSQLite(TierContract):
    def open_tier(self, context: TierContext, path: Path) -> CacheTier[Row]:
        return SQLiteCacheTier(context, path)
