"""Exporting: everything that a cache holds, as a stream into a file that takes its name when it is whole.

What is written meanwhile may or may not be in the file: each record is as it was at one moment, and the whole is no
picture of a single one. What the authority is owed counts, and not what it has instead.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tierkit.entry import CacheEntry
from tierkit.errors import (
    CacheCorruptionError,
    KeyNotHeldError,
    SchemaMismatchError,
    TierkitError,
    TierUnavailable,
)
from tierkit.export_format import ExportFormat, FlatRecord
from tierkit.level import Level
from tierkit.progress import Meter, OnProgress
from tierkit.row import Row, is_owed, key_digest
from tierkit.sealing import Sealer
from tierkit.stack import Stack
from tierkit.transfer import beside
from tierkit.transfer.flat import Flattening, Head, Secrets, Tally
from tierkit.transfer.report import shown
from tierkit.transfer.results import ExportResult

logger: Final = logging.getLogger("tierkit.transfer")

Record = Row | CacheEntry
_WARNED: Final = 20


def held(stack: Stack[Any]) -> Iterator[list[Record]]:
    """What the cache holds, in batches: of each key what counts, from the authority or from who holds it for that.

    Touches neither usage nor statistics, and evicts nothing.

    Raises:
        TierUnavailable: The authority is out of service: what it alone has would be left out.
        CacheStorageError: A level failed on the way.
    """
    authority = stack.authority
    if authority is None:
        return
    if not authority.in_service:
        raise TierUnavailable(
            f"{authority.name} ({authority.kind}) is out of service, and what it alone has would be left out"
        )
    owed = _owed(stack) if authority in stack.stored else {}
    for records in authority.scan_in_steps():
        yield [record for record in records if record.key not in owed] if owed else records
    yield [row for row in owed.values() if row is not None]


def _owed(stack: Stack[Any]) -> dict[str, Row | None]:
    """What the authority is owed, by key; None for a deletion."""
    owed = {row.key: row for level in stack.stored[:-1] if level.in_service for row in _owed_in(stack, level)}
    memory = {key: seen for key, _ in stack.owing.intents.items() if (seen := stack.owing.look(key)) is not None}
    paid = {row.key: stack.owing.owed(stack.levels[-1], row).row for row in owed.values()}
    return {**paid, **{key: seen.row for key, seen in memory.items()}}


def _owed_in(stack: Stack[Any], level: Level) -> Iterator[Row]:
    return (row for row in level.scan() if is_owed(row) and not stack.sealer.is_foreign(row) and _sound(stack, row))


def _sound(stack: Stack[Any], row: Row) -> bool:
    try:
        stack.sealer.verify(row)
    except TierkitError:
        return False
    return True


class Export:
    """One export."""

    def __init__(self, stack: Stack[Any], sealer: Sealer, secrets: Secrets, version: str) -> None:
        """Of what `stack` holds, opened or sealed with `sealer`, by tierkit `version`."""
        self._stack = stack
        self._sealer = sealer
        self._secrets = secrets
        self._version = version
        self._flattening = Flattening(sealer, secrets)
        self._secrets_of = tuple(secret.column for secret in sealer.schema.secrets)
        self.tally = Tally()
        self.left_out = {"expired": 0, "damaged": 0, "unreadable": 0}

    def to_file(
        self,
        path: Path,
        form: ExportFormat,
        on_progress: OnProgress | None,
        check: Callable[[Path], object] = lambda _: None,
    ) -> ExportResult:
        """Write it. See `tierkit.transfer.beside.write` for `check`."""
        authority = self._stack.authority
        total = authority.call(authority.tier.size) if authority is not None and authority.in_service else None
        meter = Meter(f"exporting to {shown(path)}", total, on_progress=on_progress, log=logger)
        written = form.write(self._all(meter), self._flattening.names())
        size = beside.write(path, written, check)
        result = ExportResult(
            path=path,
            exported=self.tally.records,
            secrets=self._secrets,
            keys=dict(sorted(self.tally.keys.items())),
            bytes=size,
            **self.left_out,
        )
        logger.log(logging.INFO if result.complete else logging.WARNING, "%s", result)
        return result

    def _all(self, meter: Meter) -> Iterator[FlatRecord]:
        yield self._head().flat()
        for records in held(self._stack):
            yield from self._flat(records)
            meter.advance(len(records))
        meter.finish()
        yield self.tally.flat()

    def _head(self) -> Head:
        schema = self._sealer.schema
        return Head(
            tierkit=self._version,
            entry_type=schema.entry_type.__name__,
            namespace=schema.namespace,
            secrets=self._secrets,
            columns=schema.columns,
        )

    def _flat(self, records: list[Record]) -> list[FlatRecord]:
        now, found = self._stack.time.now(), []
        for record in records:
            if record.purge_at <= now:
                self.left_out["expired"] += 1
            elif (flat := self._flat_of(record)) is not None:
                found.append(flat)
        self.tally.add_all(found)
        if self._secrets == "sealed":
            self._count_keys(found)
        return found

    def _flat_of(self, record: Record) -> FlatRecord | None:
        try:
            return self._flattening.flat(record)
        except CacheCorruptionError as error:
            self._leave_out("damaged", record, error)
        except (KeyNotHeldError, SchemaMismatchError) as error:
            self._leave_out("unreadable", record, error)
        return None

    def _count_keys(self, records: list[FlatRecord]) -> None:
        """Which keys the records need: in most the check and all tokens name the same."""
        checks = [str(flat["check"])[:11] for flat in records]
        tokens = [[_named(flat.get(column)) for flat in records] for column in self._secrets_of]
        for (check, *named), count in Counter(zip(checks, *tokens, strict=True)).items():
            keys = {check[3:] if check.startswith("k1.") else "", *named} - {""}
            self.tally.keys.update(dict.fromkeys(keys, count))

    def _leave_out(self, what: str, record: Record, error: TierkitError) -> None:
        self.left_out[what] += 1
        if self.left_out[what] <= _WARNED:
            logger.warning("left out of the export: record %s is %s: %s", key_digest(record.key), what, str(error))


def _named(token: object) -> str:
    """The id of the key of a token; nothing if it is none."""
    return str(token[3:11], "ascii") if type(token) is bytes else ""
