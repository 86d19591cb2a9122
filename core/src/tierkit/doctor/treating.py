"""A treatment: the repairs of what was found, and another examination, which alone tells what is repaired."""

from __future__ import annotations

import base64
import json
import logging
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tierkit import files
from tierkit.doctor.coherence import Comparison
from tierkit.doctor.examining import BATCH, examine_all
from tierkit.doctor.kinds import KINDS
from tierkit.doctor.patients import Patient
from tierkit.doctor.result import Examination
from tierkit.errors import CacheCorruptionError, TierkitError, TierUnavailable
from tierkit.findings import Repair
from tierkit.level import Level
from tierkit.progress import OnProgress
from tierkit.reconciling import compare
from tierkit.row import Row
from tierkit.stack import Stack

logger: Final = logging.getLogger("tierkit.doctor")

_ENGINE: Final = frozenset(kind.code for kind in KINDS if kind.fix)


def treat(patient: Patient, found: Examination, on_progress: OnProgress | None) -> Examination:
    """Repair what was `found`, and examine again."""
    failures: dict[Repair | None, str] = {}
    for repair, _ in found.repairs:
        _try(repair, failures)
    if found.repairs or any(code in _ENGINE for _, code in found.counts):  # what was repaired may have lost records

        def heal() -> None:
            with patient.writing() as stack:
                _heal(patient, stack)

        _try(heal, failures)
        failures[None] = failures.pop(heal, "")
    return found.after(examine_all(patient, on_progress), failures)


def _try(repair: Repair, failures: dict[Repair | None, str]) -> None:
    try:
        repair()
    except Exception as error:
        logger.debug("a repair failed", exc_info=True)
        failures[repair] = str(error) if isinstance(error, TierkitError | OSError) else type(error).__name__


def _heal(patient: Patient, stack: Stack[Any]) -> None:
    """Remove damaged rows, the authority's first; then bring all levels in line with it."""
    for level in reversed(stack.stored):
        if level.in_service and patient.names(level.name):
            _remove_damaged(stack, level, Kept(patient, level.name).keep)
    authority = stack.authority
    if authority is None or not authority.in_service:
        return
    for level in reversed(stack.stored[:-1]):
        if level.in_service and level.persistent:
            compare(stack, level, authority)
    stack.owing.replay_all()
    stack.settle()
    stack.sweep(paced=False)
    for level in stack.stored:
        if not level.writable:
            raise TierUnavailable(level.trouble)


def _remove_damaged(stack: Stack[Any], level: Level, keep: Callable[[Row], None]) -> None:
    comparison, rows = Comparison(stack, level), level.scan()
    while batch := list(islice(rows, BATCH)):
        contradicted = comparison.contradicted(batch)
        for row in batch:
            if row.key in contradicted or _is_damaged(stack, row):
                keep(row)
                level.call(level.tier.discard, row)


def _is_damaged(stack: Stack[Any], row: Row) -> bool:
    try:
        stack.sealer.verify(row)
    except CacheCorruptionError:
        return True
    except TierkitError:  # not ours to judge
        return False
    return False


class Kept:
    """A file beside the storage of a level, for what is removed from it: JSON Lines, secrets still sealed."""

    def __init__(self, patient: Patient, level: str) -> None:
        """Make nothing yet."""
        (options,) = (tier.options for tier in patient.levels if tier.name == level)
        self._path: object = getattr(options, "path", None)
        self._now = patient.time.now()
        self._level = level
        self._name = ""

    def keep(self, row: Row) -> None:
        """Write `row` there, to the medium.

        Raises:
            TierUnavailable: The storage is not a file or folder.
        """
        told = {name: getattr(row, name) for name in row.__struct_fields__}
        line = json.dumps({**told, "columns": dict(row.columns)}, default=_plain)
        fd = self._open()
        try:
            files.append(fd, f"{line}\n".encode())
            files.fsync(fd)
        finally:
            files.close(fd)

    def _open(self) -> int:
        opened = files.open_log(self._name, write=True) if self._name else None
        if opened is not None:
            return opened[0]
        if not isinstance(self._path, Path):
            raise TierUnavailable(
                f"{self._level} has no path beside which a damaged record could be kept: it is removed when it is read"
            )
        self._name = files.free_name(f"{os.path.abspath(self._path)}.damaged-{self._now:.0f}.jsonl")
        return files.create(self._name)


def _plain(value: Any) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
