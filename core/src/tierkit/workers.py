"""Calls with a time limit: made in threads of their own, so that a tier that hangs does not hang its caller."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar, cast

from tierkit.errors import TierTimeout

P = ParamSpec("P")
T = TypeVar("T")

MOST: Final = 16
"""Threads for one tier. When that many calls hang, the next one is refused at once."""
_FAREWELL_SECONDS: Final = 1.0


class _Task:
    """One call, and what became of it."""

    __slots__ = ("abandoned", "call", "done", "error", "result")

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.done = threading.Event()
        self.abandoned = False
        self.result: Any = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.call()
        except BaseException as error:  # noqa: BLE001 - it is raised where the call was made
            self.error = error
        self.done.set()


class Workers:
    """Makes the calls of one tier in daemon threads, which start when they are needed.

    A call that takes too long is given up by its caller and goes on in its thread, since no thread can be stopped from
    outside; it may still take effect. A tier whose calls hang is not probed before they have ended.
    """

    def __init__(self, name: str, timeout_seconds: float) -> None:
        """No thread yet. A call may take `timeout_seconds`, the wait for a thread included."""
        self._name = name
        self._timeout_seconds = timeout_seconds
        self.renew()

    def renew(self) -> None:
        """Forget all threads: in a forked child they do not exist."""
        self._lock = threading.Lock()
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._stuck = 0

    @property
    def stuck(self) -> int:
        """Calls that were given up and have not ended."""
        return self._stuck

    def call(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `operation` in a worker and wait for it.

        Raises:
            TierTimeout: It took too long, or all workers hang.
        """
        task = _Task(lambda: operation(*args, **kwargs))
        self._start(task)
        if not task.done.wait(self._timeout_seconds) and self._give_up(task):
            raise TierTimeout(
                f"{self._name}: {getattr(operation, '__name__', 'a call')} took longer than the level's "
                f"timeout_seconds = {self._timeout_seconds:g}"
            )
        if task.error is not None:
            try:
                raise task.error
            finally:
                del task  # the error's traceback leads to this frame
        return cast("T", task.result)

    def close(self) -> None:
        """Let the threads end. Waits for those that have nothing to do; one that hangs ends with its call, or us."""
        with self._lock:
            threads, self._threads = self._threads, []
        for _ in threads:
            self._tasks.put(None)
        for thread in threads:
            if thread is not threading.current_thread() and not self._stuck:
                thread.join(_FAREWELL_SECONDS)

    def _start(self, task: _Task) -> None:
        with self._lock:
            if self._stuck >= MOST:
                raise TierTimeout(f"{self._name}: {MOST} calls hang, and no more are made before one of them ends")
            if self._idle:
                self._idle -= 1
            elif len(self._threads) < MOST:
                name = f"tierkit-{self._name}-{len(self._threads)}"
                thread = threading.Thread(target=self._work, args=(self._tasks,), name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        self._tasks.put(task)

    def _give_up(self, task: _Task) -> bool:
        with self._lock:
            task.abandoned = not task.done.is_set()
            self._stuck += task.abandoned
            return task.abandoned

    def _work(self, tasks: SimpleQueue[_Task | None]) -> None:
        while (task := tasks.get()) is not None:
            if task.abandoned:  # nobody waits for it any more, and it has not begun
                task.done.set()
            else:
                task.run()
            with self._lock:
                self._stuck -= task.abandoned
                self._idle += 1
            del task
