"""Contract: a tier that was closed leaves nothing behind in the process."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, Final

import pytest

from tierkit.row import Delta
from tierkit.testing.storage import Storage
from tierkit.tier import CacheTier

ROUNDS: Final = 3
ENDING_SECONDS: Final = 5.0
FOLDERS: Final = (Path("/proc/self/fd"), Path("/dev/fd"))


def use(tier: CacheTier[Any], storage: Storage) -> None:
    """Open files, locks and whatever else `tier` needs; then close it."""
    version = tier.highest_version() + 1
    tier.put(storage.record("a", version))
    tier.put_many([storage.record("b", version), storage.record("c", version)])
    tier.get("a")
    tier.delete("b", version)
    tier.touch_many({"a": Delta(1, 1.7e9)})
    next(iter(tier.scan()))
    tier.purge(storage.clock.wall())
    tier.close()


class Resources:
    """A tier that was closed leaves nothing behind in the process."""

    def test_closing_leaves_no_descriptors(self, storage: Storage) -> None:
        """Files, sockets, locks."""
        folder = next((folder for folder in FOLDERS if folder.is_dir()), None)
        if folder is None:
            pytest.skip("this system does not list descriptors")
        use(storage.open(), storage)  # what a library opens once for the process is no leak
        before = len(os.listdir(folder))
        for _ in range(ROUNDS):
            use(storage.open(), storage)
        left = len(os.listdir(folder)) - before
        assert left <= 0, f"close left {left} descriptors open after {ROUNDS} openings: see CacheTier.close"

    def test_closing_leaves_no_threads(self, storage: Storage) -> None:
        """Those of the tier have ended when `close` returns, or end at once."""
        use(storage.open(), storage)
        before = set(threading.enumerate())
        for _ in range(ROUNDS):
            use(storage.open(), storage)
        left = [thread for thread in threading.enumerate() if thread not in before]
        for thread in left:
            thread.join(ENDING_SECONDS / len(left))
        assert not [thread for thread in left if thread.is_alive()], "close left threads running: see CacheTier.close"
