"""Warming: bringing records in from lists of other make."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tierkit.entry import CacheEntry
from tierkit.face.writing import WritingMethods

if TYPE_CHECKING:
    from tierkit.progress import OnProgress
    from tierkit.transfer import WarmResult

E = TypeVar("E", bound=CacheEntry)


class WarmingMethods(WritingMethods[E]):
    """Bringing records in from lists of other make."""

    def warm_from_file(
        self,
        path: str | os.PathLike[str],
        ttl_override: float | None = None,
        *,
        source: str | None = None,
        scheme: str | None = None,
        on_progress: OnProgress | None = None,
    ) -> WarmResult:
        """Put the records of a file: JSON, JSONL, CSV or a list of `host:port` lines, each also gzipped.

        Args:
            path: The file; its ending says the format.
            ttl_override: Seconds to live from now on for all of them, whatever the file says; at most 100 years.
            source: Their source, whatever the file says.
            scheme: The scheme of lines that have none.
            on_progress: Told of the entries read so far and how many there seem to be, every 100 and at the end.

        Returns:
            What was found, loaded, skipped and failed, and why.

        Raises:
            TransferError: The file cannot be imported at all.
            CacheStorageError: The authority failed; the records before are there.
            CacheValidationError: An option has a value that cannot work; the file was not read.
        """
        from tierkit.transfer import refusal, warm

        self._check_writable()
        if refused := refusal(path, source, scheme):
            del path, source, scheme  # a traceback may show the locals of the frame that raises
            raise refused
        return warm(
            Path(path),
            entry_type=self.entry_type,
            put_many=partial(self.put_many, merge=True),
            now=self._time.now,
            source=source,
            scheme=scheme,
            ttl_override=ttl_override,
            open_plain=self._stack.sealer.open_plain if self.config.accept else None,
            on_progress=on_progress,
        )
