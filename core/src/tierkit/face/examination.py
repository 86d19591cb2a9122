"""Seeing what is wrong with a cache that is open."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from tierkit.entry import CacheEntry
from tierkit.face.base import Face

if TYPE_CHECKING:
    from tierkit.doctor import Examination
    from tierkit.progress import OnProgress

E = TypeVar("E", bound=CacheEntry)


class ExaminationMethods(Face[E]):
    """Examining a cache."""

    def examine(self, *, fix: bool = False, on_progress: OnProgress | None = None) -> Examination:
        """See what is wrong with the storages, the rows and the keys. Reads every level whole; blocks on I/O.

        What does not open can be examined too: `tierkit.doctor.examine`.

        Args:
            fix: Repair what can be repaired; what that removes is kept aside.
            on_progress: Called with the rows looked at, and how many there seem to be.

        Raises:
            TierReadOnly: To repair, if the cache was opened read-only.
        """
        from tierkit.doctor import examine_stack

        if fix:
            self._check_writable()
        self._check_open()
        return examine_stack(self._stack, self.config, self._registry, fix=fix, on_progress=on_progress)
