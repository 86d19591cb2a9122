"""Discovery through entry points: what is offered, what is broken, and who is told when."""

import logging
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, PathDistribution, distributions
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from pydantic import BaseModel

from tierkit import ANY_POLICY, CacheConfigError, CacheTier, PluginError, TierSpec, Trait, UnknownTierError, hookimpl
from tierkit.plugins import PluginRegistry, discover, nearest

GOOD = """
from pydantic import BaseModel
from tierkit import TierSpec, Trait, hookimpl
class Options(BaseModel): pass
@hookimpl
def register_tiers():
    return [TierSpec(kind="KIND", factory=print, options=Options, traits=Trait.PERSISTENT, api=1, summary="keeps")]
"""

METHODS = """
class Shelf:
    @hookimpl
    def tiers(self, register=register_tiers):
        return register()
    @classmethod
    @hookimpl
    def of_class(cls, register=register_tiers):
        return register()
"""


class Options(BaseModel):
    pass


class Plugin:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    @hookimpl
    def register_tiers(self) -> Any:
        return self.answer


def spec(kind: str = "shelf", **changes: Any) -> TierSpec:
    fields: dict[str, Any] = {"factory": print, "options": Options, "traits": Trait.NONE, "api": 1, **changes}
    return TierSpec(kind=kind, **fields)


class Environment:
    """Distributions in a folder of their own, with real metadata."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, distribution: str, source: str, *, kind: str = "shelf", name: str | None = None) -> None:
        module = f"{distribution.replace('-', '_')}_{self.folder.name.replace('-', '_')}"
        (self.folder / f"{module}.py").write_text(source.replace("KIND", kind))
        info = self.folder / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[tierkit]\n{name or kind} = {module}\n")

    def entry_points(self) -> list[EntryPoint]:
        found = distributions(path=[str(self.folder)])
        return sorted((point for dist in found for point in dist.entry_points), key=lambda point: point.value)

    def discover(self) -> PluginRegistry:
        return discover(installed=self.entry_points())


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield Environment(tmp_path)
    for module in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[module], "__file__", "")):
            del sys.modules[module]


def only(*plugins: object) -> PluginRegistry:
    return discover(plugins, installed=())


def broken(answer: Any) -> str:
    """What is said of a plugin whose hook gives this answer."""
    (found,) = only(Plugin(answer)).broken
    return found.error


@pytest.mark.req("F-8")
def test_a_tier_is_found_by_its_entry_point(environment: Environment) -> None:
    environment.install("shelf-plugin", GOOD)
    registry = environment.discover()
    assert registry.spec("shelf").summary == "keeps"
    assert registry.kinds == ("shelf",)


def test_what_is_installed_is_listed_for_people(environment: Environment) -> None:
    environment.install("shelf-plugin", GOOD, name="the-entry")
    (tier,) = environment.discover().installed
    assert (tier.kind, tier.distribution, tier.version, tier.summary) == (
        "shelf",
        "shelf-plugin",
        "1.2",
        "keeps",
    )
    assert tier.traits is Trait.PERSISTENT
    assert tier.entry_point.startswith("the-entry = shelf_plugin_")


def test_the_installed_plugins_of_this_environment_are_found() -> None:
    found = discover()
    names = {*found.kinds, *(plugin.name for plugin in found.broken)}
    assert {"memory", "jsonl", "sqlite"} <= names


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("1 / 0", "ZeroDivisionError"),
        ("import sys; sys.exit('no')", "SystemExit: no"),
        ("x = 1", "nothing in it is marked with tierkit.hookimpl"),
        ("from tierkit import hookimpl\n@hookimpl\ndef register_tiers(): raise KeyError('gone')", "gone"),
        ("from tierkit import hookimpl\n@hookimpl\ndef register_tiers(): return 5", "returned int"),
        ("from tierkit import hookimpl\n@hookimpl\ndef register_tires(): return []", "register_tires"),
        ("from tierkit import hookimpl\n@hookimpl\ndef register_tiers(config): return []", "config"),
    ],
)
def test_a_broken_plugin_is_raised_only_when_its_kind_is_asked_for(
    environment: Environment, source: str, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    environment.install("bad-plugin", source, kind="bad")
    environment.install("good-plugin", GOOD)
    with caplog.at_level(logging.WARNING):
        registry = environment.discover()
    assert registry.spec("shelf").kind == "shelf"
    (found,) = registry.broken
    assert (found.name, found.distribution) == ("bad", "bad-plugin 1.2")
    assert error in found.error
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "bad-plugin" in record.getMessage()
    with pytest.raises(PluginError, match=r"'bad' \(bad-plugin 1.2\) cannot be used"):
        registry.spec("bad")


def test_two_plugins_for_one_kind_are_both_named_when_it_is_asked_for(environment: Environment) -> None:
    environment.install("one-plugin", GOOD)
    environment.install("two-plugin", GOOD)
    environment.install("other-plugin", GOOD, kind="other")
    registry = environment.discover()
    assert registry.spec("other").kind == "other"
    assert [tier.distribution for tier in registry.installed] == ["other-plugin", "one-plugin", "two-plugin"]
    with pytest.raises(PluginError, match=r"one-plugin 1.2.*two-plugin 1.2.*uninstall all but one"):
        registry.spec("shelf")


def test_a_plugin_that_works_is_used_though_one_of_the_same_name_is_broken(environment: Environment) -> None:
    environment.install("bad-plugin", "1 / 0", kind="shelf")
    environment.install("good-plugin", GOOD)
    assert environment.discover().spec("shelf").summary == "keeps"


def test_a_plugin_given_in_code_that_is_also_installed_counts_once(environment: Environment) -> None:
    environment.install("shelf-plugin", GOOD)
    (point,) = environment.entry_points()
    assert discover([point.load()], installed=[point]).spec("shelf").kind == "shelf"


def test_plugins_given_in_code_are_taken() -> None:
    registry = only(Plugin([spec("a"), spec("b")]), Plugin((spec("c"),)))
    assert registry.kinds == ("a", "b", "c")
    assert {tier.distribution for tier in registry.installed} == {""}


@pytest.mark.parametrize("extra", [object(), Plugin([spec("a")]), sys, "my_plugin"], ids=type)
def test_a_plugin_that_is_given_without_a_list_around_it_is_refused(extra: Any) -> None:
    with pytest.raises(CacheConfigError, match=rf"not {type(extra).__name__}: for one plugin write plugins=\[it\]"):
        discover(extra)


@pytest.mark.parametrize("form", ["staticmethod(register_tiers)", "Shelf().tiers", "Shelf.of_class"])
def test_a_hook_of_a_module_may_be_any_kind_of_function(environment: Environment, form: str) -> None:
    environment.install("shelf-plugin", f"{GOOD}{METHODS}\nregister_tiers = {form}")
    assert environment.discover().kinds == ("shelf",)


def test_the_metadata_of_what_is_installed_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    discover()
    monkeypatch.setattr(PathDistribution, "read_text", Mock(side_effect=AssertionError("read again")))
    registry = discover()
    assert registry.broken == []
    assert all(tier.version for tier in registry.installed)


def test_registries_do_not_share_plugins() -> None:
    plugin = Plugin([spec()])
    assert only(plugin).kinds == only(plugin).kinds == ("shelf",)
    assert only().kinds == ()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (None, "returned NoneType"),
        ("shelf", "returned str"),
        ([SimpleNamespace()], "not a TierSpec"),
        ([spec("")], "kind must be a name"),
        ([spec(factory=None)], "factory must be callable"),
        ([spec(traits=3)], "traits must be a Trait, not int"),
        ([spec(options=dict)], "options must be a pydantic model"),
        ([spec(options=type("O", (BaseModel,), {"__annotations__": {"max_entries": int}}))], "max_entries"),
        ([spec(api=2)], "'shelf' is written for version 2 of the contract of a tier"),
        ([spec(api="1")], "'shelf': api must be a whole number, as in api=1, and is '1'"),
        ([spec(api=True)], "'shelf': api must be a whole number, as in api=1, and is True"),
        ([spec(eviction_policies="lru")], "eviction_policies must be a set of names, and is 'lru'"),
        ([spec(eviction_policies=["lru"])], "eviction_policies must be a set of names, and is ['lru']"),
        ([spec(eviction_policies={1})], "eviction_policies must be a set of names, and is {1}"),
        ([spec(default_policy=None)], "default_policy must be one of its eviction_policies (fifo, lru), and is None"),
        (
            [spec(default_policy="sieve")],
            "default_policy must be one of its eviction_policies (fifo, lru), and is 'sieve'",
        ),
    ],
)
def test_a_wrong_answer_makes_a_plugin_broken(answer: Any, error: str) -> None:
    assert error in broken(answer)


@pytest.mark.parametrize(
    ("policies", "default"), [(ANY_POLICY, "mine"), (frozenset(), "lru"), ({"lru", "mine"}, "mine"), ({"lru"}, "lru")]
)
def test_a_default_policy_may_be_any_of_those_that_a_tier_honours(policies: Any, default: str) -> None:
    registry = only(Plugin([spec(eviction_policies=policies, default_policy=default)]))
    assert registry.spec("shelf").default_policy == default


def test_an_unknown_api_is_refused_by_name_when_asked_for() -> None:
    registry = only(Plugin([spec("old", api=0), spec("new")]))
    assert registry.spec("new").kind == "new"
    with pytest.raises(PluginError, match="'old' is written for version 0"):
        registry.spec("old")


def test_a_plugin_says_itself_which_contract_it_is_written_for(environment: Environment) -> None:
    with pytest.raises(TypeError, match="'api'"):
        TierSpec(kind="shelf", factory=print, options=Options, traits=Trait.NONE)  # type: ignore[call-arg, arg-type]  # it is refused
    environment.install("shelf-plugin", GOOD.replace("api=1, ", ""))
    with pytest.raises(PluginError, match="missing 1 required keyword-only argument: 'api'"):
        environment.discover().spec("shelf")


def test_a_tier_does_not_say_it_a_second_time() -> None:
    assert not hasattr(CacheTier, "api")


def test_an_unknown_kind_names_the_nearest_and_what_is_installed() -> None:
    registry = only(Plugin([spec("memory"), spec("sqlite")]))
    with pytest.raises(UnknownTierError, match=r"'sqlit'.*mean 'sqlite'\? Installed are memory, sqlite"):
        registry.spec("sqlit")


def test_an_unknown_kind_where_nothing_is_installed_says_how_to_install() -> None:
    with pytest.raises(UnknownTierError, match="none is installed"):
        only().spec("memory")


def test_an_unknown_kind_that_is_like_none_gets_no_guess() -> None:
    registry = only(Plugin([spec("memory"), spec("sqlite")]))
    with pytest.raises(UnknownTierError, match=r"'zzz': installed are memory, sqlite$"):
        registry.spec("zzz")


@pytest.mark.parametrize("name", ["prometheus", "opentelemetry"])
@pytest.mark.parametrize("others", [[], ["diary"]])
def test_an_observer_that_is_an_extra_and_not_installed_says_which(name: str, others: list[str]) -> None:
    plugins = [SimpleNamespace(__name__=other, make_observer=hookimpl(lambda: None)) for other in others]
    with pytest.raises(CacheConfigError, match=rf"'{name}': it comes with `pip install 'tierkit\[{name}\]'`"):
        only(*plugins).check_observer(name)


@pytest.mark.parametrize(("name", "meant"), [("jsnl", "jsonl"), ("memroy", "memory"), ("qqq", ""), ("zzz", "")])
def test_what_is_not_like_anything_has_no_nearest(name: str, meant: str) -> None:
    assert nearest(name, ["jsonl", "memory", "buzzer and fizz"]) == meant


def test_nothing_is_nearest_to_nothing() -> None:
    assert nearest("x", []) == ""
