"""Leaks that the canaries found, each with its own test."""

import pickle
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from tests.canary.watch import told_of

from tierkit import CacheConfig, CacheManager, CredentialEncryptor, KeyRing, ProxyEntry
from tierkit.errors import TierkitError
from tierkit.settings import Setting

pytestmark = pytest.mark.req("US1-6")

KEY = "Cn4ryCn4ryCn4ryCn4ryCn4ryCn4ryCn4ryCn4ryCn4="
PASSWORD = "Kanarienvogel7"
URL = f"http://ada:{PASSWORD}@feed.example/list"


def told_by(call: Callable[[], object]) -> str:
    """What the error of a call can tell, with the locals of the frames of libraries."""
    with pytest.raises(TierkitError) as caught:
        call()
    return told_of(caught.value)


@pytest.fixture
def cache() -> Any:
    with CacheManager(CacheConfig(tiers=[{"backend": "memory"}])) as cache:
        yield cache


def test_a_source_with_credentials_is_masked_in_the_repr_of_an_entry(cache: Any) -> None:
    entry = ProxyEntry.from_url("http://192.0.2.1:80", source=URL)
    assert PASSWORD not in repr(entry)
    assert "feed.example" in repr(entry)
    assert PASSWORD not in told_by(lambda: cache.put(entry))
    assert "source='a list of ours: a@b'" in repr(ProxyEntry(proxy_url="http://a:1", source="a list of ours: a@b"))


# -- keys and the environment ------------------------------------------------------------------------------------------


def test_an_error_about_keys_shows_nothing_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERKIT_ENCRYPTION_KEY", KEY[:-1])
    monkeypatch.setenv("DATABASE_URL", URL)
    config = CacheConfig(tiers=[{"backend": "sqlite", "path": tmp_path / "a.db"}])
    for told in (told_by(lambda: CacheManager(config)), told_by(CredentialEncryptor)):
        assert KEY[:-1] not in told
        assert PASSWORD not in told


def test_what_is_no_token_is_not_in_the_frames_that_refuse_it() -> None:
    plain: Any = PASSWORD
    for token in (plain, plain.encode()):
        assert PASSWORD not in told_by(lambda token=token: CredentialEncryptor(KeyRing.generate()).decrypt(token))  # type: ignore[misc]  # mypy sees no default


@pytest.mark.parametrize("setting", ["encryption_key_env", "encryption_key_file", "cache_encryption_key_env"])
def test_a_key_in_place_of_its_variable_or_file_is_refused_unseen(setting: str, tmp_path: Path) -> None:
    file = tmp_path / "tierkit.toml"
    file.write_text(f'[tierkit]\n{setting} = "{KEY}"\n')
    made: tuple[Callable[[], object], ...] = (
        lambda: CacheConfig(**{setting: KEY}),
        lambda: CacheConfig.load(file),
        lambda: CacheConfig.load(environ={f"TIERKIT_{setting.upper()}": KEY}),
    )
    for make in made:
        told = told_by(make)
        assert KEY not in told
        assert "encryption_key" in told


# -- configurations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", ['[tierkit]\nkey = "{}', "key = {}", '[tierkit]\n"{}\xff', "[tierkit\n'{}'"])
def test_a_file_that_cannot_be_parsed_is_not_in_its_error(content: str, tmp_path: Path) -> None:
    file = tmp_path / "tierkit.toml"
    file.write_bytes(content.format(KEY).encode("latin-1"))
    assert KEY not in told_by(lambda: CacheConfig.load(file))


def test_an_error_about_a_file_shows_nothing_of_what_the_program_and_the_environment_give(tmp_path: Path) -> None:
    environ = {"TIERKIT_ENCRYPTION_KEY": KEY, "DATABASE_URL": URL}
    for file in (tmp_path / "none.toml", tmp_path):
        told = told_by(lambda file=file: CacheConfig.load(file, environ=environ, encryption_key=KEY))  # type: ignore[misc]  # mypy sees no default
        assert KEY not in told
        assert PASSWORD not in told


@pytest.mark.parametrize(
    "wrong",
    [
        {"encryption_key": [KEY]},
        {"tiers": [{"backend": URL}]},
        {"observers": [URL]},
        {"tiers": [{"backend": "sqlite", "path": URL}]},
        {"tiers": [{"backend": "jsonl", "path": Path(URL)}]},
        {"durability": URL},
        {"name": URL},
        {"per_source_ttl": {URL: 0}},
        {"observers": ["prometheus"], "observer_options": {"prometheus": {"token": KEY}}},
        {"observers": ["prometheus"], "observer_options": {"prometheus": {"port": URL}}},
        {"warm_files": [URL], "cache_enabled": False},
    ],
    ids=str,
)
def test_a_wrong_setting_is_not_in_its_error(wrong: dict[str, Any]) -> None:
    told = told_by(lambda: CacheManager(CacheConfig(**wrong)))
    assert KEY not in told
    assert PASSWORD not in told


def test_what_a_configuration_shows_has_no_credentials() -> None:
    options = {"prometheus": {"token": KEY}}
    config = CacheConfig(warm_files=[URL], per_source_ttl={URL: 60}, observer_options=options)
    shown = f"{config!r} {config} {config.effective()} {config.origins}"
    assert KEY not in shown
    assert PASSWORD not in shown
    assert "feed.example" in shown
    assert Setting("per_source_ttl.http://**********@feed.example/list", "60", "code") in config.effective()


def test_a_configuration_with_a_key_cannot_be_pickled() -> None:
    for key in (SecretStr(KEY), KEY):
        with pytest.raises(TypeError, match="encryption_key"):
            pickle.dumps(CacheConfig(encryption_key=key))
    config = CacheConfig(encryption_key_file="some.key", failure_threshold=7)
    assert pickle.loads(pickle.dumps(config)) == config == deepcopy(config)  # noqa: S301 - pickled here
    assert deepcopy(CacheConfig(encryption_key=KEY)).encryption_key == SecretStr(KEY)


# -- imports -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.json", '[{{"proxy_url": "http://192.0.2.1:80", "password": "{}"}}'),
        ("none.json", "192.0.2.1:80:ada:{}"),
        ("two.json", '{{"a": [{{"password": "{0}"}}], "b": [{{"password": "{0}"}}]}}'),
        ("word.json", '{{"password": "{}"}}'),
        ("list.txt", "192.0.2.1:80:ada:{}"),
        ("list.csv", "192.0.2.1:80:ada:{}"),
        ("quote.csv", '192.0.2.1,"{}'),
        ("binary.csv", "{}\xff\n"),
    ],
)
def test_a_file_that_cannot_be_imported_is_not_in_its_error(
    name: str, content: str, cache: Any, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(content.format(PASSWORD).encode("latin-1"))
    assert PASSWORD not in told_by(lambda: cache.warm_from_file(file))


def test_credentials_in_the_arguments_of_an_import_are_not_in_its_error(cache: Any, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("proxy_url\n")
    userinfo = f"ada:{PASSWORD}@host.csv"
    for path in (URL, Path(URL), userinfo, Path(userinfo)):
        assert PASSWORD not in told_by(lambda path=path: cache.warm_from_file(path))  # type: ignore[misc]  # mypy sees no default
    assert PASSWORD not in told_by(lambda: cache.warm_from_file(file, source=URL))
    assert PASSWORD not in told_by(lambda: cache.warm_from_file(file, scheme=URL))
    assert PASSWORD not in told_by(lambda: CacheManager(CacheConfig(tiers=[{"backend": "memory"}], warm_files=[URL])))
