"""The kit that authors of tiers test with."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.tiers import DictBlobTier

from tierkit import CacheTier, TierContext, TierFull, TierUnavailable
from tierkit.testing import FakeClock, FaultyTier, Storage, TierContract, make_row
from tierkit.testing.faulty import METHODS

STRANGER = '''
from tierkit import BlobTier
from tierkit.testing import TierContract


class StrangersTier(BlobTier):
    """A tier as an author would write it who has read nothing but tier.py."""

    def __init__(self, context):
        super().__init__(context)
        self.blobs = {}

    def load(self, key):
        return self.blobs.get(key)

    def store(self, key, blob):
        self.blobs[key] = blob

    def remove(self, key):
        self.blobs.pop(key, None)

    def iterate(self):
        return iter(list(self.blobs.values()))


class TestStrangersTier(TierContract):
    def open_tier(self, context, path):
        return StrangersTier(context)
'''


def open_blobs(context: TierContext, path: Path) -> CacheTier[Any]:
    return DictBlobTier(context)


def weaker(self: object) -> None: ...


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-W", "error", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.req("F-8")
def test_it_works_in_a_strangers_repository(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(STRANGER)
    done = run_pytest(tmp_path, "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_a_failure_explains_itself(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(STRANGER.replace("self.blobs[key] = blob", "pass"))
    done = run_pytest(tmp_path, "-q", "-k", "newer_version_replaces")
    assert done.returncode == 1
    assert "one more item: Row(key='key', version=2" in done.stdout


def test_a_subclass_must_open_its_tier(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(STRANGER.replace("def open_tier", "def open"))
    done = run_pytest(tmp_path, "-q", "-k", "new_storage")
    assert done.returncode == 1
    assert "must define open_tier" in done.stdout


def test_only_open_tier_may_be_written() -> None:
    class Whole(TierContract):
        def open_tier(self, context: TierContext, path: Path) -> CacheTier[Any]:
            return DictBlobTier(context)

        def test_of_its_own(self) -> None: ...

    with pytest.raises(TypeError, match="Weaker overrides test_a_new_storage_is_empty"):
        type("Weaker", (Whole,), {"test_a_new_storage_is_empty": weaker})
    with pytest.raises(TypeError, match="overrides storage"):
        type("Weaker", (Whole,), {"storage": None})
    with pytest.raises(TypeError, match="overrides _persistent"):
        type("Weaker", (Whole,), {"_persistent": None})
    with pytest.raises(TypeError, match="overrides __test__"):
        type("Weaker", (Whole,), {"__test__": False})


def test_a_mixin_cannot_weaken_it_either() -> None:
    mixin = type("Mixin", (), {"test_closing_twice_does_no_harm": weaker})
    with pytest.raises(TypeError, match="overrides test_closing_twice_does_no_harm"):
        type("Weaker", (mixin, TierContract), {})


class TestFakeClock:
    def test_it_stands_still(self) -> None:
        clock = FakeClock(wall=10.0, monotonic=5.0)
        assert (clock.wall(), clock.monotonic()) == (clock.wall(), clock.monotonic()) == (10.0, 5.0)

    def test_time_passes_on_both_readings(self) -> None:
        clock = FakeClock(wall=10.0, monotonic=5.0)
        clock.advance(2.5)
        assert (clock.wall(), clock.monotonic()) == (12.5, 7.5)

    def test_a_step_of_the_wall_clock_is_no_time(self) -> None:
        clock = FakeClock(wall=10.0, monotonic=5.0)
        clock.step_wall(-100.0)
        assert (clock.wall(), clock.monotonic()) == (-90.0, 5.0)

    def test_time_does_not_run_backwards(self) -> None:
        with pytest.raises(ValueError, match="step_wall"):
            FakeClock().advance(-1)


class TestFaultyTier:
    @pytest.fixture
    def tier(self) -> FaultyTier:
        return FaultyTier(DictBlobTier(TierContext()))

    def test_it_is_its_tier_until_told(self, tier: FaultyTier) -> None:
        row = make_row()
        assert tier.put(row) is None
        assert tier.get("key") == row
        assert list(tier.scan()) == [row]
        assert tier.calls == {"put": 1, "get": 1, "scan": 1}
        assert tier.traits == tier.tier.traits

    def test_it_fails_so_often_and_comes_back(self, tier: FaultyTier) -> None:
        tier.fail("put", "get", error=TierFull("no room"), times=2)
        for _ in range(2):
            with pytest.raises(TierFull, match="no room"):
                tier.put(make_row())
        assert tier.put(make_row()) is None
        with pytest.raises(TierFull):
            tier.get("key")

    def test_a_call_that_fails_does_not_reach_the_tier(self, tier: FaultyTier) -> None:
        tier.fail("put", times=1)
        with pytest.raises(TierUnavailable):
            tier.put(make_row())
        assert tier.size() == 0

    def test_it_fails_until_healed(self, tier: FaultyTier) -> None:
        tier.fail()
        for name in METHODS:
            for _ in range(3):
                with pytest.raises(TierUnavailable):
                    getattr(tier, name)()
        tier.heal()
        assert tier.get("key") is None

    def test_only_methods_of_a_tier_can_fail(self, tier: FaultyTier) -> None:
        with pytest.raises(ValueError, match="fetch"):
            tier.fail("fetch")

    def test_it_forwards_every_method(self) -> None:
        public = {name for name in dir(CacheTier) if not name.startswith("_") and callable(getattr(CacheTier, name))}
        assert set(METHODS) == public - {"close", "purge_in_steps"}  # which counts and fails as `purge`


class TestFaultyTierKeepsTheContract(TierContract):
    def open_tier(self, context: TierContext, path: Path) -> CacheTier[Any]:
        return FaultyTier(DictBlobTier(context))


def test_a_storage_closes_what_it_opened(tmp_path: Path) -> None:
    with Storage(open_blobs, tmp_path / "storage") as storage:
        tier = storage.open()
        assert tier.get("key") is None
    with pytest.raises(TierUnavailable):
        tier.get("key")
