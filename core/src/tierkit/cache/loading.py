"""Loading values: one load of a key, however many threads and processes ask for it.

In a process the first who asks leads a flight, and the others wait for it. Between processes the leader holds a claim:
who does not get it waits until there is a value, or the claim is free. Who gets it looks again before he loads.

The stamp of the value is taken before its load begins (`updating.begin`). So what was set or deleted meanwhile, here or
in another process, is newer than what was loaded, and stays.

A load that nobody waits for, or that somebody waits for with a limit, goes on in a thread of its own.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from tierkit.cache.claims import Claims
from tierkit.cache.flights import Flight, Flights, own_copy
from tierkit.cache.options import LoadOptions
from tierkit.entry import ValueEntry
from tierkit.errors import CacheClosedError, CacheStorageError, LoadError, LoadTimeout
from tierkit.forking import in_child, renewed
from tierkit.manager import CacheManager
from tierkit.row import key_digest
from tierkit.updating import Updating

logger: Final = logging.getLogger("tierkit.cache")

MOST_REFRESHES: Final = 16
"""Values that are loaded anew in the background at once; with more, the next reader of a value begins its load."""
RETRY_SECONDS: Final = 1.0
"""How long a value is not loaded anew in the background after that failed."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.1
_FAREWELL_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be loaded.

    Attributes:
        key: The stored key.
        make: Loads the value, and makes the entry of it that is to be put.
        usable: Whether an entry that is held has a value that fits.
        options: How.
        old: The version of the entry that is to be replaced though it is fresh; 0 if there is none.
    """

    key: str
    make: Callable[[], ValueEntry]
    usable: Callable[[ValueEntry], bool]
    options: LoadOptions
    old: int = 0

    def answers(self, entry: ValueEntry | None) -> bool:
        """Whether `entry` is what was to be loaded: another has loaded or set it."""
        return entry is not None and entry.version != self.old and self.usable(entry)


class Loader:
    """Loads the values of one cache. Thread-safe."""

    def __init__(self, manager: CacheManager[ValueEntry], claim_seconds: float) -> None:
        """Put into `manager` what is loaded; a claim runs out after `claim_seconds` unless it is renewed."""
        self._manager = manager
        self._updating = Updating(manager._comparing)
        self.flights = Flights()
        self._claims = Claims(manager._stack, claim_seconds, keep=manager._sweeper is not None)
        self._ended = threading.Event()
        self.renew()
        in_child(self, Loader.renew)

    def renew(self) -> None:
        """Forget what is under way: in a forked child, where it does not exist."""
        self._lock = threading.Lock()
        self._ended = renewed(self._ended)
        self._threads: set[threading.Thread] = set()
        self._failed: dict[str, float] = {}
        self.flights.renew()
        self._claims.renew()

    def close(self) -> None:
        """Wait a moment for loads in the background, and leave them to themselves: what they load is not stored."""
        self._ended.set()
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join(_FAREWELL_SECONDS)
        self._claims.close()

    def load(self, job: Job) -> ValueEntry:
        """Load a value, or wait for who loads it.

        Raises:
            LoadTimeout: It took longer than the options say.
            LoadError: The load waits for itself.
            Exception: What the loader raised.
        """
        ends = None if job.options.timeout is None else monotonic() + job.options.timeout
        while True:
            flight, ours = self.flights.join(job.key, job.options.tags)
            if ours and ends is None:
                self.flights.lead(flight, lambda flight: self._fetch(flight, job))
            elif ours:
                self._in_background(flight, job)
            if not (ours and ends is None) and not self.flights.wait(flight, _left(ends)):
                raise LoadTimeout(
                    f"the load of a value took longer than timeout = {job.options.timeout:g} seconds; it goes on, and "
                    "its value will be stored"
                )
            if flight.error is not None:
                raise own_copy(flight.error)
            if flight.entry is not None:
                return flight.entry
            if self._ended.is_set():
                raise CacheClosedError("this cache has been closed")

    def refresh(self, job: Job) -> None:
        """Load a value anew in the background, unless that is under way, or has failed just now."""
        if len(self._threads) >= MOST_REFRESHES or job.key in self._failing():
            return
        flight, ours = self.flights.join(job.key, job.options.tags)
        if ours:
            with suppress(RuntimeError):  # no thread could be begun: the old value is there
                self._in_background(flight, job, refreshing=True)

    def note_stale(self, key: str, error: Exception) -> None:
        """Say in the log that a stale value is answered in place of what could not be loaded."""
        logger.warning("%s could not be loaded, and is answered stale: %s", key_digest(key), type(error).__name__)

    # -- in the leader ------------------------------------------------------------------------------------------------

    def _in_background(self, flight: Flight, job: Job, *, refreshing: bool = False) -> None:
        def work() -> None:
            try:
                self.flights.lead(flight, lambda flight: self._contained(flight, job, not refreshing))
                self._note_success(job.key)
            except Exception as error:  # noqa: BLE001 - of the loader: whoever waits raises it
                self._note_failure(job.key, error, refreshing)
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=work, name="tierkit-load", daemon=True)
        with self._lock:
            self._threads.add(thread)
        flight.leader = 0  # nobody's, until the thread is there
        try:
            thread.start()
        except BaseException:  # the program ends, or has too many threads
            self._threads.discard(thread)
            self.flights.give_up(flight)
            raise

    def _note_success(self, key: str) -> None:
        with self._lock:  # a new dict, for others may be going over this one
            self._failed = {failed: at for failed, at in self._failed.items() if failed != key}

    def _note_failure(self, key: str, error: Exception, refreshing: bool) -> None:
        if refreshing:
            logger.warning("%s could not be loaded anew: %s", key_digest(key), type(error).__name__)
            with self._lock:
                self._failed = self._failing() | {key: self._manager._time.monotonic()}

    def _failing(self) -> dict[str, float]:
        since = self._manager._time.monotonic() - RETRY_SECONDS
        return {key: at for key, at in self._failed.items() if at > since}

    def _contained(self, flight: Flight, job: Job, patient: bool) -> ValueEntry | None:
        try:
            return self._fetch(flight, job, patient=patient)
        except Exception:
            raise
        except BaseException as error:  # it ends a thread of ours, and not the program
            raise LoadError(f"the loader raised {type(error).__name__}") from error

    def _fetch(self, flight: Flight, job: Job, *, patient: bool = True) -> ValueEntry | None:
        """Load, or wait for the process that does so. Answers None if that is given up."""
        pause, waited = _FIRST_PAUSE, 0.0
        while not self._ended.is_set():
            with self._claims.claimed(job.key) as ours:
                # Two processes may each wait, within a load, for what the other loads: that must end.
                if ours or (waited > self._claims.seconds and self.flights.leads()):
                    return self._made(flight, job)
            if not patient:
                return None
            self._ended.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that not all come at once
            waited, pause = waited + pause, min(pause * 1.5, _LONGEST_PAUSE)
            if job.answers(found := self._manager.peek(job.key)):
                return found
        return None

    def _made(self, flight: Flight, job: Job) -> ValueEntry:
        begun = self._begin(job.key)
        if begun is not None and begun[0] is not None and job.answers(begun[0]):
            return begun[0]
        entry = job.make()
        if not (flight.is_unwanted() or self._ended.is_set() or self._manager.read_only):
            try:
                entry = self._stored(entry, begun, job)
                if flight.is_unwanted():  # since then: whoever said so may have looked before it was there
                    self._manager._comparing.delete_many([entry], "while it was loaded")
            except CacheStorageError as error:
                logger.warning("%s was loaded and could not be stored: %s", key_digest(job.key), str(error))
        return entry

    def _begin(self, key: str) -> tuple[ValueEntry | None, int, int] | None:
        """What is held before the load; None if that cannot be told."""
        if not self._manager.levels or self._manager.read_only:
            return None
        try:
            return self._updating.begin(key)
        except CacheStorageError as error:
            logger.debug("%s is loaded, since it could not be looked for: %s", key_digest(key), str(error))
            return None

    def _stored(self, entry: ValueEntry, begun: tuple[Any, int, int] | None, job: Job) -> ValueEntry:
        if begun is None:
            return self._manager.put(entry)
        _, expected, since = begun
        done = self._updating.fill(entry, expected, since)
        if done is None and job.answers(found := self._manager.peek(job.key)) and found is not None:
            return found  # what was set meanwhile
        return entry if done is None else done


def _left(ends: float | None) -> float | None:
    return None if ends is None else max(0.0, ends - monotonic())
