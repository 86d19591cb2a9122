"""Which levels may stand on which: checked before any of them is opened.

A tier has the traits that its plugin registered (`opening` refuses one that has others), so these say enough.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path

from tierkit.errors import CacheConfigError
from tierkit.level_config import ResolvedTier
from tierkit.tier import Durability, Trait


def check_stack(levels: Sequence[ResolvedTier], durability: Durability) -> None:
    """See whether these levels, the top one first, can work together and keep what `durability` promises.

    Raises:
        CacheConfigError: They cannot.
    """
    if not levels:
        raise CacheConfigError("no level is enabled: enable one, or turn the cache off with cache_enabled")
    if levels[-1].admission is not None:
        raise CacheConfigError(f"level {levels[-1].name} is the lowest and has every record: take admission from it")
    for above, below in pairwise(levels):
        _check_order(above, below)
    for upper, lower in combinations(levels, 2):
        _check_storage(upper, lower)
    _check_authority(levels, durability)
    for place, level in enumerate(levels):
        _check_write_policy(level, levels[:place], level is levels[-1], durability)


def _check_order(above: ResolvedTier, below: ResolvedTier) -> None:
    if Trait.LIVE in below.spec.traits and Trait.LIVE not in above.spec.traits:
        raise CacheConfigError(
            f"level {below.name} ({below.spec.kind}) holds live entries and cannot stand below level"
            f" {above.name} ({above.spec.kind}), which stores rows: change their order"
        )


def _check_storage(upper: ResolvedTier, lower: ResolvedTier) -> None:
    path = _storage(upper)
    if path is not None and upper.spec.kind == lower.spec.kind and path == _storage(lower):
        raise CacheConfigError(
            f"levels {upper.name} and {lower.name} ({upper.spec.kind}) have the same path, {path}: what one of them"
            " drops would be gone from the other, too; give each a path of its own"
        )


def _storage(level: ResolvedTier) -> str | None:
    """Where the level keeps what it holds, however its path is spelled; None if it has no such option."""
    path = getattr(level.options, "path", None)
    return os.path.realpath(path) if isinstance(path, Path) else None


def _check_authority(levels: Sequence[ResolvedTier], durability: Durability) -> None:
    """The lowest level has everything, so nothing above it may outlive it, and it must keep what is promised."""
    lowest = levels[-1]
    if not _has(lowest, Trait.PERSISTENT) and any(_has(level, Trait.PERSISTENT) for level in levels):
        raise CacheConfigError(
            f"{lowest.name} ({lowest.spec.kind}) is the lowest level and does not persist, but one above it does: "
            "put the persistent level last"
        )
    if durability == "full" and not _has(lowest, Trait.CRASH_SAFE):
        raise CacheConfigError(
            f'durability = "full" needs a lowest level that is CRASH_SAFE, and {lowest.name} ({lowest.spec.kind}) is'
            " not: put one that is last, or promise less"
        )


def _check_write_policy(
    level: ResolvedTier, above: Sequence[ResolvedTier], lowest: bool, durability: Durability
) -> None:
    problem = "" if level.write_policy == "through" else _policy_problem(level, above, lowest, durability)
    if problem:
        raise CacheConfigError(f'{level.name} ({level.spec.kind}): write_policy = "{level.write_policy}" {problem}')


def _policy_problem(level: ResolvedTier, above: Sequence[ResolvedTier], lowest: bool, durability: Durability) -> str:
    if not above:
        return "needs a level above it, which has what it does not: use through"
    if _has(level, Trait.LIVE):
        return "is for levels that store rows, not live entries: use through"
    if not lowest:
        return "" if level.write_policy == "demote" else "is for the lowest level alone: use through or demote"
    if durability == "none" or any(_has(high, Trait.PERSISTENT | Trait.CRASH_SAFE) for high in above):
        return ""
    return (
        f"needs a level above it that is CRASH_SAFE to hold what was acknowledged: put one there, or promise nothing "
        f'with durability = "none" (it is "{durability}")'
    )


def _has(level: ResolvedTier, traits: Trait) -> bool:
    return traits in level.spec.traits
