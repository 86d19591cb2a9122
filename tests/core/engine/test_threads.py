"""Four threads, few keys, thousands of operations: nothing is lost, stale or counted wrongly."""

import random
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.core.engine.support import Note, World, held, note, tier

from tierkit import CacheManager

THREADS = 4
KEYS = [*"abcd"]


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def together(work: Callable[[int], None]) -> None:
    """Run `work` in four threads; what one raises is raised here."""
    errors: list[BaseException] = []
    start = threading.Barrier(THREADS)

    def run(number: int) -> None:
        try:
            start.wait()
            work(number)
        except BaseException as error:  # noqa: BLE001 - it is raised below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def check_levels(cache: CacheManager[Note]) -> None:
    """No level holds anything older than the authority, and all bounds hold."""
    authority = tier(cache, cache.levels[-1].name).tier
    for level in cache.levels:
        inner = tier(cache, level.name).tier
        assert level.max_entries is None or inner.size() <= level.max_entries
        for record in inner.scan():
            truth = authority.get(record.key)
            assert truth is not None
            assert truth.version == record.version
            assert held(cache, level.name, record.key) == held(cache, cache.levels[-1].name, record.key)
    assert cache._stack.filling.flights == {}


@pytest.mark.req("US6-2")
@pytest.mark.req("E-4")
@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize(
    "levels",
    [("live",), ("disk",), ("live", "disk"), (("live", 2), ("disk", 3), "disk"), (("live", 1), ("disk", 1), "disk")],
)
def test_mixed_operations_leave_every_level_in_step_with_the_authority(world: World, levels: Any) -> None:
    cache = world.open(*levels, failure_threshold=10**9)
    world.calls = _Forgetful()
    for level in cache.levels:
        tier(cache, level.name).log = world.calls
    gets = [0] * THREADS

    def work(number: int) -> None:
        dice = random.Random(number)
        for step in range(600):
            key = dice.choice(KEYS)
            kind = dice.random()
            if kind < 0.55:
                gets[number] += 1
                entry = cache.get(key)
                assert entry is None or entry.key == key
            elif kind < 0.80:
                cache.put(note(key, f"{number}.{step}"))
            elif kind < 0.88:
                cache.put_many([note(k, f"{number}.{step}.{k}") for k in KEYS[: dice.randrange(4)]])
            elif kind < 0.94:
                cache.delete(key)
            elif kind < 0.97:
                cache.invalidate_by_health(key)
            elif kind < 0.98:
                cache.clear()
            else:
                cache.sweep()

    together(work)
    check_levels(cache)
    statistics = cache.get_statistics()
    assert statistics.requests == sum(gets)
    assert statistics.answered == sum(level.counters.hits for level in cache.levels)


class _Forgetful(list[Any]):
    def append(self, _: Any) -> None: ...


@pytest.mark.usefixtures("frequent_switches")
def test_a_get_after_a_put_is_never_older(world: World) -> None:
    cache = world.open(("live", 2), ("disk", 2), "disk")
    newest = dict.fromkeys(KEYS, 0)  # the version of the newest put that has returned
    locks = {key: threading.Lock() for key in KEYS}

    def work(number: int) -> None:
        dice = random.Random(number)
        for step in range(500):
            key = dice.choice(KEYS)
            if dice.random() < 0.3:
                put = cache.put(note(key, f"{number}.{step}"))
                with locks[key]:
                    newest[key] = max(newest[key], put.version)
            else:
                with locks[key]:
                    bound = newest[key]
                entry = cache.get(key)
                assert entry is not None or bound == 0
                assert entry is None or entry.version >= bound

    together(work)
    check_levels(cache)


@pytest.mark.usefixtures("frequent_switches")
def test_a_get_after_a_deletion_or_a_clear_finds_nothing_from_before(world: World) -> None:
    cache = world.open(("live", 2), ("disk", 2), "disk")

    def work(number: int) -> None:
        dice = random.Random(number)
        if number:  # readers, who promote what they find
            for _ in range(2500):
                cache.get(dice.choice(KEYS))
            return
        for step in range(150):
            for key in KEYS:
                cache.put(note(key, str(step)))
            if step % 3 == 0:
                cache.clear()
                assert not any(cache.get_many(KEYS))
            else:
                for key in KEYS:
                    cache.delete(key)
                    assert cache.get(key) is None

    together(work)
    check_levels(cache)


@pytest.mark.req("US4-4")
@pytest.mark.usefixtures("frequent_switches")
def test_reads_in_l1_are_counted_exactly(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    cache.put_many([note(key) for key in KEYS])
    stop = threading.Event()

    def work(number: int) -> None:
        if number == 0:
            while not stop.is_set():
                cache.flush()
            return
        try:
            for step in range(2000):
                cache.get(KEYS[step % 4])
        finally:
            stop.set()

    together(work)
    cache.flush()
    assert sum(row.access_count for row in tier(cache, "L3").tier.scan()) == 3 * 2000
    assert cache.get_statistics().tiers[0].hits == 3 * 2000


@pytest.mark.usefixtures("frequent_switches")
def test_a_level_that_comes_and_goes_never_serves_what_it_missed(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    done = threading.Event()

    def work(number: int) -> None:
        dice = random.Random(number)
        if number == 0:
            while not done.is_set():
                for level in cache.levels[:2]:
                    level.take_out(OSError("gone"))
                    level.reset_failures()
            return
        mine = f"k{number}"
        try:
            for step in range(400):
                cache.put(note(mine, str(step)))
                entry = cache.get(mine)
                assert entry is not None
                assert entry.text == str(step)
                cache.get(f"k{dice.randrange(1, THREADS)}")
        finally:
            done.set()

    together(work)
    for level in cache.levels:
        level.reset_failures()
    check_levels(cache)
