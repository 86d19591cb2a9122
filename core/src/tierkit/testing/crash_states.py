"""What a power cut may leave of files, built from a log of what was done to them.

The model is that of Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014), and of CrashMonkey (Mohan et
al., OSDI 2018), at its weakest: what POSIX promises, and no more.

- An operation is durable once a flush of its file, or for a name of its directory, has come after it. A flush of a file
  does not flush its name, and a flush of a directory not what is in its files.
- Of those that are not durable each may have reached the medium or not, in any order: on different files, in different
  directories, and within one.
- Of a write any part may be there. What lies between two parts, or before the size that has reached the medium, is
  zeros.
- A change of one directory is there or not: a rename is never half done.

Data that are not durable are there as a prefix of the writes (whose last one is cut, or ends in zeros), or as some of
them. That is a sample where there are many, drawn by a seed; those that leave out all, nothing, all names, all data, or
one name are always among the states of a point.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tierkit.testing.file_log import (
    Enter,
    File,
    FileLog,
    Note,
    Operation,
    Remove,
    Sync,
    SyncDirectory,
    Truncate,
    Write,
)

Change = Write | Truncate
NameChange = Enter | Remove
Names = dict[str, File | None]


@dataclass(frozen=True)
class CrashState:
    """What may be found after a power cut.

    Attributes:
        point: How many operations of the log came before it.
        notes: What was noted before it.
        contents: The content of each file, by its path below the root; of a directory None.
    """

    point: int
    notes: tuple[Any, ...]
    contents: dict[str, bytes | None]

    def restore(self, folder: Path) -> None:
        """Make these files in `folder`, which is empty or not there."""
        folder.mkdir(mode=0o700, exist_ok=True)
        for path, content in sorted(self.contents.items()):
            if content is None:
                (folder / path).mkdir(mode=0o700)
            else:
                (folder / path).write_bytes(content)


def crash_states(log: FileLog, *, seed: int = 1, samples: int = 4, every: int = 1) -> Iterator[CrashState]:
    """The states after a power cut, at each point of the log; none twice with the same notes.

    Args:
        log: What was done.
        seed: Decides on the sample.
        samples: How many are drawn at random for each point, besides those that are always there.
        every: Look at each so-manieth point only.
    """
    chance = random.Random(seed)
    disk = _Disk()
    notes: list[Any] = []
    seen: set[int] = set()
    for point, operation in enumerate([*log.operations, Note(None)]):
        if point % every == 0:
            for contents in disk.states(chance, samples):
                told = hash((len(notes), *sorted(contents.items())))
                if told not in seen:
                    seen.add(told)
                    yield CrashState(point, tuple(notes), contents)
        if isinstance(operation, Note):
            notes.append(operation.what)
        else:
            disk.take(operation)


class _Disk:
    """What is on the medium for certain, and what may be."""

    def __init__(self) -> None:
        self.durable: defaultdict[File, bytes] = defaultdict(bytes)
        self.names: defaultdict[str, Names] = defaultdict(dict)
        self.changes: defaultdict[File, list[Change]] = defaultdict(list)
        self.name_changes: defaultdict[str, list[NameChange]] = defaultdict(list)

    def take(self, operation: Operation) -> None:
        """An operation was done."""
        if isinstance(operation, Write | Truncate):
            self.changes[operation.file].append(operation)
        elif isinstance(operation, Enter | Remove):
            self.name_changes[operation.directory].append(operation)
        elif isinstance(operation, Sync):
            self.durable[operation.file] = _changed(self.durable[operation.file], self.changes.pop(operation.file, []))
        elif isinstance(operation, SyncDirectory):
            _rename(self.names[operation.directory], self.name_changes.pop(operation.directory, []))

    def states(self, chance: random.Random, samples: int) -> Iterator[dict[str, bytes | None]]:
        """Those that are always there, and then some by chance."""
        yield self._state(_all, _all)
        yield self._state(_none, _all)
        yield self._state(_all, _none)
        yield self._state(_none, _none)
        for left_out in [change for changes in self.name_changes.values() for change in changes]:
            yield self._state(_all, partial(_all_but, left_out))
        for _ in range(samples):
            yield self._state(lambda changes: _some(chance, changes), lambda changes: _any(chance, changes))

    def _state(
        self,
        keep: Callable[[Sequence[Change]], list[Change]],
        keep_names: Callable[[Sequence[NameChange]], list[NameChange]],
    ) -> dict[str, bytes | None]:
        contents: dict[str, bytes | None] = {}
        left: dict[File, bytes] = {}
        directories = [""]
        while directories:
            directory = directories.pop()
            names = dict(self.names[directory])
            _rename(names, keep_names(self.name_changes[directory]))
            for name, file in names.items():
                path = f"{directory}/{name}" if directory else name
                if file is None:
                    contents[path] = None
                    directories.append(path)
                else:
                    if file not in left:
                        left[file] = _changed(self.durable[file], keep(self.changes[file]))
                    contents[path] = left[file]
        return contents


def _changed(content: bytes, changes: Sequence[Change]) -> bytes:
    if not changes:
        return content
    data = bytearray(content)
    for change in changes:
        size = change.size if isinstance(change, Truncate) else change.offset
        data.extend(bytes(max(0, size - len(data))))
        if isinstance(change, Truncate):
            del data[size:]
        else:
            data[size : size + len(change.data)] = change.data
    return bytes(data)


def _rename(names: Names, changes: Sequence[NameChange]) -> None:
    for change in changes:
        if isinstance(change, Remove):
            names.pop(change.name, None)
        else:
            if change.instead_of is not None:
                names.pop(change.instead_of, None)
            names[change.name] = change.file


def _all(changes: Sequence[Any]) -> list[Any]:
    return list(changes)


def _all_but(left_out: NameChange, changes: Sequence[NameChange]) -> list[NameChange]:
    return [change for change in changes if change is not left_out]


def _none(_changes: Sequence[Any]) -> list[Any]:
    return []


def _any(chance: random.Random, changes: Sequence[NameChange]) -> list[NameChange]:
    return [change for change in changes if chance.random() < 0.5]


def _some(chance: random.Random, changes: Sequence[Change]) -> list[Change]:
    """A prefix whose last write is cut or ends in zeros, or some of them with one cut."""
    if not changes or chance.random() < 0.3:
        return list(changes)
    if chance.random() < 0.5:
        kept = list(changes[: chance.randint(1, len(changes))])
    else:
        kept = [change for change in changes if chance.random() < 0.5]
    if kept:
        kept[-1:] = _cut(chance, kept[-1])
    return kept


def _cut(chance: random.Random, change: Change) -> list[Change]:
    if isinstance(change, Truncate):
        return [change]
    whole = len(change.data)
    there = chance.randint(0, whole)
    cut: list[Change] = [Write(change.file, change.offset, change.data[:there])]
    if chance.random() < 0.3:
        cut.append(Write(change.file, change.offset + there, bytes(whole - there)))
    return cut
