"""An interrupt between any two steps of the engine keeps nobody else from going on."""

from collections.abc import Callable

import pytest
from tests.core.engine.support import Note, World, note
from tests.interrupts import from_another_thread, interrupted

from tierkit import CacheManager

CALLS: dict[str, Callable[[CacheManager[Note]], object]] = {
    "put": lambda cache: cache.put(note("a", "new")),
    "a read from below": lambda cache: cache.get("b"),
}


@pytest.mark.no_canary("an interrupt may leave the lock of a handler of the log held")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an interrupt as a generator is closed
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_interrupt_leaves_no_lock_behind(world: World, call: Callable[[CacheManager[Note]], object]) -> None:
    cache = world.open(("live", 1), "disk", late_seconds=0.01)
    number, more = 0, True
    while more:
        number += 1
        cache.put_many([note("b", "old"), note("a", "old")])
        more = interrupted(lambda: call(cache), number)
        from_another_thread(lambda: cache.get("b"))
        put = from_another_thread(lambda: cache.put(note("a", "newer")))
        assert isinstance(put, Note)
        assert cache.get("a") == put
    assert number > 20
