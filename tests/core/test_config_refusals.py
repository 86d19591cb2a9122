"""Configuration: what is refused, what is said of it, and what is never said."""

import base64
import traceback
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from tests.configs import KEY, REGISTRY, load, refused, toml

from tierkit import CacheConfig, CacheConfigError, CacheTierConfig

# -- what is refused -------------------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"default_ttl_seconds": 59.9}, "default_ttl_seconds = 59.9 (code): must be at least 60"),
    ({"default_ttl_seconds": -1}, "default_ttl_seconds = -1 (code): must be at least 60"),
    ({"default_ttl_seconds": 1e11}, "must be at most"),
    ({"default_ttl_seconds": float("nan")}, "must be a finite number"),
    ({"default_ttl_seconds": True}, "must be a number"),
    ({"default_ttl_seconds": None}, "must be a number"),
    ({"per_source_ttl": {"a": 0}}, "per_source_ttl.a = 0 (code): must be more than 0"),
    ({"per_source_ttl": {"a": 60, "b": -1, "c": "x"}}, "per_source_ttl.c = 'x' (code): must be a number"),
    ({"per_source_ttl": 5}, "per_source_ttl = 5 (code): must be a table"),
    ({"ttl_jitter": 1.5}, "= 1.5 (code): must be at most 1"),
    ({"grace_seconds": -1}, "= -1 (code): must be at least 0"),
    ({"cleanup_interval_seconds": -9}, "= -9 (code): must be at least 10"),
    ({"cleanup_interval_seconds": 9}, "must be at least 10"),
    ({"failure_threshold": 0}, "failure_threshold = 0 (code): must be at least 1"),
    ({"failure_threshold": 1.5}, "must be a whole number"),
    ({"tier_failure_threshold": "many"}, "tier_failure_threshold = 'many' (code): must be a whole number"),
    ({"durability": "some"}, "durability = 'some' (code): must be 'full', 'process' or 'none'"),
    ({"key_policy": "ask"}, "must be 'generate' or 'require'"),
    ({"cipher": "rot13"}, "cipher = 'rot13' (code): must be 'aes-256-gcm-siv' or 'fernet'"),
    ({"accept": ["rot13"]}, "must be 'fernet'"),
    ({"accept": ["fernet", "fernet"]}, "accept (code): names 'fernet' more than once"),
    ({"late_seconds": 0}, "must be more than 0"),
    ({"staleness_seconds": 0}, "must be more than 0"),
    ({"tombstone_seconds": 70}, "tombstone_seconds = 70 (code): must be more than 70, which is late_seconds and 60"),
    ({"tombstone_seconds": -1}, "tombstone_seconds = -1 (code): must be more than 70"),
    ({"late_seconds": 840}, "tombstone_seconds = 900 (default): must be more than 900"),
    ({"recovery_initial_seconds": 5, "recovery_longest_seconds": 4}, "(code): must not be less than 5, which is rec"),
    (
        {"recovery_initial_seconds": 90},
        "recovery_longest_seconds = 60 (default): must not be less than 90, which is rec",
    ),
    ({"latency_histograms": True, "enable_statistics": False}, "latency_histograms = true (code): has no effect with"),
    ({"observers": ["a", "b", "a"]}, "observers (code): names 'a' more than once"),
    ({"enable_statistics": "maybe"}, "must be true or false (or 1/0, yes/no, on/off)"),
    ({"encryption_key_env": ""}, "encryption_key_env = '' (code)"),
    ({"encryption_key_file": 5}, "encryption_key_file = 5 (code)"),
    ({"warm_files": 5}, "warm_files = 5 (code): must be a list"),
    ({"tiers": "memory"}, "tiers (code): must be a list of tables"),
    ({"tiers": ["memory"]}, "tiers.0 (code): must be a table"),
    ({"tiers": [{}, {"backend": "x"}]}, "tiers.0.backend (code): is missing"),
    ({"tiers": [{"max_entries": 5}]}, "tiers.0.backend (code): is missing"),
    ({"tiers": [{"backend": "x", "max_entries": 0}]}, "tiers.0.max_entries = 0 (code): must be at least 1"),
    ({"tiers": [{"backend": "x", "name": "a b"}]}, "tiers.0.name = 'a b' (code): must begin with a letter"),
    ({"tiers": [{"backend": "x", "name": "2nd"}]}, "from A to Z, and have after it only such, digits, and - _"),
    ({"name": "2nd"}, "name = '2nd' (code): must begin with a letter from A to Z, and have after it only such, "),
    ({"name": "a b"}, "and have after it only such, digits, and - _ ."),
    ({"name": ""}, "name = '' (code): must begin with a letter"),
    ({"tiers": [{"backend": "x", "name": "l2"}, {"backend": "x"}]}, "tiers.1.name = 'L2' (code): level 'l2' has "),
    (
        {"tiers": [{"backend": "x", "name": "hot-1"}, {"backend": "x", "name": "Hot_1"}]},
        "tiers.1.name = 'Hot_1' (code): level 'hot-1' has the metric 'hot_1_",
    ),
    (
        {"tiers": [{"backend": "x", "name": "hot"}, {"backend": "x", "name": "hot-stale"}]},
        "tiers.1.name = 'hot-stale' (code): level 'hot' has the metric 'hot_stale_hits' too: choose another name",
    ),
    (
        {"tiers": [{"backend": "x", "name": "Overall"}]},
        "tiers.0.name = 'Overall' (code): the whole cache has the metric 'overall_hit_rate' too: choose another name",
    ),
    ({"tiers": [{"backend": "x"}], "l1_config": {}}, "l1_config (code): cannot be used together with 'tiers'"),
    ({"tiers": [{"backend": "x"}], "cache_l2_dir": "y"}, "cache_l2_dir (code): cannot be used together"),
    ({"cache_default_ttl": 60, "default_ttl_seconds": 60}, "cache_default_ttl (code) sets the same"),
    ({"l1_config": {"max_entries": 5}, "cache_l1_max_entries": 5}, "l1_config.max_entries (code) sets the same"),
    ({"l2_cache_dir": "a", "cache_l2_dir": "a"}, "keep one of them"),
    ({"cache_l1_max_entries": 0}, "cache_l1_max_entries = 0 (code): must be at least 1"),
    ({"l1_config": None}, "l1_config (code): must be a table"),
    ({"default_tll_seconds": 60}, "there is no such setting; did you mean 'default_ttl_seconds'?"),
    ({"default_tll": 60}, "did you mean 'default_ttl_seconds'?"),
    ({"cache_l2_directory": "x"}, "did you mean 'cache_l2_dir'?"),
    ({"cache_ttl": 60}, "did you mean 'cache_default_ttl'?"),
    ({"zzz": 60}, "zzz (code): there is no such setting; the settings are name, cache_enabled, tiers, default_ttl_"),
]


@pytest.mark.req("F-3")
@pytest.mark.req("F-4")
@pytest.mark.parametrize(("settings", "text"), WRONG, ids=[text[:50] for _, text in WRONG])
def test_a_wrong_setting_is_refused_with_name_value_origin_and_what_is_allowed(
    settings: dict[str, Any], text: str
) -> None:
    assert text in refused(lambda: CacheConfig(**settings))
    assert text in refused(lambda: CacheConfig.load(environ={}, **settings))


def test_all_that_is_wrong_is_listed_together(tmp_path: Path) -> None:
    file = toml(tmp_path, "[tierkit]\nlate_seconds = -1\ncolour = 1\n")
    environ = {"TIERKIT_FAILURE_THRESHOLD": "x", "TIERKIT_COLOUR": "1"}
    lines = refused(lambda: load(file, environ, l1_config={"max_entries": 0}, nothing=1)).splitlines()
    assert lines[0] == "6 settings are wrong:"
    assert f"- late_seconds = -1 (file {file}): must be more than 0" in lines
    variable = "environment variable TIERKIT_FAILURE_THRESHOLD"
    assert f"- failure_threshold = 'x' ({variable}): must be a whole number" in lines


ENVIRONMENTS = [
    ({"TIERKIT_DEFAULT_TTL_SECOND": "60"}, "did you mean 'TIERKIT_DEFAULT_TTL_SECONDS'?"),
    ({"TIERKIT_DEFAULT_TLL": "60"}, "did you mean 'TIERKIT_DEFAULT_TTL_SECONDS'?"),
    ({"TIERKIT_CACHE_L9_DIR": "x"}, "did you mean 'TIERKIT_CACHE_L2_DIR'?"),
    ({"TIERKIT_ZZZ": "x"}, "there is no such setting; the settings are name, cache_enabled, tiers, default_ttl_"),
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
    ("[tierkt]\nlate_seconds = 5\n", "file {file} (asked for): has no table [tierkit]; did you mean it by [tierkt]?"),
    ("[[tierkt.tiers]]\nbackend = 'memory'\n", "did you mean it by [tierkt]?"),
    ("[tool.tierkit]\nlate_seconds = 5\n", "did you mean it by [tool.tierkit]?"),
    ("name = 'other'\n[build]\nx = 1\n", "(asked for): has no table [tierkit]: put the settings below one"),
    ("[tierkit]\ndefault_ttl_seconds = 5\n", "default_ttl_seconds = 5 (file {file}): must be at least 60"),
    ("[tierkit]\nlate_seconds = 2026-01-01\n", "late_seconds (file {file}): must be a number"),
    ("[tierkit.tiers]\nname = 'x'\n", "tiers (file {file}): must be a list of tables"),
    (f"x = {'9' * 5000}\n", "is not TOML"),
    (f"x = {'[' * 50000}\n", "is not TOML"),
]


@pytest.mark.req("F-5")
@pytest.mark.parametrize(("text", "said"), FILES, ids=[said for _, said in FILES])
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    file = toml(tmp_path, text)
    message = refused(lambda: load(file))
    assert said.format(file=file) in message
    assert str(file) in message


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    assert "missing.toml (asked for): cannot be read: No such file" in refused(lambda: load(missing))
    assert "TIERKIT_CONFIG" in refused(lambda: load(environ={"TIERKIT_CONFIG": str(missing)}))
    (tmp_path / "binary.toml").write_bytes(b"[tierkit]\n\n\xff\xfe")
    assert "binary.toml, line 3: is not UTF-8" in refused(lambda: load(tmp_path / "binary.toml"))


def test_a_file_may_be_shared_with_other_programs(tmp_path: Path) -> None:
    assert load(toml(tmp_path, "[other]\nx = 1\n[tierkit]\nfailure_threshold = 4\n")).failure_threshold == 4


def test_a_file_without_a_table_is_refused_if_the_environment_asks_for_it(tmp_path: Path) -> None:
    file = toml(tmp_path, "[tierkt]\n")
    said = refused(lambda: load(environ={"TIERKIT_CONFIG": str(file)}))
    assert said == (
        f"file {file} (environment variable TIERKIT_CONFIG): has no table [tierkit]; did you mean it by [tierkt]?"
    )


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "[tierkit]\n"])
def test_a_file_that_says_nothing_leaves_the_defaults(tmp_path: Path, text: str) -> None:
    assert load(toml(tmp_path, text)) == CacheConfig()


def test_a_file_that_is_only_found_need_not_be_for_tierkit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    toml(tmp_path, "name = 'other'\n[tool.other]\nx = 1\n", "tierkit.toml")
    assert load() == CacheConfig()


def test_a_spelling_for_a_level_that_is_another_is_refused(tmp_path: Path) -> None:
    file = toml(tmp_path, '[[tierkit.tiers]]\nbackend = "live"\n[[tierkit.tiers]]\nbackend = "pile"\n')
    message = refused(lambda: load(file, cache_l2_dir="x"))
    assert message == "cache_l2_dir (code): is for backend 'jsonl', and level 1 is 'pile'"


@pytest.mark.req("F-3")
def test_a_level_alone_is_checked_too() -> None:
    message = refused(lambda: CacheTierConfig(max_entries=-3, enabled="maybe"))
    assert "max_entries = -3 (code): must be at least 1" in message
    assert "enabled = 'maybe' (code)" in message


# -- secrets -----------------------------------------------------------------------------------------------------------


@pytest.mark.req("US1-6")
def test_no_secret_is_shown(tmp_path: Path) -> None:
    level = {"backend": "shelf", "password": KEY, "url": f"redis://u:{KEY}@h/1", "tokens": [KEY]}
    file = toml(tmp_path, f'[tierkit]\nencryption_key = "{KEY}"\n')
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
def test_the_credentials_of_a_url_among_the_files_are_not_shown(tmp_path: Path) -> None:
    url = f"https://user:{KEY}@example.com/list.csv"
    for config in (load(toml(tmp_path, f'[tierkit]\nwarm_files = ["{url}"]\n')), load(warm_files=[url])):
        shown = {setting.name: setting.value_text for setting in config.effective()}
        assert shown["warm_files"] == "https://**********@example.com/list.csv"


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
def test_an_option_that_its_plugin_calls_secret_is_not_shown() -> None:
    config = CacheConfig(tiers=[{"backend": "shelf", "pin": KEY}])
    assert KEY not in str(config.effective(REGISTRY))
    assert KEY not in repr(config.resolve(REGISTRY))
    wrong = CacheConfig(tiers=[{"backend": "shelf", "pin": 123456}])
    assert "123456" not in refused(lambda: wrong.resolve(REGISTRY))


def test_a_key_may_come_from_a_callable() -> None:
    config = CacheConfig(encryption_key=lambda: SecretStr(KEY))
    assert callable(config.encryption_key)
    assert ("encryption_key", "a callable") in {(line.name, line.value_text) for line in config.effective()}


@pytest.mark.req("US1-6")
@pytest.mark.parametrize("setting", ["encryption_key_env", "encryption_key_file", "key_provider"])
def test_a_key_in_the_place_of_a_name_is_refused_and_not_repeated(setting: str) -> None:
    key = base64.urlsafe_b64encode(bytes(range(100, 132))).decode()
    with pytest.raises(CacheConfigError, match=setting) as told:
        CacheConfig(**{setting: key})
    assert key not in str(told.value)
