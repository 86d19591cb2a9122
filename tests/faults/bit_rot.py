"""Bits that flip, in every file of a store: no value is returned that was never written, and what else is lost.

A line of JSON Lines has a checksum, so the tier alone is tried. SQLite has none: there the check of the row tells, and
what is tried is the tier with the sealer, and a whole cache.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest.mock import patch
from zlib import crc32

from tests.faults import kept
from tests.faults.torn_tail import in_parts, logged
from tests.faults.trials import Effort, Outcome, Trial
from tests.plugins.jsonl_tools import held, open_store, row, shard

from tierkit import CacheConfigError, CacheStorageError, Row
from tierkit.sealing import Sealer
from tierkit_jsonl import lines, log
from tierkit_jsonl.lines import Place
from tierkit_jsonl.log import Log
from tierkit_sqlite import SQLiteCacheTier, salvage
from tierkit_sqlite.opening import Settings

MASKS: Final = (0x01, 0x20, 0x80, 0xFF)
KEYS: Final = tuple(f"key {n}" for n in range(60))
PAGE: Final = 4096
MOST: Final = 17
"""Records on a page, of those of this trial."""


def flipped(content: bytes, place: int, mask: int) -> bytes:
    """`content` with one byte changed."""
    changed = bytearray(content)
    changed[place] ^= mask
    return bytes(changed)


# -- JSON Lines ------------------------------------------------------------------------------------------------------


class Store(NamedTuple):
    """A shard, what it holds, and what it held before."""

    content: bytes
    newest: dict[str, Row]
    older: dict[str, Row]


def store_of_lines(folder: Path) -> Store:
    """A shard with lines of every kind, of which some have been overtaken."""
    older = {key: row(key, 1, old=1) for key in ("k2", "k3", "gone")}
    newest = {key: row(key, n + 5) for n, key in enumerate(("k1", "k2", "k3", "k4"))}
    with open_store(folder) as tier:
        tier.put_many(list(older.values()))
        tier.put_many(list(newest.values()))
        tier.delete("gone", 1)
    return Store(shard(folder).read_bytes(), newest, older)


def is_doubtful(content: bytes, place: int) -> bool:
    """Whether nothing says any more which older record a line overtakes.

    That is where what tells its key is hit, and the end of the last line, which then looks like one that was cut off.
    """
    if place == len(content) - 1:
        return True
    begin = content.rfind(b"\n", 0, place) + 1
    key = content.find(b'"key":"', begin)
    return begin + lines.HEAD_LENGTH <= place <= content.find(b'",', key) + 1


def rotting_lines(folder: Path, effort: Effort) -> Outcome:
    """A byte of a shard is changed: each one, by each mask."""
    outcome, chance = Outcome(), random.Random(7)
    store = store_of_lines(folder)
    places = range(len(store.content))
    for place in places if effort == "long" else sorted(chance.sample(places, 60)):
        for mask in MASKS if effort == "long" else MASKS[:2]:
            look_at_lines(folder, store, place, mask, outcome)
            if effort == "long" or place % 8 == 0:
                write_on(folder, store, f"byte {place} ^ {mask:02x}", outcome)
    rotting_meta(folder / "meta", outcome)
    return outcome


def look_at_lines(folder: Path, store: Store, place: int, mask: int, outcome: Outcome) -> None:
    """What a reader finds after one flip."""
    where = f"byte {place} ^ {mask:02x}"
    shard(folder).write_bytes(flipped(store.content, place, mask))
    with open_store(folder, read_only=True) as tier:
        found = held(tier)
    outcome.count("flips")
    lost = store.newest.keys() - found.keys()
    outcome.count("records lost", len(lost))
    outcome.check(len(lost) <= 1, f"{where}: {len(lost)} records lost")
    for key, value in found.items():
        if value == store.newest.get(key):
            continue
        outcome.check(value == store.older.get(key), f"{where}: a value that was never written")
        outcome.check(is_doubtful(store.content, place), f"{where}: an older record in place of a damaged newer one")
        outcome.count("older records where the key of the newer is lost")


def write_on(folder: Path, store: Store, where: str, outcome: Outcome) -> None:
    """The store takes a put, which is there afterwards."""
    with open_store(folder) as tier:
        outcome.check(tier.put(row("next", 99)) is None, f"{where}: the next put is refused")
    with open_store(folder) as tier:
        found = held(tier)
    outcome.check(found.pop("next", None) == row("next", 99), f"{where}: the next put did not survive")
    outcome.check(len(store.newest.keys() - found.keys()) <= 1, f"{where}: a write loses another record")


def rotting_meta(folder: Path, outcome: Outcome) -> None:
    """A byte of `meta.json` is changed: it costs nothing."""
    rows = {f"k{n}": row(f"k{n}", 1) for n in range(6)}
    with open_store(folder, shards=2) as tier:
        tier.put_many(list(rows.values()))
    meta = shard(folder).parent / "meta.json"
    content = meta.read_bytes()
    for place in range(len(content)):
        meta.write_bytes(flipped(content, place, MASKS[place % len(MASKS)]))
        with open_store(folder, shards=3) as tier:
            outcome.check(held(tier) == rows, f"meta.json, byte {place}: records lost")
        outcome.count("flips in meta.json")


# -- SQLite ----------------------------------------------------------------------------------------------------------


def read_by_tier(file: Path) -> kept.Found:
    """What a tier and the sealer give of each key."""
    with SQLiteCacheTier(kept.context(), file) as tier:
        return kept.read(tier, KEYS)


def read_by_cache(file: Path) -> kept.Found:
    """What a cache gives of each key."""
    with kept.cache({"backend": "sqlite", "path": file}) as cache:
        entries = {key: cache.get(key) for key in KEYS}
    return {key: kept.number_of(entry) for key, entry in entries.items() if entry is not None}


def rotting_database(folder: Path, effort: Effort) -> Outcome:
    """A bit of a database flips, and a tier or a cache reads every record."""
    outcome, chance = Outcome(), random.Random(7)
    file = folder / "written" / "store.db"
    newest = {key: n % 3 + 1 for n, key in enumerate(KEYS)}
    with SQLiteCacheTier(kept.context(), file) as tier:
        for version in (1, 2, 3):
            tier.put_many([kept.row(key, version) for key in KEYS if newest[key] >= version])
        tier.delete_many({key: newest[key] for key in KEYS[::20]})
    newest = {key: version for key, version in newest.items() if key not in KEYS[::20]}
    content = file.read_bytes()
    outcome.count("bytes in the database", len(content))
    inside = content.find(b"key 31 2 key 31 2")
    outcome.check(inside > 0, "no record found in the file")
    head = inside // PAGE * PAGE + 3  # of its page: how many rows there are on it
    others = [chance.randrange(len(content)) for _ in range(598 if effort == "long" else 6)]
    for number, place in enumerate([inside, head, *others]):
        damaged = kept.copied(folder / str(number) / "store.db", flipped(content, place, 1 << chance.randrange(8)))
        try:
            found = (read_by_tier, read_by_cache)[number % 2](damaged)
        except (CacheStorageError, CacheConfigError):
            outcome.count("refused at open")
            found = {}
        judge(found, newest, place, outcome)
    return outcome


def judge(found: kept.Found, newest: kept.Found, place: int, outcome: Outcome) -> None:
    """Count what one flip did to a database."""
    where = f"byte {place}"
    outcome.count("flips")
    outcome.check(kept.WRONG not in found.values(), f"{where}: a value that was never written")
    outcome.count("older records", sum(version != newest.get(key) for key, version in found.items()))
    lost = len(newest.keys() - found.keys())
    if place < PAGE and lost == len(newest):
        outcome.count("all records lost, in the first page")
        return
    outcome.check(lost <= MOST, f"{where}: {lost} records lost, more than a page holds")
    outcome.count("one record lost", lost == 1)
    outcome.count("more records lost", lost > 1)
    outcome.counts["most lost by a flip"] = max(outcome.counts.get("most lost by a flip", 0), lost)


def rotting_log(folder: Path, effort: Effort) -> Outcome:
    """A bit of the write-ahead log flips: what is found was committed, up to where the log ends now."""
    outcome, chance = Outcome(), random.Random(7)
    database, written, states = logged(folder, 40 if effort == "long" else 12)
    prefixes = [state for _, state in states]
    for _ in range(600 if effort == "long" else 12):
        place = chance.randrange(len(written))
        file = kept.copied(folder / "rotten" / "store.db", database)
        Path(f"{file}-shm").unlink(missing_ok=True)
        Path(f"{file}-wal").write_bytes(flipped(written, place, 1 << chance.randrange(8)))
        with SQLiteCacheTier(kept.context(), file) as tier:
            found = kept.scanned(tier)
        outcome.count("flips")
        outcome.check(found in [*prefixes, {}], f"byte {place}: not what was committed")
        outcome.count("the log ends earlier", found != prefixes[-1])
    return outcome


# -- planted faults --------------------------------------------------------------------------------------------------


def reframed(line: bytes) -> bytes:
    """`line` with the checksum that it should have."""
    covered = line[lines.HEAD_LENGTH :]
    return b'{"crc":"%08x' % crc32(covered) + covered


def unchecked() -> AbstractContextManager[object]:
    """The checksum of a line is not compared."""
    true, decode = Log._read_block, lines.decode_row

    def read_block(self: Log, block: bytes, horizon: float) -> None:
        true(self, b"\n".join([reframed(line) for line in block[:-1].split(b"\n")]) + b"\n", horizon)

    def decode_row(line: bytes, place: Place) -> Row | None:
        return decode(reframed(line), place)

    return patched((Log, "_read_block", read_block), (log, "decode_row", decode_row))


def ended() -> AbstractContextManager[object]:
    """A damaged line ends the reading of its block."""
    true = Log._read_line

    def read_line(self: Log, line: bytes, offset: int, horizon: float) -> None:
        if not self.damage:
            true(self, line, offset, horizon)

    return patched((Log, "_read_line", read_line))


@contextmanager
def patched(*replaced: tuple[Any, str, Any]) -> Iterator[None]:
    """Several things are replaced."""
    with ExitStack() as stack:
        for target, name, value in replaced:
            stack.enter_context(patch.object(target, name, value))
        yield


FAULTS_OF_LINES: Final[dict[str, Callable[[], AbstractContextManager[object]]]] = {
    "the checksum of a line is not compared": unchecked,
    "a damaged line ends reading": ended,
    "an older record is served in place of a damaged newer one": lambda: patched((log, "salvage", lambda _: None)),
}
TRIALS: Final = (
    Trial(7, "bit rot in JSON Lines", rotting_lines, FAULTS_OF_LINES),
    Trial(
        7,
        "bit rot in a SQLite database",
        rotting_database,
        {
            "the check of a row is ignored": lambda: patched((Sealer, "_fits", lambda *_: True)),
            "a damaged page is not repaired": lambda: patched((Settings, "rebuild", lambda *_: False)),
            "a damaged page ends what is brought over": lambda: patched((salvage, "_beyond", lambda *_: 2**63 - 1)),
        },
    ),
    Trial(
        7,
        "bit rot in SQLite's log",
        rotting_log,
        {"a bulk write is committed in parts": lambda: patched((SQLiteCacheTier, "put_many", in_parts))},
    ),
)
