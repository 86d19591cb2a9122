"""Reconciling: what a level above the authority may hold, at open and when it comes back into service.

A process that is killed between the authority and the levels above, or that could not reach such a level, leaves old
copies there. Before a cache serves, every copy in a persistent level above is compared with the authority, by
version. What the authority has in another version, or has deleted, is discarded. What the authority has lost, its
file moved aside or one of its rows damaged, is put down to it again: its marks tell a loss from a deletion.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final

from tierkit.errors import (
    CacheCorruptionError,
    CacheStorageError,
    TierkitError,
    TierUnavailable,
)
from tierkit.level import Level, Missed
from tierkit.row import Row, comes_after
from tierkit.stack import Stack

logger = logging.getLogger("tierkit.stack")

BATCH: Final = 500


def reconcile(stack: Stack[Any]) -> None:
    """Bring every persistent level above the authority into line with it. Reads those levels whole; blocks on I/O.

    A level that cannot be reconciled goes out of service, and is before it comes back. Without an authority that
    answers the others serve as they are, and are reconciled when it comes back.
    """
    authority = stack.authority
    if authority is None or authority.live:
        return
    if not authority.in_service:
        authority.missed_writes = True
        return
    try:
        _reconcile_above(stack, authority)
    except _AuthorityFailed as error:
        authority.miss(error)  # so that the levels above are compared with it when it is back
        stack.owing.adopt_all()


def align(stack: Stack[Any], level: Level, missed: Missed) -> None:
    """Bring `level`, which comes back, in line with what passed it by: as a whole, if that cannot be told.

    Raises:
        CacheStorageError: Its tier failed to, or the authority, with which it is compared.
    """
    authority = stack.levels[-1]
    if stack.settings.read_only:
        return  # what it holds is not ours to change, and nothing of ours passed it by
    knows_deletions = level.out_for_seconds < stack.settings.marks_seconds
    if level is authority and not level.live:
        _reconcile_above(stack, authority, restoring=knows_deletions)
        return
    if missed.everything and not level.live:
        if not authority.in_service:
            raise TierUnavailable(f"{level.name} cannot be brought in line while {authority.name} is out of service")
        compare(stack, level, authority, restoring=knows_deletions)
        missed = missed._replace(everything=False)
    level.drop_missed(missed if level.live else _without_what_comes_after(stack, level, missed))


def _without_what_comes_after(stack: Stack[Any], level: Level, missed: Missed) -> Missed:
    """`missed` but for keys of which `level` holds a write that is owed and that the authority was changed without.

    Raises:
        TierUnavailable: Only the authority could say so, and it is out of service.
    """
    keys = list(dict.fromkeys([*missed.versions, *missed.doubtful]))
    held: dict[str, Row] = level.call(level.tier.get_many, keys) if keys else {}
    adopted = [row for row in held.values() if stack.owing.adopts(level, row)]
    owed = [row for row in adopted if row.key in missed.versions and not _has_newer(stack, row)]
    authority = stack.levels[-1]
    if owed and not authority.in_service:
        raise TierUnavailable(
            f"{level.name} holds writes for {authority.name}, and whether others came after them cannot be told while "
            f"{authority.name} is out of service"
        )
    there = authority.call(authority.tier.get_many, [row.key for row in owed]) if owed else {}
    after = {row.key for row in owed if row.key in there and comes_after(row, there[row.key])}
    return missed._replace(versions={key: version for key, version in missed.versions.items() if key not in after})


def _has_newer(stack: Stack[Any], row: Row) -> bool:
    """Whether this process knows of a later write than the owed `row`."""
    intent = stack.owing.intents.get(row.key)
    return intent is not None and intent.version > row.version


def _reconcile_above(stack: Stack[Any], authority: Level, *, restoring: bool = True) -> None:
    for level in reversed(stack.stored[:-1]):
        if not level.in_service:
            level.missed_writes = True  # it is brought in line before it comes back
        elif level.persistent:
            try:
                compare(stack, level, authority, restoring=restoring)
            except _AuthorityFailed:
                raise
            except TierkitError as error:
                level.miss(error)


class _AuthorityFailed(CacheStorageError):
    """It was the authority that failed, and not the level that was compared with it."""


def compare(
    stack: Stack[Any],
    level: Level,
    authority: Level,
    *,
    restoring: bool = True,
    only: Callable[[Row], bool] = lambda _: True,
) -> int:
    """Discard what the authority has in another version, or has deleted; put down what it has lost.

    Args:
        stack: Of both.
        level: What it holds is compared.
        authority: With what this holds.
        restoring: Whether the authority still knows what it has deleted. If not, what it does not have is discarded.
        only: Which rows to compare.

    Returns:
        How many were put down or discarded, or were owed to the authority, which has them now if it takes writes.

    Raises:
        CacheStorageError: One of the two failed.
    """
    restored = dropped = owed = 0
    started = stack.time.monotonic()
    for rows in _batches(level):
        compared = list(filter(only, rows))
        copies = [row for row in compared if not stack.owing.adopts(level, row)]
        owed += len(compared) - len(copies)
        held = _held_by(authority, [row.key for row in copies])
        for row in copies:
            there = held.get(row.key)
            if there is None or there.version != row.version:
                lost = restoring and not stack.late(started) and (there is None or there.version < row.version)
                if lost and stack.sealer.is_foreign(row):
                    continue
                put_down = lost and put_down_again(stack, row)
                restored += put_down
                if put_down:
                    authority.note("put back", row.key, f"from {level.name}")
                elif level.call(level.tier.discard, row):
                    dropped += 1
                    level.note("dropped", row.key, f"{authority.name} has another version of it, or has deleted it")
        started = stack.time.monotonic()
    stack.owing.replay_all()
    if restored:
        stack.settle()  # a bounded authority may have evicted what was put down
    if restored or dropped:
        said = "%s: %d records that %s had lost were put back there, and %d old copies were dropped"
        logger.warning(said, level.name, restored, authority.name, dropped)
    return restored + dropped + owed


def _held_by(authority: Level, keys: list[str]) -> dict[str, Row]:
    try:
        return authority.call(authority.tier.get_many, keys)
    except TierkitError as error:
        raise _AuthorityFailed(str(error)) from error


def put_down_again(stack: Stack[Any], row: Row) -> bool:
    """Give `row` to the authority, which may have lost it. Answers whether it has it now: else it is not to stay."""
    authority = stack.levels[-1]
    if row.purge_at <= stack.time.now():
        return False
    try:
        stack.sealer.verify(row)
    except CacheCorruptionError:
        return False
    try:
        return authority.call(authority.tier.put, row) is None
    except TierkitError as error:
        raise _AuthorityFailed(str(error)) from error


def _batches(level: Level) -> Iterator[list[Row]]:
    rows = level.scan()
    while batch := list(islice(rows, BATCH)):
        yield batch
