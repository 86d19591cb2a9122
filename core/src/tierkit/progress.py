"""Progress of what takes long: one callback for callers; in the log its start, its size, and every thousand steps.

What came of it is logged by whoever does it. The log lines are at INFO.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

OnProgress = Callable[[int, int | None], object]
"""Called with how much is done and how much there seems to be, or None if that is not known.

It is called in the thread that does the work, and what it raises stops that.
"""

TOLD_EVERY: Final = 100
LOGGED_EVERY: Final = 1000


class Meter:
    """Counts the steps of one piece of work, and tells of them: every 100 the callback, every 1000 the log.

    The callback is told once more at the end, when the number of steps is known.

    Attributes:
        done: Steps so far.
        total: Steps there seem to be, or None; never fewer than were done.
    """

    def __init__(
        self,
        what: str,
        total: int | None = None,
        *,
        on_progress: OnProgress | None = None,
        log: logging.Logger,
        told_every: int = TOLD_EVERY,
    ) -> None:
        """Start at nothing, and log that.

        Args:
            what: What is done, as a log line begins: "exporting L3", "warming proxies.csv".
            total: How many steps there seem to be, if known.
            on_progress: Told every 100 steps, and at the end.
            log: Told at the start and every 1000 steps, at INFO.
            told_every: After how many steps the callback is told; 1 where each step takes long.
        """
        self._what = what
        self._total: int | None = None
        self._on_progress = on_progress
        self._log = log
        self._told_every = told_every
        self._told: int | None = None
        self.done = 0
        log.info("%s", what)
        if total is not None:
            self.expect(total)

    @property
    def total(self) -> int | None:
        """Steps there seem to be."""
        return None if self._total is None else max(self._total, self.done)

    def expect(self, total: int) -> None:
        """Know, and log, how many steps there seem to be."""
        self._total = total
        self._log.info("%s: %d found", self._what, total)

    def advance(self, steps: int = 1) -> None:
        """Count `steps` more."""
        before, self.done = self.done, self.done + steps
        if before // self._told_every != self.done // self._told_every:
            self._tell()
        if before // LOGGED_EVERY != self.done // LOGGED_EVERY:
            self._log.info("%s: %d%s", self._what, self.done, "" if self.total is None else f" of {self.total}")

    def finish(self) -> None:
        """Tell the callback that all is done, unless it knows."""
        if self._told != self.done or self.total != self.done:
            self._total = self.done
            self._tell()

    def _tell(self) -> None:
        self._told = self.done
        if self._on_progress is not None:
            self._on_progress(self.done, self.total)
