"""What the tests of exports share: entry types with every kind of field, and caches of different tiers."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
from cryptography.fernet import Fernet
from pydantic import SecretStr

from tierkit import CacheConfig, CacheEntry, CacheManager
from tierkit.testing import FakeClock

KEY = Fernet.generate_key().decode()
OTHER_KEY = Fernet.generate_key().decode()
TIERS: dict[str, list[dict[str, Any]]] = {
    "memory": [{"backend": "memory"}],
    "sqlite": [{"backend": "memory", "max_entries": 3}, {"backend": "sqlite", "path": "l.db"}],
    "jsonl": [{"backend": "jsonl", "path": "l"}],
    "behind": [{"backend": "jsonl", "path": "l"}, {"backend": "sqlite", "path": "l.db", "write_policy": "behind"}],
    "demote": [{"backend": "jsonl", "path": "l"}, {"backend": "sqlite", "path": "l.db", "write_policy": "demote"}],
}


class Shade(StrEnum):
    LIGHT = "light"
    DARK = "=dark"


class Point(msgspec.Struct, frozen=True):
    x: int
    name: str = ""


class Everything(CacheEntry):
    """A field of each kind that can be stored."""

    text: str = ""
    words: str | None = None
    number: int = 0
    amount: float | None = None
    flag: bool = False
    data: bytes = b""
    moment: datetime | None = None
    token: SecretStr | None = None
    shade: Shade = Shade.LIGHT
    points: tuple[Point, ...] = ()


def cache_of(
    folder: Path, tiers: str, entry_type: type[Any] = Everything, *, clock: FakeClock | None = None, **settings: Any
) -> CacheManager[Any]:
    """An open cache of these tiers in `folder`."""
    folder.mkdir(exist_ok=True, mode=0o700)
    specs = [{**tier, "path": str(folder / tier["path"])} if "path" in tier else tier for tier in TIERS[tiers]]
    if "max_entries" in settings:
        specs[-1] = {**specs[-1], "max_entries": settings.pop("max_entries")}
    read_only = settings.pop("read_only", False)
    config = CacheConfig(tiers=specs, encryption_key=settings.pop("key", KEY), **settings)
    return CacheManager(config, entry_type=entry_type, clock=clock or FakeClock(), read_only=read_only)


def everything_in(cache: CacheManager[Any]) -> dict[str, tuple[Any, ...]]:
    """All that a cache holds, by key: each entry, its usage, and when it may be dropped."""
    found = cache.scan(include_expired=True)
    return {entry.key: (entry, entry.access_count, entry.last_accessed, entry.purge_at) for entry in found}


def got(cache: CacheManager[Any], key: str) -> Any:
    """The entry that `get` finds; a test fails if there is none."""
    entry = cache.get(key)
    assert entry is not None
    return entry
