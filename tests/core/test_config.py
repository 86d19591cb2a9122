"""Configuration: every setting from every source, and which source wins."""

import contextlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.configs import KEY, REGISTRY, load, refused, toml

from tierkit import CacheConfig, CacheConfigError, CacheTierConfig
from tierkit.plugins import discover
from tierkit.settings_sources import SPELLINGS

# -- every setting, from every source ------------------------------------------------------------------------------

SIMPLE: list[tuple[str, Any, str, str]] = [
    # setting, value, in the environment, in TOML
    ("name", "proxies", "proxies", '"proxies"'),
    ("cache_enabled", False, "off", "false"),
    ("default_ttl_seconds", 60.0, "60", "60"),
    ("ttl_jitter", 0.1, "0.1", "0.1"),
    ("sliding_max_seconds", 3600.0, "3600", "3600"),
    ("grace_seconds", 30.0, "30", "30"),
    ("cleanup_interval_seconds", 10.5, "10.5", "10.5"),
    ("encryption_key_env", "MY_KEY", "MY_KEY", '"MY_KEY"'),
    ("key_provider", "keychain", "keychain", '"keychain"'),
    ("key_policy", "require", "require", '"require"'),
    ("cipher", "fernet", "fernet", '"fernet"'),
    ("accept", ("fernet",), "fernet", '["fernet"]'),
    ("enable_health_invalidation", False, "no", "false"),
    ("failure_threshold", 1, "1", "1"),
    ("enable_statistics", False, "0", "false"),
    ("latency_histograms", True, "yes", "true"),
    ("decisions_kept", 100, "100", "100"),
    ("decisions_persisted", False, "no", "false"),
    ("observers", ("prometheus", "other"), "prometheus, other", '["prometheus", "other"]'),
    ("observer_options", {"other": {"port": 1}}, '{"other": {"port": 1}}', "{ other = { port = 1 } }"),
    ("durability", "full", "full", '"full"'),
    ("tier_failure_threshold", 9, "9", "9"),
    ("flush_interval_seconds", 0.5, "0.5", "0.5"),
    ("recovery_initial_seconds", 0.5, "0.5", "0.5"),
    ("recovery_longest_seconds", 5.0, "5", "5"),
    ("ttl_jitter", 0.25, "0.25", "0.25"),
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
    tmp_path: Path, name: str, value: Any, text: str, written: str
) -> None:
    file = toml(tmp_path, f"[tierkit]\n{name} = {written}\n")
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
        ("L1", "memory", 1000, "default"),
        ("L2", "jsonl", 5000, "default"),
        ("L3", "sqlite", None, "default"),
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
def test_other_spellings_say_the_same(
    tmp_path: Path, name: str, value: Any, read: Callable[[CacheConfig], Any]
) -> None:
    as_json = json.dumps(value)
    written = as_json if not isinstance(value, dict) else as_json.replace(":", " =")
    text = value if isinstance(value, str) else as_json
    expected = value["max_entries"] if name == "l1_config" else value
    assert read(CacheConfig(**{name: value})) == expected
    assert read(load(environ={f"TIERKIT_{name.upper()}": text})) == expected
    assert read(load(toml(tmp_path, f"[tierkit]\n{name} = {written}\n"))) == expected


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
def test_code_comes_before_environment_before_file_before_default(tmp_path: Path) -> None:
    file = toml(tmp_path, "[tierkit]\nfailure_threshold = 4\ndefault_ttl_seconds = 100\nlate_seconds = 4\n")
    environ = {"TIERKIT_FAILURE_THRESHOLD": "5", "TIERKIT_DEFAULT_TTL_SECONDS": "200"}
    config = load(file, environ, failure_threshold=6)
    assert (config.failure_threshold, config.default_ttl_seconds, config.late_seconds) == (6, 200, 4)
    assert config.origins["failure_threshold"] == "code"
    assert config.origins["default_ttl_seconds"] == "environment variable TIERKIT_DEFAULT_TTL_SECONDS"
    assert config.origins["late_seconds"] == f"file {file}"
    assert config.origins["tombstone_seconds"] == "default"


@pytest.mark.req("US2-3")
def test_rules_per_source_are_laid_over_each_other_one_by_one(tmp_path: Path) -> None:
    file = toml(tmp_path, "[tierkit.per_source_ttl]\na = 1\nb = 1\nc = 1\n")
    environ = {"TIERKIT_PER_SOURCE_TTL__b": "2", "TIERKIT_PER_SOURCE_TTL__Free__List": "2"}
    config = load(file, environ, per_source_ttl={"c": 3})
    assert config.per_source_ttl == {"a": 1, "b": 2, "Free__List": 2, "c": 3}
    assert config.origins["per_source_ttl.c"] == "code"


def test_the_environment_changes_one_level_of_a_file(tmp_path: Path) -> None:
    file = toml(tmp_path, '[[tierkit.tiers]]\nbackend = "shelf"\nwidth = 5\nmax_entries = 5\n')
    config = load(file, {"TIERKIT_TIERS__0__MAX_ENTRIES": "6", "TIERKIT_TIERS__1__BACKEND": "pile"})
    assert (config.tiers[0].max_entries, config.tiers[0].options) == (6, {"width": 5})
    assert [tier.name for tier in config.tiers] == ["L1", "L2"]
    assert config.origins["tiers.0.max_entries"] == "environment variable TIERKIT_TIERS__0__MAX_ENTRIES"


def test_a_list_of_levels_replaces_the_one_below(tmp_path: Path) -> None:
    file = toml(tmp_path, '[[tierkit.tiers]]\nbackend = "shelf"\n[[tierkit.tiers]]\nbackend = "pile"\n')
    config = load(file, {"TIERKIT_TIERS": '[{"backend": "live", "max_entries": 3}]'})
    assert [(tier.backend, tier.max_entries) for tier in config.tiers] == [("live", 3)]


def test_options_go_with_their_backend() -> None:
    assert load(environ={"TIERKIT_L2_CONFIG__BACKEND": "pile"}).tiers[1].options == {}
    assert load(environ={"TIERKIT_L2_CONFIG__BACKEND": "jsonl"}).tiers[1].options == {"path": ".cache/proxies"}


def test_the_file_is_the_one_given_else_that_of_the_variable_else_the_one_that_is_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    toml(tmp_path, "[tierkit]\nfailure_threshold = 11\n", "tierkit.toml")
    other = toml(tmp_path, "[tierkit]\nfailure_threshold = 12\n", "other.toml")
    third = toml(tmp_path, "[tierkit]\nfailure_threshold = 13\n", "third.toml")
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


def test_paths_in_a_file_are_relative_to_it(tmp_path: Path) -> None:
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
    config = load(toml(tmp_path, text, "sub/some.toml"))
    assert config.encryption_key_file == tmp_path / "sub/key"
    assert config.warm_files == (tmp_path / "sub/a.csv", Path("/abs/b.csv"))
    (level,) = config.resolve(REGISTRY)
    assert dict(level.options) == {
        "path": tmp_path / "sub/data",
        "folders": (tmp_path / "sub/x", Path("/abs/y")),
        "tags": ["data"],
        "width": 3,
        "pin": None,
    }


def test_the_three_tier_paths_in_a_file_are_relative_to_it_too(tmp_path: Path) -> None:
    config = load(toml(tmp_path, '[tierkit]\nl2_cache_dir = "data"\n', "sub/some.toml"))
    _, jsonl, sqlite = config.resolve(discover())
    assert dict(jsonl.options)["path"] == tmp_path / "sub/data"
    assert dict(sqlite.options)["path"] == Path(".cache/db/tierkit.db")


def test_paths_from_elsewhere_are_relative_to_the_working_directory() -> None:
    code = {"tiers": [{"backend": "shelf", "path": "data"}], "warm_files": ["a.csv"]}
    config = CacheConfig(**code)
    assert dict(config.resolve(REGISTRY)[0].options)["path"] == Path("data")
    assert config.warm_files == (Path("a.csv"),)


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
        config.failure_threshold = 5  # type: ignore[misc]  # it is refused
    assert pickle.loads(pickle.dumps(config)).origins == config.origins  # noqa: S301 - made just here
