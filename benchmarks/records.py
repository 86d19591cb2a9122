"""Records to measure with: real proxies of the list that ships, user names and passwords generated."""

from __future__ import annotations

import csv
import gzip
import random
from importlib.resources import files
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import msgspec
from cryptography.fernet import Fernet
from pydantic import SecretStr

from tierkit import CacheConfig, ProxyEntry

COUNT = 10_000
KEY = SecretStr(Fernet.generate_key().decode())


def rows(count: int = COUNT) -> list[dict[str, Any]]:
    """`count` rows of real shape, each with a user name and a password."""
    packed = files("tierkit").joinpath("data", "2026-08-14T2123Z.jsonl.gz").read_bytes()
    real = [msgspec.json.decode(line) for line in gzip.decompress(packed).splitlines()]
    generated = random.Random(7)
    return [
        {
            "proxy_url": row["proxy_url"],
            "username": f"user{number}",
            "password": f"{generated.getrandbits(64):016x}",
            "source": row["source"],
        }
        for number, row in enumerate(islice(cycle(real), count))
    ]


def write_lists(folder: Path, count: int = COUNT) -> dict[str, Path]:
    """The same rows as CSV and as JSONL."""
    found = rows(count)
    paths = {"CSV": folder / "list.csv", "JSONL": folder / "list.jsonl"}
    with paths["CSV"].open("w", newline="") as file:
        writer = csv.DictWriter(file, found[0])
        writer.writeheader()
        writer.writerows(found)
    paths["JSONL"].write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in found))
    return paths


def entries(count: int = COUNT) -> list[ProxyEntry]:
    """The same rows as entries."""
    return [
        ProxyEntry(
            proxy_url=row["proxy_url"],
            username=SecretStr(row["username"]),
            password=SecretStr(row["password"]),
            source=row["source"],
        )
        for row in rows(count)
    ]


def default_stack(folder: Path, **settings: Any) -> CacheConfig:
    """The default configuration, but for its place and its key."""
    return CacheConfig(
        encryption_key=KEY, l2_cache_dir=folder / "proxies", l3_database_path=folder / "tierkit.db", **settings
    )


def three_tiers(folder: Path, bounded: bool = True, **settings: Any) -> CacheConfig:
    """The default stack, or one that keeps everything in every level."""
    l1, l2 = (1000, 5000) if bounded else (None, None)
    return CacheConfig(
        encryption_key=KEY,
        tiers=(
            {"backend": "memory", "max_entries": l1},
            {"backend": "jsonl", "max_entries": l2, "path": folder / "jsonl"},
            {"backend": "sqlite", "path": folder / "tierkit.db"},
        ),
        **settings,
    )
