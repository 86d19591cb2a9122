"""What a person or a program may give: settings, keys, tokens, URLs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from pydantic import SecretStr
from tests.fuzz.stored import KEY, SEALER, WRITTEN, check

from tierkit import CacheConfig, CredentialEncryptor, EncryptionKeyError, ProxyEntry, TierkitError
from tierkit.key_file import keys_in
from tierkit.keys import ForeignToken, parse_keys, ring_of
from tierkit.plugins import PluginRegistry, discover
from tierkit.proxy_url import redact

SECRET: Final = "a secret of the corpus"
FORMS: Final[tuple[tuple[ForeignToken, ...], ...]] = ((), ("fernet",))
"""Which tokens of other tools are read."""
MOST_SHOWN: Final = 400
"""How much of one line an error repeats at most."""
_ABOUT_KEYS: Final = re.compile(
    r"(the key file \S+: )?"
    r"((key [0-9]+ of [0-9]+ is malformed|there is no key): keys are Fernet keys of 44 characters.*"
    r"|two different keys have the id [0-9a-f]{8}, .*)",
    re.DOTALL,
)


@lru_cache
def registry() -> PluginRegistry:
    return discover()


def settled(load: Callable[[], CacheConfig], hidden: str, given: int) -> None:
    """Load a configuration and ask for all of it; `hidden` is told nowhere, nor more than has been given."""
    try:
        config = load()
        texts = [setting.value_text for setting in config.effective()]
        config.resolve(registry())
        texts += [setting.value_text for setting in config.effective(registry())]
        config.check_observers(registry())
        assert not any("\0" in text for text in texts), "a null character is accepted"
    except TierkitError as error:
        texts = [str(error)]
        assert len(texts[0]) < 800 * given + 2000, "the error is far longer than what was given"
    assert not hidden or not any(hidden in text for text in texts), "a secret is shown"


def toml(data: bytes) -> None:
    """A configuration file."""
    with TemporaryDirectory(prefix="fuzz") as folder:
        file = Path(folder, "some.toml")
        file.write_bytes(data)
        settled(lambda: CacheConfig.load(file, environ={}), hidden_in(data), len(data))
        assert [path.name for path in Path(folder).iterdir()] == [file.name]


def hidden_in(data: bytes) -> str:
    """The encryption key of a configuration, if that is long and stands there once."""
    with suppress(ValueError, RecursionError, AttributeError):
        key = tomllib.loads(data.decode()).get("tierkit", {}).get("encryption_key")
        if isinstance(key, str) and len(key) > 11 and data.count(key.encode()) == 1:
            return key
    return ""


def environment(data: bytes) -> None:
    """Environment variables, one a line. No file is named: it would be read."""
    text = data.decode("utf-8", "surrogateescape")
    pairs = [line.partition("=") for line in text.split("\n")]
    environ = {f"TIERKIT_{name}": value for name, _, value in pairs if name != "CONFIG"}
    environ["TIERKIT_ENCRYPTION_KEY"] = SECRET
    settled(lambda: CacheConfig.load(environ=environ), SECRET, len(data))


@contextmanager
def said_of_keys() -> Iterator[None]:
    """An error of what is done says nothing of a key: it is of a known form."""
    try:
        yield
    except EncryptionKeyError as error:
        check(_ABOUT_KEYS.fullmatch(str(error)), "an error tells of keys what is not of a known form")


def keys(data: bytes) -> None:
    """Keys as text."""
    text = data.decode("utf-8", "surrogateescape")
    with said_of_keys():
        ring = parse_keys(text)
        assert all(re.fullmatch("[0-9a-f]{8}", key_id) for key_id in ring.ids)
        assert parse_keys(",".join(text.replace(",", " ").split())).ids == ring.ids
        assert 44 * len(ring.ids) <= len(text)


def key_file(data: bytes) -> None:
    """A file of keys: what it says is what the same text says."""
    with TemporaryDirectory(prefix="fuzz") as folder:
        file = Path(folder, "encryption.key")
        file.write_bytes(data)
        file.chmod(0o600)
        with said_of_keys():
            ring = ring_of(keys_in(file) or [], f"the key file {file}")
            assert ring.ids == parse_keys(data.decode("utf-8", "replace")).ids


def token(data: bytes) -> None:
    """A token, alone and in a row: only what was made opens, and only where it belongs."""
    for accepted in FORMS:
        with suppress(TierkitError):
            secret = CredentialEncryptor(KEY, accept=accepted).decrypt(data)
            assert secret.get_secret_value() == SECRET, "a token was made up"
    row = SEALER.seal(WRITTEN["a"])
    moved = SEALER.remade(row, columns={**row.columns, "token_encrypted": data})
    try:
        assert SEALER.open(moved) == WRITTEN["a"], "a token opened that was not sealed here"
    except TierkitError as error:
        shown = data[12:].decode("latin-1")
        check(len(shown) < 12 or shown not in str(error), "a token is shown")


def proxy_url(data: bytes) -> None:
    """The URL of a proxy: one normal form, one key, and no password where it is shown."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        entry = ProxyEntry.from_url(text)
    except TierkitError as error:
        check_hidden(text, str(error))
        check(len(str(error)) < MOST_SHOWN, "the error is long")
    else:
        assert ProxyEntry.from_url(entry.proxy_url).proxy_url == entry.proxy_url
        assert ProxyEntry.key_for(text) == entry.key
        assert len(entry.proxy_url) <= len(text) + 50
        for secret in (entry.username, entry.password):
            check_unseen(secret, repr(entry), entry.proxy_url)
    check_hidden(text, redact(text))


def check_hidden(url: str, shown: str) -> None:
    """What stands between // and the last @ is in no message, if it is too long to be there by chance."""
    userinfo = url.rpartition("@")[0].rpartition("://")[2]
    for part in userinfo.replace("@", ":").split(":"):  # what is shown of the host has an @ before it
        assert len(part) < 10 or part in url.rpartition("@")[2] or part not in shown, "a credential is shown"


def check_unseen(secret: SecretStr | None, shown: str, url: str) -> None:
    text = "" if secret is None else secret.get_secret_value()
    assert len(text) < 10 or text in url or text not in shown, "a secret is shown"
