"""Fixtures for every test. Those of one area stand in its own folder."""

import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from tests.leaks import leaked_descriptors, leaked_threads, open_descriptors

pytest_plugins = ["tests.canary.plugin", "tests.unmeasured"]

# No test fails because the machine is busy. Where CI is set this is added to what Hypothesis does there.
settings.register_profile(
    "untimed", parent=settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def no_descriptor_outlives_a_test() -> Iterator[None]:
    before = open_descriptors()
    yield
    assert leaked_descriptors(before) == []


@pytest.fixture(autouse=True)
def no_thread_outlives_a_test(no_descriptor_outlives_a_test: None) -> Iterator[None]:
    """Ends before the check of descriptors, since a thread on its way out may still hold one."""
    before = set(threading.enumerate())
    yield
    assert leaked_threads(before) == []
