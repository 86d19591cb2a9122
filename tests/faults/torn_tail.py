"""Tails that are torn or full of garbage: of a log of JSON Lines, and of the write-ahead log of SQLite.

What is found is an exact prefix of what was written, and the next put survives.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from tests.faults import kept
from tests.faults.trials import Effort, Outcome, Trial
from tests.plugins.jsonl_tools import held, open_store, row, shard

from tierkit import Delta, Row, files
from tierkit_jsonl import FileCacheTier
from tierkit_sqlite import SQLiteCacheTier

STEPS: Final = 200
SHORT: Final = 40
States = list[dict[str, Any]]
"""What was held at first, and after each write."""


def steps(tier: FileCacheTier, count: int) -> Iterator[Callable[[], object]]:
    """Writes of every kind, each of one line. Some keys are written again."""
    for n in range(1, count + 1):
        fresh, old = f"é{n}", f"é{n - 6}"
        yield (
            lambda n=n, key=fresh: tier.put(row(key, n)),
            lambda n=n, key=old: tier.put(row(key, n)),
            lambda n=n, key=fresh: tier.put(row(key, n)),
            lambda n=n, key=fresh: tier.put(row(key, n)),
            lambda n=n: tier.touch_many({f"é{n - 1}": Delta(n, float(n))}),
            lambda n=n: tier.delete(f"é{n - 2}", n),
            lambda n=n: tier.discard(row(f"é{n - 4}", n - 4)),
        )[n % 7]


def written(folder: Path, count: int) -> tuple[bytes, States]:
    """A log of `count` lines, not counting its header, and what it held after each."""
    with open_store(folder) as tier:
        states: States = [held(tier)]
        for step in steps(tier, count):
            step()
            states.append(held(tier))
    return shard(folder).read_bytes(), states


def cut_logs(folder: Path, effort: Effort) -> Outcome:
    """The log cut off at every byte, and each of its lines followed by garbage."""
    outcome, chance = Outcome(), random.Random(6)
    content, states = written(folder, STEPS if effort == "long" else 30)
    ends = [n + 1 for n, byte in enumerate(content) if byte == 0x0A]
    outcome.check(len(ends) == len(states), f"{len(ends)} lines for {len(states)} states")
    sizes: Sequence[int] = range(len(content) + 1)
    for size in sizes if effort == "long" else sorted(chance.sample(sizes, SHORT)):
        lines = sum(end <= size for end in ends)
        writes = effort == "short" or size % 16 == 0 or {size - 1, size, size + 1} & set(ends)
        look(folder, content[:size], states[max(0, lines - 1)], outcome, f"cut at byte {size}", writes=bool(writes))
        outcome.count("cuts")
    lines_of = list(zip([0, *ends], ends, strict=False))
    for number, (begin, end) in enumerate(lines_of if effort == "long" else chance.sample(lines_of, SHORT // 4)):
        for name, garbage in garbages(content[begin:end], chance):
            expected = states[ends.index(end)]
            look(folder, content[:end] + garbage, expected, outcome, f"{name} behind line {number}")
            outcome.count("tails of garbage")
    return outcome


def garbages(line: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """What may stand behind a line. The half line is of a record, or of none, that is there already."""
    yield "zeros", bytes(200)
    yield "random bytes", chance.randbytes(200).replace(b"\n", b"-")
    yield "random bytes and a newline", chance.randbytes(200) + b"\n"
    yield "a part of a line and a newline", line[: chance.randrange(1, 24)] + b"\n"


def look(
    folder: Path, content: bytes, expected: dict[str, Row], outcome: Outcome, where: str, *, writes: bool = True
) -> None:
    """Read a log with this content; then put a record, and open it again."""
    shard(folder).write_bytes(content)
    with open_store(folder, read_only=True) as reader:
        outcome.check(held(reader) == expected, f"{where}: a reader finds no exact prefix")
    if not writes:
        return
    outcome.count("puts behind that")
    with open_store(folder) as tier:
        outcome.check(held(tier) == expected, f"{where}: no exact prefix")
        outcome.check(tier.put(row("next", 999)) is None, f"{where}: the next put is refused")
        after = expected | {"next": row("next", 999)}
        outcome.check(held(tier) == after, f"{where}: the next put is not there")
    with open_store(folder) as tier:
        outcome.check(held(tier) == after, f"{where}: the next put did not survive")
    outcome.check(not list(shard(folder).parent.glob("*.corrupt-*")), f"{where}: the file was moved aside")


def logged(folder: Path, count: int) -> tuple[bytes, bytes, list[tuple[int, kept.Found]]]:
    """A database and its log as a kill leaves them, and for each write how long the log then was and what was held."""
    file = folder / "written" / "store.db"
    log = Path(f"{file}-wal")
    with SQLiteCacheTier(kept.context(), file) as tier:
        states: list[tuple[int, kept.Found]] = []
        begun = log.stat().st_size
        for n in range(1, count + 1):
            if n % 5 == 0:
                tier.put_many([kept.row(f"key {n} {part}", n) for part in range(8)])
            elif n % 5 == 4:
                tier.delete(f"key {n - 1}", n)
            else:
                tier.put(kept.row(f"key {n % 12}", n))
            states.append((log.stat().st_size, kept.scanned(tier)))
        return file.read_bytes(), log.read_bytes(), [(begun, {}), *states]


def cut_log_of_sqlite(folder: Path, effort: Effort) -> Outcome:
    """The write-ahead log cut off at every 97th byte and between its pages, also with garbage behind that."""
    outcome, chance = Outcome(), random.Random(6)
    database, log, states = logged(folder, 60 if effort == "long" else 12)
    frames = range(32, len(log) + 1, 24 + 4096)  # a header, and pages each with one of their own
    sizes = sorted({*range(states[0][0], len(log), 97), *(size for size in frames if size >= states[0][0])})
    for size in sizes if effort == "long" else sorted(chance.sample(sizes, 6) + chance.sample(frames[-16:], 5)):
        for name, garbage in (("", b""), (" and garbage", chance.randbytes(5000))):
            where = f"cut at byte {size}{name}"
            expected = [state for length, state in states if length <= size][-1]
            file = kept.copied(folder / "cut" / "store.db", database)
            Path(f"{file}-shm").unlink(missing_ok=True)
            Path(f"{file}-wal").write_bytes(log[:size] + garbage)
            with SQLiteCacheTier(kept.context(), file) as tier:
                outcome.check(kept.scanned(tier) == expected, f"{where}: not what was committed")
                outcome.check(tier.put(kept.row("next", 999)) is None, f"{where}: the next put is refused")
            with SQLiteCacheTier(kept.context(), file) as tier:
                outcome.check(kept.scanned(tier) == expected | {"next": 999}, f"{where}: the next put did not survive")
            outcome.count(f"cuts{name}")
    return outcome


def in_parts(tier: SQLiteCacheTier, records: Sequence[Row]) -> list[int | None]:
    """A faulty bulk put, which commits record by record."""
    return [tier.put(record) for record in records]


def planted(*where: Any) -> Callable[[], AbstractContextManager[object]]:
    """A fault that is one replaced function."""
    return lambda: patch.object(*where)


TRIALS: Final = (
    Trial(
        6,
        "torn tail of JSON Lines",
        cut_logs,
        {
            "a torn tail is glued to the next line": planted(files, "truncate", lambda *_: None),
        },
    ),
    Trial(
        6,
        "torn tail of SQLite's log",
        cut_log_of_sqlite,
        {"a bulk write is committed in parts": planted(SQLiteCacheTier, "put_many", in_parts)},
    ),
)
