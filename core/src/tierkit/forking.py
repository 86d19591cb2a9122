"""Forks: tiers in memory are kept still meanwhile, and the child's caches make locks of their own."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

open_stacks: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
"""Every stack that is open in this process."""
_renewals: Final[weakref.WeakKeyDictionary[Any, Callable[[Any], None]]] = weakref.WeakKeyDictionary()


def in_child(owner: Any, renew: Callable[[Any], None]) -> None:
    """Have `renew(owner)` called in each forked child, for as long as there is `owner`: it makes locks of its own."""
    _renewals[owner] = renew


def renewed(event: threading.Event) -> threading.Event:
    """An event that is set if `event` is. In a child nobody may ever let go of the lock that is within its parent's."""
    twin = threading.Event()
    if event.is_set():
        twin.set()
    return twin


class _Held(threading.local):
    """The locks that the forking thread holds."""

    def __init__(self) -> None:
        self.locks: list[Any] = []


_held = _Held()


def _before_fork() -> None:
    # So that the child finds the tiers in memory whole. Their locks are reentrant.
    locks = [tier.lock for stack in list(open_stacks) for tier in stack.kept_still()]
    _held.locks = [lock for lock in locks if lock.acquire(timeout=1.0)]


def _after_fork() -> None:
    while _held.locks:
        _held.locks.pop().release()


def _after_fork_in_child() -> None:
    _after_fork()
    for owner, renew in list(_renewals.items()):
        renew(owner)
    for stack in list(open_stacks):
        stack.leave_parent()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
