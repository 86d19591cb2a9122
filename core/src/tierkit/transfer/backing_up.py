"""Backups: a sealed export of everything, read back before it takes its name; and the way back, verified on both sides.

A backup holds no key. Whoever has the keys that it names can restore it, onto any set of tiers; nobody else can.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from tierkit.errors import CacheValidationError, TierFull
from tierkit.export_format import EXPORT_FORMATS, Unreadable
from tierkit.progress import Meter, OnProgress
from tierkit.row import Row, key_digest
from tierkit.sealing import Sealer
from tierkit.stack import Stack
from tierkit.transfer.exported import ExportedFile, Item, Overview, check_namespace
from tierkit.transfer.exporting import Export
from tierkit.transfer.files import is_packed, trouble
from tierkit.transfer.flat import keys_of
from tierkit.transfer.importing import Batch, Incoming, OnReject, place_all
from tierkit.transfer.placing import Placing
from tierkit.transfer.report import shown
from tierkit.transfer.results import BackupInfo, OnHeld, RestoreResult
from tierkit.writing import Writer

logger: Final = logging.getLogger("tierkit.transfer")

_EXTENSIONS: Final = (".jsonl", ".jsonl.gz")


def backup_path(path: Path, name: str, now: datetime) -> Path:
    """Where a backup goes: `path`, or in that folder a file that is named after the cache and the time.

    Raises:
        CacheValidationError: It has another extension than `.jsonl` or `.jsonl.gz`.
    """
    if path.is_dir():
        return path / f"{name}-{now:%Y%m%dT%H%M%SZ}.jsonl.gz"
    if not path.name.lower().endswith(_EXTENSIONS):
        raise CacheValidationError(
            f"{path} has no extension of a backup ({', '.join(_EXTENSIONS)}), and is no folder that is there"
        )
    return path


class Backups:
    """Backups of one stack."""

    def __init__(self, stack: Stack[Any], sealer: Sealer, version: str) -> None:
        """Of what `stack` holds, with `sealer`, by tierkit `version`."""
        self._stack = stack
        self._sealer = sealer
        self._version = version

    def write(self, path: Path, on_progress: OnProgress | None) -> BackupInfo:
        """Write one, and read it back before it takes its name."""
        export = Export(self._stack, self._sealer, "sealed", self._version)
        read: list[Overview] = []

        def check(temporary: Path) -> None:
            seen = ExportedFile(temporary, EXPORT_FORMATS["jsonl"], packed=is_packed(path)).overview()
            if seen.faults or seen.digest != export.tally.digest:
                fault = (seen.faults or ["its records are not those that were written"])[0]
                raise trouble(path, f"was not kept, since this was read back: {fault}")
            read.append(seen)

        result = export.to_file(path, EXPORT_FORMATS["jsonl"](), on_progress, check)
        info = _info(path, read[0], left_out=result.damaged + result.unreadable)
        logger.info("backed up: %s", info)
        return info

    def verify(self, path: Path, on_progress: OnProgress | None) -> BackupInfo:
        """See that a backup is whole, and that each of its records is what was sealed.

        Raises:
            TransferError: It is not.
        """
        return _info(path, self._verified(path, on_progress).seen)

    def _verified(self, path: Path, on_progress: OnProgress | None) -> Incoming:
        file = ExportedFile(path, EXPORT_FORMATS["jsonl"])
        seen = file.overview()
        if seen.head.secrets != "sealed":
            raise trouble(path, f"is no backup: it was exported with secrets={seen.head.secrets!r}: import it")
        if seen.faults:
            raise trouble(path, f"is not what was backed up: {seen.faults[0]}")
        check_namespace(path, seen.head, self._sealer)
        incoming = Incoming(file, seen, self._sealer, self._stack)
        meter = Meter(f"verifying {shown(path)}", seen.records, on_progress=on_progress, log=logger)
        for batch in incoming.batches(_refuse(path)):
            meter.advance(batch.found)
        meter.finish()
        return incoming

    def restore(self, path: Path, held: OnHeld, writer: Writer[Any], on_progress: OnProgress | None) -> RestoreResult:
        """Verify all of it, put it, and see that each record is there.

        Raises:
            TransferError: It is not whole, or a record needs a key that is not held. Nothing was written. Or, at the
                end, records are not there as the backup has them.
            CacheValidationError: The cache holds records already. Nothing was written.
            CacheStorageError: The authority has no room for all of them, is out of service, or failed.
        """
        incoming = self._verified(path, on_progress)
        if self._stack.levels:
            self._bring_down()
            _check_room(incoming.seen, held, writer)
        placing = Placing(writer, replace=held == "replace")
        meter = Meter(f"restoring {shown(path)}", incoming.seen.records, on_progress=on_progress, log=logger)
        counts = place_all(incoming, placing, _refuse(path), meter)
        removed = self._remove_others(incoming, writer) if held == "replace" and self._stack.levels else 0
        if self._stack.levels:
            self._check_restored(incoming, newer=held == "merge")
        meter.finish()
        result = RestoreResult(backup=_info(path, incoming.seen), expired=incoming.expired, removed=removed, **counts)
        logger.info("restored: %s", result)
        return result

    def _bring_down(self) -> None:
        """Let the authority have what waits for it: that is held too, and may not come down when all is restored."""
        self._stack.owing.adopt_all()
        self._stack.owing.replay_all()

    def _remove_others(self, incoming: Incoming, writer: Writer[Any]) -> int:
        """Delete what the cache holds and the backup does not."""
        authority = writer.authority()
        kept = {item["key"] for item in incoming.file.records() if not isinstance(item, Unreadable)}
        others = [key for key in authority.call(lambda: list(authority.tier.keys())) if key not in kept]
        for key in others:
            writer.delete(key)
        return len(others)

    def _check_restored(self, incoming: Incoming, *, newer: bool) -> None:
        missing = [
            key for batch in incoming.batches(_refuse(incoming.file.path)) for key in self._missing(batch, newer=newer)
        ]
        if missing:
            raise trouble(
                incoming.file.path,
                f"was restored, and {len(missing)} of {incoming.seen.records} records are not there as it has them: "
                f"the first is {key_digest(missing[0])}; others write to the cache, or its storage is at fault",
            )

    def _missing(self, batch: Batch, *, newer: bool) -> Iterator[str]:
        authority, now = self._stack.levels[-1], self._stack.time.now()
        held = authority.call(authority.tier.get_many, [record.key for record in batch.records])
        for record in batch.records:
            found = held.get(record.key)
            there = found is not None and (_same(found, record) or (newer and found.version > record.version))
            if not there and record.purge_at > now:
                yield record.key


def _same(found: Any, record: Any) -> bool:
    """Whether they hold the same; the version is another where a deletion or a newer record was in the way."""
    if isinstance(record, Row):
        return bool(found.same_content(record))
    return bool(found == msgspec.structs.replace(record, version=found.version))


def _check_room(seen: Overview, held: OnHeld, writer: Writer[Any]) -> None:
    authority = writer.authority()
    size = authority.call(authority.tier.size)
    if size and held == "refuse":
        raise CacheValidationError(
            f"the cache holds {size} records: restore with held='merge' (--merge) to let newer ones stay, or with "
            "held='replace' (--replace) to have what the backup has and nothing else"
        )
    if authority.max_entries is not None and seen.records > authority.max_entries:
        raise TierFull(
            f"{authority.name} ({authority.kind}) holds at most {authority.max_entries} records, and the backup has "
            f"{seen.records}: raise its max_entries"
        )


def _refuse(path: Path) -> OnReject:
    def refuse(number: int, _: Item, reason: str) -> None:
        raise trouble(path, f"cannot be restored: record {number}: {reason}; nothing was written")

    return refuse


def _info(path: Path, seen: Overview, *, left_out: int = 0) -> BackupInfo:
    return BackupInfo(
        path=path,
        records=seen.records,
        digest=seen.digest,
        tierkit=seen.head.tierkit,
        entry_type=seen.head.entry_type,
        columns=seen.head.columns,
        keys=keys_of(seen.closing),
        left_out=left_out,
    )
