"""The doctor: what is wrong with a cache, what that means, and what to do about it.

An examination changes nothing. It looks at the storage of each level as it lies there, opened or not (the function in
`TierSpec.examine`), and then reads every row of every level over a stack that is opened for reading only. A treatment
is an examination, the repairs of what it found, and another examination: only what that does not find any more counts
as repaired.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tierkit.clock import CacheTime, Clock, SystemClock
from tierkit.config import CacheConfig
from tierkit.doctor.examining import examine_all
from tierkit.doctor.patients import Closed, Open
from tierkit.doctor.result import Examination
from tierkit.doctor.treating import treat
from tierkit.entry import CacheEntry, ProxyEntry
from tierkit.findings import Finding, FindingKind
from tierkit.plugins import PluginRegistry, discover
from tierkit.progress import OnProgress
from tierkit.stack import Stack

__all__ = ["Examination", "Finding", "FindingKind", "examine", "examine_stack"]


def examine(
    config: CacheConfig | None = None,
    *,
    entry_type: type[CacheEntry] = ProxyEntry,
    fix: bool = False,
    levels: Sequence[str] = (),
    on_progress: OnProgress | None = None,
    clock: Clock = SystemClock(),  # noqa: B008 - it has no state
    plugins: Sequence[object] = (),
) -> Examination:
    """Examine the cache that `config` describes, whether it opens or not. Reads every level whole; blocks on I/O.

    Programs that use the storage may go on. To repair takes the locks that a writer takes.

    Args:
        config: What to examine; by default what `CacheConfig.load()` finds.
        entry_type: The class of its entries.
        fix: Repair what can be repaired. Nothing that could be of use is destroyed: it is kept aside.
        levels: Names of the levels to examine; all of them if there are none.
        on_progress: Called with the rows looked at, and how many there seem to be.
        clock: Where the time comes from.
        plugins: Plugin modules or objects besides those that are installed.

    Raises:
        CacheConfigError: The configuration cannot work, or has no level of such a name.
        CacheValidationError: The entry type cannot be stored.
    """
    config = CacheConfig.load() if config is None else config
    patient = Closed(config, entry_type, CacheTime(clock), discover(plugins), levels)
    found = examine_all(patient, on_progress)
    return treat(patient, found, on_progress) if fix else found


def examine_stack(
    stack: Stack[Any],
    config: CacheConfig,
    registry: PluginRegistry,
    *,
    fix: bool = False,
    on_progress: OnProgress | None = None,
) -> Examination:
    """As `examine`, for a stack that is open. See `CacheManager.examine`."""
    patient = Open(stack, config, registry)
    found = examine_all(patient, on_progress)
    return treat(patient, found, on_progress) if fix else found
