"""A cache of plain values in memory, and one over a disk, both with a clock that a test moves."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.core.engine.support import World

from tierkit import Cache, CacheConfig, ValueEntry
from tierkit.testing import FakeClock

MEMORY: Any = ({"backend": "memory"},)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cache(clock: FakeClock) -> Iterator[Cache[Any]]:
    config = CacheConfig(tiers=MEMORY, durability="none", default_ttl_seconds=3600, grace_seconds=600)
    with Cache.open(config, clock=clock) as cache:
        yield cache


@pytest.fixture
def world(clock: FakeClock) -> Iterator[World]:
    world = World(clock)
    yield world
    world.close()


@pytest.fixture
def stacked(world: World) -> Iterator[Cache[Any]]:
    manager = world.open("live", "disk", entry_type=ValueEntry, grace_seconds=600)
    with Cache[Any](manager) as cache:
        yield cache
