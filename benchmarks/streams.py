"""Streams of keys to compare eviction policies on: two real traces, and made ones that differ in one thing each."""

from __future__ import annotations

import lzma
import random
import struct
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

TRACES = Path(__file__).parent / "data" / "traces"
LENGTH = 100_000
KEYS = 10_000
SCAN = 2000
ROTATED = 2000


def streams() -> Iterator[tuple[str, list[str]]]:
    """Each stream with its name. The same at every call."""
    yield "web07", trace("web07")
    yield "web12", trace("web12")
    for skew in (0.7, 1.0, 1.2):
        yield f"zipf {skew}", zipf(skew)
    yield "zipf 1.0 and scans", with_scans(zipf(1.0))
    yield "rotation", [f"proxy {number % ROTATED}" for number in range(20 * ROTATED)]


def trace(name: str) -> list[str]:
    """The keys of a trace by headissue GmbH, Jens Wilke: big-endian numbers of 32 bits."""
    packed = lzma.decompress((TRACES / f"cache2k_{name}.trace.xz").read_bytes())
    return [str(number) for (number,) in struct.iter_unpack(">i", packed)]


def zipf(skew: float) -> list[str]:
    """Independent requests; the key of rank r is asked for in proportion to 1 / r ** skew."""
    weights = list(accumulate(1 / rank**skew for rank in range(1, KEYS + 1)))
    chosen = random.Random(7).choices(range(KEYS), cum_weights=weights, k=LENGTH)
    return [f"key {number}" for number in chosen]


def with_scans(keys: list[str]) -> list[str]:
    """After every 5000 requests, 2000 keys that are asked for once and never again."""
    mixed: list[str] = []
    for start in range(0, len(keys), 5000):
        mixed += keys[start : start + 5000]
        mixed += [f"scanned {start + number}" for number in range(SCAN)]
    return mixed
