"""What the state machine draws, and what its dictionary holds."""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import strategies as st
from tests.model.machine_world import OFFERED, STORED

NAMES = "abc"
KEYS = st.sampled_from(NAMES)
TTLS = st.sampled_from([2.0, 5.0, 1000.0, 1000.0])


class Held(NamedTuple):
    """What may be found for a key; times in seconds."""

    text: str
    deadline: float
    ttl: float
    created: float
    failures: int = 0
    health: str = "unknown"


class Reads(NamedTuple):
    """How many reads a record may have counted: at least, at most."""

    least: int
    most: int


Possible = frozenset[Held | None]
NOTHING: Possible = frozenset([None])


def renewed(held: Held, now: float, longest: float | None) -> Held:
    """`held` as a hit leaves it: sliding gives it its TTL again, up to `longest` seconds after it was first put."""
    if longest is None:
        return held
    last = held.created + longest
    deadline = min(now + held.ttl, last)
    gain = deadline - held.deadline
    worth = gain > 0 and (deadline == last or gain >= held.ttl / 10)
    return held._replace(deadline=deadline) if worth else held


@st.composite
def _stacks(draw: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One to four levels, live ones above stored ones, each with a bound and its policies; and settings."""
    live = draw(st.integers(0, 2))
    stored = draw(st.integers(0 if live else 1, 4 - live))
    kinds = ["live"] * live + [draw(st.sampled_from(STORED)) for _ in range(stored)]
    settings = draw(SETTINGS)
    if not stored and settings["durability"] == "full":  # which is refused
        settings["durability"] = "process"
    volatile = settings["durability"] == "none"
    levels = []
    for place, kind in enumerate(kinds):
        lowest = place == len(kinds) - 1
        policies = _policies(place, kind, lowest=lowest, holds=volatile or place > live)
        levels.append(_level(draw, kind, policies, lowest=lowest))
    return levels, settings


def _policies(place: int, kind: str, *, lowest: bool, holds: bool) -> list[str]:
    """The write policies that the level at `place` may have; `holds`: someone above can hold what it is owed."""
    if kind == "live" or place == 0:
        return ["through"]
    if not lowest:
        return ["through", "demote", "demote"]
    return ["through", "behind", "demote"] if holds else ["through"]


def _level(draw: Any, kind: str, policies: list[str], *, lowest: bool) -> dict[str, Any]:
    bounds = [None, None, None, 2] if lowest else [None, 1, 2]
    return {
        "backend": kind if kind in ("live", "disk") else f"real-{kind}",
        "max_entries": draw(st.sampled_from(bounds)),
        "eviction_policy": draw(st.sampled_from(OFFERED["memory" if kind == "live" else kind])),
        "write_policy": draw(st.sampled_from(policies)),
    }


SETTINGS = st.fixed_dictionaries(
    {
        "failure_threshold": st.integers(1, 3),
        "enable_health_invalidation": st.sampled_from([True, True, False]),
        "tier_failure_threshold": st.integers(1, 3),
        "staleness_seconds": st.sampled_from([None, 1.5]),
        "grace_seconds": st.sampled_from([0.0, 0.0, 3.0]),
        "sliding_max_seconds": st.sampled_from([None, 4.0, 1500.0]),
        "enable_statistics": st.sampled_from([True, True, False]),
        "durability": st.sampled_from(["process", "none", "full"]),
    }
)
STACKS = _stacks()
