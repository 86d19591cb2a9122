"""Inputs for the targets: those that are kept, and mutations of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final

CORPUS: Final = Path(__file__).parent / "corpus"
MOST_BYTES: Final = 4096

# fmt: off
WORDS: Final = (
    b"", b"\n", b"\r\n", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\\ud800", b"\\u0000",
    b'"', b'""', b"'", b",", b";", b"\t", b":", b"@", b"://", b"/", b"..", b"../", b"~", b"#", b"=", b"\\",
    b"[", b"]", b"{", b"}", b"[" * 70 + b"]" * 70, b"[" * 2000, b'{"a":' * 70 + b"1" + b"}" * 70, b"\x91" * 2000,
    b"0", b"-1", b"1e999", b"-1e308", b"1e308", b"NaN", b"Infinity", b"null", b"true", b"9223372036854775808",
    b"-9223372036854775809", b"18446744073709551616", b"9" * 400, b"9" * 5000, b"0x" + b"f" * 5000, b"65536",
    b'"key":"a",', b'"op":"mark",', b'"op":"shard",', b'"format":2,', b'"version":"1",', b"proxy_url", b"ttl_seconds",
)
# fmt: on


def kept(target: str) -> dict[str, bytes]:
    """The kept inputs of a target, by file name."""
    return {file.name: file.read_bytes() for file in sorted((CORPUS / target).glob("*"))}


def mutations(seeds: Sequence[bytes], count: int, seed: int = 1) -> Iterator[bytes]:
    """Yield `count` mutations of `seeds`, the same for the same numbers."""
    chance = Random(seed)
    for _ in range(count):
        data = chance.choice(seeds)
        for _ in range(chance.randint(1, 4)):
            data = mutated(data, chance, seeds)
        yield data


def mutated(data: bytes, chance: Random, seeds: Sequence[bytes]) -> bytes:
    """`data` with one piece of it replaced: by a word, a byte, a piece of its own or of another input, or nothing."""
    start = chance.randint(0, len(data))
    end = min(len(data), start + chance.choice((0, 0, 1, 1, 4, 20)))
    other = chance.choice((data, chance.choice(seeds)))
    at = chance.randint(0, len(other))
    piece = chance.choice((b"", bytes([chance.randrange(256)]), chance.choice(WORDS), other[at : at + 40]))
    return data[:start] + piece + data[end:]
