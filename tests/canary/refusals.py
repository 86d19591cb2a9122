"""What is refused: at the door, for its key, in a configuration, for what became of a record."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import Any, Final
from unittest.mock import patch

import msgspec
from pydantic import SecretStr
from tests.canary.scene import ApiToken, Scene, key_canaries

from tierkit import CacheConfig, CacheEntry, CacheManager, CredentialEncryptor, KeyRing, ProxyEntry, unpack_row
from tierkit.schema import schema_of
from tierkit.sealing import Sealer
from tierkit_sqlite.library import sqlite3


class Stricter(CacheEntry):
    """Another idea of what an `ApiToken` is."""

    __namespace__ = "api_token"
    __bind__ = ("endpoint",)

    endpoint: int = 0
    token: SecretStr | None = None


# -- at the door -------------------------------------------------------------------------------------------------------


def doors(scene: Scene) -> None:
    """Entries, keys and arguments that cannot be taken."""
    password: Any = scene.secrets.password
    with scene.opened() as cache:
        for number, make in enumerate(wrong_entries(scene)):
            scene.refused(f"entry {number}", lambda make: cache.put(make()), make)
            scene.refused(f"entry {number} of many", lambda make: cache.put_many([make()]), make)
        scene.shows("what is not found", cache.get(f"http://{scene.secrets.userinfo}@192.0.2.1:80"))
    encryptor = CredentialEncryptor(KeyRing.generate())
    for secret in (password, password.encode(), SecretStr(password + "\ud800"), SecretStr(password.encode())):
        scene.refused("encryption", encryptor.encrypt, secret)
        scene.refused("decryption", encryptor.decrypt, secret)
    scene.files()


def wrong_entries(scene: Scene) -> Iterator[Callable[[], Any]]:
    """What nobody should put."""
    secrets, userinfo = scene.secrets, scene.secrets.userinfo
    wrong: Any = secrets.password  # a plain string, a mistake that users make
    for form in (
        "http://{}@192.0.2.1:99999",
        "http://{}@bad_-.host-:80",
        "{}@192.0.2.1",
        "http://{}@[::1",
        "{}",
        "://{}@",
    ):
        url = form.format(userinfo)
        yield partial(ProxyEntry.from_url, url)
        yield partial(ProxyEntry, proxy_url=url, password=wrong)
        yield partial(ProxyEntry.key_for, url)
    good = partial(ProxyEntry.from_url, "http://192.0.2.1:80")
    yield partial(good, source=f"http://{userinfo}@feed.example/list")
    for password in (SecretStr(secrets.password + "\ud800"), secrets.password.encode(), [secrets.password]):
        yield partial(good, password=password)
    yield partial(good, password=SecretStr(secrets.password * 60_000))
    yield partial(ApiToken, key="a", token=wrong)


# -- keys -------------------------------------------------------------------------------------------------------------


def keys(scene: Scene) -> None:
    """Keys that are malformed, missing, unsafe, or not the right ones; and one that is generated."""
    for name, settings, environ in wrong_keys(scene):
        with patch.dict(os.environ, environ):
            scene.refused(f"a key that is {name}", scene.opened, **settings)
    scene.refused("no keys", KeyRing, [SecretStr(scene.secrets.key), SecretStr(scene.secrets.password)])
    with scene.opened() as cache:
        cache.put(scene.proxy())
    with scene.opened(encryption_key=SecretStr(scene.secrets.lost_key)) as cache:
        scene.shows("what another key finds", cache.get(scene.proxy().key), *cache.scan(), cache.get_statistics())
    generated(scene)


def wrong_keys(scene: Scene) -> Iterator[tuple[str, dict[str, Any], Mapping[str, str]]]:
    """How a key may be given wrongly."""
    key, password = scene.secrets.key, scene.secrets.password
    none = {"encryption_key_file": None}
    yield "cut off", {"encryption_key": SecretStr(key[:-1])}, {}
    yield "one of two", {"encryption_key": SecretStr(f"{key},{password}")}, {}
    yield "plain text of a callable", {"encryption_key": lambda: key}, {}
    yield "cut off in the environment", none, {"TIERKIT_ENCRYPTION_KEY": key[:-1]}
    yield "missing", {"key_policy": "require", **none}, {}
    for name, content, mode in (("open", key, 0o644), ("cut", key[:-1], 0o600), ("binary", f"\0{key}\x01", 0o600)):
        path = scene.write(f"{name}.key", content)
        path.chmod(mode)
        yield f"in a file that is {name}", {"encryption_key_file": path}, {}
    yield "a folder", {"encryption_key_file": scene.given}, {}


def generated(scene: Scene) -> None:
    """A key that tierkit makes stands in its file and nowhere else."""
    key_file = scene.root / "home" / "made.key"
    levels = ({"backend": "sqlite", "path": scene.root / "generated" / "a.db"},)
    with scene.opened(tiers=levels, encryption_key_file=key_file) as cache:
        cache.put(scene.proxy())
        scene.search.canaries += key_canaries("the generated key", key_file.read_text().strip())
        scene.shows("a cache with a key that was generated", cache, cache.config, vars(cache))
        scene.files(allowed=[key_file])
    key_file.rename(scene.given / "made.key")
    scene.refused("a key that was lost", scene.opened, tiers=levels, encryption_key_file=key_file)


# -- configurations ----------------------------------------------------------------------------------------------------


def settings(scene: Scene) -> None:
    """Settings that are wrong, and keys and credentials where they do not belong."""
    url = f"http://{scene.secrets.userinfo}@feed.example/list"
    for number, wrong in enumerate(wrong_settings(scene.secrets.key, url)):
        path = scene.write(f"wrong-{number}.toml", toml(wrong))
        environ = {f"TIERKIT_{name.upper()}": as_text(value) for name, value in wrong.items()}
        scene.refused(f"setting {number} in code", opened_by, CacheConfig, **wrong)
        scene.refused(f"setting {number} in a file", opened_by, CacheConfig.load, path, environ={})
        scene.refused(f"setting {number} in the environment", opened_by, CacheConfig.load, environ=environ)
    for content in ('[tierkit]\nencryption_key = "{}', "[tierkit]\nencryption_key = {}\n", "{}", '[tierkit]\n"{}\xff'):
        path = scene.given / "broken.toml"
        path.write_bytes(content.format(scene.secrets.key).encode("latin-1"))
        scene.refused("a file that is no TOML", CacheConfig.load, path)
    shown = CacheConfig(encryption_key=scene.secrets.key, warm_files=[url], per_source_ttl={"paid": 60})
    scene.shows(
        "a configuration",
        shown,
        shown.effective(),
        shown.origins,
    )
    held = CacheConfig(encryption_key=scene.secrets.key)
    scene.shows("a configuration with a key", held.model_dump(), held.model_dump_json(), vars(held))
    scene.refused("pickling a configuration with a key", pickle.dumps, held)


def opened_by(configured: Callable[..., CacheConfig], *args: Any, **settings: Any) -> None:
    """See whether a cache opens."""
    CacheManager(configured(*args, **settings)).close()


def wrong_settings(key: str, url: str) -> Iterator[dict[str, Any]]:
    """Each cannot work."""
    sqlite = {"backend": "sqlite"}
    yield {"encryption_key": key, "failure_threshold": 0}
    yield {"encryption_kye": key}
    yield {"encryption_key_env": key, "key_policy": "require"}
    yield {"encryption_key_file": key}
    yield {"encryption_key": [key], "failure_threshold": 0}
    yield {"tiers": [{**sqlite, "password": key}]}
    yield {"tiers": [{**sqlite, "path": url}]}
    yield {"tiers": [{**sqlite, "url": url}]}
    yield {"tiers": [{"backend": url}]}
    yield {"tiers": [{"backend": "sqlight", "password": key}]}
    yield {"tiers": url}
    yield {"per_source_ttl": {url: 0}}
    yield {"warm_files": [url], "cache_enabled": False}
    yield {"observers": [url]}
    yield {"observers": ["prometheus"], "observer_options": {"prometheus": {"port": url}}}
    yield {"observers": ["prometheus"], "observer_options": {"prometheus": {"token": key}}}
    yield {"durability": url}
    yield {"default_ttl_seconds": url}
    yield {"name": url}


def toml(wrong: Mapping[str, Any]) -> str:
    """The same in TOML: JSON, but for the names of tables."""
    return "[tierkit]\n" + "".join(f"{name} = {inline(value)}\n" for name, value in wrong.items())


def inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(name)} = {inline(part)}" for name, part in value.items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    return json.dumps(value)


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


# -- damage ------------------------------------------------------------------------------------------------------------


SWAP: Final = """
    UPDATE proxy_entry SET password_encrypted = (SELECT max(username_encrypted) FROM proxy_entry)
    WHERE key = (SELECT min(key) FROM proxy_entry)
"""


def damage(scene: Scene) -> None:
    """Records that were changed, files that were cut, and rows that no class fits."""
    levels = scene.config().tiers[1:]
    with scene.opened(tiers=levels) as cache:
        cache.put_many([scene.proxy(number) for number in range(40, 43)])
    database = scene.root / "sqlite" / "tierkit.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(SWAP)
    for shard in (scene.root / "jsonl").rglob("*.jsonl"):
        shard.write_bytes(shard.read_bytes().replace(b"s1.", b"s2.", 1)[:-7])
    with scene.opened(tiers=levels) as cache:
        scene.shows(
            "what is left of damage", *cache.scan(), *(cache.get(scene.proxy(number).key) for number in (40, 41, 42))
        )
        scene.shows("what is told of damage", cache.get_statistics())
    database.write_bytes(b"no database" + bytes(5000))
    with scene.opened() as cache:
        cache.put(scene.proxy(43))
        scene.files()
    scene.files()
    rows(scene)


def rows(scene: Scene) -> None:
    """Rows that do not open, one by one, as a cache only logs them."""
    ring, other = (KeyRing([key]) for key in scene.held_and_lost())
    sealer, stricter = Sealer(schema_of(ApiToken), ring), Sealer(schema_of(Stricter), ring)
    row = sealer.seal(scene.api_token(version=1))
    scene.shows("a row", row, sealer, ring)
    scene.refused("another key", lambda: Sealer(schema_of(ApiToken), other).open(row))
    scene.refused("another class", lambda: stricter.open(row))
    scene.refused("another version", lambda: sealer.open(msgspec.structs.replace(row, version=2)))
    moved = sealer.remade(row, key="elsewhere")
    scene.refused("another place", lambda: sealer.open(moved))
    scene.refused("no key", lambda: Sealer(schema_of(ApiToken), None).seal(scene.api_token(version=1)))
    scene.refused("bytes that are no row", unpack_row, b"no row")
    scene.cannot_be_pickled(sealer)
