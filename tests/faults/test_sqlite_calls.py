"""What is watched of SQLite is what it does."""

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest
from tests.faults.sqlite_calls import Failing, Logging, no_hooks, watched

from tierkit import TierContext, TierFull, TierReadOnly
from tierkit.testing import FileFaults, crash_states, make_row, recorded_files, these_fail
from tierkit.testing.file_log import Sync, SyncDirectory
from tierkit_sqlite import SQLiteCacheTier

pytestmark = pytest.mark.skipif(bool(no_hooks()), reason=no_hooks() or "it can be watched")


def test_the_log_says_what_stands_in_the_files(tmp_path: Path) -> None:
    with recorded_files(tmp_path) as log, watched(Logging(log)):
        tier = SQLiteCacheTier(TierContext(durability="full"), tmp_path / "base" / "store.db")
        tier.put_many([make_row(f"key {n}", 1) for n in range(50)])
        tier.delete("key 7", 2)
    log.note("end")
    last = next(state.contents for state in crash_states(log, samples=0) if state.notes)
    with tier:
        assert last["base/store.db-wal"] == (tmp_path / "base" / "store.db-wal").read_bytes()
        assert last["base/store.db"] == (tmp_path / "base" / "store.db").read_bytes()
    kinds = [type(operation) for operation in log.operations]
    assert kinds.count(Sync) >= 4
    assert kinds.count(SyncDirectory) >= 3, "of the folder, of the database, and of its log"


@pytest.mark.parametrize(
    ("call", "code", "kind"),
    [("write", errno.ENOSPC, TierFull), ("write", errno.EIO, TierReadOnly), ("sync", errno.EIO, TierReadOnly)],
)
def test_a_call_that_fails_is_raised_by_the_tier(tmp_path: Path, call: str, code: int, kind: type[Exception]) -> None:
    faults = FileFaults(these_fail(code, f"sqlite {call}"))
    faults.on = False
    with watched(Failing(faults)), SQLiteCacheTier(TierContext(durability="full"), tmp_path / "store.db") as tier:
        tier.put(make_row("a", 1))
        faults.on = True
        with pytest.raises(kind, match="tier"):
            tier.put(make_row("b", 1))
        faults.on = False
        assert tier.put(make_row("b", 1)) is None
        assert tier.get("a") == make_row("a", 1)
    assert os.listdir(tmp_path) == ["store.db"]


@pytest.mark.req("E-2")
def test_a_full_disk_keeps_no_database_from_being_read(tmp_path: Path) -> None:
    with SQLiteCacheTier(TierContext(), tmp_path / "store.db") as tier:
        tier.put(make_row("a", 1))
    faults = FileFaults(these_fail(errno.ENOSPC, "sqlite shmmap"))
    with watched(Failing(faults)), SQLiteCacheTier(TierContext(), tmp_path / "store.db") as tier:
        assert tier.get("a") == make_row("a", 1)
        with pytest.raises(TierReadOnly):
            tier.put(make_row("b", 1))
        assert tier.get("a") == make_row("a", 1)
        faults.on = False
        with suppress(TierReadOnly):  # it was opened for reading by the call before
            tier.put(make_row("b", 1))
        assert tier.put(make_row("b", 1)) is None
