"""Warming: filling a cache from a file.

A file is read twice: once to count what it seems to hold, so that progress has an end, and once to import it, row by
row (only a JSON document is held whole). Bad rows cost only themselves. What is wrong with a whole file raises
`TransferError`, as far as possible before anything is written.
"""

from __future__ import annotations

import logging
import os
import re
import time
from array import array
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from pydantic import SecretStr

from tierkit.checks import CREDENTIALS_IN_SOURCE
from tierkit.entry import CacheEntry, ProxyEntry
from tierkit.errors import CacheStorageError, CacheValidationError, TransferError
from tierkit.expiry import rule_seconds
from tierkit.progress import Meter, OnProgress
from tierkit.proxy_url import SCHEME, holds_credentials, redact
from tierkit.schema import schema_of
from tierkit.transfer.columns import Names, Options, Plan, RowMapping
from tierkit.transfer.csv_table import CsvTable
from tierkit.transfer.files import open_bytes, trouble
from tierkit.transfer.host_list import HostList
from tierkit.transfer.json_document import JsonDocument
from tierkit.transfer.jsonl_lines import JsonLines
from tierkit.transfer.reading import Reader
from tierkit.transfer.report import RejectedRows, WarmResult, logger, shown
from tierkit.values import Unfit

FORMATS: Final[dict[str, type[Reader]]] = {
    ".json": JsonDocument,
    ".jsonl": JsonLines,
    ".ndjson": JsonLines,
    ".csv": CsvTable,
    ".txt": HostList,
    ".list": HostList,
}
"""Readers by extension, each also with .gz."""

_URL_START: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:/")  # a Path has one slash of the two
_USERINFO_START: Final = re.compile(r"/*[^/]*:.*@", re.DOTALL)
_COLLAPSED: Final = re.compile(r":/+")

T = TypeVar("T")


class PutMany(Protocol):
    """How entries are written: in chunks, taking the iterable lazily.

    `on_invalid(index, error)` is called for an entry that is refused, which is then skipped; `index` counts in the
    order of the iterable. The answer is how many were written. Storage errors are raised.
    """

    def __call__(
        self,
        entries: Iterable[Any],
        *,
        on_invalid: Callable[[int, CacheValidationError], None] | None = None,
    ) -> int:
        """Write `entries`."""
        ...


def warm(
    path: str | os.PathLike[str],
    *,
    entry_type: type[CacheEntry],
    put_many: PutMany,
    now: Callable[[], float],
    source: str | None = None,
    scheme: str | None = None,
    ttl_override: float | None = None,
    open_plain: Callable[[bytes], SecretStr | None] | None = None,
    on_progress: OnProgress | None = None,
) -> WarmResult:
    """Import the entries in a file; its extension tells the format, see `FORMATS`.

    Args:
        path: The file.
        entry_type: What a row becomes. Columns that it does not declare are left out, and named once in the log.
        put_many: Writes entries.
        now: Tells the time, in POSIX seconds; rows that have expired are skipped.
        source: The source of all entries, whatever a row says. Without it: what the row says, else the file's stem.
        scheme: The scheme of proxies that the file gives without one: any, as in a URL.
        ttl_override: Seconds that all entries live from now on, whatever a row says of its time.
        open_plain: Opens plain Fernet tokens of other tools, in columns named `<secret>_encrypted`; None if there is no
            key for one. Without it rows that hold such are refused.
        on_progress: Told about every 100 entries, and at the end.

    Returns:
        The counts, and the first of the rows that were skipped.

    Raises:
        TransferError: The file as a whole cannot be imported. If it was cut off or became unreadable on the way, the
            rows before that are in.
        CacheStorageError: The storage failed. What it had taken by then stays; the counts so far are in the log at
            ERROR and in a note on the error.
        CacheValidationError: An option has a value that cannot work.
    """
    if refused := refusal(path, source, scheme):
        del path, source, scheme  # a traceback may show the locals of the frame that raises
        raise refused
    options = Options(entry_type, now, source, scheme, ttl_override, open_plain)
    _check(options)
    return _without_rows(_Import(Path(path), options, put_many, on_progress).run)


def refusal(
    path: str | os.PathLike[str], source: object, scheme: object
) -> TransferError | CacheValidationError | None:
    """What to raise if an argument of an import may hold credentials; it tells nothing of them."""
    if url := url_in(path):
        return no_file(url)
    if holds_credentials(source):
        return TransferError(CREDENTIALS_IN_SOURCE)
    if isinstance(scheme, str) and not SCHEME.fullmatch(scheme):
        return CacheValidationError("scheme is not one word, such as http or socks5")
    return None


def _without_rows(read: Callable[[], T]) -> T:
    """What `read` answers; its `TransferError` without the frames of the readers, whose locals hold rows."""
    try:
        return read()
    except TransferError as error:
        failure = TransferError(*error.args)
    raise failure


def check_file(path: Path, entry_type: type[CacheEntry]) -> None:
    """See whether `warm` could begin with this file: it is there, it is text, and its extension is known.

    Raises:
        TransferError: It could not.
    """
    if url := url_in(path):
        del path
        raise no_file(url)
    _reader(path, Options(entry_type, time.time))
    _without_rows(lambda: open_bytes(path).close())


def no_file(url: str) -> TransferError:
    """What to raise where a URL was given in place of a file; `url` is without credentials."""
    return TransferError(f"{url} is a URL, not a file: fetch it first, and name the file")


def url_in(path: str | os.PathLike[str]) -> str:
    """What may be shown of `path` if it is a URL, or `user:password@host`, and no file; else nothing."""
    text = os.fsdecode(path)
    if not _URL_START.match(text) and (not _USERINFO_START.match(text) or os.path.exists(text)):
        return ""
    return redact(_COLLAPSED.sub("://", text, count=1))


class _Import:
    """One file on its way in."""

    def __init__(self, path: Path, options: Options, put_many: PutMany, on_progress: OnProgress | None) -> None:
        self._path = path
        self._file = shown(path)
        self._reader = _reader(path, options)
        self._mapping = RowMapping(options, _stem(path), self._file, self._reader.absent)
        self._rejected = RejectedRows(self._file)
        self._put_many = put_many
        self._meter = Meter(f"importing {self._file}", on_progress=on_progress, log=logger)
        self._refused = 0
        self._positions = array("q")  # of the entries handed over, by their index

    def run(self) -> WarmResult:
        self._meter.expect(self._reader.total())
        try:
            with closing(self._entries()) as entries:
                loaded = self._put_many(entries, on_invalid=self._refuse)
        except CacheStorageError as error:
            self._note_failure(error)
            raise
        finally:
            self._rejected.close()
        return self._finish(loaded)

    def plan(self, names: Names) -> Plan:
        return self._mapping.plan(names)

    def reject(self, position: int, reason: str) -> None:
        """A row that the reader cannot make out."""
        self._meter.advance()
        self._rejected.reject(*self._placed(position, reason))

    def _entries(self) -> Generator[CacheEntry, None, None]:
        seen: dict[str, int] = {}
        with closing(self._reader.rows(self)) as rows:
            for position, names, values in rows:
                self._meter.advance()
                try:
                    entry = self._mapping.plan(names).build(values)
                except Unfit as unfit:
                    self._rejected.reject(*self._placed(position, str(unfit)))
                    continue
                first = seen.setdefault(entry.key, position)
                if first != position:
                    self._rejected.reject(*self._placed(position, self._repeats(first)))
                    continue
                self._positions.append(position)
                yield entry

    def _refuse(self, index: int, error: CacheValidationError) -> None:
        """An entry that the cache does not take; the message of `error` may show a value of the row."""
        self._refused += 1
        self._rejected.reject(*self._placed(self._positions[index], error.reason or "the cache refuses it"))

    def _placed(self, position: int, reason: str) -> tuple[int, str, int | None]:
        line, record = self._reader.place(position)
        return line, reason, record

    def _repeats(self, first: int) -> str:
        line, record = self._reader.place(first)
        return f"has the key of line {line}" if record is None else f"has the key of record {record}"

    def _note_failure(self, error: CacheStorageError) -> None:
        counts = f"{self._meter.done} of {self._meter.total} entries read"
        counts += f", {len(self._positions)} handed to the storage, {self._rejected.skipped} skipped"
        logger.error("%s: the import ended early: %s (%s)", self._file, error, counts)
        error.add_note(f"while importing {self._file}: {counts}")

    def _finish(self, loaded: int) -> WarmResult:
        self._meter.finish()
        result = WarmResult(
            path=self._path,
            found=self._meter.done,
            loaded=loaded,
            skipped=self._rejected.skipped,
            failed=max(0, len(self._positions) - self._refused - loaded),
            left_out=tuple(self._mapping.left_out),
            rejects=tuple(self._rejected.rejects),
        )
        if not result.found:
            logger.warning("%s holds no entries", self._file)
        logger.log(logging.WARNING if result.failed else logging.INFO, "imported %s", result)
        return result


def _reader(path: Path, options: Options) -> Reader:
    if os.path.isdir(path):
        raise trouble(path, "is a directory, not a file")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    known = FORMATS.get(suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else path.suffix.lower())
    if known is None:
        raise trouble(path, f"has no known extension: {', '.join(FORMATS)}, each also with .gz")
    if known is HostList and not issubclass(options.entry_type, ProxyEntry):
        raise trouble(path, f"is a list of proxies, which cannot become {options.entry_type.__name__} entries")
    return known(path, options.scheme)


def _stem(path: Path) -> str:
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return shown(name.stem)


def _check(options: Options) -> None:
    schema_of(options.entry_type)
    for name, text in (("scheme", options.scheme), ("source", options.source)):
        if text is not None and not isinstance(text, str):  # not shown: as a source, it may hold credentials
            raise CacheValidationError(f"{name} must be text, not {type(text).__name__}")
    if options.source is not None and not options.source.strip():
        raise CacheValidationError("source is blank: name where the entries come from, or leave it out")
    if options.ttl_override is not None:
        rule_seconds("ttl_override", options.ttl_override)
