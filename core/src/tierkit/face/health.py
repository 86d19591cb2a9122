"""Health: failures counted, checks run, and what they found applied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import TYPE_CHECKING, TypeVar

from tierkit.checks import check_checker, check_key, check_keys, check_results
from tierkit.entry import CacheEntry
from tierkit.face.queries import QueryMethods
from tierkit.health import HealthResult, Outcome

if TYPE_CHECKING:
    from tierkit.checking import Checker, CheckResult
    from tierkit.progress import OnProgress

E = TypeVar("E", bound=CacheEntry)


class HealthMethods(QueryMethods[E]):
    """Counting failures, and checking records in bulk."""

    def invalidate_by_health(self, key: str) -> E | None:
        """Count a failure of the record, mark it UNHEALTHY, and remove it everywhere when the threshold is reached.

        The count is kept by compare and set: no failure is lost between threads or processes, or by a restart. With
        `enable_health_invalidation = false` failures are counted and nothing is removed.

        Returns:
            The entry as it is now, or None if it is not there any more.

        Raises:
            TierUnavailable: The authority is out of service. Nothing was counted.
            CacheStorageError: It failed. The failure may or may not be counted.
        """
        outcome, entry = self._judge(key, healthy=False)
        return None if outcome == "removed" else entry

    def record_success(self, key: str) -> E | None:
        """Mark the record HEALTHY and forget its failures. Nothing is written where that is so already.

        By compare and set, as `invalidate_by_health`.

        Returns:
            The entry as it is now, or None if it is not there.

        Raises:
            TierUnavailable: The authority is out of service. Nothing was changed.
            CacheStorageError: It failed. The record may or may not be changed.
        """
        return self._judge(key, healthy=True)[1]

    def record_health(self, results: Mapping[str, bool]) -> HealthResult:
        """Apply the results of many checks in one sweep: `record_success` for True, `invalidate_by_health` for False.

        In batches of 1000, each a bulk read, a bulk compare and set, and a bulk deletion: in SQLite a transaction, in
        JSON Lines an append per shard. Atomic one by one, not as a whole; counts are as exact as single ones. Blocks
        on I/O.

        Args:
            results: By key, whether the record was found good.

        Returns:
            How many were healthy, unhealthy, removed and missing; and what the storage did not take if it failed on
            the way, to be given again.

        Raises:
            CacheValidationError: It is no mapping, a key cannot be one, or a result is neither True nor False. Nothing
                was applied.
            TierUnavailable: The authority is out of service. Nothing was applied.
        """
        self._check_writable()
        check_results(results)
        return self._health.judge_all(results) if self._stack.levels else HealthResult(missing=len(results))

    def check_all(
        self,
        checker: Checker[E],
        *,
        concurrency: int = 10,
        on_progress: OnProgress | None = None,
        keys: Iterable[str] | None = None,
        timeout_seconds: float | None = None,
        batch_size: int = 1000,
    ) -> CheckResult:
        """Run `checker` over the records that may be returned, and apply what it finds as `record_health` does.

        Memory does not grow with the number of records; each is checked at most once, and what is written meanwhile is
        left for the next run. Reading counts as no use. Blocks until all are checked; in a program with an event loop
        call it by `asyncio.to_thread`. Whatever stops it, what was found by then is applied: an exception of
        `on_progress`, an interrupt, a cache error that the checker raises (these are raised again), `close`.

        Args:
            checker: Called with an entry, answers whether it is good; from many threads at once, so it must be
                thread-safe. A coroutine function runs in tasks on an event loop of its own, in one thread. An
                exception is a failure of the record, logged at DEBUG without its text; a cache error is not. If every
                check raises the same, one WARNING says so.
            concurrency: How many checks are under way at once.
            on_progress: Called in this thread after each check with the records checked and how many there seem to be.
            keys: Check only these.
            timeout_seconds: After how long a check counts as failed; by default it is waited for. A thread cannot be
                ended from outside: it is left to itself, its result is not used and another takes its place. It does
                not hold up the end of the program. When 200 such threads are still there the run stops.
            batch_size: After how many checks their results are applied.

        Returns:
            How many were checked, what became of them, what the storage did not take, and whether the run was complete.

        Raises:
            CacheValidationError: A number is not above 0, a key cannot be one, or the checker cannot be called with an
                entry, or answered neither True nor False.
            CacheStorageError: The authority is out of service: nothing was checked. Or it could not be read on.
        """
        from tierkit.checking import CheckResult, CheckRun, CheckSettings, entries_now, entries_of

        self._check_writable()
        check_checker(checker)
        settings = CheckSettings(concurrency=concurrency, timeout_seconds=timeout_seconds, batch_size=batch_size)
        if keys is not None:
            check_keys(keys)
        if not self._stack.levels:
            return CheckResult()
        authority = self._writer.authority()
        if keys is None:
            self._stack.owing.replay_all()
            total: int | None = authority.call(authority.tier.size)
            entries: Iterator[E | None] = entries_now(self._stack, authority, self.scan())
        else:
            total = len(keys) if isinstance(keys, Sized) else None
            entries = entries_of(self._comparing, keys)
        run = CheckRun(self._health, checker, settings, total, on_progress)
        self._checks.add(run)
        try:
            return run.run(entries)
        finally:
            self._checks.discard(run)

    def _judge(self, key: str, *, healthy: bool) -> tuple[Outcome, E | None]:
        self._check_writable()
        check_key(key)
        return self._health.judge(key, healthy) if self._stack.levels else ("missing", None)
