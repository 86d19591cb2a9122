"""The tier: what the contract asks for, as work to run on a connection."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count, islice
from operator import attrgetter
from typing import ClassVar, Final

from msgspec.structs import replace

from tierkit import (
    CacheTier,
    Delta,
    Held,
    KeyOrder,
    Query,
    Row,
    TierContext,
    TierCorrupt,
    TierReadOnly,
    Trait,
    key_digest,
)
from tierkit_sqlite import files, library, queries, schema, work
from tierkit_sqlite.connections import Connections
from tierkit_sqlite.opening import Settings
from tierkit_sqlite.statements import MANY, PAGE

CHUNK: Final = 50_000
"""Records that a bulk put writes in one transaction, sorted by key."""
AT_ONCE: Final = 1000
"""The most records that one statement of a query reads."""
_STEPS_PER_CHECKPOINT: Final = 8
"""Of a purge: so few that its statements seldom fill the log to where SQLite checkpoints within one; but after each
checkpoint a statement begins the log anew, and waits for the disk."""


class SQLiteCacheTier(CacheTier[Row]):
    """Rows in a table of a SQLite database, shared by threads and processes.

    Every write is one transaction; an acknowledged one survives what `context.durability` says. Writers wait for one
    another for up to `busy_timeout_seconds`, readers for nobody. Each thread has a connection of its own, opened when
    it first calls; `close` closes them all.
    """

    traits: ClassVar[Trait] = Trait.PERSISTENT | Trait.CRASH_SAFE | Trait.SHARED | Trait.QUERYABLE

    def __init__(
        self,
        context: TierContext,
        path: str | os.PathLike[str],
        *,
        busy_timeout_seconds: float = 5.0,
        cache_size_mb: float = 8.0,
        indexes: Sequence[str] = (),
    ) -> None:
        """Open the database at `path`; make it if it is not there.

        Args:
            context: What the engine tells a tier.
            path: The database file. Its folder is made with mode 0700, the file with 0600.
            busy_timeout_seconds: How long to wait for another writer before `TierTimeout`.
            cache_size_mb: The most memory that one connection uses for pages, in MiB.
            indexes: Columns that get an index, or several in one, with commas between. Others are dropped, if they were
                made for this setting.

        Raises:
            CacheConfigError: There is no such eviction policy, no table can have the name of the namespace, or an index
                is asked for that there cannot be.
            TierUnavailable: The file is another program's or a newer format's, a link, or in a folder that others
                can write.
            TierReadOnly: It is not there and cannot be made.
        """
        super().__init__(context)
        schema.check_namespace(context.namespace)
        if context.eviction_policy not in schema.ORDERS:
            context.new_policy()  # refuses one that is not there, before anything is made
        wanted = schema.check_indexes(context, indexes)
        self.path = os.path.abspath(path)
        settings = Settings(
            context=context,
            path=self.path,
            busy_timeout_seconds=busy_timeout_seconds,
            cache_size_mb=cache_size_mb,
            gated=library.has_wal_fault(),
            indexes=wanted,
        )
        self._connections = Connections(
            self.path,
            f"{context.name} ({self.path})",
            settings.open,
            settings.rebuild,
            settings.make_lock_file if settings.gated and not context.read_only else None,
        )
        self._order: KeyOrder | None = None
        self._surveyed = work.FIRST_ROWID
        self._connections.read(work.nothing)
        if context.eviction_policy not in schema.ORDERS and context.max_entries is not None:
            self._order = KeyOrder(context.new_policy, context.max_entries)
            self._order.watch(self)

    def get(self, key: str) -> Row | None:
        """The row held for `key`, or None. One indexed read."""
        try:
            return self._connections.read(work.get, key)
        except work.DamagedRow:
            return self._without_damage(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, Row]:
        """What is held of `keys`, by key: one indexed read for 100 of them."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, Row] = {}
        for start in range(0, len(wanted), MANY):
            some = wanted[start : start + MANY]
            try:
                found |= self._connections.read(work.get_many, some)
            except work.DamagedRow:  # one by one, so that what is damaged is removed
                found |= super().get_many(some)
        return found

    def put(self, record: Row) -> int | None:
        """Hold `record` if nothing newer is known. One statement, unless it is refused."""
        self._must_be_writable()
        if self._connections.write_one(work.put_at_once, record):
            return None
        return self._connections.write(work.weigh, record)

    def put_many(self, records: Sequence[Row]) -> list[int | None]:
        """Put each record in order, in transactions of up to 50,000."""
        self._must_be_writable()
        answers: list[int | None] = []
        for start in range(0, len(records), CHUNK):
            answers += self._put_chunk(records[start : start + CHUNK])
        return answers

    def delete(self, key: str, version: int) -> int | None:
        """Hold nothing for `key` up to `version`, and set the mark."""
        self._must_be_writable()
        return self._connections.write(work.delete, key, version, self.context.now())

    def delete_many(self, versions: Mapping[str, int]) -> dict[str, int]:
        """Delete each key at its version, in one transaction. Answers what refused, by key."""
        self._must_be_writable()
        return self._connections.write(work.delete_many, versions, self.context.now()) if versions else {}

    def replace(self, record: Row, expected_version: int) -> bool:
        """Compare and set, in one transaction."""
        self._must_be_writable()
        return self._connections.write(work.replace, record, expected_version)

    def replace_many(self, replacements: Sequence[tuple[Row, int]]) -> list[bool]:
        """Compare and set each in order, in transactions of up to 50,000."""
        self._must_be_writable()
        answers: list[bool] = []
        for start in range(0, len(replacements), CHUNK):
            answers += self._replace_chunk(replacements[start : start + CHUNK])
        return answers

    def discard(self, record: Row) -> bool:
        """Remove the row if it still has this version; the same version may come back."""
        self._must_be_writable()
        return self._connections.write(work.discard, record.key, record.version, self.context.now())

    def touch_many(self, deltas: Mapping[str, Delta]) -> None:
        """Add usage to the rows held, in one transaction."""
        self._must_be_writable()
        if deltas:
            self._connections.write(work.touch_many, deltas)

    def scan(self) -> Iterator[Row]:
        """Every row held, read in pages: no transaction is open between two steps."""
        after, last = self._connections.read(work.bounds)
        while after < last:
            rows, after = self._connections.read(work.page, after, last)
            yield from rows

    def query(self, query: Query) -> Iterator[Row]:
        """The rows that `query` asks for, found by SQLite, by an index where there is one.

        Up to 1000 in one statement; more in pages, of which eight bytes for each match are kept beforehand. Where the
        order or all conditions are of columns that the table does not have, the table is gone over.
        """
        columns = self.context.columns
        if query.limit is not None and query.limit <= AT_ONCE:
            rows = self._connections.read(queries.first, columns, query)
            if rows is not None:
                yield from rows
                return
        places = self._connections.read(queries.places, columns, query)
        yield from super().query(query) if places is None else islice(self._at(places, query), query.limit)

    def _at(self, places: Sequence[int], query: Query) -> Iterator[Row]:
        for start in range(0, len(places), PAGE):
            rows = self._connections.read(queries.rows_at, places[start : start + PAGE])
            yield from filter(query.matches, rows)

    def count(self, query: Query) -> int:
        """How many rows match `query`, counted by SQLite where it can say what is meant."""
        found = self._connections.read(queries.count, self.context.columns, query)
        return sum(1 for _ in self.query(replace(query, order_by=None, limit=None))) if found is None else found

    def keys(self) -> Iterator[str]:
        """The key of every row held; else like `scan`."""
        after, last = self._connections.read(work.bounds)
        while after < last:
            keys, after = self._connections.read(work.key_page, after, last)
            yield from keys

    def size(self) -> int:
        """How many rows are held."""
        return self._connections.read(work.count)

    def overflow(self) -> list[Row]:
        """The rows to evict so that `max_entries` holds, coldest first. Removes none.

        Under `lru` and `fifo` by index, for all processes; else in the order that this one keeps in memory: see
        `tierkit.KeyOrder`.
        """
        limit, policy = self.context.max_entries, self.context.eviction_policy
        if limit is None:
            return []
        if self._order is None:
            return self._connections.read(work.overflow, limit, policy)
        total = self.size()
        excess = max(0, total - limit)
        return self._order.victims(excess, total, self._found, self._newer, self._whole) if excess else []

    def purge_in_steps(self, now: float) -> Iterator[int]:
        """Discard what is due and forget old marks, by index, 32 rows at a time and each time by short statements.

        Between statements no lock is held, and the log goes into the database: not within a writing statement.
        """
        self._must_be_writable()
        before = now - self.context.tombstone_seconds
        while self._connections.read(work.is_forgettable, before):
            self._connections.write_one(work.forget_some, before)
            yield 0
        for step in count():
            due = self._connections.read(work.due, now)
            if not due:
                break
            if step % _STEPS_PER_CHECKPOINT == 0:
                self._connections.checkpoint()
            self._connections.write_one(work.mark_due, due, now, self.context.now())
            removed = self._connections.write_one(work.remove_due, due, now)
            yield removed
            if not removed:  # another process was faster
                break

    def clear(self) -> None:
        """Delete every row at its own version, in small transactions."""
        self._must_be_writable()
        _, last = self._connections.read(work.bounds)
        while self._connections.write(work.clear_batch, last, self.context.now()):
            pass

    def highest_version(self) -> int:
        """The highest version held by a row or known by a mark, or 0; by index."""
        return self._connections.read(work.highest_version)

    def compact(self) -> None:
        """Write the database anew, and empty its log: no page with what was replaced or removed is left.

        For as long as that takes writers wait, and give up after `busy_timeout_seconds`; readers go on. The copy is
        made in a temporary file of SQLite's, which has no name.

        Raises:
            TierTimeout: Another writer or reader was in the way all the time. Nothing is lost; try again.
        """
        self._must_be_writable()
        self._connections.compact()

    def bytes_on_disk(self) -> int:
        """The size of the database and its log."""
        return files.size(self.path) + files.size(self.path + "-wal")

    def close(self) -> None:
        """Close the connections of all threads, each when its call has ended."""
        self._connections.close()

    def _must_be_writable(self) -> None:
        if self.context.read_only:
            raise TierReadOnly(f"{self.context.name} ({self.path}): opened for reading only")

    def _found(self, key: str) -> Row | None:
        try:
            return self._connections.read(work.get, key)
        except work.DamagedRow:
            with suppress(TierCorrupt):
                return self._without_damage(key)
        return None

    def _newer(self) -> Iterator[Held]:
        """The rows that came since the last survey: a table gives new rows higher numbers."""
        return self._survey(self._surveyed)

    def _whole(self) -> Iterator[Held]:
        return self._survey(work.FIRST_ROWID)

    def _survey(self, after: int) -> Iterator[Held]:
        _, last = self._connections.read(work.bounds)
        self._surveyed = last
        while after < last:
            held, after = self._connections.read(work.usage_page, after, last)
            yield from held

    def _without_damage(self, key: str) -> Row | None:
        """Remove a damaged row, unless a sound one has taken its place.

        Raises:
            TierCorrupt: It was damaged, and is removed.
        """
        removed = self.context.read_only
        row = None if removed else self._connections.write(work.sound, key)
        if row is None:
            raise TierCorrupt(f"{self.context.name}: the row of {key_digest(key)} cannot be decoded")
        return row

    def _put_chunk(self, records: Sequence[Row]) -> list[int | None]:
        try:
            self._connections.write(work.put_all, sorted(records, key=attrgetter("key")))
        except work.SomeRefused:
            return self._connections.write(work.put_each, records)
        return [None] * len(records)

    def _replace_chunk(self, replacements: Sequence[tuple[Row, int]]) -> list[bool]:
        try:
            self._connections.write(work.replace_all, sorted(replacements, key=lambda item: item[0].key))
        except work.SomeRefused:
            return self._connections.write(work.replace_each, replacements)
        return [True] * len(replacements)
