"""Observers: who is asked for them, what they are told and when, and that none can hurt a cache."""

import gc
import logging
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from tests.configs import load, toml
from tests.core.engine.support import Note, World, note, tier

from tierkit import (
    METRICS,
    CacheClosedError,
    CacheConfig,
    CacheConfigError,
    CacheManager,
    CacheObserver,
    CacheStatistics,
    ObservedCaches,
    PluginError,
    hookimpl,
    samples,
)
from tierkit.observers import Observers
from tierkit.plugins import discover
from tierkit.statistics import Counters
from tierkit.testing import FakeClock


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")
    port: int = 1
    password: str = ""


class Diary(CacheObserver):
    """Writes everything down."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.statistics: Callable[[], CacheStatistics] | None = None

    def on_open(self, statistics: Callable[[], CacheStatistics]) -> None:
        self.statistics = statistics

    def __getattribute__(self, name: str) -> Any:
        if name in vars(CacheObserver) and name.startswith("on_") and name != "on_open":
            return lambda *args: self.told.append((name, *args))
        return super().__getattribute__(name)


class Watching:
    """A plugin that offers an observer called `diary`."""

    __name__ = "diary"

    def __init__(self, made: Any = None) -> None:
        self.made = Diary() if made is None else made
        self.asked: list[tuple[str, Mapping[str, Any]]] = []

    @hookimpl
    def make_observer(self, cache_name: str, options: Mapping[str, Any]) -> Any:
        self.asked.append((cache_name, dict(Options(**options))))
        return self.made


class Simple:
    """A plugin whose observer takes no options."""

    __name__ = "simple"

    @hookimpl
    def make_observer(self, cache_name: str) -> Any:
        return CacheObserver()


def open_watched(world: World, *plugins: Any, levels: Any = ("live", "disk"), **settings: Any) -> CacheManager[Any]:
    pairs = [(level, None) if isinstance(level, str) else level for level in levels]
    tiers = tuple({"backend": kind, "max_entries": bound} for kind, bound in pairs)
    names = [plugin.__name__ for plugin in plugins]
    config = CacheConfig(**{"tiers": tiers, "observers": names, **settings})
    cache: CacheManager[Any] = CacheManager(config, entry_type=Note, clock=world.clock, plugins=[world, *plugins])
    world.caches.append(cache)
    return cache


@pytest.fixture
def diary(world: World) -> Diary:
    return Diary()


def watched(world: World, diary: Diary, **settings: Any) -> CacheManager[Any]:
    return open_watched(world, Watching(diary), **settings)


# -- who is asked ------------------------------------------------------------------------------------------------------


def test_an_observer_that_is_named_is_made_with_the_name_of_the_cache_and_its_options(world: World) -> None:
    plugin = Watching()
    cache = open_watched(world, plugin, name="proxies", observer_options={"diary": {"port": "7"}})
    assert plugin.asked == [("proxies", {"port": 7, "password": ""})]
    assert cache.observers == {"diary": plugin.made}


def test_an_observer_that_is_not_named_is_not_asked(world: World) -> None:
    plugin = Watching()
    cache = open_watched(world, plugin, observers=(), observer_options={"diary": {"port": "seven"}})
    assert (plugin.asked, cache.observers) == ([], {})


def test_a_plugin_need_not_take_options(world: World) -> None:
    assert list(open_watched(world, Simple()).observers) == ["simple"]
    with pytest.raises(CacheConfigError, match=r"'simple' \(code\) has no options, and was given port"):
        open_watched(world, Simple(), observer_options={"simple": {"port": 1}})


def refusal(world: World, *plugins: Any, **settings: Any) -> str:
    with pytest.raises(CacheConfigError) as caught:
        open_watched(world, *plugins, **settings)
    return str(caught.value)


def test_an_unknown_observer_is_refused_and_the_nearest_named(world: World) -> None:
    message = refusal(world, Watching(), observers=("dairy",))
    assert "observers = 'dairy' (code): no plugin offers the observer 'dairy': did you mean 'diary'?" in message


def test_options_for_an_observer_that_is_not_named_are_refused(world: World) -> None:
    message = refusal(world, Watching(), observer_options={"dairy": {"port": 1}})
    assert message == "observer_options.dairy.port (code): 'dairy' is not one of the observers: diary"


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"port": "x"}, "observer_options.diary.port = 'x' (code): must be a whole number"),
        ({"prot": 1}, "observer_options.diary.prot = 1 (code): there is no such option"),
        ({"password": 5}, "observer_options.diary.password = ********** (code): must be text"),
    ],
)
def test_a_wrong_option_is_refused_as_any_other_setting(world: World, options: dict[str, Any], wrong: str) -> None:
    assert refusal(world, Watching(), observer_options={"diary": options}) == wrong


OFFERED = "Observer 'diary' has the options port, password"


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    port: int = 1


class Declaring(Watching):
    """A plugin that says which options its observer has."""

    def __init__(self, model: Any = Options) -> None:
        super().__init__()
        self.model = model

    @hookimpl
    def register_observer_options(self) -> Any:
        return self.model


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"port": "x"}, "observer_options.diary.port = 'x' (code): must be a whole number"),
        ({"prot": 1}, "observer_options.diary.prot (code): there is no such option; did you mean 'port'? " + OFFERED),
        ({"password": 5}, "observer_options.diary.password = ********** (code): must be text"),
    ],
)
def test_an_option_that_its_plugin_does_not_know_is_refused_with_the_nearest(
    world: World, options: dict[str, Any], wrong: str
) -> None:
    plugin = Declaring()
    assert refusal(world, plugin, observer_options={"diary": options}) == wrong
    assert plugin.asked == []


def test_options_are_checked_by_name_for_observers_that_are_not_named_too() -> None:
    config = CacheConfig(observer_options={"diary": {"prot": 1, "port": "x"}, "other": {"a": 1}})
    registry = discover([Declaring()], installed=())
    config.check_observers(registry)
    with pytest.raises(CacheConfigError, match="2 settings are wrong") as caught:
        config.check_observer_options(registry)
    assert "did you mean 'port'?" in str(caught.value)


def test_a_model_that_takes_any_option_is_taken_at_its_word(world: World) -> None:
    open_watched(world, Declaring(Open), observer_options={"diary": {"port": 7}})
    config = CacheConfig(observer_options={"diary": {"prot": 1}})
    config.check_observer_options(discover([Declaring(Open)], installed=()))


@pytest.mark.parametrize("answer", [Options(), {"port": int}, None])
def test_options_that_are_no_model_make_a_plugin_broken(answer: Any) -> None:
    registry = discover([Declaring(answer)], installed=())
    assert [(plugin.name, "not a pydantic model" in plugin.error) for plugin in registry.broken] == [("diary", True)]


def test_the_observer_of_a_broken_plugin_is_refused_and_not_offered(world: World) -> None:
    assert discover([Declaring(Options())], installed=()).observers == ()
    with pytest.raises(
        PluginError, match=r"observer 'diary'.*cannot be used: .*returned Options, not a pydantic model"
    ):
        open_watched(world, Declaring(Options()))


def test_two_plugins_for_one_observer_are_both_named(world: World) -> None:
    first, second = (type("diary", (), {"make_observer": Watching.make_observer})() for _ in range(2))
    config = CacheConfig(tiers=({"backend": "live"},), observers=("diary",))
    with pytest.raises(PluginError, match=r"'diary' is offered by 'diary' \(code\) and 'diary' \(code\)"):
        CacheManager(config, entry_type=Note, clock=world.clock, plugins=[world, first, second])


def test_a_plugin_that_makes_nothing_or_fails_keeps_the_cache_from_opening_and_closes_the_others(world: World) -> None:
    first = Watching()

    class Bad:
        __name__ = "bad"

        @hookimpl
        def make_observer(self, cache_name: str) -> Any:
            raise OSError("port in use")

    class Nothing:
        __name__ = "nothing"

        @hookimpl
        def make_observer(self, cache_name: str) -> Any:
            return None

    with pytest.raises(PluginError, match="'bad' could not be made: OSError: port in use"):
        open_watched(world, first, Bad())
    assert first.made.told == [("on_close",)]
    with pytest.raises(PluginError, match="its make_observer made none"):
        open_watched(world, Nothing())


# -- settings ----------------------------------------------------------------------------------------------------------


def test_observers_and_options_come_from_file_environment_and_code_option_by_option(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        '[tierkit]\nobservers = ["prometheus"]\n[tierkit.observer_options.prometheus]\nport = 1\naddress = "a"\n',
    )
    environ = {"TIERKIT_OBSERVER_OPTIONS__PROMETHEUS__PORT": "2", "TIERKIT_OBSERVERS": "one, two"}
    config = load(file, environ, observer_options={"prometheus": {"token": "hush"}})
    assert config.observers == ("one", "two")
    assert config.observer_options == {"prometheus": {"port": "2", "address": "a", "token": "hush"}}
    assert config.origins["observer_options.prometheus.port"].startswith("environment")
    assert config.origins["observer_options.prometheus.address"].startswith("file")
    shown = {line.name: line.value_text for line in config.effective()}
    assert shown["observer_options.prometheus.token"] == "**********"
    assert load(file, {"TIERKIT_OBSERVER_OPTIONS__PROMETHEUS": '{"port": 3}'}).observer_options["prometheus"] == {
        "port": 3,
        "address": "a",
    }


# -- what it is told ---------------------------------------------------------------------------------------------------


def test_it_is_told_of_what_is_rare_and_not_of_reads(world: World, diary: Diary, clock: FakeClock) -> None:
    cache = watched(world, diary, levels=(("live", 1), "disk"), failure_threshold=1)
    cache.put(note("a", ttl_seconds=60))
    assert diary.told == []
    cache.put(note("b"))
    assert diary.told == [("on_eviction", "L1", "lru")]
    cache.get("a")
    assert diary.told[1:] == [("on_promotion", "L1"), ("on_eviction", "L1", "lru")]
    diary.told.clear()
    cache.get("a")
    cache.get("none")
    assert diary.told == []
    clock.advance(60)
    cache.get("a")
    assert diary.told == [("on_eviction", "L1", "ttl"), ("on_eviction", "L2", "ttl")]
    diary.told.clear()
    cache.invalidate_by_health("b")
    assert diary.told == [("on_eviction", "L1", "health"), ("on_eviction", "L2", "health")]


def test_it_is_told_of_damage_sweeps_and_levels_that_come_and_go(world: World, diary: Diary) -> None:
    cache = watched(world, diary)
    cache.put(note("a"))
    tier(cache, "L1").clear()
    world.disks["L2"]["a"] = b"garbage"
    cache.get("a")
    assert diary.told == [("on_corruption", "L2"), ("on_eviction", "L2", "corruption")]
    diary.told.clear()
    cache.sweep()
    assert diary.told == [("on_sweep", "L1", 0), ("on_sweep", "L2", 0)]
    diary.told.clear()
    cache.levels[0].take_out(OSError("gone"))
    cache.levels[0].take_out(OSError("gone"))
    cache.levels[0].reset_failures()
    assert diary.told == [("on_level_out", "L1", "gone"), ("on_level_back", "L1")]
    diary.told.clear()
    cache.close()
    cache.close()
    assert diary.told == [("on_close",)]


@pytest.mark.req("US6-3")
def test_it_asks_for_statistics_when_it_wants_them_until_the_cache_is_closed(world: World, diary: Diary) -> None:
    cache = watched(world, diary, name="mine")
    cache.get("a")
    assert diary.statistics is not None
    found = diary.statistics()
    assert (found.name, found.requests) == ("mine", 1)
    cache.close()
    with pytest.raises(CacheClosedError):
        diary.statistics()


def test_it_does_not_keep_a_dropped_cache_alive(world: World, diary: Diary) -> None:
    cache = watched(world, diary)
    world.caches.clear()
    gone = weakref.ref(cache)
    caches = [cache]
    del cache
    with pytest.warns(ResourceWarning):
        caches.clear()
    gc.collect()
    assert gone() is None
    assert diary.told == [("on_close",)]
    assert diary.statistics is not None
    with pytest.raises(CacheClosedError, match="dropped"):
        diary.statistics()


def test_one_that_raises_is_logged_once_closed_and_told_no_more(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Diary):
        def __getattribute__(self, name: str) -> Any:
            if name == "on_eviction":
                raise RuntimeError("broken")
            return super().__getattribute__(name)

    broken, other = Broken(), Simple()
    cache = open_watched(world, Watching(broken), other, levels=(("live", 1), "disk"))
    for key in "abc":
        cache.put(note(key))
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        "the observer diary failed in on_eviction and is told nothing more"
    ]
    assert broken.told == [("on_close",)]
    assert list(cache.observers) == ["simple"]


def test_one_that_raises_while_it_is_closed_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(CacheObserver):
        closed = 0

        def on_close(self) -> None:
            self.closed += 1
            raise RuntimeError("broken")

    broken = Broken()
    observers = Observers({"broken": broken})
    observers.close()
    observers.close()
    assert broken.closed == 1
    assert "on_close" in caplog.text


def test_an_object_with_some_of_the_methods_will_do(world: World) -> None:
    class Part:
        def __init__(self) -> None:
            self.out: list[str] = []

        def on_level_out(self, level: str, reason: str) -> None:
            self.out.append(level)

    part = Part()
    cache = open_watched(world, Watching(part), levels=(("live", 1), "disk"))
    cache.put(note("a"))
    cache.put(note("b"))
    cache.levels[0].take_out(OSError("gone"))
    assert part.out == ["L1"]
    assert cache.observers == {"diary": part}


# -- samples -----------------------------------------------------------------------------------------------------------


@pytest.mark.req("US6-1")
def test_the_samples_are_every_metric_with_its_labels(world: World) -> None:
    cache = world.open(("live", 1), "disk", latency_histograms=True, name="mine")
    cache.put(note("a"))
    found = list(samples(cache.get_statistics()))
    assert {sample.metric for sample in found} == set(METRICS)
    for sample in found:
        assert tuple(sample.labels) == ("cache", *sample.metric.labels)
        assert sample.labels["cache"] == "mine"
    values = {(sample.metric.name, *list(sample.labels.values())[1:]): sample.value for sample in found}
    assert values["records", "L2"] == 1
    assert (values["breaker_state", "L1", "closed"], values["breaker_state", "L1", "open"]) == (1, 0)
    assert values["evictions", "L1", "lru"] == 0


def test_every_counter_of_a_level_is_a_metric() -> None:
    names = {metric.name for metric in METRICS}
    assert set(Counters.__slots__) - {"step"} <= names


def test_a_size_that_cannot_be_told_is_left_out(world: World) -> None:
    cache = world.open("live", "disk")
    cache.levels[0].take_out(OSError("gone"))
    found = [sample.labels["level"] for sample in samples(cache.get_statistics()) if sample.metric.name == "records"]
    assert found == ["L2"]


def test_caches_of_one_name_are_told_apart(world: World, caplog: pytest.LogCaptureFixture) -> None:
    first, second = world.open("live"), world.open("live")
    caches = ObservedCaches()
    assert [caches.add("tierkit", cache.get_statistics) for cache in (first, second)] == ["tierkit", "tierkit-2"]
    assert "two caches are called tierkit" in caplog.text
    assert {sample.labels["cache"] for sample in caches.samples()} == {"tierkit", "tierkit-2"}
    first.close()
    assert {sample.labels["cache"] for sample in caches.samples()} == {"tierkit-2"}
    caches.remove("tierkit")
    assert (len(caches), caches.add("tierkit", second.get_statistics)) == (1, "tierkit")
