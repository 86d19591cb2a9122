"""Key providers: what plugins offer that can be asked for keys, when it is asked, and what is told if it fails."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from tests.telling import told

from tierkit import (
    CacheConfig,
    CacheConfigError,
    EncryptionKeyError,
    KeyProvider,
    PluginError,
    PluginRegistry,
    hookimpl,
)
from tierkit.key_sources import KeySources
from tierkit.keys import parse_keys
from tierkit.plugins import discover

A, B = (base64.urlsafe_b64encode(bytes([number] * 32)).decode() for number in (7, 77))
ID_A, ID_B = (parse_keys(key).primary.id for key in (A, B))


class Vaults:
    """A plugin that offers these."""

    def __init__(self, **providers: Any) -> None:
        self._providers = providers

    @hookimpl
    def register_key_providers(self) -> dict[str, Any]:
        return self._providers


def knowing(*plugins: Any) -> PluginRegistry:
    return discover(plugins, installed=())


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return tmp_path / "encryption.key"


def sources(key_file: Path, ask: KeyProvider, environ: dict[str, str] | None = None, **settings: Any) -> KeySources:
    config = CacheConfig(name="proxies", key_provider="vault", encryption_key_file=key_file, **settings)
    return KeySources.of(config, knowing(Vaults(vault=ask)), environ or {}, needed=True)


def never(_: str) -> None:
    raise AssertionError("asked")


def test_it_is_told_the_name_of_the_cache_and_answers_its_keys(key_file: Path) -> None:
    asked = []

    def vault(cache_name: str) -> SecretStr:
        asked.append(cache_name)
        return SecretStr(f"{A},{B}")

    ring = sources(key_file, vault).find()
    assert ring is not None
    assert ring.ids == (ID_A, ID_B)
    assert asked == ["proxies"]


def test_it_is_asked_after_all_other_sources(key_file: Path) -> None:
    def ids(**settings: Any) -> Any:
        ring = sources(key_file, never, **settings).find()
        return ring and ring.ids

    assert ids(encryption_key=SecretStr(A)) == (ID_A,)
    assert ids(environ={"TIERKIT_ENCRYPTION_KEY": A}) == (ID_A,)
    key_file.touch(0o600)
    key_file.write_text(B)
    assert ids() == (ID_B,)


def test_it_is_asked_before_a_key_is_generated(key_file: Path) -> None:
    ring = sources(key_file, lambda _: SecretStr(A)).resolve(key_policy="generate", ciphertext=lambda: "")
    assert ring.ids == (ID_A,)
    assert not key_file.exists()


def test_where_it_has_none_one_is_generated_or_the_error_names_it(key_file: Path) -> None:
    without = sources(key_file, lambda _: None)
    assert without.places()[-1] == "the key provider 'vault'"
    with pytest.raises(
        EncryptionKeyError, match=r"no encryption key .the key provider 'vault' has none., and key_policy"
    ):
        without.check("require")
    assert without.resolve(key_policy="generate", ciphertext=lambda: "").primary.id == without.find().primary.id  # type: ignore[union-attr]  # it is there
    assert key_file.exists()


def test_a_plain_fernet_token_is_accepted_with_its_keys_too(key_file: Path) -> None:
    ring = sources(key_file, lambda _: SecretStr(A), accept=("fernet",)).find()
    assert ring is not None
    assert ring.accept == ("fernet",)


def fails(_: str) -> SecretStr:
    password = "canary-0451"
    raise RuntimeError(f"{password} was not taken")


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (fails, "'vault' failed: RuntimeError$"),
        (lambda _: "canary-0451", "'vault' answered str, neither a SecretStr nor None$"),
        (lambda _: SecretStr("canary-0451"), "'vault': key 1 of 1 is malformed"),
        (lambda _: SecretStr(""), "'vault': there is no key"),
    ],
)
def test_one_that_fails_is_told_by_name_without_what_it_holds(
    key_file: Path, ask: Callable[[str], Any], said: str
) -> None:
    with pytest.raises(EncryptionKeyError, match=f"the key provider {said}") as caught:
        sources(key_file, ask).resolve(key_policy="generate", ciphertext=lambda: "")
    assert "canary-0451" not in told(caught.value)
    assert not key_file.exists(), "a source that fails is no reason to make another key"


def test_an_unknown_one_is_refused_with_those_there_are() -> None:
    config = CacheConfig(key_provider="valt")
    with pytest.raises(
        CacheConfigError, match=r"key_provider = 'valt' \(code\): .*mean 'vault'\? Installed are safe, v"
    ):
        config.provider_of_keys(knowing(Vaults(vault=never, safe=never)))
    with pytest.raises(CacheConfigError, match=r"'keychain': it comes with `pip install 'tierkit\[keychain\]'`"):
        CacheConfig(key_provider="keychain").provider_of_keys(knowing())
    assert CacheConfig().provider_of_keys(knowing()) is None


def test_one_that_two_offer_or_that_cannot_be_called_is_refused() -> None:
    config = CacheConfig(key_provider="vault")
    with pytest.raises(PluginError, match=r"offered by .* and .*: uninstall all but one"):
        config.provider_of_keys(knowing(Vaults(vault=never), Vaults(vault=never)))
    with pytest.raises(PluginError, match="'vault': str cannot be called"):
        config.provider_of_keys(knowing(Vaults(vault="canary")))


def test_without_a_home_a_key_that_was_given_still_does() -> None:
    given = KeySources({}, explicit=SecretStr(A))
    ring = given.find()
    assert ring is not None
    assert ring.ids == (ID_A,)


def test_who_needs_no_key_looks_into_no_file_that_nobody_named(tmp_path: Path) -> None:
    (tmp_path / "tierkit").mkdir()
    (tmp_path / "tierkit" / "encryption.key").write_text("nonsense")
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    idle = KeySources(environ, needed=False)
    assert idle.find() is None
    idle.check("require")
    with pytest.raises(EncryptionKeyError):
        KeySources(environ).find()
