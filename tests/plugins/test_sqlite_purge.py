"""How the SQLite tier purges: by short statements that keep no other writer waiting for long."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.plugins.sqlite_support import NAMESPACE, assert_nothing_is_open, open_tier, own_connection, proxy, raw

from tierkit.testing import make_row
from tierkit_sqlite import work

NOW = 2e9 + 1000
WRITES = ("INSERT", "DELETE", "UPDATE", "REPLACE", "BEGIN")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tierkit.db"


def between(step: str, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do `act` once, right before a purge takes `step`."""
    real = getattr(work, step)

    def late(*args: Any) -> Any:
        monkeypatch.setattr(work, step, real)
        act()
        return real(*args)

    monkeypatch.setattr(work, step, late)


def put_beside(path: Path, row: Any) -> Callable[[], None]:
    """As another process does."""

    def put() -> None:
        with open_tier(path) as other:
            assert other.put(row) is None

    return put


def test_a_purge_takes_the_write_lock_for_single_statements_only(path: Path) -> None:
    with open_tier(path) as tier:
        tier.put_many([proxy(n) for n in range(100)])
        written: list[str] = []
        own_connection(tier).set_trace_callback(written.append)
        removed = list(tier.purge_in_steps(NOW))
        own_connection(tier).set_trace_callback(None)
    kinds = {sql.split()[0] for sql in written if sql.startswith(WRITES)}
    assert kinds == {"INSERT", "DELETE"}, "a transaction of several would be held while the interpreter is waited for"
    assert sum(removed) == 100
    assert max(removed) <= 32


@pytest.mark.parametrize("step", ["mark_due", "remove_due"])
@pytest.mark.parametrize("purge_at", [NOW + 1, NOW - 1])
def test_what_was_renewed_while_it_is_purged_stays(
    path: Path, step: str, purge_at: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed = make_row("key 1", 2, purge_at=purge_at, columns={"expires_at": purge_at})
    with open_tier(path) as tier:
        tier.put(proxy(1))
        between(step, put_beside(path, renewed), monkeypatch)
        first = next(tier.purge_in_steps(NOW))
        assert tier.get("key 1") == (renewed if purge_at > NOW or step == "remove_due" else None)
        assert first == (tier.get("key 1") is None)


def test_what_was_marked_and_not_removed_is_whole_and_goes_next_time(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_tier(path) as tier:
        tier.put(proxy(1))
        with monkeypatch.context() as patch:
            patch.setattr(work, "remove_due", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                tier.purge(NOW)
        assert_nothing_is_open(tier)
        assert tier.get("key 1") == proxy(1)
        assert tier.put(proxy(1)) is None
        assert tier.purge(NOW) == 1
        assert tier.put(proxy(1)) is None, "a purge is a discard"


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_rotten_version_does_not_keep_a_row_from_being_purged(path: Path) -> None:
    with open_tier(path) as tier:
        tier.put_many([proxy(n) for n in range(3)])
        with raw(path) as connection:
            connection.execute(f"UPDATE {NAMESPACE} SET version = 'text' WHERE key = 'key 1'")  # noqa: S608 - a name of our own
        assert tier.purge(NOW) == 3
        assert tier.size() == 0


def test_a_long_purge_brings_the_log_into_the_database_between_its_statements(path: Path) -> None:
    with open_tier(path) as tier:
        own_connection(tier).execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        tier.put_many([proxy(n, source="x" * 500) for n in range(2000)])
        assert path.stat().st_size < 100_000
        assert next(tier.purge_in_steps(NOW)) > 0
        assert path.stat().st_size > 1_000_000
