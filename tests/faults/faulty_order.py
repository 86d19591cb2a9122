"""Faults in the order of writes: versions, marks, eviction, usage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tests.faults.planting import changed, fault
from tests.tiers import FileBlobTier

from tierkit import CacheEntry, CacheTier, Delta, Row, TierContext, with_usage
from tierkit_memory import MemoryCacheTier

# -- versions ---------------------------------------------------------------------------------------------------------


@fault("an older version wins")
class OlderWins(FileBlobTier):
    def put(self, record: Row) -> int | None:
        refused = super().put(record)
        if refused is not None and (held := self.get(record.key)) is not None and held.version > record.version:
            super().discard(held)
            self.remove(record.key)
            return super().put(record)
        return refused


@fault("an equal version with other content is taken")
class EqualVersionOverwrites(FileBlobTier):
    def put(self, record: Row) -> int | None:
        held = self.get(record.key)
        if held is not None and held.version == record.version:
            self.remove(record.key)
        return super().put(record)


@fault("a refusal names the version that came")
class AnswersItsOwnVersion(FileBlobTier):
    def put(self, record: Row) -> int | None:
        return None if super().put(record) is None else record.version


@fault("a refusal is answered as taken")
class RefusesInSilence(FileBlobTier):
    def put(self, record: Row) -> int | None:
        super().put(record)
        return None


@fault("versions go through a double")
class VersionsAsDoubles(FileBlobTier):
    def put(self, record: Row) -> int | None:
        return super().put(changed(record, version=int(float(record.version))))


@fault("replace ignores what is expected")
class ReplaceIgnoresExpectation(FileBlobTier):
    def replace(self, record: Row, expected_version: int) -> bool:
        return self.put(record) is None


@fault("replace is not atomic between threads")
class ReplaceInTwoSteps(MemoryCacheTier):
    def replace(self, record: CacheEntry, expected_version: int) -> bool:
        held = self.get(record.key)
        if (held.version if held else 0) != expected_version:
            return False
        for _ in range(100):
            pass
        return self.put(record) is None


@fault("replace is not atomic between processes")
class ReplaceAtomicBetweenThreadsOnly(FileBlobTier):
    def replace(self, record: Row, expected_version: int) -> bool:
        with self.lock:
            return CacheTier.replace(self, record, expected_version)


@fault("a bulk replace ignores what is expected")
class ReplaceManyPuts(FileBlobTier):
    def replace_many(self, replacements: Sequence[tuple[Row, int]]) -> list[bool]:
        return [refused is None for refused in self.put_many([record for record, _ in replacements])]


@fault("a bulk replace is refused as a whole")
class ReplaceManyAllOrNothing(FileBlobTier):
    def replace_many(self, replacements: Sequence[tuple[Row, int]]) -> list[bool]:
        held = self.get_many(record.key for record, _ in replacements)
        there = {key: row.version for key, row in held.items()}
        if any(there.get(record.key, 0) != expected for record, expected in replacements):
            return [False] * len(replacements)
        return super().replace_many(replacements)


@fault("a bulk replace looks at all before it writes any")
class ReplaceManyInTwoSteps(MemoryCacheTier):
    def replace_many(self, replacements: Sequence[tuple[CacheEntry, int]]) -> list[bool]:
        there = {key: entry.version for key, entry in self.get_many(record.key for record, _ in replacements).items()}
        return [there.get(record.key, 0) == expected and self.put(record) is None for record, expected in replacements]


@fault("a bulk replace is not atomic between processes")
class ReplaceManyAtomicBetweenThreadsOnly(FileBlobTier):
    def replace_many(self, replacements: Sequence[tuple[Row, int]]) -> list[bool]:
        with self.lock:
            return [CacheTier.replace(self, record, expected) for record, expected in replacements]


@fault("discard removes a newer version")
class DiscardsAnyVersion(FileBlobTier):
    def discard(self, record: Row) -> bool:
        held = self.get(record.key)
        return held is not None and super().discard(held)


# -- marks ------------------------------------------------------------------------------------------------------------


@fault("a delete sets no mark")
class DeleteSetsNoMark(FileBlobTier):
    def delete(self, key: str, version: int) -> int | None:
        refused = super().delete(key, version)
        if refused is None:
            self.remove(key)
        return refused


@fault("a delete of a key that is not held sets no mark")
class DeleteMarksOnlyWhatIsHeld(FileBlobTier):
    def delete(self, key: str, version: int) -> int | None:
        return None if self.load(key) is None else super().delete(key, version)


@fault("a discard sets no mark")
class DiscardSetsNoMark(FileBlobTier):
    def discard(self, record: Row) -> bool:
        if done := super().discard(record):
            self.remove(record.key)
        return done


@fault("a discard sets the mark of a deletion")
class DiscardMarksADeletion(FileBlobTier):
    def discard(self, record: Row) -> bool:
        return CacheTier.discard(self, record)


@fault("marks are lost at a restart")
class MarksDieWithTheTier(FileBlobTier):
    def __init__(self, context: TierContext, path: Path) -> None:
        super().__init__(context, path)
        if not context.read_only:
            held = list(self.scan())
            for file in self.folder.iterdir():
                file.unlink()
            for row in held:
                self.put(row)


@fault("marks are never forgotten")
class MarksAreKeptForEver(FileBlobTier):
    def purge_in_steps(self, now: float) -> Iterator[int]:
        return CacheTier.purge_in_steps(self, now)


@fault("a purge forgets marks too early")
class PurgeForgetsEveryMark(FileBlobTier):
    def purge(self, now: float) -> int:
        purged = super().purge(now)
        super().purge(now + self.context.tombstone_seconds)
        return purged


@fault("the highest version leaves out deletions")
class HighestVersionLeavesOutMarks(FileBlobTier):
    def highest_version(self) -> int:
        return CacheTier.highest_version(self)


# -- eviction and deadlines -------------------------------------------------------------------------------------------


@fault("overflow removes what it names")
class OverflowRemoves(FileBlobTier):
    def overflow(self) -> list[Row]:
        victims = super().overflow()
        for victim in victims:
            self.discard(victim)
        return victims


@fault("overflow names the hottest first")
class OverflowNamesTheHottest(FileBlobTier):
    def overflow(self) -> list[Row]:
        rows = sorted(self.scan(), key=lambda row: -row.version)
        return rows[: len(super().overflow())]


@fault("evict only names")
class EvictOnlyNames(FileBlobTier):
    def evict(self) -> list[Row]:
        return self.overflow()


@fault("evict goes one too far")
class EvictsOneTooMany(MemoryCacheTier):
    def evict(self) -> list[CacheEntry]:
        evicted = super().evict()
        return evicted + [entry for entry in list(self.scan())[:1] if evicted and self.discard(entry)]


@fault("evict leaves no marks")
class EvictsWithoutMarks(MemoryCacheTier):
    def evict(self) -> list[CacheEntry]:
        evicted = super().evict()
        for entry in evicted:
            del self._marks[entry.key]
        return evicted


@fault("evict goes by age, whatever the policy")
class EvictsTheOldest(MemoryCacheTier):
    def evict(self) -> list[CacheEntry]:
        oldest = sorted(self.scan(), key=lambda entry: entry.version)
        return [entry for entry in oldest[: len(self.overflow())] if self.discard(entry)]


@fault("a put evicts")
class PutEvicts(FileBlobTier):
    def put(self, record: Row) -> int | None:
        refused = super().put(record)
        for victim in self.overflow():
            self.discard(victim)
        return refused


@fault("fifo goes by use")
class FifoIsLru(MemoryCacheTier):
    def __init__(self, context: TierContext) -> None:
        super().__init__(replace(context, eviction_policy="lru"))


@fault("deadlines are rounded to milliseconds")
class DeadlineRounded(FileBlobTier):
    def put(self, record: Row) -> int | None:
        return super().put(changed(record, purge_at=round(record.purge_at, 3)))


@fault("get looks at deadlines")
class GetDropsWhatIsDue(FileBlobTier):
    def get(self, key: str) -> Row | None:
        row = super().get(key)
        return None if row is not None and row.purge_at <= self.context.now() else row


@fault("a deadline that is now is not due")
class PurgeSparesTheMoment(FileBlobTier):
    def purge(self, now: float) -> int:
        return super().purge(now - 1e-6)


# -- usage ------------------------------------------------------------------------------------------------------------


@fault("touch sets the count")
class TouchSets(FileBlobTier):
    def touch_many(self, deltas: Mapping[str, Delta]) -> None:
        for key, delta in deltas.items():
            if (row := self.get(key)) is not None:
                self.put(with_usage(row, delta.count, delta.last_accessed))


@fault("touch changes the version")
class TouchChangesTheVersion(FileBlobTier):
    def touch_many(self, deltas: Mapping[str, Delta]) -> None:
        super().touch_many(deltas)
        for key in deltas:
            if (row := self.get(key)) is not None:
                self.put(changed(row, version=row.version + 1))


@fault("touch creates records")
class TouchCreates(FileBlobTier):
    def touch_many(self, deltas: Mapping[str, Delta]) -> None:
        for key in deltas:
            if self.get(key) is None:
                self.put(Row(key, 1, 2e9, "", {}))
        super().touch_many(deltas)


@fault("a put forgets usage")
class PutForgetsUsage(FileBlobTier):
    def put(self, record: Row) -> int | None:
        if (held := self.get(record.key)) is not None and held.version < record.version:
            self.remove(record.key)
        return super().put(record)
