"""Expiry: how long a record lives, by its own word, its source's rule or the default."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import MAXYEAR, UTC, datetime, timedelta
from random import random
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from tierkit.entry import CacheEntry
from tierkit.errors import CacheValidationError
from tierkit.row import Record, Row

E = TypeVar("E", bound=CacheEntry)

CENTURY_SECONDS: Final = 100 * 365.25 * 86400
"""The longest time that a setting or a rule may give: deadlines and waits beyond it overflow."""


class TTLManager:
    """The rules that give a record its deadline.

    A record's own `expires_at` comes first, then its own `ttl_seconds`, then the rule of its source, then the
    default. A deadline that is computed, not given, is brought forward by jitter, so that records that were put
    together do not expire together. Rules may be changed while the cache runs and hold for later puts. Thread-safe.
    """

    def __init__(
        self,
        default_ttl_seconds: float = 3600.0,
        per_source: Mapping[str, float] | None = None,
        *,
        jitter: float = 0.0,
        grace_seconds: float = 0.0,
        random: Callable[[], float] = random,
    ) -> None:
        """Start with these rules, in seconds.

        Args:
            default_ttl_seconds: For sources without a rule.
            per_source: The rules.
            jitter: From 0 to 1: up to this part of what a record has left to live is taken off a computed deadline.
            grace_seconds: How long tiers keep a record past its deadline.
            random: Draws evenly from 0 up to, and not including, 1.

        Raises:
            CacheValidationError: A rule is not more than 0 and at most 100 years, a source is not text, or the jitter
                is not within its bounds.
        """
        self._jitter = _fraction("ttl_jitter", jitter)
        self._grace = grace_seconds
        self._random = random
        self._default = rule_seconds("default_ttl_seconds", default_ttl_seconds)
        self._rules = {_source(source): _rule_of(source, ttl) for source, ttl in (per_source or {}).items()}

    @property
    def rules(self) -> dict[str | None, float]:
        """A copy of the rules, in seconds by source; None stands for the default."""
        rules: dict[str | None, float] = {None: self._default}
        rules.update(self._rules)
        return rules

    def ttl_for(self, source: str) -> float:
        """Seconds that a record from `source` lives if it does not say itself."""
        return self._rules.get(source, self._default)

    def set_ttl(self, source: str | None, seconds: float | None) -> None:
        """From now on give new records from `source` this many seconds.

        Args:
            source: Where records come from; None for all sources without a rule.
            seconds: More than 0, at most 100 years. None takes the rule of a source back, so that the default applies.

        Raises:
            CacheValidationError: `source` is not text, or `seconds` not within its bounds; the default cannot be
                taken back.
        """
        if source is None:
            self._default = rule_seconds("default_ttl_seconds", seconds)
        elif seconds is None:
            self._rules.pop(_source(source), None)
        else:
            self._rules[_source(source)] = _rule_of(source, seconds)

    def stamp(self, entry: E, now: float, **changes: Any) -> E:
        """A copy of `entry` with every time filled in, as put at `now`.

        Args:
            entry: What it says itself is kept; `updated_at` is always `now`.
            now: POSIX seconds.
            changes: Other fields to change in the same copy.

        Raises:
            CacheValidationError: A TTL is not a positive, finite number, a time is not an aware datetime, or
                the deadline is further away than a datetime can hold.
        """
        moment = datetime.fromtimestamp(now, UTC)
        fetched = moment if entry.fetch_time is None else _utc("fetch_time", entry.fetch_time)
        created = moment if entry.created_at is None else _utc("created_at", entry.created_at)
        ttl, deadline = self._life(entry, fetched, moment)
        return replace(
            entry,
            fetch_time=fetched,
            ttl_seconds=ttl,
            expires_at=deadline,
            created_at=created,
            updated_at=moment,
            _fresh_until=deadline.timestamp(),
            _purge_at=deadline.timestamp() + self._grace,
            _stale=False,
            **changes,
        )

    def _life(self, entry: CacheEntry, fetched: datetime, now: datetime) -> tuple[float, datetime]:
        if entry.expires_at is None:
            given = entry.ttl_seconds
            ttl = self.ttl_for(entry.source) if given is None else _seconds("ttl_seconds", given)
            return ttl, self._brought_forward(_deadline(fetched, ttl), now)
        deadline = _utc("expires_at", entry.expires_at)
        if entry.ttl_seconds is not None:
            return _seconds("ttl_seconds", entry.ttl_seconds), deadline
        if deadline <= fetched:
            raise CacheValidationError(
                f"expires_at = {deadline.isoformat()}: must be after fetch_time = {fetched.isoformat()}",
                reason="expires_at must be after fetch_time",
            )
        return (deadline - fetched).total_seconds(), deadline

    def _brought_forward(self, deadline: datetime, now: datetime) -> datetime:
        if not self._jitter or deadline <= now:
            return deadline
        kept = (deadline - now) * (1.0 - self._jitter * self._random())
        return now + max(kept, datetime.resolution)  # else the jitter alone would make it expired


def deadline_of(record: Record) -> float:
    """When `record` expires, in POSIX seconds, as a row that was not verified says it."""
    if isinstance(record, CacheEntry):
        return record._deadline
    expires_at = record.columns.get("expires_at") if isinstance(record, Row) else None
    return expires_at if isinstance(expires_at, (int, float)) else record.purge_at


def slid(entry: E, now: float, longest_seconds: float) -> E:
    """`entry` as a hit at `now` renews it: it lives for its TTL from then on, with no jitter.

    It lives no longer than `longest_seconds` after it was first put. If this gains less than a tenth of its TTL, it is
    not renewed, but for the last time, and `entry` itself is answered.
    """
    if entry.ttl_seconds is None or entry.created_at is None:
        return entry
    last = min(entry.created_at.timestamp() + longest_seconds, _LATEST)
    deadline = min(now + entry.ttl_seconds, last)
    gain = deadline - entry._deadline
    if gain <= 0.0 or (deadline < last and gain < entry.ttl_seconds * _LEAST_GAIN):
        return entry
    return entry.evolve(expires_at=datetime.fromtimestamp(deadline, UTC))


def rule_seconds(name: str, value: Any) -> float:
    """`value` as the seconds of a rule that holds for many records.

    Raises:
        CacheValidationError: It is not a number above 0, or is more than 100 years.
    """
    seconds = _seconds(name, value)
    if seconds > CENTURY_SECONDS:
        raise CacheValidationError(f"{name} = {value!r}: must be at most {CENTURY_SECONDS:.0f} seconds, 100 years")
    return seconds


def _rule_of(source: str, seconds: Any) -> float:
    return rule_seconds(f"ttl of {source!r}", seconds)


def _source(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise CacheValidationError(f"source = {value!r}: must be text, or None for the default")


def _seconds(name: str, value: Any) -> float:
    if type(value) is float and 0.0 < value < math.inf:
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < _LONGEST:
        return float(value)
    raise CacheValidationError(f"{name} = {value!r}: must be a positive, finite number of seconds")


def _fraction(name: str, value: Any) -> float:
    if isinstance(value, (int, float)) and 0 <= value <= 1:
        return value
    raise CacheValidationError(f"{name} = {value!r}: must be a fraction from 0 to 1")


def _utc(name: str, value: Any) -> datetime:
    if not isinstance(value, datetime):
        raise CacheValidationError(f"{name} = {value!r}: must be a datetime")
    if value.tzinfo is UTC:
        return value
    if value.utcoffset() is None:
        raise CacheValidationError(f"{name} = {value.isoformat()}: has no time zone; add one, such as datetime.UTC")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise CacheValidationError(f"{name} = {value.isoformat()}: cannot be told in UTC") from None


def _deadline(fetched: datetime, ttl: float) -> datetime:
    try:
        return fetched + timedelta(seconds=ttl)
    except OverflowError:
        too_late = f"the deadline is later than the year {MAXYEAR}"
        raise CacheValidationError(f"ttl_seconds = {ttl!r}: {too_late}", reason=too_late) from None


_LEAST_GAIN = 0.1
_LATEST = datetime.max.replace(tzinfo=UTC, microsecond=0).timestamp()
_LONGEST = 1e300  # an int beyond any float cannot even be converted
