"""Files that each released version wrote are read, and hold what is stated beside them.

A format that changes needs a sample of its own: `uv run python -m scripts.write_format_samples` writes it.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from scripts.write_format_samples import FOLDER, FORMATS, SCHEMA, stated
from tests.faults.trials import Effort, Outcome, Trial
from tests.tiers import DictBlobTier

from tierkit import CacheConfig, CacheManager, CacheTier, ProxyEntry, Row, TierContext, sealing
from tierkit.testing import FakeClock
from tierkit_jsonl import FileCacheTier, log
from tierkit_jsonl.lines import Note, decode_note
from tierkit_sqlite import SQLiteCacheTier, schema


def samples() -> Iterator[tuple[Path, dict[str, Any]]]:
    """The folder of each version, and what is stated in it."""
    for folder in sorted(FOLDER.iterdir()):
        yield folder, json.loads((folder / "expected.json").read_text("utf-8"))


def lacking() -> list[str]:
    """The present formats of which there is no sample."""
    there = [expected["formats"] for _, expected in samples()]
    return [f"{name} {number}" for name, number in FORMATS.items() if not any(f.get(name) == number for f in there)]


def copied(sample: Path, folder: Path) -> Path:
    """A copy of a sample, for its owner only: git does not keep modes."""
    shutil.copytree(sample, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return folder


def context(expected: dict[str, Any]) -> TierContext:
    """What a tier is told that reads a sample: the time is soon after it was written."""
    now: float = expected["now"]
    return TierContext(namespace=SCHEMA.namespace, columns=SCHEMA.columns, now=lambda: now)


def blobs(context: TierContext, folder: Path) -> DictBlobTier:
    """A tier that holds the envelopes of a dump."""
    tier = DictBlobTier(context)
    dump = json.loads((folder / "blobs.json").read_text("utf-8"))
    tier.blobs.update({key: base64.b64decode(blob) for key, blob in dump.items()})
    return tier


OPENERS: Final[Mapping[str, Callable[[TierContext, Path], CacheTier[Row]]]] = {
    "jsonl": FileCacheTier,
    "sqlite": lambda context, folder: SQLiteCacheTier(context, folder / "tierkit.db"),
    "blobs": blobs,
}


def read(folder: Path, effort: Effort) -> Outcome:
    """Every sample of every version."""
    outcome = Outcome()
    outcome.check(not lacking(), f"no sample of {', '.join(lacking())}: run scripts.write_format_samples")
    for sample, expected in samples():
        copy = copied(sample, folder / sample.name)
        outcome.count("versions")
        for name, opener in OPENERS.items():
            with opener(context(expected), copy / name) as tier:
                compare(tier, f"{sample.name}, {name}", expected, name, outcome)
        compare_cache(copy, expected, outcome)
    return outcome


def compare(tier: CacheTier[Row], where: str, expected: dict[str, Any], name: str, outcome: Outcome) -> None:
    """What a tier holds, and what it refuses."""
    found = {row.key: stated(row) for row in tier.scan()}
    for wanted in expected["rows"]:
        held = tier.get(wanted["key"])
        outcome.check(held is not None and stated(held) == wanted, f"{where}: {wanted['key']} is not as stated")
        outcome.check(found.pop(wanted["key"], None) == wanted, f"{where}: {wanted['key']} is scanned otherwise")
        outcome.count("records")
    outcome.check(not found, f"{where}: more than is stated")
    for key, version in expected["refused"][name].items():
        outcome.check(tier.put(Row(key, version, 4e9, "", {})) is not None, f"{where}: a mark is not kept")
        outcome.count("marks")


def compare_cache(folder: Path, expected: dict[str, Any], outcome: Outcome) -> None:
    """What a cache over the stores of both kinds answers, with the key file of that version."""
    tiers = (
        {"backend": "jsonl", "path": folder / "jsonl"},
        {"backend": "sqlite", "path": folder / "sqlite/tierkit.db"},
    )
    config = CacheConfig(encryption_key_file=folder / "encryption.key", tiers=tiers)
    with CacheManager(config, entry_type=ProxyEntry, clock=FakeClock(expected["now"])) as cache:
        for wanted in expected["rows"]:
            if "entry" not in wanted:
                continue
            entry = cache.get(wanted["key"])
            shown = wanted["entry"]
            same = entry is not None and (entry.proxy_url, entry.source, entry.failure_count) == (
                shown["proxy_url"],
                shown["source"],
                shown["failure_count"],
            )
            secret = entry.password.get_secret_value() if entry is not None and entry.password is not None else ""
            outcome.check(same and secret == shown["password"], f"a cache does not give {wanted['key']} as stated")
            outcome.count("entries")


def renamed(line: bytes) -> Note:
    """A faulty reader, which looks for a field under another name."""
    return decode_note(line.replace(b'"purge_at":', b'"until":', 1))


def planted(target: object, name: str, value: object) -> Callable[[], AbstractContextManager[object]]:
    """A fault that is one replaced thing."""
    return lambda: patch.object(target, name, value)


TRIALS: Final = (
    Trial(
        18,
        "old formats",
        read,
        {
            "a line's field is read by another name": planted(log, "decode_note", renamed),
            "lines of format 1 are refused": planted(log, "FORMAT", 0),
            "databases of format 1 are refused": planted(schema, "FORMAT", 0),
            "tokens and checks are bound to another version": planted(sealing, "SCHEMA_VERSION", 2),
        },
    ),
)
