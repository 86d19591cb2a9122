"""Threads and processes that meet within the few lines where a race is."""

from __future__ import annotations

import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any, Final

OFFERS: Final = 10
OFFER_SECONDS: Final = 1e-5
"""How often, and how long each time, a thread offers its turn to the others before it goes on alone."""

TraceFunction = Callable[[FrameType, str, Any], Any]
_KIT: Final = str(Path(__file__).parents[1])
_PYTHON: Final = sysconfig.get_path("stdlib")


class Stir:
    """Within it, a thread gives its turn away before every other line of the tier, chosen at random: slow.

    Left to the machine, threads hardly ever change places between two lines; in turn line by line, they keep the same
    distance from each other throughout. Several threads share one `Stir`. In a process that is alone in it a line takes
    longer, so that other processes come in between.
    """

    def __init__(self, seed: int = 0) -> None:
        """Choose the lines by the random numbers of `seed`."""
        self._random = Random(seed)
        self._last = 0

    def __enter__(self) -> None:
        """Stir this thread from here on."""
        sys.settrace(self._before)

    def __exit__(self, *_: object) -> None:
        """Leave this thread alone."""
        sys.settrace(None)

    def _before(self, frame: FrameType, event: str, _: object) -> TraceFunction | None:
        if event == "call" and _is_foreign(frame.f_code.co_filename):
            return None
        if self._random.random() < 0.5:
            self._offer(threading.get_ident())
        return self._before

    def _offer(self, here: int) -> None:
        # Whoever found nobody to go on is alone, or keeps the others waiting: it need not wait for them.
        offers = OFFERS if self._last != here else 1
        self._last = here
        for _ in range(offers):
            time.sleep(OFFER_SECONDS)
            if self._last != here:
                return


def _is_foreign(file: str) -> bool:
    return file.startswith(_KIT) or (file.startswith(_PYTHON) and "site-packages" not in file)
