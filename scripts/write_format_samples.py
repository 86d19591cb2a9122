"""Write samples of every stored format, as the present version writes it.

Usage: ``uv run python -m scripts.write_format_samples [FOLDER]``

Each released version gets a folder ``tests/data/formats/<version>``, which is never written again: later versions must
read it (``tests/faults/old_formats.py``). Beside the files stands what they hold, in ``expected.json``. The key is
published there and protects nothing. The same version writes the same bytes.
"""

from __future__ import annotations

import base64
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from itertools import count
from math import inf, isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from unittest.mock import patch

import msgspec
from pydantic import SecretStr
from tests.tiers import DictBlobTier

from tierkit import CacheTier, Delta, HealthStatus, ProxyEntry, Row, TierContext, __version__, sealing, tokens
from tierkit.blob import FORMAT as BLOB_FORMAT
from tierkit.keys import parse_keys
from tierkit.row import GOES_BACK_TO, OWED, OWED_PURGE_AT
from tierkit.schema import schema_of
from tierkit_jsonl import FileCacheTier, lines
from tierkit_jsonl.lines import key_crc
from tierkit_sqlite import SQLiteCacheTier
from tierkit_sqlite import schema as tables

FOLDER: Final = Path(__file__).parents[1] / "tests" / "data" / "formats"
KEY: Final = base64.urlsafe_b64encode(b"tierkit test key, known to all!!").decode()
NOW: Final = 1_790_000_000.0
BEGUN: Final = datetime.fromtimestamp(NOW, UTC)
FORMATS: Final = {
    "JSON Lines": lines.FORMAT,
    "SQLite": tables.FORMAT,
    "blobs": BLOB_FORMAT,
    "tokens and checks": tokens.SCHEMA_VERSION,
}
"""What a sample must be there for."""
SCHEMA: Final = schema_of(ProxyEntry)
SEALER: Final = sealing.Sealer(SCHEMA, parse_keys(SecretStr(KEY)))
USED: Final = Delta(3, NOW + 42.5)


def context() -> TierContext:
    """What each tier is told."""
    return TierContext(namespace=SCHEMA.namespace, columns=SCHEMA.columns, now=lambda: NOW + 100.0)


def version(number: int) -> int:
    """A stamp like those of a process that writes once in a second."""
    return (int(NOW) + number) * 1_000_000 * 1024 + 7


def proxy(number: int, *, ends: bool = True, **fields: Any) -> Row:
    """A proxy, put in second `number`."""
    url = f"http://ada:lovelace-{number}@192.0.2.{number}:8080"
    entry = ProxyEntry.from_url(url, source="paid", fetch_time=BEGUN, created_at=BEGUN, updated_at=BEGUN, **fields)
    life = {"ttl_seconds": 3600.25, "expires_at": BEGUN + timedelta(seconds=3600.25)} if ends else {}
    moment = (BEGUN + timedelta(seconds=3600.25)).timestamp() if ends else inf
    return SEALER.seal(msgspec.structs.replace(entry, version=version(number), _purge_at=moment, **life))


def with_columns(row: Row, **changes: Any) -> Row:
    """`row` with other columns, or another `purge_at`."""
    purge_at = changes.pop("purge_at", row.purge_at)
    return SEALER.remade(row, purge_at=purge_at, columns={**row.columns, **changes})


def rows() -> list[Row]:
    """What is held at the end, by the kind of each."""
    owed = proxy(6)
    return [
        proxy(1),
        proxy(2, failure_count=2, health_status=HealthStatus.UNHEALTHY),
        proxy(3, ends=False),
        with_columns(proxy(4), gone="Grüße", op="x", raw=b"\x00\xff", amount=0.1),
        with_columns(proxy(5), **{GOES_BACK_TO: version(4)}),
        with_columns(owed, purge_at=inf, **{OWED: "put", OWED_PURGE_AT: owed.purge_at}),
        SEALER.remade(Row("owed deletion", version(7), inf, "", {OWED: "delete"})),
    ]


def fill(tier: CacheTier[Row]) -> dict[str, int]:
    """Write a little of everything; the marks that are left, with the version that each refuses."""
    held, deleted, discarded = rows(), proxy(8), proxy(9)
    tier.put(msgspec.structs.replace(held[0], version=version(0)))  # overtaken
    tier.put_many([*held, deleted, discarded])
    tier.touch_many({held[0].key: USED})
    tier.delete(deleted.key, deleted.version)
    tier.discard(discarded)
    return {deleted.key: deleted.version, discarded.key: discarded.version - 1}


def write_jsonl(folder: Path) -> dict[str, int]:
    """A store of two shards; also a quarantined record."""
    with FileCacheTier(context(), folder, shards=2) as tier:
        marks, lost = fill(tier), proxy(10)
        tier.put(lost)
        shard = tier._store.shard(key_crc(lost.key))
        shard.write(lambda batch: batch.mark(lost.key, lost.version, "quarantine"))
    for lock in folder.rglob("*.lock"):
        lock.unlink()
    return marks | {lost.key: lost.version - 1}


def write_sqlite(folder: Path) -> dict[str, int]:
    """A database, with its log brought in."""
    with SQLiteCacheTier(context(), folder / "tierkit.db") as tier:
        marks = fill(tier)
    for lock in folder.glob("*.lock"):
        lock.unlink()
    return marks


def write_blobs(folder: Path) -> dict[str, int]:
    """The envelopes, by key, in base64."""
    with DictBlobTier(context()) as tier:
        marks = fill(tier)
        dump = {key: base64.b64encode(blob).decode() for key, blob in sorted(tier.blobs.items())}
    (folder / "blobs.json").write_text(json.dumps(dump, indent=1) + "\n")
    return marks


WRITERS: Final[Mapping[str, Callable[[Path], dict[str, int]]]] = {
    "jsonl": write_jsonl,
    "sqlite": write_sqlite,
    "blobs": write_blobs,
}


def stated(row: Row) -> dict[str, Any]:
    """What is stated of a row: its entry, and the columns that the entry does not show."""
    shown = msgspec.structs.asdict(row) | {"purge_at": row.purge_at if isfinite(row.purge_at) else None}
    shown["columns"] = {
        name: {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
        for name, value in row.columns.items()
        if value is not None and name not in SCHEMA.columns
    }
    return shown | ({} if row.columns.get(OWED) == "delete" else {"entry": entry_of(row)})


def entry_of(row: Row) -> dict[str, Any]:
    """What the entry of a row holds, its secrets in the clear."""
    entry = SEALER.open(row)
    public = {name: getattr(entry, name) for name in entry.__struct_fields__ if not name.startswith("_")}
    shown: dict[str, Any] = msgspec.to_builtins(public, enc_hook=SecretStr.get_secret_value)
    return shown


def known_nonces() -> AbstractContextManager[object]:
    """Tokens with counted nonces, so that they are the same each time."""
    counted = count()
    return patch("os.urandom", lambda size: next(counted).to_bytes(size, "big"))


def write(folder: Path) -> None:
    """Write all samples into `folder`, which must not be there."""
    folder.mkdir(parents=True)
    with known_nonces():
        held = rows()
    used = msgspec.structs.replace(held[0], access_count=USED.count, last_accessed=USED.last_accessed)
    expected: dict[str, Any] = {"version": __version__, "formats": FORMATS, "key": KEY, "now": NOW + 100.0}
    expected["rows"] = [stated(row) for row in (used, *held[1:])]
    expected["refused"] = {}
    for name, writer in WRITERS.items():
        with TemporaryDirectory() as place, known_nonces():
            expected["refused"][name] = writer(Path(place))
            shutil.copytree(place, folder / name)
    (folder / "encryption.key").write_text(KEY + "\n")
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / __version__)
