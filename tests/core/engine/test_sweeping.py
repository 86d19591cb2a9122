"""Sweeping: in short steps that rest in between, past what cannot be removed, and no further once it is to stop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from math import inf
from typing import Any

import pytest
from tests.core.engine.support import Note, World, note, tier
from tests.tiers import FiveMethodTier

from tierkit import (
    BlobTier,
    CacheConfig,
    CacheManager,
    CacheTier,
    Row,
    TierContext,
    TierCorrupt,
    TierUnavailable,
    Trait,
)
from tierkit.sweeper import next_sweep
from tierkit.testing import FakeClock, FaultyTier, make_row
from tierkit.tier import PURGE_STEP, purge_steps
from tierkit_memory import MemoryCacheTier

MANY = 250
PATIENCE = 30.0


class Halt(threading.Event):
    """Says when to stop, by the number of rests, instead of resting."""

    def __init__(self, after: float = float("inf")) -> None:
        super().__init__()
        self.rests: list[float | None] = []
        self.after = after

    def wait(self, timeout: float | None = None) -> bool:
        self.rests.append(timeout)
        return len(self.rests) >= self.after


@pytest.fixture
def cache(clock: FakeClock) -> Iterator[CacheManager[Note]]:
    """A cache in memory with many records that are about to expire, and as many that are not."""
    config = CacheConfig(tiers=({"backend": "memory"},))
    with CacheManager(config, entry_type=Note, clock=clock) as cache:
        cache.put_many([note(f"old {n}", ttl_seconds=60) for n in range(MANY)])
        cache.put_many([note(f"new {n}") for n in range(MANY)])
        clock.advance(60)
        yield cache


def test_a_background_sweep_rests_between_its_steps(cache: CacheManager[Note]) -> None:
    cache._stack.halt = halt = Halt()
    assert cache._stack.sweep() == MANY
    assert len(halt.rests) >= 3
    assert all(rest and rest <= 0.01 for rest in halt.rests)


def test_a_sweep_that_was_asked_for_does_not_rest(cache: CacheManager[Note]) -> None:
    cache._stack.halt = halt = Halt()
    assert cache.sweep() == MANY
    assert halt.rests == []
    assert cache.size() == MANY


@pytest.mark.req("US2-2")
def test_a_sweep_that_is_to_stop_does_so_after_its_step_and_counts_what_it_did(cache: CacheManager[Note]) -> None:
    cache._stack.halt = Halt(after=2)
    removed = cache._stack.sweep()
    assert 0 < removed < MANY
    assert cache.size() == 2 * MANY - removed
    assert cache.get_statistics().tiers[0].evictions_ttl == removed


@pytest.mark.req("US2-2")
def test_close_stops_a_sweep_in_its_midst(cache: CacheManager[Note]) -> None:
    reached = threading.Event()
    stack, real = cache._stack, cache._stack.halt

    class Resting(Halt):
        def wait(self, timeout: float | None = None) -> bool:
            self.rests.append(timeout)
            reached.set()
            return real.wait(PATIENCE)

        def set(self) -> None:
            real.set()

    stack.halt = resting = Resting()
    sweep = threading.Thread(target=stack.sweep)
    sweep.start()
    assert reached.wait(PATIENCE)
    cache.close()
    sweep.join(PATIENCE)
    assert not sweep.is_alive()
    assert len(resting.rests) == 1


@pytest.mark.req("US2-3")
def test_what_a_sweep_removes_is_counted_and_logged(
    world: World, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    cache = world.open("live", "disk")
    cache.put_many([note("a", ttl_seconds=60), note("b", ttl_seconds=60), note("c")])
    clock.advance(60)
    with caplog.at_level(logging.DEBUG, "tierkit.stack"):
        assert cache.sweep() == 4
    assert [level.evictions_ttl for level in cache.get_statistics().tiers] == [2, 2]
    assert "L2: swept 2 expired records" in caplog.text


@pytest.mark.parametrize("error", [TierUnavailable("gone"), TierCorrupt("rotten"), ValueError("a fault of its own")])
def test_a_level_that_cannot_be_swept_does_not_keep_the_others(
    world: World, clock: FakeClock, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    cache = world.open("live", "disk", "disk")
    cache.put(note("a", ttl_seconds=60))
    clock.advance(60)
    tier(cache, "L2").fail("purge", error=error)
    assert cache.sweep() == 2
    assert "L2 could not be swept" in caplog.text
    assert [tier(cache, name).tier.size() for name in ("L1", "L2", "L3")] == [0, 1, 0]


class Stubborn(FiveMethodTier):
    """Cannot remove some of its records."""

    purge = CacheTier.purge
    purge_in_steps = CacheTier.purge_in_steps

    def __init__(self, error: Exception, stuck: frozenset[str]) -> None:
        super().__init__(TierContext(now=lambda: 100.0))
        self.error, self.stuck = error, stuck

    def discard(self, record: Row) -> bool:
        if record.key in self.stuck:
            raise self.error
        return super().discard(record)


class StubbornBlobs(BlobTier):
    """The same, over blobs."""

    def __init__(self, error: Exception, stuck: frozenset[str]) -> None:
        super().__init__(TierContext(now=lambda: 100.0))
        self.blobs: dict[str, bytes] = {}
        self.error, self.stuck, self.failing = error, stuck, False

    def load(self, key: str) -> bytes | None:
        return self.blobs.get(key)

    def store(self, key: str, blob: bytes) -> None:
        if self.failing and key in self.stuck:
            raise self.error
        self.blobs[key] = blob

    def remove(self, key: str) -> None:
        del self.blobs[key]

    def iterate(self) -> Iterator[bytes]:
        return iter(list(self.blobs.values()))


def filled(tier: CacheTier[Any]) -> CacheTier[Any]:
    for n in range(PURGE_STEP + 5):
        tier.put(make_row(f"key {n}", 1, purge_at=100.0))
    if isinstance(tier, StubbornBlobs):
        tier.failing = True
    return tier


@pytest.mark.parametrize("kind", [Stubborn, StubbornBlobs])
def test_a_record_that_is_corrupt_does_not_keep_the_others_from_being_purged(kind: Any) -> None:
    tier = filled(kind(TierCorrupt("rotten"), frozenset({"key 3"})))
    assert list(purge_steps(tier, 100.0)) == [PURGE_STEP - 1, 5]
    assert [record.key for record in tier.scan()] == ["key 3"]


@pytest.mark.parametrize("kind", [Stubborn, StubbornBlobs])
def test_a_record_that_cannot_be_removed_does_not_keep_the_others_and_is_told_of_at_the_end(kind: Any) -> None:
    tier = filled(kind(TierUnavailable("stuck"), frozenset({"key 3", "key 5"})))
    steps = purge_steps(tier, 100.0)
    assert [next(steps), next(steps)] == [PURGE_STEP - 2, 5]
    with pytest.raises(TierUnavailable, match="stuck"):
        next(steps)


@pytest.mark.parametrize("kind", [Stubborn, StubbornBlobs])
def test_a_tier_that_fails_again_and_again_is_not_asked_for_every_record(kind: Any) -> None:
    tier = filled(kind(TierUnavailable("gone"), frozenset(f"key {n}" for n in range(100))))
    with pytest.raises(TierUnavailable, match="gone"):
        tier.purge(100.0)
    assert tier.size() == PURGE_STEP + 5


def test_a_tier_that_overrides_purge_alone_is_purged_by_that_in_one_step() -> None:
    class Own(StubbornBlobs):
        def purge(self, now: float) -> int:
            return super().purge(now) + 1000

    tier = filled(Own(ValueError(), frozenset()))
    assert list(purge_steps(tier, 100.0)) == [1000 + PURGE_STEP + 5]


def test_a_wrapped_tier_is_purged_in_its_own_steps(clock: FakeClock) -> None:
    wrapped = FaultyTier(filled(Stubborn(ValueError(), frozenset())))
    assert len(list(purge_steps(wrapped, 100.0))) == 2
    wrapped.fail("purge", times=1)
    with pytest.raises(TierUnavailable):
        list(purge_steps(wrapped, 100.0))
    assert wrapped.calls["purge"] == 2


def test_the_memory_tier_forgets_many_marks_in_steps() -> None:
    now = [1000.0]
    tier = MemoryCacheTier(TierContext(now=lambda: now[0], tombstone_seconds=100.0))
    assert Trait.LIVE in tier.traits
    for n in range(MANY):
        tier.delete(f"key {n}", 5)
    now[0] += 100
    tier.delete("young", 5)
    assert len(list(purge_steps(tier, now[0]))) >= 2
    assert list(tier._marks) == ["young"]


@pytest.mark.req("SC-6")
@pytest.mark.parametrize("took", [0.0, 0.5, 5.9])
def test_what_expires_just_after_a_sweep_passed_it_is_gone_within_one_interval(took: float) -> None:
    begins = next_sweep(began=100.0, ended=100.0 + took, interval_seconds=60.0)
    assert 100.0 + took < begins
    assert begins + took <= 160.0


def test_a_sweep_that_takes_longer_than_the_interval_is_followed_by_a_rest() -> None:
    assert next_sweep(began=100.0, ended=300.0, interval_seconds=60.0) == 306.0


def test_without_an_interval_no_sweep_follows() -> None:
    assert next_sweep(began=100.0, ended=100.0, interval_seconds=inf) == inf
