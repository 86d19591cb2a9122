"""Rotation: what was sealed with an older key is sealed anew with the current one, and the storage keeps nothing of it.

The authority comes first, in batches, each record by compare and set: a write that comes meanwhile wins, and a level
above gets the new row or loses the old one. Then each level above is brought in line; what only it has comes down, and
is sealed anew in the next round. Then every tier is compacted, and every level read once more: a key that no row names
can go. Nothing is remembered but the rows themselves, so a rotation that was killed is begun again, and ends sooner.

All keys must be held all the while, by every program that has the storage open: a record is sealed with either. Secrets
that the other cipher has sealed are sealed anew along with it, with the one that is set.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, TypeVar, cast

import msgspec

from tierkit.comparing import Comparing
from tierkit.entry import CacheEntry
from tierkit.errors import CacheCorruptionError, KeyNotHeldError, SchemaMismatchError, TierkitError
from tierkit.inspection import size_of
from tierkit.level import Level
from tierkit.progress import Meter, OnProgress
from tierkit.reconciling import compare
from tierkit.revising import Change, Revision
from tierkit.row import GOES_BACK_TO, Row, goes_back_to
from tierkit.sealing import Sealer
from tierkit.stack import Stack
from tierkit.writing import ATTEMPTS, BATCH, Write

logger: Final = logging.getLogger("tierkit.rotation")

E = TypeVar("E", bound=CacheEntry)

_ROUNDS: Final = 4
"""What others bring meanwhile is sealed anew in the next round; but one that writes with an older key never ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelKeys:
    """Which keys the records of one level name.

    Attributes:
        name: The level's name.
        kind: The kind of its tier.
        records: How many records it holds.
        current: How many of them need no other key than the current one.
        damaged: How many are not what was written, and are left out of `current`.
        others: How many name another key, by its id. A record may name two.
        error: Why it could not be read, or empty. The counts are then those up to the failure.
    """

    name: str
    kind: str
    records: int = 0
    current: int = 0
    damaged: int = 0
    others: Mapping[str, int] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyStatus:
    """Which keys are held, and which the stored records name.

    Attributes:
        primary: The id of the key that is written with; empty if no key is held.
        older: The ids of the other keys that are held.
        levels: Every level that stores rows, from the top.
    """

    primary: str
    older: tuple[str, ...]
    levels: tuple[LevelKeys, ...]

    @property
    def retired(self) -> tuple[str, ...]:
        """The ids of the older keys that no record names: they can go. None while a level cannot be read."""
        if any(level.error for level in self.levels):
            return ()
        return tuple(key for key in self.older if not any(key in level.others for level in self.levels))

    @property
    def complete(self) -> bool:
        """Whether every level was read, and no record names another key than the current one."""
        return not any(level.error or level.others for level in self.levels)

    @property
    def outdated(self) -> bool:
        """Whether a record names an older key that is held."""
        return any(key in level.others for key in self.older for level in self.levels)

    def remains(self) -> Iterator[str]:
        """What stands against it that the older keys go, a line for each."""
        for level in self.levels:
            if level.error:
                yield f"{level.name} cannot be read: {level.error}"
            for key, count in level.others.items():
                yield f"{level.name}: {count} records name the key {key}, which is {self._held(key)}"

    def _held(self, key: str) -> str:
        return "held" if key in self.older else "not held: nothing can be done about them without it"

    def __str__(self) -> str:
        """One line for a person."""
        counts = ", ".join(f"{level.name}: {level.current} of {level.records}" for level in self.levels)
        return f"records on the current key {self.primary or '(none)'}: {counts or 'there is no level that stores any'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationResult:
    """What came of a rotation.

    Attributes:
        resealed: How many records were sealed anew in the authority.
        status: What the records name now, as of a scan of every level.
        failures: By the name of the level, why its storage may still hold what was replaced.
    """

    resealed: int
    status: KeyStatus
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def retired(self) -> tuple[str, ...]:
        """The ids of the older keys that can go: no record names them, and no storage keeps what was replaced."""
        return () if self.failures else self.status.retired

    @property
    def complete(self) -> bool:
        """Whether all older keys can go, and no record names any that is not held."""
        return self.status.complete and not self.failures

    def remains(self) -> Iterator[str]:
        """What stands against it that the older keys go, a line for each."""
        yield from self.status.remains()
        yield from (f"{name} could not be compacted: {why}" for name, why in self.failures.items())

    def __str__(self) -> str:
        """One line for a person."""
        left = "; ".join(self.remains())
        can_go = f"these keys can go: {', '.join(self.retired)}" if self.retired else "no older key can go"
        return f"{self.resealed} records sealed anew; {can_go}{left and f' ({left})'}"


def key_status(stack: Stack[Any], on_progress: OnProgress | None = None) -> KeyStatus:
    """Read every level, and tell which keys its records name. Changes nothing; blocks on I/O.

    Args:
        stack: The levels.
        on_progress: Told of the records read so far, over all levels, and how many there seem to be.
    """
    primary, *older = stack.sealer.key_ids or ("",)
    meter = Meter("reading which keys records name", size_of(stack.stored), on_progress=on_progress, log=logger)
    levels = tuple(_level_keys(level, stack.sealer, primary, meter) for level in stack.stored)
    meter.finish()
    return KeyStatus(primary=primary, older=tuple(older), levels=levels)


def _level_keys(level: Level, sealer: Sealer, primary: str, meter: Meter) -> LevelKeys:
    counts: Counter[str] = Counter(records=0, current=0, damaged=0)
    others: Counter[str] = Counter()
    error = "" if level.in_service else "it is out of service"
    try:
        for row in () if error else level.scan():
            named = sealer.named_keys(row) - {primary}
            damaged = _is_damaged(sealer, row)
            counts.update(records=1, damaged=damaged, current=not named and not damaged)
            others.update(named)
            meter.advance()
    except TierkitError as failure:
        error = str(failure)
    return LevelKeys(name=level.name, kind=level.kind, others=dict(sorted(others.items())), error=error, **counts)


def _is_damaged(sealer: Sealer, row: Row) -> bool:
    try:
        sealer.verify(row)
    except CacheCorruptionError:
        return True
    except (KeyNotHeldError, SchemaMismatchError):
        return False
    return False


class Resealing(Revision[E]):
    """Records of the authority on their way to the current key.

    Attributes:
        resealed: How many have been sealed anew.
    """

    def __init__(self, comparing: Comparing[E]) -> None:
        """Compare as `comparing` does."""
        super().__init__(comparing)
        self.resealed = 0

    def reseal(self, keys: Sequence[str]) -> None:
        """Seal anew what the authority holds of `keys`, where that is needed."""
        for _ in range(ATTEMPTS):
            self.note_counters()
            authority = self.writer.authority(keys)
            held: dict[str, Row] = authority.call(authority.tier.get_many, keys)
            keys = self.reseal_rows(list(held.values()))
            if not keys:
                break

    def reseal_rows(self, rows: Sequence[Row]) -> list[str]:
        """Seal anew those of `rows` that need it. Answers the keys of those that another writer changed meanwhile."""
        changes = [change for row in rows if (change := self._change(row)) is not None]
        done = self.revise(changes) if changes else set()
        self.resealed += len(done)
        return [write.entry.key for write, _ in changes if write.entry.key not in done]

    def _change(self, row: Row) -> Change[E] | None:
        """`row` sealed anew, to take its own place.

        None if it names no older key and no secret in it is of the other cipher, or if it cannot be done.
        """
        stack, sealer = self.stack, self.stack.sealer
        if not (sealer.is_outdated(row) or sealer.is_of_other_cipher(row)):
            return None
        version = stack.versions.above(row.version)
        try:
            sealed = sealer.resealed(row, version, {GOES_BACK_TO: goes_back_to(row)})
            return Write(msgspec.structs.replace(cast("E", sealer.open(row)), version=version), sealed), row.version
        except CacheCorruptionError:
            stack.open_row(stack.levels[-1], row)  # it is evicted, and counted, as it is by a read
        except (KeyNotHeldError, SchemaMismatchError) as error:
            logger.debug("a record stays sealed as it is: %s", str(error))
        return None


class Rotation(Resealing[E]):
    """One rotation of a stack."""

    def rotate(self, on_progress: OnProgress | None = None) -> RotationResult:
        """Seal everything anew, compact every tier, and see what is left. Blocks on I/O.

        Raises:
            CacheStorageError: The authority is out of service or failed. What was sealed anew stays so.
        """
        stack, failures = self.stack, dict[str, str]()
        self._bring_down()
        for _ in range(_ROUNDS):
            changed = self._round(on_progress)
            failures = self._compact()
            status = key_status(stack)
            if not (changed and status.outdated):
                break
        result = RotationResult(resealed=self.resealed, status=status, failures=failures)
        logger.log(logging.INFO if result.complete else logging.WARNING, "%s", result)
        return result

    def _bring_down(self) -> None:
        """Let the authority have what waits for it, and nothing be there that has expired."""
        self.stack.owing.replay_all()
        self.stack.settle()
        self.stack.sweep(paced=False)

    def _round(self, on_progress: OnProgress | None) -> int:
        """Seal the authority anew, and bring the levels above in line. Answers how many records were not."""
        if not self.stack.stored:
            return 0
        before, authority = self.resealed, self.writer.authority()
        total = authority.call(authority.tier.size)
        meter = Meter(f"sealing {authority.name} anew", total, on_progress=on_progress, log=logger, told_every=1)
        for seen in self._reseal_all(authority):
            meter.advance(seen)
        meter.finish()
        above = [level for level in reversed(self.stack.stored[:-1]) if level.in_service]
        return self.resealed - before + sum([self._bring_in_line(level, authority) for level in above])

    def _reseal_all(self, authority: Level) -> Iterator[int]:
        """Seal the authority anew, in batches. Tells after each how many records it had."""
        rows = authority.scan()
        self.note_counters()
        while batch := list(islice(rows, BATCH)):
            changed_meanwhile = self.reseal_rows(batch)
            if changed_meanwhile:
                self.reseal(changed_meanwhile)
            yield len(batch)
            self.note_counters()

    def _bring_in_line(self, level: Level, authority: Level) -> int:
        try:
            return compare(self.stack, level, authority, only=self.stack.sealer.is_outdated)
        except TierkitError as error:
            logger.debug(
                "%s could not be brought in line: %s", level.name, str(error)
            )  # the scan tells what is left there
            return 0

    def _compact(self) -> dict[str, str]:
        """Compact every tier that can be. Answers why others could not, by the names of their levels.

        It is the tier that is called, and not the level: this may take longer than a level's time limit, and want of
        room for it is no reason to stop writing.
        """
        failures: dict[str, str] = {}
        for level in self.stack.stored:
            try:
                if level.in_service:
                    level.tier.compact()
            except Exception as error:  # noqa: BLE001 - told by name, whatever a tier raises
                failures[level.name] = str(error) if isinstance(error, TierkitError) else type(error).__name__
        return failures
