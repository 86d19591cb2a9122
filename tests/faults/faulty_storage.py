"""Faults in what is stored and shown: bulk calls, scans, keys, values, errors, claims."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from tests.faults.planting import changed, fault
from tests.tiers import DictBlobTier, FileBlobTier

from tierkit import CacheEntry, Row, TierContext, TierkitError, Trait, key_digest
from tierkit_memory import MemoryCacheTier

# -- bulk and iteration -----------------------------------------------------------------------------------------------


@fault("put_many stops at a refusal")
class PutManyStopsAtARefusal(FileBlobTier):
    def put_many(self, records: Sequence[Row]) -> list[int | None]:
        answers: list[int | None] = []
        for record in records:
            answers.append(self.put(record))
            if answers[-1] is not None:
                break
        return answers + [None] * (len(records) - len(answers))


@fault("put_many answers out of order")
class PutManyAnswersOutOfOrder(FileBlobTier):
    def put_many(self, records: Sequence[Row]) -> list[int | None]:
        return super().put_many(sorted(records, key=lambda record: record.version))


@fault("delete_many answers what was taken")
class DeleteManyAnswersAll(FileBlobTier):
    def delete_many(self, versions: Mapping[str, int]) -> dict[str, int]:
        return {key: self.delete(key, version) or 0 for key, version in versions.items()}


@fault("get_many reads a hundred keys")
class GetManyReadsAHundred(FileBlobTier):
    def get_many(self, keys: Iterable[str]) -> dict[str, Row]:
        return super().get_many(list(keys)[:100])


@fault("a scan breaks when others write")
class ScanIsLive(DictBlobTier):
    def iterate(self) -> Iterator[bytes]:
        return iter(self.blobs.values())


@fault("a scan pages by offset")
class ScanByNumber(DictBlobTier):
    def iterate(self) -> Iterator[bytes]:
        number = 0
        while number < len(self.blobs):
            page = list(self.blobs.values())[number : number + 10]
            yield from page
            number += 10


@fault("a scan shows a record twice")
class ScanTwice(FileBlobTier):
    def iterate(self) -> Iterator[bytes]:
        yield from super().iterate()
        yield from list(super().iterate())[-1:]


@fault("a scan holds a lock between steps")
class ScanHoldsTheLock(FileBlobTier):
    def scan(self) -> Iterator[Row]:
        with self.lock:
            yield from super().scan()


@fault("size counts marks")
class SizeCountsMarks(FileBlobTier):
    def size(self) -> int:
        return len(list(self.iterate()))


# -- keys and values --------------------------------------------------------------------------------------------------


@fault("keys are case-folded")
class KeysFolded(FileBlobTier):
    def load(self, key: str) -> bytes | None:
        return self.read(self.folder / key_digest(key.casefold()))

    def store(self, key: str, blob: bytes) -> None:
        (self.folder / key_digest(key.casefold())).write_bytes(blob)


@fault("keys are trimmed")
class KeysTrimmed(MemoryCacheTier):
    def put(self, record: CacheEntry) -> int | None:
        return super().put(msgspec.structs.replace(record, key=record.key.strip() or record.key))


@fault("None becomes an empty text")
class NoneBecomesEmpty(FileBlobTier):
    def put(self, record: Row) -> int | None:
        columns = {name: "" if value is None else value for name, value in record.columns.items()}
        return super().put(changed(record, columns=columns))


@fault("undeclared columns are lost")
class ColumnsCutToTheDeclared(FileBlobTier):
    def put(self, record: Row) -> int | None:
        columns = {name: value for name, value in record.columns.items() if name in self.context.columns}
        return super().put(changed(record, columns=columns))


@fault("text that looks like a number becomes one")
class TextThatLooksLikeANumber(FileBlobTier):
    def put(self, record: Row) -> int | None:
        columns = {
            name: int(value) if isinstance(value, str) and value.isdecimal() else value
            for name, value in record.columns.items()
        }
        return super().put(changed(record, columns=columns))


@fault("the check is not kept")
class CheckIsDropped(FileBlobTier):
    def put(self, record: Row) -> int | None:
        return super().put(changed(record, check=""))


@fault("claims LIVE and hands out copies")
class GivesCopies(MemoryCacheTier):
    def __init__(self, context: TierContext) -> None:
        super().__init__(context)
        find = self.get
        vars(self)["get"] = lambda key: (entry := find(key)) and msgspec.structs.replace(entry)


# -- errors, claims, crashes ------------------------------------------------------------------------------------------


@fault("get hides errors")
class GetSwallows(FileBlobTier):
    def get(self, key: str) -> Row | None:
        try:
            return super().get(key)
        except TierkitError:
            return None


@fault("put hides errors")
class PutSwallows(FileBlobTier):
    def put(self, record: Row) -> int | None:
        try:
            return super().put(record)
        except TierkitError:
            return None


@fault("a read-only tier creates its folder")
class ReadOnlyCreatesItsFolder(FileBlobTier):
    def __init__(self, context: TierContext, path: Path) -> None:
        super().__init__(context, path)
        self.folder.mkdir(parents=True, exist_ok=True)


@fault("a read-only tier writes")
class ReadOnlyWrites(FileBlobTier):
    def _check_writable(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)


@fault("close fails the second time")
class ClosesOnce(FileBlobTier):
    def close(self) -> None:
        self._check_open()
        super().close()


@fault("claims PERSISTENT and is not")
class ClaimsToPersist(DictBlobTier):
    traits: ClassVar[Trait] = Trait.PERSISTENT


@fault("does not claim that it is PERSISTENT")
class ClaimsTooLittle(FileBlobTier):
    traits: ClassVar[Trait] = Trait.NONE


@fault("claims SHARED and sees no writes of others")
class ClaimsToBeShared(FileBlobTier):
    """Reads its files once, at open."""

    def __init__(self, context: TierContext, path: Path) -> None:
        super().__init__(context, path)
        self.blobs = {file.name: file.read_bytes() for file in self.folder.glob("*") if file.name != "lock"}

    def load(self, key: str) -> bytes | None:
        return self.blobs.get(key_digest(key))

    def store(self, key: str, blob: bytes) -> None:
        super().store(key, blob)
        self.blobs[key_digest(key)] = blob

    def remove(self, key: str) -> None:
        super().remove(key)
        self.blobs.pop(key_digest(key), None)

    def iterate(self) -> Iterator[bytes]:
        return iter(list(self.blobs.values()))


@fault("claims CRASH_SAFE and writes when it is closed")
class WritesWhenClosed(ClaimsToBeShared):
    traits: ClassVar[Trait] = Trait.PERSISTENT | Trait.CRASH_SAFE

    def store(self, key: str, blob: bytes) -> None:
        self.blobs[key_digest(key)] = blob

    def remove(self, key: str) -> None:
        self.blobs.pop(key_digest(key), None)

    def close(self) -> None:
        if not self._closed and not self.context.read_only:
            for file in self.folder.glob("*"):
                file.unlink()
            for name, blob in self.blobs.items():
                (self.folder / name).write_bytes(blob)
        super().close()


@fault("namespaces share their keys")
class NamespacesMixed(FileBlobTier):
    def __init__(self, context: TierContext, path: Path) -> None:
        super().__init__(replace(context, namespace="all"), path)


@fault("two threads meet between load and store")
class LocksNothing(DictBlobTier):
    def exclusive(self, key: str) -> Any:
        return nullcontext()

    def load(self, key: str) -> bytes | None:
        blob = super().load(key)
        for _ in range(20):
            pass
        return blob
