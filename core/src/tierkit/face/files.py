"""Files of everything that a cache holds: exports, imports, backups, restores."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tierkit.entry import CacheEntry
from tierkit.errors import CacheValidationError, TransferError
from tierkit.face.base import Face

if TYPE_CHECKING:
    from tierkit.export_format import FormatFactory
    from tierkit.key_sources import KeySources
    from tierkit.progress import OnProgress
    from tierkit.sealing import Sealer
    from tierkit.transfer.backing_up import Backups
    from tierkit.transfer.flat import Secrets
    from tierkit.transfer.results import (
        BackupInfo,
        ExportResult,
        ImportResult,
        OnConflict,
        OnHeld,
        RestoreResult,
    )

E = TypeVar("E", bound=CacheEntry)


class FileMethods(Face[E]):
    """Exports, imports, backups and restores."""

    def export_to_file(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,  # noqa: A002 - what a person would call it
        secrets: Secrets = "sealed",
        on_progress: OnProgress | None = None,
    ) -> ExportResult:
        """Write everything that the cache holds to a file, from which `import_from_file` makes it again, equal.

        The file takes its name when all of it is on the medium, in one step; until then, and if anything goes wrong,
        what was there stays. It is for its owner only (mode 0600). Memory does not grow with the number of records.
        Touches neither statistics nor recency. What is written meanwhile may or may not be in it. Blocks on I/O.

        Args:
            path: The file. Its extension says the format: `.jsonl`, `.json`, `.csv`, or one of a plugin, each also with
                `.gz`.
            format: The format, where the extension does not say it.
            secrets: "sealed": as they are stored, so that only who has the keys can read them, and each record is
                verified when it is imported. "plain": in the clear; whoever has the file has the secrets. "none": left
                out.
            on_progress: Called with the records written so far, and how many there seem to be.

        Returns:
            How many records are in the file, and how many were left out since they are damaged or need a key that is
            not held.

        Raises:
            TransferError: The file cannot be written, or is part of the cache: its storage, or the key file.
            CacheConfigError: There is no such format.
            CacheValidationError: An option has a value that cannot work.
            EncryptionKeyError: No level stores rows, secrets are to be sealed, and there is no key.
            CacheStorageError: The authority is out of service, or a level failed on the way.
        """
        from tierkit import __version__
        from tierkit.transfer.exporting import Export

        self._check_open()
        if refused := _url_among(path):
            del path  # a traceback may show the locals of the frame that raises
            raise refused
        _check_choice("secrets", secrets, ("sealed", "plain", "none"))
        file = Path(path)
        make = self._format(file, format)
        self._check_no_storage(file)
        self._bring_usage_down()
        with _nothing_in_tracebacks():
            return Export(self._stack, self._file_sealer(), secrets, __version__).to_file(file, make(), on_progress)

    def import_from_file(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,  # noqa: A002 - as above
        on_conflict: OnConflict = "newer",
        rejects: str | os.PathLike[str] | None = None,
        accept_damage: bool = False,
        on_progress: OnProgress | None = None,
    ) -> ImportResult:
        """Put the records of a file that `export_to_file` wrote, as they were: with version, deadline, health, usage.

        The file is read to its end before anything is written, so that one that was cut off or changed is refused. Then
        its records go in, in batches; those that do not are told, and kept in a file of their own, which can be
        imported once what was wrong with them is mended. Blocks on I/O. For lists of other make: `warm_from_file`.

        Args:
            path: The file.
            format: The format, where the extension does not say it.
            on_conflict: What becomes of a record that is held and is newer, by version: with "newer" it stays, with
                "replace" the one of the file takes its place. A record that was deleted comes back in any case.
            rejects: The file for records that do not go in, by default `<path>.rejects.jsonl`; made if there are any.
            accept_damage: Take what can be read of a file that was cut off or changed.
            on_progress: Called with the records done, and how many there are.

        Returns:
            How many were found, imported, kept, expired and rejected, and why.

        Raises:
            TransferError: The file cannot be imported: it is no export, was cut off or changed, or holds records of
                another class. Nothing was written.
            CacheConfigError: There is no such format.
            CacheValidationError: An option has a value that cannot work.
            CacheStorageError: The authority is out of service, or failed; the batches before are there.
        """
        from tierkit.transfer.exported import ExportedFile, check_namespace, check_whole
        from tierkit.transfer.importing import Incoming, import_records
        from tierkit.transfer.placing import Placing

        self._check_writable()
        if refused := _url_among(path, rejects):
            del path, rejects
            raise refused
        _check_choice("on_conflict", on_conflict, ("newer", "replace"))
        source = Path(path)
        file, sealer = ExportedFile(source, self._format(source, format)), self._file_sealer()
        rejected = Path(f"{os.fspath(source)}.rejects.jsonl") if rejects is None else Path(rejects)
        if _real(rejected) == _real(source):
            raise CacheValidationError("rejects is the file that is imported: name another, since that may hold more")
        self._check_no_storage(rejected)
        with _nothing_in_tracebacks():
            seen = file.overview()
            check_namespace(source, seen.head, sealer)
            if not accept_damage:
                check_whole(source, seen)
            incoming = Incoming(file, seen, sealer, self._stack)
            placing = Placing(self._writer, replace=on_conflict == "replace")
            return import_records(incoming, placing, rejected, on_progress)

    def backup(self, path: str | os.PathLike[str], *, on_progress: OnProgress | None = None) -> BackupInfo:
        """Write a sealed export of everything that is read back and compared before it takes its name.

        The encryption keys are not in it: without those that the answer names nobody can restore it, so keep them, and
        elsewhere. The cache may be in use: each record is as it was at one moment of the backup. Blocks on I/O.

        Args:
            path: The file, `*.jsonl` or `*.jsonl.gz`; or a folder, in which it is named after the cache and the time.
            on_progress: As for `export_to_file`.

        Returns:
            What the backup holds and needs, and how many records could not be backed up.

        Raises:
            TransferError: It cannot be written, or what was read back was not what was written.
            CacheValidationError: The file has no extension of a backup.
            CacheStorageError: The authority is out of service, or a level failed on the way.
        """
        from tierkit.transfer.backing_up import backup_path

        self._check_open()
        if refused := _url_among(path):
            del path
            raise refused
        now = datetime.fromtimestamp(self._time.now(), UTC)
        file = backup_path(Path(path), self.config.name, now)
        self._check_no_storage(file)
        self._bring_usage_down()
        with _nothing_in_tracebacks():
            return self._backups().write(file, on_progress)

    def verify_backup(self, path: str | os.PathLike[str], *, on_progress: OnProgress | None = None) -> BackupInfo:
        """See that a backup is whole, and each record in it what was sealed, with the keys that are held.

        Raises:
            TransferError: It is not, or it needs a key that is not held.
        """
        self._check_open()
        if refused := _url_among(path):
            del path
            raise refused
        with _nothing_in_tracebacks():
            return self._backups().verify(Path(path), on_progress)

    def restore(
        self, path: str | os.PathLike[str], *, held: OnHeld = "refuse", on_progress: OnProgress | None = None
    ) -> RestoreResult:
        """Bring back what a backup holds, onto whatever tiers this cache has. Blocks on I/O.

        The backup is verified as `verify_backup` does before anything is written. Afterwards each record is read again
        and compared.

        Args:
            path: The backup.
            held: What to do with a cache that holds records: "refuse"; "merge", where newer ones stay; "replace": have
                what the backup has, and nothing else.
            on_progress: Called with the records done, and how many there are: once while they are verified and once
                while they are put.

        Returns:
            How many were restored, kept, expired and removed.

        Raises:
            TransferError: The backup is not whole, or needs a key that is not held: nothing was written. Or a record is
                not there afterwards.
            CacheValidationError: The cache holds records, or `held` is none of the three. Nothing was written.
            CacheStorageError: The authority has no room for all, is out of service, or failed.
        """
        self._check_writable()
        if refused := _url_among(path):
            del path
            raise refused
        _check_choice("held", held, ("refuse", "merge", "replace"))
        with _nothing_in_tracebacks():
            return self._backups().restore(Path(path), held, self._writer, on_progress)

    def _backups(self) -> Backups:
        from tierkit import __version__
        from tierkit.transfer.backing_up import Backups

        return Backups(self._stack, self._file_sealer(), __version__)

    def _format(self, path: Path, name: str | None) -> FormatFactory:
        suffixes = [suffix.lower() for suffix in path.suffixes]
        if suffixes[-1:] == [".gz"]:
            suffixes.pop()
        if name is None and not suffixes:
            raise CacheValidationError(
                f"{path} has no extension that says the format: name one with format= (--format), of "
                f"{', '.join(self._registry.formats)}"
            )
        return self._registry.formats.named(suffixes[-1][1:] if name is None else name)

    def _check_no_storage(self, path: Path) -> None:
        """See that no file is put in the place of what the cache itself needs.

        Raises:
            TransferError: It would be.
        """
        file = _real(path)
        for what, place in self._places():
            if _belongs_to(file, _real(place)):
                raise TransferError(f"{file} is {what}, or a part of it: name a file elsewhere")

    def _places(self) -> Iterator[tuple[str, Path]]:
        """What the cache needs, and where that is: the storage of each level, and the key file."""
        for tier in self.config.resolve(self._registry) if self.config.cache_enabled else ():
            place: object = getattr(tier.options, "path", None)
            if isinstance(place, Path):
                yield f"the storage of {tier.name}", place
        if key_file := self._key_sources().key_file():
            yield "the key file", key_file

    def _bring_usage_down(self) -> None:
        """So that the file has the reads that were counted until now."""
        if not self.read_only and self._stack.stored:
            self._stack.owing.replay_all()
            self._stack.flush()

    def _file_sealer(self) -> Sealer:
        """What seals for files: a cache that stores no rows has looked for no key until now."""
        from tierkit.sealing import Sealer

        sealer = self._stack.sealer
        if sealer.key_ids or self._stack.stored:
            return sealer
        return Sealer(sealer.schema, self._key_sources().find(), self.config.cipher)

    def _key_sources(self) -> KeySources:
        from tierkit.key_sources import KeySources
        from tierkit.keys import Environment
        from tierkit.sealing import needs_key

        return KeySources.of(self.config, self._registry, Environment(), needed=needs_key(self._stack.sealer.schema))


@contextmanager
def _nothing_in_tracebacks() -> Iterator[None]:
    """A traceback may show the locals of its frames, and here they hold records, with secrets perhaps."""
    try:
        yield
    except BaseException as error:
        cause: BaseException | None = error
        while cause is not None:
            traceback.clear_frames(cause.__traceback__)
            cause = cause.__context__
        raise


def _url_among(*paths: str | os.PathLike[str] | None) -> TransferError | None:
    """What to raise if one of these is a URL: it may hold credentials."""
    from tierkit.transfer.warming import no_file, url_in

    return next((no_file(url) for path in paths if path is not None and (url := url_in(path))), None)


def _real(path: Path) -> Path:
    """Where `path` leads; itself if it can be none, which whoever opens it says."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:
        return path


def _belongs_to(file: Path, place: Path) -> bool:
    """Whether `file` is `place`, or in it, or beside it as `cache.db-wal` is beside `cache.db`."""
    return file.is_relative_to(place) or (
        file.parent == place.parent and re.fullmatch(re.escape(place.name) + r"-[a-z]+", file.name) is not None
    )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise CacheValidationError(f"{name} = {value!r}: must be one of {', '.join(map(repr, choices))}")
