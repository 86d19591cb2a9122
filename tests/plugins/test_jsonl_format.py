"""The files of the JSON Lines tier, as others see them. What these tests read, later versions must read."""

import json
import os
import stat
from math import inf, nan
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.plugins.jsonl_tools import NOW, held, lines_of, open_store, row, shard

from tierkit import CacheValidationError, Delta, Row, TierUnavailable
from tierkit.testing import make_row
from tierkit_jsonl import lines
from tierkit_jsonl.lines import Place, decode_row, encode_row, key_crc

LINE = (
    b'{"crc":"ce510345.7372c9be","key":"proxy","version":"1832960000000000007","purge_at":1790003600.5,'
    b'"check":"k1.0a1b.2c3d","access_count":2,"last_accessed":1790000000.25,"proxy_url":"http://203.0.113.7:8080",'
    b'"failure_count":0,"username_encrypted":"s1.0a1b.Zm9v","raw":"base64:AP8=","column:op":"x",'
    b'"blobs":["username_encrypted","raw"],"renamed":["column:op"]}'
)
ROW = Row(
    "proxy",
    1832960000000000007,
    1790003600.5,
    "k1.0a1b.2c3d",
    {
        "proxy_url": "http://203.0.113.7:8080",
        "failure_count": 0,
        "username_encrypted": b"s1.0a1b.Zm9v",
        "raw": b"\x00\xff",
        "op": "x",
        "password_encrypted": None,
    },
    2,
    1790000000.25,
)


def test_a_row_is_written_as_documented_and_read_back() -> None:
    assert encode_row(ROW, key_crc("proxy")) == LINE + b"\n"
    place = Place("proxy", 0, len(LINE), ROW.version, ROW.purge_at, 3, 1790000001.0)
    read = decode_row(LINE, place)
    assert read == ROW
    assert read is not None
    assert (read.access_count, read.last_accessed) == (3, 1790000001.0)


def test_a_store_written_by_hand_is_read(tmp_path: Path) -> None:
    root = shard(tmp_path).parent
    root.mkdir(parents=True, mode=0o700)
    key = "proxy"
    lines = [
        {"op": "shard", "format": 1, "shards": 1, "shard": 0},
        json.loads(LINE, object_pairs_hook=lambda pairs: dict(pairs[1:])),
        {"op": "usage", "key": key, "access_count": 9, "last_accessed": 1790000002.0},
        {"op": "mark", "key": "gone", "mark": "0000000000000000007", "marked_at": NOW},
        {"op": "quarantine", "key": "lost", "mark": "0000000000000000005", "marked_at": NOW},
        {"op": "something new", "key": key},
    ]
    (root / "meta.json").write_bytes(framed(lines[0]))
    shard(tmp_path).write_bytes(b"".join(map(framed, lines)))
    with open_store(tmp_path, read_only=True) as tier:
        read = tier.get(key)
        assert read == ROW
        assert read is not None
        assert (read.access_count, read.last_accessed) == (9, 1790000002.0)
        assert tier.damaged_lines == 0
    with open_store(tmp_path) as tier:
        assert tier.put(make_row("gone", 6)) == 6
        assert tier.put(make_row("lost", 4)) == 4
        assert tier.put(make_row("lost", 5)) is None
        assert tier.highest_version() == ROW.version


def framed(fields: dict[str, object]) -> bytes:
    """A line as another program would write it, from the documentation alone."""
    key = fields.get("key", "")
    assert isinstance(key, str)
    covered = b'.%08x",' % crc32(key.encode()) + json.dumps(fields, separators=(",", ":")).encode()[1:]
    return b'{"crc":"%08x' % crc32(covered) + covered + b"\n"


FORMATS = (Path(__file__).parents[2] / "docs" / "reference" / "formats.md").read_text("utf-8")


def test_the_example_in_the_documentation_is_a_store(tmp_path: Path) -> None:
    root = shard(tmp_path).parent
    root.mkdir(parents=True, mode=0o700)
    meta, *examples = (line.encode() + b"\n" for line in FORMATS.splitlines() if line.startswith('{"crc":'))
    (root / "meta.json").write_bytes(meta)
    (root / "03.jsonl").write_bytes(b"".join(examples[:-1]))
    assert meta == framed(dict(list(json.loads(meta).items())[1:]))
    assert all(line == framed(dict(list(json.loads(line).items())[1:])) for line in examples)
    with open_store(tmp_path, read_only=True, now=lambda: 1790000100.0) as tier:
        (found,) = tier.scan()
        assert (found.columns["proxy_url"], found.access_count) == ("http://203.0.113.7:8080", 3)
        assert tier.damaged_lines == 0
    (root / "03.jsonl").write_bytes(b"".join(examples))
    with open_store(tmp_path, read_only=True, now=lambda: 1790000100.0) as tier:
        assert held(tier) == {}
        assert tier.highest_version() == 1832960102400000000


def test_every_name_that_a_line_uses_is_documented() -> None:
    section = FORMATS[FORMATS.index("## JSON Lines") : FORMATS.index("## SQLite")]
    for name in lines._FIXED:
        assert f"`{name}`" in section


@pytest.mark.req("US1-2")
def test_each_line_is_a_flat_object_that_any_json_reader_takes(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier:
        tier.put(row("a", 1, count=7))
        tier.touch_many({"a": Delta(2, 5.5)})
        tier.discard(row("a", 1))
        tier.delete("a", 4)
    header, record, usage, discarded, deleted = lines_of(tmp_path)
    assert {**header, "crc": ""} == {"crc": "", "op": "shard", "format": 1, "shards": 1, "shard": 0}
    assert list(record)[:7] == [
        "crc",
        "key",
        "version",
        "purge_at",
        "check",
        "access_count",
        "last_accessed",
    ]
    assert record["version"] == "0000000000000000001"
    assert (record["token_encrypted"], record["text"], record["count"]) == ("s1.k.a-1", "aaa", 7)
    assert record["blobs"] == ["token_encrypted"]
    assert (usage["op"], usage["key"], usage["access_count"], usage["last_accessed"]) == ("usage", "a", 2, 5.5)
    assert (discarded["op"], discarded["mark"], discarded["marked_at"]) == ("mark", "0" * 18 + "1", NOW)
    assert (deleted["op"], deleted["mark"]) == ("mark", "0" * 18 + "5")


@pytest.mark.req("US1-2")
def test_the_shard_of_a_key_is_its_checksum_modulo_their_number(tmp_path: Path) -> None:
    with open_store(tmp_path, shards=20) as tier:
        tier.put_many([row(f"key {n}") for n in range(200)])
    for n in range(20):
        lines = lines_of(tmp_path, n)
        assert (lines[0]["shard"], lines[0]["shards"]) == (n, 20)
        assert lines[1:]
        assert all(crc32(line["key"].encode()) % 20 == n for line in lines[1:])
    assert (shard(tmp_path).parent / "13.jsonl").exists()  # hexadecimal: the last of twenty


@pytest.mark.req("US1-6")
def test_a_store_of_ten_thousand_stays_small(tmp_path: Path) -> None:
    tokens = {"username_encrypted": b"s1.abcdefgh." + b"x" * 64, "password_encrypted": b"s1.abcdefgh." + b"y" * 64}
    with open_store(tmp_path, shards=16) as tier:
        for n in range(1000):
            tier.put(make_row(f"{n:032x}", n + 1, columns=tokens, proxy_url="http://203.0.113.7:8080"))
        size = tier.bytes_on_disk()
        assert size == sum(file.stat().st_size for file in shard(tmp_path).parent.iterdir())
        assert size * 10 < 7_000_000


names = st.text(min_size=1, max_size=12).filter(lambda name: name.isprintable()) | st.sampled_from(
    ["crc", "op", "key", "blobs", "mark", "column:key", "column:", "check", "access_count", "version"]
)
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = (
    st.none()
    | texts
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.binary()
    | st.sampled_from([b"base64:", b"base64:AA==", "base64:AA==", b"s1.a", '"column:'])
)


@given(
    key=texts.filter(bool),
    version=st.integers(0, 2**63 - 1),
    purge_at=st.floats(allow_nan=False, allow_infinity=False) | st.just(inf),
    columns=st.dictionaries(names, values, max_size=6),
    usage=st.tuples(st.integers(0, 2**40), st.floats(0, 1e12)),
)
def test_any_row_comes_back_as_it_was_with_its_types(
    key: str, version: int, purge_at: float, columns: dict[str, object], usage: tuple[int, float]
) -> None:
    written = Row(key, version, purge_at, "c1.00000000", columns, *usage)
    line = encode_row(written, key_crc(key))
    assert line.count(b"\n") == 1
    read = decode_row(line[:-1], Place(key, 0, len(line) - 1, version, purge_at, *usage))
    assert read == written
    assert read is not None
    present = {name: value for name, value in columns.items() if value is not None}
    assert {name: (type(value), value) for name, value in read.columns.items()} == {
        name: (type(value), value) for name, value in present.items()
    }


@pytest.mark.parametrize(
    "bad",
    [
        Row("lone \ud800", 1, inf, "c1", {}),
        Row("a", 1, inf, "c1", {"text": "lone \udfff"}),
        make_row("a", number=inf),
        make_row("a", number=nan),
        make_row("a", number=2**63),
        make_row("a", number=-(2**63) - 1),
        Row("a", 1, inf, "c1", {"number": [1]}),
        make_row("a", text="x" * 9_000_000),
        make_row("a", -1),
        make_row("a", 2**63),
        make_row("a", purge_at=nan),
        make_row("a", purge_at=-inf),
        make_row("a", last_accessed=inf),
    ],
    ids=lambda bad: f"{bad.key[:5]!r} {bad.version} {next(iter(bad.columns), '')}",
)
def test_what_a_line_cannot_hold_is_refused_before_anything_is_written(tmp_path: Path, bad: Row) -> None:
    with open_store(tmp_path) as tier:
        tier.put(row("a", 1))
        before = shard(tmp_path).read_bytes()
        for write in (
            lambda: tier.put(bad),
            lambda: tier.put_many([row("b"), bad]),
            lambda: tier.replace(bad, 0),
        ):
            with pytest.raises(CacheValidationError) as caught:
                write()
            assert "xxx" not in str(caught.value)
            assert len(str(caught.value)) < 200
        assert shard(tmp_path).read_bytes() == before
        assert tier.get("lone \ud800") is None


def test_a_bool_comes_back_as_the_integer_it_is(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier:
        tier.put(make_row("a", flag=True))
        found = tier.get("a")
        assert found is not None
        assert found.columns == {"flag": 1}


@pytest.mark.parametrize("line", [b"[]", b'{"key":"a"}', b'{"key":1,"version":[]}', b'{"key":"a","version":"x"}'])
def test_a_sealed_line_of_another_shape_is_damage(tmp_path: Path, line: bytes) -> None:
    covered = b'.00000000",' + line[1:]
    with open_store(tmp_path) as tier:
        tier.put(row("a"))
    with shard(tmp_path).open("ab") as file:
        file.write(b'{"crc":"%08x' % crc32(covered) + covered + b"\n")
    with open_store(tmp_path) as tier:
        assert tier.size() == 1
        assert tier.put(row("b")) is None
        assert tier.get("b") == row("b")


# -- the directory ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777])
def test_only_the_owner_can_read_whatever_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with open_store(tmp_path / "deep" / "deeper", shards=2) as tier:
            tier.put_many([row("a"), row("b"), row("c")])
            tier.compact()
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "deep").rglob("*")}
    assert {name for name, mode in modes.items() if mode == 0o700} == {"deeper", "store", "entries"}
    assert {name for name, mode in modes.items() if mode == 0o600} == {
        "00.jsonl", "01.jsonl", "00.lock", "01.lock", "meta.json", "meta.lock"
    }  # fmt: skip
    assert set(modes.values()) == {0o600, 0o700}


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
@pytest.mark.parametrize("name", ["store", "store/entries"])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_directory_that_others_can_write_is_refused(tmp_path: Path, name: str, mode: int, read_only: bool) -> None:
    with open_store(tmp_path):
        pass
    (tmp_path / name).chmod(mode)
    with pytest.raises(TierUnavailable, match="written by others"):
        open_store(tmp_path, read_only=read_only)


def test_a_directory_where_nobody_can_take_away_what_is_anothers_may_hold_it(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store").chmod(0o1777)
    with open_store(tmp_path) as tier:
        assert tier.put(row("a")) is None
    (tmp_path / "store/entries").chmod(0o1777)
    with pytest.raises(TierUnavailable, match="written by others"):
        open_store(tmp_path)


@pytest.mark.parametrize("name", ["00.jsonl", "meta.json", "00.lock"])
def test_links_are_not_followed(tmp_path: Path, name: str) -> None:
    with open_store(tmp_path) as tier:
        tier.put(row("a"))
    target = tmp_path / "target"
    path = shard(tmp_path).parent / name
    path.rename(target)
    before = target.read_bytes()
    path.symlink_to(target)
    with pytest.raises(TierUnavailable):  # noqa: SIM117 - which of the two raises depends on the file
        with open_store(tmp_path) as tier:
            tier.put(row("b"))
    assert target.read_bytes() == before


def test_a_linked_directory_and_a_pipe_are_refused(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier:
        shard(tmp_path).unlink()
        os.mkfifo(shard(tmp_path))
        with pytest.raises(TierUnavailable, match="not a regular file"):
            tier.put(row("a"))
    (tmp_path / "store" / "entries").rename(tmp_path / "elsewhere")
    (tmp_path / "store" / "entries").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TierUnavailable, match="links are not followed"):
        open_store(tmp_path)


@pytest.mark.parametrize("name", ["meta.json", "00.jsonl"])
@pytest.mark.parametrize("read_only", [False, True])
def test_a_newer_format_is_refused_untouched(tmp_path: Path, name: str, read_only: bool) -> None:
    with open_store(tmp_path) as tier:
        tier.put(row("a"))
    path = shard(tmp_path).parent / name
    newer = framed({"op": "shard", "format": 2, "shapes": ["other"]}) + b"what comes then is none of our business"
    path.write_bytes(newer)
    with pytest.raises(TierUnavailable, match="format 2, newer than 1: upgrade"):  # noqa: SIM117 - one of the two
        with open_store(tmp_path, read_only=read_only) as tier:
            tier.get("a")
    if not read_only:
        with pytest.raises(TierUnavailable, match="newer"):  # noqa: SIM117 - likewise
            with open_store(tmp_path) as tier:
                tier.put(row("b"))
    assert path.read_bytes() == newer
    assert not list(path.parent.glob("*.corrupt-*"))


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b"\xff" * 9, None])
def test_damaged_metadata_is_made_anew_from_the_shards(tmp_path: Path, content: bytes | None) -> None:
    with open_store(tmp_path, shards=5) as tier:
        tier.put_many([row(f"key {n}") for n in range(20)])
        everything = held(tier)
    meta = shard(tmp_path).parent / "meta.json"
    good = meta.read_bytes()
    if content is None:
        meta.unlink()
    else:
        meta.write_bytes(content)
    with open_store(tmp_path, shards=3, read_only=True) as reader:
        assert held(reader) == everything
        assert meta.exists() == (content is not None)
    with open_store(tmp_path) as tier:
        assert held(tier) == everything
    assert meta.read_bytes() == good
    aside = list(meta.parent.glob("meta.json.corrupt-*"))
    assert [path.read_bytes() for path in aside] == ([] if content is None else [content])


def test_any_flip_in_the_metadata_loses_nothing(tmp_path: Path) -> None:
    with open_store(tmp_path, shards=3) as tier:
        tier.put_many([row(f"key {n}") for n in range(9)])
        everything = held(tier)
    meta = shard(tmp_path).parent / "meta.json"
    good = meta.read_bytes()
    for place in range(len(good)):
        meta.write_bytes(good[:place] + bytes([good[place] ^ 2]) + good[place + 1 :])
        with open_store(tmp_path) as tier:
            assert held(tier) == everything
