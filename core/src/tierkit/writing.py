"""Writing: put and delete. The rules are at the head of `stack`; bulk puts are in `bulk`, clearing in `clearing`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar, cast

import msgspec

from tierkit.entry import CacheEntry, Usage
from tierkit.errors import (
    CacheStorageError,
    CacheValidationError,
    TierFull,
    TierkitError,
    TierReadOnly,
    TierUnavailable,
)
from tierkit.expiry import TTLManager
from tierkit.level import ANY_VERSION, DOUBTFUL, NOT_ADMITTED, Level
from tierkit.row import Row, is_owed, key_digest
from tierkit.stack import LATE, OVERTAKEN, Stack

logger = logging.getLogger("tierkit.stack")

E = TypeVar("E", bound=CacheEntry)


class Write(NamedTuple, Generic[E]):
    """A record on its way to the tiers: the entry, and its row; None where no level stores rows."""

    entry: E
    row: Row | None


BATCH: Final = 1000
"""Records that go to a tier in one call."""
ATTEMPTS: Final = 64
"""How often a write is repeated; each time another writer came first, or a call was late."""


class Writer(Generic[E]):
    """The writing half of a stack."""

    def __init__(self, stack: Stack[E], ttl: TTLManager) -> None:
        """Write into `stack`, with deadlines by `ttl`."""
        self.stack = stack
        self.ttl = ttl

    # -- one record --------------------------------------------------------------------------------------------------

    def put(self, entry: E) -> E:
        """Stamp `entry` and write it to every level, the authority first."""
        stack = self.stack
        started = stack.time.monotonic()
        write = self.prepare(entry)
        if not stack.levels:
            return write.entry
        self.check_writable()
        expected = stack.filling.begin(entry.key)
        try:
            write = self.store(write, started)
            self.fill_live(write.entry, expected, started)
        except BaseException:
            self.doubt(entry.key)
            raise
        stack.settle()
        logger.debug("put %s: version %d", key_digest(entry.key), write.entry.version)
        return write.entry

    def delete(self, key: str) -> None:
        """Delete `key` at a new version in every level, the authority first."""
        version = self.stack.versions.next()
        for _ in range(ATTEMPTS):
            version, refused = self._delete(key, version)
            if refused is None:
                break
            version = self.stack.versions.above(refused)
        logger.debug("delete %s: version %d", key_digest(key), version)

    def _delete(self, key: str, version: int) -> tuple[int, int | None]:
        """Answers the version that was taken, and that of a newer write that a level holds and that came before."""
        stack = self.stack
        self.check_writable()
        stack.filling.begin(key)
        try:
            version, holder = self._delete_truth(key, version)
            refused = self._delete_above(key, version, holder)
            self.in_live(key, lambda level: self._delete_live(level, key, version))
        except BaseException:
            self.doubt(key)
            raise
        self.note_truth("deleted", key, holder)
        stack.ledger.pop(key)
        return version, refused

    def _delete_live(self, level: Level, key: str, version: int) -> None:
        refused = level.call(level.tier.delete, key, version)
        if refused is not None and level is not self._authority:
            self.drop_older(level, key, version)

    def _delete_truth(self, key: str, version: int) -> tuple[int, Level | None]:
        def attempt(place: Level | None, version: int) -> int | None:
            if place is self._authority:
                return self._authority.mark(self._authority.tier.delete, key, version)
            return self.stack.owing.delete(place, key, version)

        return self._in_truth(key, attempt, version, self.stack.time.monotonic())

    def _delete_above(self, key: str, version: int, holder: Level | None) -> int | None:
        owed = None
        for level in self._copies(holder):
            refused = self.guarded(level, key, version, level.tier.delete, key, version)
            if refused is not None and self.came_before(level, key, refused):
                owed = max(owed or 0, refused)
        return owed

    def prepare(self, entry: E) -> Write[E]:
        """`entry` stamped, and its row.

        Raises:
            CacheValidationError: It holds what no tier could.
        """
        stack = self.stack
        stamped = self.stamp(entry, Usage())
        self.refuse_expired(stamped)
        if stack.stored:
            return Write(stamped, stack.sealer.seal(stamped))
        stack.sealer.schema.encode(stamped)  # refuses what no tier could hold
        return Write(stamped, None)

    def refuse_expired(self, stamped: E) -> None:
        """Refuse what would be gone when it is there.

        Raises:
            CacheValidationError: Its deadline has passed.
        """
        if stamped._deadline <= self.stack.time.now():
            raise CacheValidationError(
                f"expires_at = {stamped.expires_at}: has passed; put entry.renewed() instead",
                reason="has expired already",
            )

    def stamp(self, entry: E, usage: Usage, above: int = 0) -> E:
        """`entry` with a version, its times and its deadline; what it leaves out is filled in.

        The version is above `above` too, which may be from a clock that is far ahead.
        """
        stack = self.stack
        version = stack.versions.above(above) if above else stack.versions.next()
        return self.ttl.stamp(entry, stack.time.now(), version=version, _usage=usage)

    def restamp(self, write: Write[E], version: int) -> Write[E]:
        """`write` at another version."""
        entry, row = write
        return Write(
            msgspec.structs.replace(entry, version=version),
            None if row is None else self.stack.sealer.restamp(row, version),
        )

    # -- stored levels -----------------------------------------------------------------------------------------------

    def authority(self, keys: Iterable[str] = ()) -> Level:
        """The authority, which has what it was owed for `keys`.

        Raises:
            TierUnavailable: It is out of service, or did not take that.
        """
        authority = self._authority
        keys = list(keys)
        with suppress(TierkitError):  # who cannot read a level cannot know of what others hold there
            self.stack.owing.adopt_from_above(keys)
        if not authority.in_service or not self.stack.owing.replay(keys):
            raise TierUnavailable(
                f"{authority.name} ({authority.kind}) is out of service, or cannot be written, and this needs it: it "
                "is tried again by itself; when its storage is well reset_failures() on the level does so at once"
            )
        return authority

    def check_writable(self) -> None:
        """See, before anything is done, that someone can take a write.

        Raises:
            TierUnavailable: Nobody can.
        """
        if not self._authority.in_service and not self.stack.owing.can_hold():
            self.authority()

    @property
    def _authority(self) -> Level:
        return self.stack.levels[-1]

    def store(self, write: Write[E], started: float) -> Write[E]:
        """Write to the stored levels, the authority first. Answers what was written, which may have a newer stamp."""
        if self._authority.live:
            self.authority()
            return write
        for _ in range(ATTEMPTS):
            write, holder = self._store_truth(write, started)
            self.note_truth("written", write.entry.key, holder, write.entry._deadline)
            refused = self.store_above(write, started, holder)
            if refused is None:
                break
            write = self.restamp(write, self.stack.versions.above(refused))
        return write

    def _store_truth(self, write: Write[E], started: float) -> tuple[Write[E], Level | None]:
        current = write

        def attempt(place: Level | None, version: int) -> int | None:
            nonlocal current
            if version != current.entry.version:
                current = self.restamp(current, version)
            row = cast("Row", current.row)
            if place is self._authority:
                return self._authority.write(self._authority.tier.put, row)
            return self.stack.owing.put(place, row)

        _, holder = self._in_truth(write.entry.key, attempt, write.entry.version, started)
        return current, holder

    def note_truth(self, what: str, key: str, holder: Level | None, until: float | None = None) -> None:
        """Note what was decided of a record in the authority, or in who holds it for that."""
        authority = self._authority
        if holder is authority:
            authority.note(what, key, until=until)
        else:
            authority.note("owed", key, f"{what}, and held by {holder.name if holder else 'this process'}", until)

    def _in_truth(
        self, key: str, attempt: Callable[[Level | None, int], int | None], version: int, started: float
    ) -> tuple[int, Level | None]:
        """Do `attempt` on the authority or, where that cannot be written now, on who holds writes for it.

        Returns:
            The version that was taken, and the level that has it; None if it is held in memory.
        """
        newest = version

        def noted(place: Level | None, version: int) -> int | None:
            nonlocal newest
            newest = version  # it may have been taken though it failed: what is tried next must not be older
            return attempt(place, version)

        def write(place: Level | None) -> None:
            taken = self._until_taken(partial(noted, place), newest, started)
            if place is self._authority:
                self.stack.owing.intents.settle(key, taken)

        holder = self.in_truth(write)
        return newest, holder

    def in_truth(self, write: Callable[[Level | None], object]) -> Level | None:
        """Do `write` on the authority or, where that cannot be written now, on who holds writes for it.

        Returns:
            The level that has it; None if it is held in memory.

        Raises:
            CacheStorageError: Nobody took it.
        """
        owing, authority = self.stack.owing, self._authority
        if owing.direct or not owing.can_hold():
            self.authority()
            try:
                write(authority)
            except CacheStorageError:
                if not owing.can_hold():
                    raise
            else:
                return authority
        holder = owing.holder()
        try:
            write(holder)
        except CacheStorageError:
            if owing.write_policy == "through" or not authority.takes_writes:
                raise
            write(authority)
            return authority
        return holder

    def _until_taken(self, attempt: Callable[[int], int | None], version: int, started: float) -> int:
        """Attempt with ever newer versions until none refuses; a late one is stamped again first."""
        stack = self.stack
        for _ in range(ATTEMPTS):
            if stack.late(started):
                started, version = stack.time.monotonic(), max(version, stack.versions.next())
            refused = attempt(version)
            if refused is None:
                return version
            version = stack.versions.above(refused)
        raise TierUnavailable(f"{stack.levels[-1].name} refused {ATTEMPTS} stamps; it knows version {refused}")

    def store_above(self, write: Write[E], started: float, holder: Level | None = None) -> int | None:
        """Write to the stored levels but `holder`, which has it; where that fails, is late or not admitted, drop older.

        Where a level has something newer, those above it only drop what they have.

        Returns:
            The version of a newer write that one of them holds, and that came before; else None.
        """
        entry, row = write
        refused, outdated = None, False
        for level in self._copies(holder):
            older = entry.version - (not outdated)
            against = OVERTAKEN if outdated else self._against(level, entry.key, started)
            if against:
                level.note("refused", entry.key, against)
                answer = self.guarded(level, entry.key, older, level.tier.delete, entry.key, older)
            else:
                answer = self.guarded(level, entry.key, older, level.tier.put, row)
            if answer is not None and self.came_before(level, entry.key, answer):
                refused = max(refused or 0, answer)
            outdated = outdated or answer is not None
        return refused

    def _against(self, level: Level, key: str, started: float) -> str:
        """Why a write is not copied into `level`, or nothing."""
        return LATE if self.stack.late(started) else level.against(key)

    def _copies(self, holder: Level | None) -> Iterator[Level]:
        return (level for level in reversed(self.stack.stored[:-1]) if level is not holder)

    def came_before(self, level: Level, key: str, newer: int) -> bool:
        """Whether a write that `level` refused at `newer` is to be made again, stamped above what the level holds.

        That is a write that the authority is owed. If it is another process's, whose clock may be ahead, it may have
        been there before. If this process has made it, it was stamped later: it comes after, and stays. Or it is any
        that was stamped by a clock so far ahead that it tells no order.
        """
        held = None if self.stack.owing.intents.made_since(key, newer) else self.stack.fetch(level, key)
        return held is not None and (is_owed(held) or self.is_of_no_order(held))

    def is_of_no_order(self, row: Row) -> bool:
        """Whether `row` was stamped by a clock too far ahead for its version to tell an order, and is sound."""
        if self.stack.versions.believes(row.version):
            return False
        with suppress(TierkitError):  # else it is found, counted and evicted when it is read
            self.stack.sealer.verify(row)
            return True
        return False

    def guarded(
        self, level: Level, key: str, version: int, operation: Callable[..., int | None], *args: Any
    ) -> int | None:
        """Do `operation` on a level above the authority; if it fails delete up to `version`, or take the level out.

        A deletion leaves a mark, which also keeps out an older promotion that is on its way.

        Returns:
            The version that refused, or None.
        """
        if not level.begin_write({key: version}):
            level.note("refused", key, "it is out of service")
            return None
        try:
            if operation == level.tier.delete:
                return level.mark(operation, *args)
            return _noted(level, key, level.write(operation, *args))
        except TierkitError as error:
            level.note("dropped", key, f"it could not be written: {error}")
            try:
                return level.mark(level.tier.delete, key, version)
            except TierkitError:
                level.miss(error, {key: version})
            return None
        finally:
            level.end_write()

    # -- live levels -------------------------------------------------------------------------------------------------

    def fill_live(self, entry: E, expected: int, started: float, done: Level | None = None) -> None:
        """End the write of `entry` in the live levels, but for `done`, which has it."""
        counters, stripe = self.stack.filling.counters, self.stack.filling.stripe(entry.key)

        def step(level: Level) -> None:
            if level is not done:
                self.fill_or_drop(level, entry, counters[stripe] != expected, started)

        self.in_live(entry.key, step)

    def fill_or_drop(self, level: Level, entry: E, raced: bool, started: float) -> None:
        """Fill a live level, or drop what is not newer if another write came between; the stripe's lock is held."""
        stack = self.stack
        if level is stack.authority:
            stack.fill(level, entry, started)  # it is the truth, and versions alone decide
            level.note("written", entry.key, until=entry._deadline)
        elif against := self._against_filling(level, entry.key, raced, started):
            level.note("refused", entry.key, against)
            self.drop_older(level, entry.key, entry.version)
        elif _noted(level, entry.key, None if stack.fill(level, entry, started) else entry.version) is not None:
            self.drop_older(level, entry.key, entry.version)

    def drop_older(self, level: Level, key: str, version: int) -> None:
        """Drop from a live level what is not newer than `version`, or is so by a clock that has been set back since."""
        held = level.call(level.tier.get, key)
        tells_order = held is None or self.stack.versions.believes(held.version)
        self.stack.drop(level, key, version if tells_order else ANY_VERSION)

    def _against_filling(self, level: Level, key: str, raced: bool, started: float) -> str:
        if raced:
            return OVERTAKEN
        if self.stack.late(started):
            return LATE
        return "" if level.admits(key) else NOT_ADMITTED

    def doubt(self, key: str) -> None:
        """After a write of unknown outcome: let no copy remain, so that the next read fetches the truth.

        A level that is full, and cannot drop a copy that is the truth all the same, stays in service: it may hold what
        the authority is owed, which nobody could read.
        """
        self._authority.note("failed", key, "no copy is left above")
        self.drop_live(key)
        for level in self._copies(None):
            if level.begin_write({key: DOUBTFUL}):
                try:
                    level.drop_copy(key)
                except (TierFull, TierReadOnly) as error:
                    if not self._is_current(level, key):
                        level.miss(error, {key: DOUBTFUL})
                except TierkitError as error:
                    level.miss(error, {key: DOUBTFUL})
                finally:
                    level.end_write()

    def _is_current(self, level: Level, key: str) -> bool:
        """Whether nothing below `level` is newer than its copy, nor may become so by a call that has not ended."""
        stored = self.stack.stored
        below = stored[stored.index(level) + 1 :]
        if not all(lower.in_service and not lower.limited for lower in below):
            return False
        try:
            held, *lower_down = [place.call(place.tier.get, key) for place in (level, *below)]
        except TierkitError:
            return False
        newest = max((row.version for row in lower_down if row is not None), default=0)
        return held is not None and lower_down[-1] is not None and held.version >= newest

    def drop_live(self, key: str) -> None:
        """Let no copy remain in the live levels."""
        if self.stack.stored:
            self.in_live(key, lambda level: self.stack.drop(level, key, ANY_VERSION))

    def in_live(self, key: str, step: Callable[[Level], Any]) -> None:
        """End a write: do `step` on every live level and bump the counter, as one step to readers."""
        filling = self.stack.filling
        stripe = filling.stripe(key)
        with filling.locks[stripe]:
            try:
                for level in reversed(self.stack.live):
                    self.guarded_step(level, key, step)
            finally:
                filling.bump(stripe, key)

    def guarded_step(self, level: Level, key: str, step: Callable[[Level], Any]) -> None:
        """As `live_step`; the stripe's lock is held, and yet a signal handler may write, in the midst of it."""
        counters, stripe = self.stack.filling.counters, self.stack.filling.stripe(key)
        counter = counters[stripe]
        self.live_step(level, key, step)
        if counters[stripe] != counter and level is not self.stack.authority:
            self.live_step(level, key, lambda level: self.stack.drop(level, key, ANY_VERSION))

    def live_step(self, level: Level, key: str, step: Callable[[Level], Any]) -> None:
        """Do `step` on a live level; if it fails drop its copy, or else take the level out."""
        if not level.begin_write({key: ANY_VERSION}):
            return
        try:
            step(level)
        except TierkitError as error:
            if level is self.stack.authority:
                raise
            try:
                self.stack.drop(level, key, ANY_VERSION)
            except TierkitError:
                level.miss(error, {key: ANY_VERSION})
        finally:
            level.end_write()


def _noted(level: Level, key: str, refused: int | None) -> int | None:
    """Note whether `level` took a copy. Answers the version that refused, as it is given."""
    if refused is None:
        level.note("admitted", key)
    else:
        level.note("refused", key, OVERTAKEN)
    return refused
