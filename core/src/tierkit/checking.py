"""Checking: a user's checker over many records, on threads or an event loop of its own; results go in by sweeps.

The caller's thread drives: it hands out records, as many at a time as may be checked at once, collects results, and
applies them in batches. So memory does not grow with the number of records, and whatever stops the run, from an
interrupt to the closing of the cache, what is known by then is applied.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

from tierkit.check_runners import Check, Done, Runner, Tasks, Threads, is_async
from tierkit.checks import check_key
from tierkit.comparing import Comparing
from tierkit.entry import CacheEntry
from tierkit.errors import CacheStorageError, CacheValidationError
from tierkit.health import Health, HealthResult
from tierkit.level import Level
from tierkit.progress import Meter, OnProgress
from tierkit.row import key_digest
from tierkit.stack import Stack
from tierkit.writing import BATCH

logger: Final = logging.getLogger("tierkit.health")

E = TypeVar("E", bound=CacheEntry)
Checker = Callable[[E], bool] | Callable[[E], Awaitable[bool]]
"""Says of an entry whether it is good. A coroutine function will do."""

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
    held = authority.call(authority.tier.highest_version)
    stack.versions.observe(held)
    newest = max(held, stack.versions.next())  # what the authority is still owed is newer than what it holds
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
        self,
        health: Health[E],
        checker: Any,
        settings: CheckSettings,
        total: int | None,
        on_progress: OnProgress | None,
    ) -> None:
        """Judge as `health` does; `total` is how many records there seem to be."""
        self._health = health
        self._settings = settings
        self._meter = Meter("checking", total, on_progress=on_progress, log=logger, told_every=1)
        self._monotonic = health.stack.time.monotonic
        self._results: SimpleQueue[Done | None] = SimpleQueue()
        self._runner: Runner = (
            Tasks(checker, self._results, self._monotonic)
            if is_async(checker)
            else Threads(checker, self._results, self._monotonic, settings.concurrency)
        )
        self._under_way: set[Check] = set()
        self._known: dict[str, bool] = {}
        self._counts: Counter[str] = Counter()
        self._raised: set[type[BaseException] | None] = set()
        self._suspected = False
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
        if not left:
            self._meter.finish()
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
        for check, verdict in self._finished():
            if check.late and isinstance(verdict, bool):
                self._time_out(check)
            else:
                self._settle(check, verdict)
        if self._settings.timeout_seconds is not None:
            self._abandon_late()

    def _finished(self) -> Iterator[Done]:
        """What has finished, all of it, for we may have been held up. Waits a while for the first."""
        patience = None if self._settings.timeout_seconds is None else _LOOK_SECONDS
        try:
            while not self._ends() and (done := self._results.get(timeout=patience)) is not None:
                yield done
                patience = 0
        except Empty:
            return

    def _abandon_late(self) -> None:
        now = self._monotonic()
        for check in [check for check in self._under_way if check.deadline is not None and check.deadline <= now]:
            if not self._ends() and self._runner.abandon(check):
                self._time_out(check)
        if self._runner.stuck() > MOST_STUCK:
            logger.error("checks stop: %d of them never returned", self._runner.stuck())
            self._cancelled = True

    def _time_out(self, check: Check) -> None:
        self._counts["timed_out"] += 1
        logger.debug("the check of %s took too long", key_digest(check.entry.key))
        self._settle(check, False)

    def _settle(self, check: Check, verdict: bool | BaseException) -> None:
        self._under_way.discard(check)
        if isinstance(verdict, BaseException):
            raise verdict
        self._known[check.entry.key] = verdict
        self._raised.add(check.raised)
        self._counts["checked"] += 1
        if len(self._known) >= self._settings.batch_size:
            self._apply()
        self._meter.advance()

    def _apply(self) -> None:
        known, self._known = self._known, {}
        if not known:
            return
        self._suspect_checker()
        result = self._health.sweep(known)
        for name in ("healthy", "unhealthy", "removed", "missing"):
            self._counts[name] += getattr(result, name)
        self._unapplied.update(result.unapplied)
        self._error = self._error or result.error

    def _suspect_checker(self) -> None:
        """Warn, once, if every check so far has raised the same: before the records that it failed go."""
        raised, checked = next(iter(self._raised)), self._counts["checked"]
        if self._suspected or raised is None or len(self._raised) > 1 or checked == 1:
            return
        self._suspected = True
        logger.warning(
            "each of the first %d checks raised %s: the checker itself may be wrong, and not the records",
            checked,
            raised.__name__,
        )

    def _result(self, *, complete: bool) -> CheckResult:
        counts: dict[str, int] = dict(self._counts)
        result = CheckResult(**counts, unapplied=self._unapplied, error=self._error, complete=complete)
        logger.log(logging.INFO if complete else logging.WARNING, "%s", result)
        return result
