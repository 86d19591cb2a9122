"""What a process may be at work on is no finding, and a repair says why it cannot be made."""

from contextlib import closing
from itertools import count
from pathlib import Path
from unittest.mock import patch

import pytest
from tests.plugins.jsonl_tools import open_store, row, shard
from tests.plugins.sqlite_support import NAMESPACE, PROXY_COLUMNS, open_tier, proxy, raw

from tierkit import Finding, TierContext, TierTimeout, TierUnavailable
from tierkit_jsonl import JsonlOptions
from tierkit_jsonl.examining import examine as examine_jsonl
from tierkit_jsonl.locks import ShardLock
from tierkit_sqlite import SQLiteOptions, examining, files
from tierkit_sqlite.opening import Settings
from tierkit_sqlite.repairing import Repairs


def jsonl_findings(root: Path) -> list[str]:
    options = JsonlOptions(path=root / "store")
    return [finding.code for finding in examine_jsonl(TierContext(read_only=True), options)]


def sqlite_findings(path: Path) -> list[Finding]:
    context = TierContext(namespace=NAMESPACE, columns=PROXY_COLUMNS, read_only=True)
    return list(examining.examine(context, SQLiteOptions(path=path, busy_timeout_seconds=0)))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    with open_store(tmp_path) as tier:
        tier.put(row("a"))
    return tmp_path


@pytest.fixture
def database(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    with open_tier(tmp_path / "db") as tier:
        tier.put(proxy(1))
    return tmp_path / "db"


def test_what_a_writer_of_a_shard_is_at_work_on_is_no_finding(root: Path) -> None:
    with shard(root).open("ab") as file:
        file.write(b'{"crc":"')
    temporary = shard(root).with_name("00.jsonl.tmp")
    temporary.touch(0o600)
    lock = ShardLock(str(shard(root).with_name("00.lock")), 0.0)
    with closing(lock):
        assert lock.try_file()
        assert jsonl_findings(root) == []
    assert jsonl_findings(root) == ["jsonl-left-over", "jsonl-torn-tail"]


def test_a_store_that_is_made_just_now_is_no_finding(root: Path) -> None:
    (shard(root).parent / "meta.json").unlink()
    lock = ShardLock(str(shard(root).parent / "meta.lock"), 0.0)
    with closing(lock):
        assert lock.try_file()
        assert jsonl_findings(root) == []
    assert jsonl_findings(root) == ["jsonl-no-description"]


def test_a_store_beside_that_of_the_records_is_examined_too(root: Path) -> None:
    beside = root / "store" / "entries__leases"
    beside.mkdir(mode=0o700)
    (beside / "notes").touch(0o600)
    (beside / "00.jsonl").touch(0o600)
    assert jsonl_findings(root) == ["jsonl-no-description"]


def test_a_database_that_is_repaired_just_now_is_no_finding(database: Path) -> None:
    database.with_name("db.rescue").touch(0o600)
    lock = files.LockFile(f"{database}.lock", 0.0)
    with closing(lock), lock:
        assert sqlite_findings(database) == []
    assert [finding.code for finding in sqlite_findings(database)] == ["sqlite-left-over"]


def test_a_database_that_changes_all_the_time_is_not_judged(database: Path) -> None:
    stamps = count()
    with patch.object(files, "stamp", lambda _: (next(stamps), 0)), pytest.raises(TierTimeout, match="keeps changing"):
        sqlite_findings(database)


def test_a_log_that_somebody_reads_is_left_and_that_is_said(database: Path) -> None:
    with open_tier(database) as tier, raw(database) as reader, patch.object(examining, "LONGEST_LOG_BYTES", 1000):
        reader.execute("BEGIN")
        reader.execute(f"SELECT count(*) FROM {NAMESPACE}").fetchall()  # noqa: S608 - a constant
        tier.put(proxy(2))
        (finding,) = sqlite_findings(database)
        assert finding.code == "sqlite-log-grown"
        assert finding.repair is not None
        with pytest.raises(TierTimeout, match="reading an older state"):
            finding.repair()


def test_an_index_that_was_asked_for_is_missed_and_no_repair_drops_it(database: Path) -> None:
    context = TierContext(namespace=NAMESPACE, columns=PROXY_COLUMNS, read_only=True)
    asked = SQLiteOptions(path=database, indexes=("failure_count",))
    (finding,) = examining.examine(context, asked)
    assert finding.code == "sqlite-index-missing"
    assert finding.repair is not None
    finding.repair()
    assert list(examining.examine(context, asked)) == []
    (database.with_name("db.rescue")).touch(0o600)
    (finding,) = examining.examine(context, asked)
    assert finding.repair is not None
    finding.repair()
    assert list(examining.examine(context, asked)) == []


def test_a_rebuilding_that_fails_is_told(database: Path) -> None:
    context = TierContext(namespace=NAMESPACE, columns=PROXY_COLUMNS)
    settings = Settings(context=context, path=str(database), busy_timeout_seconds=0, cache_size_mb=8, gated=False)
    with patch.object(Settings, "rebuild", lambda *_: False), pytest.raises(TierUnavailable, match="not be repaired"):
        Repairs(settings).rebuild()


def test_text_that_is_not_utf_8_is_a_damaged_row(database: Path) -> None:
    with raw(database) as connection:
        connection.execute(f"UPDATE {NAMESPACE} SET source = CAST(x'ff' AS TEXT)")  # noqa: S608 - a constant
    (finding,) = sqlite_findings(database)
    assert finding.code == "sqlite-row-damaged"
    assert finding.repair is not None
    finding.repair()
    assert [finding.code for finding in sqlite_findings(database)] == ["kept-aside"]
