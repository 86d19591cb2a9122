# ruff: noqa: S608 - all names are constants
"""A store that the library made, and the kinds of damage that are done to copies of it."""

from __future__ import annotations

import contextlib
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tierkit import CacheConfig, CacheEntry, CacheManager, ProxyEntry, Row, TierContext
from tierkit.clock import CacheTime
from tierkit.doctor import Examination, examine
from tierkit.opening import open_stack
from tierkit.plugins import discover
from tierkit.stack import Stack
from tierkit.testing import FakeClock
from tierkit_jsonl import FileCacheTier
from tierkit_sqlite.library import sqlite3

RECORDS: Final = 24
NAMESPACE: Final = "proxy_entry"
KEY: Final = Path("keys/encryption.key")
SHARDS: Final = Path("files") / NAMESPACE
DATABASE: Final = Path("db/tierkit.db")


@dataclass
class Store:
    """A store in a folder of its own: memory, JSON Lines, SQLite.

    Attributes:
        folder: Where it is.
        clock: What the doctor goes by.
        settings: More settings for the doctor's configuration.
        files_settings: More settings of the level of JSON Lines.
        entry_type: The class of the entries.
        plugins: More plugins.
        loads: A configuration file.
    """

    folder: Path
    clock: FakeClock = field(default_factory=FakeClock)
    settings: dict[str, Any] = field(default_factory=dict)
    files_settings: dict[str, Any] = field(default_factory=dict)
    entry_type: type[CacheEntry] = ProxyEntry
    plugins: tuple[object, ...] = ()
    loads: Path | None = None

    def config(self) -> CacheConfig:
        files: dict[str, Any] = {"backend": "jsonl", "path": self.folder / "files", "shards": 4, **self.files_settings}
        tiers = ({"backend": "memory"}, files, {"backend": "sqlite", "path": self.database})
        settings = {"encryption_key_file": self.key, "tiers": tiers, **self.settings}
        return CacheConfig(**settings) if self.loads is None else CacheConfig.load(self.loads, environ={}, **settings)

    @property
    def key(self) -> Path:
        return self.folder / KEY

    @property
    def database(self) -> Path:
        return self.folder / DATABASE

    @property
    def shards(self) -> Path:
        return self.folder / SHARDS

    def shard(self, number: int = 0) -> Path:
        return self.shards / f"{number:02x}.jsonl"

    def open(self, **more: Any) -> CacheManager[Any]:
        return CacheManager(self.config(), entry_type=self.entry_type, clock=self.clock, **more)

    def examine(self, **more: Any) -> Examination:
        return examine(self.config(), entry_type=self.entry_type, clock=self.clock, plugins=self.plugins, **more)

    @contextlib.contextmanager
    def sql(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self.database, isolation_level=None)) as connection:
            yield connection

    def run_sql(self, *statements: str) -> None:
        with self.sql() as connection:
            for statement in statements:
                connection.execute(statement)

    @contextlib.contextmanager
    def stack(self) -> Iterator[Stack[Any]]:
        """The engine alone, which reconciles at its opening."""
        stack: Stack[Any] = open_stack(
            self.config(), self.entry_type, CacheTime(self.clock), False, discover(self.plugins)
        )
        try:
            yield stack
        finally:
            for level in stack.levels:
                level.close()

    def files_tier(self) -> FileCacheTier:
        context = TierContext(namespace=NAMESPACE, now=self.clock.wall)
        return FileCacheTier(context, self.folder / "files")

    def a_row(self) -> Row:
        """One of the rows of the authority."""
        with self.stack() as stack:
            row: Row = next(iter(stack.levels[-1].scan()))
        return row

    def content(self) -> dict[str, bytes]:
        """Every file, by its path, with its mode; but SQLite's index of its log, which a reader makes too."""
        found = {}
        for path in sorted(path for path in self.folder.rglob("*") if not path.name.endswith("-shm")):
            mode = f"{path.lstat().st_mode:o}"
            found[f"{path.relative_to(self.folder)} {mode}"] = b"" if path.is_dir() else path.read_bytes()
        return found


def make(folder: Path) -> Store:
    """A sound store with records, deletions and usage."""
    store = Store(folder)
    with store.open() as cache:
        cache.put_many(entry(number) for number in range(RECORDS + 4))
        cache.delete_many([entry(number).key for number in range(RECORDS, RECORDS + 4)])
        for number in range(5):
            cache.get(entry(number).key)
    return store


def copy_of(store: Store, folder: Path) -> Store:
    shutil.copytree(store.folder, folder, symlinks=True)
    return Store(folder)


def entry(number: int) -> ProxyEntry:
    return ProxyEntry.from_url(f"http://user{number}:secret@203.0.113.{number}:80", source="paid", ttl_seconds=86_400)


# -- damage to files -------------------------------------------------------------------------------------------------


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def record_lines(store: Store, number: int = 0) -> list[bytes]:
    """The lines of records in a shard, of those that are held."""
    lines = store.shard(number).read_bytes().splitlines(keepends=True)
    return [line for line in lines if b'"version"' in line and line.count(b'"proxy_url"')]


def framed(line: bytes) -> bytes:
    """`line` with the checksum that it needs."""
    covered = line.rstrip(b"\n")[16:]
    return b'{"crc":"%08x' % zlib.crc32(covered) + covered + b"\n"


def flip(path: Path, at: int, length: int = 1) -> None:
    content = bytearray(path.read_bytes())
    for place in range(at, at + length):
        content[place] ^= 0x20
    path.write_bytes(content)


def overwrite_page(store: Store, needle: bytes) -> None:
    content = bytearray(store.database.read_bytes())
    page = content.rindex(needle) // 4096 * 4096
    content[page : page + 8] = b"rotten!!"
    store.database.write_bytes(content)


def new_file(path: Path, content: bytes = b"x\n") -> None:
    path.write_bytes(content)
    path.chmod(0o600)


def link_instead(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def with_log(store: Store) -> None:
    """Leave a long log, as a process does that is killed."""
    kept = store.folder / "kept"
    kept.mkdir(mode=0o700)
    with store.sql() as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"UPDATE {NAMESPACE} SET access_count = access_count + 1")
        for suffix in ("", "-wal"):
            shutil.copy(f"{store.database}{suffix}", kept / f"db{suffix}")
    for suffix in ("", "-wal"):
        shutil.move(kept / f"db{suffix}", f"{store.database}{suffix}")
        os.chmod(f"{store.database}{suffix}", 0o600)
    kept.rmdir()


@dataclass(frozen=True)
class Damage:
    """A kind of damage.

    Attributes:
        name: What was done.
        plant: Does it.
        codes: What the doctor must find, and nothing else.
        repaired: Which of that it must repair: all that it can.
        lost: How many records are lost to it, or go with the repair.
        around: What holds while the doctor is at work.
    """

    name: str
    plant: Callable[[Store], object]
    codes: frozenset[str]
    repaired: frozenset[str]
    lost: int = 0
    around: Callable[[], AbstractContextManager[object]] = nullcontext


def damage(
    plant: Callable[[Store], object],
    *codes: str,
    unrepaired: tuple[str, ...] = (),
    name: str = "",
    lost: int = 0,
    around: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Damage:
    """One row of the table: all of `codes` are repaired but for those named."""
    title = name or plant.__name__.strip("_").replace("_", " ")
    return Damage(title, plant, frozenset(codes), frozenset(codes) - set(unrepaired), lost, around)
