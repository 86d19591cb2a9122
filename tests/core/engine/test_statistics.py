"""What is counted, what is not, and what it costs nobody who did not ask for it."""

import ast
import logging
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.core.engine.support import World, note, tier

import tierkit
from tierkit import CacheManager
from tierkit.statistics import CACHE_METRICS, Counters, PerThreadCounters, level_metrics, new_counters
from tierkit.testing import FakeClock
from tierkit.timing import CACHE_OPERATIONS, TIER_OPERATIONS, TimedTier, time_level

COUNTS = set(Counters.__slots__) - {"step", "evictions"}
SOURCES = sorted(Path(tierkit.__file__).parent.glob("*.py"))


# -- exactness ---------------------------------------------------------------------------------------------------------


def counting_statements() -> Iterator[tuple[str, ast.AugAssign]]:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.AugAssign)
                and "counters." in ast.unparse(node.target)
                and "filling" not in str(ast.unparse(node.target))
            ):
                yield f"{path.name}:{node.lineno}", node


def plain(node: ast.AST) -> bool:
    """Whether nothing in it can run a Python function, if attributes are not properties."""
    allowed = (ast.Attribute, ast.Name, ast.Constant, ast.BinOp, ast.Mult, ast.Load, ast.Store, ast.Subscript)
    return all(isinstance(part, allowed) for part in ast.walk(node))


@pytest.mark.req("US6-2")
def test_every_statement_that_counts_is_one_that_no_other_thread_can_interrupt() -> None:
    found = dict(counting_statements())
    assert len(found) >= 15
    assert [where for where, node in found.items() if not (plain(node.target) and plain(node.value))] == []
    read = {part.attr for node in found.values() for part in ast.walk(node) if isinstance(part, ast.Attribute)}
    properties = {
        function.name
        for path in SOURCES
        if path.name in ("level.py", "stack.py", "levels.py", "room.py", "upkeep.py", "writing.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef) and any("property" in ast.unparse(d) for d in function.decorator_list)
    }
    assert "authority" in properties
    assert read & properties == set()


@pytest.fixture
def frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_a_thread_that_ends_while_another_comes_loses_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ending(threading.Thread):
        asked = 0

        def is_alive(self) -> bool:
            self.asked += 1
            return self.asked == 1

    monkeypatch.setattr("tierkit.statistics.free_threaded", lambda: True)
    counters = new_counters()
    ending = Ending()
    with monkeypatch.context() as patch:
        patch.setattr(threading, "current_thread", lambda: ending)
        first = threading.Thread(target=lambda: setattr(counters, "hits", 7))
        first.start()
        first.join()
    another = threading.Thread(target=lambda: setattr(counters, "hits", 1))
    another.start()
    another.join()
    assert counters.totals()["hits"] == 8


@pytest.mark.req("US6-2")
@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize("free", [False, True])
def test_eight_threads_lose_no_count(free: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tierkit.statistics.free_threaded", lambda: free)
    counters = new_counters()
    assert isinstance(counters, PerThreadCounters) is free

    def work() -> None:
        for _ in range(5000):
            counters.hits += counters.step
            counters.evictions["ttl"] += counters.step * 2

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    late = threading.Thread(target=work)  # by now the others have ended
    late.start()
    late.join()
    totals = counters.totals()
    assert (totals["hits"], totals["evictions"]["ttl"], totals["misses"]) == (45_000, 90_000, 0)


def test_the_counts_of_threads_that_ended_are_kept_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tierkit.statistics.free_threaded", lambda: True)
    counters: Any = new_counters()

    def work() -> None:
        counters.misses += counters.step

    for _ in range(20):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert counters.totals()["misses"] == 20
    assert len(counters._shared._parts) <= 2


def test_every_counter_is_in_the_snapshot(world: World) -> None:
    cache = world.open("disk")
    assert set(cache.get_statistics().tiers[0].__struct_fields__) >= COUNTS


# -- what is counted ---------------------------------------------------------------------------------------------------


@pytest.mark.req("US6-1")
def test_a_level_that_is_switched_off_is_not_degraded(world: World) -> None:
    cache = world.open_config([{"backend": "live"}, {"backend": "disk", "enabled": False}, {"backend": "disk"}])
    statistics = cache.get_statistics()
    assert [found.name for found in statistics.tiers] == ["L1", "L3"]
    assert not statistics.l2_degraded
    assert not any("l2" in name for name in statistics.to_metrics_dict())


@pytest.mark.req("US6-1")
def test_a_level_that_goes_out_and_comes_back_says_so(world: World) -> None:
    cache = world.open("live", "disk", "disk")
    level = cache.levels[1]
    level.take_out(OSError("gone"))
    out = cache.get_statistics()
    assert (out.l2_degraded, out.tiers[1].state, out.tiers[1].writable) == (True, "open", True)
    assert (out.l1_degraded, out.l3_degraded) == (False, False)
    level.reset_failures()
    back = cache.get_statistics()
    assert (back.l2_degraded, back.tiers[1].state, back.tiers[1].writable) == (False, "closed", True)
    assert [found.recoveries for found in back.tiers] == [0, 1, 0]
    level.reset_failures()  # it was in service
    assert cache.get_statistics().tiers[1].recoveries == 1


@pytest.mark.req("US6-3")
def test_statistics_are_one_line_at_info_on_request(world: World, caplog: pytest.LogCaptureFixture) -> None:
    cache = world.open("live", "disk", name="proxies")
    cache.put(note("a"))
    cache.get("a")
    cache.get("b")
    cache.levels[1].take_out(OSError("gone"))
    with caplog.at_level(logging.INFO, "tierkit"):
        caplog.clear()
        cache.log_statistics()
    (record,) = caplog.records
    assert (record.levelno, record.name) == (logging.INFO, "tierkit")
    assert record.getMessage() == (
        "proxies: 2 requests, 50.0% answered; L1 (live) 1 records, 1 hits, 1 misses, 0 evictions; "
        "L2 (disk) records unknown, 0 hits, 1 misses, 0 evictions, open"
    )


# -- statistics that are off -------------------------------------------------------------------------------------------


def workload(cache: CacheManager[Any], world: World, clock: FakeClock) -> None:
    """Hits, misses, evictions of every cause, promotions, failures, corruption, an outage."""
    cache.put_many([note("a", ttl_seconds=60), note("b"), note("c")])
    for key in ("a", "b", "none", "a", "c"):
        cache.get(key)
    world.disks["L3"]["c"] = b"garbage"
    for key in ("c", "a", "b"):
        cache.levels[1].tier.clear()
        cache.levels[0].tier.clear()
        cache.get(key)
    cache.invalidate_by_health("b")
    clock.advance(60)
    cache.sweep()
    tier(cache, "L2").fail("get", times=1)
    cache.get("none")
    cache.levels[1].take_out(OSError("gone"))
    cache.levels[1].reset_failures()


@pytest.mark.req("US6-1")
def test_the_workload_counts_when_statistics_are_on(world: World, clock: FakeClock) -> None:
    cache = world.open(("live", 1), ("disk", 2), "disk", failure_threshold=1)
    workload(cache, world, clock)
    statistics = cache.get_statistics()
    total = {name: sum(getattr(level, name) for level in statistics.tiers) for name in COUNTS}
    assert min(total[name] for name in ("hits", "misses", "promotions", "demotions", "failures")) > 0
    assert total["corruptions"] == total["recoveries"] == 1
    causes = {cause for level in statistics.tiers for cause, count in level.evictions.items() if count}
    assert causes == {"lru", "ttl", "health", "corruption"}


def test_enable_statistics_false_stops_all_counting(world: World, clock: FakeClock) -> None:
    cache = world.open(
        ("live", 1),
        ("disk", 2),
        "disk",
        failure_threshold=1,
        enable_statistics=False,
    )
    workload(cache, world, clock)
    statistics = cache.get_statistics()
    metrics = statistics.to_metrics_dict()
    facts = ("_size", "_writable")  # as they are now, and nothing counted
    assert {name: value for name, value in metrics.items() if value and not name.endswith(facts)} == {}
    assert not any("seconds" in name for name in metrics)
    assert statistics.summary().startswith("tierkit: statistics are off; ")
    for level in cache.levels:
        counts = dict(level.counters.totals())
        assert set(counts.pop("evictions").values()) == set(counts.values()) == {0}


# -- latencies ---------------------------------------------------------------------------------------------------------


def timed_tier(cache: CacheManager[Any], name: str) -> Any:
    """The scripted tier behind the one that measures."""
    tier: Any = next(level.tier for level in cache.levels if level.name == name)
    return tier.tier


def test_without_histograms_nothing_stands_in_the_way(world: World) -> None:
    cache = world.open("live", "disk")
    assert type(cache) is CacheManager
    assert not any(isinstance(level.tier, TimedTier) for level in cache.levels)
    assert (cache.get_statistics().latencies, cache.get_statistics().tiers[0].latencies) == ({}, {})


@pytest.mark.req("US6-3")
def test_latencies_are_those_of_the_injected_clock(world: World, clock: FakeClock) -> None:
    cache = world.open("live", "disk", latency_histograms=True)
    assert isinstance(cache, CacheManager)
    timed_tier(cache, "L2").before("put", lambda: clock.advance(0.25))
    cache.put(note("a"))
    cache.get("a")
    statistics = cache.get_statistics()
    put, get = statistics.latencies["put"], statistics.latencies["get"]
    assert (put.count, put.sum_seconds, get.count, get.sum_seconds) == (1, 0.25, 1, 0.0)
    assert 0.25 <= put.p50 == put.p99 <= 0.25 * 1.125
    assert statistics.tiers[1].latencies["put"].sum_seconds == 0.25
    assert statistics.tiers[0].latencies["get"].count >= 1
    assert "get" not in statistics.tiers[1].latencies
    metrics = statistics.to_metrics_dict()
    assert (metrics["put_seconds_count"], metrics["put_seconds_sum"]) == (1, 0.25)
    assert metrics["put_seconds_p99"] == metrics["l2_put_seconds_p50"] == put.p50


def test_a_call_that_fails_is_measured_too(world: World, clock: FakeClock) -> None:
    cache = world.open("disk", latency_histograms=True)
    inner = timed_tier(cache, "L1")
    inner.before("get", lambda: clock.advance(2.0))
    inner.fail("get", times=1)
    cache.get("a")
    assert cache.get_statistics().tiers[0].latencies["get"].sum_seconds == 2.0


def test_every_operation_is_measured_as_a_whole_and_by_level(world: World) -> None:
    cache = world.open(("live", 1), ("disk", 1), "disk", latency_histograms=True)
    cache.put(note("a"))
    cache.put_many([note("b"), note("c")])
    cache.get("a")
    cache.delete("a")
    cache.invalidate_by_health("b")
    cache.get("b")
    cache.flush()
    cache.sweep()
    statistics = cache.get_statistics()
    assert statistics.latencies.keys() == set(CACHE_OPERATIONS)
    seen = {name for level in statistics.tiers for name in level.latencies}
    assert seen <= set(TIER_OPERATIONS)
    assert seen >= {"get", "put", "put_many", "delete", "replace", "discard", "overflow", "touch_many", "purge"}


def test_what_a_measured_tier_has_besides_is_passed_on(world: World) -> None:
    cache = world.open("live", "disk", latency_histograms=True)
    level = cache.levels[0]
    assert level.tier.context.name == "L1"
    level.tier.lock = lock = threading.RLock()
    assert timed_tier(cache, "L1").lock is lock
    cache.put(note("a"))
    cache.close()
    with pytest.raises(tierkit.CacheClosedError):
        cache.get("a")


def test_a_tier_that_is_opened_late_is_measured_too(world: World) -> None:
    cache = world.open("live", "disk", latency_histograms=True)
    level = cache.levels[0]
    inner = level.tier
    level.reopen = lambda: inner
    time_level(level, world.clock.monotonic)
    assert level.reopen is not None
    level.take_out(OSError("gone"))
    assert level.probe()
    assert isinstance(level.tier, TimedTier)
    cache.put(note("a"))
    assert level.latencies["put"].snapshot().count == 1


def test_a_users_own_subclass_keeps_its_methods_when_measured(world: World) -> None:
    class Own(CacheManager[Any]):
        def get(self, key: str, *, allow_stale: bool = False) -> Any:
            return super().get(key.lower(), allow_stale=allow_stale)

    config = tierkit.CacheConfig(tiers=({"backend": "disk"},), latency_histograms=True)
    with Own(config, entry_type=type(note("a")), clock=world.clock, plugins=[world]) as cache:
        cache.put(note("a"))
        assert cache.get("A") is not None
        assert isinstance(cache, Own)
        assert cache.get_statistics().latencies["get"].count == 1


def test_no_metric_takes_the_name_of_another_but_where_the_configuration_refuses_the_names() -> None:
    """A name that ends with that of a metric of a level could be one: of the level that its beginning names."""

    def with_latencies(names: set[str], operations: tuple[str, ...]) -> set[str]:
        return names | {f"{name}_seconds_{part}" for name in operations for part in ("count", "sum", "p50", "p90")}

    of_level = with_latencies({name.removeprefix("x_") for name in level_metrics("x")}, TIER_OPERATIONS)
    of_cache = with_latencies(set(CACHE_METRICS), CACHE_OPERATIONS)
    pairs = {(name, end) for name in of_level | of_cache for end in of_level if name.endswith(f"_{end}")}
    assert pairs == {("stale_hits", "hits"), ("overall_hit_rate", "hit_rate")}


def test_the_metrics_that_names_are_compared_by_are_those_that_there_are(world: World) -> None:
    cache = world.open("live", "disk")
    named = {*CACHE_METRICS, *level_metrics("L1"), *level_metrics("L2")}
    assert named == set(cache.get_statistics().to_metrics_dict())
