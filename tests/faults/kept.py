"""What the trials of damage keep: sealed records of which each version has a content of its own."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from pydantic import SecretStr

from tierkit import CacheConfig, CacheEntry, CacheManager, CacheTier, Row, TierContext, TierCorrupt
from tierkit.keys import parse_keys
from tierkit.schema import schema_of
from tierkit.sealing import Sealer
from tierkit.testing.clock import NOW

KEY: Final = SecretStr(base64.urlsafe_b64encode(bytes(range(32))).decode())
Found = dict[str, int]
"""By key, the version of what was found; `WRONG` for what nobody wrote."""
WRONG: Final = -1
_BEGUN: Final = datetime.fromtimestamp(NOW, UTC)


class Kept(CacheEntry):
    """A record with a secret, and with enough text that some of them fill a page."""

    number: int
    text: str
    token: SecretStr


SCHEMA: Final = schema_of(Kept)
SEALER: Final = Sealer(SCHEMA, parse_keys(KEY))


def entry(key: str, version: int) -> Kept:
    """The record that version `version` of a key has."""
    text, token = f"{key} {version} " * 6, SecretStr(f"token {version} of {key}")
    made = Kept(key=key, number=version, text=text, token=token, source="list", ttl_seconds=None)
    return msgspec.structs.replace(made, version=version, fetch_time=_BEGUN, created_at=_BEGUN, updated_at=_BEGUN)


def row(key: str, version: int) -> Row:
    """That record, sealed."""
    return SEALER.seal(entry(key, version))


def context(**told: Any) -> TierContext:
    """What a tier of such records is told; the time stands still."""
    return TierContext(**{"namespace": SCHEMA.namespace, "columns": SCHEMA.columns, "now": lambda: NOW, **told})


def cache(*levels: Mapping[str, Any]) -> CacheManager[Kept]:
    """A cache of such records over these levels."""
    return CacheManager(CacheConfig(encryption_key=KEY, tiers=levels), entry_type=Kept)


def read(tier: CacheTier[Row], keys: Iterable[str]) -> Found:
    """What a tier answers for each key and the sealer opens; damage is a miss."""
    found: Found = {}
    for key in keys:
        with suppress(TierCorrupt):
            held = tier.get(key)
            if held is not None:
                _note(found, held)
    return found


def scanned(tier: CacheTier[Row]) -> Found:
    """What a scan gives and the sealer opens."""
    found: Found = {}
    for held in tier.scan():
        _note(found, held)
    return found


def _note(found: Found, held: Row) -> None:
    with suppress(ValueError):  # of the sealer, which finds out what the tier cannot
        opened = SEALER.open(held)
        found[held.key] = number_of(opened)


def number_of(opened: CacheEntry) -> int:
    """The version whose content an entry has, or `WRONG`."""
    assert isinstance(opened, Kept)
    written = entry(opened.key, opened.number)
    same = (opened.text, opened.token, opened.version) == (written.text, written.token, written.version)
    return opened.number if same else WRONG


def copied(file: Path, content: bytes) -> Path:
    """A file with this content in an empty folder of its own."""
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file.write_bytes(content)
    return file
