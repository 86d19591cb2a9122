"""What was done and answered in a schedule, and whether it may have been.

The authority's storage tells in which order writes of a key took effect: by version, a deletion after the record of the
same version. A write is *acknowledged* when its call has returned. From then on every read that starts must give it or
something newer. Reads of another process are granted `staleness_seconds`, since its first level and its flights are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any

from tests.model.cooperative import Violation
from tests.model.storage import SharedDisk, shown

from tierkit import CacheEntry, Row
from tierkit.row import GOES_BACK_TO, goes_back_to, is_owed, is_owed_deletion

if TYPE_CHECKING:
    from tests.model.world import Process, World


@dataclass(eq=False, slots=True)
class Write:
    """A record or a deletion that the authority took.

    Attributes:
        stamp: Twice the version, and one more for a deletion.
        text: What the record holds.
        acknowledged: The moment and the time at which the call had returned; None if it never did.
        visible: The same for other processes: later if a level above missed it, and must be put right first.
        heirs: The same write, stamped anew by others: it was refused by what had been compared and set without it.
        origin: The stamp of the put that it goes back to, if it changed what was there by compare and set.
    """

    stamp: int
    text: str
    purge_at: float
    failures: int
    operation: Operation | None
    acknowledged: tuple[int, float] | None = None
    visible: tuple[int, float] | None = None
    heirs: list[Write] = field(default_factory=list)
    origin: int = 0
    inherited: bool = False

    @property
    def order(self) -> tuple[int, int]:
        """What comes after what: a put that was not compared with comes after what was compared and set."""
        return (self.origin or self.stamp, self.stamp)

    @property
    def deleted(self) -> bool:
        return bool(self.stamp & 1)


@dataclass(eq=False, slots=True)
class Operation:
    """A call of a manager.

    Attributes:
        window: When the oldest call began that was under way in its process when it did; it may share its read.
        well: Whether every storage was, when it began, to its process.
        writes: What the authority took from it, by key.
        verdicts: Which records it calls healthy, and which not.
        snapshot: For `clear`: what the authority held when it began.
    """

    name: str
    process: Process
    key: str = ""
    step: int = 0
    time: float = 0.0
    window: float = 0.0
    well: bool = True
    writes: dict[str, Write] = field(default_factory=dict)
    verdicts: dict[str, bool] = field(default_factory=dict)
    snapshot: dict[str, Row] = field(default_factory=dict)


class History:
    """Writes by key, and the rules."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.writes: defaultdict[str, dict[int, Write]] = defaultdict(dict)
        self.lives: dict[str, tuple[str, float, Process]] = {}
        """Key, seconds to live, and writer, by text."""
        self.hits: defaultdict[str, int] = defaultdict(int)
        self.active: list[Operation] = []
        self._moment = 0
        self.doubtful: set[str] = set()
        """Keys of which a write raised that the authority had taken."""
        self.counted_twice = False
        """Whether usage may have been, since a flush failed that had taken effect."""
        self.uncounted = False
        """Whether usage may have been lost: with a process, a record, or a storage that was out."""

    def moment(self) -> int:
        """The next moment: calls that begin and return between two steps have an order too."""
        self._moment += 1
        return self._moment

    # -- what happens ------------------------------------------------------------------------------------------------

    def begin(self, operation: Operation) -> None:
        scheduler = self.world.scheduler
        operation.step, operation.time = self.moment(), scheduler.now
        mine = [other.time for other in self.active if other.process is operation.process]
        operation.window = min([scheduler.now, *mine])
        operation.well = operation.process.is_well(operation.window)
        self.active.append(operation)

    def cut_off(self, operation: Operation) -> None:
        """Its process died."""
        self.leave(operation)
        if operation.name.startswith("get"):
            self.hits[operation.key] += 1  # perhaps: it was counted, and never answered
        others = [other for other in self.active if other.process.index != operation.process.index]
        self.doubtful.update(
            key for other in others for key in operation.writes.keys() & {other.key, *other.writes, *other.verdicts}
        )

    def leave(self, operation: Operation) -> None:
        """It returned, raised, or died."""
        if operation in self.active:
            self.active.remove(operation)

    def stored(self, disk: SharedDisk, row: Row, held: Row | None, replacing: bool) -> None:
        """A storage took a record in place of what it held, by compare and set or not."""
        if is_owed(row):
            self._owed(row, held if replacing else None)
        elif disk is self.world.authority:
            operation = self.world.operation
            if operation is not None and row.key in operation.verdicts and row.version * 2 not in self.writes[row.key]:
                self._check_count(row, held, operation.verdicts[row.key])
            self._wrote(row.key, row.version * 2, row.columns["text"], row.purge_at, int(row.columns["failure_count"]))
            if GOES_BACK_TO in row.columns:
                self.writes[row.key][row.version * 2].origin = goes_back_to(row) * 2

    def _owed(self, row: Row, held: Row | None) -> None:
        """A level that stands in for the authority took a write: that counts as if the authority had.

        In the place of `held` it is the same write, which was stamped anew.
        """
        if held is not None:
            self._inherit(row, self.writes[row.key][held.version * 2 + is_owed_deletion(held)])
        elif is_owed_deletion(row):
            self._wrote(row.key, row.version * 2 + 1, "", inf, 0)
        else:
            columns = row.columns
            self._wrote(
                row.key, row.version * 2, columns["text"], columns["tierkit.purge_at"], int(columns["failure_count"])
            )

    def _inherit(self, row: Row, original: Write) -> None:
        stamp = row.version * 2 + original.deleted
        heir = Write(stamp, original.text, original.purge_at, original.failures, original.operation)
        heir.inherited = True
        heir.acknowledged, heir.visible = original.acknowledged, original.visible
        original.heirs.append(heir)
        self.writes[row.key][stamp] = heir

    def deleted(self, disk: SharedDisk, key: str, version: int, held: Row | None) -> None:
        """A storage took a deletion, in place of what it held."""
        if disk is not self.world.authority and held is not None and is_owed(held):
            if self.world.operation is None or self.world.operation.name not in {"clear", "delete"}:
                return  # the authority has something newer
            self._wrote(key, version * 2 + 1, "", inf, 0)
        elif disk is self.world.authority and not self._is_expiry(key, version):
            self.removed(key, version)
            self._wrote(key, version * 2 + 1, "", inf, 0)

    def _wrote(self, key: str, stamp: int, text: str, purge_at: float, failures: int) -> None:
        operation = self.world.operation
        write = self.writes[key].get(stamp)
        if write is None:
            write = self.writes[key][stamp] = Write(stamp, text, purge_at, failures, operation)
            if text:
                self._check_life(key, text, purge_at)
        own = write.operation is operation and not write.inherited  # and no replay of another's, on the way
        if operation is not None and operation.name in WRITING and own:
            operation.writes[key] = write

    def acknowledge(self, operation: Operation) -> None:
        """A writing call has returned: what it wrote must be found from now on."""
        now = (self.moment(), self.world.scheduler.now)
        held_up = operation.process.missed_writes
        if held_up and operation.process is not self.world.processes[operation.process.index]:
            self.doubtful.update(operation.writes)  # its cache is closed: the level is left to the next opening
            return
        for write in _with_heirs(operation.writes.values()):
            write.acknowledged = now
            if held_up:
                operation.process.deferred.append(write)
            else:
                write.visible = now

    # -- rules -------------------------------------------------------------------------------------------------------

    def _check_life(self, key: str, text: str, purge_at: float) -> None:
        """A deadline is that of the put, whatever became of the record on its way."""
        if text not in self.lives:
            raise Violation(f"{key} = {text!r} was never put")
        origin, ttl, writer = self.lives[text]
        first = next((w for w in self.writes[key].values() if w.text == text and w.operation is not None), None)
        if origin != key:
            raise Violation(f"{text!r} was put as {origin} and is stored as {key}")
        if purge_at > writer.wall() + ttl + 1e-3:
            raise Violation(f"{key} = {text!r} lives longer than {ttl} s")
        if first is not None and abs(first.purge_at - purge_at) > 1e-3:
            raise Violation(f"{key} = {text!r}: its deadline was moved from {first.purge_at} to {purge_at}")

    def _check_count(self, row: Row, held: Row | None, healthy: bool) -> None:
        """A count goes up by one, or to nothing, from where it was."""
        failures = 0 if healthy or held is None else held.columns["failure_count"] + 1
        if held is None or (row.columns["text"], row.columns["failure_count"]) != (held.columns["text"], failures):
            raise Violation(f"{shown(row)} is the result of a check, in place of {shown(held)}")

    def floor(self, operation: Operation, key: str) -> Write | None:
        """The newest write that a read which began as `operation` did must know of."""
        newest = None
        for write in self.writes[key].values():
            if (newest is None or write.order > newest.order) and self._known(write, operation):
                newest = write
        return newest

    def _known(self, write: Write, reader: Operation) -> bool:
        if write.acknowledged is None:
            return False
        if write.operation is not None and write.operation.process is reader.process:
            return write.acknowledged[0] < reader.step
        slack = self.world.staleness
        return slack is not None and write.visible is not None and write.visible[1] < reader.time - slack

    def read(self, operation: Operation, entry: CacheEntry | None) -> None:
        """A read has returned `entry`."""
        key = operation.key
        floor = self.floor(operation, key)
        if entry is None:
            if floor is not None and not self._may_be_gone(operation, key, floor):
                raise Violation(f"{key} is lost: {floor.text!r} at {floor.stamp // 2} was acknowledged")
            return
        self.hits[key] += 1
        self._check_entry(operation, key, entry)
        since = operation.window - (self.world.staleness or 0.0)  # a copy in the first level may be of a read then
        cut_off = any(operation.process.was_cut_off(disk, since) for disk in self._holders(key, operation.process))
        found = self.writes[key][entry.version * 2]
        if floor is not None and found.order < floor.order and not cut_off and floor not in _with_heirs([found]):
            what = "was deleted" if floor.deleted else f"was replaced by {floor.text!r}"
            raise Violation(f"{key} = {getattr(entry, 'text', '')!r} at {entry.version} {what} at {floor.stamp // 2}")

    def _check_entry(self, operation: Operation, key: str, entry: Any) -> None:
        write = self.writes[key].get(entry.version * 2)
        if entry.key != key or write is None:
            raise Violation(f"{key} = {entry.text!r} at {entry.version} was never stored")
        if (write.text, write.failures) != (entry.text, entry.failure_count):
            raise Violation(f"{key} at {entry.version} is {entry!r}, and {write} was stored")
        if abs(write.purge_at - entry.purge_at) > 1e-3:
            raise Violation(f"{key} = {entry.text!r}: deadline {entry.purge_at}, and {write.purge_at} was stored")
        if entry.purge_at <= operation.process.wall_at(operation.time):
            raise Violation(f"{key} = {entry.text!r} had expired when the read began")

    def _may_be_gone(self, operation: Operation, key: str, floor: Write) -> bool:
        """Whether a miss is right though `floor` must be known: what is as new is a deletion, has expired or failed."""
        world = self.world
        latest = world.fastest_clock()
        newer = [write for write in self.writes[key].values() if write.order >= floor.order]
        return (
            any(write.deleted or write.purge_at <= latest or write.failures >= FAILURE_THRESHOLD for write in newer)
            or world.authority_bounded
            or any(
                operation.process.was_cut_off(disk, operation.window) for disk in self._holders(key, operation.process)
            )
        )

    def _holders(self, key: str, process: Process) -> list[SharedDisk]:
        """The storages that may alone have a write of `key`, while the authority waits for it."""
        world = self.world
        waits = bool(world.shape.levels[-1].more)
        intent = None if process.manager is None else process.manager._stack.owing.intents.get(key)
        name = intent.level.name if intent is not None and intent.level is not None else ""
        return [
            disk
            for disk in world.disks.values()
            if waits or disk is world.authority or disk.name == name or (key in disk.rows and is_owed(disk.rows[key]))
        ]

    def counted(self, operation: Operation, entry: Any) -> None:
        """A failure was counted, and `entry` answered."""
        key = operation.key
        write = operation.writes.get(key)
        if entry is None:
            if write is not None and not write.deleted:
                raise Violation(f"{key}: a failure was counted, and the answer is that there is no record")
            return
        if write is None or entry.version * 2 != write.stamp:
            raise Violation(f"{key}: a failure was counted at {entry.version}, and the authority knows nothing of it")
        newest = max(self.writes[key].values(), key=lambda other: other.order)
        if entry.failure_count >= FAILURE_THRESHOLD and newest is write:
            raise Violation(f"{key} has failed {entry.failure_count} times and was not removed")

    def _is_expiry(self, key: str, version: int) -> bool:
        """Whether the authority only hears that a record which it was owed has expired."""
        write = self.writes[key].get(version * 2)
        if write is None or write.failures >= FAILURE_THRESHOLD:
            return False
        return write.purge_at <= max(process.wall() for process in self.world.processes)

    def removed(self, key: str, version: int) -> None:
        """A record was deleted at its own version: because of its failures, or not at all."""
        write = self.writes[key].get(version * 2)
        if write is not None and write.failures < FAILURE_THRESHOLD:
            raise Violation(f"{key} was removed after {write.failures} failures")

    def cleared(self, operation: Operation) -> None:
        """A clear has returned: what was there when it began must be gone."""
        for key, row in operation.snapshot.items():
            held = self.world.authority.rows.get(key)
            if held is not None and held.version <= row.version:
                raise Violation(f"{key} at {row.version} is there after a clear")

    def must_have_written(self, operation: Operation, key: str, version: int | None) -> None:
        """A put or a deletion has returned: the authority must have taken it."""
        write = operation.writes.get(key)
        if write is None or (version is not None and write.stamp != version * 2):
            raise Violation(f"{operation.name} of {key} was acknowledged at {version}, the authority took {write}")


def _with_heirs(writes: Iterable[Write]) -> Iterator[Write]:
    for write in writes:
        yield write
        yield from _with_heirs(write.heirs)


FAILURE_THRESHOLD = 3
WRITING = frozenset({"put", "put_many", "delete", "clear", "count_failure", "count_success", "judge"})
