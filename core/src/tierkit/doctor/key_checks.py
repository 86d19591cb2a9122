"""Where the keys are, who can read them, and which of them the rows need."""

from __future__ import annotations

import os
import stat as modes
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tierkit import files
from tierkit.doctor import kinds
from tierkit.findings import Finding
from tierkit.storage_checks import mode_of

if TYPE_CHECKING:
    from tierkit.doctor.patients import Patient


def check_sources(patient: Patient) -> Iterator[Finding]:
    """What is wrong with the key that would be used, and with the file that holds it."""
    exposed = list(_check_file(patient, patient.sources.key_file()))
    yield from exposed
    yield from _check_config(patient.config.origins.get("encryption_key", ""))
    error = patient.key_error
    if error and kinds.KEY_EXPOSED not in [finding.kind for finding in exposed]:
        yield kinds.KEY_UNUSABLE.at("the encryption key", error)


def check_keys_of_rows(
    held: Sequence[str], named: Mapping[str, Mapping[str, int]], *, complete: bool
) -> Iterator[Finding]:
    """What the keys that rows name, by level, say of those that are `held`."""
    ids = {key for counts in named.values() for key in counts}
    if ids and not held:
        yield kinds.KEY_MISSING.at("the encryption key", f"records name {', '.join(sorted(ids))}")
    for key in held[1:]:
        if key in ids:
            count = sum(counts.get(key, 0) for counts in named.values())
            yield kinds.KEY_OUTDATED.at(f"the key {key}", f"{count} records")
        elif complete:
            yield kinds.KEY_RETIRABLE.at(f"the key {key}")


def _check_config(origin: str) -> Iterator[Finding]:
    """See that a file that the key itself was given in is its owner's alone."""
    kind, _, path = origin.partition(" ")
    status = files.stat(os.path.realpath(path)) if kind == "file" else None
    if status is not None and status.st_mode & 0o077:
        yield kinds.KEY_IN_CONFIG.at(path, mode_of(status), partial(os.chmod, path, status.st_mode & 0o700))


def _check_file(patient: Patient, path: Path | None) -> Iterator[Finding]:
    status = files.stat(str(path)) if path is not None else None
    if path is None or status is None:
        return
    if modes.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        yield kinds.KEY_EXPOSED.at(str(path), mode_of(status), partial(os.chmod, str(path), 0o600))
    if files.others_can_write(os.stat(path.parent)):
        yield kinds.KEY_FOLDER_WRITABLE.at(str(path.parent))
    for folder in filter(None, (_folder_of(tier.options) for tier in patient.stored)):
        if path.resolve().is_relative_to(folder.resolve()):
            yield kinds.KEY_WITH_DATA.at(str(path), f"in {folder}")


def _folder_of(options: Any) -> Path | None:
    """The folder that is the storage of a level, if it has one."""
    path = getattr(options, "path", None)
    return path if isinstance(path, Path) and path.is_dir() else None
