"""What another process holds for the lowest level is found by whoever looks for records, and not only by `get`."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.core.engine.support import Note, World, note, tier

from tierkit import CacheConfig, CacheManager, TierUnavailable
from tierkit.testing import FakeClock

Cache = CacheManager[Note]
Open = Callable[..., Cache]


@pytest.fixture
def opened(tmp_path: Path, clock: FakeClock) -> Iterator[Open]:
    """Opens another cache over the same three stores, the lowest of which gets what is evicted above, or at close."""
    stores: list[dict[str, Any]] = [
        {"backend": "sqlite", "path": str(tmp_path / "above.db")},
        {"backend": "jsonl", "path": str(tmp_path / "between"), "write_policy": "demote"},
        {"backend": "sqlite", "path": str(tmp_path / "lowest.db"), "write_policy": "demote"},
    ]
    with ExitStack() as caches:

        def opened(**more: Any) -> Cache:
            config = CacheConfig(tiers=stores)
            return caches.enter_context(CacheManager(config, entry_type=Note, clock=clock, **more))

        yield opened


def keys(found: Any) -> str:
    return "".join(sorted(entry.key for entry in found))


@pytest.mark.parametrize("read_only", [False, True])
def test_what_it_has_put_or_deleted_is_looked_for_too(opened: Open, *, read_only: bool) -> None:
    writer = opened()
    writer.put_many([note("a", "old"), note("b", "old")])
    writer.flush()
    other = opened(read_only=read_only)
    writer.put(note("c", "new"))
    writer.delete("b")
    assert keys(other.select(text="new")) == "c"
    assert (keys(other.scan()), other.count(), keys(other.select(order_by="-text", limit=1))) == ("ac", 2, "a")
    writer.put(note("d", "new"))
    assert other.peek("d") is not None
    assert other.count(text="new") == 2


def test_it_can_be_leased_and_removed_by_a_filter(opened: Open) -> None:
    writer, other = opened(), opened()
    writer.put(note("a", "new"))
    with other.lease(text="new") as entry:
        assert entry is not None
    writer.put(note("b", "new"))
    assert other.delete_where(text="new") == 2
    assert keys(writer.scan()) == ""


def test_a_copy_of_what_waits_elsewhere_is_sound(opened: Open) -> None:
    cache = opened()
    cache.put_many([note("a", "1"), note("b", "1")])
    cache.flush()
    cache.put_many([note("a", "2"), note("c", "1")])
    assert [finding.kind.code for finding in cache.examine().findings] == ["owed"]


def test_a_removal_by_a_filter_raises_where_the_lowest_level_fails_while_it_gets_what_waits(world: World) -> None:
    cache = world.open_config([{"backend": "disk"}, {"backend": "disk", "write_policy": "demote"}])
    cache.put(note("a", "1"))
    cache.flush()
    cache.levels[0].empty()  # so that nothing above is found instead
    cache.put(note("b", "2"))

    def fail() -> None:
        for _ in range(3):
            cache.levels[-1].handle_failure(TierUnavailable("planted"))

    tier(cache, "L2").before("put_many", fail)
    with pytest.raises(TierUnavailable):
        cache.delete_where(text="1")
