"""The JSON Lines tier keeps the contract."""

from pathlib import Path

import pytest

from tierkit import TierContext
from tierkit.testing import TierContract
from tierkit_jsonl import FileCacheTier


class TestContract(TierContract):
    pytestmark = pytest.mark.req("US1-1")

    def open_tier(self, context: TierContext, path: Path) -> FileCacheTier:
        return FileCacheTier(context, path)


class TestContractWithOneShardThatIsRewrittenOften(TierContract):
    def open_tier(self, context: TierContext, path: Path) -> FileCacheTier:
        return FileCacheTier(context, path, shards=1, compact_ratio=0.1)
