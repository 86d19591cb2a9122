"""Putting records at versions of their own, as they stand in a file.

The authority takes them in bulk, by version: a newer one that is held stays. Where it holds nothing and yet refuses, a
deletion came after; whoever imports wants the record all the same, so it is put at a new version. Levels above only
drop what is older, and are filled by reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from tierkit.bulk import Bulk
from tierkit.entry import CacheEntry
from tierkit.errors import TierUnavailable
from tierkit.level import ANY_VERSION, Level
from tierkit.row import Row
from tierkit.writing import ATTEMPTS, Writer

E = TypeVar("E", bound=CacheEntry)


class Placing(Bulk[E]):
    """Records on their way into a stack, at their own versions."""

    def __init__(self, writer: Writer[E], *, replace: bool) -> None:
        """Write as `writer` does; with `replace` a newer record that is held does not stay."""
        super().__init__(writer, None)
        self._replace = replace

    def place(self, records: Sequence[Any]) -> set[str]:
        """Put `records`, which are rows, or entries where no level stores rows. Answers the keys of what was kept.

        Raises:
            CacheStorageError: The authority is out of service, or failed. Each record may or may not be there.
        """
        if not self.stack.levels or not records:
            return set()
        keys = [record.key for record in records]
        for record in records:
            self.stack.versions.observe(record.version)
        self.note_counters()
        self.stack.filling.begin_many(keys, self.expected)
        try:
            kept = self._place(self.writer.authority(keys), records)
        except BaseException:
            for key in keys:
                self.writer.doubt(key)
            raise
        self.stack.settle()
        return kept

    def _place(self, authority: Level, records: Sequence[Any]) -> set[str]:
        pending, taken, kept = list(records), list[Any](), set[str]()
        for _ in range(ATTEMPTS):
            refused = self._put(authority, pending)
            taken += [record for record in pending if record.key not in refused]
            stays = set() if self._replace else self._held(authority, list(refused))
            kept |= stays
            pending = [
                self._again(record, refused[record.key])
                for record in pending
                if record.key in refused and record.key not in stays
            ]
            if not pending:
                self._spread(authority, taken)
                return kept
        raise TierUnavailable(f"{authority.name}: {ATTEMPTS} other writers of one record came first: try again")

    def _put(self, authority: Level, records: Sequence[Any]) -> dict[str, int]:
        """Put them into the authority. Answers what refused, by key."""
        answers = authority.write(authority.tier.put_many, records)
        if len(answers) != len(records):
            raise TierUnavailable(f"{authority.name}: put_many answered {len(answers)} for {len(records)} records")
        intents = self.stack.owing.intents
        for record, refused in zip(records, answers, strict=True) if intents else ():
            if refused is None:
                intents.settle(record.key, record.version)
        return {record.key: refused for record, refused in zip(records, answers, strict=True) if refused is not None}

    def _held(self, authority: Level, keys: list[str]) -> set[str]:
        """Those of `keys` of which the authority holds something that may still be kept."""
        now = self.stack.time.now()
        held = authority.call(authority.tier.get_many, keys) if keys else {}
        return {key for key, record in held.items() if record.purge_at > now}

    def _again(self, record: Any, refused: int) -> Any:
        version = self.stack.versions.above(refused)
        if isinstance(record, Row):
            return self.stack.sealer.restamp(record, version)
        return msgspec.structs.replace(record, version=version)

    def _spread(self, authority: Level, records: Sequence[Any]) -> None:
        """Let no level above keep an older copy, nor be filled with one that is on its way."""
        for level in reversed(self.stack.stored[:-1]) if records else ():
            self.copies.keep_out(level, records)
        for record in records:
            self.writer.in_live(record.key, partial(self._drop_in, authority, record.key))

    def _drop_in(self, authority: Level, key: str, level: Level) -> None:
        if level is not authority:
            self.stack.drop(level, key, ANY_VERSION)
