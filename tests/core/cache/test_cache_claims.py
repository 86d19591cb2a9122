"""Claims: which process loads a key, and how long a claim holds."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.core.engine.support import PATIENCE

from tierkit import CacheConfig, CacheManager, TierUnavailable, ValueEntry
from tierkit.cache.claims import Claims
from tierkit.testing import FakeClock
from tierkit.testing.suite.processes import forked, send


@pytest.fixture
def managers(tmp_path: Path, clock: FakeClock) -> Iterator[list[CacheManager[ValueEntry]]]:
    tiers: Any = ({"backend": "jsonl", "path": tmp_path / "store"},)
    opened = [CacheManager(CacheConfig(tiers=tiers), entry_type=ValueEntry, clock=clock) for _ in range(2)]
    yield opened
    for manager in opened:
        manager.close()


@pytest.fixture
def both(managers: list[CacheManager[ValueEntry]]) -> list[Claims]:
    return [Claims(manager._stack, 10.0, keep=False) for manager in managers]


def test_a_key_is_claimed_by_one_alone_until_it_is_released(both: list[Claims]) -> None:
    ours, theirs = both
    with ours.claimed("a") as first, theirs.claimed("a") as second, theirs.claimed("b") as other:
        assert (first, second, other) == (True, False, True)
    with theirs.claimed("a") as taken:
        assert taken


def test_a_claim_runs_out_unless_it_is_renewed(both: list[Claims], clock: FakeClock) -> None:
    ours, theirs = both
    with ours.claimed("a"):
        clock.advance(9)
        ours._renew("a")
        clock.advance(9)
        with theirs.claimed("a") as taken:
            assert not taken
        clock.advance(1)
        with theirs.claimed("a") as taken:
            assert taken
            ours._renew("a")
        ours._renew("b")


def test_who_lost_his_claim_does_not_release_that_of_another(both: list[Claims], clock: FakeClock) -> None:
    ours, theirs = both
    with ours.claimed("a"):
        clock.advance(10)
        assert theirs._taken("a")
    with ours.claimed("a") as taken:
        assert not taken


def test_a_thread_renews_claims_while_there_are_any(managers: list[CacheManager[ValueEntry]]) -> None:
    claims = Claims(managers[0]._stack, 0.01, keep=True)
    with claims.claimed("a"):
        first = claims._held["a"]
        keeper = claims._keeper
        assert keeper is not None
        while claims._held["a"].token == first.token:
            assert keeper.is_alive()
    keeper.join(PATIENCE)
    assert not keeper.is_alive()
    with claims.claimed("a"):
        keeper = claims._keeper
        claims.close()
    assert keeper is not None
    assert not keeper.is_alive()


def test_where_the_storage_fails_everybody_may_load(
    both: list[Claims], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise TierUnavailable("gone")

    for name in ("acquire", "renew", "release"):
        monkeypatch.setattr(f"tierkit.leases.LeaseStore.{name}", fail)
    for claims in both:
        with claims.claimed("a") as taken:
            assert taken
            claims._renew("a")
    assert "is not claimed, and others may load it too: gone" in caplog.text


def test_a_forked_child_holds_none_of_its_parents_claims(both: list[Claims]) -> None:
    ours, theirs = both
    with ours.claimed("a"):

        def child(pipe: Any) -> None:
            ours.renew()
            ours._release("a")
            send(pipe, len(ours._held))

        with forked(child) as process:
            assert process.receive() == 0
        with theirs.claimed("a") as taken:
            assert not taken


def test_where_nobody_else_can_open_the_storage_there_is_nothing_to_claim(clock: FakeClock) -> None:
    tiers: Any = ({"backend": "memory"},)
    config = CacheConfig(tiers=tiers, durability="none")
    with CacheManager(config, entry_type=ValueEntry, clock=clock) as manager:
        claims = Claims(manager._stack, 10.0, keep=False)
        with claims.claimed("a") as first, claims.claimed("a") as second:
            assert first
            assert second


def test_where_no_thread_can_be_begun_a_claim_is_not_renewed_and_the_load_goes_on(
    managers: list[CacheManager[ValueEntry]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: object) -> None:
        raise RuntimeError("can't start new thread")

    claims = Claims(managers[0]._stack, 10.0, keep=True)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with claims.claimed("a") as taken:
            assert taken
    with claims.claimed("a") as taken:
        assert taken
        assert claims._keeper is not None
        assert claims._keeper.is_alive()
    claims.close()


def test_a_forked_child_does_not_wait_for_a_lock_of_its_parent(both: list[Claims]) -> None:
    ours, theirs = both
    theirs.close()
    with ours._ended._cond:  # type: ignore[attr-defined]  # as if another thread were about to wait when the fork comes
        ours.renew()
        assert not ours._ended.wait(0)
    theirs.renew()
    assert theirs._ended.is_set()
