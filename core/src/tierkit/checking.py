"""Checking: a user's checker over many records, on threads or an event loop of its own; results go in by sweeps.

The caller's thread drives: it hands out records, as many at a time as may be checked at once, collects results, and
applies them in batches. So memory does not grow with the number of records, and whatever stops the run, from an
interrupt to the closing of the cache, what is known by then is applied.

A thread cannot be ended from outside. One whose check takes too long is left to itself: its result is not used, another
takes its place, and since it is a daemon it does not hold up the end of the program. A task is cancelled.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

from tierkit.checks import check_key
from tierkit.comparing import Comparing
from tierkit.entry import CacheEntry
from tierkit.errors import CacheStorageError, CacheValidationError, TierkitError
from tierkit.health import Health, HealthResult
from tierkit.level import Level
from tierkit.stack import Stack
from tierkit.tier import key_digest
from tierkit.writing import BATCH

logger: Final = logging.getLogger("tierkit.health")

E = TypeVar("E", bound=CacheEntry)
Checker = Callable[[E], bool] | Callable[[E], Awaitable[bool]]
"""Says of an entry whether it is good. A coroutine function will do."""
OnChecked = Callable[[int, int | None], object]
"""Called with the records checked so far and how many there seem to be, or None if that is not known."""

MOST_STUCK: Final = 200
"""Threads left to themselves, and still there, with which a run goes on."""
_LOOK_SECONDS: Final = 0.05  # how often checks that take too long are looked for
_PATIENCE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult(HealthResult):
    """What became of a run of checks.

    Attributes:
        checked: How many records were checked.
        timed_out: Of these, how many checks took too long, and count as failures.
        complete: Whether all records were checked and all results applied. It is not if the cache was closed or the
            storage failed meanwhile, or too many checks never returned.
    """

    checked: int = 0
    timed_out: int = 0
    complete: bool = True

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.checked} checked: {HealthResult.__str__(self)}{'' if self.complete else ' (not complete)'}"


class Check:
    """One check that is under way."""

    __slots__ = ("abandoned", "deadline", "entry", "runs")

    def __init__(self, entry: Any, deadline: float | None) -> None:
        """Of `entry`, to be done by `deadline` on the monotonic clock."""
        self.entry = entry
        self.deadline = deadline
        self.abandoned = False
        self.runs: Any = None


Done = tuple[Check, bool | BaseException]


class Runner(ABC):
    """Where checks run. What they find comes through `results`: a verdict, or what must stop the run."""

    def __init__(self, checker: Any, results: SimpleQueue[Done | None]) -> None:
        """Run `checker`."""
        self.checker = checker
        self.results = results

    @abstractmethod
    def start(self, check: Check) -> None:
        """Begin a check; the caller sees to it that there are not too many."""

    @abstractmethod
    def abandon(self, check: Check) -> None:
        """Wait no longer for a check."""

    @abstractmethod
    def stop(self, *, idle: bool) -> None:
        """Begin no more; `idle` says that no check is under way but those that were abandoned."""

    def stuck(self) -> int:
        """How many abandoned checks still occupy something."""
        return 0


class Threads(Runner):
    """A daemon thread for each check that is under way at once."""

    def __init__(self, checker: Any, results: SimpleQueue[Done | None], concurrency: int) -> None:
        """Begin threads when they are wanted, up to `concurrency`."""
        super().__init__(checker, results)
        self._wanted: SimpleQueue[Check | None] = SimpleQueue()
        self._concurrency = concurrency
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._stuck: list[threading.Thread] = []

    def start(self, check: Check) -> None:
        """Begin a check, in a new thread if there may be one more."""
        if len(self._threads) < self._concurrency:
            thread = threading.Thread(target=self._work, name="tierkit-check", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._wanted.put(check)

    def abandon(self, check: Check) -> None:
        """Leave the thread to itself; another takes its place."""
        with self._lock:
            check.abandoned = True
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
            if self._taken(check):
                self.results.put((check, self._verdict(check.entry)))
            if check.abandoned and check.runs is not None:
                return

    def _taken(self, check: Check) -> bool:
        with self._lock:
            if not check.abandoned:
                check.runs = threading.current_thread()
            return not check.abandoned

    def _verdict(self, entry: Any) -> bool | BaseException:
        try:
            return verdict_of(self.checker(entry))
        except BaseException as error:  # noqa: BLE001 - the run goes by it
            return failure(entry, error)


class Tasks(Runner):
    """A task for each check, on an event loop in a daemon thread."""

    def __init__(self, checker: Any, results: SimpleQueue[Done | None]) -> None:
        """Begin the loop."""
        super().__init__(checker, results)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._work, name="tierkit-check", daemon=True)
        self._thread.start()

    def start(self, check: Check) -> None:
        """Begin a task."""
        self._loop.call_soon_threadsafe(self._begin, check)

    def abandon(self, check: Check) -> None:
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
            verdict = failure(check.entry, error)
        self.results.put((check, verdict))

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


def failure(entry: CacheEntry, error: BaseException) -> bool | BaseException:
    """What an exception of a checker means: a failure of the record, unless it is the cache's or an interrupt."""
    if isinstance(error, asyncio.CancelledError) or (
        isinstance(error, Exception) and not isinstance(error, TierkitError)
    ):
        # Its text may name a secret.
        logger.debug("the check of %s raised %s", key_digest(entry.key), type(error).__name__)
        return False
    return error


def is_async(checker: Any) -> bool:
    """Whether `checker` is a coroutine function, or an object whose `__call__` is one."""
    return inspect.iscoroutinefunction(checker) or inspect.iscoroutinefunction(getattr(checker, "__call__", None))  # noqa: B004


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSettings:
    """How checks are run. `batch_size` in records, `timeout_seconds` for each check."""

    concurrency: int = 10
    timeout_seconds: float | None = None
    batch_size: int = 1000

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            CacheValidationError: A number is not above 0.
        """
        for name in ("concurrency", "timeout_seconds", "batch_size"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise CacheValidationError(f"{name} = {value!r}: must be above 0")


def entries_now(stack: Stack[E], authority: Level, entries: Iterator[E]) -> Iterator[E]:
    """What there is of `entries` now, each at most once: what is written from now on is left for the next run."""
    newest = authority.call(authority.tier.highest_version)
    stack.versions.observe(newest)
    return (entry for entry in entries if entry.version <= newest)


def entries_of(comparing: Comparing[E], keys: Iterable[str]) -> Iterator[E | None]:
    """The entries of `keys`, each once, read in batches; None for one that is missing.

    Raises:
        CacheValidationError: A key cannot be one.
    """
    names = iter(dict.fromkeys(keys))
    while batch := list(islice(names, BATCH)):
        for key in batch:
            check_key(key)
        held = comparing.held_many(batch)
        for key in batch:
            yield held[key][1] if key in held else None


class CheckRun(Generic[E]):
    """One run of a checker over records. `run` belongs to one thread, `cancel` to any."""

    def __init__(
        self, health: Health[E], checker: Any, settings: CheckSettings, total: int | None, on_progress: OnChecked | None
    ) -> None:
        """Judge as `health` does; `total` is how many records there seem to be."""
        self._health = health
        self._settings = settings
        self._total = total
        self._on_progress = on_progress
        self._monotonic = health.stack.time.monotonic
        self._results: SimpleQueue[Done | None] = SimpleQueue()
        self._runner: Runner = (
            Tasks(checker, self._results)
            if is_async(checker)
            else Threads(checker, self._results, settings.concurrency)
        )
        self._under_way: set[Check] = set()
        self._known: dict[str, bool] = {}
        self._counts: Counter[str] = Counter()
        self._unapplied: dict[str, bool] = {}
        self._error: CacheStorageError | None = None
        self._cancelled = False
        self._driver = threading.current_thread()
        self._over = threading.Event()

    def run(self, entries: Iterator[E | None]) -> CheckResult:
        """Check `entries`; None stands for one that is missing."""
        left = True
        try:
            while not self._ends() and (self._hand_out(entries) or self._under_way):
                self._collect()
            left = self._ends()
        finally:
            try:
                self._apply()
            finally:
                self._over.set()
                self._runner.stop(idle=not self._under_way)
        return self._result(complete=not left and self._error is None)

    def cancel(self) -> None:
        """Stop, and apply what is known. Blocks until that is done, for up to 10 seconds."""
        self._cancelled = True
        self._results.put(None)
        if threading.current_thread() is self._driver:
            self._apply()
        else:
            self._over.wait(_PATIENCE_SECONDS)

    def _ends(self) -> bool:
        return self._cancelled or self._error is not None

    def _hand_out(self, entries: Iterator[E | None]) -> bool:
        """Begin as many checks as there may be. Answers whether there may be more records."""
        while len(self._under_way) < self._settings.concurrency:
            try:
                entry = next(entries)
            except StopIteration:
                return False
            if entry is None:
                self._counts["missing"] += 1
            else:
                self._begin(entry)
        return True

    def _begin(self, entry: E) -> None:
        patience = self._settings.timeout_seconds
        check = Check(entry, None if patience is None else self._monotonic() + patience)
        self._under_way.add(check)
        self._runner.start(check)

    def _collect(self) -> None:
        try:
            done = self._results.get(timeout=None if self._settings.timeout_seconds is None else _LOOK_SECONDS)
        except Empty:
            done = None
        if done is not None and done[0] in self._under_way:
            self._settle(*done)
        if self._settings.timeout_seconds is not None:
            self._abandon_late()

    def _abandon_late(self) -> None:
        now = self._monotonic()
        for check in [check for check in self._under_way if check.deadline is not None and check.deadline <= now]:
            self._runner.abandon(check)
            self._counts["timed_out"] += 1
            logger.debug("the check of %s took too long", key_digest(check.entry.key))
            self._settle(check, False)
        if self._runner.stuck() > MOST_STUCK:
            logger.error("checks stop: %d of them never returned", self._runner.stuck())
            self._cancelled = True

    def _settle(self, check: Check, verdict: bool | BaseException) -> None:
        self._under_way.discard(check)
        if isinstance(verdict, BaseException):
            raise verdict
        self._known[check.entry.key] = verdict
        self._counts["checked"] += 1
        if len(self._known) >= self._settings.batch_size:
            self._apply()
        if self._on_progress is not None:
            checked = self._counts["checked"]
            self._on_progress(checked, None if self._total is None else max(checked, self._total))

    def _apply(self) -> None:
        known, self._known = self._known, {}
        if not known:
            return
        result = self._health.sweep(known)
        for name in ("healthy", "unhealthy", "removed", "missing"):
            self._counts[name] += getattr(result, name)
        self._unapplied.update(result.unapplied)
        self._error = self._error or result.error

    def _result(self, *, complete: bool) -> CheckResult:
        counts: dict[str, int] = dict(self._counts)
        result = CheckResult(**counts, unapplied=self._unapplied, error=self._error, complete=complete)
        logger.log(logging.INFO if complete else logging.WARNING, "%s", result)
        return result
