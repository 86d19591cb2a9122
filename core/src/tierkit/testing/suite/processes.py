"""Threads and processes for the contract: started together, never waited for without a limit."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Final

from tierkit.testing.suite.stirring import Stir

PATIENCE_SECONDS: Final = 60.0
"""After this a thread or process is taken to hang. No test waits for it unless something is wrong."""

_fork = multiprocessing.get_context("fork")
_FAILED: Final = -1


class Child:
    """A forked process and a pipe to it, over which integers travel."""

    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        """For `forked`."""
        self._process = process
        self._pipe = pipe

    def send(self, number: int) -> None:
        """Send `number` to the child."""
        send(self._pipe, number)

    def receive(self) -> int:
        """The next number that the child sends.

        Raises:
            AssertionError: It failed, ended, or sent nothing in time.
        """
        assert self._pipe.poll(PATIENCE_SECONDS), "the other process does not answer"
        number = receive(self._pipe)
        if number == _FAILED:
            raise AssertionError("the other process failed:\n" + self._pipe.recv_bytes().decode("utf-8", "replace"))
        return number

    def kill(self) -> list[int]:
        """Kill the child with SIGKILL. Answers what it had sent and nobody received."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join(PATIENCE_SECONDS)
        left = []
        try:
            while self._pipe.poll():
                left.append(receive(self._pipe))
        except (EOFError, OSError):  # killed between two messages, or within one
            pass
        return left


def send(pipe: Connection, number: int) -> None:
    """Send `number` over `pipe`."""
    pipe.send_bytes(b"%d" % number)


def receive(pipe: Connection) -> int:
    """The next number from `pipe`."""
    return int(pipe.recv_bytes())


@contextmanager
def forked(work: Callable[[Connection], None]) -> Iterator[Child]:
    """Run `work` in a forked process, with its end of a pipe. Afterwards the process is gone."""
    here, there = _fork.Pipe()
    process = _fork.Process(target=_run, args=(work, here, there))
    with warnings.catch_warnings():
        # Python 3.12 and later warn of a fork beside threads, as pytest-xdist has: the child uses none.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    there.close()
    try:
        yield Child(process, here)
    finally:
        here.close()
        process.join(0.0 if sys.exc_info()[0] else PATIENCE_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()


def _run(work: Callable[[Connection], None], here: Connection, there: Connection) -> None:
    here.close()
    try:
        work(there)
    except BaseException:  # noqa: BLE001 - whatever it was, the test must fail with it
        send(there, _FAILED)
        there.send_bytes(traceback.format_exc().encode("utf-8", "replace"))
    finally:
        there.close()


def run_together(works: Sequence[Callable[[], None]], *, stirred: bool = False) -> None:
    """Run each of `works` in a thread of its own.

    Args:
        works: What to run.
        stirred: Let others run between any two lines of the tier: see `Stir`.

    Raises:
        AssertionError: One of them hangs.
        Exception: The first that any of them raised.
    """
    barrier = threading.Barrier(len(works))
    stir = Stir()
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            barrier.wait(PATIENCE_SECONDS)
            with stir if stirred else nullcontext():
                work()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=run, args=(work,), daemon=True) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_SECONDS)
    finally:
        sys.setswitchinterval(interval)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]
