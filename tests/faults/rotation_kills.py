"""Kill -9 of a writer that rotates keys, again and again, with writes beside it, and what is left of the old key.

After each kill everything is read with both keys. After every third a rotation is brought to its end, writes coming
between the reading of a record and what is done with it; then the new key alone must do, and no byte of any file may
name the old one.
"""

from __future__ import annotations

import base64
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final, Self
from unittest.mock import patch

from pydantic import SecretStr
from tests.faults.kills import KEYS, Hunt, Numbered, StackStore, Step, Values
from tests.faults.trials import Effort, Outcome, Trial

from tierkit import CacheConfig, CacheManager, Row, revising, rotation
from tierkit.keys import KeyRing, parse_keys
from tierkit.level import Level
from tierkit.progress import Meter
from tierkit.sealing import Sealer
from tierkit_jsonl import FileCacheTier
from tierkit_sqlite import SQLiteCacheTier

STILL: Final = tuple(f"still {number}" for number in range(40))
"""Records that no writer touches: they must be found at every moment."""
FAILURES: Final = 2
"""Counted for each of these."""
BETWEEN: Final = KEYS[:3]
SHORT, LONG, PER_ROTATION = 2, 50, 3
MOST_SECONDS: Final = 0.05
Layout = Callable[[Path], list[dict[str, Any]]]
LAYOUTS: Final[dict[str, Layout]] = {
    "memory, jsonl": lambda root: [memory(), jsonl(root)],
    "memory, sqlite": lambda root: [memory(), sqlite(root)],
    "memory, jsonl, sqlite": lambda root: [memory(), jsonl(root, max_entries=25), sqlite(root)],
}


def memory() -> dict[str, Any]:
    return {"backend": "memory", "max_entries": 5}


def jsonl(root: Path, **more: Any) -> dict[str, Any]:
    return {"backend": "jsonl", "path": root / "store", "shards": 2, **more}


def sqlite(root: Path) -> dict[str, Any]:
    return {"backend": "sqlite", "path": root / "store.db"}


def key_of(number: int) -> str:
    return base64.urlsafe_b64encode(random.Random(number).randbytes(32)).decode()


class SealedStore(StackStore):
    """A stack whose records are sealed with the first of some keys.

    Attributes:
        lost: How many of the records that nobody touches were not found, or not as they were.
    """

    def __init__(self, layout: Layout, keys: Sequence[str], root: Path, *, read_only: bool = False) -> None:
        config = CacheConfig(
            encryption_key=SecretStr(",".join(keys)),
            tiers=layout(root),
            failure_threshold=1000,
        )
        self.list = root / "list.jsonl"
        self.cache = CacheManager(config, entry_type=Numbered, read_only=read_only)
        self.lost = 0

    def __enter__(self) -> Self:
        return self

    def fill(self) -> None:
        """Put what is there from the beginning."""
        self.do(Step(0, "put_many", (*KEYS, *STILL)))
        for _ in range(FAILURES):
            self.cache.record_health(dict.fromkeys(STILL, False))

    def do(self, step: Step) -> None:
        if step.what == "compact":  # the rotation does
            self.cache.sweep()
        else:
            super().do(step)

    def look(self) -> None:
        """Look for what nobody touches."""
        self.lost += sum(not self.is_as_it_was(self.cache.get(key)) for key in STILL)

    def is_as_it_was(self, found: Numbered | None) -> bool:
        return found is not None and self.is_whole(found) and (found.number, found.failure_count) == (0, FAILURES)

    def found(self) -> tuple[Values, Values]:
        self.look()
        read, scanned = super().found()
        self.lost += sum(scanned.pop(key, None) != 0 for key in STILL)
        return read, scanned


class RotatingStore(SealedStore):
    """One that rotates its keys while it is written to."""

    def __enter__(self) -> Self:
        threading.Thread(target=self.cache.rotate, daemon=True).start()
        return self


@dataclass
class Campaign:
    """Rotation after rotation in one store.

    Attributes:
        layout: Of its levels.
        hunt: Of its writers.
        outcome: What came of it.
        number: Of the current key.
    """

    layout: Layout
    hunt: Hunt
    outcome: Outcome = field(default_factory=Outcome)
    number: int = 0

    def __post_init__(self) -> None:
        with self.opened(self.number) as store:
            store.fill()
        self.hunt.allowed = {key: {0} for key in KEYS}

    def opened(self, *numbers: int, read_only: bool = False) -> SealedStore:
        keys = [key_of(number) for number in numbers]
        return SealedStore(self.layout, keys, self.hunt.root, read_only=read_only)

    def kill(self) -> None:
        """Kill a writer that brings everything to the next key."""
        both = [key_of(self.number + 1), key_of(self.number)]
        writer = partial(RotatingStore, self.layout, both)
        readers: list[SealedStore] = []

        def reader(root: Path) -> SealedStore:
            readers.append(SealedStore(self.layout, both, root))
            return readers[-1]

        with self.opened(self.number, self.number + 1, read_only=True) as beside:
            self.hunt.kill(writer, reader, beside.look)
        for who, lost in (("a reader beside", beside.lost), ("a reader afterwards", readers[0].lost)):
            self.outcome.check(not lost, f"{who} missed {lost} records that nobody touched")
        self.outcome.count("kills")

    def finish(self) -> None:
        """Bring everything to the next key, and do without the last one."""
        old, self.number = self.number, self.number + 1
        with self.opened(old, self.number) as store:  # a program that writes with the old one still
            self.write(store, KEYS[:30])
        with self.opened(self.number, old) as store, self.writes_between(store):
            result = store.cache.rotate()
            self.outcome.check(result.complete, f"the old key cannot go: {result}")
        names = sum(mentions(self.hunt.root, parse_keys(key_of(old)).primary.id))
        self.outcome.check(not names, f"{names} times the id of the old key is in a file")
        with self.opened(self.number) as store:
            found = store.found()
            self.outcome.check(store.cache.key_status().complete, "records name another key than the new one")
        expected = {key: {values.get(key) for values in found} for key in KEYS}
        self.outcome.check(
            not store.lost, f"with the new key alone {store.lost} records that nobody touched were missed"
        )
        self.outcome.check(expected == self.hunt.allowed, "with the new key alone other values were found")
        self.outcome.count("rotations finished")
        self.outcome.count("ids of old keys left in files", names)

    def write(self, store: SealedStore, keys: tuple[str, ...]) -> None:
        step = Step(self.hunt.first, "put_many", keys)
        store.do(step)
        self.hunt.first += 1
        self.hunt.allowed |= {key: {step.value} for key in keys}

    @contextmanager
    def writes_between(self, store: SealedStore) -> Iterator[None]:
        """Let writes come, once, between the reading of a batch of records and what is done with it."""
        tier, rounds = store.cache.levels[-1].tier, count()
        scanned = tier.scan

        def scan() -> Iterator[Row]:
            first = next(rounds) == 0
            yield from scanned()
            if first:
                self.write(store, BETWEEN)

        with patch.object(tier, "scan", scan):
            yield


def mentions(root: Path, key_id: str) -> Iterator[int]:
    """How often each file below `root` names a key, as it is and as a part of Base64."""
    spellings = {key_id.encode(), *(spelled(key_id, offset) for offset in range(3))}
    for path in (path for path in root.rglob("*") if path.is_file()):
        content = path.read_bytes()
        yield sum(map(content.count, spellings))


def spelled(key_id: str, offset: int) -> bytes:
    """What Base64 of a text with `key_id` in it always holds, where that begins at an `offset` within three bytes."""
    coded = base64.b64encode(b"." * offset + key_id.encode())
    return coded[offset and offset + 1 : (offset + len(key_id)) * 4 // 3]


# -- planted faults ----------------------------------------------------------------------------------------------------


def all_of(*patches: Callable[[], AbstractContextManager[object]]) -> AbstractContextManager[object]:
    with ExitStack() as stack:
        for planted in patches:
            stack.enter_context(planted())
        return stack.pop_all()


def skips_levels_above() -> AbstractContextManager[object]:
    """Neither in the rotation nor in the scan that ends it is there anything but the authority."""
    status = rotation._level_keys

    def authority_only(level: Level, sealer: Sealer, primary: str, meter: Meter) -> rotation.LevelKeys:
        return status(level, sealer, primary, meter) if level.kind == "sqlite" else rotation.LevelKeys(name="", kind="")

    return all_of(
        lambda: patch.object(revising.Revision, "store_copies", lambda *_, **__: None),
        lambda: patch.object(rotation.Rotation, "_bring_in_line", lambda *_: 0),
        lambda: patch.object(rotation, "_level_keys", authority_only),
    )


def does_not_compact() -> AbstractContextManager[object]:
    return all_of(
        lambda: patch.object(FileCacheTier, "compact", lambda _: None),
        lambda: patch.object(SQLiteCacheTier, "compact", lambda _: None),
    )


def leaves_tokens() -> AbstractContextManager[object]:
    return patch.object(Sealer, "_resealed_token", lambda _, row, column, *__: row.columns[column])


def takes_them_for_foreign() -> AbstractContextManager[object]:
    get = KeyRing.get
    return patch.object(KeyRing, "get", lambda ring, key: get(ring, key) if key == ring.primary.id else None)


def replaces_what_is_newer() -> AbstractContextManager[object]:
    def replace_all(authority: Level, replacements: Sequence[tuple[Row, int]]) -> list[bool]:
        answers = authority.write(authority.tier.put_many, [row for row, _ in replacements])
        return [answer is None for answer in answers]

    return patch.object(revising, "replace_all", replace_all)


def forgets_health() -> AbstractContextManager[object]:
    resealed = Sealer.resealed

    def forgetful(sealer: Sealer, row: Row, version: int, more: Mapping[str, Any]) -> Row:
        return resealed(sealer, row, version, {**more, "failure_count": 0})

    return patch.object(Sealer, "resealed", forgetful)


FAULTS: Final = {
    "rows are not compacted away": does_not_compact,
    "the check is made anew and the tokens are not": leaves_tokens,
    "rows of the other key are taken for foreign": takes_them_for_foreign,
    "an older write replaces a newer one": replaces_what_is_newer,
    "health is forgotten": forgets_health,
    "rows of the levels above are skipped": skips_levels_above,
}


def trial(name: str, layout: Layout, faults: Sequence[str]) -> Trial:
    """The trial of a stack."""

    def tried(folder: Path, effort: Effort) -> Outcome:
        campaign = Campaign(layout, Hunt(folder, most_seconds=MOST_SECONDS))
        for number in range(1, (LONG if effort == "long" else SHORT) + 1):
            campaign.kill()
            if number % PER_ROTATION == 0:
                campaign.finish()
        campaign.finish()
        tally, outcome = campaign.hunt.tally, campaign.outcome
        outcome.check(not tally.lost, f"{tally.lost} acknowledged writes lost")
        outcome.check(not tally.wrong, f"{tally.wrong} wrong values")
        outcome.count("acknowledged calls", tally.acknowledged)
        outcome.count("records found as acknowledged", tally.survived)
        return outcome

    return Trial(10, f"kill -9 of a rotation of {name}", tried, {fault: FAULTS[fault] for fault in faults})


TRIALS: Final = (
    trial("memory, jsonl", LAYOUTS["memory, jsonl"], tuple(FAULTS)[:1]),
    trial("memory, sqlite", LAYOUTS["memory, sqlite"], tuple(FAULTS)[:2]),
    trial("memory, jsonl, sqlite", LAYOUTS["memory, jsonl, sqlite"], tuple(FAULTS)),
)
