"""What the tasks of a schedule do, and what happens to them from outside."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from tests.core.engine.support import Note, note
from tests.model.cooperative import Task, Violation
from tests.model.history import Operation
from tests.model.shapes import KEYS, TTLS, Profile
from tests.model.storage import Outage
from tests.model.world import LATE_SECONDS, TOMBSTONE_SECONDS, Process, World

from tierkit import CacheClosedError, CacheStorageError
from tierkit.row import is_owed

Manager = Any


def _new(world: World, process: Process, key: str) -> Note:
    world.texts += 1
    text, ttl = str(world.texts), world.random.choice(TTLS)
    world.history.lives[text] = (key, ttl, process)
    return note(key, text, ttl_seconds=ttl)


def _get(world: World, operation: Operation, manager: Manager) -> None:
    entry = manager.get(operation.key)
    operation.process.gets += 1
    world.tell(f"= {entry and (entry.text, entry.version)}")
    world.history.read(operation, entry)


def _get_with_level(world: World, operation: Operation, manager: Manager) -> None:
    entry, name = manager.get_with_level(operation.key)
    operation.process.gets += 1
    world.tell(f"= {entry and (entry.text, entry.version)} in {name}")
    world.history.read(operation, entry)


def _put(world: World, operation: Operation, manager: Manager) -> None:
    entry = manager.put(_new(world, operation.process, operation.key))
    world.history.must_have_written(operation, operation.key, entry.version)
    world.history.acknowledge(operation)
    _check_bounds(world, operation)


def _put_many(world: World, operation: Operation, manager: Manager) -> None:
    keys = world.random.choices(KEYS, k=world.random.choice((2, 3)))
    manager.put_many([_new(world, operation.process, key) for key in keys])
    for key in keys:
        world.history.must_have_written(operation, key, None)
    world.history.acknowledge(operation)
    _check_bounds(world, operation)


def _delete(world: World, operation: Operation, manager: Manager) -> None:
    world.history.uncounted = True
    manager.delete(operation.key)
    world.history.must_have_written(operation, operation.key, None)
    world.history.acknowledge(operation)


def _clear(world: World, operation: Operation, manager: Manager) -> None:
    world.history.uncounted = True
    operation.snapshot = dict(world.authority.rows)
    manager.clear()
    world.history.cleared(operation)
    world.history.acknowledge(operation)


def _count_failure(world: World, operation: Operation, manager: Manager) -> None:
    operation.verdicts[operation.key] = False
    entry = manager.invalidate_by_health(operation.key)
    world.tell(f"= {entry and (entry.text, entry.version, entry.failure_count)}")
    world.history.counted(operation, entry)
    world.history.acknowledge(operation)


def _count_success(world: World, operation: Operation, manager: Manager) -> None:
    operation.verdicts[operation.key] = True
    manager.record_success(operation.key)
    world.history.acknowledge(operation)


def _judge(world: World, operation: Operation, manager: Manager) -> None:
    random = world.random
    operation.verdicts = {key: random.random() < 0.3 for key in random.sample(KEYS, random.choice((1, 2, 3)))}
    result = manager.record_health(operation.verdicts)
    world.tell(f"= {result}")
    if result.error is not None:
        raise result.error
    world.history.acknowledge(operation)


def _sweep(world: World, operation: Operation, manager: Manager) -> None:
    manager.sweep()


def _flush(world: World, operation: Operation, manager: Manager) -> None:
    manager.flush()


def _recover(world: World, operation: Operation, manager: Manager) -> None:
    world.tell(f"= {manager.recover()} levels")


def _reset(world: World, operation: Operation, manager: Manager) -> None:
    for level in manager.levels:
        if not level.in_service:
            level.reset_failures()


def _restart(world: World, operation: Operation, manager: Manager) -> None:
    process = operation.process
    if world.processes[process.index] is not process:
        return  # another task was faster
    if not process.level(world.authority).in_service:
        world.history.uncounted = True
    if any(other.process is process for other in world.history.active if other is not operation):
        world.history.uncounted = True  # what is read while the cache is being closed
    heal(world)
    after = world.start_again(process.index)
    try:
        manager.close()
    finally:
        if world.processes[process.index] is after:
            operation.process = after
            task = world.scheduler.current
            if task is not None:
                task.process = after
            world.open(after)


OPERATIONS: Final[dict[str, Callable[[World, Operation, Manager], None]]] = {
    "get": _get,
    "get_with_level": _get_with_level,
    "put": _put,
    "put_many": _put_many,
    "delete": _delete,
    "clear": _clear,
    "count_failure": _count_failure,
    "count_success": _count_success,
    "judge": _judge,
    "sweep": _sweep,
    "flush": _flush,
    "recover": _recover,
    "reset": _reset,
    "restart": _restart,
}


def perform(world: World, process: Process, name: str, key: str) -> None:
    """One call of a process's cache, and what the rules say to it. Storage errors are answers too."""
    operation = Operation(name, process, key)
    task = world.scheduler.current
    if task is None:
        world.idle = operation
    else:
        task.operation = operation
        world.scheduler.took_effect()
    world.history.begin(operation)
    try:
        OPERATIONS[name](world, operation, process.manager)
        world.tell("returns")
    except (CacheStorageError, CacheClosedError) as error:
        world.history.doubtful.update(operation.writes)
        world.tell(f"raises {error}")
        if operation.well and operation.process.is_well(operation.window) and not isinstance(error, CacheClosedError):
            raise Violation(f"{name} raised while every storage was well: {error}") from None
    finally:
        if not process.dead:
            world.history.leave(operation)
    operation.process.catch_up()


def _check_bounds(world: World, operation: Operation) -> None:
    """The bounds hold when a put returns; while others are at work, when theirs does."""
    if world.history.active != [operation]:
        return
    manager = operation.process.manager
    for level in manager.levels if manager is not None else ():
        disk = world.disks.get(level.name)
        size = len(disk.rows) if disk is not None else level.tier.size()
        excused = disk is not None and (disk.overfull or not level.in_service)
        owed = 0 if disk is None else sum([is_owed(row) for row in disk.rows.values()])  # these are pinned
        if level.max_entries is not None and size - owed > level.max_entries and not excused:
            raise Violation(f"{level.name} holds {size} records and may hold {level.max_entries}")


# -- the world outside -------------------------------------------------------------------------------------------------


def _advance(*seconds: float) -> Callable[[World], None]:
    def advance(world: World) -> None:
        chosen = world.random.choice(seconds)
        if world.scheduler.advance(chosen):
            world.tell(f"-- {chosen} s pass")

    return advance


def _crash(world: World) -> None:
    heal(world)
    index = world.random.randrange(2)
    world.tell(f"-- process {index} crashes")
    process = world.crash(index)
    world.scheduler.spawn(process, lambda: _open_and_work(world, process))


def _quiet(world: World) -> bool:
    """Whether no cache is being opened: what is opened while a storage is out is not yet put right afterwards."""
    return all(process.manager is not None for process in world.processes)


def _whose(world: World) -> list[int]:
    return world.random.choice(([0], [1], [0, 1]))


def _outage(world: World) -> None:
    if not _quiet(world):
        return
    disk = world.random.choice(list(world.disks.values()))
    for index in _whose(world):
        applied, writes_only = world.random.choice((0.0, 0.5)), world.random.random() < 0.3
        disk.outages[index] = Outage(applied=applied, writes_only=writes_only)
        world.tell(f"-- {disk.name} is out for process {index}: {disk.outages[index]}")


def _miss(world: World) -> None:
    """A level above the authority misses a write, and soon is well again."""
    above = [disk for disk in world.disks.values() if disk is not world.authority]
    if not above or not _quiet(world):
        return
    disk, index = world.random.choice(above), world.random.randrange(2)
    disk.outages[index] = Outage(calls=2, writes_only=True)
    world.tell(f"-- {disk.name} will miss a write of process {index}")


def _fail(world: World) -> None:
    if not _quiet(world):
        return
    disk, index = world.random.choice(list(world.disks.values())), world.random.randrange(2)
    calls, applied = world.random.choice((1, 1, 2)), world.random.choice((0.0, 1.0))
    disk.outages[index] = Outage(calls=calls, writes_only=world.random.random() < 0.7, applied=applied)
    world.tell(f"-- {disk.name} will fail for process {index}: {disk.outages[index]}")


def _full(world: World) -> None:
    disk = world.random.choice(list(world.disks.values()))
    disk.full = True
    world.tell(f"-- {disk.name} is full")


def heal(world: World) -> None:
    """Every storage is well again."""
    for disk in world.disks.values():
        disk.outages.clear()
        disk.full = False
    world.tell("-- all storages are well")


def _forget(world: World) -> None:
    """Marks are forgotten. No level may have missed writes for so long: the docs say so."""
    if not any(process.missed_writes for process in world.lives if not process.dead):
        _advance(TOMBSTONE_SECONDS - 5.0, TOMBSTONE_SECONDS + 61.0)(world)


EVENTS: Final[dict[str, Callable[[World], None]]] = {
    "tick": _advance(0.01, 1.0),
    "expire": _advance(2.0, 4.0, 31.0),
    "late": _advance(LATE_SECONDS + 1.0),
    "forget": _forget,
    "crash": _crash,
    "outage": _outage,
    "fail": _fail,
    "miss": _miss,
    "full": _full,
    "heal": heal,
}


# -- drawing -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def weighted(profile: Profile, kind: str) -> tuple[str, ...]:
    """Each name as often as it weighs."""
    table = getattr(profile, kind)
    return tuple(name for name, weight in table.items() for _ in range(weight))


def _open_and_work(world: World, process: Process) -> None:
    world.open(process)
    work(world, process.index)


def work(world: World, index: int) -> None:
    """A task's life: do what is left to do on this machine, in whatever life its process is."""
    scheduler = world.scheduler
    while world.work[index]:
        name, key = world.work[index].popleft()
        process = world.processes[index]
        task = scheduler.current
        assert isinstance(task, Task)
        task.process, task.operation = process, None
        scheduler.wait_until(lambda process=process: process.manager is not None, None)  # type: ignore[misc]  # its type cannot be inferred
        scheduler.point()
        perform(world, process, name, key)
