"""Contract: an examination finds nothing in a sound storage, and changes nothing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tierkit.findings import Finding
from tierkit.row import Delta
from tierkit.testing.records import FAR, make_row
from tierkit.testing.storage import Storage
from tierkit.tier import CacheTier, TierContext

VERSIONS = (1, 2)


def fill(tier: CacheTier[Any]) -> None:
    """Writes of every sort, so that whatever a tier keeps is there."""
    for version in VERSIONS:
        tier.put_many([make_row(f"key {number}", version, text="text", purge_at=FAR) for number in range(50)])
    tier.touch_many({"key 1": Delta(2, 1.7e9)})
    tier.delete("key 2", 3)
    tier.discard(make_row("key 3", 2, text="text"))
    tier.compact()
    tier.put(make_row("key 4", 3))


class Examinations:
    """An examination finds nothing in a sound storage, and changes nothing. For a tier that has one."""

    @abstractmethod
    def examine(self, context: TierContext, path: Path) -> Iterable[Finding] | None:
        """See `TierContract.examine`."""

    def test_a_sound_storage_has_no_findings(self, storage: Storage) -> None:
        """Neither while it is open, nor when it was closed; notes aside."""
        self._skip_without_examination(storage)
        fill(storage.open())
        self._assert_no_findings(storage)
        storage.close()
        self._assert_no_findings(storage)

    def test_a_storage_that_is_not_there_has_no_findings(self, storage: Storage) -> None:
        """It reads as empty."""
        self._skip_without_examination(storage)
        self._assert_no_findings(storage)

    def test_an_examination_changes_nothing(self, storage: Storage) -> None:
        """Nor does it make anything."""
        self._skip_without_examination(storage)
        self._assert_examination_changes_nothing(storage)
        fill(storage.open())
        storage.close()
        self._assert_examination_changes_nothing(storage)

    def _assert_examination_changes_nothing(self, storage: Storage) -> None:
        before = storage.files()
        list(self._findings(storage))
        assert storage.files() == before, "an examination changes nothing: see TierSpec.examine"

    def _skip_without_examination(self, storage: Storage) -> None:
        if self.examine(storage.context(read_only=True), storage.path) is None:
            pytest.skip("this tier has no examination of its own")

    def _findings(self, storage: Storage) -> Iterable[Finding]:
        return self.examine(storage.context(read_only=True), storage.path) or ()

    def _assert_no_findings(self, storage: Storage) -> None:
        found = [finding for finding in self._findings(storage) if finding.severity != "note"]
        assert not found, "a sound storage has no findings: see TierSpec.examine"
