"""The authority is full, and the level that stands in fills up as well."""

from collections.abc import Callable
from typing import Any

import pytest
from tests.core.engine.support import Note, World, note, tier

from tierkit import CacheManager, TierFull, TierUnavailable
from tierkit.testing import FakeClock
from tierkit.testing.faulty import WRITES

FULL = TierFull("no room")


@pytest.fixture
def cache(world: World) -> CacheManager[Note]:
    """L2 has a write of `a` that the full authority is owed, and is full by now."""
    opened = world.open("live", "disk", "disk")
    opened.put(note("a", "old"))
    opened.put(note("b", "b"))
    tier(opened, "L3").fail(*WRITES, error=FULL)
    opened.put(note("a", "owed"))
    tier(opened, "L2").fail(*WRITES, error=FULL)
    return opened


@pytest.mark.req("E-2")
@pytest.mark.parametrize("key", ["a", "b"])
def test_what_is_held_can_be_read_though_nobody_takes_a_write(cache: CacheManager[Note], key: str) -> None:
    before = cache.get(key)
    with pytest.raises(TierFull):
        cache.put(note(key, "new"))
    with pytest.raises(TierFull):
        cache.delete(key)
    assert cache.get_statistics().tiers[1].state == "closed"
    assert cache.get(key) == before
    owed = cache.get("a")
    assert owed is not None
    assert owed.text == "owed"


@pytest.mark.req("E-2")
def test_writes_resume_by_themselves_when_both_have_room(cache: CacheManager[Note], clock: FakeClock) -> None:
    with pytest.raises(TierFull):
        cache.put(note("b", "new"))
    for name in ("L2", "L3"):
        tier(cache, name).heal()
    clock.advance(61.0)
    cache.recover()
    assert cache.put(note("b", "newer")) == cache.get("b")
    assert not any(level.degraded for level in cache.get_statistics().tiers)


def taking(put: Callable[[Any], object]) -> Callable[[Any], object]:
    def call(record: Any) -> object:
        put(record)
        raise TierUnavailable("taken, and yet it raises")

    return call


def test_a_full_level_whose_copy_may_be_older_leaves_service(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = world.open("live", "disk", "disk")
    cache.put(note("a", "old"))
    tier(cache, "L2").fail(*WRITES, error=FULL)
    authority = tier(cache, "L3")
    monkeypatch.setattr(authority, "put", taking(authority.put))
    with pytest.raises(TierFull):
        cache.put(note("a", "new"))
    found = cache.get("a")
    assert found is None or found.text == "new"
    assert cache.get_statistics().tiers[1].state == "open"
