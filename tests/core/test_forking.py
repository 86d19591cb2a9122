"""A child of a fork does not wait for threads that only its parent has."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import pytest

from tierkit import CacheConfig, CacheManager, ValueEntry
from tierkit.admission import SecondUse
from tierkit.testing import FakeClock
from tierkit.testing.suite.processes import PATIENCE_SECONDS, forked, send


def in_a_child_while_held(lock: Any, work: Callable[[], object]) -> None:
    """Do `work` in a child that was forked while a thread of its parent held `lock`."""

    def child(pipe: Connection) -> None:
        work()
        send(pipe, 1)

    with kept_by_another_thread(lock), forked(child) as other:
        assert other.receive() == 1


@contextmanager
def kept_by_another_thread(lock: Any) -> Iterator[None]:
    taken, done = threading.Event(), threading.Event()

    def keep() -> None:
        with lock:
            taken.set()
            done.wait(PATIENCE_SECONDS)

    thread = threading.Thread(target=keep)
    thread.start()
    assert taken.wait(PATIENCE_SECONDS)
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_an_admission_policy_goes_on_in_a_child() -> None:
    policy = SecondUse(10)
    in_a_child_while_held(policy._lock, lambda: policy.admit("a"))


@pytest.mark.parametrize("lock", ["_hot_lock", "_close_lock"])
def test_a_cache_is_closed_in_a_child(lock: str) -> None:
    config = CacheConfig(tiers=({"backend": "memory"},))
    with CacheManager(config, entry_type=ValueEntry, clock=FakeClock()) as cache:
        in_a_child_while_held(getattr(cache, lock), cache.close)
