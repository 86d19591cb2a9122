"""Children by spawn and forkserver, on tiers that their parent has open: nothing is lost, and nothing unseen.

They inherit nothing. Each imports this module, which therefore imports no more than a child needs.
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from math import inf
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import msgspec
from tests.faults.trials import Effort, Outcome, Trial

from tierkit import CacheTier, Row, TierContext
from tierkit_jsonl import FileCacheTier
from tierkit_jsonl.shard import Shard
from tierkit_sqlite import SQLiteCacheTier

CHILDREN: Final[Mapping[Effort, int]] = {"short": 1, "long": 10}
KEYS_OF_CHILD: Final = 20
METHODS: Final = ("spawn", "forkserver")
OPENERS: Final[Mapping[str, Callable[[Path], CacheTier[Row]]]] = {
    "JSON Lines": lambda root: FileCacheTier(TierContext(), root / "store", shards=1),
    "SQLite": lambda root: SQLiteCacheTier(TierContext(), root / "store.db"),
}


def rows_of(name: str) -> list[Row]:
    """What a child writes."""
    return [Row(f"{name}, {number}", 1, inf, "", {"text": name}) for number in range(KEYS_OF_CHILD)]


def write(root: Path, name: str) -> None:
    """Be a child: write to each tier, and increment what all increment."""
    for open_tier in OPENERS.values():
        with open_tier(root) as tier:
            for row in rows_of(name):
                assert tier.put(row) is None
                increment(tier)


def increment(tier: CacheTier[Row]) -> None:
    """Add one to a number, whoever else does."""
    replaced = False
    while not replaced:
        held = tier.get("counter")
        version = held.version if held else 0
        replaced = tier.replace(Row("counter", version + 1, inf, "", {"number": version + 1}), version)


def run(folder: Path, effort: Effort) -> Outcome:
    """The trial, in a process of its own, with which all that serves its children ends."""
    from tierkit.testing.suite.processes import forked

    with forked(partial(_run, folder, effort)) as child:
        while child.receive():
            pass
    return msgspec.json.decode((folder / "outcome").read_bytes(), type=Outcome)


def _run(folder: Path, effort: Effort, pipe: Connection) -> None:
    outcome = Outcome()
    with ExitStack() as stack:
        tiers = {kind: stack.enter_context(open_tier(folder)) for kind, open_tier in OPENERS.items()}
        for tier in tiers.values():
            increment(tier)
        with patch.dict(sys.modules, __main__=sys.modules[__name__]):  # for a child imports that, too
            names = []
            for number in range(CHILDREN[effort]):
                names += run_children(outcome, folder, number)
                pipe.send_bytes(b"1")
        for kind, tier in tiers.items():
            compare(outcome, kind, tier, names)
    (folder / "outcome").write_bytes(msgspec.json.encode(outcome))
    pipe.send_bytes(b"0")


def run_children(outcome: Outcome, folder: Path, number: int) -> list[str]:
    """Run a child of each kind, side by side; their names."""
    children: dict[str, Any] = {}
    for method in METHODS:
        context: Any = multiprocessing.get_context(method)
        name = f"{method} {number}"
        children[name] = context.Process(target=write, args=(folder, name))
        children[name].start()
        outcome.count(f"children by {method}")
    for name, process in children.items():
        process.join(60.0)
        outcome.check(process.exitcode == 0, f"{name} ended with {process.exitcode}")
    return list(children)


def compare(outcome: Outcome, kind: str, tier: CacheTier[Row], names: list[str]) -> None:
    """What the parent sees must be all that its children wrote."""
    rows = [row for name in names for row in rows_of(name)]
    lost = [row.key for row in rows if tier.get(row.key) != row]
    outcome.count("records looked for", len(rows))
    outcome.check(not lost, f"{kind}: the parent does not see {lost}")
    counter = tier.get("counter")
    expected = 1 + len(rows)
    outcome.check(counter and counter.version == expected, f"{kind}: {counter} after {expected} increments")


def obstacle() -> str:
    """Why there are no such children here."""
    return "" if set(METHODS) <= set(multiprocessing.get_all_start_methods()) else "needs spawn and forkserver"


def stale(shard: Shard) -> Any:
    """`Shard.current` that does not ask the file again."""
    return shard.log or shard._refresh()


TRIALS: Final = (
    Trial(
        12,
        "children by spawn and forkserver",
        run,
        {"what a child wrote is not looked for": lambda: patch.object(Shard, "current", stale)},
        obstacle,
    ),
)
