"""The keychain: where a key stands in it, and that its library is loaded only when it is asked."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from cryptography.fernet import Fernet
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked
from pydantic import SecretStr

from tierkit import CacheConfig, CacheManager, EncryptionKeyError, ProxyEntry
from tierkit_keychain import key_in_keychain

KEY = Fernet.generate_key().decode()
ENTRY = ProxyEntry.from_url("http://ada:lovelace@192.0.2.1:8080")


class InMemory(KeyringBackend):
    """A keychain that lasts as long as the test."""

    priority = 1.0

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # keyring's own has no types
        self.passwords: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise KeyringLocked("canary-0451")
        return self.passwords.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.passwords[service, username] = password


@pytest.fixture
def keychain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[InMemory]:
    for name in ("TIERKIT_ENCRYPTION_KEY", "PROXYWHIRL_CACHE_ENCRYPTION_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    before, held = keyring.get_keyring(), InMemory()
    keyring.set_keyring(held)
    yield held
    keyring.set_keyring(before)


def opened(tmp_path: Path, name: str = "proxies") -> CacheManager[ProxyEntry]:
    tiers = [{"backend": "jsonl", "path": str(tmp_path / "data")}]
    return CacheManager(CacheConfig(name=name, tiers=tiers, key_provider="keychain"))


def test_the_key_of_a_cache_stands_under_its_name(keychain: InMemory, tmp_path: Path) -> None:
    keyring.set_password("tierkit", "proxies", KEY)
    assert key_in_keychain("proxies") == SecretStr(KEY)
    assert key_in_keychain("others") is None
    with opened(tmp_path) as cache:
        cache.put(ENTRY)
    with CacheManager(CacheConfig(tiers=cache.config.tiers, encryption_key=SecretStr(KEY))) as cache:
        assert cache.get(ENTRY.key) is not None
    assert not (tmp_path / "config").exists(), "no key file was generated"


def test_a_keychain_that_has_lost_the_key_leads_to_no_new_one_over_what_is_stored(
    keychain: InMemory, tmp_path: Path
) -> None:
    keyring.set_password("tierkit", "proxies", KEY)
    with opened(tmp_path) as cache:
        cache.put(ENTRY)
    keychain.passwords.clear()
    with pytest.raises(EncryptionKeyError, match="the key provider 'keychain' has none"):
        opened(tmp_path)
    assert not (tmp_path / "config").exists()


def test_a_locked_keychain_is_told_by_name_without_what_it_says(keychain: InMemory, tmp_path: Path) -> None:
    keychain.locked = True
    with pytest.raises(EncryptionKeyError, match="the key provider 'keychain' failed: KeyringLocked") as caught:
        opened(tmp_path)
    assert "canary-0451" not in str(caught.value)


def test_the_library_is_loaded_only_when_the_keychain_is_asked() -> None:
    code = "import sys, tierkit_keychain as k; k.register_key_providers(); print('keyring' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
