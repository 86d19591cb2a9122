"""What a schedule is made of, as tables: stacks, operations, profiles of trouble."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class LevelShape:
    """One level: a kind of tier, its bound, and further settings of a level."""

    kind: str
    bound: int | None = None
    policy: str = "lru"
    more: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        bound = f"({self.bound})" if self.bound else ""
        return " ".join([self.kind + bound, *(str(value) for _, value in self.more)])

    def settings(self) -> dict[str, Any]:
        return {"backend": self.kind, "max_entries": self.bound, "eviction_policy": self.policy, **dict(self.more)}


@dataclass(frozen=True)
class Shape:
    """A stack, from the top."""

    levels: tuple[LevelShape, ...]

    @property
    def stored(self) -> list[int]:
        """The places of the levels that both processes share, counted from 1."""
        return [place for place, level in enumerate(self.levels, 1) if level.kind == "step"]

    @property
    def name(self) -> str:
        return " / ".join(level.name for level in self.levels)


def _memory(bound: int | None = None, policy: str = "lru") -> LevelShape:
    return LevelShape("memory", bound, policy)


def _disk(bound: int | None = None, policy: str = "lru", write_policy: str = "through") -> LevelShape:
    return LevelShape("step", bound, policy, () if write_policy == "through" else (("write_policy", write_policy),))


SHAPES: Final = (
    Shape((_disk(),)),
    Shape((_memory(), _disk())),
    Shape((_memory(1), _disk())),
    Shape((_disk(), _disk())),
    Shape((_disk(2), _disk())),
    Shape((_memory(), _disk(), _disk())),
    Shape((_memory(1), _disk(2), _disk())),
    Shape((_memory(2), _disk(1, "fifo"), _disk())),
    Shape((_memory(1), _disk(1), _disk(2), _disk())),
    Shape((_memory(2), _disk(2))),
    Shape((_memory(1), _disk(1), _disk(2))),
    Shape((_disk(), _disk(write_policy="behind"))),
    Shape((_memory(1), _disk(1), _disk(write_policy="behind"))),
    Shape((_memory(1), _disk(1), _disk(write_policy="demote"))),
    Shape((_memory(1), _disk(2, write_policy="demote"), _disk())),
    Shape((_memory(1), _disk(1), _disk(2), _disk(write_policy="behind"))),
    Shape((_memory(1), _disk(), _disk(), _disk(write_policy="behind"))),
)

KEYS: Final = ("a", "b", "c")
TTLS: Final = (3.0, 30.0, 1000.0, 1000.0)
STALENESS: Final = (0.002, 0.002, 3.0, None)


@dataclass(frozen=True)
class Profile:
    """A kind of trouble.

    Attributes:
        operations: How often each operation is drawn.
        events: How often each event is drawn.
        most_events: How many events there are at most.
        keys: How many keys there are: one of these.
        threads: How many threads a process has: one of these.
    """

    name: str
    operations: dict[str, int]
    events: dict[str, int]
    most_events: int
    keys: tuple[int, ...] = (1, 2, 3)
    threads: tuple[int, ...] = (1, 2, 2, 3)

    def __hash__(self) -> int:
        return hash(self.name)


_CALM = {
    "get": 10, "put": 5, "put_many": 2, "delete": 3, "count_failure": 2, "judge": 1, "count_success": 1, "sweep": 1,
    "flush": 1,
}  # fmt: skip
_FULL = {**_CALM, "clear": 1, "restart": 1, "recover": 2, "reset": 1, "get_with_level": 1}

PROFILES: Final = (
    Profile("reads and puts", {"get": 8, "put": 4, "flush": 1, "sweep": 1}, {"tick": 1}, 2),
    Profile("calm", _CALM, {"tick": 2, "expire": 1}, 2),
    Profile("time", {**_CALM, "sweep": 3}, {"tick": 1, "expire": 3, "late": 3, "forget": 2}, 5),
    Profile("counting", {"get": 4, "put": 2, "count_failure": 8, "count_success": 1, "judge": 2},
            {"tick": 1, "crash": 1, "late": 1, "fail": 1}, 3),
    Profile("crashes", _FULL, {"tick": 1, "expire": 1, "crash": 4, "late": 1}, 4),
    Profile("outages", _FULL, {"tick": 1, "outage": 4, "fail": 3, "heal": 3}, 5),
    Profile("full", _FULL, {"tick": 1, "full": 3, "heal": 2, "fail": 1}, 4),
    Profile("crowd", {"get": 8, "put": 4, "put_many": 1, "delete": 2, "clear": 2, "count_failure": 1},
            {"tick": 1, "late": 1}, 2, (1,), (3,)),
    Profile("slow", {"get": 8, "put": 4, "delete": 3, "count_failure": 1, "sweep": 1},
            {"tick": 2, "expire": 3, "late": 2, "forget": 4}, 5, (1,), (2, 3)),
    Profile("returning", {"get": 6, "put": 4, "delete": 2, "put_many": 1, "recover": 4, "reset": 2},
            {"tick": 1, "miss": 5, "late": 1}, 5, (1, 2), (2, 3)),
    Profile("everything", _FULL, {"tick": 1, "expire": 1, "late": 1, "forget": 1, "crash": 2, "outage": 2, "fail": 2,
                                  "heal": 2, "full": 1}, 7),
)  # fmt: skip
