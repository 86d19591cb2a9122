"""Exports that are killed, or that find no room: the former file is whole, and nothing is left beside it.

A writer exports again and again to one file, each time one record more, and is killed at a random moment. What has the
name then is an export that is whole, of the last that was acknowledged or of the one that was cut off; the next export
removes what the killed one has left. Killed imports are begun again, and end with all records.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from time import sleep
from typing import Any, Final
from unittest.mock import patch

from tests.faults.rooms import Room, in_small_files
from tests.faults.trials import Effort, Outcome, Trial

from tierkit import CacheConfig, CacheEntry, CacheManager, TransferError, files
from tierkit.testing.suite.processes import forked, send
from tierkit.transfer import beside
from tierkit.transfer.beside import SUFFIX, FileBeside
from tierkit.transfer.exported import ExportedFile, Overview
from tierkit.transfer.placing import Placing

FIRST: Final = 60
MOST_SECONDS: Final = 0.02
SHORT, LONG = 3, 200
UNIT: Final = 997
Faults = Mapping[str, Callable[[], AbstractContextManager[object]]]


class Numbered(CacheEntry):
    number: int = 0
    text: str = ""


def entries(count: int) -> list[Numbered]:
    return [Numbered(key=f"{number}", number=number, text="x" * (number % 90)) for number in range(count)]


def cache_in(root: Path, name: str) -> CacheManager[Any]:
    config = CacheConfig(tiers=[{"backend": "jsonl", "path": root / name, "shards": 1}])
    return CacheManager(config, entry_type=Numbered)


def overview(file: Path) -> Overview:
    from tierkit.export_format import EXPORT_FORMATS

    return ExportedFile(file, EXPORT_FORMATS["jsonl"]).overview()


def left_in(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.name.endswith(SUFFIX)]


# -- kills -------------------------------------------------------------------------------------------------------------


def export_for_ever(root: Path, pipe: Connection) -> None:
    """Export, one record more each time, and tell how many there were."""
    config = CacheConfig(tiers=[{"backend": "memory"}])
    with CacheManager(config, entry_type=Numbered) as cache:
        cache.put_many(entries(FIRST))
        for count in range(FIRST, 10_000):
            cache.export_to_file(root / "all.jsonl")
            send(pipe, count)
            cache.put(Numbered(key=f"more {count}"))


def import_for_ever(root: Path, pipe: Connection) -> None:
    """Import the same file again and again into a new cache."""
    for number in range(10_000):
        with cache_in(root, "target") as cache:
            cache.import_from_file(root / "source.jsonl")
            cache.clear()
        send(pipe, number)


def killed(work: Callable[[Path, Connection], None], root: Path, chance: random.Random) -> int:
    """Have `work` killed a moment after its first result or a later one. Answers the last that it told."""
    with forked(partial(work, root)) as child:
        last = child.receive()
        for _ in range(chance.randint(0, 2)):
            last = child.receive()
        sleep(chance.random() * MOST_SECONDS)
        return max([last, *child.kill()])


def kills_of_exports(root: Path, effort: Effort) -> Outcome:
    """Kill exporters, one after the other."""
    outcome, chance = Outcome(), random.Random(11)
    for _ in range(SHORT if effort == "short" else LONG):
        last = killed(export_for_ever, root, chance)
        seen = overview(root / "all.jsonl")
        outcome.count("exporters killed")
        outcome.count("files of killed exports", len(left_in(root)))
        outcome.check(not seen.faults, f"what has the name is not whole: {seen.faults[:1]}")
        outcome.check(seen.records in {last, last + 1}, f"{seen.records} records, and {last} were acknowledged")
        with cache_in(root, "other") as cache:
            cache.export_to_file(root / "all.jsonl")
        outcome.check(not left_in(root), f"left beside it: {left_in(root)}")
    return outcome


def kills_of_imports(root: Path, effort: Effort) -> Outcome:
    """Kill importers, and bring the import to its end each time."""
    outcome, chance = Outcome(), random.Random(12)
    with cache_in(root, "source") as source:
        source.put_many(entries(3 * FIRST))
        source.export_to_file(root / "source.jsonl")
        wanted = {entry.key: (entry.number, entry.text, entry.expires_at) for entry in source.scan()}
    for _ in range(SHORT if effort == "short" else LONG):
        killed(import_for_ever, root, chance)
        outcome.count("importers killed")
        with cache_in(root, "target") as cache:
            outcome.count("records found after the kill", cache.size())
            cache.import_from_file(root / "source.jsonl")
            found = {entry.key: (entry.number, entry.text, entry.expires_at) for entry in cache.scan()}
            outcome.check(found == wanted, f"{len(found)} records after the import was begun again")
    return outcome


# -- no room -----------------------------------------------------------------------------------------------------------


def no_room(root: Path, effort: Effort) -> Outcome:
    """Export with room for a part of the file, of each of many sizes, in a process whose limits are its own."""
    outcome = Outcome()
    told = root / "told"
    (root / "room").mkdir()

    def work(pipe: Connection) -> None:
        fill(root / "room", told, 9 if effort == "short" else 60)
        send(pipe, 0)

    with forked(work) as child:
        child.receive()
    for line in told.read_text().splitlines():
        outcome.violations.append(line) if line.startswith("!") else outcome.count(line)
    return outcome


def fill(folder: Path, told: Path, most: int) -> None:
    with in_small_files(folder) as room, told.open("w") as report, cache_with_many() as cache:
        file = room.root / "all.jsonl"
        cache.export_to_file(file)
        size = file.stat().st_size
        for number in range(most):
            before = file.read_bytes()
            cache.put(Numbered(key=f"more {number}"))
            lines = [*full(cache, room, file, before, size * number // most)]
            room.free()
            cache.export_to_file(file)
            lines += ["! no export when there was room"] if overview(file).records != FIRST + number + 1 else []
            report.write("".join(f"{line}\n" for line in lines))


def full(cache: CacheManager[Any], room: Room, file: Path, before: bytes, limit: int) -> Iterator[str]:
    room.leave(limit)
    try:
        cache.export_to_file(file)
    except TransferError as error:
        yield "exports without room"
        found_room = False
        if "what was there before is as it was" not in str(error):
            yield f"! told: {error}"
    else:
        yield "exports that found room"
        found_room = True
    room.free()
    if found_room and overview(file).faults:
        yield f"! the file is not whole, with room for {limit} bytes"
    if not found_room and file.read_bytes() != before:
        yield f"! the former file is not what it was, with room for {limit} bytes"
    if left := left_in(file.parent):
        yield f"! left beside it: {left}"


@contextmanager
def cache_with_many() -> Iterator[CacheManager[Any]]:
    with CacheManager(CacheConfig(tiers=[{"backend": "memory"}]), entry_type=Numbered) as cache:
        cache.put_many(entries(FIRST))
        yield cache


# -- planted faults ----------------------------------------------------------------------------------------------------


def in_place(self: FileBeside, path: Path) -> None:
    """Write over the former file."""
    self._path, self.size = path, 0
    self._temporary = path
    path.unlink(missing_ok=True)
    self._descriptor = files.create(str(path))


def named_too_early(self: FileBeside, data: bytes) -> None:
    half = len(data) // 2
    files.append(self._descriptor, data[:half])
    if self._temporary.exists():
        files.replace(str(self._temporary), str(self._path))
        sleep(MOST_SECONDS / 2)
    files.append(self._descriptor, data[half:])
    self.size += len(data)


def half_done(self: Placing[Any], records: list[Any]) -> set[str]:
    return _place(self, records[: len(records) // 2])


def swallowed(self: FileBeside, data: bytes) -> None:
    with suppress(OSError):
        files.append(self._descriptor, data)


_place: Final = Placing.place
IN_PLACE: Final[Faults] = {
    "it is written in place of the former file": lambda: patch.object(FileBeside, "__init__", in_place)
}
TRIALS: Final = (
    Trial(
        1,
        "kill -9 of an export",
        kills_of_exports,
        {
            "what a killed export left stays": lambda: patch.object(beside, "remove_stale", lambda _: 0),
            "the file takes its name before it is whole": lambda: patch.multiple(
                FileBeside, append=named_too_early, finish=lambda *_: None
            ),
        },
    ),
    Trial(
        1,
        "kill -9 of an import",
        kills_of_imports,
        {"a batch is put by half": lambda: patch.object(Placing, "place", half_done)},
    ),
    Trial(
        4,
        "RLIMIT_FSIZE, export",
        no_room,
        {
            **IN_PLACE,
            "the temporary file is left behind": lambda: patch.object(files, "unlink", lambda _: None),
            "an error of the disk is not told": lambda: patch.object(FileBeside, "append", swallowed),
        },
    ),
)
