"""A storage that two processes share, and the tier through which each of them reaches it.

Every call of the tier is a step: it takes effect at once and whole, as the trait `SHARED` promises, at any time between
two points. Bulk writes are a step for each record. A call may fail before it took effect or after.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from tierkit import (
    CacheTier,
    Delta,
    Row,
    TierContext,
    TierFull,
    TierUnavailable,
    Trait,
    delete_refusal,
    refusal,
    with_usage,
)
from tierkit.tier import coldness

if TYPE_CHECKING:
    from tests.model.world import Process, World

T = TypeVar("T")


@dataclass
class Outage:
    """A storage that cannot be reached by a process.

    Attributes:
        calls: How many more calls fail.
        writes_only: Whether reads succeed.
        applied: The share of the writes that take effect all the same.
    """

    calls: float = inf
    writes_only: bool = False
    applied: float = 0.0


class SharedDisk:
    """Rows and marks in dictionaries, which outlive every process."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: dict[str, Row] = {}
        self.marks: dict[str, tuple[int, float]] = {}
        self.outages: dict[int, Outage] = {}
        self.full = False
        self.overfull = False
        """Whether it may hold more than its bound, since one who had to settle it failed."""

    def mark(self, key: str, context: TierContext) -> int:
        mark, marked_at = self.marks.get(key, (0, 0.0))
        return mark if marked_at + context.tombstone_seconds > context.now() else 0


class StepTier(CacheTier[Row]):
    """A process's way to a shared disk."""

    traits: ClassVar[Trait] = Trait.PERSISTENT | Trait.CRASH_SAFE | Trait.SHARED

    def __init__(self, context: TierContext, disk: SharedDisk, process: Process, world: World) -> None:
        super().__init__(context)
        self.disk, self.process, self.world = disk, process, world
        self.scheduler = world.scheduler

    def _step(self, method: str, what: object, effect: Callable[[], T], *, writes: bool = False) -> T:
        if method in {"put", "replace"}:
            self.scheduler.decide()
        self.scheduler.point()
        if self.process.dead:  # it was before its task began: it is being opened or closed outside of any task
            raise SystemError("a dead process reached a disk")
        fault = self._fault(writes)
        self.scheduler.took_effect()
        if fault is not None and fault != "unknown":
            self._tell(method, what, fault)
            self._raise(fault)
        answer = effect()
        self._tell(method, what, answer if fault is None else f"{answer}, and then fails")
        self.scheduler.point()
        if fault is not None:
            self._raise(fault)
        return answer

    def _fault(self, writes: bool) -> str | None:
        outage = self.disk.outages.get(self.process.index)
        if outage is None or (outage.writes_only and not writes):
            return None
        outage.calls -= 1
        if outage.calls <= 0:
            del self.disk.outages[self.process.index]
        return "unknown" if writes and self.world.random.random() < outage.applied else "unavailable"

    def _raise(self, fault: str) -> None:
        self.process.failed(self.disk)
        raise TierUnavailable(f"{self.disk.name}: {fault}")

    def _check_room(self) -> None:
        if self.disk.full:
            self.process.failed(self.disk)
            raise TierFull(f"{self.disk.name}: full")

    def _tell(self, method: str, what: object, answer: object) -> None:
        if self.world.trace is not None:
            self.world.tell(f"{self.disk.name}.{method}({shown(what)}) -> {shown(answer)}")

    # -- reading -----------------------------------------------------------------------------------------------------

    def get(self, key: str) -> Row | None:
        return self._step("get", key, lambda: self.disk.rows.get(key))

    def get_many(self, keys: Iterable[str]) -> dict[str, Row]:
        keys, rows = list(keys), self.disk.rows
        return self._step("get_many", keys, lambda: {key: rows[key] for key in keys if key in rows})

    def scan(self) -> Iterator[Row]:
        keys = self._step("scan", "", lambda: list(self.disk.rows))

        def rows() -> Iterator[Row]:
            for key in keys:
                row = self.disk.rows.get(key)
                if row is not None:
                    yield row
                    self.scheduler.point()

        return rows()

    def keys(self) -> Iterator[str]:
        return iter(self._step("keys", "", lambda: list(self.disk.rows)))

    def size(self) -> int:
        return self._step("size", "", lambda: len(self.disk.rows))

    def overflow(self) -> list[Row]:
        limit, rows = self.context.max_entries, self.disk.rows
        if limit is None:
            return []
        cold = coldness(self.context.eviction_policy)
        return self._step("overflow", "", lambda: heapq.nsmallest(max(0, len(rows) - limit), rows.values(), key=cold))

    def highest_version(self) -> int:
        disk = self.disk

        def highest() -> int:
            rows = (row.version for row in disk.rows.values())
            return max([0, *rows, *(mark - 1 for mark, _ in disk.marks.values())])

        return self._step("highest_version", "", highest)

    # -- writing -----------------------------------------------------------------------------------------------------

    def put(self, record: Row) -> int | None:
        return self._step("put", record, lambda: self._put(record), writes=True)

    def _put(self, record: Row, *, replacing: bool = False) -> int | None:
        self._check_room()
        disk = self.disk
        held = disk.rows.get(record.key)
        refused = refusal(record, held, disk.mark(record.key, self.context))
        if refused is None:
            disk.rows[record.key] = with_usage(record, held.access_count, held.last_accessed) if held else record
            self.world.history.stored(disk, record, held, replacing)
        return refused

    def put_many(self, records: Sequence[Row]) -> list[int | None]:
        return [self.put(record) for record in records]

    def replace(self, record: Row, expected_version: int) -> bool:
        def effect() -> bool:
            held = self.disk.rows.get(record.key)
            return (held.version if held else 0) == expected_version and (self._put(record, replacing=True) is None)

        return self._step("replace", (record, expected_version), effect, writes=True)

    def delete(self, key: str, version: int) -> int | None:
        return self._step("delete", (key, version), lambda: self._delete(key, version), writes=True)

    def _delete(self, key: str, version: int) -> int | None:
        disk = self.disk
        refused = delete_refusal(version, disk.rows.get(key), disk.mark(key, self.context))
        if refused is None:
            held = disk.rows.pop(key, None)
            disk.marks[key] = (version + 1, self.context.now())
            self.world.history.deleted(disk, key, version, held)
        return refused

    def delete_many(self, versions: Mapping[str, int]) -> dict[str, int]:
        answers = {key: self.delete(key, version) for key, version in versions.items()}
        return {key: refused for key, refused in answers.items() if refused is not None}

    def discard(self, record: Row) -> bool:
        return self._step("discard", record, lambda: self._discard(record), writes=True)

    def _discard(self, record: Row) -> bool:
        held = self.disk.rows.get(record.key)
        if held is None or held.version != record.version:
            return False
        del self.disk.rows[record.key]
        self.disk.marks[record.key] = (record.version, self.context.now())
        return True

    def touch_many(self, deltas: Mapping[str, Delta]) -> None:
        def effect() -> None:
            for key, delta in deltas.items():
                held = self.disk.rows.get(key)
                if held is not None:
                    self.disk.rows[key] = with_usage(held, held.access_count + delta.count, delta.last_accessed)

        try:
            self._step("touch_many", deltas, effect, writes=True)
        except TierUnavailable:
            history = self.world.history
            history.counted_twice = True
            history.uncounted |= self.process.manager is None or self.process.manager._closed
            raise

    def purge(self, now: float) -> int:
        def effect() -> int:
            disk, oldest = self.disk, now - self.context.tombstone_seconds
            disk.marks = {key: mark for key, mark in disk.marks.items() if mark[1] > oldest}
            return sum([self._discard(row) for row in list(disk.rows.values()) if row.purge_at <= now])

        return self._step("purge", now, effect, writes=True)

    def close(self) -> None: ...


def shown(what: Any) -> str:
    """`what`, short enough for a line of a trace."""
    if isinstance(what, Row):
        failures = what.columns.get("failure_count")
        count = f" failures {failures}" if failures else ""
        return f"{what.key}={what.columns.get('text')}@{what.version}{count}"
    if isinstance(what, list):
        return f"[{', '.join(map(shown, what))}]"
    if isinstance(what, tuple):
        return ", ".join(map(shown, what))
    return str(what)
