"""The parts of `tierkit demo` that do the work: a place, a real list, a check from another process, a look at the disk.

Run as a module with the path of a configuration, it is that other process.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import secrets
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from hashlib import blake2b
from importlib import resources
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import msgspec
from pydantic import SecretStr

from tierkit.config import CacheConfig
from tierkit.entry import ProxyEntry
from tierkit.manager import CacheManager
from tierkit.schema import namespace_of

LIST: Final = "2026-08-14T2123Z.jsonl.gz"
LIST_ORIGIN: Final = "a public proxy list of 2026-08-14 (MIT, © 2025 Wyatt Walsh)"
TTL_SECONDS: Final = 2 * 3600.0

_CREDENTIALS_EVERY: Final = 7
_VARIABLES: Final = ("TIERKIT_", "PROXYWHIRL_")
_CONFIG: Final = """\
[tierkit]
encryption_key_file = "keys/encryption.key"

[[tierkit.tiers]]
name = "L1"
backend = "memory"
max_entries = 1000

[[tierkit.tiers]]
name = "L2"
backend = "jsonl"
path = "data/l2"
max_entries = 5000

[[tierkit.tiers]]
name = "L3"
backend = "sqlite"
path = "data/l3/tierkit.db"
"""


class ListedProxy(ProxyEntry):
    """A proxy as the list describes it: its two more fields become columns.

    Attributes:
        country_code: Two letters; empty or None where it is not known.
        response_time_ms: Milliseconds, as measured by those who published the list.
    """

    country_code: str | None = None
    response_time_ms: float | None = None


class Check(msgspec.Struct, frozen=True):
    """What a process found in the store.

    Attributes:
        pid: The process.
        records: How many records it read.
        secrets: How many secrets it opened.
        digest: Covers every field of the list and every credential, whatever the order.
        seconds: From opening the store to having read everything.
    """

    pid: int
    records: int
    secrets: int
    digest: str
    seconds: float = 0.0


class Place:
    """A directory with a configuration, an encryption key, and room for the data.

    Attributes:
        root: The directory.
        data: Where the persistent levels are.
        database: The SQLite file of the lowest level.
        config_file: The configuration.
        key_file: The encryption key; not beside the data, as in life.
    """

    def __init__(self, root: Path) -> None:
        """Furnish `root`, an empty directory of our own."""
        self.root = root
        self.data = root / "data"
        self.database = self.data / "l3" / "tierkit.db"
        self.config_file = root / "tierkit.toml"
        self.key_file = root / "keys" / "encryption.key"
        for directory in (self.data, self.key_file.parent):
            directory.mkdir(mode=0o700)
        self.config_file.write_text(_CONFIG, "utf-8")
        self._key = _new_key(self.key_file)

    def open(self) -> CacheManager[ListedProxy]:
        """Open the cache here, whatever the environment says."""
        config = CacheConfig.load(self.config_file, environ={}, encryption_key=self._key)
        return CacheManager(config, entry_type=ListedProxy)

    def files(self) -> list[Path]:
        """Every file that holds data."""
        return sorted(path for path in self.data.rglob("*") if path.is_file())

    def check_in_new_process(self) -> Check:
        """Let another process open the store and read all of it.

        Raises:
            RuntimeError: It failed.
        """
        environ = {name: value for name, value in os.environ.items() if not name.startswith(_VARIABLES)}
        command = [sys.executable, "-P", "-m", "tierkit.demo", str(self.config_file)]
        done = subprocess.run(  # noqa: S603 - this interpreter, our own module, a path that we made
            command, capture_output=True, env=environ, cwd=self.root, timeout=60, check=False
        )
        if done.returncode:
            raise RuntimeError(f"the new process ended with {done.returncode}: {done.stderr.decode()[-500:]}")
        return msgspec.json.decode(done.stdout, type=Check)


class Listing:
    """The list that ships with tierkit, with generated credentials in a part of it.

    Attributes:
        rows: As published, the credentials added.
        with_credentials: How many have some.
        marker: What every generated user name and password begins with, so that one search finds any of them.
    """

    def __init__(self) -> None:
        """Read the list and generate credentials for every seventh proxy."""
        self.marker = f"demo{secrets.token_hex(6)}"
        packed = resources.files("tierkit").joinpath("data", LIST).read_bytes()
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in gzip.decompress(packed).splitlines()]
        chosen = self.rows[::_CREDENTIALS_EVERY]
        for row in chosen:
            row["username"] = f"{self.marker}-{secrets.token_hex(4)}"
            row["password"] = f"{self.marker}-{secrets.token_urlsafe(12)}"
        self.with_credentials = len(chosen)

    def write(self, path: Path) -> None:
        """Write the list as JSON Lines, as a provider would deliver it: with its passwords."""
        encode = msgspec.json.Encoder().encode
        path.touch(mode=0o600)
        path.write_bytes(b"\n".join(map(encode, self.rows)) + b"\n")

    def keys(self) -> list[str]:
        """The keys of all rows, in the order of the list."""
        return [ProxyEntry.key_for(row["proxy_url"], row.get("username")) for row in self.rows]

    def password(self, key: str) -> str:
        """The password of the record `key`."""
        return str(dict(zip(self.keys(), self.rows, strict=True))[key]["password"])

    def check(self) -> Check:
        """What a process must find, worked out from the list alone."""
        names = ("proxy_url", "username", "password", "source", "country_code", "response_time_ms")
        return _check(tuple(row.get(name) for name in names) for row in self.rows)


def requests(keys: list[str], count: int) -> list[str]:
    """`count` of `keys`, a few often and most seldom (Zipf's law), the same every time."""
    weights = list(accumulate(1 / rank for rank in range(1, len(keys) + 1)))
    return random.Random(7).choices(keys, cum_weights=weights, k=count)  # noqa: S311 - load, not cryptography


def sample(keys: list[str], count: int) -> list[str]:
    """`count` of `keys`, each once, the same every time."""
    return random.Random(7).sample(keys, count)  # noqa: S311 - load, not cryptography


def timed_reads(cache: CacheManager[Any], keys: Iterable[str]) -> dict[str, list[float]]:
    """Get each of `keys`. The seconds that it took, by the level that answered, which its counter tells."""
    took: dict[str, list[float]] = {level.name: [] for level in cache.levels}
    for key in keys:
        hits = [level.counters.hits for level in cache.levels]
        started = time.perf_counter()
        cache.get(key)
        seconds = time.perf_counter() - started
        answered = (
            level.name for level, before in zip(cache.levels, hits, strict=True) if level.counters.hits > before
        )
        took[next(answered)].append(seconds)
    return took


def line_on_disk(files: Iterable[Path], key: str) -> tuple[Path, str] | None:
    """The JSONL file and the line in it that hold the record `key`, as it stands there."""
    needle = json.dumps(key)
    texts = ((path, path.read_text("utf-8")) for path in files if path.suffix == ".jsonl")
    lines = ((path, line) for path, text in texts for line in text.splitlines())
    return next(((path, line) for path, line in lines if needle in line and "password_encrypted" in line), None)


def row_on_disk(database: Path, key: str) -> dict[str, Any]:
    """The row of the SQLite table that holds the record `key`, read with nothing but Python's own SQLite."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        query = f"SELECT * FROM {namespace_of(ListedProxy)} WHERE key = ?"  # noqa: S608 - a name of our own
        return dict(connection.execute(query, (key,)).fetchone())


def files_with(files: Iterable[Path], marker: str) -> list[Path]:
    """The files in which `marker` occurs in the clear."""
    return [path for path in files if marker.encode() in path.read_bytes()]


def _new_key(path: Path) -> SecretStr:
    from cryptography.fernet import Fernet

    key = Fernet.generate_key()
    path.touch(mode=0o600)
    path.write_bytes(key)
    return SecretStr(key.decode())


def _check(records: Iterable[tuple[Any, ...]]) -> Check:
    total = opened = mixed = 0
    for record in records:
        total += 1
        opened += sum(value is not None for value in record[1:3])
        mixed ^= int.from_bytes(blake2b(json.dumps(record).encode(), digest_size=16).digest())
    return Check(os.getpid(), total, opened, f"{mixed:032x}")


def _fields(entries: Iterable[ListedProxy]) -> Iterator[tuple[Any, ...]]:
    for entry in entries:
        credentials = (secret and secret.get_secret_value() for secret in (entry.username, entry.password))
        yield (entry.proxy_url, *credentials, entry.source, entry.country_code, entry.response_time_ms)


def _check_store(config_file: str) -> Check:
    started = time.perf_counter()
    with CacheManager(CacheConfig.load(config_file), entry_type=ListedProxy, read_only=True) as cache:
        found = _check(_fields(cache.scan()))
    return msgspec.structs.replace(found, seconds=time.perf_counter() - started)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(_check_store(sys.argv[1])))
