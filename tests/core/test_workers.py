"""Calls with a time limit: what hangs hangs alone."""

import threading
from collections.abc import Iterator

import pytest

from tierkit import TierTimeout
from tierkit.workers import MOST, Workers

PATIENCE = 30.0
AT_ONCE = 0.01  # seconds, for calls that hang until the test ends


class Hang:
    """A call that does not end before the test lets it."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.end = threading.Event()
        self.ended = threading.Semaphore(0)

    def __call__(self) -> str:
        self.begun.release()
        assert self.end.wait(PATIENCE)
        self.ended.release()
        return "late"


@pytest.fixture
def hang() -> Hang:
    return Hang()


@pytest.fixture
def impatient(hang: Hang) -> Iterator[Workers]:
    """Workers that give up at once, and whose threads end with the test."""
    workers = Workers("L1", AT_ONCE)
    yield workers
    hang.end.set()
    threads = list(workers._threads)
    workers.close()
    for thread in threads:
        thread.join(PATIENCE)


def test_a_call_gives_its_result_or_its_error() -> None:
    workers = Workers("L1", PATIENCE)
    assert workers.call(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        workers.call(divmod, 7, 0)
    workers.close()


def test_calls_run_in_other_threads_as_few_as_will_do() -> None:
    workers = Workers("L1", PATIENCE)
    idents = {workers.call(threading.get_ident) for _ in range(20)}
    assert threading.get_ident() not in idents
    assert len(idents) <= 2  # a worker may not be idle yet when the next call comes
    workers.close()


def test_a_call_that_hangs_is_given_up_and_counted_as_stuck_until_it_ends(impatient: Workers, hang: Hang) -> None:
    with pytest.raises(TierTimeout, match=r"L1: .* longer than the level's timeout_seconds = 0.01"):
        impatient.call(hang)
    assert hang.begun.acquire(timeout=PATIENCE)
    assert impatient.stuck == 1
    threads = list(impatient._threads)
    hang.end.set()
    impatient.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert impatient.stuck == 0


def test_when_all_workers_hang_the_next_call_is_refused_without_a_wait(impatient: Workers, hang: Hang) -> None:
    for _ in range(MOST):
        with pytest.raises(TierTimeout, match="longer"):
            impatient.call(hang)
    with pytest.raises(TierTimeout, match=f"{MOST} calls hang"):
        impatient.call(int)
    assert impatient.stuck == MOST


def test_a_call_that_was_given_up_before_it_began_is_never_made(impatient: Workers, hang: Hang) -> None:
    made: list[int] = []
    impatient._stuck = -MOST  # so that the last one is not refused, but waits in line
    for _ in range(MOST):
        with pytest.raises(TierTimeout):
            impatient.call(hang)
    with pytest.raises(TierTimeout):
        impatient.call(made.append, 1)
    threads = list(impatient._threads)
    hang.end.set()
    impatient.close()
    for thread in threads:
        thread.join(PATIENCE)
    assert not made


def test_close_ends_the_threads() -> None:
    workers = Workers("closing", PATIENCE)
    workers.call(int)
    workers.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tierkit-closing")]


def test_in_a_forked_child_it_begins_anew(impatient: Workers, hang: Hang) -> None:
    with pytest.raises(TierTimeout):
        impatient.call(hang)
    threads, tasks = list(impatient._threads), impatient._tasks
    impatient.renew()
    assert (impatient.stuck, impatient._threads) == (0, [])
    hang.end.set()
    tasks.put(None)
    for thread in threads:
        thread.join(PATIENCE)
