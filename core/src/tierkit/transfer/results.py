"""What came of exports, imports, backups and restores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tierkit.transfer.flat import Secrets
from tierkit.transfer.report import shown

OnConflict = Literal["newer", "replace"]
"""What an import does with a key that is held: let the newer record stay, or put the one of the file in its place."""
OnHeld = Literal["refuse", "merge", "replace"]
"""What a restore does with a cache that holds something: refuse, merge as an import, or make it what the backup is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportResult:
    """What an export wrote.

    Attributes:
        path: The file.
        exported: Records that are in it.
        expired: Records that were held past the time when they may be dropped, and left out.
        damaged: Records that are not what was written, and left out.
        unreadable: Records of a key that is not held or of a class that does not agree, and left out.
        secrets: What became of secrets.
        keys: The encryption keys that are needed to import it, by id, each with the number of records.
        bytes: The size of the file.
    """

    path: Path
    exported: int
    expired: int = 0
    damaged: int = 0
    unreadable: int = 0
    secrets: Secrets = "sealed"
    keys: Mapping[str, int] = field(default_factory=dict)
    bytes: int = 0

    @property
    def complete(self) -> bool:
        """Whether everything that may be returned is in the file."""
        return not (self.damaged or self.unreadable)

    def __str__(self) -> str:
        """One line for a person."""
        left_out = {"expired": self.expired, "damaged": self.damaged, "unreadable": self.unreadable}
        told = "".join(f", {count} {name} left out" for name, count in left_out.items() if count)
        return f"{shown(self.path)}: {self.exported} records exported{told}"


@dataclass(frozen=True, slots=True)
class ImportReject:
    """A record of a file that did not go in. It never holds a value of the record.

    Attributes:
        file: The file's path.
        record: Which of its records it is, from 1.
        reason: Why it did not go in.
    """

    file: str
    record: int
    reason: str

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.file}, record {self.record}: {self.reason}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """What became of the records of a file: found = imported + kept + expired + rejected.

    Attributes:
        path: The file.
        found: Records in it.
        imported: Records that were put, or were there just so.
        kept: Records in whose place a newer one is held, which stays.
        expired: Records that could be dropped by now, and were left out.
        rejected: Records that do not go in, each with a reason.
        rejects: The first 100 of these.
        rejects_path: The file with all of them, or None if there are none.
    """

    path: Path
    found: int
    imported: int = 0
    kept: int = 0
    expired: int = 0
    rejected: int = 0
    rejects: tuple[ImportReject, ...] = ()
    rejects_path: Path | None = None

    def __str__(self) -> str:
        """One line for a person."""
        counts = f"{self.imported} imported, {self.kept} kept, {self.expired} expired, {self.rejected} rejected"
        return f"{shown(self.path)}: {self.found} records found, {counts}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupInfo:
    """What a backup holds, as it was read back and verified.

    Attributes:
        path: The file.
        records: How many records it holds.
        digest: Of all of them.
        tierkit: The version that wrote it.
        entry_type: The name of the class of its records.
        columns: The columns of that class, with their types.
        keys: The encryption keys that are needed to restore it, by id, each with the number of records.
        left_out: Records that the cache held and that could not be backed up, damaged or unreadable; when it was
            written.
    """

    path: Path
    records: int
    digest: str
    tierkit: str
    entry_type: str
    columns: Mapping[str, str]
    keys: Mapping[str, int] = field(default_factory=dict)
    left_out: int = 0

    def __str__(self) -> str:
        """One line for a person."""
        needed = f", keys {', '.join(self.keys)}" if self.keys else ""
        return f"{shown(self.path)}: {self.records} {self.entry_type} records, digest {self.digest}{needed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreResult:
    """What a restore did; it has seen that each record of the backup is there.

    Attributes:
        backup: What was restored.
        imported: Records that were put, or were there just so.
        kept: Records in whose place a newer one was held, which stayed.
        expired: Records that could be dropped by now, and were left out.
        removed: Records that were held and are not in the backup, and were removed.
    """

    backup: BackupInfo
    imported: int = 0
    kept: int = 0
    expired: int = 0
    removed: int = 0

    def __str__(self) -> str:
        """One line for a person."""
        counts = f"{self.imported} restored, {self.kept} kept, {self.expired} expired, {self.removed} removed"
        return f"{shown(self.backup.path)}: {counts}"
