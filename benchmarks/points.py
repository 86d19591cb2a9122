"""Single operations: an L1 hit, reads and writes of each tier, beside the least that the same work can cost."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import bare
from benchmarks.measuring import Figure, duration, ratio_figure, side_by_side
from benchmarks.records import KEY, entries, three_tiers
from tierkit import CacheConfig, CacheManager

PUTS = 4000


class Shelf:
    """A dict look-up through a method of a Python class."""

    def __init__(self, records: dict[str, Any]) -> None:
        self.records = records

    def get(self, key: str) -> Any:
        return self.records.get(key)


def figures(folder: Path) -> list[Figure]:
    """All single operations."""
    with CacheManager(three_tiers(folder / "points", bounded=False)) as cache:
        cache.put_many(entries())
        keys = list(cache.keys())
        return [
            _l1_hit(cache, keys),
            *_tier_get(folder, cache, keys),
            *_whole_get(folder, keys),
            _put(folder),
        ]


def _l1_hit(cache: CacheManager[Any], keys: list[str]) -> Figure:
    key = keys[17]
    shelf = Shelf({key: cache.get(key) for key in keys})
    taken = side_by_side({"ours": lambda: cache.get(key), "bare": lambda: shelf.get(key)}, rounds=41, calls=20_000)
    empty = side_by_side({"empty": lambda: None}, rounds=41, calls=20_000)["empty"]
    what = "L1 hit through the manager"
    return ratio_figure(what, taken["ours"] - empty, taken["bare"] - empty, "dict look-up through a method", 8)


def _tier_get(folder: Path, cache: CacheManager[Any], keys: list[str]) -> list[Figure]:
    jsonl, sqlite = (level.tier for level in cache.levels[1:])
    ring = [cycle(keys) for _ in range(4)]
    pread = _Pread(folder / "pread.jsonl", keys, jsonl)
    connection = _copy_to_bare(folder / "bare.db", keys, sqlite)
    select = "SELECT * FROM records WHERE key = ?"
    taken = side_by_side(
        {
            "jsonl": lambda: jsonl.get(next(ring[0])),
            "pread": lambda: pread.get(next(ring[1])),
            "sqlite": lambda: sqlite.get(next(ring[2])),
            "select": lambda: connection.execute(select, (next(ring[3]),)).fetchone(),
        },
        rounds=21,
        calls=2000,
    )
    connection.close()
    pread.close()
    return [
        ratio_figure("JSONL get (the tier's)", taken["jsonl"], taken["pread"], "pread and decode", 5),
        ratio_figure("SQLite get (the tier's)", taken["sqlite"], taken["select"], "prepared select", 3),
    ]


def _whole_get(folder: Path, keys: list[str]) -> list[Figure]:
    """The same through the manager: one level, so with the check verified and both secrets opened. No target."""
    found = []
    for backend, path in (("jsonl", folder / "points" / "jsonl"), ("sqlite", folder / "points" / "tierkit.db")):
        config = CacheConfig(encryption_key=KEY, tiers=({"backend": backend, "path": path},))
        with CacheManager(config, read_only=True) as cache:
            taken = side_by_side({"get": partial(_get_next, cache, cycle(keys))}, rounds=21, calls=2000)
        what = f"{backend} get through the manager: check verified, two secrets opened, usage kept"
        found.append(Figure(what, duration(taken["get"]), "", None, "none", holds=True))
    return found


def _get_next(cache: CacheManager[Any], keys: Iterator[str]) -> None:
    cache.get(next(keys))


def _put(folder: Path) -> Figure:
    """New records into empty stores, ours and the bare ones alike."""
    new, bare_rows = iter(entries(PUTS + 1000)), iter(bare.sealed(_plain(PUTS + 1000), bytes(32)))
    connection = bare.connect(folder / "put.db")
    encode = msgspec.json.Encoder().encode
    descriptor = os.open(folder / "put.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def append_and_insert() -> None:
        record = next(bare_rows)
        record["expires_at"] = (now := time.time()) + 3600
        record["fetch_time"] = record["created_at"] = record["updated_at"] = now
        os.write(descriptor, encode(record) + b"\n")
        connection.execute(bare.INSERT, tuple(record.values()))

    with CacheManager(three_tiers(folder / "put", bounded=False)) as cache:
        ways = {"ours": lambda: cache.put(next(new)), "bare": append_and_insert}
        taken = side_by_side(ways, rounds=PUTS // 100, calls=100)
    connection.close()
    os.close(descriptor)
    what = "write-through put into three tiers, two secrets sealed"
    return ratio_figure(what, taken["ours"], taken["bare"], "one append and one indexed insert", 2)


def _plain(count: int) -> list[dict[str, Any]]:
    return [
        {"proxy_url": entry.key, "username": "user", "password": "0123456789abcdef", "source": "http"}
        for entry in entries(count)
    ]


class _Pread:
    """Lines of JSON in a file, found by offset."""

    def __init__(self, path: Path, keys: list[str], tier: Any) -> None:
        self.decode = msgspec.json.Decoder(dict[str, Any]).decode
        self.places: dict[str, tuple[int, int]] = {}
        whole = b""
        for key in keys:
            row = tier.get(key)
            columns = {name: _text(value) for name, value in row.columns.items()}
            line = msgspec.json.encode({"key": key, "check": row.check, **columns}) + b"\n"
            self.places[key] = (len(whole), len(line))
            whole += line
        path.write_bytes(whole)
        self.descriptor = os.open(path, os.O_RDONLY)

    def get(self, key: str) -> dict[str, Any]:
        offset, length = self.places[key]
        return self.decode(os.pread(self.descriptor, length, offset))

    def close(self) -> None:
        os.close(self.descriptor)


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _copy_to_bare(path: Path, keys: list[str], tier: Any) -> Any:
    connection = bare.connect(path)
    connection.execute("BEGIN")
    for key in keys:
        columns = tier.get(key).columns
        record = bare.record(
            columns["proxy_url"], columns["username_encrypted"], columns["password_encrypted"], columns["source"]
        )
        connection.execute(bare.INSERT, tuple({**record, "key": key}.values()))
    connection.execute("COMMIT")
    return connection
