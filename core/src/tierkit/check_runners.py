"""Where the checks of a run happen: on threads, or as tasks on an event loop.

A thread cannot be ended from outside. One whose check takes too long is left to itself: its result is not used, another
takes its place, and since it is a daemon it does not hold up the end of the program. A task is cancelled.

When a check has finished is noted where it runs: whoever waits for the result may be held up. From then on it cannot be
abandoned.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Final

from tierkit.errors import CacheValidationError, TierkitError
from tierkit.row import key_digest

logger: Final = logging.getLogger("tierkit.health")

_PATIENCE_SECONDS: Final = 10.0


class Check:
    """One check that is under way.

    Attributes:
        entry: What is checked.
        deadline: When it is to be done, on the monotonic clock; None if it may take any time.
        finished_at: When it was done, on that clock; None while it is not.
        abandoned: Whether nobody waits for it any more.
        raised: What the checker raised, if that counts as a failure of the record.
        runs: The thread or task that does it.
    """

    __slots__ = ("abandoned", "deadline", "entry", "finished_at", "raised", "runs")

    def __init__(self, entry: Any, deadline: float | None) -> None:
        """Of `entry`, to be done by `deadline`."""
        self.entry = entry
        self.deadline = deadline
        self.finished_at: float | None = None
        self.abandoned = False
        self.raised: type[BaseException] | None = None
        self.runs: Any = None

    @property
    def late(self) -> bool:
        """Whether it finished after its deadline."""
        return self.deadline is not None and self.finished_at is not None and self.finished_at >= self.deadline


Done = tuple[Check, bool | BaseException]


class Runner(ABC):
    """Where checks run. What they find comes through `results`: a verdict, or what must stop the run."""

    def __init__(self, checker: Any, results: SimpleQueue[Done | None], monotonic: Callable[[], float]) -> None:
        """Run `checker`, and note by `monotonic` when a check has finished."""
        self.checker = checker
        self.results = results
        self._monotonic = monotonic
        self._lock = threading.Lock()

    @abstractmethod
    def start(self, check: Check) -> None:
        """Begin a check; the caller sees to it that there are not too many."""

    def abandon(self, check: Check) -> bool:
        """Wait no longer for a check. Answers False if it has finished: then its result is in `results`."""
        with self._lock:
            check.abandoned = check.finished_at is None
            if check.abandoned:
                self._leave(check)
            return check.abandoned

    def finish(self, check: Check, verdict: bool | BaseException) -> bool:
        """Hand in what a check found. Answers whether anybody waited for it."""
        with self._lock:
            if not check.abandoned:
                check.finished_at = self._monotonic()
                self.results.put((check, verdict))
            return not check.abandoned

    @abstractmethod
    def _leave(self, check: Check) -> None:
        """Let go of what an abandoned check occupies; the lock is held."""

    @abstractmethod
    def stop(self, *, idle: bool) -> None:
        """Begin no more; `idle` says that no check is under way but those that were abandoned."""

    def stuck(self) -> int:
        """How many abandoned checks still occupy something."""
        return 0


class Threads(Runner):
    """A daemon thread for each check that is under way at once."""

    def __init__(
        self, checker: Any, results: SimpleQueue[Done | None], monotonic: Callable[[], float], concurrency: int
    ) -> None:
        """Begin threads when they are wanted, up to `concurrency`."""
        super().__init__(checker, results, monotonic)
        self._wanted: SimpleQueue[Check | None] = SimpleQueue()
        self._concurrency = concurrency
        self._threads: list[threading.Thread] = []
        self._stuck: list[threading.Thread] = []

    def start(self, check: Check) -> None:
        """Begin a check, in a new thread if there may be one more."""
        if len(self._threads) < self._concurrency:
            thread = threading.Thread(target=self._work, name="tierkit-check", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._wanted.put(check)

    def _leave(self, check: Check) -> None:
        """Leave the thread to itself; another takes its place."""
        if check.runs is not None:
            self._threads.remove(check.runs)
            self._stuck.append(check.runs)

    def stop(self, *, idle: bool) -> None:
        """Let threads end when they have nothing to do."""
        for _ in range(len(self._threads) + len(self._stuck)):
            self._wanted.put(None)
        for thread in self._threads if idle else ():
            thread.join(_PATIENCE_SECONDS)

    def stuck(self) -> int:
        """How many threads are left to themselves and still there."""
        self._stuck = [thread for thread in self._stuck if thread.is_alive()]
        return len(self._stuck)

    def _work(self) -> None:
        while (check := self._wanted.get()) is not None:
            if self._taken(check) and not self.finish(check, self._verdict(check)):
                return  # another has taken the place of this thread

    def _taken(self, check: Check) -> bool:
        with self._lock:
            if not check.abandoned:
                check.runs = threading.current_thread()
            return not check.abandoned

    def _verdict(self, check: Check) -> bool | BaseException:
        try:
            return verdict_of(self.checker(check.entry))
        except BaseException as error:  # noqa: BLE001 - the run goes by it
            return failure(check, error)


class Tasks(Runner):
    """A task for each check, on an event loop in a daemon thread."""

    def __init__(self, checker: Any, results: SimpleQueue[Done | None], monotonic: Callable[[], float]) -> None:
        """Begin the loop."""
        super().__init__(checker, results, monotonic)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="tierkit-check", daemon=True)
        self._thread.start()

    def start(self, check: Check) -> None:
        """Begin a task."""
        self._loop.call_soon_threadsafe(self._begin, check)

    def _leave(self, check: Check) -> None:
        """Cancel the task."""
        self._loop.call_soon_threadsafe(self._cancel, check)

    def stop(self, *, idle: bool) -> None:  # noqa: ARG002 - tasks that are under way are cancelled
        """Cancel what is under way, and end the loop; one that is blocked by a task is left to itself."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE_SECONDS)

    def _begin(self, check: Check) -> None:
        check.runs = self._loop.create_task(self._run(check))

    @staticmethod
    def _cancel(check: Check) -> None:
        check.runs.cancel()

    async def _run(self, check: Check) -> None:
        try:
            verdict = verdict_of(await self.checker(check.entry))
        except BaseException as error:  # noqa: BLE001 - the run goes by it
            verdict = failure(check, error)
        self.finish(check, verdict)

    def _work(self) -> None:
        self._loop.run_forever()
        if left := asyncio.all_tasks(self._loop):
            for task in left:
                task.cancel()
            self._loop.run_until_complete(asyncio.wait(left, timeout=1.0))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


def verdict_of(answer: object) -> bool | BaseException:
    """What a checker answered, if it is a verdict; a None that was forgotten must not count against every record."""
    if isinstance(answer, bool):
        return answer
    if inspect.iscoroutine(answer):
        answer.close()
    return CacheValidationError(f"the checker answered {type(answer).__name__}: it must answer True or False")


def failure(check: Check, error: BaseException) -> bool | BaseException:
    """What an exception of a checker means: a failure of the record, unless it is the cache's or an interrupt."""
    if isinstance(error, asyncio.CancelledError) or (
        isinstance(error, Exception) and not isinstance(error, TierkitError)
    ):
        check.raised = type(error)
        # Its text may name a secret.
        logger.debug("the check of %s raised %s", key_digest(check.entry.key), type(error).__name__)
        return False
    return error


def is_async(checker: Any) -> bool:
    """Whether `checker` is a coroutine function, or an object whose `__call__` is one."""
    called = getattr(checker, "__call__", None)  # noqa: B004 - not whether it has one, but of what kind that is
    return inspect.iscoroutinefunction(checker) or inspect.iscoroutinefunction(called)
