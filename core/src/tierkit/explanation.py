"""What `explain` answers: where a record is, what `get` would answer, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

State = Literal["fresh", "stale", "expired", "outdated", "deleted", "damaged", "unreadable", "absent", "unknown"]
"""What a level has: a record that may be returned; one in its grace period; one past it; one that has to be read again
from below, by its age in memory; a deletion that the lowest level is owed; a record that is not what was written; one
that cannot be read with the keys that are held or by this class; nothing; or it could not be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided of the record.

    Attributes:
        at: When.
        level: In which level.
        what: A word of `tierkit.decisions.WORDS`.
        why: The reason, if the word does not say it.
        until: Until when the record was to live, if that was decided; None for ever, or if it was not.
    """

    at: datetime
    level: str
    what: str
    why: str = ""
    until: datetime | None = None

    def __str__(self) -> str:
        """One line for a person."""
        until = f", to live until {_moment(self.until)}" if self.until else ""
        return f"{_moment(self.at)} {self.level}: {self.what}{until}{self.why and f' ({self.why})'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelState:
    """What one level has for the key.

    Attributes:
        name: The level's name.
        kind: The kind of its tier.
        in_service: Whether it is read and written.
        writable: Whether its storage took writes when it was last asked.
        trouble: Why it is out of service, takes no writes, could not be asked, or why its record cannot be read.
        state: What it has: see `State`.
        version: Of what it has.
        written_at: When that was stamped.
        newest: Whether no level has a newer version.
        expires_at: The deadline; None for never.
        seconds_left: Until then; below 0 if it has passed.
        purge_at: When the tier may drop it.
        health: What is known of its health.
        failure_count: Failures counted since the last success.
        access_count: How often it was read, as far as this level knows.
        last_accessed: When it was last read, as far as this level knows.
        key_ids: The ids of the keys that its secrets and its check name.
        keys_not_held: Those of them that are not held.
        owed: Whether the lowest level may not have it yet, and gets it from here.
        size_bytes: What it takes as a packed row; None in memory.
    """

    name: str
    kind: str
    in_service: bool
    writable: bool
    trouble: str = ""
    state: State = "absent"
    version: int | None = None
    written_at: datetime | None = None
    newest: bool = False
    expires_at: datetime | None = None
    seconds_left: float | None = None
    purge_at: datetime | None = None
    health: str | None = None
    failure_count: int | None = None
    access_count: int | None = None
    last_accessed: datetime | None = None
    key_ids: tuple[str, ...] = ()
    keys_not_held: tuple[str, ...] = ()
    owed: bool = False
    size_bytes: int | None = None

    @property
    def holds(self) -> bool:
        """Whether it has anything for the key."""
        return self.version is not None

    def __str__(self) -> str:
        """One line for a person."""
        said = f"{self.name} ({self.kind}): {self.state}"
        if self.holds:
            left = "for ever" if self.seconds_left is None else f"{self.seconds_left:.0f} s left"
            said += f", version {self.version}{' (newest)' if self.newest else ''}, {left}"
        return said + (f"; {self.trouble}" if self.trouble else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Where a record is, what `get` would answer now, and why.

    Attributes:
        key: Of what.
        answer: The level from which `get` would answer; None for a miss.
        why: The reason, as a sentence.
        levels: Every level, from the top.
        waits_in: Who holds a write or a deletion that the lowest level is owed: a level's name, or "memory".
        leased_by: Who holds a lease of it; None if nobody does.
        leased_until: When that runs out.
        decisions: What was last decided of it, in order of time.
    """

    key: str
    answer: str | None
    why: str
    levels: tuple[LevelState, ...] = ()
    waits_in: str | None = None
    leased_by: str | None = None
    leased_until: datetime | None = None
    decisions: tuple[Decision, ...] = field(default=())

    @property
    def known(self) -> bool:
        """Whether any level has anything for the key, or anything was decided of it."""
        return bool(self.decisions or self.waits_in or any(level.holds for level in self.levels))

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON can hold it; times as ISO 8601 in UTC."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def __str__(self) -> str:
        """Some lines for a person."""
        lines = [self.why, *map(str, self.levels)]
        if self.leased_by:
            lines.append(f"leased by {self.leased_by} until {_moment(self.leased_until)}")
        return "\n".join([*lines, *map(str, self.decisions)])


def _moment(value: datetime | None) -> str:
    return "never" if value is None else value.isoformat(timespec="seconds").replace("+00:00", "Z")


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return list(map(_plain, value)) if isinstance(value, (list, tuple)) else value
