"""Configuration: every setting from every source, and what is said of a wrong one."""

import contextlib
import json
import pickle
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from tierkit import (
    CacheConfig,
    CacheConfigError,
    CacheTier,
    CacheTierConfig,
    TierContext,
    TierSpec,
    Trait,
    UnknownTierError,
    hookimpl,
)
from tierkit.plugins import PluginRegistry, discover
from tierkit.settings_sources import SPELLINGS

KEY = "a-key-that-nobody-may-see"


class ShelfOptions(BaseModel):
    path: Path = Path("shelf")
    folders: tuple[Path, ...] = ()
    tags: list[str] = []
    width: int = 3
    pin: SecretStr | None = None


class NoOptions(BaseModel):
    pass


def no_tier(context: TierContext, options: Any) -> CacheTier[Any]:
    raise NotImplementedError


class Plugin:
    @hookimpl
    def register_tiers(self) -> list[TierSpec]:
        return [
            TierSpec(kind="live", factory=no_tier, options=NoOptions, traits=Trait.LIVE),
            TierSpec(kind="shelf", factory=no_tier, options=ShelfOptions, traits=Trait.PERSISTENT),
            TierSpec(
                kind="pile",
                factory=no_tier,
                options=NoOptions,
                traits=Trait.NONE,
                eviction_policies=frozenset({"fifo"}),
            ),
        ]


@pytest.fixture
def registry() -> PluginRegistry:
    return discover([Plugin()], installed=())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and no variables from outside."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.environ", {})
    return tmp_path


def load(path: Path | None = None, /, environ: Mapping[str, str] | None = None, **code: Any) -> CacheConfig:
    return CacheConfig.load(path, environ=environ or {}, **code)


def toml(folder: Path, text: str, name: str = "some.toml") -> Path:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    return file


def refused(make: Callable[[], object]) -> str:
    with pytest.raises(CacheConfigError) as caught:
        make()
    return str(caught.value)


# -- every setting, from every source ------------------------------------------------------------------------------

SIMPLE: list[tuple[str, Any, str, str]] = [
    # setting, value, in the environment, in TOML
    ("cache_enabled", False, "off", "false"),
    ("default_ttl_seconds", 60.0, "60", "60"),
    ("cleanup_interval_seconds", 10.5, "10.5", "10.5"),
    ("encryption_key_env", "MY_KEY", "MY_KEY", '"MY_KEY"'),
    ("key_policy", "require", "require", '"require"'),
    ("enable_health_invalidation", False, "no", "false"),
    ("failure_threshold", 1, "1", "1"),
    ("enable_statistics", False, "0", "false"),
    ("durability", "full", "full", '"full"'),
    ("tier_failure_threshold", 9, "9", "9"),
    ("late_seconds", 0.5, "0.5", "0.5"),
    ("tombstone_seconds", 71.0, "71", "71"),
    ("staleness_seconds", 2.0, "2", "2"),
    ("encryption_key_file", Path("/keys/one"), "/keys/one", '"/keys/one"'),
    ("warm_files", (Path("/a.csv"), Path("/b.json")), "/a.csv, /b.json", '["/a.csv", "/b.json"]'),
    ("per_source_ttl", {"free-list": 600.0}, '{"free-list": 600}', "{ free-list = 600 }"),
]


@pytest.mark.req("F-4")
@pytest.mark.req("F-5")
@pytest.mark.req("US5-4")
@pytest.mark.parametrize(("name", "value", "text", "written"), SIMPLE, ids=[row[0] for row in SIMPLE])
def test_every_setting_can_come_from_code_environment_and_toml(
    folder: Path, name: str, value: Any, text: str, written: str
) -> None:
    file = toml(folder, f"[tierkit]\n{name} = {written}\n")
    assert getattr(CacheConfig(**{name: value}), name) == value
    assert getattr(load(environ={f"TIERKIT_{name.upper()}": text}), name) == value
    assert getattr(load(file), name) == value
    assert getattr(CacheConfig(), name) != value


def test_no_setting_is_left_out_above() -> None:
    shown = {row[0] for row in SIMPLE} | {"tiers", "encryption_key"}
    assert shown == set(CacheConfig.model_fields)


@pytest.mark.req("F-4")
def test_the_defaults_are_those_that_are_promised() -> None:
    config = CacheConfig()
    assert [(tier.name, tier.backend, tier.max_entries, tier.eviction_policy) for tier in config.tiers] == [
        ("L1", "memory", 1000, "lru"),
        ("L2", "jsonl", 5000, "lru"),
        ("L3", "sqlite", None, "lru"),
    ]
    assert [tier.options.get("path") for tier in config.tiers] == [
        None,
        ".cache/proxies",
        ".cache/db/tierkit.db",
    ]
    assert (config.default_ttl_seconds, config.cleanup_interval_seconds, config.failure_threshold) == (3600, 60, 3)
    assert config.enable_health_invalidation
    assert config.staleness_seconds is None
    assert set(config.origins.values()) == {"default"}
    assert load() == config


FLAT: list[tuple[str, Any, Callable[[CacheConfig], Any]]] = [
    ("cache_l1_max_entries", 7, lambda config: config.tiers[0].max_entries),
    ("cache_l2_max_entries", 7, lambda config: config.tiers[1].max_entries),
    ("cache_l3_max_entries", 7, lambda config: config.tiers[2].max_entries),
    ("cache_l2_dir", "/l2", lambda config: config.tiers[1].options["path"]),
    ("cache_l3_db_path", "/l3.db", lambda config: config.tiers[2].options["path"]),
    ("l2_cache_dir", "/l2", lambda config: config.tiers[1].options["path"]),
    ("l3_database_path", "/l3.db", lambda config: config.tiers[2].options["path"]),
    ("cache_default_ttl", 70, lambda config: config.default_ttl_seconds),
    ("cache_cleanup_interval", 11, lambda config: config.cleanup_interval_seconds),
    ("cache_encryption_key_env", "K", lambda config: config.encryption_key_env),
    ("cache_health_invalidation", False, lambda config: config.enable_health_invalidation),
    ("cache_failure_threshold", 8, lambda config: config.failure_threshold),
    ("l1_config", {"max_entries": 7}, lambda config: config.tiers[0].max_entries),
    ("l2_config", {"enabled": False}, lambda config: not config.tiers[1].enabled and {"enabled": False}),
    ("l3_config", {"eviction_policy": "fifo"}, lambda config: {"eviction_policy": config.tiers[2].eviction_policy}),
]


@pytest.mark.req("F-4")
@pytest.mark.parametrize(("name", "value", "read"), FLAT, ids=[row[0] for row in FLAT])
def test_other_spellings_say_the_same(folder: Path, name: str, value: Any, read: Callable[[CacheConfig], Any]) -> None:
    as_json = json.dumps(value)
    written = as_json if not isinstance(value, dict) else as_json.replace(":", " =")
    text = value if isinstance(value, str) else as_json
    expected = value["max_entries"] if name == "l1_config" else value
    assert read(CacheConfig(**{name: value})) == expected
    assert read(load(environ={f"TIERKIT_{name.upper()}": text})) == expected
    assert read(load(toml(folder, f"[tierkit]\n{name} = {written}\n"))) == expected


def test_no_spelling_is_left_out_above() -> None:
    assert {row[0] for row in FLAT} == set(SPELLINGS)


@pytest.mark.req("F-3")
def test_a_level_in_the_three_tier_spelling_keeps_what_it_does_not_say() -> None:
    config = CacheConfig(l1_config=CacheTierConfig(eviction_policy="fifo"), l3_config=CacheTierConfig(enabled=False))
    assert (config.tiers[0].max_entries, config.tiers[0].eviction_policy) == (1000, "fifo")
    assert (config.tiers[2].backend, config.tiers[2].enabled) == ("sqlite", False)


def test_any_number_of_levels_gets_names_by_place() -> None:
    config = CacheConfig(
        tiers=[CacheTierConfig(backend="live"), {"backend": "shelf", "name": "disk"}, {"backend": "x"}]
    )
    assert [tier.name for tier in config.tiers] == ["L1", "disk", "L3"]


@pytest.mark.parametrize("text", ["unlimited", "none", "None"])
def test_no_bound_can_be_said_in_words(text: str) -> None:
    config = load(environ={"TIERKIT_CACHE_L1_MAX_ENTRIES": text, "TIERKIT_STALENESS_SECONDS": text})
    assert config.tiers[0].max_entries is None
    assert config.staleness_seconds is None


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("YES", True), ("on", True), ("False", False)]
)
def test_booleans_from_the_environment(text: str, value: bool) -> None:
    assert load(environ={"TIERKIT_ENABLE_STATISTICS": text}).enable_statistics is value


# -- precedence and origins ------------------------------------------------------------------------------------------


@pytest.mark.req("F-5")
def test_code_comes_before_environment_before_file_before_default(folder: Path) -> None:
    file = toml(folder, "[tierkit]\nfailure_threshold = 4\ndefault_ttl_seconds = 100\nlate_seconds = 4\n")
    environ = {"TIERKIT_FAILURE_THRESHOLD": "5", "TIERKIT_DEFAULT_TTL_SECONDS": "200"}
    config = load(file, environ, failure_threshold=6)
    assert (config.failure_threshold, config.default_ttl_seconds, config.late_seconds) == (6, 200, 4)
    assert config.origins["failure_threshold"] == "code"
    assert config.origins["default_ttl_seconds"] == "environment variable TIERKIT_DEFAULT_TTL_SECONDS"
    assert config.origins["late_seconds"] == f"file {file}"
    assert config.origins["tombstone_seconds"] == "default"


@pytest.mark.req("US2-3")
def test_rules_per_source_are_laid_over_each_other_one_by_one(folder: Path) -> None:
    file = toml(folder, "[tierkit.per_source_ttl]\na = 1\nb = 1\nc = 1\n")
    environ = {"TIERKIT_PER_SOURCE_TTL__b": "2", "TIERKIT_PER_SOURCE_TTL__Free__List": "2"}
    config = load(file, environ, per_source_ttl={"c": 3})
    assert config.per_source_ttl == {"a": 1, "b": 2, "Free__List": 2, "c": 3}
    assert config.origins["per_source_ttl.c"] == "code"


def test_the_environment_changes_one_level_of_a_file(folder: Path) -> None:
    file = toml(folder, '[[tierkit.tiers]]\nbackend = "shelf"\nwidth = 5\nmax_entries = 5\n')
    config = load(file, {"TIERKIT_TIERS__0__MAX_ENTRIES": "6", "TIERKIT_TIERS__1__BACKEND": "pile"})
    assert (config.tiers[0].max_entries, config.tiers[0].options) == (6, {"width": 5})
    assert [tier.name for tier in config.tiers] == ["L1", "L2"]
    assert config.origins["tiers.0.max_entries"] == "environment variable TIERKIT_TIERS__0__MAX_ENTRIES"


def test_a_list_of_levels_replaces_the_one_below(folder: Path) -> None:
    file = toml(folder, '[[tierkit.tiers]]\nbackend = "shelf"\n[[tierkit.tiers]]\nbackend = "pile"\n')
    config = load(file, {"TIERKIT_TIERS": '[{"backend": "live", "max_entries": 3}]'})
    assert [(tier.backend, tier.max_entries) for tier in config.tiers] == [("live", 3)]


def test_options_go_with_their_backend() -> None:
    assert load(environ={"TIERKIT_L2_CONFIG__BACKEND": "pile"}).tiers[1].options == {}
    assert load(environ={"TIERKIT_L2_CONFIG__BACKEND": "jsonl"}).tiers[1].options == {"path": ".cache/proxies"}


def test_the_file_is_the_one_given_else_that_of_the_variable_else_the_one_that_is_here(folder: Path) -> None:
    toml(folder, "[tierkit]\nfailure_threshold = 11\n", "tierkit.toml")
    other = toml(folder, "[tierkit]\nfailure_threshold = 12\n", "other.toml")
    third = toml(folder, "[tierkit]\nfailure_threshold = 13\n", "third.toml")
    assert load().failure_threshold == 11
    assert load(environ={"TIERKIT_CONFIG": str(other)}).failure_threshold == 12
    assert load(third, {"TIERKIT_CONFIG": str(other)}).failure_threshold == 13
    assert CacheConfig().failure_threshold == 3


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"TIERKIT_FAILURE_THRESHOLD": "6"})
    assert CacheConfig.load().failure_threshold == 6
    assert CacheConfig().failure_threshold == 3


@pytest.mark.req("F-7")
def test_variables_that_hold_keys_are_no_settings() -> None:
    environ = {
        "TIERKIT_ENCRYPTION_KEY": KEY,
        "PROXYWHIRL_CACHE_ENCRYPTION_KEY": KEY,
        "TIERKIT_MY_KEY": KEY,
        "TIERKIT_CACHE_ENCRYPTION_KEY_ENV": "TIERKIT_MY_KEY",
    }
    assert load(environ=environ).encryption_key_env == "TIERKIT_MY_KEY"
    assert load(environ={"TIERKIT_MY_KEY": KEY}, encryption_key_env="TIERKIT_MY_KEY").encryption_key is None
    assert "TIERKIT_MY_KEY" in refused(lambda: load(environ={"TIERKIT_MY_KEY": KEY}))


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load(environ={"TIERKIT_FAILURE_THRESHOLD": "", "TIERKIT_CONFIG": ""}) == CacheConfig()


# -- paths -----------------------------------------------------------------------------------------------------------


def test_paths_in_a_file_are_relative_to_it(folder: Path, registry: PluginRegistry) -> None:
    text = """
    [tierkit]
    encryption_key_file = "key"
    warm_files = ["a.csv", "/abs/b.csv"]
    [[tierkit.tiers]]
    backend = "shelf"
    path = "data"
    folders = ["x", "/abs/y"]
    tags = ["data"]
    """
    config = load(toml(folder, text, "sub/some.toml"))
    assert config.encryption_key_file == folder / "sub/key"
    assert config.warm_files == (folder / "sub/a.csv", Path("/abs/b.csv"))
    (level,) = config.resolve(registry)
    assert dict(level.options) == {
        "path": folder / "sub/data",
        "folders": (folder / "sub/x", Path("/abs/y")),
        "tags": ["data"],
        "width": 3,
        "pin": None,
    }


def test_the_three_tier_paths_in_a_file_are_relative_to_it_too(folder: Path) -> None:
    config = load(toml(folder, '[tierkit]\nl2_cache_dir = "data"\n', "sub/some.toml"))
    _, jsonl, sqlite = config.resolve(discover())
    assert dict(jsonl.options)["path"] == folder / "sub/data"
    assert dict(sqlite.options)["path"] == Path(".cache/db/tierkit.db")


def test_paths_from_elsewhere_are_relative_to_the_working_directory(registry: PluginRegistry) -> None:
    code = {"tiers": [{"backend": "shelf", "path": "data"}], "warm_files": ["a.csv"]}
    config = CacheConfig(**code)
    assert dict(config.resolve(registry)[0].options)["path"] == Path("data")
    assert config.warm_files == (Path("a.csv"),)


# -- what is refused -------------------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"default_ttl_seconds": 59.9}, "default_ttl_seconds = 59.9 (code): must be at least 60"),
    ({"default_ttl_seconds": 1e11}, "must be at most"),
    ({"default_ttl_seconds": float("nan")}, "must be a finite number"),
    ({"default_ttl_seconds": True}, "must be a number"),
    ({"default_ttl_seconds": None}, "must be a number"),
    ({"per_source_ttl": {"a": 0}}, "per_source_ttl.a = 0 (code): must be more than 0"),
    ({"per_source_ttl": {"a": 60, "b": -1, "c": "x"}}, "per_source_ttl.c = 'x' (code): must be a number"),
    ({"per_source_ttl": 5}, "per_source_ttl = 5 (code): must be a table"),
    ({"cleanup_interval_seconds": 9}, "must be at least 10"),
    ({"failure_threshold": 0}, "failure_threshold = 0 (code): must be at least 1"),
    ({"failure_threshold": 1.5}, "must be a whole number"),
    ({"tier_failure_threshold": "many"}, "tier_failure_threshold = 'many' (code): must be a whole number"),
    ({"durability": "some"}, "durability = 'some' (code): must be 'full', 'process' or 'none'"),
    ({"key_policy": "ask"}, "must be 'generate' or 'require'"),
    ({"late_seconds": 0}, "must be more than 0"),
    ({"staleness_seconds": 0}, "must be more than 0"),
    ({"tombstone_seconds": 70}, "tombstone_seconds = 70 (code): must be more than 70, which is late_seconds and 60"),
    ({"late_seconds": 840}, "tombstone_seconds = 900 (default): must be more than 900"),
    ({"enable_statistics": "maybe"}, "must be true or false (or 1/0, yes/no, on/off)"),
    ({"encryption_key_env": ""}, "encryption_key_env = '' (code)"),
    ({"encryption_key_file": 5}, "encryption_key_file = 5 (code)"),
    ({"warm_files": 5}, "warm_files = 5 (code): must be a list"),
    ({"tiers": "memory"}, "tiers (code): must be a list of tables"),
    ({"tiers": ["memory"]}, "tiers.0 (code): must be a table"),
    ({"tiers": [{}, {"backend": "x"}]}, "tiers.0.backend (code): is missing"),
    ({"tiers": [{"max_entries": 5}]}, "tiers.0.backend (code): is missing"),
    ({"tiers": [{"backend": "x", "max_entries": 0}]}, "tiers.0.max_entries = 0 (code): must be at least 1"),
    ({"tiers": [{"backend": "x", "name": "a b"}]}, "tiers.0.name = 'a b' (code)"),
    ({"tiers": [{"backend": "x", "name": "l2"}, {"backend": "x"}]}, "tiers.1.name = 'L2' (code): is the name of two"),
    ({"tiers": [{"backend": "x"}], "l1_config": {}}, "l1_config (code): cannot be used together with 'tiers'"),
    ({"tiers": [{"backend": "x"}], "cache_l2_dir": "y"}, "cache_l2_dir (code): cannot be used together"),
    ({"cache_default_ttl": 60, "default_ttl_seconds": 60}, "cache_default_ttl (code) sets the same"),
    ({"l1_config": {"max_entries": 5}, "cache_l1_max_entries": 5}, "l1_config.max_entries (code) sets the same"),
    ({"l2_cache_dir": "a", "cache_l2_dir": "a"}, "keep one of them"),
    ({"cache_l1_max_entries": 0}, "cache_l1_max_entries = 0 (code): must be at least 1"),
    ({"l1_config": None}, "l1_config (code): must be a table"),
    ({"default_tll_seconds": 60}, "there is no such setting; did you mean 'default_ttl_seconds'?"),
    ({"cache_l2_directory": "x"}, "did you mean 'cache_l2_dir'?"),
]


@pytest.mark.req("F-3")
@pytest.mark.req("F-4")
@pytest.mark.parametrize(("settings", "text"), WRONG, ids=[text[:50] for _, text in WRONG])
def test_a_wrong_setting_is_refused_with_name_value_origin_and_what_is_allowed(
    settings: dict[str, Any], text: str
) -> None:
    assert text in refused(lambda: CacheConfig(**settings))
    assert text in refused(lambda: CacheConfig.load(environ={}, **settings))


def test_all_that_is_wrong_is_listed_together(folder: Path) -> None:
    file = toml(folder, "[tierkit]\nlate_seconds = -1\ncolour = 1\n")
    environ = {"TIERKIT_FAILURE_THRESHOLD": "x", "TIERKIT_COLOUR": "1"}
    lines = refused(lambda: load(file, environ, l1_config={"max_entries": 0}, nothing=1)).splitlines()
    assert lines[0] == "6 settings are wrong:"
    assert f"- late_seconds = -1 (file {file}): must be more than 0" in lines
    variable = "environment variable TIERKIT_FAILURE_THRESHOLD"
    assert f"- failure_threshold = 'x' ({variable}): must be a whole number" in lines


ENVIRONMENTS = [
    ({"TIERKIT_DEFAULT_TTL_SECOND": "60"}, "did you mean 'TIERKIT_DEFAULT_TTL_SECONDS'?"),
    ({"TIERKIT_CACHE_L9_DIR": "x"}, "did you mean 'TIERKIT_CACHE_L2_DIR'?"),
    ({"TIERKIT_": "x"}, "there is no such setting"),
    ({"TIERKIT_DEFAULT_TTL_SECONDS__X": "60"}, "there is no such setting"),
    ({"TIERKIT_TIERS__X__NAME": "60"}, "there is no such setting"),
    ({"TIERKIT_TIERS__1__": "60"}, "there is no such setting"),
    ({"TIERKIT_TIERS__99999__NAME": "60"}, "there is no such setting"),
    ({"TIERKIT_TIERS__5__NAME": "x"}, "there is no level 3 above it"),
    ({"TIERKIT_TIERS__3__MAX_ENTRIES": "5"}, "tiers.3.backend"),
    ({"TIERKIT_TIERS": "memory"}, "tiers (environment variable TIERKIT_TIERS): must be JSON"),
    ({"TIERKIT_PER_SOURCE_TTL": "{"}, "must be JSON"),
    ({"TIERKIT_TIERS": "[]", "TIERKIT_TIERS__0__BACKEND": "x", "TIERKIT_CACHE_L2_DIR": "y"}, "together with 'tiers'"),
    ({"TIERKIT_FAILURE_THRESHOLD": "1", "TIERKIT_CACHE_FAILURE_THRESHOLD": "1"}, "sets the same"),
    ({"TIERKIT_FAILURE_THRESHOLD": "1", "TIERKIT_failure_threshold": "2"}, "sets the same"),
]


@pytest.mark.req("F-5")
@pytest.mark.parametrize(("environ", "text"), ENVIRONMENTS, ids=[" ".join(row[0]) for row in ENVIRONMENTS])
def test_a_wrong_variable_is_refused(environ: dict[str, str], text: str) -> None:
    assert text in refused(lambda: load(environ=environ))


def test_variables_of_others_are_left_alone() -> None:
    assert load(environ={"TIERKITTEN": "1", "PATH": "/bin", "tierkit_late_seconds": "x"}) == CacheConfig()


FILES = [
    ("[tierkit]\nx = = 1\n", "is not TOML: Invalid value (at line 2"),
    ("[tierkit]\ndefault_tll_seconds = 60\n", "did you mean 'default_ttl_seconds'?"),
    ("default_ttl_seconds = 60\n", "must stand below [tierkit]"),
    ("tierkit = 5\n", "tierkit (file {file}): must be a table"),
    ("[tierkit]\ndefault_ttl_seconds = 5\n", "default_ttl_seconds = 5 (file {file}): must be at least 60"),
    ("[tierkit]\nlate_seconds = 2026-01-01\n", "late_seconds (file {file}): must be a number"),
    ("[tierkit.tiers]\nname = 'x'\n", "tiers (file {file}): must be a list of tables"),
    (f"x = {'9' * 5000}\n", "is not TOML"),
    (f"x = {'[' * 50000}\n", "is not TOML"),
]


@pytest.mark.req("F-5")
@pytest.mark.parametrize(("text", "said"), FILES, ids=[said for _, said in FILES])
def test_a_wrong_file_is_refused(folder: Path, text: str, said: str) -> None:
    file = toml(folder, text)
    message = refused(lambda: load(file))
    assert said.format(file=file) in message
    assert str(file) in message


def test_a_file_that_cannot_be_read_is_refused(folder: Path) -> None:
    missing = folder / "missing.toml"
    assert "missing.toml (given in code): cannot be read: No such file" in refused(lambda: load(missing))
    assert "TIERKIT_CONFIG" in refused(lambda: load(environ={"TIERKIT_CONFIG": str(missing)}))
    (folder / "binary.toml").write_bytes(b"[tierkit]\n\n\xff\xfe")
    assert "binary.toml, line 3: is not UTF-8" in refused(lambda: load(folder / "binary.toml"))


def test_a_file_may_be_shared_with_other_programs(folder: Path) -> None:
    assert load(toml(folder, "name = 'other'\n[tool.other]\nx = 1\n")) == CacheConfig()
    assert load(toml(folder, "[other]\nx = 1\n[tierkit]\nfailure_threshold = 4\n")).failure_threshold == 4


def test_a_spelling_for_a_level_that_is_another_is_refused(folder: Path) -> None:
    file = toml(folder, '[[tierkit.tiers]]\nbackend = "live"\n[[tierkit.tiers]]\nbackend = "pile"\n')
    message = refused(lambda: load(file, cache_l2_dir="x"))
    assert message == "cache_l2_dir (code): is for backend 'jsonl', and level 1 is 'pile'"


@pytest.mark.req("F-3")
def test_a_level_alone_is_checked_too() -> None:
    message = refused(lambda: CacheTierConfig(max_entries=-3, enabled="maybe"))
    assert "max_entries = -3 (code): must be at least 1" in message
    assert "enabled = 'maybe' (code)" in message


# -- secrets -----------------------------------------------------------------------------------------------------------


@pytest.mark.req("US1-6")
def test_no_secret_is_shown(folder: Path) -> None:
    level = {"backend": "shelf", "password": KEY, "url": f"redis://u:{KEY}@h/1", "tokens": [KEY]}
    file = toml(folder, f'[tierkit]\nencryption_key = "{KEY}"\n')
    config = load(file, tiers=[level])
    assert isinstance(config.encryption_key, SecretStr)
    assert config.encryption_key.get_secret_value() == KEY
    for text in (repr(config), str(config), repr(config.tiers), str(config.effective()), str(config.origins)):
        assert KEY not in text
    assert "**********" in str(config.effective())


@pytest.mark.req("US1-6")
@pytest.mark.parametrize(
    "settings",
    [
        {"encryption_key": KEY, "failure_threshold": 0},
        {"encryption_key": [KEY]},
        {"tiers": [{"backend": "shelf", "password": KEY, "name": "-"}]},
        {"tiers": {"password": KEY}},
        {"tiers": [{"backend": "shelf", "name": f"x://u:{KEY} #/?@h"}]},
    ],
)
def test_no_secret_is_in_an_error(settings: dict[str, Any]) -> None:
    with pytest.raises(CacheConfigError) as caught:
        CacheConfig(**settings)
    assert KEY not in str(caught.value)


@pytest.mark.req("US1-6")
def test_a_key_is_not_in_the_frames_that_raise() -> None:
    try:
        CacheConfig(encryption_key=KEY, failure_threshold=0)
    except CacheConfigError as error:
        here = error.__traceback__
        assert here is not None
        frames = traceback.TracebackException(type(error), error, here.tb_next, capture_locals=True)
        assert KEY not in "".join(frames.format())


@pytest.mark.req("US1-6")
def test_an_option_that_its_plugin_calls_secret_is_not_shown(registry: PluginRegistry) -> None:
    config = CacheConfig(tiers=[{"backend": "shelf", "pin": KEY}])
    assert KEY not in str(config.effective(registry))
    assert KEY not in repr(config.resolve(registry))
    wrong = CacheConfig(tiers=[{"backend": "shelf", "pin": 123456}])
    assert "123456" not in refused(lambda: wrong.resolve(registry))


def test_a_key_may_come_from_a_callable() -> None:
    config = CacheConfig(encryption_key=lambda: SecretStr(KEY))
    assert callable(config.encryption_key)
    assert ("encryption_key", "a callable") in {(line.name, line.value_text) for line in config.effective()}


# -- resolving ---------------------------------------------------------------------------------------------------------


@pytest.mark.req("F-3")
def test_enabled_levels_are_resolved_in_order(registry: PluginRegistry) -> None:
    levels = [{"backend": "live", "max_entries": 5}, {"backend": "pile", "enabled": False}, {"backend": "shelf"}]
    first, second = CacheConfig(tiers=levels).resolve(registry)
    assert (first.name, first.spec.kind, first.max_entries, first.eviction_policy) == ("L1", "live", 5, "lru")
    assert (second.name, second.spec.kind, second.options) == ("L3", "shelf", ShelfOptions())


def test_the_default_stack_resolves_with_what_is_installed() -> None:
    assert [level.spec.kind for level in CacheConfig().resolve(discover())] == ["memory", "jsonl", "sqlite"]


STACKS: list[tuple[list[dict[str, Any]], str]] = [
    ([], "no level is enabled"),
    ([{"backend": "shelf", "enabled": False}], "no level is enabled"),
    ([{"backend": "shelf"}, {"backend": "live"}], "level L2 (live) holds live entries and cannot stand below level L1"),
    ([{"backend": "shelf", "widht": 3}], "tiers.0.widht (code): there is no such option; did you mean 'width'?"),
    ([{"backend": "shelf", "max_entires": 3}], "did you mean 'max_entries'?"),
    ([{"backend": "shelf", "x": 3}], "Backend 'shelf' has the options path, folders, tags, width, pin"),
    ([{"backend": "live", "x": 3}], "Backend 'live' has no options"),
    ([{"backend": "shelf", "width": "wide"}], "tiers.0.width = 'wide' (code): must be a whole number"),
    ([{"backend": "pile", "max_entries": 3}], "backend 'pile' does not offer it; it offers fifo"),
    ([{"backend": "pile", "eviction_policy": "lru"}], "tiers.0.eviction_policy = 'lru' (code)"),
    ([{"backend": "shelf", "eviction_policy": "lruu"}], "offers fifo, lru"),
    ([{"backend": "shelf", "x": 1, "width": "a"}, {"backend": "pile", "y": 1}], "3 settings are wrong"),
]


@pytest.mark.req("F-3")
@pytest.mark.parametrize(("levels", "text"), STACKS, ids=[text[:50] for _, text in STACKS])
def test_a_stack_that_cannot_work_is_refused_with_the_reason(
    registry: PluginRegistry, levels: list[dict[str, Any]], text: str
) -> None:
    assert text in refused(lambda: CacheConfig(tiers=levels).resolve(registry))


def test_a_policy_does_not_matter_without_a_bound(registry: PluginRegistry) -> None:
    assert CacheConfig(tiers=[{"backend": "pile"}]).resolve(registry)[0].max_entries is None


def test_an_unknown_backend_names_the_level_and_the_nearest(registry: PluginRegistry) -> None:
    with pytest.raises(UnknownTierError, match=r"tiers.0.backend = 'shelv' \(code\): .*'shelf'.*live, pile, shelf"):
        CacheConfig(tiers=[{"backend": "shelv"}]).resolve(registry)


def test_options_from_the_environment_are_read_by_their_type(registry: PluginRegistry) -> None:
    environ = {
        "TIERKIT_TIERS": '[{"backend": "shelf"}]',
        "TIERKIT_TIERS__0__WIDTH": "5",
        "TIERKIT_TIERS__0__TAGS": "a, b",
        "TIERKIT_TIERS__0__FOLDERS": '["x,y"]',
    }
    (level,) = load(environ=environ).resolve(registry)
    options = ShelfOptions(width=5, tags=["a", "b"], folders=(Path("x,y"),))
    assert level.options == options
    broken = load(environ={**environ, "TIERKIT_TIERS__0__TAGS": "[1"})
    assert "must be a list" in refused(lambda: broken.resolve(registry))


def test_effective_values_hold_the_defaults_of_options_where_the_plugin_is_known(registry: PluginRegistry) -> None:
    config = CacheConfig(tiers=[{"backend": "shelf"}, {"backend": "gone", "size": 1}])
    names = [line.name for line in config.effective(registry)]
    assert "tiers.0.width" in names
    assert "tiers.1.size" in names
    assert "tiers.0.width" not in config.origins


# -- properties of the whole -------------------------------------------------------------------------------------------


@given(
    threshold=st.integers(1, 10**9),
    ttl=st.floats(60, 1e9),
    rules=st.dictionaries(st.text(min_size=1), st.floats(1e-3, 1e9), max_size=3),
)
def test_what_is_written_as_json_in_the_environment_is_read_back(
    threshold: int, ttl: float, rules: dict[str, float]
) -> None:
    environ = {
        "TIERKIT_FAILURE_THRESHOLD": str(threshold),
        "TIERKIT_DEFAULT_TTL_SECONDS": repr(ttl),
        "TIERKIT_PER_SOURCE_TTL": json.dumps(rules),
    }
    config = load(environ=environ)
    assert (config.failure_threshold, config.default_ttl_seconds, config.per_source_ttl) == (threshold, ttl, rules)


@given(st.dictionaries(st.text("ABC_0123TIERSNAMLCONFG", max_size=20), st.text(max_size=8), max_size=4))
def test_no_environment_ends_in_another_error(variables: dict[str, str]) -> None:
    with contextlib.suppress(CacheConfigError):
        load(environ={f"TIERKIT_{name}": text for name, text in variables.items()})


def test_a_configuration_cannot_be_changed_and_can_be_pickled() -> None:
    config = CacheConfig(cache_l1_max_entries=5)
    with pytest.raises(ValueError, match="frozen"):
        config.failure_threshold = 5  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(config)).origins == config.origins  # noqa: S301 - made just here
