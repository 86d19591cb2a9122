"""What a file to import may hold, in each format, plain and compressed."""

from __future__ import annotations

import gzip
import json
import zlib
from codecs import BOM_UTF8
from contextlib import suppress
from enum import StrEnum
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
from pydantic import SecretStr
from tests.fuzz.stored import check

from tierkit import CacheConfig, CacheEntry, CacheManager, ProxyEntry, TierkitError, WarmResult
from tierkit.testing import FakeClock
from tierkit.transfer.files import MAX_LINE_BYTES

CANARY: Final = "Kanarienvogel7"
"""A password of the corpus, which no reason and no error repeats."""
FORMATS: Final = (".csv", ".json", ".jsonl", ".txt")
MOST_BYTES: Final = 8 * 1024 * 1024
CONFIG: Final = CacheConfig(tiers=[{"backend": "memory"}])


class Shade(StrEnum):
    LIGHT = "light"
    DARK = "dark"


class Point(msgspec.Struct, frozen=True):
    x: int
    y: float = 0.0


class Wide(CacheEntry):
    """An entry with a field of each kind."""

    text: str | None = None
    number: int | None = None
    amount: float | None = None
    flag: bool | None = None
    data: bytes | None = None
    shade: Shade | None = None
    numbers: tuple[int, ...] | None = None
    points: tuple[Point, ...] | None = None
    point: Point | None = None
    password: SecretStr | None = None


@lru_cache
def cache_of(entry_type: type[CacheEntry]) -> CacheManager[CacheEntry]:
    """A cache in memory. To open one takes longer than to import a file."""
    return CacheManager(CONFIG, entry_type=entry_type, clock=FakeClock())


def imported(suffix: str, data: bytes) -> None:
    """Import a file; each row is loaded or told of, and nothing is loaded that the file does not hold."""
    with TemporaryDirectory(prefix="fuzz") as folder:
        file = Path(folder, "file" + suffix)
        file.write_bytes(data)
        content = plain(data) if suffix.endswith(".gz") else data
        for entry_type in (Wide, ProxyEntry):
            cache = cache_of(entry_type)
            cache.clear()
            try:
                result = cache.warm_from_file(file, scheme="http")
            except TierkitError as error:
                check(CANARY not in str(error), "a password is told")
            else:
                judge(result, list(cache.scan()), content, suffix)
        assert [path.name for path in Path(folder).iterdir()] == [file.name]


def judge(result: WarmResult, entries: list[CacheEntry], content: bytes | None, suffix: str) -> None:
    assert result.found == result.loaded + result.skipped + result.failed
    assert result.failed == 0
    assert result.loaded == len(entries)
    assert len(result.rejects) == min(100, result.skipped)
    assert CANARY not in repr(result.rejects)
    assert all(reject.line > 0 and len(reject.reason) < 500 for reject in result.rejects)
    if content is not None:
        bounded(result, entries, content, suffix)


def bounded(result: WarmResult, entries: list[CacheEntry], content: bytes, suffix: str) -> None:
    """Hold what was found to what the file can hold at most."""
    rows = content.removeprefix(BOM_UTF8).split(b"\n")
    lines = [line for line in rows if line and (not line.isspace() or len(line) > MAX_LINE_BYTES)]
    short = [line for line in lines if len(line) <= MAX_LINE_BYTES]
    assert sum(len(entry.key) + len(entry.source) for entry in entries) <= len(content) + 4200 * len(entries)
    if suffix.startswith(".json") and not suffix.startswith(".jsonl"):
        assert result.found <= content.count(b",") + content.count(b"[")
        return
    assert result.loaded <= len(short), f"{result.loaded} loaded of {len(short)} lines within the limit"
    assert result.found <= len(lines)
    if suffix.startswith(".jsonl"):
        assert result.found == len(lines), f"{result.found} found in {len(lines)} lines"
        assert result.loaded <= sum(map(is_record, short)), "what is no object, or too deep, was loaded"


def is_record(line: bytes) -> bool:
    """Whether a line is an object within the limits, as the json module reads it."""
    with suppress(ValueError, RecursionError):
        return depth(json.loads(line, parse_constant=refuse)) <= 64
    return False


def refuse(word: str) -> float:
    raise ValueError(word)


def depth(value: object) -> int:
    """How deep arrays and objects are nested."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def plain(data: bytes) -> bytes | None:
    """What was compressed, if that is whole and not very much."""
    try:
        unpacked = zlib.decompressobj(wbits=31)
        content = unpacked.decompress(data, MOST_BYTES)
    except zlib.error:
        return None
    return content if unpacked.eof and not unpacked.unused_data else None


def packed(data: bytes) -> None:
    """A compressed file: the first byte tells the format, the rest is the file."""
    imported(FORMATS[data[0] % 4] + ".gz" if data else ".csv.gz", data[1:])


def compressed(data: bytes) -> None:
    """A file that is compressed well."""
    imported(FORMATS[data[0] % 4] + ".gz" if data else ".csv.gz", gzip.compress(data[1:], 1, mtime=0))


csv = partial(imported, ".csv")
json_document = partial(imported, ".json")
json_lines = partial(imported, ".jsonl")
host_list = partial(imported, ".txt")
