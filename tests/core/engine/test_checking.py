"""A user's checker over many records."""

import asyncio
import logging
import subprocess
import sys
import threading
from queue import SimpleQueue
from typing import Any

import pytest
from tests.core.engine.support import PATIENCE, Note, World, note, tier

from tierkit import CacheClosedError, CacheManager, CacheValidationError, CheckResult, TierFull, TierUnavailable
from tierkit.check_runners import Check, Runner, Tasks, Threads
from tierkit.testing import FakeClock

pytestmark = pytest.mark.req("US3-2")


def filled(world: World, *levels: Any, count: int = 30, **settings: Any) -> CacheManager[Note]:
    cache = world.open(*(levels or ("live", "disk")), **settings)
    cache.put_many(note(f"k{n}", "good" if n % 3 else "bad") for n in range(count))
    return cache


def is_good(entry: Note) -> bool:
    return entry.text == "good"


async def is_good_later(entry: Note) -> bool:
    await asyncio.sleep(0)
    return entry.text == "good"


class Asker:
    async def __call__(self, entry: Note) -> bool:
        return await is_good_later(entry)


def failures(cache: CacheManager[Note]) -> dict[str, int]:
    return {entry.key: entry.failure_count for entry in cache.scan()}


# -- what it does -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checker", [is_good, is_good_later, Asker()], ids=["function", "coroutine", "object"])
@pytest.mark.parametrize("levels", [("live",), ("live", "disk"), (("live", 2), "disk", "disk")])
def test_every_record_is_checked_once_and_judged(world: World, levels: tuple[Any, ...], checker: Any) -> None:
    cache = filled(world, *levels, failure_threshold=2)
    result = cache.check_all(checker, batch_size=7, concurrency=3)
    assert result == CheckResult(checked=30, healthy=20, unhealthy=10)
    assert failures(cache) == {f"k{n}": 0 if n % 3 else 1 for n in range(30)}
    assert cache.check_all(checker) == CheckResult(checked=30, healthy=20, removed=10)
    assert len(cache) == 20
    assert str(cache.check_all(checker)) == "20 checked: 20 healthy, 0 unhealthy, 0 removed, 0 missing"


def test_only_what_may_be_returned_is_checked_and_reading_it_is_no_use(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk")
    cache.put(note("a", ttl_seconds=60))
    cache.put(note("b", ttl_seconds=90))
    clock.advance(60)
    checked: list[str] = []

    def check(entry: Note) -> bool:
        checked.append(entry.key)
        return True

    assert cache.check_all(check).healthy == 1
    assert checked == ["b"]
    statistics = cache.get_statistics()
    assert statistics.requests == 0
    entry = cache.get("b")
    assert entry is not None
    assert entry.access_count == 1


def test_only_the_named_keys_are_checked_each_once(world: World) -> None:
    cache = filled(world)
    told: list[tuple[int, int | None]] = []
    keys = ["k1", "nobody", "k3", "k1"]
    result = cache.check_all(is_good, keys=keys, on_progress=lambda *progress: told.append(progress))
    assert result == CheckResult(checked=2, healthy=1, unhealthy=1, missing=1)
    assert told == [(1, 4), (2, 4), (2, 2)]
    assert cache.check_all(is_good, keys=(key for key in keys)).checked == 2
    with pytest.raises(CacheValidationError):
        cache.check_all(is_good, keys=[""])


@pytest.mark.parametrize("keys", ["k1", b"k1", 5])
def test_keys_that_are_no_collection_of_keys_are_refused(world: World, keys: Any) -> None:
    with pytest.raises(CacheValidationError, match=rf"several keys, such as \[key\], not {type(keys).__name__}"):
        filled(world).check_all(lambda _: pytest.fail("checked"), keys=keys)


def test_no_more_run_at_once_than_is_said(world: World) -> None:
    cache = filled(world, count=40)
    lock, running, most = threading.Lock(), 0, 0
    together = threading.Barrier(4)

    def check(_: Note) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait(PATIENCE)
        with lock:
            running -= 1
        return True

    assert cache.check_all(check, concurrency=4).healthy == 40
    assert most == 4


def test_progress_is_told_in_the_callers_thread_after_each_check(world: World) -> None:
    cache = filled(world, count=25)
    told: list[tuple[int, int | None, threading.Thread]] = []
    cache.check_all(is_good, on_progress=lambda *progress: told.append((*progress, threading.current_thread())))
    assert told == [(n, 25, threading.current_thread()) for n in range(1, 26)]


def test_results_are_applied_in_batches_while_others_are_checked(world: World) -> None:
    cache = filled(world, count=50)
    world.calls.clear()
    seen: list[int] = []
    cache.check_all(lambda _: False, batch_size=20, on_progress=lambda *_: seen.append(sum(failures(cache).values())))
    assert (seen[18], seen[19], seen[49]) == (0, 20, 40)
    assert world.calls_of("replace_many") == [("L2", "replace_many")] * 3


def test_what_is_written_meanwhile_is_left_for_the_next_run(world: World) -> None:
    cache = filled(world, "live", count=5)

    def check(entry: Note) -> bool:
        cache.put(note(f"new {entry.key}"))
        cache.put(note("k4", "renewed"))
        return True

    assert cache.check_all(check, concurrency=1).checked == 4
    assert len(cache) == 9


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize(
    ("levels", "policy", "durability"),
    [(3, "behind", "process"), (3, "demote", "process"), (2, "behind", "none"), (2, "demote", "none")],
)
def test_records_that_wait_for_the_authority_are_checked(
    world: World, levels: int, policy: str, durability: str, named: bool
) -> None:
    tiers = [{"backend": "live"}, *[{"backend": "disk"}] * (levels - 1)]
    tiers[-1] = {"backend": "disk", "write_policy": policy}
    cache = world.open_config(tiers, durability=durability)
    cache.put(note("old"))
    cache.flush()
    cache.put_many(note(f"k{n}") for n in range(5))
    keys = ["old", *(f"k{n}" for n in range(5))] if named else None
    told: list[int | None] = []
    result = cache.check_all(lambda _: False, keys=keys, on_progress=lambda _, total: told.append(total))
    assert result == CheckResult(checked=6, unhealthy=6)
    assert set(failures(cache).values()) == {1}
    assert told == [6] * 6


def test_records_that_wait_since_an_outage_are_checked_and_counted_when_the_storage_is_well(world: World) -> None:
    cache = filled(world, "live", "disk", "disk", count=3)
    tier(cache, "L3").fail("put_many", "put", "replace_many", error=TierFull("full"))
    cache.put(note("owed"))
    result = cache.check_all(lambda _: False)
    assert (result.checked, len(result.unapplied), result.complete) == (4, 4, False)
    tier(cache, "L3").heal()
    assert cache.check_all(lambda _: False) == CheckResult(checked=4, unhealthy=4)


def test_a_record_that_goes_meanwhile_is_missing(world: World) -> None:
    cache = filled(world, count=5)
    assert cache.check_all(lambda entry: cache.delete(entry.key)) == CheckResult(checked=5, missing=5)


# -- checkers that fail -----------------------------------------------------------------------------------------------


async def _breaks_later(entry: Note) -> bool:
    raise ValueError("canary-0451")


def _breaks(entry: Note) -> bool:
    raise ValueError("canary-0451")


@pytest.mark.parametrize("checker", [_breaks, _breaks_later])
def test_an_exception_of_the_checker_is_a_failure_whose_text_is_not_logged(
    world: World, caplog: pytest.LogCaptureFixture, checker: Any
) -> None:
    cache = filled(world, count=3)
    with caplog.at_level(logging.DEBUG):
        assert cache.check_all(checker) == CheckResult(checked=3, unhealthy=3)
    assert "raised ValueError" in caplog.text
    assert "canary-0451" not in caplog.text


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize("checker", [_breaks, _breaks_later])
def test_one_warning_says_that_the_checker_may_be_wrong_if_it_always_raised_the_same(
    world: World, caplog: pytest.LogCaptureFixture, checker: Any
) -> None:
    cache = filled(world, count=9)
    cache.check_all(checker, batch_size=3)
    assert warnings_in(caplog) == [
        "each of the first 3 checks raised ValueError: the checker itself may be wrong, and not the records"
    ]
    assert "canary-0451" not in caplog.text


def _breaks_in_two_ways(entry: Note) -> bool:
    raise KeyError if entry.key == "k0" else ValueError


def _breaks_but_once(entry: Note) -> bool:
    if entry.key == "k0":
        return False
    raise ValueError


@pytest.mark.parametrize(("checker", "count"), [(_breaks_in_two_ways, 9), (_breaks_but_once, 9), (_breaks, 1)])
def test_a_checker_that_raises_for_some_records_or_for_the_only_one_is_not_suspected(
    world: World, caplog: pytest.LogCaptureFixture, checker: Any, count: int
) -> None:
    filled(world, count=count).check_all(checker)
    assert warnings_in(caplog) == []


def _takes_two(entry: Note, other: Note) -> bool:
    return True


async def _takes_none() -> bool:
    return True


def _takes_it_by_name(*, entry: Note) -> bool:
    return True


class TakesNone:
    def check(self) -> bool:
        return True


@pytest.mark.parametrize("checker", [_takes_two, _takes_none, TakesNone().check, _takes_it_by_name])
def test_a_checker_that_does_not_take_one_entry_is_refused(world: World, checker: Any) -> None:
    cache = filled(world, count=3)
    with pytest.raises(CacheValidationError, match="must take one argument, an entry"):
        cache.check_all(checker)
    assert sum(failures(cache).values()) == 0


@pytest.mark.parametrize("checker", [None, True, "is_good"])
def test_a_checker_that_cannot_be_called_is_refused(world: World, checker: Any) -> None:
    with pytest.raises(CacheValidationError, match=f"must be a function of an entry, not {type(checker).__name__}"):
        filled(world, count=3).check_all(checker)


def test_a_checker_whose_signature_cannot_be_had_is_tried(world: World) -> None:
    class Odd:
        __signature__ = "none"

        def __call__(self, entry: Note) -> bool:
            return True

    assert filled(world, count=3).check_all(Odd()).healthy == 3


@pytest.mark.parametrize("error", [TierUnavailable("another cache"), KeyboardInterrupt(), SystemExit(3)])
def test_a_cache_error_or_an_interrupt_stops_the_run_and_what_is_known_is_applied(
    world: World, error: BaseException
) -> None:
    cache = filled(world, count=10)
    turn = iter(range(100))

    def check(_: Note) -> bool:
        if next(turn) == 4:
            raise error
        return False

    with pytest.raises(type(error)):
        cache.check_all(check, concurrency=1)
    assert sum(failures(cache).values()) == 4


@pytest.mark.parametrize("answer", [None, 1, "yes"])
def test_an_answer_that_is_no_verdict_is_an_error_and_counts_against_nobody(world: World, answer: Any) -> None:
    cache = filled(world, count=3)
    with pytest.raises(CacheValidationError, match="must answer True or False"):
        cache.check_all(lambda _: answer)
    assert sum(failures(cache).values()) == 0


def test_a_coroutine_that_nobody_awaits_is_an_error(world: World) -> None:
    cache = filled(world, count=3)
    with pytest.raises(CacheValidationError, match="answered coroutine"):
        cache.check_all(lambda entry: is_good_later(entry))  # noqa: PLW0108 - hidden from who looks for coroutines


def test_a_check_that_never_returns_counts_as_failed_and_holds_nothing_up(world: World, clock: FakeClock) -> None:
    cache = filled(world, count=6)
    released = threading.Event()

    def check(entry: Note) -> bool:
        if entry.key in {"k1", "k2", "k4"}:
            clock.advance(31)
            released.wait(PATIENCE)
        return True

    result = cache.check_all(check, concurrency=1, timeout_seconds=30)
    assert (result.checked, result.timed_out, result.unhealthy, result.healthy) == (6, 3, 3, 3)
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "tierkit-check")
    released.set()


def test_a_task_that_takes_too_long_is_cancelled(world: World, clock: FakeClock) -> None:
    cache = filled(world, count=4)
    cancelled: list[str] = []

    async def check(entry: Note) -> bool:
        if entry.key == "k2":
            clock.advance(31)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(entry.key)
                raise
        return True

    result = cache.check_all(check, concurrency=1, timeout_seconds=30)
    assert (result.checked, result.timed_out, result.unhealthy) == (4, 1, 1)
    assert cancelled == ["k2"]


def test_tasks_under_way_are_cancelled_when_the_run_stops(world: World) -> None:
    cache = filled(world, count=6)
    started: list[str] = []
    cancelled: list[str] = []

    async def check(entry: Note) -> bool:
        started.append(entry.key)
        try:
            while entry.key != "k0" or len(started) < 3:
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            cancelled.append(entry.key)
            raise
        raise TierUnavailable("another cache")

    with pytest.raises(TierUnavailable, match="another cache"):
        cache.check_all(check, concurrency=3)
    assert sorted(cancelled) == ["k1", "k2"]
    assert sum(failures(cache).values()) == 0


# -- a run that is held up ---------------------------------------------------------------------------------------------


class StampClock(FakeClock):
    """Lets a test wait until checks have finished, each of which looks at the clock when it does."""

    def __init__(self) -> None:
        super().__init__()
        self.finished = threading.Semaphore(0)

    def monotonic(self) -> float:
        now = super().monotonic()
        if threading.current_thread().name == "tierkit-check":
            self.finished.release()
        return now

    def hold_up(self, checks: int) -> None:
        """Return when so many more checks have finished, and long afterwards."""
        for _ in range(checks):
            assert self.finished.acquire(timeout=PATIENCE)
        self.advance(31)


async def _good_later(_: Note) -> bool:
    return True


@pytest.mark.parametrize("checker", [lambda _: True, _good_later], ids=["function", "coroutine"])
@pytest.mark.parametrize("where", ["on_progress", "apply"])
def test_checks_that_finished_in_time_count_though_the_run_was_held_up(world: World, checker: Any, where: str) -> None:
    world.clock = clock = StampClock()
    cache = filled(world, count=20, failure_threshold=1)

    def be_held_up(checked: int, _: int | None) -> None:
        if checked == 1:
            clock.hold_up(4)

    if where == "apply":
        tier(cache, "L2").before("replace_many", lambda: clock.hold_up(4))
        result = cache.check_all(checker, concurrency=4, timeout_seconds=30, batch_size=1)
    else:
        result = cache.check_all(checker, concurrency=4, timeout_seconds=30, on_progress=be_held_up)
    assert result == CheckResult(checked=20, healthy=20)


@pytest.mark.parametrize("failing", [False, True])
def test_a_check_that_finishes_late_counts_as_timed_out_whoever_looks_first(world: World, failing: bool) -> None:
    clock = world.clock
    cache = filled(world, count=3)

    def check(_: Note) -> bool:
        clock.advance(31)
        if failing:
            raise ValueError("late, too")
        return True

    result = cache.check_all(check, concurrency=1, timeout_seconds=30)
    assert result == CheckResult(checked=3, unhealthy=3, timed_out=3)


def test_what_has_finished_is_not_used_any_more_once_the_run_is_stopped(world: World) -> None:
    world.clock = clock = StampClock()
    cache = filled(world, count=9)

    def stop(*_: object) -> None:
        clock.hold_up(3)
        cache.close()

    result = cache.check_all(lambda _: False, concurrency=3, timeout_seconds=30, on_progress=stop)
    assert result == CheckResult(checked=1, unhealthy=1, complete=False)


@pytest.mark.parametrize("kind", [Threads, Tasks])
def test_only_a_check_that_has_not_finished_can_be_abandoned(clock: FakeClock, kind: type[Runner]) -> None:
    released, results = threading.Event(), SimpleQueue[Any]()

    def check(entry: Note) -> bool:
        return entry.key == "quick" or released.wait(PATIENCE)

    async def check_later(entry: Note) -> bool:
        while entry.key != "quick":
            await asyncio.sleep(0)
        return True

    runner: Runner = (
        Threads(check, results, clock.monotonic, 2) if kind is Threads else Tasks(check_later, results, clock.monotonic)
    )
    quick, slow = Check(note("quick"), None), Check(note("slow"), None)
    runner.start(quick)
    runner.start(slow)
    assert results.get(timeout=PATIENCE) == (quick, True)
    assert not runner.abandon(quick)
    assert runner.abandon(slow)
    released.set()
    runner.stop(idle=True)
    assert results.empty()


STUCK = """
import threading
from tierkit import CacheConfig, CacheManager, ValueEntry

with CacheManager(CacheConfig(tiers=({"backend": "memory"},), durability="none"), entry_type=ValueEntry) as cache:
    cache.put(ValueEntry.from_value("a", 1))
    print(cache.check_all(lambda _: threading.Event().wait(), timeout_seconds=0.01))
"""


def test_a_check_that_never_returns_does_not_hold_up_the_end_of_the_program() -> None:
    ran = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == "1 checked: 0 healthy, 1 unhealthy, 0 removed, 0 missing\n"


def test_too_many_checks_that_never_return_stop_the_run(
    world: World, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierkit.checking.MOST_STUCK", 2)
    cache = filled(world, count=9)
    released = threading.Event()

    def check(_: Note) -> bool:
        clock.advance(31)
        return released.wait(PATIENCE)

    result = cache.check_all(check, concurrency=1, timeout_seconds=30)
    assert (result.checked, result.unhealthy, result.complete) == (3, 3, False)
    assert "(not complete)" in str(result)
    released.set()


# -- stopping ---------------------------------------------------------------------------------------------------------


def test_an_exception_of_on_progress_stops_the_run_and_what_is_known_is_applied(world: World) -> None:
    cache = filled(world, count=10)

    def tell(checked: int, _: int | None) -> None:
        if checked == 3:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        cache.check_all(lambda _: False, concurrency=1, on_progress=tell)
    assert sum(failures(cache).values()) == 3


def test_closing_the_cache_in_another_thread_stops_the_run_and_applies_what_is_known(world: World) -> None:
    cache = filled(world, count=10)
    reached, released = threading.Event(), threading.Event()

    def check(entry: Note) -> bool:
        if entry.key == "k5":
            reached.set()
            released.wait(PATIENCE)
        return False

    results: list[CheckResult] = []
    run = threading.Thread(target=lambda: results.append(cache.check_all(check, concurrency=1)))
    run.start()
    assert reached.wait(PATIENCE)
    cache.close()
    released.set()
    run.join(PATIENCE)
    assert results == [CheckResult(checked=5, unhealthy=5, complete=False)]
    assert sum(failures(world.open("live", "disk")).values()) == 5
    with pytest.raises(CacheClosedError):
        cache.check_all(check)


@pytest.mark.parametrize("where", ["on_progress", "checker"])
def test_closing_the_cache_from_within_a_run_stops_it(world: World, where: str) -> None:
    cache = filled(world, count=10)
    calls = iter(range(1, 100))

    def close_at_4(*_: object) -> bool:
        if next(calls) == 4:
            cache.close()
        return False

    if where == "checker":
        result = cache.check_all(close_at_4, concurrency=1)
    else:
        result = cache.check_all(lambda _: False, concurrency=1, on_progress=close_at_4)
    assert (result.complete, result.unhealthy) == (False, 3 if where == "checker" else 4)
    assert sum(failures(world.open("live", "disk")).values()) == result.unhealthy


def test_a_coroutine_that_closes_the_cache_stops_the_run(world: World) -> None:
    cache = filled(world, count=10)

    async def check(entry: Note) -> bool:
        if entry.key == "k3":
            cache.close()
        return True

    assert cache.check_all(check, concurrency=1) == CheckResult(checked=3, healthy=3, complete=False)


# -- failures of the storage ------------------------------------------------------------------------------------------


def test_a_storage_that_fails_stops_the_run_and_what_it_did_not_take_is_answered(world: World) -> None:
    cache = filled(world, count=30)
    tier(cache, "L2").after("replace_many", lambda: tier(cache, "L2").fail("replace_many", times=1))
    result = cache.check_all(lambda _: False, concurrency=1, batch_size=10)
    assert (result.checked, result.unhealthy, len(result.unapplied), result.complete) == (20, 10, 10, False)
    assert isinstance(result.error, TierUnavailable)
    assert cache.record_health(result.unapplied).unhealthy == 10
    assert sum(failures(cache).values()) == 20


def test_an_authority_that_goes_away_meanwhile_loses_no_result_in_silence(world: World) -> None:
    cache = filled(world, count=6)

    def check(_: Note) -> bool:
        cache.levels[1].take_out(TierUnavailable("away"))
        return False

    result = cache.check_all(check, keys=["k0", "k1"], concurrency=1)
    assert (len(result.unapplied), result.complete) == (2, False)


def test_an_authority_that_is_away_raises_before_anything_is_checked(world: World) -> None:
    cache = filled(world, count=6)
    cache.levels[1].take_out(TierUnavailable("away"))
    with pytest.raises(TierUnavailable):
        cache.check_all(lambda _: pytest.fail("checked"))


@pytest.mark.parametrize("settings", [{"concurrency": 0}, {"timeout_seconds": 0.0}, {"batch_size": -1}])
def test_numbers_that_cannot_work_are_refused(world: World, settings: dict[str, Any]) -> None:
    with pytest.raises(CacheValidationError, match="must be above 0"):
        filled(world).check_all(is_good, **settings)


def test_a_cache_that_is_turned_off_or_empty_checks_nothing(world: World) -> None:
    assert world.open("disk", cache_enabled=False).check_all(is_good) == CheckResult()
    assert world.open("disk").check_all(is_good) == CheckResult()
