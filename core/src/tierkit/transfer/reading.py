"""What the modules of the formats have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

from tierkit.transfer.columns import Names, Plan

Row = tuple[int, Names, Sequence[Any]]
"""A row's position in its file, the names of its columns, and their values."""


class Intake(Protocol):
    """Where a reader sends what it cannot make a row of, and asks about columns."""

    def reject(self, position: int, reason: str) -> None:
        """Count and report a bad row."""
        ...

    def plan(self, names: Names) -> Plan:
        """How rows with these columns become entries; raises `Unfit` if they cannot."""
        ...


class Reader(ABC):
    """A file of one format. Positions are line numbers, unless a format says otherwise.

    Attributes:
        absent: What stands for no value in this format.
    """

    absent: ClassVar[tuple[Any, ...]] = (None,)

    def __init__(self, path: Path, scheme: str | None = None) -> None:
        """Note the path, and the scheme of proxies that name none; nothing is opened."""
        self.path = path
        self.scheme = scheme

    @abstractmethod
    def total(self) -> int:
        """How many entries the file seems to hold, found without parsing them.

        Raises:
            TransferError: The file as a whole cannot be imported.
        """

    @abstractmethod
    def rows(self, intake: Intake) -> Generator[Row, None, None]:
        """Yield the rows; what is no row goes to `intake.reject`.

        Raises:
            TransferError: The file as a whole cannot be imported.
        """

    def place(self, position: int) -> tuple[int, int | None]:
        """The line at a position and, in a format that has several records on a line, the record's number."""
        return position, None
