"""Exporting and importing 100,000 records, beside the bare encoding and writing of the same mappings."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import msgspec

from benchmarks.measuring import Figure, ratio_figure, side_by_side
from benchmarks.records import KEY, entries
from tierkit import CacheConfig, CacheManager, Row, files

RECORDS: Final = 100_000
MOST_MEGABYTES: Final = 50
_BATCH: Final = 1000
_OWN: Final = ("key", "version", "check", "purge_at", "access_count", "last_accessed")


def figures(folder: Path) -> list[Figure]:
    """Time and peak memory of an export and an import of JSON Lines."""
    file = folder / "all.jsonl"
    with _open(folder / "full.db") as cache:
        cache.put_many(entries(RECORDS))
        cache.export_to_file(file)
        mappings = [mapping for mapping in _parsed(file) if "key" in mapping]
        taken = side_by_side(
            {
                "bare export": partial(_encode_and_write, mappings, folder / "bare.jsonl"),
                "export": lambda: cache.export_to_file(file),
                "bare import": partial(_decode_and_put, folder / "bare.jsonl", folder),
                "import": partial(_import, file, folder),
            },
            rounds=5,
        )
    found = [
        ratio_figure(
            f"export of {RECORDS:,} records with secrets from SQLite to JSON Lines",
            taken["export"],
            taken["bare export"],
            "encoding the same mappings, writing, flushing and renaming",
            4,
        ),
        ratio_figure(
            f"import of {RECORDS:,} records with secrets from JSON Lines into SQLite",
            taken["import"],
            taken["bare import"],
            "decoding them and the tier's put_many",
            4,
        ),
    ]
    return [*found, *_memory(folder / "full.db", file)]


def _open(path: Path, key: str = KEY.get_secret_value()) -> CacheManager[Any]:
    tiers = ({"backend": "memory", "max_entries": 1000}, {"backend": "sqlite", "path": str(path)})
    return CacheManager(CacheConfig(tiers=tiers, encryption_key=key))


def _parsed(path: Path) -> Iterator[dict[str, Any]]:
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    with path.open("rb") as file:
        for line in file:
            yield decode(line)


def _encode_and_write(mappings: list[dict[str, Any]], path: Path) -> None:
    encode, beside = msgspec.json.Encoder().encode, path.with_suffix(".new")
    with beside.open("wb") as file:
        for mapping in mappings:
            file.write(encode(mapping) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    files.fsync_dir(str(path.parent))


def _decode_and_put(path: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as new, _open(Path(new) / "bare.db") as cache:
        tier = cache.levels[-1].tier
        rows = map(_row, _parsed(path))
        while some := list(islice(rows, _BATCH)):
            tier.put_many(some)


def _row(mapping: dict[str, Any]) -> Row:
    key, version, check, purge_at, count, last = map(mapping.pop, _OWN)
    columns = {name: value["bytes"].encode() if type(value) is dict else value for name, value in mapping.items()}
    return Row(key, version, purge_at, check, columns, count, last)


def _import(file: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as new, _open(Path(new) / "new.db") as cache:
        result = cache.import_from_file(file)
        if result.imported != RECORDS:
            raise RuntimeError(f"imported {result}")


def _memory(database: Path, file: Path) -> Iterator[Figure]:
    """What each adds to the peak memory of a process that has done the same with a few records."""
    for what in ("export", "import"):
        grown = _grown(what, database, file)
        measured = f"{grown:.1f} MB"
        yield Figure(
            f"peak memory of the {what} of {RECORDS:,} records",
            measured,
            "the open cache",
            None,
            f"at most {MOST_MEGABYTES} MB more",
            grown <= MOST_MEGABYTES,
        )


def _grown(what: str, database: Path, file: Path) -> float:
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(_measure, (what, database, file, KEY.get_secret_value()))


def _measure(what: str, database: Path, file: Path, key: str) -> float:
    with tempfile.TemporaryDirectory(dir=file.parent) as new:
        path = database if what == "export" else Path(new) / "new.db"
        with _open(path, key) as cache:
            next(cache.scan(), None)
            before = _peak()
            if what == "export":
                done = cache.export_to_file(Path(new) / "all.jsonl").exported
            else:
                done = cache.import_from_file(file).imported
            if done != RECORDS:
                raise RuntimeError(f"{what} of {done} records")
            return _peak() - before


def _peak() -> float:
    """In megabytes. Not by `getrusage`, where Linux counts what the process that started this one had."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e6
