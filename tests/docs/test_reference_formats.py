"""What a `BlobTier` stores is as documented, to the byte. JSON Lines and SQLite are held true elsewhere."""

import re
from ast import literal_eval
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.tiers import DictBlobTier

from tierkit import Row, TierContext, TierUnavailable, pack_row, unpack_row

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "formats.md").read_text("utf-8")
SECTION = TEXT[TEXT.index("## Blobs (BlobTier)") : TEXT.index("## Tokens and checks")]
FIELDS, EXAMPLE, HEXADECIMAL = re.findall(r"^```text\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
ENVELOPE: list[Any] = literal_eval(EXAMPLE)
STORED = bytes.fromhex(HEXADECIMAL)
ROW = Row(*ENVELOPE[2])
KEY = ROW.key


@pytest.fixture
def tier() -> DictBlobTier:
    return DictBlobTier(TierContext(now=lambda: ENVELOPE[4]))


def test_a_row_above_a_mark_is_stored_as_documented(tier: DictBlobTier) -> None:
    assert tier.delete(KEY, ENVELOPE[3] - 1) is None
    assert tier.put(ROW) is None
    assert msgspec.msgpack.decode(tier.blobs[KEY]) == ENVELOPE
    assert tier.blobs[KEY] == STORED
    assert f"the {len(STORED)} bytes" in SECTION


def test_the_documented_bytes_are_read(tier: DictBlobTier) -> None:
    tier.blobs[KEY] = STORED
    read = tier.get(KEY)
    assert read is not None
    assert msgspec.structs.astuple(read) == tuple(ENVELOPE[2])
    assert tier.highest_version() == ROW.version


def test_a_mark_alone_is_stored_as_documented(tier: DictBlobTier) -> None:
    tier.delete(KEY, 7)
    assert msgspec.msgpack.decode(tier.blobs[KEY]) == [1, KEY, None, 8, ENVELOPE[4]]
    tier.put(ROW)
    tier.discard(ROW)
    assert msgspec.msgpack.decode(tier.blobs[KEY]) == [1, KEY, None, ROW.version, ENVELOPE[4]]


def test_a_newer_format_is_refused_and_left(tier: DictBlobTier) -> None:
    tier.blobs[KEY] = newer = msgspec.msgpack.encode([2, *ENVELOPE[1:], "more"])
    with pytest.raises(TierUnavailable, match="format 2"):
        tier.get(KEY)
    assert tier.blobs[KEY] == newer


def test_the_fields_are_documented_in_their_order() -> None:
    envelope, row = (re.findall(r"\w+", line[line.index("[") :]) for line in FIELDS.splitlines())
    assert envelope == ["format", "key", "row", "mark", "marked_at"]
    assert row == list(Row.__struct_fields__)
    assert all(f"`{name}`" in SECTION for name in envelope + row)


def test_a_packed_row_is_the_inner_array_and_grows_at_its_end() -> None:
    assert pack_row(ROW) in STORED
    inner = ENVELOPE[2]
    assert unpack_row(msgspec.msgpack.encode([*inner, "later"])) == ROW
    assert unpack_row(msgspec.msgpack.encode(inner[:5])).access_count == 0
