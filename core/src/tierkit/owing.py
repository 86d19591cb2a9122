"""Writes that the authority is owed.

While the authority cannot be written, or under write-behind and demote-only always, the next persistent level stands
in. It holds the record or the deletion in a row that says so itself (`OWED`), so that one put keeps both the write and
the intent, and a crash loses neither; no tier drops such a row, and no level evicts it. A stack that promises nothing
(`durability = "none"`) may hold them in memory instead.

An owed row is the truth about its key: a read that comes to it goes no further down, since what lies there is older.
Replay brings it to the authority, by version, and only then turns it into an ordinary copy. It may be done twice, by
two processes, or again after a crash. If the authority refuses, it has something newer and the copy is dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from math import inf
from typing import Final, NamedTuple

from tierkit.clock import CacheTime, VersionClock
from tierkit.errors import (
    CacheCorruptionError,
    KeyNotHeldError,
    SchemaMismatchError,
    TierFull,
    TierkitError,
    TierUnavailable,
)
from tierkit.intents import Intent, Intents
from tierkit.level import Level
from tierkit.row import OWED, OWED_PURGE_AT, Row, goes_back_to, is_owed, is_owed_deletion, key_digest
from tierkit.sealing import Sealer
from tierkit.tier import Trait

logger = logging.getLogger("tierkit.stack")

MOST_OWED: Final = 100_000
"""Writes that may wait, where no bound of the level that holds them says less."""
_BATCH: Final = 500
_RETRY_SECONDS: Final = 1.0
_ATTEMPTS: Final = 16


class Owed(NamedTuple):
    """What is owed for a key.

    Attributes:
        holder: Who holds it; None if this process holds it in memory.
        row: What the authority is to get. None if nothing may be returned: it is a deletion, or cannot be read now.
    """

    holder: Level | None
    row: Row | None


class Owing:
    """What the authority of one stack is owed, and how it gets it.

    Attributes:
        intents: The writes that this process knows to be owed.
        write_policy: Of the authority.
    """

    def __init__(
        self,
        stored: Sequence[Level],
        sealer: Sealer,
        time: CacheTime,
        versions: VersionClock,
        *,
        volatile: bool = False,
        late_seconds: float = 10.0,
        flush_interval_seconds: float = 1.0,
        on_first: Callable[[], object] = lambda: None,
        on_came_after: Callable[[str], object] = lambda _: None,
        on_paid: Callable[[], object] = lambda: None,
    ) -> None:
        """Owe nothing yet to the last of `stored`; hold writes in memory only if `volatile`.

        `on_first` is called when something is owed and nothing was before; `on_came_after` with the key of a write that
        was stamped anew, above what the authority has and this process may have read; `on_paid` when the authority got
        something.
        """
        self.intents = Intents(on_first)
        self._on_came_after = on_came_after
        self._on_paid = on_paid
        self.write_policy = stored[-1].write_policy if stored else "through"
        self._above = tuple(reversed(stored[:-1]))
        self._authority = stored[-1] if stored else None
        self._sealer = sealer
        self._time = time
        self._versions = versions
        self._volatile = volatile
        self._late_seconds = late_seconds
        self._flush_interval_seconds = flush_interval_seconds
        self._replay_at = 0.0

    # -- who is written ----------------------------------------------------------------------------------------------

    @property
    def direct(self) -> bool:
        """Whether a write goes to the authority itself, or should try to."""
        authority = self._authority
        return authority is not None and self.write_policy == "through" and authority.takes_writes

    def can_hold(self) -> bool:
        """Whether anyone can hold a write for the authority now."""
        return self._authority is not None and (self._volatile or self._stand_in() is not None)

    def holder(self) -> Level | None:
        """The level that holds writes for the authority; None for this process's memory.

        Raises:
            TierUnavailable: Nobody can.
        """
        level = self._stand_in()
        if level is None and not self._volatile:
            authority = self._authority
            name = f"{authority.name} ({authority.kind})" if authority else "the authority"
            raise TierUnavailable(
                f"{name} cannot be written, and no persistent level above it can hold the write: it is tried again by "
                "itself; when the storage is well reset_failures() on the level brings it back at once"
            )
        return level

    def holders(self) -> list[str]:
        """By whom writes are held now: the names of levels, and the memory of this process."""
        found = [intent.level for _, intent in self.intents.items()]
        return sorted({"memory" if level is None else level.name for level in found})

    def _stand_in(self) -> Level | None:
        for level in self._above:
            safe = self._volatile or level.tier.traits & Trait.CRASH_SAFE
            if level.persistent and safe and level.takes_writes:
                return level
        return None

    # -- holding -----------------------------------------------------------------------------------------------------

    def put(self, holder: Level | None, row: Row) -> int | None:
        """Let `holder` hold `row` for the authority. Answers the version that refused, or None.

        Raises:
            CacheStorageError: It could not, or too many writes wait already.
        """
        return self.put_many(holder, [row])[0]

    def delete(self, holder: Level | None, key: str, version: int) -> int | None:
        """As `put`, for a deletion at `version`."""
        tombstone = Row(key=key, version=version, purge_at=inf, check="", columns={OWED: "delete"})
        return self._hold(holder, [tombstone])[0]

    def put_many(self, holder: Level | None, rows: Sequence[Row]) -> list[int | None]:
        """As `put`, for each of `rows`."""
        # As the authority has just failed, all find room or none; else it takes them as it goes.
        most = len(rows) if self.write_policy == "through" else self._most(holder)
        answers: list[int | None] = []
        for start in range(0, len(rows), max(1, most)):
            answers += self._hold(holder, [self._owed(row) for row in rows[start : start + most]])
        return answers

    def _most(self, holder: Level | None) -> int:
        """How many writes may wait."""
        return MOST_OWED if holder is None or holder.max_entries is None else max(1, 2 * holder.max_entries)

    def _owed(self, row: Row) -> Row:
        columns = {**row.columns, OWED: "put", OWED_PURGE_AT: row.purge_at}
        return Row(
            key=row.key,
            version=row.version,
            purge_at=inf,
            check="",
            columns=columns,
            access_count=row.access_count,
            last_accessed=row.last_accessed,
        )

    def _hold(self, holder: Level | None, rows: Sequence[Row]) -> list[int | None]:
        self._make_room(holder, rows)
        sealed = [self._sealer.remade(row) for row in rows]
        if holder is None:
            return [self._note(None, row, own=True) for row in sealed]
        for row in sealed:  # first: who finds the row must know of the intent
            self._note(holder, row, landed=False, own=True)
        try:
            answers: list[int | None] = holder.write(holder.tier.put_many, sealed)
        finally:  # it may have landed though it failed
            for row in sealed:
                self.intents.land(row.key, row.version)
        for row, refused in zip(sealed, answers, strict=True):
            if refused is None:  # now it takes the place of what was held in memory, too
                self._note(holder, row, own=True)
        return answers

    def _note(self, holder: Level | None, row: Row, *, landed: bool = True, own: bool = False) -> int | None:
        kept = None if holder is not None or is_owed_deletion(row) else self.paid(row)
        purge_at = float(row.columns.get(OWED_PURGE_AT, inf))
        return self.intents.note(row.key, Intent(row.version, holder, kept, purge_at, landed, own))

    def _make_room(self, holder: Level | None, rows: Sequence[Row]) -> None:
        limit = self._most(holder)
        count = sum([row.key not in self.intents for row in rows])

        def fits() -> bool:
            return not count or len(self.intents) + count <= limit

        if not fits() and not (self.replay_all() and fits()):
            name = "memory" if holder is None else holder.name
            raise TierFull(
                f"{name} holds {len(self.intents)} writes for the authority, which cannot be written; at most {limit} "
                "may wait: make the authority writable, and they go to it by themselves"
            )

    def adopt(self, level: Level, row: Row) -> None:
        """Another process, or one that is gone, left `row` in `level`: see to it that the authority gets it."""
        if self._is_news(row):
            self._note(level, row)

    def adopts(self, level: Level, row: Row) -> bool:
        """Whether `row`, which `level` holds, is owed to the authority, or damaged where it says so: it is no copy.

        If it is sound the authority gets it.
        """
        if not is_owed(row):
            return False
        if self._is_news(row) and self._is_sound(row):
            self._note(level, row)
        return True

    def _is_news(self, row: Row) -> bool:
        held = self.intents.get(row.key)
        return held is None or held.version < row.version or (held.version == row.version and not held.landed)

    def pay(self, level: Level, row: Row) -> bool:
        """Bring the authority `row`, which `level` holds for it. Answers whether it has it now."""
        if self._sealer.is_foreign(row):
            return False
        self.adopt(level, row)
        if self._authority is None or not self._authority.takes_writes:
            return False  # else it would be asked for each of many, in vain
        intent = self.intents.get(row.key)
        return intent is None or (intent.landed and self.replay([row.key]))

    def adopt_from_above(self, keys: Sequence[str]) -> None:
        """Adopt what other processes hold for the authority of `keys`, where they share a level above it.

        Raises:
            CacheStorageError: A level could not be read.
        """
        self._adopt_in([level for level in self._above if level.tier.traits & Trait.SHARED], keys)

    def adopt_all(self) -> None:
        """Adopt all that is owed, by whoever wrote it. Reads the persistent levels above the authority whole."""
        for level in reversed(self._above):
            if level.persistent and level.in_service:
                try:
                    self._adopt_all(level)
                except TierkitError as error:
                    logger.warning("%s could not be read: %s", level.name, str(error))

    def adopt_shared(self, key: str | None = None) -> None:
        """Adopt what other processes hold for the authority, of `key` or all, where it may wait: under demote-only.

        To be called before it is asked. Reads the levels that are shared whole; one that fails is passed over.
        """
        for level in self._above if self.write_policy == "demote" else ():
            if level.tier.traits & Trait.SHARED and level.in_service:
                with suppress(TierkitError):  # then they are found when they are read
                    if key is None:
                        self._adopt_all(level)
                    else:
                        self._adopt_in([level], [key])

    def _adopt_all(self, level: Level) -> None:
        for row in level.scan():
            self.adopts(level, row)

    def _adopt_in(self, levels: Sequence[Level], keys: Sequence[str]) -> None:
        for level in levels if keys else ():
            if level.in_service:
                for row in level.call(level.tier.get_many, keys).values():
                    self.adopts(level, row)

    def _is_sound(self, row: Row) -> bool:
        try:
            self._sealer.verify(row)
        except TierkitError:
            return False  # found, counted and evicted when it is read
        return True

    # -- reading -----------------------------------------------------------------------------------------------------

    def paid(self, row: Row) -> Row:
        """The row that the authority is to get for an owed one, which was verified or made here."""
        columns = {name: value for name, value in row.columns.items() if name not in (OWED, OWED_PURGE_AT)}
        return self._sealer.remade(row, purge_at=float(row.columns[OWED_PURGE_AT]), columns=columns)

    def look(self, key: str) -> Owed | None:
        """What is owed for `key`, asked just before the authority is read.

        Returns:
            What is owed; then what lies below must not be returned. None if nothing is.
        """
        intent = self.intents.get(key)
        if intent is None:
            return None
        level = intent.level
        if level is None:
            return Owed(None, intent.row)
        if not level.in_service:
            return Owed(level, None)
        try:
            row: Row | None = level.call(level.tier.get, key)
            if row is None or not is_owed(row):
                if intent.landed:  # then another process has replayed it
                    self.intents.settle(key, intent.version)
                return None
            self._sealer.verify(row)
        except TierkitError:
            return Owed(level, None)
        return self.owed(level, row)

    def owed(self, level: Level, row: Row) -> Owed:
        """What `row` says, which `level` holds for the authority, and which was verified."""
        return Owed(level, None if is_owed_deletion(row) else self.paid(row))

    # -- replay ------------------------------------------------------------------------------------------------------

    @property
    def due_in(self) -> float:
        """Seconds until `replay_all` should be called; infinite if it need not be."""
        if not self.intents or self._authority is None or self.write_policy == "demote":
            return inf
        if not self._authority.takes_writes:
            return self._authority.due_in
        return self._replay_at - self._time.monotonic()

    def replay_due(self) -> None:
        """Replay if that is due."""
        authority = self._authority
        if authority is not None and self.due_in <= 0 and authority.takes_writes:
            waits = self.replay_all() and self.write_policy == "behind"
            self._replay_at = self._time.monotonic() + (self._flush_interval_seconds if waits else _RETRY_SECONDS)

    def replay_expired(self, now: float) -> None:
        """Let the authority know of owed records that expired: what it holds of them is older."""
        self.replay([key for key, intent in self.intents.items() if intent.purge_at <= now])

    def replay_all(self, *, probing: bool = False) -> bool:
        """Replay every intent. Answers whether none is left of those that there were."""
        return self.replay(list(self.intents), probing=probing)

    def replay(self, keys: Iterable[str], *, probing: bool = False) -> bool:
        """Bring what is owed for `keys` to the authority. Blocks on I/O.

        Args:
            keys: Those of which nothing is owed are passed over.
            probing: The authority is out of service and about to come back.

        Returns:
            Whether nothing is owed for them any more.
        """
        authority = self._authority
        owed = iter([(key, intent) for key in keys if (intent := self.intents.get(key)) is not None and intent.landed])
        again: list[str] | None = []
        paid = False
        while again is not None and (batch := list(islice(owed, _BATCH))):
            left = self._replay(authority, batch) if authority and (authority.in_service or probing) else None
            paid = paid or left is not None
            again = None if left is None else again + left
        if paid:
            self._on_paid()
        return again is not None and (not again or self.replay(again, probing=probing))

    def _found(self, batch: Sequence[tuple[str, Intent]]) -> list[tuple[str, Intent, Row | None]]:
        """What is held for each intent, just read: later, a newer write may have come and been forgotten again."""
        for _ in range(_ATTEMPTS):
            started = self._time.monotonic()
            found = [(key, intent, self._row_of(key, intent)) for key, intent in batch]
            if not self._late(started):
                return found
        raise TierUnavailable(f"what is owed could not be read {_ATTEMPTS} times within {self._late_seconds} seconds")

    def _replay(self, authority: Level, batch: Sequence[tuple[str, Intent]]) -> list[str] | None:
        """Bring a batch to the authority. Answers which keys have to be replayed again; None if it failed."""
        started = self._time.monotonic()
        try:
            found = self._found(batch)
            puts = [(intent, row) for _, intent, row in found if row is not None and self._is_put(row)]
            deletions = {key: row.version for key, _, row in found if row is not None and not self._is_put(row)}
            paid = [row if intent.level is None else self.paid(row) for intent, row in puts]
            refusals = authority.write(authority.tier.put_many, paid) if paid else []
            refused = authority.mark(authority.tier.delete_many, deletions) if deletions else {}
            taken = {row.key: row for row, newer in zip(paid, refusals, strict=True) if newer is None}
            refused |= {row.key: newer for row, newer in zip(paid, refusals, strict=True) if newer is not None}
            missing = refused.keys()
            again = self._let_come_after(authority, [owed for owed in found if owed[0] in missing], refused)
        except TierkitError as error:
            logger.debug("what %s is owed could not be replayed: %s", authority.name, str(error))
            return None
        self._drop_older([owed for owed in found if owed[0] not in again])
        for key, intent, row in found:
            if key in again:
                continue
            if row is not None and intent.level is not None:
                self._replace(intent.level, row, taken.get(key), started)
            self.intents.settle(key, intent.version if row is None else row.version)
        settled = {key for key, _, row in found if row is not None} - set(again)
        deleted = {key for key, _, row in found if row is not None and is_owed_deletion(row)}
        authority.decisions.note_many(authority.name, "replayed", settled - missing - deleted)
        authority.decisions.note_many(authority.name, "replayed", (settled & deleted) - missing, "a deletion")
        authority.decisions.note_many(
            authority.name, "refused", settled & missing, "it has something newer than was owed"
        )
        logger.debug("%s got %d writes that it was owed", authority.name, len(found) - len(again))
        return again + self._still_held([key for key, _, row in found if row is None])

    def _still_held(self, keys: Sequence[str]) -> list[str]:
        """Adopt what is held for `keys`, the newest write of each of which was not found. Answers the keys of these.

        Another process has replayed it; or it never came to its level, and an older one waits in another.
        """
        with suppress(TierkitError):  # then it is found when it is read, or at the next opening
            self._adopt_in(self._above, keys)
        return [key for key in keys if key in self.intents]

    def _drop_older(self, found: Sequence[tuple[str, Intent, Row | None]]) -> None:
        """Leave nothing older in the other levels: whoever wrote what was owed may not have reached them."""
        for level in self._above:
            older = {
                key: row.version - self._is_put(row)
                for key, intent, row in found
                if row is not None and intent.level is not level
            }
            if older and level.begin_write(older):
                try:
                    level.mark(level.tier.delete_many, older)
                except TierkitError as error:
                    level.miss(error, older)
                finally:
                    level.end_write()

    def _late(self, started: float) -> bool:
        return self._time.monotonic() - started > self._late_seconds

    def _let_come_after(
        self, authority: Level, refused: Sequence[tuple[str, Intent, Row | None]], versions: Mapping[str, int]
    ) -> list[str]:
        """Stamp anew what was refused by a record that was compared and set without it. Answers the keys of these.

        And what was refused by a stamp of a clock so far ahead that it tells no order: else it would be lost.
        """
        again = []
        held = authority.call(authority.tier.get_many, [key for key, *_ in refused]) if refused else {}
        for key, intent, row in refused:
            there, newer = held.get(key), versions[key]
            compared = there is not None and row is not None and goes_back_to(there) < row.version < there.version
            if row is not None and (compared or not self._versions.believes(newer)):
                self._restamp(intent, row, self._versions.above(max(newer, there.version if there else 0)))
                self._on_came_after(key)
                again.append(key)
        return again

    def _restamp(self, intent: Intent, owed: Row, version: int) -> None:
        row, level = self._sealer.restamp(owed, version), intent.level
        if level is None:
            again = intent._replace(version=version, row=None if intent.row is None else row, own=False)
            self.intents.replace(row.key, intent, again)  # unless it was written anew
        elif level.write(level.tier.replace, row, owed.version):  # else another has paid it, or written anew
            self._note(level, row)

    def _is_put(self, row: Row) -> bool:
        """Whether the authority gets a record; of one that has expired it only hears that nothing older counts."""
        return not is_owed_deletion(row) and float(row.columns.get(OWED_PURGE_AT, row.purge_at)) > self._time.now()

    def _row_of(self, key: str, intent: Intent) -> Row | None:
        """What is held for an intent; None if it is not there any more, since another process has replayed it.

        Nor is it if that has put something there which cannot be read here: it stays, for those who can.

        Raises:
            CacheStorageError: Its level could not be read.
        """
        level = intent.level
        if level is None:
            return intent.row or self._sealer.remade(
                Row(key=key, version=intent.version, purge_at=inf, check="", columns={OWED: "delete"})
            )
        try:
            row: Row | None = level.call(level.tier.get, key)
            if row is None or not is_owed(row):
                return None
            self._sealer.verify(row)
        except CacheCorruptionError as error:
            logger.warning(
                "%s: a write of %s that was owed is damaged and lost: %s", level.name, key_digest(key), error
            )
            level.note("dropped", key, f"what the lowest level was owed was damaged, and is lost: {error}")
            return None
        except (KeyNotHeldError, SchemaMismatchError) as error:
            logger.debug("%s: what is owed of %s is left to others: %s", level.name, key_digest(key), str(error))
            return None
        return row

    def _replace(self, level: Level, owed: Row, paid: Row | None, started: float) -> None:
        """Put an ordinary copy in the place of an owed row; none if that is late, or the authority has a newer one."""
        try:
            if level.call(level.tier.discard, owed) and paid is not None and not self._late(started):
                level.write(level.tier.put, paid)
        except TierkitError as error:
            logger.debug("%s could not be told that a write is not owed any more: %s", level.name, str(error))
