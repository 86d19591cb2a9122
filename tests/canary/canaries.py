"""Secrets that can be told from anything else, and the search for them."""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from tests.canary.encodings import Ways, ways_of_bytes, ways_of_text

MOST_UNPACKED: Final = 1 << 24
"""Bytes of one compressed stream that are looked at."""
_STEP: Final = 64  # bytes that are unpacked at once: so many may be lost where a stream is damaged
_STREAM: Final = re.compile(rb"\x1f\x8b\x08|\x78[\x01\x5e\x9c\xda]|BZh[1-9]1AY|\xfd7zXZ\x00")
_UNPACKERS: Final[dict[bytes, Callable[[], Any]]] = {
    b"\x1f": lambda: zlib.decompressobj(wbits=31),
    b"\x78": zlib.decompressobj,
    b"B": bz2.BZ2Decompressor,
    b"\xfd": lzma.LZMADecompressor,
}


@dataclass(frozen=True)
class Canary:
    """A secret that must be found nowhere.

    Attributes:
        name: What it is: "password".
        ways: How it may be written.
    """

    name: str
    ways: Ways = field(repr=False)

    @classmethod
    def of_text(cls, name: str, text: str) -> Self:
        """A secret that is text."""
        return cls(name, ways_of_text(text))

    @classmethod
    def of_bytes(cls, name: str, data: bytes) -> Self:
        """A secret that is bytes."""
        return cls(name, ways_of_bytes(data))

    def found_in(self, data: bytes) -> Iterator[tuple[str, int]]:
        """The ways in which it stands in `data`, and where each begins."""
        return ((way, data.index(pattern)) for way, pattern in self.ways.items() if pattern in data)


class Hit(NamedTuple):
    """A secret where it must not be."""

    canary: str
    way: str
    place: str
    offset: int

    def __str__(self) -> str:
        """One line for a person, without the secret."""
        return f"{self.canary} in {self.place}, {self.way}, at {self.offset}"


@dataclass
class Search:
    """Looks for secrets in one place after another.

    Attributes:
        canaries: The secrets.
        hits: What was found.
        places: How many places were searched.
        size: How many bytes these had.
    """

    canaries: list[Canary] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)
    places: int = 0
    size: int = 0

    def text(self, place: str, text: str) -> None:
        """Search what was said or shown."""
        self.data(place, text.encode("utf-8", "surrogatepass"))

    def data(self, place: str, data: bytes) -> None:
        """Search bytes, and what is compressed in them."""
        self.places += 1
        self.size += len(data)
        self._look(place, data)
        for offset, unpacked in unpacked_streams(data):
            self._look(f"{place}, decompressed from {offset} on", unpacked)

    def files(self, folder: Path, allowed: Iterable[Path] = ()) -> None:
        """Search every file below `folder`, and the names of all."""
        allowed = frozenset(allowed)
        for path in sorted(folder.rglob("*")):
            self.text("the name of a file", str(path.relative_to(folder)))
            if path.is_file() and path not in allowed:
                self.data(f"the file {path.relative_to(folder)}", path.read_bytes())

    def _look(self, place: str, data: bytes) -> None:
        for canary in self.canaries:
            self.hits += [Hit(canary.name, way, place, offset) for way, offset in canary.found_in(data)]


def unpacked_streams(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Whatever in `data` can be decompressed, also in part, and where it begins."""
    for found in _STREAM.finditer(data):
        if unpacked := _unpacked(data[found.start() :]):
            yield found.start(), unpacked


def _unpacked(packed: bytes) -> bytes:
    unpacker, unpacked = _UNPACKERS[packed[:1]](), b""
    try:
        for start in range(0, len(packed), _STEP):
            unpacked += unpacker.decompress(packed[start : start + _STEP])
            if unpacker.eof or len(unpacked) > MOST_UNPACKED:
                break
    except (zlib.error, OSError, EOFError, lzma.LZMAError):
        pass  # what came before it is searched
    return unpacked
