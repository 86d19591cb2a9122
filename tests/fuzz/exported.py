"""What a file that was exported may hold after anything was done to it, in each format."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.fuzz.imported import CANARY, CONFIG, Wide
from tests.fuzz.stored import check

from tierkit import CacheManager, TransferError
from tierkit.testing import FakeClock

FORMATS: Final = ("jsonl", "json", "csv", "csv.gz")


@lru_cache
def cache() -> CacheManager[Wide]:
    """A cache in memory, in which a record is that no file of the corpus has."""
    return CacheManager(CONFIG, entry_type=Wide, clock=FakeClock())


def exported(data: bytes) -> None:
    """The first byte tells the format, the rest is the file. Without asking it goes in whole, or not at all."""
    target, form = cache(), FORMATS[data[0] % 4] if data else "csv"
    target.clear()
    with TemporaryDirectory(prefix="fuzz") as folder:
        file = Path(folder, f"file.{form}")
        file.write_bytes(data[1:])
        try:
            result = target.import_from_file(file)
        except TransferError as error:
            check(CANARY not in str(error), "a secret is told")
            check(target.size() == 0, "something of a file that was refused is there")
            salvaged(target, file)
            return
        check(result.found == result.imported + result.kept + result.expired + result.rejected, "not all is counted")
        again = target.export_to_file(file, secrets="plain")
        check(again.exported == target.size() <= result.imported, "what went in does not come out")


def salvaged(target: CacheManager[Wide], file: Path) -> None:
    """By asking what can be read goes in, and the rest is in a file that can be read again."""
    try:
        result = target.import_from_file(file, accept_damage=True)
    except TransferError:
        return
    check(CANARY not in f"{result} {result.rejects}", "a secret is told")
    check(result.found == result.imported + result.kept + result.expired + result.rejected, "not all is counted")
    if result.rejects_path is not None:
        check(target.import_from_file(result.rejects_path).found == result.rejected, "the rejects are not whole")
