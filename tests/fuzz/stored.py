"""What a tier may find where it stored something: lines, a shard, rows of a table, blobs, and names of every kind."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from zlib import crc32

import msgspec
from pydantic import SecretStr
from tests.tiers import DictBlobTier

from tierkit import CacheEntry, CacheTier, Delta, Row, TierContext, TierkitError, key_digest, pack_row, unpack_row
from tierkit.keys import KeyRing
from tierkit.schema import schema_of
from tierkit.sealing import Sealer
from tierkit.testing import make_row, stamp
from tierkit_jsonl import FileCacheTier, lines
from tierkit_jsonl.lines import Place
from tierkit_sqlite import SQLiteCacheTier
from tierkit_sqlite.library import sqlite3

INTEGERS: Final = range(-(2**63), 2**63)
NOW: Final = stamp() / 1024 / 1_000_000
KEY: Final = SecretStr(base64.urlsafe_b64encode(bytes(range(32))).decode())
"""The key that the stored rows of the corpus were sealed with."""


class Noted(CacheEntry):
    text: str
    number: int
    token: SecretStr | None = None


WRITTEN: Final = {
    key: Noted(key=key, version=stamp(number), text=key * 3, number=number, token=SecretStr(f"token of {key}"))
    for number, key in enumerate("abc", 1)
}
SEALER: Final = Sealer(schema_of(Noted), KeyRing([KEY]))
NEXT: Final = make_row("next", stamp(100))


def check(holds: object, violation: str) -> None:
    """Raise unless `holds`; for what an error says."""
    if not holds:
        raise AssertionError(violation)


def context(**settings: Any) -> TierContext:
    told = {"namespace": SEALER.schema.namespace, "columns": SEALER.schema.columns, "now": lambda: NOW}
    return TierContext(**{**told, **settings})


def opened(rows: Iterator[Row]) -> int:
    """How many of `rows` open. Nothing opens that was not written, and whatever opens can be copied and asked."""
    count = 0
    for row in rows:
        with suppress(TierkitError):
            entry = SEALER.open(row)
            assert entry == WRITTEN.get(entry.key), f"{entry!r} was never written"
            assert entry.access_count in range(2**63), entry.access_count
            assert isfinite(row.last_accessed), row.last_accessed
            assert entry.last_accessed is None or entry.last_accessed.tzinfo
            count += 1
    return count


def works(tier: CacheTier[Row], most: int) -> int:
    """How many records open in a tier that holds up to `most`, and that must take another one."""
    for key in WRITTEN:
        with suppress(TierkitError):
            tier.get(key)
    rows = list(tier.scan())
    assert len(rows) <= most, f"{len(rows)} rows of {most}"
    assert tier.highest_version() in INTEGERS
    refused = tier.put(NEXT)
    if refused is None:
        assert tier.get("next") == NEXT
    else:
        assert NEXT.version <= refused <= INTEGERS[-1] + 1, f"refused by {refused}"
    assert all(map(key_digest, tier.keys()))
    tier.touch_many({row.key: Delta(1, NOW) for row in rows})
    count = opened(iter(rows))
    assert count == opened(row for row in tier.scan() if row.key in WRITTEN) or refused is None
    tier.purge(NOW)
    return count


@contextmanager
def rooted() -> Iterator[Path]:
    """An empty folder beside which nothing may appear."""
    with TemporaryDirectory(prefix="fuzz") as outside:
        root = Path(outside, "root")
        root.mkdir(mode=0o700)
        yield root
        assert [found.name for found in Path(outside).iterdir()] == ["root"]


# -- JSON Lines --------------------------------------------------------------------------------------------------------


def framed(content: bytes) -> bytes:
    """A line with this content whose checksum is right."""
    covered = b'.00000000",' + content
    return b'{"crc":"%08x' % crc32(covered) + covered


def mended(data: bytes) -> bytes:
    """`data`, where what comes after a tilde at the beginning of a line gets a checksum that is right."""
    return b"\n".join(framed(line[1:]) if line[:1] == b"~" else line for line in data.split(b"\n"))


def jsonl_line(data: bytes) -> None:
    """A line by itself, as it is and with a checksum that is right."""
    for line in (data, framed(data)):
        header = lines.decode_header(line)
        assert header is None or lines.is_intact(line)
        cut = list(lines.pieces(line))
        assert sum(len(piece) + 1 for _, piece in cut) == len(line) + 1  # a byte between two
        assert len(cut) <= 1 + line.count(lines.HEAD)
        assert all(line[start:].startswith(piece) for start, piece in cut)
        key = lines.salvage(line)
        assert key is None or b"%08x" % lines.key_crc(key) in line
        with suppress(msgspec.MsgspecError, ValueError, RecursionError):
            note = lines.decode_note(line)
            row_of(line, Place(note.key, 0, len(line), lines.number_of(note.version), 0.0, 0, 0.0))


def row_of(line: bytes, place: Place) -> None:
    """Hold the row of a line to its oracle: it is of a line that is intact, and comes back if it can be written."""
    row = lines.decode_row(line, place)
    if row is None:
        return
    assert crc32(line[16:]) == int(line[8:16], 16), "a line was taken whose checksum is wrong"
    assert row.version in INTEGERS, row.version
    opened(iter([row]))
    with suppress(TierkitError):
        again = lines.decode_row(lines.encode_row(row, 0)[:-1], place)
        assert again is not None
        assert again.columns == {name: value for name, value in row.columns.items() if value is not None}


def open_jsonl(root: Path, **settings: Any) -> FileCacheTier:
    return FileCacheTier(context(**settings), root / "store", shards=1, lock_timeout_seconds=0.05)


def found_in_shard(data: bytes) -> int:
    """How many records open of a shard with this content."""
    with rooted() as root:
        folder = root / "store" / SEALER.schema.namespace
        folder.mkdir(mode=0o700, parents=True)
        (folder / "00.jsonl").write_bytes(data)
        found = 0
        with suppress(TierkitError), closing(open_jsonl(root)) as tier:
            found = works(tier, 1 + data.count(b"\n") + data.count(lines.HEAD))
            tier.compact()
            put = tier.get("next")
            tier.close()
            with closing(open_jsonl(root)) as again:
                assert again.get("next") == put, "what was put is not there after opening anew"
        return found


def jsonl_shard(data: bytes) -> None:
    """A whole shard."""
    found_in_shard(mended(data))


def jsonl_meta(data: bytes) -> None:
    """The file that tells the number of shards."""
    with rooted() as root:
        with closing(open_jsonl(root)) as tier:
            tier.put(NEXT)
        file = root / "store" / SEALER.schema.namespace / "meta.json"
        file.write_bytes(mended(data))
        with suppress(TierkitError), closing(open_jsonl(root)) as tier:
            assert len(list(file.parent.iterdir())) < 1000
            works(tier, 1)


# -- SQLite ------------------------------------------------------------------------------------------------------------

COLUMNS: Final = ("key", "version", "purge_at", "row_check", "access_count", "last_accessed", "undeclared", "text")
COLUMNS_TOO: Final = ("number", "token_encrypted", "source", "expires_at", "health_status", "mark", "marked_at")
AFFECTED: Final = (*COLUMNS, *COLUMNS_TOO)
TYPES: Final[tuple[tuple[str, Callable[[bytes], object]], ...]] = (
    ("CAST(? AS TEXT)", bytes),
    ("?", bytes),
    ("?", lambda payload: max(INTEGERS[0], min(INTEGERS[-1], int(payload or b"0")))),
    ("?", lambda payload: float(payload or b"0")),
    ("NULLIF(?, 0)", lambda _: 0),
)


@lru_cache
def table() -> bytes:
    """A database that holds the rows of the corpus, and a mark."""
    with rooted() as root:
        file = root / "store.db"
        with closing(SQLiteCacheTier(context(), file)) as tier:
            tier.put_many([SEALER.seal(entry) for entry in WRITTEN.values()])
            tier.delete("gone", 1)
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return file.read_bytes()


def edit(connection: sqlite3.Connection, change: bytes) -> None:
    """Change a column: the first byte says which one and of which row, the second the type, the rest is the value."""
    column = AFFECTED[change[0] % len(AFFECTED)]
    place, convert = TYPES[change[1] % len(TYPES)]
    name = SEALER.schema.namespace + "__marks" * column.startswith("mark")
    row = f"WHERE key = '{'abc'[change[0] // len(AFFECTED) % 3]}'" if "__" not in name else ""
    with suppress(sqlite3.Error, ValueError):
        connection.execute(f'UPDATE "{name}" SET "{column}" = {place} {row}', (convert(change[2:]),))  # noqa: S608 - of names that stand here


def found_in_table(data: bytes) -> int:
    """How many records open of a table with these changes, one a line."""
    with rooted() as root:
        file = root / "store.db"
        file.write_bytes(table())
        file.chmod(0o600)
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            for change in data.split(b"\n"):
                if len(change) > 1:
                    edit(connection, change)
        found = 0
        with suppress(TierkitError), closing(SQLiteCacheTier(context(max_entries=2), file)) as tier:
            tier.overflow()
            found = works(tier, len(WRITTEN))
        return found


def sqlite_row(data: bytes) -> None:
    """Rows with columns of any type and content."""
    found_in_table(data)


# -- blobs -------------------------------------------------------------------------------------------------------------


def blob(data: bytes) -> None:
    """What stands for a key where plain bytes are stored, and a packed row."""
    tier = DictBlobTier(context())
    for key in WRITTEN:
        tier.blobs[key] = data
    with suppress(TierkitError):
        works(tier, len(WRITTEN))
    with suppress(TierkitError):
        row = unpack_row(data)
        opened(iter([row]))
        with suppress(TypeError, ValueError, OverflowError):  # what no tier would put
            assert pack_row(unpack_row(pack_row(row))) == pack_row(row)


# -- names -------------------------------------------------------------------------------------------------------------


def name(data: bytes) -> None:
    """Any text as namespace, key and source: files stand below the root, whatever they are called."""
    text = data.decode("utf-8", "surrogateescape")
    row = Row(text, 1, NOW + 1, "", {"text": text, "source": text})
    for namespace in (text, SEALER.schema.namespace):
        with rooted() as root, suppress(TierkitError):
            told = context(namespace=namespace)
            with closing(FileCacheTier(told, root / "store", shards=1)) as tier:
                tier.put(row)
                below = {path.name for path in (root / "store").iterdir()}
                assert below == {namespace}, below
        with rooted() as root, suppress(TierkitError), closing(SQLiteCacheTier(told, root / "store.db")) as database:
            database.put(row)
            assert {path.name for path in root.iterdir()} <= {"store.db", "store.db-wal", "store.db-shm"}
