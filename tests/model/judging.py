"""The end of a schedule: everything is well again and quiet, and what must hold then is checked."""

from __future__ import annotations

from tests.model.cooperative import Violation
from tests.model.operations import heal, perform
from tests.model.shapes import KEYS
from tests.model.world import BACKOFF_SECONDS, REPLAY_SECONDS, World

from tierkit.row import Record


def judge(world: World) -> None:
    """Check what must hold when outages are over, maintenance has run, and nobody is at work."""
    heal(world)
    for process in world.processes:
        if process.manager is None:
            world.open(process)
    _let_recover(world)
    world.scheduler.now += (world.staleness or 0.0) + 0.001
    for process in world.processes:
        for key in KEYS:
            perform(world, process, "get", key)
    for process in world.processes:  # what a call left behind that outlived its cache is found by a read
        perform(world, process, "flush", "")
    _check_levels(world)
    for process in world.processes:
        perform(world, process, "sweep", "")
    _check_swept(world)
    _check_statistics(world)
    for process in world.processes:
        assert process.manager is not None
        process.manager.close()
    _check_usage(world)
    last = world.start_again(0)
    world.open(last)
    for key in KEYS:
        perform(world, last, "get", key)
    assert last.manager is not None
    last.manager.close()


def _let_recover(world: World) -> None:
    """Maintenance runs as often as there are levels: one may wait for another."""
    for _ in world.shape.levels:
        world.scheduler.now += BACKOFF_SECONDS + REPLAY_SECONDS
        for process in world.processes:
            perform(world, process, "recover", "")
            perform(world, process, "flush", "")
    for process in world.processes:
        assert process.manager is not None
        for level in process.manager.levels:
            if not level.in_service:
                raise Violation(f"{level.name} of process {process.index} did not come back")


def _check_levels(world: World) -> None:
    """No level holds another version than the authority, or what that has lost other than for want of room."""
    for disk in world.disks.values():
        for row in disk.rows.values():
            if not _agrees(world, row):
                raise Violation(f"{disk.name} holds {row.key} at {row.version}, and the authority does not")
    for process in world.processes if world.staleness is not None else ():
        assert process.manager is not None
        for level in process.manager.levels:
            for entry in level.tier.scan() if level.live else ():
                if entry._fresh_until > process.wall() and not _agrees(world, entry):
                    where = f"{level.name} of process {process.index}"
                    raise Violation(f"{where} holds {entry.key} at {entry.version}, and the authority does not")


def _agrees(world: World, record: Record) -> bool:
    there = world.authority.rows.get(record.key)
    if there is None:
        gone = world.authority_bounded or record.purge_at <= world.fastest_clock()
    else:
        gone = there.version == record.version
    return gone or record.key in world.history.doubtful


def _check_swept(world: World) -> None:
    """Nothing that has expired is left after a sweep."""
    for disk in world.disks.values():
        for row in disk.rows.values():
            if row.purge_at <= world.fastest_clock():
                raise Violation(f"{disk.name} holds {row.key}, which has expired, after a sweep")
    for process in world.processes:
        assert process.manager is not None
        for level in process.manager.levels:
            for entry in level.tier.scan() if level.live else ():
                if entry.purge_at <= process.wall():
                    raise Violation(f"{level.name} holds {entry.key}, which has expired, after a sweep")


def _check_statistics(world: World) -> None:
    """Hits and misses are as many as there were reads."""
    for process in world.lives:
        if process.manager is not None and not process.dead:
            hits = sum(level.counters.totals()["hits"] for level in process.manager.levels)
            misses = process.manager._stack.counters.totals()["misses"]
            if hits + misses != process.gets:
                raise Violation(f"{process.gets} reads were counted as {hits} hits and {misses} misses")


def _check_usage(world: World) -> None:
    """No read is counted twice, and none is lost unless a process died, a storage failed or a record was dropped."""
    history = world.history
    if world.shape.levels[-1].more:
        return  # where writes wait, a read counted while a record is brought down may be lost, or count twice
    complete = not (history.uncounted or world.authority_bounded)
    for key, row in world.authority.rows.items():
        reads = history.hits[key]
        if row.access_count > reads and not history.counted_twice:
            raise Violation(f"{key} counts {row.access_count} reads, and there were {reads}")
        if complete and row.access_count < reads and len(history.writes[key]) == 1:
            raise Violation(f"{key} counts {row.access_count} reads of {reads}")
