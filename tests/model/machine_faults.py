"""Faults planted in the engine and its tiers, to show that the state machine finds each.

`python -m tests.model.machine_faults [NAME ...]` runs the machine against each, says how it was found out, and exits
with 1 if one survives. What the machine meets too rarely is left to a test of the engine that the table names. To add
a fault, write a function that plants it with the patch that it gets, and mark it `@fault`.
"""

from __future__ import annotations

import logging
import multiprocessing
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.faults.planting import fails
from tests.model.machine import Machine

import tierkit_jsonl.order
import tierkit_memory
import tierkit_sqlite.work
from tierkit import CacheManager, CacheStorageError, TierkitError, blob, expiry, merging, reconciling, sliding
from tierkit.clearing import Clearing
from tierkit.clock import CacheTime
from tierkit.comparing import Comparing
from tierkit.entry import CacheEntry, Usage
from tierkit.level import Level
from tierkit.owing import Owing
from tierkit.row import is_owed
from tierkit.sealing import Sealer
from tierkit.stack import Stack
from tierkit.upkeep import Upkeep
from tierkit.usage import UsageLedger
from tierkit.writing import Writer

EXAMPLES: Final = 1500
"""How many the machine tries against a fault; most are found among the first."""
SOUND: Final = 300
"""How many it tries where nothing is planted, and must find nothing."""
WORKERS: Final = 2
ENGINE: Final = Path(__file__).parents[1] / "core" / "engine"

Plant = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class MachineFault:
    """Something wrong with the engine.

    Attributes:
        name: What the command calls it.
        what: What is wrong.
        plant: Plants it.
        test: The test of the engine that finds it, where the machine needs too long.
    """

    name: str
    what: str
    plant: Plant
    test: str | None = None


MACHINE_FAULTS: Final[list[MachineFault]] = []


def fault(what: str, test: str | None = None) -> Callable[[Plant], Plant]:
    """Add a fault to the table."""

    def add(plant: Plant) -> Plant:
        MACHINE_FAULTS.append(MachineFault(getattr(plant, "__name__", ""), what, plant, test))
        return plant

    return add


def _nothing(*_: Any, **__: Any) -> Any:
    return None


def _stretched(record: Any) -> Any:
    return msgspec.structs.replace(record, purge_at=record.purge_at + 1000)


@fault("an expired record is returned")
def expired_returned(patch: pytest.MonkeyPatch) -> None:
    true = Stack.fresh

    def fresh(self: Any, level: Any, record: Any) -> Any:
        return record if level.live else true(self, level, _stretched(record)) or self.open_row(level, record)

    patch.setattr(Stack, "fresh", fresh)


@fault("the deadline is computed anew when a record is promoted")
def deadline_recomputed(patch: pytest.MonkeyPatch) -> None:
    true = Stack._promote

    def promote(self: Any, entry: Any, *args: Any) -> Any:
        if entry.ttl_seconds is not None:
            life = entry.expires_at - entry.fetch_time
            msgspec.structs.force_setattr(entry, "expires_at", entry.expires_at + life)
        return true(self, entry, *args)

    patch.setattr(Stack, "_promote", promote)


@fault("a deletion passes over the levels between")
def deletion_skips_levels(patch: pytest.MonkeyPatch) -> None:
    true = Writer.guarded

    def guarded(self: Any, level: Any, key: str, version: int, operation: Any, *args: Any) -> None:
        if operation != level.tier.delete:
            true(self, level, key, version, operation, *args)

    patch.setattr(Writer, "guarded", guarded)


@fault("nothing is evicted")
def nothing_evicted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Upkeep, "_settle_level", _nothing)


@fault("the authority evicts nothing")
def authority_evicts_nothing(patch: pytest.MonkeyPatch) -> None:
    true = Upkeep._settle_level

    def settle(self: Any, level: Any) -> None:
        if level is not self.authority:
            true(self, level)

    patch.setattr(Upkeep, "_settle_level", settle)


@fault("the usage of a victim is lost", "test_usage_counts.py::test_reads_of_a_victim_are_kept")
def victims_usage_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Upkeep, "_keep_usage", _nothing)


@fault("usage is flushed and not zeroed")
def usage_flushed_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Usage, "take", lambda self: self.hits)


@fault("usage stays in the ledger when it is flushed")
def usage_kept_when_flushed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(UsageLedger, "take", lambda self: dict(self._pending))


@fault("a failure is not counted")
def failure_not_counted(patch: pytest.MonkeyPatch) -> None:
    true = CacheEntry.evolve

    def evolve(self: Any, **changes: Any) -> Any:
        changes.pop("failure_count", None)
        return true(self, **changes)

    patch.setattr(CacheEntry, "evolve", evolve)


@fault("a record that failed too often stays above the authority")
def unhealthy_stays_above(patch: pytest.MonkeyPatch) -> None:
    def remove(self: Any, entry: Any) -> bool:
        authority = self.writer.authority()
        return authority.call(authority.tier.delete, entry.key, entry.version) is None

    patch.setattr(Comparing, "remove", remove)


@fault("the check of a record is not verified")
def check_not_verified(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Sealer, "_fits", lambda *_: True)


@fault(
    "an older version wins over a newer one",
    "test_writing.py::test_a_level_above_that_refuses_keeps_the_newer_record",
)
def older_wins(patch: pytest.MonkeyPatch) -> None:
    for module in (blob, tierkit_jsonl.order, tierkit_sqlite.work, tierkit_memory):
        patch.setattr(module, "refusal", _nothing, raising=False)


@fault("a level that missed writes comes back with what it holds")
def returns_unemptied(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Level, "drop_missed", _nothing)


@fault("a level that failed a write stays in service")
def failed_write_forgiven(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Level, "miss", _nothing)


@fault(
    "levels above the authority are not reconciled at open",
    "test_recovery.py::test_a_level_that_was_out_when_the_cache_opened_is_compared_before_it_comes_back",
)
def not_reconciled(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconciling, "_reconcile_above", _nothing)


@fault("a put that the authority refused to store is acknowledged")
def failed_put_acknowledged(patch: pytest.MonkeyPatch) -> None:
    true = Writer.put

    def put(self: Any, entry: Any) -> Any:
        try:
            return true(self, entry)
        except CacheStorageError:
            return entry

    patch.setattr(Writer, "put", put)


@fault("clear leaves the levels between")
def clear_leaves_some(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Clearing, "_clear_above", _nothing)


@fault("a bulk put leaves the old copy in L1")
def bulk_leaves_l1(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Writer, "live_step", _nothing)


@fault("a sweep removes nothing")
def sweep_removes_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Upkeep, "_sweep_level", lambda *_: 0)


@fault(
    "a sweep removes what is about to expire",
    "test_grace.py::test_tiers_keep_what_expired_until_its_grace_period_is_over",
)
def sweep_too_early(patch: pytest.MonkeyPatch) -> None:
    true = Upkeep._sweep_level

    def sweep(self: Any, level: Any, *args: Any) -> Any:
        kept = self.time
        self.time = SimpleNamespace(now=lambda: kept.now() + 3, monotonic=kept.monotonic)
        try:
            return true(self, level, *args)
        finally:
            self.time = kept

    patch.setattr(Upkeep, "_sweep_level", sweep)


@fault("a copy in L1 stays after a write of unknown outcome")
def live_copy_kept_on_error(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Writer, "drop_live", _nothing)


@fault(
    "a late write is not stamped again, and its promotion lands",
    "test_writing.py::test_a_late_write_is_stamped_again_before_the_authority",
)
def never_late(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Upkeep, "late", lambda *_: False)


@fault("get_many answers the record of another key")
def answers_another(patch: pytest.MonkeyPatch) -> None:
    true = CacheManager.get_many
    patch.setattr(CacheManager, "get_many", lambda self, keys: dict(zip(keys, true(self, keys).values(), strict=False)))


@fault("a victim is not copied down")
def demotion_copies_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Upkeep, "_copy_down", _nothing)


@fault("time inside an open cache follows the wall clock")
def time_follows_the_wall_clock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CacheTime, "now", lambda self: self.monotonic.__self__.wall())


@fault("a damaged record stays where it is")
def damaged_stays(patch: pytest.MonkeyPatch) -> None:
    true = Stack.open_row

    def open_row(self: Any, level: Any, row: Any) -> Any:
        with pytest.MonkeyPatch.context() as within:
            within.setattr(Stack, "discard", lambda *_: False)
            return true(self, level, row)

    patch.setattr(Stack, "open_row", open_row)


@fault("what the authority lost by damage is not put back from above")
def damage_not_healed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Stack, "_heal", _nothing)


@fault("merging forgets what was found out about a record")
def merging_forgets_health(patch: pytest.MonkeyPatch) -> None:
    true = merging.merged

    def merged(new: Any, held: Any) -> Any:
        kept = true(new, held)
        return kept.evolve(health_status=new.health_status, failure_count=new.failure_count)

    patch.setattr(merging, "merged", merged)


@fault("merging forgets when a record was first put")
def merging_forgets_the_first_moment(patch: pytest.MonkeyPatch) -> None:
    true = merging.merged
    patch.setattr(merging, "merged", lambda new, held: true(new, held).evolve(created_at=new.created_at))


@fault("sliding renews beyond its bound")
def sliding_knows_no_bound(patch: pytest.MonkeyPatch) -> None:
    true = expiry.slid
    patch.setattr(sliding, "slid", lambda entry, now, _: true(entry, now, 1e9))


@fault("a hit renews nothing")
def nothing_slides(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sliding, "slid", lambda entry, *_: entry)


@fault("a stale record is served to who did not ask for it")
def stale_served(patch: pytest.MonkeyPatch) -> None:
    true = Stack.find
    patch.setattr(Stack, "find", lambda self, key, **_: true(self, key, allow_stale=True))


@fault(
    "a write that was held in memory is forgotten at replay",
    "test_back_in_line.py::test_what_is_held_in_memory_goes_to_an_authority_that_is_well_again_at_the_end",
)
def memory_forgotten_at_replay(patch: pytest.MonkeyPatch) -> None:
    true = Owing._row_of
    patch.setattr(Owing, "_row_of", lambda self, key, intent: None if intent.level is None else true(self, key, intent))


@fault("a write that a level holds for the authority is forgotten at replay")
def owed_forgotten_at_replay(patch: pytest.MonkeyPatch) -> None:
    true = Owing._row_of
    patch.setattr(Owing, "_row_of", lambda self, key, intent: true(self, key, intent) if intent.level is None else None)


@fault("what was owed when the process died is not brought down")
def owed_not_adopted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Owing, "adopts", lambda *args: is_owed(args[-1]))


@fault("what the authority holds is read although a newer write waits for it")
def owed_not_read(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Owing, "look", _nothing)
    patch.setattr(Stack, "_owed", _nothing)


@fault("write-behind and demote-only write the authority at once")
def written_through(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Owing, "direct", property(lambda self: self._authority is not None and self._authority.takes_writes))


@fault("a level that is to get what is evicted is written at once")
def victim_cache_written(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Level, "against", lambda *_: "")


@fault("delete says that there was nothing")
def delete_answers_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(CacheManager, "_present", lambda *_: False)


def found_out(planted: MachineFault, examples: int = EXAMPLES) -> str | None:
    """Run the machine with a fault planted. Answers what it said, or None if it did not notice."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    with pytest.MonkeyPatch.context() as patch:
        planted.plant(patch)
        if planted.test:
            return planted.test.split("::")[1] if fails(ENGINE / planted.test) else None
        try:
            run_state_machine_as_test(Machine, settings=chosen)
        except (AssertionError, TierkitError) as error:  # anything else is a fault that cannot be planted any more
            text = str(error).splitlines() or [""]
            return f"{type(error).__name__}: {text[0]}"[:100]
    return None


def main(names: Sequence[str]) -> int:
    """Hunt the faults of these names, or all; answer how the program should exit."""
    unknown = set(names) - {planted.name for planted in MACHINE_FAULTS}
    if unknown:
        print(f"no such fault: {', '.join(sorted(unknown))}")
        return 2
    logging.disable(logging.CRITICAL)  # the machine makes trouble, and trouble is logged
    chosen = [planted for planted in MACHINE_FAULTS if not names or planted.name in names]
    # Forked: a fault is planted in a process, and pytest can be run once in one.
    with multiprocessing.get_context("fork").Pool(WORKERS, maxtasksperchild=1) as pool:
        sound = pool.apply_async(found_out, (MachineFault("", "", _nothing), SOUND))
        found = pool.imap(found_out, chosen)
        if said := sound.get():
            print(f"the machine finds a fault where none is planted: {said}")
            return 2
        caught = sum(_told(planted, said) for planted, said in zip(chosen, found, strict=True))
    print(f"{caught} of {len(chosen)} faults caught")
    return 0 if caught == len(chosen) else 1


def _told(planted: MachineFault, said: str | None) -> bool:
    print(f"{'SURVIVED' if said is None else 'caught  '}  {planted.what:<78}  {said or planted.name}", flush=True)
    return said is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
