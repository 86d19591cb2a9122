"""Looking after a cache: sweeping, recovery, flushing, and the keys of its secrets."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, TypeVar

from tierkit.checks import check_key
from tierkit.entry import CacheEntry
from tierkit.face.base import Face
from tierkit.recovery import recover

if TYPE_CHECKING:
    from tierkit.explanation import Explanation
    from tierkit.progress import OnProgress
    from tierkit.rotation import KeyStatus, RotationResult

logger: Final = logging.getLogger("tierkit.sweeper")

E = TypeVar("E", bound=CacheEntry)


class UpkeepMethods(Face[E]):
    """Looking after a cache."""

    def recover(self) -> int:
        """Probe the levels that are out of service and whose back-off is over, as the background thread does.

        A level that answers is brought in line with what passed it by, and serves again. To bring one back at once,
        call its `reset_failures`.

        Returns:
            How many levels came back.
        """
        self._check_open()
        return recover(self._stack)

    def flush(self) -> None:
        """Bring usage (counts and times of reads), and writes that wait, to the levels that they are for.

        Blocks on I/O. What a level does not take now is kept, and tried again: that raises nothing. A cache that was
        opened read-only has nothing to bring.
        """
        self._check_open()
        if not self.read_only:
            self._stack.owing.replay_all()  # first: there is no usage of what the authority does not have
            self._stack.settle()  # copies took the place of what was pinned
        self._stack.flush()

    def sweep(self, on_progress: OnProgress | None = None) -> int:
        """Remove what expired from every level now, as the background sweeper does, but without resting.

        Args:
            on_progress: Told of the records removed so far; how many there are is not known before the end.

        Returns:
            How many records were removed, over all levels.
        """
        from tierkit.progress import Meter

        self._check_writable()
        meter = Meter("sweeping", on_progress=on_progress, log=logger)
        removed = self._stack.sweep(paced=False, on_step=meter.advance)
        meter.finish()
        logger.info("swept: %d expired records were removed", removed)
        return removed

    def explain(self, key: str) -> Explanation:
        """Where the record of `key` is, what `get` would answer now, and what was last decided of it, and why.

        Changes nothing: no use is counted, nothing is promoted or evicted. Decisions of other processes, and of those
        before, are told for a day, if they were kept (`decisions_persisted`). Blocks on I/O.

        Raises:
            CacheValidationError: `key` cannot be a key.
        """
        from tierkit.explaining import explain

        self._check_open()
        check_key(key)
        return explain(self._stack, key)

    def key_status(self, on_progress: OnProgress | None = None) -> KeyStatus:
        """Which keys are held, and which the stored records name. Reads every level; changes nothing. Blocks on I/O.

        Args:
            on_progress: Told of the records read so far, over all levels, and how many there seem to be.
        """
        from tierkit.rotation import key_status

        self._check_open()
        return key_status(self._stack, on_progress)

    def rotate(self, on_progress: OnProgress | None = None) -> RotationResult:
        """Seal everything that an older key has sealed with the current one, in every level, and compact the tiers.

        The current key is the first of those that are held. Every program that has the storage open must hold it and
        the older ones: then all of them find every record at every moment. Of a record only the version changes. It may
        be stopped and called again at any time; the background thread does the same with records that were read.
        Secrets that another cipher than the one that is set has sealed are sealed anew as well.

        Args:
            on_progress: Told of the records of the authority looked at so far, and how many there seem to be; once more
                from the start if others have meanwhile brought what an older key has sealed.

        Returns:
            How many records were sealed anew, which keys can go, and what stands against it if they cannot.

        Raises:
            CacheStorageError: The authority is out of service or failed. What was sealed anew stays so.
        """
        from tierkit.rotation import Rotation

        self._check_writable()
        return Rotation(self._comparing).rotate(on_progress)
