"""Hostile input: anything at all, where a file, a row, a variable or a URL is read.

What is read, and what must hold of each, stands in `tests/fuzz/targets.py`. The short form gives each target its kept
inputs and some mutations of them; the long form fuzzes it for a minute, or where there is no fuzzer mutates a hundred
thousand times.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch
from zlib import crc32

import msgspec
from tests.faults.trials import Effort, Outcome, Trial
from tests.fuzz.inputs import kept, mutations
from tests.fuzz.runner import fuzzed, obstacle
from tests.fuzz.targets import TARGETS

from tierkit import EncryptionKeyError, Row, blob, keys, proxy_url, settings_sources
from tierkit.keys import KeyRing
from tierkit.transfer import files, jsonl_lines
from tierkit.transfer.report import RejectedRows
from tierkit_jsonl import lines, log, store
from tierkit_jsonl.lines import Place
from tierkit_sqlite import statements

Fault = Callable[[], AbstractContextManager[object]]

SECONDS: Final = 60.0
MANY: Final = 100_000
MOST_TOLD: Final = 3
DECODED: Final = {"jsonl_line": 200, "blob": 200}
"""Targets, and how many mutations each gets in the short form: those that open a store take long."""
STORED: Final = {"jsonl_shard": 2, "jsonl_meta": 2, "sqlite_row": 2}
NAMES: Final = {"name": 1}
IMPORTS: Final = {"import_csv": 25, "import_json": 25, "import_jsonl": 25, "import_list": 25, "import_packed": 0}
GIVEN: Final = {"toml": 20, "environment": 40, "keys": 100, "key_file": 20, "token": 100, "proxy_url": 200}
LONG_ONLY: Final = ("import_compressed",)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the thousands of log lines about what is wrong with it."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def tried(outcome: Outcome, target: str, inputs: Iterable[bytes]) -> None:
    """Give a target its inputs, up to a few violations."""
    found = 0
    for data in inputs:
        outcome.count("inputs")
        try:
            TARGETS[target](data)
        except Exception as error:  # noqa: BLE001 - whatever comes out that must not
            outcome.check(False, f"{target}: {type(error).__name__}: {error}"[:300])
            found += 1
        if found == MOST_TOLD:
            break


def hunted(outcome: Outcome, target: str, short: int, effort: Effort) -> None:
    """Run a target in a form."""
    inputs = list(kept(target).values())
    outcome.count("targets")
    tried(outcome, target, inputs)
    if effort == "short" or obstacle():
        tried(outcome, target, mutations(inputs, short if effort == "short" else MANY))
        return
    result = fuzzed(target, SECONDS)
    outcome.count("inputs", result.executions)
    for what in result.findings.values():
        outcome.check(False, f"{target}: {what}")


def trial(what: str, targets: Mapping[str, int], faults: Mapping[str, Fault], long_only: Iterable[str] = ()) -> Trial:
    """The trial of some targets."""

    def run(_: Path, effort: Effort) -> Outcome:
        outcome = Outcome()
        with quiet():
            for target in (*targets, *(long_only if effort == "long" else ())):
                hunted(outcome, target, targets.get(target, 0), effort)
                if effort == "short" and outcome.violations:
                    break
        return outcome

    return Trial(15, f"hostile input, {what}", run, faults)


# -- faults ------------------------------------------------------------------------------------------------------------


def careless_unpacking() -> AbstractContextManager[object]:
    """A fault: what is nested too deep raises an error of Python."""

    def unpack(data: bytes) -> Any:
        try:
            return blob._decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None

    return patch.object(blob, "_unpack", unpack)


def lenient_line() -> AbstractContextManager[object]:
    """A fault: a line is taken whose checksum is wrong."""
    true = lines.decode_row

    def decode(line: bytes, place: Place) -> Row | None:
        return true(b'{"crc":"%08x' % crc32(line[16:]) + line[16:], place)

    return patch.object(lines, "decode_row", decode)


def telling_keys() -> AbstractContextManager[object]:
    """A fault: an error repeats a malformed key."""

    def refuse(text: str) -> bool:
        if len(text) != 44:
            raise EncryptionKeyError(f"{text} is malformed")
        return True

    return patch.object(keys, "is_key", refuse)


TRIALS: Final = (
    trial(
        "lines and blobs",
        DECODED,
        {
            "a blob that is nested too deep raises a foreign error": careless_unpacking,
            "a line is taken whose checksum is wrong": lenient_line,
        },
    ),
    trial(
        "stores",
        STORED,
        {
            "a version of any size is taken": lambda: patch.object(log, "number_of", int),
            "what a table does not declare is taken as it is": lambda: patch.object(statements, "decode", json.loads),
        },
    ),
    trial(
        "names",
        NAMES,
        {".. is taken as the name of a folder": lambda: patch.object(store, "check_namespace", lambda _: None)},
    ),
    trial(
        "imports",
        IMPORTS,
        {
            "a line over the limit is taken": lambda: patch.object(files, "MAX_LINE_BYTES", 2**40),
            "rows of any depth are taken": lambda: patch.object(jsonl_lines, "MAX_DEPTH", 2**40),
            "a row that is skipped is not counted": lambda: patch.object(RejectedRows, "reject"),
        },
        LONG_ONLY,
    ),
    trial(
        "settings, keys, tokens and URLs",
        GIVEN,
        {
            "JSON that is nested too deep raises a foreign error": lambda: patch.object(
                settings_sources, "_json", json.loads
            ),
            "an error repeats a key": telling_keys,
            "a key that is not held raises a foreign error": lambda: patch.object(
                KeyRing, "get", lambda ring, key_id: ring._keys[key_id]
            ),
            "an error repeats a password": lambda: patch.object(proxy_url, "redact", str),
        },
    ),
)
