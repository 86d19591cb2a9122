"""A world for each test of the engine: see `support`."""

from collections.abc import Iterator

import pytest
from tests.core.engine.support import World

from tierkit.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def world(clock: FakeClock) -> Iterator[World]:
    world = World(clock)
    yield world
    world.close()
