"""The background thread of a cache: it sweeps at intervals, and brings back what is out of service when that is due."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from math import inf
from typing import Any, Final

from tierkit.recovery import due_in, recover
from tierkit.stack import Stack

logger = logging.getLogger("tierkit.sweeper")

_SHORTEST_SECONDS: Final = 0.05
"""Between two rounds: a level that fails again at once must not keep a processor busy."""
_REST_PART: Final = 0.1
"""Of an interval: what a sweep may take so that none is late, and what there is at least between two sweeps."""


class Sweeper:
    """Looks after a stack until it is stopped or the stack is gone. Started when it is made.

    It sweeps so often that what expired is gone within `interval_seconds`, or never if that is None, and recovers what
    is due meanwhile.
    """

    def __init__(self, stack: Stack[Any], interval_seconds: float | None) -> None:
        """Start the thread."""
        self._process = os.getpid()
        self._alarm = threading.Event()
        self._stopped = threading.Event()
        self._finish: list[Callable[[], None]] = []
        stack.alarm = self._alarm.set
        self._thread = threading.Thread(
            target=_run,
            args=(weakref.ref(stack), self._alarm, self._stopped, self._finish, interval_seconds),
            name="tierkit-sweeper",
            daemon=True,
        )
        self._thread.start()

    def stop(self, then: Callable[[], None], patience_seconds: float | None = None) -> None:
        """Stop, wait for what is under way, and do what comes `then`.

        The garbage collector may call this in the sweeper's own thread, in the middle of a sweep: then that is done
        when the sweep is over. In a forked child there is no such thread.
        """
        if os.getpid() != self._process:
            then()
            return
        if self._thread is threading.current_thread():
            self._finish.append(then)
            self._stop()
            return
        self._stop()
        self._thread.join(patience_seconds)
        then()

    def _stop(self) -> None:
        self._stopped.set()
        self._alarm.set()


def _run(
    reference: weakref.ref[Stack[Any]],
    alarm: threading.Event,
    stopped: threading.Event,
    finish: list[Callable[[], None]],
    interval_seconds: float | None,
) -> None:
    interval = inf if interval_seconds is None else interval_seconds
    opened = time.monotonic()
    sweep_at = next_sweep(opened, opened, interval)
    while not stopped.is_set():
        stack = reference()
        if stack is None:
            break
        pause = min(sweep_at - time.monotonic(), max(due_in(stack), _SHORTEST_SECONDS), threading.TIMEOUT_MAX)
        del stack
        alarm.wait(max(pause, 0.0))
        alarm.clear()
        stack = reference()
        if stack is None or stopped.is_set():
            break
        began = time.monotonic()
        sweeping = sweep_at <= began
        _work(stack, sweeping)
        del stack
        sweep_at = next_sweep(began, time.monotonic(), interval) if sweeping else sweep_at
    for then in finish:
        then()


def next_sweep(began: float, ended: float, interval_seconds: float) -> float:
    """When the sweep after one that `began` and `ended` then is to begin, in the same seconds.

    What expires as soon as a sweep has passed it waits for the next to come there. That is within one interval if a
    sweep takes a tenth of it or less, and after one that takes longer there is a rest of a tenth.
    """
    return max(began + (1 - _REST_PART) * interval_seconds, ended + _REST_PART * interval_seconds)


def _work(stack: Stack[Any], sweeping: bool) -> None:
    try:
        recover(stack)
        if sweeping:
            stack.sweep()
    except Exception:
        logger.exception("upkeep failed; it goes on in its time")
