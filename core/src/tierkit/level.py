"""A tier in its place: its counters, its circuit breaker, and what passed it by while it was out of service.

Only a tier's own failure counts: `CacheStorageError`, or an exception of another library that a tier let through,
which becomes `TierUnavailable`. After `threshold` failures in a row the level is taken out of service: nothing is
read from it or written to it until it is brought in line and back, by `recovery` when its back-off is over, or by
`reset_failures` at once. A record's trouble (`CacheCorruptionError`) never counts. A storage that is full or read-only
can still be read: then the level stays in service and is not `writable`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from itertools import islice
from math import inf
from typing import Any, Final, Literal, NamedTuple, ParamSpec, TypeVar

from tierkit.admission import AdmissionPolicy
from tierkit.breaker import Backoff, Breaker, Kind, State
from tierkit.decisions import NONE
from tierkit.errors import (
    CacheCorruptionError,
    CacheStorageError,
    TierFull,
    TierkitError,
    TierReadOnly,
    TierUnavailable,
)
from tierkit.latency import Histogram
from tierkit.observers import Observers
from tierkit.query import Query
from tierkit.row import Record, is_owed
from tierkit.statistics import ROOM_CAUSES, TierStatistics, new_counters
from tierkit.tier import QUERY_STEP, CacheTier, TierSpec, Trait
from tierkit.workers import Workers

logger = logging.getLogger("tierkit.level")

PROBE_KEY: Final = "tierkit-probe"
"""What a probe asks a tier for."""
MOST_MISSED: Final = 10_000
"""Keys that passed a level by and that it notes one by one; beyond these it is brought in line as a whole."""
DOUBTFUL: Final = 0
"""Noted in place of a version, where it is not known whether a write has taken effect: no copy must remain."""
ANY_VERSION: Final = 2**63
"""Above every version."""
DEMOTE_ONLY: Final = "it takes what the level above evicts, and nothing else (write_policy = demote)"
NOT_ADMITTED: Final = "its admission policy did not admit it"
_PATIENCE_SECONDS = 10.0
_PASSED_BY: Final = "writes passed this level by while it was out of service: it may have been older than these"
_ROUNDS: Final = 8  # others may go on writing meanwhile; the last round keeps them out

P = ParamSpec("P")
T = TypeVar("T")

WritePolicy = Literal["through", "behind", "demote"]


class Missed(NamedTuple):
    """What passed a level by: versions by key, keys of which nothing must remain, or too much to tell."""

    versions: dict[str, int]
    everything: bool
    doubtful: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything did."""
        return self.everything or bool(self.versions) or bool(self.doubtful)


class Level:
    """A tier in its place in a stack.

    Attributes:
        name: L1, L2, ..., or what the configuration says.
        kind: The kind of its tier.
        tier: The tier.
        live: Whether it holds live entries of this process.
        persistent: Whether what it holds outlives the process.
        max_entries: Its bound, or None.
        policy: The eviction policy of a bounded level.
        bound: Both, as a person is told them.
        policy_failed: Whether that policy has named what it must not, or nothing, which is logged once.
        write_policy: When it is written: with each write, soon after it, or only when a level above evicts.
        cause: What its evictions for room are counted as.
        counters: What was counted since the cache was opened.
        decisions: Where it notes what is decided of its records.
        trouble: Why it went out of service, or takes no writes, the last time that it did.
        latencies: How long the tier's operations took, where that is measured.
        in_service: Whether it is read and written.
        writable: Whether its storage had room and took writes when it was last asked.
        missed_writes: Whether more writes passed it by than it noted; then it is brought in line as a whole.
        on_change: Called when the level goes out of service or comes back.
        returning: What the stack does around the moment in which the level comes back.
        align: Brings the level in line with what it missed, before it comes back.
        reopen: Opens a tier that could not be opened, and answers it; None for a level that has one.
    """

    def __init__(
        self,
        name: str,
        spec: TierSpec,
        tier: CacheTier[Any],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        threshold: int = 3,
        backoff: Backoff = Backoff(),  # noqa: B008 - it is frozen
        timeout_seconds: float | None = None,
        write_policy: WritePolicy = "through",
        admission: AdmissionPolicy | None = None,
        counting: bool = True,
    ) -> None:
        """Put `tier` in its place."""
        self.name = name
        self.kind = spec.kind
        self.tier = tier
        self.live = bool(tier.traits & Trait.LIVE)
        self.persistent = bool(tier.traits & Trait.PERSISTENT)
        self.max_entries = tier.context.max_entries
        self.policy = tier.context.eviction_policy
        self.bound = f"max_entries = {self.max_entries}, by the policy {self.policy}"
        self.policy_failed = False
        self.cause = self.policy if self.policy in ROOM_CAUSES else "other"
        self.write_policy = write_policy
        self._admission = admission
        self.counters = new_counters(counting)
        self.observers = Observers()
        self.decisions = NONE
        self.trouble = ""
        self.latencies: Mapping[str, Histogram] = {}
        self.in_service = True
        self.writable = True
        self.missed_writes = False
        self.on_change: Callable[[], None] | None = None
        self.returning: Callable[[], AbstractContextManager[Any]] = nullcontext
        self.align: Callable[[Missed], None] = self.drop_missed
        self.reopen: Callable[[], CacheTier[Any]] | None = None
        self._monotonic = monotonic
        self._out_since = monotonic()
        self._breaker = Breaker(threshold, backoff, monotonic)
        self._room = Breaker(1, backoff, monotonic)
        self._workers = None if timeout_seconds is None else Workers(name, timeout_seconds)
        self._missed: dict[str, int] = {}
        self._doubtful: dict[str, None] = {}
        self.renew()

    def renew(self) -> None:
        """Forget whoever is writing: in a forked child they do not exist."""
        self._lock = threading.RLock()  # taken itself: an interrupt within the `with` of a condition leaves it held
        self._writes = threading.Condition(self._lock)
        self._writing = 0
        self._aligning = False
        if self._workers is not None:
            self._workers.renew()

    # -- calls -------------------------------------------------------------------------------------------------------

    def call(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a method of the tier, counting its failures.

        Raises:
            CacheStorageError: The tier failed, or took longer than the level's time limit.
        """
        return self._attempt("read", operation, *args, **kwargs)

    def try_call(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `call`, for what nothing depends on: a failure is not counted, and whatever the tier raises is raised."""
        if self._workers is None:
            return operation(*args, **kwargs)
        result: T = self._workers.call(operation, *args, **kwargs)
        return result

    def _attempt(self, kind: Kind, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            result = self.try_call(operation, *args, **kwargs)
        except (TierFull, TierReadOnly) as error:
            self.counters.failures += self.counters.step  # what it holds can be read, and room may come back
            self._refuse_writes(error)
            raise
        except CacheStorageError as error:
            self.handle_failure(error, kind)
            raise
        except TierkitError:
            raise
        except Exception as error:
            failure = TierUnavailable(f"{self.name} ({self.kind}) failed: {type(error).__name__}: {error}")
            self.handle_failure(failure, kind)
            raise failure from error
        self._breaker.succeeded(kind)
        return result

    def write(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `call`, for what needs room: if it succeeds the storage can be written again."""
        result = self._attempt("write", operation, *args, **kwargs)
        if self._room.state != "closed":
            self._room.close()
            self._found_room()
        return result

    def mark(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `call`, for a deletion, which leaves a mark: room for that may not be room for a record."""
        return self._attempt("mark", operation, *args, **kwargs)

    def try_room(self) -> None:
        """Write a mark, to see whether the storage has room again. Blocks on I/O.

        Its back-off goes on until a record was written: room for a mark may not be room for that.
        """
        self._room.half_open()
        try:
            self.mark(self.tier.delete, PROBE_KEY, 1)
        except TierkitError as error:
            logger.debug("%s (%s) takes no writes yet: %s", self.name, self.kind, str(error))
            self._room.open()
        else:
            self._found_room()

    def _found_room(self) -> None:
        if not self.writable:
            self.writable = True
            self.counters.recoveries += self.counters.step
            logger.info("%s (%s) can be written again", self.name, self.kind)
            self.tell("on_level_back")

    def takes_copy(self, key: str) -> bool:
        """Whether a write of `key` is copied into this level; else it drops the copy that it has."""
        return not self.against(key)

    def against(self, key: str) -> str:
        """Why a write of `key` is not copied into this level; empty if it is. Asked once for each copy."""
        return "" if self.write_policy != "demote" and self.admits(key) else self.against_copies()

    def against_copies(self) -> str:
        """Why this level does not take a copy, where it does not."""
        return DEMOTE_ONLY if self.write_policy == "demote" else NOT_ADMITTED

    def admits(self, key: str) -> bool:
        """Whether the record of `key` may be copied into this level. A policy that fails admits it, and is logged."""
        if self._admission is None:
            return True
        try:
            return bool(self._admission.admit(key))
        except Exception:
            logger.exception("%s: the admission policy failed; the record is admitted", self.name)
            return True

    def note(self, what: str, key: str, why: str = "", until: float | None = None) -> None:
        """Note what was decided of a record here: see `decisions`."""
        self.decisions.note(self.name, what, key, why, until)

    def scan(self) -> Iterator[Any]:
        """Every record that the tier holds, counting a failure on the way."""
        records = self.call(self._begun, "scan", self.tier.scan)
        end = object()
        while (record := self.call(next, records, end)) is not end:
            yield record

    def scan_in_steps(self) -> Iterator[list[Any]]:
        """As `scan`, many records at a time, for what goes through all of them fast."""
        return self._in_steps(self.call(self._begun, "scan", self.tier.scan))

    def query(self, query: Query) -> Iterator[list[Any]]:
        """What `query` asks for, many records at a time, since they come fast; else as `scan`."""
        if query.limit is not None and query.limit <= QUERY_STEP:
            return iter([self.call(self._all, query)])
        return self._in_steps(self.call(self._begun, "query", partial(self.tier.query, query)))

    def _in_steps(self, records: Iterator[Any]) -> Iterator[list[Any]]:
        while some := self.call(list, islice(records, QUERY_STEP)):
            yield some

    def _all(self, query: Query) -> list[Any]:
        return [*self._begun("query", partial(self.tier.query, query))]

    def _begun(self, name: str, look: Callable[[], object]) -> Iterator[Any]:
        records = look()
        if not isinstance(records, Iterable):
            answered = type(records).__name__
            raise TierUnavailable(f"{self.name} ({self.kind}): its {name} answered {answered}, no iterator of records")
        return iter(records)

    def close(self) -> None:
        """Close the tier.

        Raises:
            CacheStorageError: It failed to, or did not within the time limit.
        """
        try:
            self.call(self.tier.close)
        finally:
            if self._workers is not None:
                self._workers.close()

    # -- going out of service ----------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Of the circuit breaker: "closed" (in service), "open", or "half-open" while it is probed."""
        return self._breaker.state

    @property
    def out_for_seconds(self) -> float:
        """How long it has been out of service, if it is."""
        return self._monotonic() - self._out_since

    @property
    def limited(self) -> bool:
        """Whether its calls have a time limit."""
        return self._workers is not None

    @property
    def takes_writes(self) -> bool:
        """Whether a write should be tried: it is in service, and has room or may have it again."""
        return self.in_service and (self.writable or self._room.due_in <= 0)

    @property
    def due_in(self) -> float:
        """Seconds until it should be probed or written again; infinite if it is well."""
        if not self.in_service:
            return self._breaker.due_in
        return inf if self.writable else self._room.due_in

    def handle_failure(self, error: Exception, kind: Kind = "read") -> None:
        """Count a failure; take the level out of service when there were enough of its kind in a row."""
        self.counters.failures += self.counters.step
        if self._breaker.failed(kind):
            self.take_out(error)

    def take_out(self, error: BaseException) -> None:
        """Take the level out of service, which is logged once at ERROR."""
        with self._lock:  # a write that passes by has to wait until nobody reads here any more
            went, self.in_service = self.in_service, False
            if went:
                self.trouble = str(error)
                self._out_since = self._monotonic()
                self._breaker.open()
                self._changed()
        if went:
            failures = self._breaker.failures
            times = f" after {failures} failures" if failures > 1 else ""
            logger.error("%s (%s) is out of service%s: %s", self.name, self.kind, times, str(error))
            self.tell("on_level_out", str(error))

    def miss(self, error: Exception, versions: Mapping[str, int] | None = None) -> None:
        """Take the level out of service, since it did not do a write, nor drop what that replaced.

        Args:
            error: Why.
            versions: What it missed, by key; None if that cannot be told.
        """
        with self._lock:
            if versions is None:
                self.missed_writes = True
            else:
                self._note_missed(versions)
        self.take_out(error)

    def _refuse_writes(self, error: Exception) -> None:
        went, self.writable = self.writable, False
        if not went and self._room.due_in <= 0:
            self._room.half_open()  # this was the probe
        if went or self._room.state == "half-open":
            self._room.open()
        if went:
            self.trouble = str(error)
            self._changed()
            logger.error("%s (%s) takes no writes: %s", self.name, self.kind, str(error))
            self.tell("on_level_out", str(error))

    # -- writes that pass by -----------------------------------------------------------------------------------------

    def begin_write(self, versions: Mapping[str, int] | None = None) -> bool:
        """Whether a write may go to this level; then end it. If not, the level has missed it.

        Args:
            versions: What is written, by key; None if that cannot be told.
        """
        with self._lock:
            if self.in_service:
                self._writing += 1
            elif versions is None:
                self.missed_writes = True
            else:
                self._note_missed(versions)
            return self.in_service

    def end_write(self) -> None:
        """A write that was begun is over."""
        with self._lock:
            self._writing -= 1
            self._writes.notify_all()

    def _note_missed(self, versions: Mapping[str, int]) -> None:
        for key, version in versions.items():
            if version == DOUBTFUL:
                self._doubtful[key] = None
            else:
                self._missed[key] = max(version, self._missed.get(key, 0))
        if len(self._missed) + len(self._doubtful) > MOST_MISSED:
            self._take_missed()
            self.missed_writes = True

    def _take_missed(self) -> Missed:
        """What passed the level by, which is forgotten."""
        missed = Missed(self._missed, self.missed_writes, tuple(self._doubtful))
        self._missed, self.missed_writes, self._doubtful = {}, False, {}
        return missed

    # -- coming back -------------------------------------------------------------------------------------------------

    def probe(self) -> bool:
        """Ask the tier for something and, if it answers, bring the level back. Blocks on I/O.

        Returns:
            Whether it is back. If not, its back-off has begun anew.
        """
        self._breaker.half_open()
        try:
            if self._workers is None or not self._workers.stuck:
                self._ask()
                self.reset_failures()
        except TierkitError as error:
            logger.debug("%s (%s) is still out of service: %s", self.name, self.kind, str(error))
        finally:
            with self._lock:  # another thread may be bringing it back
                if not self.in_service:
                    self._breaker.open()
                elif self.state == "half-open":  # another probe brought it back meanwhile
                    self._breaker.close()
        return self.in_service

    def _ask(self) -> None:
        if self.reopen is not None:
            self.tier = self.reopen()
            self.reopen = None
        with suppress(CacheCorruptionError):  # the trouble of one record
            self.call(self.tier.get, PROBE_KEY)

    def reset_failures(self) -> None:
        """Bring the level back into service, in line with what passed it by. Blocks until it is quiet.

        Raises:
            CacheStorageError: It had to be brought in line and could not, or another thread is at it for too long.
        """
        with self.returning():
            with self._lock:  # one that began before the level went out may end after others have passed it by
                self._writes.wait_for(lambda: self.in_service or self._writing == 0, _PATIENCE_SECONDS)
            out = not self.in_service
            if not any(self._come_back() for _ in range(_ROUNDS)):
                with self._lock:
                    while not self._come_back():
                        pass
        if out:
            self.counters.recoveries += self.counters.step
            logger.info("%s (%s) is back in service", self.name, self.kind)
            self.tell("on_level_back")

    def _come_back(self) -> bool:
        """Come back if nothing was missed; else bring the level in line. Answers whether it is in service."""
        with self._lock:
            if not self._writes.wait_for(lambda: not self._aligning, _PATIENCE_SECONDS):
                raise TierUnavailable(f"{self.name} ({self.kind}) is being brought in line by another thread")
            missed = self._take_missed()
            if not missed:
                self._breaker.close()
                if not self.in_service:
                    self.in_service = True
                    self._changed()
                return True
            self._aligning = True
        try:
            self.align(missed)
        except BaseException as error:
            self._end_aligning(missed)
            self.take_out(error)  # it may have been in service all the time
            raise
        self._end_aligning()
        return False

    def _end_aligning(self, left: Missed | None = None) -> None:
        """Let others bring the level in line; `left` is what it still has to be brought in line with."""
        with self._lock:
            self._aligning = False
            self._writes.notify_all()
            if left:
                self.missed_writes |= left.everything
                self._note_missed(left.versions)
                self._note_missed(dict.fromkeys(left.doubtful, DOUBTFUL))

    def catch_up(self) -> None:
        """Drop what is older than what passed by, at close, whether the level is in service or not.

        Raises:
            CacheStorageError: The tier failed to.
        """
        with self._lock:
            missed = self._take_missed()
        if missed.everything:
            self.drop_missed(missed)
        elif missed:
            self.align(missed)

    def drop_missed(self, missed: Missed) -> None:
        """Drop what is older than what passed by: everything, if that cannot be told.

        Raises:
            CacheStorageError: The tier failed to.
        """
        if missed.everything:
            self.empty()
        self.decisions.note_many(self.name, "dropped", [*missed.versions, *missed.doubtful], _PASSED_BY)
        for key, version in missed.versions.items():
            if self.live:
                self.drop(key, version)
            else:  # with a mark: another process may still have an older copy, and demote it
                self.mark(self.tier.delete, key, version)
        for key in missed.doubtful:
            self.drop_copy(key)

    def empty(self) -> None:
        """Discard every record, each at its version, so that the same may come back; but what the authority is owed.

        Raises:
            CacheStorageError: The tier failed to.
        """
        for record in self.scan():
            if (self.live or not is_owed(record)) and self._discard(record):
                self.note("dropped", record.key, _PASSED_BY)

    def drop_copy(self, key: str) -> None:
        """Discard what is held for `key`, unless the authority is owed it.

        Raises:
            CacheStorageError: The tier failed.
        """
        with suppress(CacheCorruptionError):  # the tier has set it aside
            held = self.call(self.tier.get, key)
            if held is not None and (self.live or not is_owed(held)):
                self._discard(held)

    def drop(self, key: str, version: int) -> Record | None:
        """Discard what is held for `key` at `version` or older. Answers what was discarded.

        Raises:
            CacheStorageError: The tier failed.
        """
        try:
            held: Record | None = self.call(self.tier.get, key)
        except CacheCorruptionError:
            return None  # the tier has set it aside
        return held if held is not None and held.version <= version and self._discard(held) else None

    def _discard(self, record: Record) -> bool:
        try:
            return self.call(self.tier.discard, record)
        except CacheCorruptionError:
            return False  # the tier has set it aside

    def tell(self, event: str, *args: Any) -> None:
        """Tell the observers, if there are any, that `event` happened here."""
        if self.observers:
            self.observers.tell(event, self.name, *args)

    def snapshot(self) -> TierStatistics:
        """The level's statistics as of now. Asks the tier for its size, which may block on I/O."""
        counts = dict(self.counters.totals())
        evictions = {f"evictions_{cause}": count for cause, count in counts.pop("evictions").items()}
        return TierStatistics(
            name=self.name,
            backend=self.kind,
            size=self._size(),
            degraded=not (self.in_service and self.writable),
            state=self.state,
            writable=self.writable,
            latencies={name: taken for name, held in self.latencies.items() if (taken := held.snapshot()).count},
            **counts,
            **evictions,
        )

    def _size(self) -> int:
        try:
            return self.call(self.tier.size) if self.in_service else -1
        except TierkitError:
            return -1

    def _changed(self) -> None:
        if self.on_change is not None:
            self.on_change()
