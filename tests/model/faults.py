"""The table of faults: each takes away one rule of the engine. See `tests.model.engine_faults`."""

from __future__ import annotations

from typing import Final

from tests.model.planting import Fault

ENGINE: Final = "tests/core/engine"
TAKEN_AWAY: Final = f"{ENGINE}/test_rules_taken_away.py"
LEVELS_BETWEEN: Final = f"{ENGINE}/test_levels_between.py"
TOGETHER: Final = f"{ENGINE}/test_rules_that_hold_together.py"
IN_LINE: Final = f"{ENGINE}/test_back_in_line.py"
GIVING_WAY: Final = f"{ENGINE}/test_giving_way.py"
WRITE_POLICIES: Final = f"{ENGINE}/test_write_policies.py"
BETWEEN: Final = f"{ENGINE}/test_what_comes_between.py"
FOREIGN: Final = f"{ENGINE}/test_foreign_rows.py"

READING: Final = [
    Fault(
        "an expired record is returned",
        "stack:Stack._is_fresh",
        "return self.time.now() < entry._fresh_until",
        "return True",
    ),
    Fault(
        "an expired entry of the first level is returned",
        "manager:CacheManager.get",
        "if now < entry._fresh_until:",
        "if True:",
    ),
    Fault(
        "an expired copy hides the record that another process renewed",
        "stack:Stack._search",
        "floor = max(floor, expired)",
        "return None",
    ),
    Fault(
        "an expired copy above deletes the renewed one below",
        "levels:Levels.expire",
        "if self.discard(level, record):",
        "below = self.levels[-1]\n    below.call(below.tier.delete, record.key, self.versions.next() + 2**40)\n"
        "    if self.discard(level, record):",
    ),
    Fault(
        "what an expired record has replaced is returned",
        "stack:Stack._search",
        "entry.version >= floor",
        "True",
        ("tests/core/engine/test_reading.py",),
    ),
    Fault(
        "the deadline starts anew when a record is read from below",
        "stack:Stack.open_row",
        'return cast("E", entry)',
        'return cast("E", entry.renewed().evolve(expires_at=__import__("datetime").datetime.fromtimestamp('
        'self.time.now() + (entry.ttl_seconds or 0), __import__("datetime").timezone.utc)))',
    ),
    Fault(
        "who waited for a read is given a record that has expired meanwhile",
        "stack:Stack._find",
        "self._is_fresh(flight.result.entry)",
        "True",
        ("tests/core/engine/test_flights.py",),
    ),
    Fault(
        "a read is shared that began before a write",
        "filling:Filling.bump",
        "self.flights.pop(key, None)",
        "pass",
    ),
    Fault(
        "a read is shared that is older than the staleness bound",
        "stack:Stack._stale_flight",
        "return bound is not None and now - flight.started > bound",
        "return False",
        ("tests/core/engine/test_flights.py",),
    ),
    Fault(
        "a level that is out of service is read",
        "stack:Stack._search",
        "if not in_service:",
        "if False:",
        (TAKEN_AWAY,),
    ),
]

PROMOTION: Final = [
    Fault(
        "a promotion fills the first level although a write came between",
        "stack:Stack._fill_if",
        "self.filling.counters[stripe] == expected and ",
        "",
        (TAKEN_AWAY,),
    ),
    Fault(
        "a promotion overwrites a newer put",
        "stack:Stack._store_if",
        "return self.put_copy(level, with_usage(row",
        "row = self.sealer.restamp(row, self.versions.next())\n        return self.put_copy(level, with_usage(row",
    ),
    Fault(
        "a late promotion is made all the same, and brings back what was deleted",
        "stack:Stack._copy_up",
        "LATE if self.late(started) else level.against(entry.key)",
        "level.against(entry.key)",
        (
            "tests/core/engine/test_filling.py",
            "tests/core/engine/test_reading.py",
        ),
    ),
    Fault(
        "a promotion does not stand aside while a level returns",
        "filling:Filling.begin_promotion",
        "self._aside or ",
        "",
        (
            "tests/core/engine/test_failures.py",
            "tests/core/engine/test_recovery.py",
            "tests/core/engine/test_put_many.py",
        ),
    ),
    Fault(
        "a promotion goes on although a level returned since it began",
        "filling:Filling.begin_promotion",
        " or self.counters[self.stripe(key)] != expected",
        "",
        (TOGETHER,),
    ),
    Fault(
        "the age of a copy in the first level counts from its filling, not from the read",
        "stack:Stack.fill",
        "started + self.time.offset + bound",
        "self.time.now() + bound",
    ),
    Fault(
        "copies in the first level grow old without bound",
        "stack:Stack.fill",
        "inf if bound is None else",
        "inf if True else",
    ),
]

WRITING: Final = [
    Fault(
        "a write is acknowledged that the authority refused: no stamp above what refused",
        "writing:Writer._until_taken",
        "if refused is None:",
        "if True:",
    ),
    Fault(
        "a stamp is not above the version that refused",
        "clock:VersionClock.above",
        "return stamp if stamp > version or raised > _HIGHEST else raised",
        "return min(stamp, version - 1)",
    ),
    Fault(
        "a late write is not stamped again, and is lost under a newer mark",
        "writing:Writer._until_taken",
        "if stack.late(started):",
        "if False:",
        ("tests/core/engine/test_writing.py",),
    ),
    Fault(
        "a late write goes to the levels above the authority all the same",
        "writing:Writer._against",
        "LATE if self.stack.late(started) else level.against(key)",
        "level.against(key)",
        ("tests/core/engine/test_writing.py",),
    ),
    Fault(
        "the levels above are written before the authority",
        "writing:Writer.store",
        "write, holder = self._store_truth(write, started)",
        "self.store_above(write, started, None)\n        write, holder = self._store_truth(write, started)",
    ),
    Fault(
        "a put does not reach the levels between the first and the authority",
        "writing:Writer.store",
        "refused = self.store_above(write, started, holder)",
        "refused = None",
    ),
    Fault(
        "a deletion reaches only the top and the authority",
        "writing:Writer._delete",
        "refused = self._delete_above(key, version, holder)",
        "refused = None",
    ),
    Fault(
        "a deletion leaves the first level as it is",
        "writing:Writer._delete",
        "self.in_live(key, lambda level: self._delete_live(level, key, version))",
        "pass",
    ),
    Fault(
        "a write that begins does not tell the reads under way",
        "filling:Filling.begin",
        "return self.bump(stripe, key)",
        "return self.counters[stripe]",
    ),
    Fault(
        "a write that ends does not tell the reads under way",
        "writing:Writer.in_live",
        "filling.bump(stripe, key)",
        "pass",
    ),
    Fault(
        "a write fills the first level although another came between",
        "writing:Writer._against_filling",
        "if raced:",
        "if False:",
    ),
    Fault(
        "a late write fills the first level",
        "writing:Writer._against_filling",
        "if self.stack.late(started):",
        "if False:",
        (
            "tests/core/engine/test_filling.py",
            "tests/core/engine/test_writing.py",
        ),
    ),
    Fault(
        "the first level keeps its copy when a write has failed",
        "writing:Writer.drop_live",
        "if self.stack.stored:",
        "if False:",
        (
            "tests/core/engine/test_failures.py",
            "tests/core/engine/test_writing.py",
            "tests/core/engine/test_filling.py",
        ),
    ),
    Fault(
        "clear forgets the levels above the authority",
        "clearing:Clearing._clear_stored",
        "for level in reversed(above):",
        "for level in ():",
    ),
    Fault(
        "clear forgets what only a level above has, for another process will bring it to the authority",
        "clearing:Clearing._clear_stored",
        "keys |= dict.fromkeys(self._keys_above(level))",
        "pass",
        ("tests/core/engine/test_writing.py",),
    ),
    Fault(
        "clear forgets the reads under way",
        "clearing:Clearing.clear",
        "stack.filling.reset()  # before",
        "pass  # before",
    ),
    Fault(
        "a record for which a bounded level has no room leaves no mark in it",
        "bulk:Bulk._refresh",
        "self.waited.keep_out(level, _rows(self._make_wait(level, absent, started)))",
        "self._make_wait(level, absent, started)",
    ),
    Fault(
        "a bulk write leaves old copies in a bounded level",
        "bulk:Bulk._refresh",
        "self.copies.put(level, [row for row in rows if row.key in held], started)",
        "pass",
    ),
    Fault(
        "a bulk write fills the first level although another came between",
        "bulk:Bulk.end",
        "self.stack.filling.counters[stripe] != self.expected[stripe]",
        "False",
        (TAKEN_AWAY,),
    ),
]

FAILURE: Final = [
    Fault(
        "a level that failed a write keeps its older copy and stays in service",
        "writing:Writer.guarded",
        "return level.mark(level.tier.delete, key, version)",
        "return None",
    ),
    Fault(
        "a level that could not even drop its older copy stays in service",
        "writing:Writer.guarded",
        "level.miss(error, {key: version})",
        "pass",
    ),
    Fault(
        "what passes a level by while it is out of service is not noted",
        "level:Level.begin_write",
        "self._note_missed(versions)",
        "pass",
    ),
    Fault(
        "a level comes back without being brought in line",
        "level:Level._come_back",
        "self.align(missed)",
        "pass",
    ),
    Fault(
        "a level comes back while writes that it will miss are under way",
        "level:Level.reset_failures",
        "self._writes.wait_for(lambda: self.in_service or self._writing == 0, _PATIENCE_SECONDS)",
        "pass",
        (
            "tests/core/engine/test_failures.py",
            "tests/core/engine/test_recovery.py",
        ),
    ),
    Fault(
        "levels are not compared with the authority when a cache is opened",
        "opening:open_stack",
        "reconcile(stack)",
        "pass",
    ),
    Fault(
        "a level is never probed again",
        "recovery:recover",
        "level.due_in <= 0",
        "False",
    ),
]

HEALTH: Final = [
    Fault(
        "compare and set takes any version for the expected one",
        "comparing:Comparing.replace",
        "if not authority.write(authority.tier.replace, stamped if row is None else row, expected_version):",
        "if authority.write(authority.tier.put, stamped if row is None else row) is not None:",
    ),
    Fault(
        "compare and set is not tried again when another writer came first",
        "comparing:Comparing._change",
        "done = entry if new is entry else self.replace(self.prepare(new, held), held.version)",
        "done = entry if new is entry else self.replace(self.prepare(new, held), held.version) or new",
    ),
    Fault(
        "no stamp is above the versions that were read",
        "clock:VersionClock.observe",
        "if micros > self._last and",
        "if False and",
    ),
    Fault(
        "a changed record does not reach the levels above",
        "comparing:Comparing.replace",
        "self.copies.put(level, [row] if row else [], started)",
        "pass",
    ),
    Fault(
        "the removal of a failed record takes a record that was put meanwhile",
        "comparing:Comparing.remove_many",
        "authority.mark(authority.tier.delete_many, versions) if versions else {}",
        "authority.mark(authority.tier.delete_many, dict.fromkeys(versions, stack.versions.next() + 2**40))",
    ),
    Fault(
        "a record is removed one failure too late",
        "health:Health.ends",
        "entry.failure_count >= self._threshold",
        "entry.failure_count > self._threshold",
    ),
    Fault(
        "many results are applied without comparing",
        "comparing:replace_all",
        "answers: list[bool] = level.tier.replace_many(replacements)",
        "answers = [level.tier.put(row) is None for row, _ in replacements]",
    ),
]

UPKEEP: Final = [
    Fault(
        "a put does not make room",
        "writing:Writer.put",
        "stack.settle()",
        "pass",
    ),
    Fault(
        "a level stays too full when its victim is written anew meanwhile",
        "room:Room._settle_one_by_one",
        "for _ in range(_ROUNDS):",
        "for _ in range(1):",
        ("tests/core/engine/test_settling.py",),
    ),
    Fault(
        "a victim is deleted and not discarded: what is put down again is refused",
        "room:Room._evict",
        "level.call(level.tier.discard, victim)",
        "(level.call(level.tier.delete, victim.key, victim.version + 2**40) is None)",
    ),
    Fault(
        "the usage of a victim is lost",
        "room:Room._evicted",
        "self._keep_usage(level, victim)",
        "pass",
    ),
    Fault(
        "usage is counted twice: it is not taken from the entry",
        "entry:Usage.take",
        "self.hits -= hits",
        "pass",
    ),
    Fault(
        "usage that was flushed is kept for the next flush",
        "room:Room.flush_ledger",
        "if not taken:",
        "if True:",
    ),
    Fault(
        "usage is lost when a flush fails",
        "room:Room.flush_ledger",
        "if not taken:",
        "if False:",
        ("tests/core/engine/test_usage_counts.py",),
    ),
    Fault(
        "usage in the first level is lost when a record is replaced there",
        "stack:Stack.fill",
        "merge_usage(held._usage, entry._usage)\n        _force",
        "entry\n        _force",
    ),
    Fault(
        "a sweep leaves copies in all levels but the first",
        "upkeep:Upkeep.sweep",
        "for level in self.levels if level.in_service",
        "for level in self.levels[:1] if level.in_service",
    ),
    Fault(
        "a hit of the first level is not counted",
        "manager:CacheManager.get",
        "counters.hits += counters.step",
        "pass",
    ),
    Fault(
        "a read that is shared is not counted",
        "stack:Stack._share",
        "found.level.counters.hits += found.level.counters.step",
        "pass",
    ),
]

INTENTS: Final = [
    Fault(
        "the intent of a deletion is dropped",
        "owing:Owing.delete",
        "return self._hold(holder, [tombstone])[0]",
        "return None",
    ),
    Fault(
        "a deletion that is owed is replayed as nothing",
        "owing:Owing._replay",
        "authority.mark(authority.tier.delete_many, deletions) if deletions else {}",
        "{}",
    ),
    Fault(
        "a stand-in keeps the write without its intent",
        "owing:Owing._owed",
        'columns = {**row.columns, OWED: "put", OWED_PURGE_AT: row.purge_at}',
        "return row",
    ),
    Fault(
        "what is owed is forgotten when the authority failed to take it",
        "owing:Owing._replay",
        "authority.name, str(error))\n        return None",
        "authority.name, str(error))\n"
        "        [self.intents.settle(key, intent.version) for key, intent in batch]\n"
        "        return []",
    ),
    Fault(
        "an owed write is dropped from the level that holds it and not copied to the authority",
        "owing:Owing._replay",
        "authority.write(authority.tier.put_many, paid) if paid else []",
        "[None] * len(paid)",
    ),
    Fault(
        "what is owed is never replayed",
        "owing:Owing.replay_due",
        "if authority is not None and self.due_in <= 0 and authority.takes_writes:",
        "if False:",
        (WRITE_POLICIES,),
    ),
    Fault(
        "compare and set goes to the authority before what that is owed",
        "writing:Writer.authority",
        "not self.stack.owing.replay(keys)",
        "False",
        (TAKEN_AWAY,),
    ),
    Fault(
        "an authority comes back and is read before it has what it is owed",
        "owing:Owing.look",
        "if intent is None:",
        "if True:",
        (TAKEN_AWAY,),
    ),
]

COMPARED: Final = [
    Fault(
        "what was compared and set replaces a write that the authority is owed",
        "copies:ComparedCopies._comes_after",
        "if not comes_after(held, row):",
        "if True:",
        (GIVING_WAY,),
    ),
    Fault(
        "a write that comes after is lost with what it comes after",
        "copies:ComparedCopies._comes_after",
        "if held.version < row.version:",
        "if False:",
        (GIVING_WAY,),
    ),
    Fault(
        "what was compared and set takes the place of a newer copy",
        "copies:ComparedCopies._replace",
        "replacements = [(row, _version(held, row.key)) for row in older]",
        "level.write(level.tier.put_many, older)\n        replacements = []",
        (GIVING_WAY,),
    ),
    Fault(
        "a replay that is refused by what was compared and set without it is dropped",
        "owing:Owing._let_come_after",
        "goes_back_to(there) < row.version < there.version",
        "False",
        (GIVING_WAY,),
    ),
    Fault(
        "a record does not say which put it goes back to",
        "comparing:_marked",
        "return msgspec.structs.replace(held, columns={**held.columns, GOES_BACK_TO: goes_back_to(held)})",
        "return held",
        (GIVING_WAY,),
    ),
    Fault(
        "a promotion replaces a write that comes after",
        "room:Room.put_copy",
        "or (held is not None and comes_after(held, row))",
        "",
        (GIVING_WAY,),
    ),
    Fault(
        "the removal of a failed record takes a write that waits above",
        "copies:ComparedCopies._drop",
        "if self._nothing_waits(level):",
        "if True:",
        (GIVING_WAY,),
    ),
    Fault(
        "a level that returns drops what comes after",
        "reconciling:_without_what_comes_after",
        "if key not in after",
        "if True",
        (GIVING_WAY,),
    ),
    Fault(
        "a stand-in waits for the authority to say what this process knows",
        "reconciling:_without_what_comes_after",
        "and not _has_newer(stack, row)",
        "",
        (LEVELS_BETWEEN,),
    ),
    Fault(
        "a level that returns drops a write while nobody can say what comes after",
        "reconciling:_without_what_comes_after",
        "if owed and not authority.in_service:",
        "if not authority.in_service:\n        owed = []\n    if owed and not authority.in_service:",
        (LEVELS_BETWEEN,),
    ),
    Fault(
        "a replay leaves older copies in the levels between",
        "owing:Owing._replay",
        "self._drop_older([owed for owed in found if owed[0] not in again])",
        "pass",
        (LEVELS_BETWEEN,),
    ),
    Fault(
        "a write that failed elsewhere hides the one that waits",
        "owing:Owing._still_held",
        "self._adopt_in(self._above, keys)",
        "pass",
        (LEVELS_BETWEEN,),
    ),
    Fault(
        "an authority that was out too long gets back what was deleted",
        "reconciling:align",
        "_reconcile_above(stack, authority, restoring=knows_deletions)",
        "_reconcile_above(stack, authority)",
        (LEVELS_BETWEEN,),
    ),
]

AFTERWARDS: Final = [
    Fault(
        "a level that returns when marks are forgotten brings back what was deleted",
        "reconciling:align",
        "level.out_for_seconds < stack.settings.marks_seconds",
        "True",
        (IN_LINE,),
    ),
    Fault(
        "a bounded authority is overfull when it has what it was owed",
        "owing:Owing.replay",
        "self._on_paid()",
        "pass",
        (IN_LINE,),
    ),
    Fault(
        "reads that succeed keep a level in service whose writes fail",
        "level:Level._attempt",
        "self._breaker.succeeded(kind)",
        "self._breaker.close()",
        (IN_LINE,),
    ),
    Fault(
        "a storage that was full is never tried while nobody writes",
        "recovery:recover",
        "if level.in_service and not level.writable:",
        "if False:",
        (IN_LINE,),
    ),
    Fault(
        "an authority that fails at open takes the level above out of service",
        "reconciling:_reconcile_above",
        "except _AuthorityFailed:",
        "except ZeroDivisionError:",
        (IN_LINE,),
    ),
    Fault(
        "a scan leaves out what was brought down meanwhile",
        "stack:Stack.scan",
        "for record in self.owed_or_paid(level, owed)",
        "for record in ()",
        (IN_LINE,),
    ),
    Fault(
        "reads of what waits for the authority are lost",
        "room:Room.flush_ledger",
        "for key, delta in deltas.items() if key in self.owing.intents",
        "for key, delta in deltas.items() if False",
        (IN_LINE,),
    ),
    Fault(
        "a write of unknown outcome leaves a copy in a level that fails",
        "writing:Writer.doubt",
        "except TierkitError as error:\n                level.miss(error, {key: DOUBTFUL})",
        "except TierkitError:\n                pass",
        (IN_LINE,),
    ),
    Fault(
        "a full level that cannot drop a copy which may be older goes on serving it",
        "writing:Writer.doubt",
        "if not self._is_current(level, key):",
        "if False:",
        (f"{ENGINE}/test_full_twice.py",),
    ),
    Fault(
        "a full level leaves service though what it holds for the authority is the truth",
        "writing:Writer.doubt",
        "if not self._is_current(level, key):",
        "if True:",
        (f"{ENGINE}/test_full_twice.py",),
    ),
    Fault(
        "an outdated write goes on to the levels above",
        "writing:Writer.store_above",
        "outdated = outdated or answer is not None",
        "pass",
        (f"{ENGINE}/test_writing.py",),
    ),
    Fault(
        "a demotion forgets to copy",
        "room:Room._copy_down",
        "self.put_copy(below, row, started)",
        "False",
        (WRITE_POLICIES,),
    ),
    Fault(
        "a victim is copied down however long that takes, and comes back from the dead",
        "room:Room.put_copy",
        "self.late(started) or ",
        "",
        (TOGETHER,),
    ),
    Fault(
        "the reads of a victim that came back are lost",
        "room:Room._evict",
        "self._keep_usage(level, held)",
        "pass",
        (WRITE_POLICIES,),
    ),
    Fault(
        "nobody wakes the thread that brings down what waits",
        "intents:Intents.note",
        "self._on_first()",
        "pass",
        (WRITE_POLICIES,),
    ),
    Fault(
        "a copy of what was brought down comes late, and back from the dead",
        "owing:Owing._replace",
        " and not self._late(started)",
        "",
        (TOGETHER,),
    ),
]

BETWEEN_TWO_STEPS: Final = [
    Fault(what, where, old, new, (test,))
    for what, where, old, new, test in (
        (
            "what waited for the end of a bulk put replaces what came meanwhile",
            "bulk:Bulk._store_waiting",
            "self.waited.put",
            "self.copies.put",
            BETWEEN,
        ),
        (
            "what is pushed out within a bulk put replaces what came meanwhile",
            "bulk:Bulk._refresh",
            "self.waited.keep_out",
            "self.copies.keep_out",
            BETWEEN,
        ),
        (
            "a write that is made anew waits beside the older one",
            "bulk:Bulk._write",
            "waiting.forget(keys)",
            "pass",
            BETWEEN,
        ),
        (
            "a bounded level that is out of service does not note what it misses of a bulk put",
            "bulk:Bulk._held_in",
            "if level.in_service else None",
            "if level.in_service else {}",
            BETWEEN,
        ),
        (
            "a write undoes what this process wrote after it",
            "writing:Writer.came_before",
            "None if self.stack.owing.intents.made_since(key, newer) else ",
            "",
            BETWEEN,
        ),
        (
            "a copy of a bulk put undoes what this process wrote after it",
            "copies:Copies._outdo",
            "is_owed(owed) and self.stack.owing.intents.made_since(key, owed.version)",
            "False",
            BETWEEN,
        ),
        (
            "what another process wrote, by a clock that is ahead, counts as written later",
            "intents:Intents.made_since",
            "held.own and ",
            "",
            BETWEEN,
        ),
        (
            "what is held in memory is thrown away before a level has what replaces it",
            "intents:Intents.note",
            "if held is not None and held.level is None and not intent.landed:",
            "if False:",
            BETWEEN,
        ),
        (
            "a clear that fails leaves copies of what it has deleted",
            "clearing:Clearing._clear_stored",
            "self._clear_above(level, deleted)",
            "self._clear_above(level, deleted if len(deleted) == len(keys) else {})",
            BETWEEN,
        ),
        (
            "a clear of unknown outcome leaves copies",
            "clearing:Clearing._delete_batch",
            "self.writer.doubt(key)",
            "pass",
            BETWEEN,
        ),
        (
            "an owed row of another key is adopted when it is to be evicted",
            "owing:Owing.pay",
            "if self._sealer.is_foreign(row):",
            "if False:",
            FOREIGN,
        ),
        (
            "an owed row of another key holds up what is replayed with it",
            "owing:Owing._row_of",
            "except (KeyNotHeldError, SchemaMismatchError) as error:",
            "except ZeroDivisionError as error:",
            FOREIGN,
        ),
    )
]

TOGETHER_WITH_OTHERS: Final = [
    Fault(what, where, old, new, (test,))
    for what, where, old, new, test in (
        (
            "a bulk put leaves an old copy in a bounded first level",
            "bulk:Bulk.end_in",
            "self.writer.drop_older(level, write.entry.key, write.entry.version)",
            "pass",
            TOGETHER,
        ),
        (
            "what is tried next may be older than what was tried",
            "writing:Writer._in_truth",
            "newest = version  # it",
            "pass  # it",
            TOGETHER,
        ),
        (
            "no stamp is above what was read",
            "stack:Stack.open_row",
            "self.versions.observe(row.version)",
            "pass",
            TOGETHER,
        ),
        (
            "no stamp is above what was held at open",
            "stack:Stack._observe_highest",
            "self.versions.observe(level.call(level.tier.highest_version))",
            "pass",
            TOGETHER,
        ),
        (
            "a level that is emptied loses what the authority is owed",
            "level:Level.empty",
            "(self.live or not is_owed(record))",
            "True",
            TOGETHER,
        ),
        (
            "what is owed is replayed though it was read too long ago",
            "owing:Owing._found",
            "if not self._late(started):",
            "if True:",
            TOGETHER,
        ),
        (
            "a replay forgets what became owed within it",
            "owing:Owing._replay",
            "intent.version if row is None else row.version",
            "2**63",
            TOGETHER,
        ),
        (
            "a level that holds what is owed and is out hides nothing",
            "owing:Owing.look",
            "if not level.in_service:\n        return Owed(level, None)",
            "if not level.in_service:\n        return None",
            TAKEN_AWAY,
        ),
        (
            "compare and set does not look for what others hold",
            "owing:Owing.adopt_from_above",
            "self._adopt_in([level for level in self._above if level.tier.traits & Trait.SHARED], keys)",
            "pass",
            TOGETHER,
        ),
        (
            "an owed write returns from under a newer one that has expired",
            "stack:Stack._answer_owed",
            "entry is not None and entry.version >= floor",
            "entry is not None",
            TOGETHER,
        ),
        (
            "a copy that another process has replaced is demoted",
            "room:Room._current",
            "if row.version == used[key].version",
            "if True",
            TOGETHER,
        ),
        (
            "a write between naming and demotion is ignored",
            "room:Room._copy_down",
            "if not self.filling.begin_promotion(row.key, expected):",
            "self.filling._promoting += 1\n    if False:",
            TOGETHER,
        ),
        (
            "a demotion makes no room below",
            "room:Room._demote",
            "if below.max_entries is not None:",
            "if False:",
            TOGETHER,
        ),
        (
            "a level returns before promotions into it have ended",
            "filling:Filling.promotions_aside",
            "self._promotions.wait_for(lambda: self._promoting == 0, self._patience_seconds)",
            "pass",
            TOGETHER,
        ),
        (
            "what was read within a write that passed a level by fills it afterwards",
            "upkeep:Upkeep._returning",
            "self.filling.reset()  # nor",
            "pass  # nor",
            TOGETHER,
        ),
        (
            "a level that is out while the others are compared is not compared later",
            "reconciling:_reconcile_above",
            "level.missed_writes = True",
            "pass",
            TOGETHER,
        ),
        (
            "reads counted in the first level are lost when it returns",
            "upkeep:Upkeep._returning",
            "self._collect(level)",
            "pass",
            TOGETHER,
        ),
        (
            "clear keeps reads for the next record of a key",
            "clearing:Clearing.clear",
            "stack.ledger.take()",
            "pass",
            TOGETHER,
        ),
        (
            "what expired while it waited is not swept",
            "upkeep:Upkeep.sweep",
            "self.owing.replay_expired(self.time.now())",
            "pass",
            TOGETHER,
        ),
    )
]

FAULTS: Final = [
    *READING, *PROMOTION, *WRITING, *FAILURE, *HEALTH, *UPKEEP, *INTENTS, *COMPARED, *AFTERWARDS, *BETWEEN_TWO_STEPS,
    *TOGETHER_WITH_OTHERS,
]  # fmt: skip
