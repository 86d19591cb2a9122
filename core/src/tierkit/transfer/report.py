"""What became of a file: counts, rejected rows, and log lines that a bad file cannot flood."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

logger: Final = logging.getLogger("tierkit.transfer")

WARNINGS_SHOWN: Final = 20
"""Rejected rows of one file that get a log line each; the rest get one line together."""
REJECTS_KEPT: Final = 100
"""Rejected rows of one file that the result lists."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was skipped. It never holds a value of the row.

    Attributes:
        file: The file's path.
        line: The line on which the row starts, from 1.
        reason: Why it was skipped.
        record: For a JSON document, which of its records it is, from 1; else None.
    """

    file: str
    line: int
    reason: str
    record: int | None = None

    def __str__(self) -> str:
        """One line for a person."""
        which = "" if self.record is None else f", record {self.record}"
        return f"{self.file}, line {self.line}{which}: {self.reason}"


@dataclass(frozen=True, slots=True)
class WarmResult:
    """What `warm` did with a file: found = loaded + skipped + failed.

    Attributes:
        path: The file.
        found: Rows that were seen.
        loaded: Entries that were written.
        skipped: Bad rows, each with a reason.
        failed: Good rows that the storage did not take.
        left_out: Columns that the entry type does not declare, in the order in which they were met.
        rejects: The first 100 of the bad rows.
    """

    path: Path
    found: int
    loaded: int
    skipped: int
    failed: int
    left_out: tuple[str, ...] = ()
    rejects: tuple[Reject, ...] = ()

    def __str__(self) -> str:
        """One line for a person."""
        counts = f"{self.loaded} loaded, {self.skipped} skipped, {self.failed} failed"
        return f"{shown(self.path)}: {self.found} entries found, {counts}"


class RejectedRows:
    """Counts the rejected rows of one file and reports the first of them."""

    def __init__(self, file: str) -> None:
        """Start at nothing."""
        self.file = file
        self.skipped = 0
        self.rejects: list[Reject] = []

    def reject(self, line: int, reason: str, record: int | None = None) -> None:
        """Count a bad row, and warn of it if it is among the first."""
        self.skipped += 1
        reject = Reject(self.file, line, reason, record)
        if self.skipped <= REJECTS_KEPT:
            self.rejects.append(reject)
        if self.skipped <= WARNINGS_SHOWN:
            logger.warning("skipped: %s", reject)

    def close(self) -> None:
        """Say how many bad rows had no log line of their own."""
        if self.skipped > WARNINGS_SHOWN:
            logger.warning("skipped: %s: %d rows more", self.file, self.skipped - WARNINGS_SHOWN)


def shown(path: str | os.PathLike[str]) -> str:
    """`path` as text that any log can hold, on one line."""
    text = os.fsencode(path).decode("utf-8", "replace")
    return text if text.isprintable() else ascii(text)
