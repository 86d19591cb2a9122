"""Importing what was exported: the file is read twice, first to see that it is whole, then for its records."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tierkit.errors import (
    CacheCorruptionError,
    CacheValidationError,
    SchemaMismatchError,
    SealingError,
)
from tierkit.export_format import FlatRecord, Unreadable
from tierkit.progress import Meter, OnProgress
from tierkit.sealing import Sealer
from tierkit.stack import Stack
from tierkit.transfer.beside import FileBeside
from tierkit.transfer.exported import ExportedFile, Item, Overview, without_reason
from tierkit.transfer.flat import RAW, REASON, Head, Rebuilding, Tally
from tierkit.transfer.placing import Placing
from tierkit.transfer.report import REJECTS_KEPT, WARNINGS_SHOWN, shown
from tierkit.transfer.results import ImportReject, ImportResult
from tierkit.values import Unfit
from tierkit.writing import BATCH

logger: Final = logging.getLogger("tierkit.transfer")

OnReject = Callable[[int, Item, str], object]
"""Called with which record of the file it is, from 1, the record, and why it does not go in."""
_VALUE: Final = re.compile(r"(what is stored|does not agree with): .*", re.DOTALL)  # it may show a value of the file


class Rejects:
    """The records that do not go in: the first in the result and in the log, all of them in a file."""

    def __init__(self, source: Path, head: Head, path: Path) -> None:
        """Those of the file `source`, which begins with `head`; the file at `path` is made when there is one."""
        self.count = 0
        self.first: list[ImportReject] = []
        self.path = path
        self._source = shown(source)
        self._head = head
        self._tally = Tally()
        self._file: FileBeside | None = None
        self._waiting: list[FlatRecord] = []

    def add(self, number: int, item: Item, reason: str) -> None:
        """Record `number` does not go in."""
        reject = ImportReject(self._source, number, reason)
        self.count += 1
        if self.count <= REJECTS_KEPT:
            self.first.append(reject)
        if self.count <= WARNINGS_SHOWN:
            logger.warning("rejected: %s", reject)
        kept: FlatRecord = {RAW: item.raw} if isinstance(item, Unreadable) else without_reason(item)
        try:
            self._tally.add(kept)
        except Unfit:
            kept = {RAW: repr(kept).encode("utf-8", "replace")}
            self._tally.add(kept)
        self._waiting.append({**kept, REASON: reason})
        if len(self._waiting) >= BATCH:
            self._write()

    def finish(self) -> Path | None:
        """Give the file its name. Answers its path; None if there are no rejects."""
        if not self.count:
            return None
        self._waiting.append(self._tally.flat())
        self._write()
        with self._write() as file:
            file.finish()
        return self.path

    def _write(self) -> FileBeside:
        from tierkit.transfer.formats import JsonLinesFormat

        if self._file is None:
            self._file = FileBeside(self.path)
            self._waiting.insert(0, self._head.flat())
        records, self._waiting = self._waiting, []
        for piece in JsonLinesFormat().write(records, ()):
            self._file.append(piece)
        return self._file

    def discard(self) -> None:
        """Close what was not finished; nothing is left of it."""
        if self._file is not None:
            self._file.__exit__(None, None, None)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some records of a file.

    Attributes:
        records: Those that go in: rows, or entries where no level stores rows.
        found: How many there were.
    """

    records: list[Any]
    found: int


class Incoming:
    """The records of a file on their way into a stack.

    Attributes:
        file: The file.
        seen: What it is.
        stack: The stack.
        found: Records that were read.
        expired: Those of them that could be dropped by now.
    """

    def __init__(self, file: ExportedFile, seen: Overview, sealer: Sealer, stack: Stack[Any]) -> None:
        """Of `file`, which was `seen` whole, opened or sealed with `sealer`."""
        self.file = file
        self.seen = seen
        self.stack = stack
        self.found = 0
        self.expired = 0
        live = bool(stack.levels) and not stack.stored
        self._rebuilding = Rebuilding(sealer, seen.head.secrets, live=live)

    def batches(self, reject: OnReject) -> Iterator[Batch]:
        """The records that go in, as the stack stores them; those that do not go to `reject`."""
        self.found = self.expired = 0
        with closing(self.file.records()) as items:
            while some := list(islice(items, BATCH)):
                yield Batch(self._rebuilt(some, reject), len(some))

    def _rebuilt(self, items: Iterable[Item], reject: OnReject) -> list[Any]:
        now, records = self.stack.time.now(), []
        for item in items:
            self.found += 1
            record = self._record(item, reject)
            if record is None:
                continue
            if record.purge_at <= now:
                self.expired += 1
            else:
                records.append(record)
        return records

    def _record(self, item: Item, reject: OnReject) -> Any:
        try:
            return self._rebuilding.record(_readable(item))
        except (Unfit, CacheCorruptionError, SchemaMismatchError, SealingError) as error:
            reason = _VALUE.sub(r"\1", str(error))
        except CacheValidationError as error:
            reason = error.reason or "the cache refuses it"
        reject(self.found, item, reason)
        return None


def _readable(item: Item) -> FlatRecord:
    if isinstance(item, Unreadable):
        raise Unfit(item.reason)
    if RAW in item:
        raise Unfit("is a piece of a file of which no record could be made")
    return item


def place_all(incoming: Incoming, placing: Placing[Any], reject: OnReject, meter: Meter) -> dict[str, int]:
    """Put what goes in. Answers how many were `imported`, and how many `kept` since what is held is newer."""
    counts = {"imported": 0, "kept": 0}
    for batch in incoming.batches(reject):
        kept = len(placing.place(batch.records))
        counts["kept"] += kept
        counts["imported"] += len(batch.records) - kept
        meter.advance(batch.found)
    return counts


def import_records(
    incoming: Incoming, placing: Placing[Any], rejects_path: Path, on_progress: OnProgress | None
) -> ImportResult:
    """Put what goes in. What does not is told, and the others go on."""
    path = incoming.file.path
    rejects = Rejects(path, incoming.seen.head, rejects_path)
    meter = Meter(f"importing {shown(path)}", incoming.seen.records, on_progress=on_progress, log=logger)
    try:
        counts = place_all(incoming, placing, rejects.add, meter)
        meter.finish()
        written = rejects.finish()
    finally:
        rejects.discard()
    result = ImportResult(
        path=path,
        found=incoming.found,
        expired=incoming.expired,
        rejected=rejects.count,
        rejects=tuple(rejects.first),
        rejects_path=written,
        **counts,
    )
    logger.log(logging.WARNING if result.rejected else logging.INFO, "%s", result)
    return result
