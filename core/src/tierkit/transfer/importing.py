"""Importing what was exported: the file is read twice, first to see that it is whole, then for its records."""

from __future__ import annotations

import gzip
import logging
import os
import re
import stat
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from tierkit.errors import (
    CacheCorruptionError,
    CacheValidationError,
    SchemaMismatchError,
    SealingError,
)
from tierkit.export_format import ExportFormat, FlatRecord, FormatFactory, Unreadable
from tierkit.progress import Meter, OnProgress
from tierkit.sealing import Sealer
from tierkit.stack import Stack
from tierkit.transfer.beside import FileBeside
from tierkit.transfer.files import trouble
from tierkit.transfer.flat import CLOSING, RAW, REASON, Head, Rebuilding, Tally
from tierkit.transfer.placing import Placing
from tierkit.transfer.report import REJECTS_KEPT, WARNINGS_SHOWN, shown
from tierkit.transfer.results import ImportReject, ImportResult
from tierkit.values import Unfit
from tierkit.writing import BATCH

logger: Final = logging.getLogger("tierkit.transfer")

Item = FlatRecord | Unreadable
OnReject = Callable[[int, Item, str], object]
"""Called with which record of the file it is, from 1, the record, and why it does not go in."""
_VALUE: Final = re.compile(r"(what is stored|does not agree with): .*", re.DOTALL)  # it may show a value of the file
_DAMAGED: Final = (EOFError, zlib.error, gzip.BadGzipFile)


# -- a file as a whole -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Overview:
    """What a file is, once all of it has been read.

    Attributes:
        head: What it says of itself.
        closing: Its last record; empty if it has none.
        records: How many records it holds, those that cannot be read included.
        digest: Of those that can.
        faults: What is wrong with it as a whole.
    """

    head: Head
    closing: FlatRecord = field(default_factory=dict)
    records: int = 0
    digest: str = ""
    faults: list[str] = field(default_factory=list)


class ExportedFile:
    """A file that was exported, to be read as often as needed."""

    def __init__(self, path: Path, make: FormatFactory, *, packed: bool | None = None) -> None:
        """At `path`, in a format of which `make` makes a reader; gzipped if `packed`, or if its name says so."""
        self.path = path
        self._packed = path.suffix.lower() == ".gz" if packed is None else packed
        self._make = make

    def overview(self) -> Overview:
        """Read all of it.

        Raises:
            TransferError: It cannot be read, or is no export at all.
        """
        tally, seen = Tally(), None
        with closing(self._items()) as items:
            seen = Overview(self._head(next(items, {})))
            for item in items:
                self._look_at(item, seen, tally)
        seen.digest = tally.digest
        self._compare(seen, tally)
        return seen

    def records(self) -> Generator[Item, None, None]:
        """Its records, without the first and the last."""
        with closing(self._items()) as items:
            next(items, None)
            yield from (item for item in items if isinstance(item, Unreadable) or CLOSING not in item)

    def _look_at(self, item: Item, seen: Overview, tally: Tally) -> None:
        if seen.closing:
            seen.faults.append("something stands after its last line")
        elif isinstance(item, Unreadable):
            seen.records += 1
            seen.faults.append(f"record {seen.records} {item.reason}")
        elif CLOSING in item:
            seen.closing = item
        else:
            seen.records += 1
            self._count(item, seen, tally)
        del seen.faults[REJECTS_KEPT:]

    def _count(self, record: FlatRecord, seen: Overview, tally: Tally) -> None:
        try:
            tally.add(without_reason(record))
        except Unfit as unfit:
            seen.faults.append(f"record {seen.records} {unfit}")

    def _compare(self, seen: Overview, tally: Tally) -> None:
        if not seen.closing:
            seen.faults.append("its last line is missing: it is cut off")
        elif seen.closing[CLOSING] != seen.records:
            seen.faults.append(f"it holds {seen.records} records, and its last line says {seen.closing[CLOSING]!r}")
        elif seen.closing.get("digest") != tally.digest:
            seen.faults.append("its records are not those that were written: it was changed")

    def _head(self, first: Item) -> Head:
        try:
            return Head.of({} if isinstance(first, Unreadable) else first)
        except Unfit as unfit:
            fault = str(unfit)
        raise trouble(self.path, fault)

    def _items(self) -> Generator[Item, None, None]:
        with self._opened() as file:
            try:
                yield from self._read(self._make(), file)
            except _DAMAGED:
                yield Unreadable("and all after it is missing: the compressed file is cut off or damaged", b"")
            except OSError as error:
                raise trouble(self.path, f"cannot be read: {error.strerror or type(error).__name__}") from None

    def _read(self, form: ExportFormat, file: BinaryIO) -> Iterator[Item]:
        try:
            yield from form.read(file)
        except (*_DAMAGED, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - a stranger's format, and its text may hold anything
            failed = type(error).__name__
        else:
            return
        raise trouble(self.path, f"cannot be read: its format {type(form).__name__} failed with a {failed}")

    def _opened(self) -> BinaryIO:
        try:
            mode = os.stat(self.path).st_mode
        except (OSError, ValueError) as error:
            why = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error}"
            raise trouble(self.path, why) from None
        if not stat.S_ISREG(mode):
            raise trouble(self.path, "is a directory, not a file" if stat.S_ISDIR(mode) else "is not a regular file")
        try:
            return cast("BinaryIO", gzip.open(self.path, "rb") if self._packed else self.path.open("rb"))
        except OSError as error:
            raise trouble(self.path, f"cannot be read: {error.strerror or type(error).__name__}") from None


# -- the records of a file ---------------------------------------------------------------------------------------------


def without_reason(record: FlatRecord) -> FlatRecord:
    """`record` as it was exported, if it comes from a file of rejects."""
    return {name: value for name, value in record.items() if name != REASON} if REASON in record else record


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


def import_records(
    incoming: Incoming, placing: Placing[Any], rejects_path: Path, on_progress: OnProgress | None
) -> ImportResult:
    """Put what goes in. What does not is told, and the others go on."""
    path, counts = incoming.file.path, {"imported": 0, "kept": 0}
    rejects = Rejects(path, incoming.seen.head, rejects_path)
    meter = Meter(f"importing {shown(path)}", incoming.seen.records, on_progress=on_progress, log=logger)
    try:
        for batch in incoming.batches(rejects.add):
            kept = len(placing.place(batch.records))
            counts["kept"] += kept
            counts["imported"] += len(batch.records) - kept
            meter.advance(batch.found)
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


def check_namespace(file: Path, head: Head, sealer: Sealer) -> None:
    """See that a cache can hold the records of a file.

    Raises:
        TransferError: They are of another class.
    """
    schema = sealer.schema
    if head.namespace != schema.namespace:
        raise trouble(
            file,
            f"holds records of {head.entry_type} ({head.namespace}), and this cache holds "
            f"{schema.entry_type.__name__} ({schema.namespace}): open it with that entry type (--entry-type)",
        )


def check_whole(file: Path, seen: Overview) -> None:
    """See that a file is what was written.

    Raises:
        TransferError: It was cut off or changed.
    """
    if seen.faults:
        raise trouble(
            file,
            f"is not what was exported: {seen.faults[0]}; nothing was written. accept_damage=True (--accept-damage) "
            "takes what can be read of it",
        )
