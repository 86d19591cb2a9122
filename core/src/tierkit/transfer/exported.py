"""A file that was exported, as a whole: what it says of itself, and whether it is what was written."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

from tierkit.export_format import ExportFormat, FlatRecord, FormatFactory, Unreadable
from tierkit.sealing import Sealer
from tierkit.transfer.files import DAMAGED, check_kind, is_packed, open_stream, said, trouble
from tierkit.transfer.flat import CLOSING, REASON, Head, Tally
from tierkit.transfer.report import REJECTS_KEPT
from tierkit.values import Unfit

Item = FlatRecord | Unreadable


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
        self._packed = is_packed(path) if packed is None else packed
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
            if not isinstance(first, Unreadable):
                return Head.of(first)
            fault = (
                f"is no file that tierkit exported in this format, or was laid out anew since: a line {first.reason}"
            )
        except Unfit as unfit:
            fault = str(unfit)
        raise trouble(self.path, fault)

    def _items(self) -> Generator[Item, None, None]:
        with self._opened() as file:
            try:
                yield from self._read(self._make(), file)
            except DAMAGED:
                yield Unreadable("and all after it is missing: the compressed file is cut off or damaged", b"")
            except OSError as error:
                raise trouble(self.path, f"cannot be read: {said(error)}") from None

    def _read(self, form: ExportFormat, file: BinaryIO) -> Iterator[Item]:
        try:
            yield from form.read(file)
        except (*DAMAGED, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - a stranger's format, and its text may hold anything
            failed = type(error).__name__
        else:
            return
        raise trouble(self.path, f"cannot be read: its format {type(form).__name__} failed with a {failed}")

    def _opened(self) -> BinaryIO:
        check_kind(self.path)
        return cast("BinaryIO", open_stream(self.path, packed=self._packed))


def without_reason(record: FlatRecord) -> FlatRecord:
    """`record` as it was exported, if it comes from a file of rejects."""
    return {name: value for name, value in record.items() if name != REASON} if REASON in record else record


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
