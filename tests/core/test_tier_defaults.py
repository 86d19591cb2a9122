"""The defaults of `CacheTier` and `BlobTier` keep the contract."""

from pathlib import Path
from typing import Any

import pytest
from tests.tiers import DictBlobTier, FileBlobTier, FiveMethodTier

from tierkit import BlobTier, CacheTier, Delta, TierContext, TierCorrupt, TierUnavailable
from tierkit.testing import TierContract, make_row

pytestmark = [pytest.mark.req("F-8"), pytest.mark.req("US1-1")]


class TestFiveMethods(TierContract):
    def open_tier(self, context: TierContext, path: Path) -> CacheTier[Any]:
        return FiveMethodTier(context)


class TestBlobsInADictionary(TierContract):
    def open_tier(self, context: TierContext, path: Path) -> CacheTier[Any]:
        return DictBlobTier(context)


class TestBlobsInFiles(TierContract):
    def open_tier(self, context: TierContext, path: Path) -> CacheTier[Any]:
        return FileBlobTier(context, path)


@pytest.fixture
def blobs() -> DictBlobTier:
    return DictBlobTier(TierContext())


@pytest.mark.parametrize("blob", [b"", b"\0", b"garbage", b"\x95\x01\xa3key\xc0\x00"])
def test_a_damaged_blob_is_raised_once_and_set_aside(blobs: DictBlobTier, blob: bytes) -> None:
    blobs.put(make_row("other"))
    blobs.blobs["key"] = blob
    with pytest.raises(TierCorrupt, match="82af27c64245bfd15a520134b44e6bb1"):
        blobs.get("key")
    assert blobs.get("key") is None
    assert blobs.get("other") == make_row("other")


def test_the_blob_of_another_key_is_damage(blobs: DictBlobTier) -> None:
    blobs.put(make_row("other"))
    blobs.blobs["key"] = blobs.blobs["other"]
    with pytest.raises(TierCorrupt):
        blobs.get("key")


def test_bulk_calls_leave_damage_out(blobs: DictBlobTier) -> None:
    blobs.put_many([make_row("a"), make_row("b")])
    blobs.blobs["c"] = b"garbage"
    assert set(blobs.get_many("abc")) == {"a", "b"}
    blobs.blobs["c"] = b"garbage"
    assert {row.key for row in blobs.scan()} == {"a", "b"}
    blobs.touch_many({"c": Delta(1, 1.0), "a": Delta(2, 2.0)})
    row = blobs.get("a")
    assert row is not None
    assert row.access_count == 2


def test_damage_is_overwritten_by_the_next_write(blobs: DictBlobTier) -> None:
    blobs.blobs["key"] = b"garbage"
    assert blobs.put(make_row("key")) is None
    assert blobs.get("key") == make_row("key")


def test_read_only_leaves_damage_where_it_is() -> None:
    blobs = DictBlobTier(TierContext(read_only=True))
    blobs.blobs["key"] = b"garbage"
    for _ in range(2):
        with pytest.raises(TierCorrupt):
            blobs.get("key")


def test_a_newer_format_is_refused_untouched(blobs: DictBlobTier) -> None:
    blobs.put(make_row("key"))
    blob = blobs.blobs["key"]
    newer = blobs.blobs["key"] = blob[:1] + b"\x02" + blob[2:]
    for call in (lambda: blobs.get("key"), lambda: blobs.put(make_row("key", 2)), lambda: list(blobs.scan())):
        with pytest.raises(TierUnavailable, match="newer"):
            call()
    assert blobs.blobs["key"] == newer


def test_one_row_that_is_damaged_keeps_no_usage_from_the_others() -> None:
    class Damaged(FiveMethodTier):
        def get(self, key: str) -> Any:
            if key == "damaged":
                raise TierCorrupt(key)
            return super().get(key)

    tier = Damaged(TierContext())
    tier.put(make_row("key"))
    tier.touch_many({"damaged": Delta(1, 1.0), "key": Delta(1, 1.0)})
    assert tier.rows["key"].access_count == 1
    pairs = [(make_row("damaged", 2), 1), (make_row("key", 2), 1)]
    assert tier.replace_many(pairs) == [False, True]


def test_a_blob_tier_needs_four_methods() -> None:
    assert BlobTier.__abstractmethods__ == {"load", "store", "remove", "iterate"}


def test_a_tier_needs_five_methods() -> None:
    assert CacheTier.__abstractmethods__ == {"get", "put", "delete", "scan", "close"}
