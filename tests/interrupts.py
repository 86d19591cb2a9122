"""Interrupts between any two steps of a call, and what other threads can do afterwards."""

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from tierkit_jsonl.log import Log


class Interrupt(BaseException):
    """What a signal handler raises."""


def interrupted(call: Callable[[], Any], number: int) -> bool:
    """Run `call`, with an interrupt where it enters its `number`th function; whether it came that far."""
    left = number

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal left
        # On the way into that one the descriptor belongs to nobody yet, and stays open: no lock is concerned.
        if event == "call" and not in_finalizer(frame) and frame.f_code is not Log.__init__.__code__:
            left -= 1
            if left == 0:
                sys.setprofile(None)
                raise Interrupt

    sys.setprofile(profile)
    try:
        call()
    except Interrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def in_finalizer(frame: FrameType | None) -> bool:
    """Out of one Python lets no exception."""
    return frame is not None and (frame.f_code.co_name == "__del__" or in_finalizer(frame.f_back))


def from_another_thread(call: Callable[[], Any]) -> Any:
    """What `call` returns or raises."""
    answers: list[Any] = []

    def run() -> None:
        try:
            answers.append(call())
        except Exception as error:  # noqa: BLE001 - it is the answer
            answers.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(30)
    assert answers, "it hangs"
    return answers[0]
