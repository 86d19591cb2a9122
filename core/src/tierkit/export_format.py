"""The form of a file that records are exported to and imported from.

A format writes flat records one after another and reads them again, and knows nothing else: neither of keys and
secrets, nor of what makes a file whole, nor of disks. The core gives it more records than the cache holds: the first
says what the file is, the last how many there are, so that a file that was cut off or changed is known as such.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import BinaryIO, Final

from tierkit.row import ColumnValue

FlatRecord = Mapping[str, ColumnValue]
"""A record, its values by name: text, whole numbers of 64 bits, floats (infinite ones too), bytes. None is absent."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A piece of a file of which no record can be made.

    Attributes:
        reason: What is wrong, without any of its content.
        raw: The piece.
    """

    reason: str
    raw: bytes


class ExportFormat(ABC):
    """How records become a file and are read again. Made anew for each file."""

    @abstractmethod
    def write(self, records: Iterable[FlatRecord], names: Sequence[str]) -> Iterator[bytes]:
        """The file in pieces of any length. Take the records one by one: there may be more than memory holds.

        Args:
            records: Each may have other names than the one before.
            names: Those that most records will have, in a good order: what a table makes its columns of.
        """

    @abstractmethod
    def read(self, file: BinaryIO) -> Iterator[FlatRecord | Unreadable]:
        """The records of a file, equal to those that were written, in their order; what is none as `Unreadable`.

        Raise nothing for the content of a file, whatever it is, and hold no more than a record of it.
        """


FormatFactory = Callable[[], ExportFormat]


def _shipped(name: str) -> ExportFormat:
    """The format `name` of `tierkit.transfer.formats`, which is imported when a file is written or read."""
    made: ExportFormat = getattr(import_module("tierkit.transfer.formats"), name)()
    return made


EXPORT_FORMATS: Final[Mapping[str, FormatFactory]] = {
    "jsonl": partial(_shipped, "JsonLinesFormat"),
    "json": partial(_shipped, "JsonFormat"),
    "csv": partial(_shipped, "CsvFormat"),
}
"""The formats that ship, by extension."""
