"""The background sweeper: one thread per cache."""

from __future__ import annotations

import logging
import threading
import weakref
from typing import Any

from tierkit.stack import Stack

logger = logging.getLogger("tierkit.sweeper")


class Sweeper:
    """Sweeps a stack every `interval_seconds` until it is stopped or the stack is gone. Started when it is made."""

    def __init__(self, stack: Stack[Any], interval_seconds: float) -> None:
        """Start the thread."""
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=_run,
            args=(weakref.ref(stack), self._stopped, interval_seconds),
            name="tierkit-sweeper",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for a sweep under way."""
        self._stopped.set()
        if self._thread is not threading.current_thread():
            self._thread.join()


def _run(reference: weakref.ref[Stack[Any]], stopped: threading.Event, interval_seconds: float) -> None:
    while not stopped.wait(interval_seconds):
        stack = reference()
        if stack is None:
            return
        try:
            stack.sweep()
        except Exception:
            logger.exception("a sweep failed; the next one is in %s seconds", interval_seconds)
        del stack
