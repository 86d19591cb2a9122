"""CSV with a header line, separated by commas, semicolons or tabs.

Lines without a quote are split as they are, which is what CSV means and takes a third of the time. A quote that is
never closed would swallow the rest of the file: the row that opens it is skipped and reading goes on with the line
after.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any, ClassVar, Final

from tierkit.transfer.files import (
    MAX_LINE_BYTES,
    TOO_LONG,
    NumberedLine,
    count_lines,
    numbered_lines,
    open_bytes,
    trouble,
)
from tierkit.transfer.reading import Intake, Reader, Row
from tierkit.values import Unfit

_DELIMITERS: Final = (",", ";", "\t")
_REREAD_BYTES: Final = 16 * 1024 * 1024
"""How much of a file may be read again because of rows that did not end well; a bound on what a hostile one costs."""


class CsvTable(Reader):
    """A file of comma-separated values. An empty cell is no value."""

    absent: ClassVar[tuple[Any, ...]] = ("",)

    def total(self) -> int:
        """The number of lines after the header that are not blank; cells with line breaks make it too large."""
        return max(0, count_lines(self.path) - 1)

    def rows(self, intake: Intake) -> Generator[Row, None, None]:
        """Yield the rows as lists of cells."""
        with open_bytes(self.path) as stream:
            lines = _Lines(numbered_lines(self.path, stream, intake.reject))
            names, delimiter = self._header(lines, intake)
            for number, line in lines:
                if line is None:
                    intake.reject(number, TOO_LONG)
                    continue
                if not line.strip():
                    continue
                try:
                    cells = lines.cells(line, delimiter, len(names))
                except Unfit as unfit:
                    intake.reject(number, str(unfit))
                else:
                    yield number, names, cells

    def _header(self, lines: _Lines, intake: Intake) -> tuple[tuple[str, ...], str]:
        """The names of the columns and what separates them."""
        first = next((line for _, line in lines if line is None or line.strip()), b"")
        try:
            text = _text(first or b"")
            delimiter = max(_DELIMITERS, key=text.count)
            names = tuple(lines.cells(first or b"", delimiter, None))
            intake.plan(names)
        except Unfit as unfit:
            raise trouble(self.path, f"has a header line that will not do: {unfit}") from None
        return names, delimiter


class _Lines:
    """The lines of a file, some of which may be taken back."""

    def __init__(self, source: Iterator[NumberedLine]) -> None:
        self._source = source
        self._again: deque[NumberedLine] = deque()
        self._patience = _REREAD_BYTES

    def __iter__(self) -> Iterator[NumberedLine]:
        while True:
            if self._again:
                yield self._again.popleft()
            elif (line := next(self._source, None)) is not None:
                yield line
            else:
                return

    def cells(self, line: bytes, delimiter: str, width: int | None) -> list[str]:
        """The cells of the row that starts with `line`, which may take further lines."""
        text = _text(line)
        if '"' not in text and "\r" not in text:
            return _of_width(text.split(delimiter), width)
        taken: list[NumberedLine] = []
        reader = csv.reader(self._feed(text, taken), delimiter=delimiter, strict=True)
        try:
            return _of_width(next(reader), width)
        except csv.Error as error:
            self._take_back(taken)
            raise Unfit(_csv_fault(error, bool(taken))) from None
        except Unfit:
            self._take_back(taken)
            raise

    def _feed(self, text: str, taken: list[NumberedLine]) -> Iterator[str]:
        """Yield `text` and, while the reader wants more, the lines after it."""
        yield text + "\n"
        size = len(text)
        for item in self:
            taken.append(item)
            if item[1] is None:
                return
            size += len(item[1])
            if size > MAX_LINE_BYTES:
                return
            yield _text(item[1]) + "\n"

    def _take_back(self, taken: list[NumberedLine]) -> None:
        self._patience -= sum(len(line or b"") + 1 for _, line in taken)
        if self._patience > 0:
            self._again.extendleft(reversed(taken))


def _text(line: bytes) -> str:
    try:
        return line.decode().removesuffix("\r")
    except UnicodeDecodeError as error:
        raise Unfit(f"is not UTF-8 at byte {error.start} of the line") from None


def _of_width(cells: list[str], width: int | None) -> list[str]:
    if width is not None and len(cells) != width:
        raise Unfit(f"has {len(cells)} cells where the header has {width}")
    return cells


def _csv_fault(error: csv.Error, went_on: bool) -> str:
    if "unexpected end" in str(error) or went_on:
        return "has a quote that is not closed"
    if "field limit" in str(error):
        return "has a cell that is too long"
    return "is not valid CSV: a quoted cell must end before the next delimiter"
