"""The background sweeper: one thread per cache."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from tierkit.stack import Stack

logger = logging.getLogger("tierkit.sweeper")


class Sweeper:
    """Sweeps a stack every `interval_seconds` until it is stopped or the stack is gone. Started when it is made."""

    def __init__(self, stack: Stack[Any], interval_seconds: float) -> None:
        """Start the thread."""
        self._process = os.getpid()
        self._stopped = threading.Event()
        self._finish: list[Callable[[], None]] = []
        self._thread = threading.Thread(
            target=_run,
            args=(weakref.ref(stack), self._stopped, self._finish, interval_seconds),
            name="tierkit-sweeper",
            daemon=True,
        )
        self._thread.start()

    def stop(self, then: Callable[[], None], patience_seconds: float | None = None) -> None:
        """Stop, wait for a sweep under way, and do what comes `then`.

        The garbage collector may call this in the sweeper's own thread, in the middle of a sweep: then that is done
        when the sweep is over. In a forked child there is no such thread.
        """
        if os.getpid() != self._process:
            then()
            return
        if self._thread is threading.current_thread():
            self._finish.append(then)
            self._stopped.set()
            return
        self._stopped.set()
        self._thread.join(patience_seconds)
        then()


def _run(
    reference: weakref.ref[Stack[Any]],
    stopped: threading.Event,
    finish: list[Callable[[], None]],
    interval_seconds: float,
) -> None:
    while not stopped.wait(interval_seconds):
        stack = reference()
        if stack is None:
            break
        try:
            stack.sweep()
        except Exception:
            logger.exception("a sweep failed; the next one is in %s seconds", interval_seconds)
        del stack
    for then in finish:
        then()
