"""Explaining: what every level has for a key, what `get` would answer, and why, without changing anything.

No use is counted, nothing is promoted, and what is damaged or has expired stays where it is. (Only a tier that cannot
decode what it holds may set it aside, as it does when anybody asks for it.)
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from math import inf, isfinite
from typing import Any, Final

from tierkit.clock import written_at
from tierkit.config import CLOCK_DIFFERENCE_SECONDS
from tierkit.decision_log import DecisionLog
from tierkit.decisions import LONGEST_REASON, Note, last_of_each
from tierkit.entry import CacheEntry
from tierkit.errors import CacheCorruptionError, KeyNotHeldError, SchemaMismatchError, TierkitError
from tierkit.explanation import Decision, Explanation, LevelState, State
from tierkit.leases import Lease, LeaseStore
from tierkit.level import Level
from tierkit.row import Row, is_owed, is_owed_deletion, pack_row
from tierkit.stack import Stack

DECISIONS_SHOWN: Final = 20


def explain(stack: Stack[Any], key: str) -> Explanation:
    """Explain `key`. Blocks on I/O."""
    found = [_Seen(stack, level, key) for level in stack.levels]
    newest = max((seen.version for seen in found if seen.version is not None), default=None)
    answer, why = _answer(stack, found, key)
    lease = _lease(stack, key)
    intent = stack.owing.intents.get(key)
    waits_in = None if intent is None else (intent.level.name if intent.level else "memory")
    return Explanation(
        key=key,
        answer=answer,
        why=why,
        levels=tuple(seen.state(newest) for seen in found),
        waits_in=waits_in,
        leased_by=lease.holder if lease else None,
        leased_until=lease.until if lease else None,
        decisions=tuple(map(_decision, _decided(stack, key), [key] * DECISIONS_SHOWN)),
    )


class _Seen:
    """What a level has, as it was just seen."""

    def __init__(self, stack: Stack[Any], level: Level, key: str) -> None:
        self.level = level
        self._stack = stack
        self._now = stack.time.now()
        self.record: Any = None
        self.entry: CacheEntry | None = None
        self.trouble = "" if level.in_service and level.writable else level.trouble
        self.what: State = "absent"
        try:
            if level.in_service:
                self._look(key)
            else:
                self.what = "unknown"
        except CacheCorruptionError as error:
            self.what, self.trouble = "damaged", str(error)
        except TierkitError as error:
            self.what, self.trouble = "unknown", str(error)

    @property
    def version(self) -> int | None:
        return None if self.record is None else self.record.version

    def _look(self, key: str) -> None:
        level = self.level
        self.record = self._live(key) if level.live else level.call(level.tier.get, key)
        if self.record is not None:
            self.what = self._judged()

    def _live(self, key: str) -> Any:
        return next((entry for entry in self.level.scan() if entry.key == key), None)  # `get` would count as a use

    def _judged(self) -> State:
        if not self.level.live and is_owed_deletion(self.record):
            return "deleted"
        try:
            self.entry = self.record if self.level.live else self._stack.sealer.open(self._row)
        except CacheCorruptionError as error:
            self.trouble = str(error)
            return "damaged"
        except (KeyNotHeldError, SchemaMismatchError) as error:
            self.trouble = str(error)
            return "unreadable"
        return self._by_time(self.entry)

    def _by_time(self, entry: CacheEntry) -> State:
        if self._now < entry._fresh_until:
            return "fresh"
        if self._now < entry._deadline:
            return "outdated"
        return "stale" if self._now < entry._deadline + self._stack.settings.grace_seconds else "expired"

    @property
    def _row(self) -> Row:
        row: Row = self.record
        if not is_owed(row):
            return row
        self._stack.sealer.verify(row)
        return self._stack.owing.paid(row)

    def state(self, newest: int | None) -> LevelState:
        level, record = self.level, self.record
        base: dict[str, Any] = {
            "name": level.name,
            "kind": level.kind,
            "in_service": level.in_service,
            "writable": level.writable,
            "trouble": self.trouble,
            "state": self.what,
        }
        if record is None:
            return LevelState(**base)
        base |= {"version": record.version, "written_at": _time(written_at(record.version))}
        base |= {"newest": record.version == newest, "purge_at": _time(record.purge_at)}
        return LevelState(**base, **self._of_row(), **self._of_entry())

    def _of_row(self) -> dict[str, Any]:
        if self.level.live:
            return {}
        row: Row = self.record
        named = self._stack.sealer.named_keys(row)
        return {
            "key_ids": tuple(sorted(named)),
            "keys_not_held": tuple(sorted(named.difference(self._stack.sealer.key_ids))),
            "owed": is_owed(row),
            "size_bytes": len(pack_row(row)),
        }

    def _of_entry(self) -> dict[str, Any]:
        entry = self.entry
        if entry is None:
            return {}
        deadline = entry._deadline
        return {
            "expires_at": _time(deadline),
            "seconds_left": deadline - self._now if isfinite(deadline) else None,
            "health": entry.health_status.value,
            "failure_count": entry.failure_count,
            "access_count": entry.access_count,
            "last_accessed": entry.last_accessed,
        }


def _answer(stack: Stack[Any], found: list[_Seen], key: str) -> tuple[str | None, str]:
    """From which level `get` would answer, and why: as `Stack._search` goes through the levels."""
    passed: list[str] = []
    floor = 0
    for seen in found:
        if seen.level is stack.authority and (waiting := stack.owing.look(key)) is not None:
            return _owed_answer(stack, waiting.holder.name if waiting.holder else None, waiting.row, floor, passed)
        if seen.what == "fresh" and seen.version is not None and seen.version >= floor:
            return seen.level.name, _sentence(f"a hit from {seen.level.name}", passed)
        if seen.what == "deleted":
            return None, _sentence(f"a miss: {seen.level.name} holds a deletion that the lowest level is owed", passed)
        if seen.what in ("stale", "expired") and seen.version is not None:
            floor = max(floor, seen.version)
        passed.append(_PASSED[seen.what].format(seen.level.name, seen.trouble))
    return None, _sentence("a miss", passed)


def _owed_answer(
    stack: Stack[Any], holder: str | None, row: Row | None, floor: int, passed: list[str]
) -> tuple[str | None, str]:
    where = holder or "memory"
    if row is None:
        return None, _sentence(f"a miss: {where} holds a deletion for the lowest level, or cannot be read", passed)
    deadline = float(row.columns.get("expires_at") or inf)
    if stack.time.now() < deadline and row.version >= floor:
        return holder or stack.levels[-1].name, _sentence(f"a hit with what {where} holds for the lowest level", passed)
    return None, _sentence(f"a miss: what {where} holds for the lowest level has expired", passed)


_PASSED: Final[dict[str, str]] = {
    "absent": "{0} does not hold it",
    "fresh": "{0} holds a version that is older than one that has expired above",
    "outdated": "{0} has held it for longer than staleness_seconds",
    "stale": "{0} holds one that has expired, and is in its grace period: allow_stale=True returns it",
    "expired": "{0} holds one that has expired",
    "damaged": "{0} holds one that is damaged, and is evicted when it is read: {1}",
    "unreadable": "{0} holds one that cannot be read: {1}",
    "unknown": "{0} cannot be asked: {1}",
}


def _sentence(begin: str, passed: list[str]) -> str:
    return f"{begin}: {'; '.join(passed)}" if passed else begin


def _decided(stack: Stack[Any], key: str) -> list[Note]:
    notes = stack.decisions.of(key)
    if stack.stored:
        with suppress(Exception), stack.sides.reading() as sides:  # else what this process has decided is told
            notes += DecisionLog(stack.decisions, stack.stored[-1], sides, stack.versions).of(key)
    return last_of_each(notes, stack.time.now() + CLOCK_DIFFERENCE_SECONDS)[-DECISIONS_SHOWN:]


def _lease(stack: Stack[Any], key: str) -> Lease | None:
    with suppress(TierkitError), stack.sides.reading() as sides:
        return LeaseStore(stack, sides=sides).running(key)
    return None


def _decision(note: Note, key: str) -> Decision:
    return Decision(
        at=datetime.fromtimestamp(note.at, UTC),
        level=note.level,
        what=note.what,
        why=note.why[:LONGEST_REASON],
        until=_time(note.until(key)),
    )


def _time(seconds: float | None) -> datetime | None:
    with suppress(OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(seconds, UTC) if seconds else None
    return None
