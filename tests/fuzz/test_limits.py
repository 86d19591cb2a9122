"""The limits on what is decoded hold in each decoder, one by one."""

import gzip
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import pytest
from tests.configs import load, refused, toml
from tests.fuzz import imported, stored
from tests.fuzz.inputs import kept
from tests.fuzz.stored import SEALER, WRITTEN, framed, open_jsonl
from tests.fuzz.targets import TARGETS
from tests.tiers import DictBlobTier

from tierkit import CacheConfigError, CacheManager, TierCorrupt, TransferError, ValueEntry, pack_row, unpack_row
from tierkit.testing import FakeClock, make_row
from tierkit.transfer.jsonl_lines import parse_object
from tierkit.values import Unfit
from tierkit_jsonl import FileCacheTier, lines
from tierkit_sqlite import SQLiteCacheTier
from tierkit_sqlite.library import sqlite3

DEEP = b"[" * 5000
ROW = SEALER.seal(WRITTEN["a"])
ODD_USAGE: list[dict[str, Any]] = [
    {"access_count": 2**63},
    {"access_count": -1},
    {"last_accessed": 1e300},
    {"last_accessed": -1.0},
]


# -- what is stored ----------------------------------------------------------------------------------------------------


@pytest.mark.req("E-1")
def test_a_packed_row_that_is_nested_too_deep_is_corrupt() -> None:
    packed = pack_row(make_row(columns={"a": None})).replace(b"\x81\xa1a\xc0", b"\x81\xa1a" + b"\x91" * 5000 + b"\xc0")
    with pytest.raises(TierCorrupt):
        unpack_row(packed)
    tier = DictBlobTier(stored.context())
    tier.blobs["a"] = b"\x95\x01\xa1a" + packed
    with pytest.raises(TierCorrupt):
        tier.get("a")


def test_what_is_wrong_with_a_packed_row_is_said_in_few_words() -> None:
    deep = msgspec.msgpack.encode(["k", 1, 1.0, "", {"a": eval_nested(500)}]).replace(b"\xa1x", b"\xa1\xff")
    with pytest.raises(TierCorrupt) as caught:
        unpack_row(deep)
    assert len(str(caught.value)) < 200


def eval_nested(depth: int) -> object:
    value: object = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("usage", ODD_USAGE)
def test_usage_that_cannot_be_makes_a_packed_row_corrupt(usage: Mapping[str, Any]) -> None:
    with pytest.raises(TierCorrupt):
        unpack_row(pack_row(msgspec.structs.replace(ROW, **usage)))


def test_a_version_beyond_63_bits_makes_a_packed_row_corrupt() -> None:
    with pytest.raises(TierCorrupt):
        unpack_row(pack_row(msgspec.structs.replace(ROW, version=2**63)))


@pytest.mark.req("E-1")
def test_a_header_that_is_nested_too_deep_is_none() -> None:
    assert lines.decode_header(framed(b'"op":"shard","format":1,"x":' + DEEP)) is None


@pytest.mark.req("E-1")
@pytest.mark.parametrize(
    "line",
    [
        b'"key":"x","version":"99999999999999999999","purge_at":1e10,"check":"","access_count":1,"last_accessed":1.0}',
        b'"key":"x","version":"-1","purge_at":1e10,"check":"","access_count":1,"last_accessed":1.0}',
        b'"key":"x","version":"1","purge_at":1e10,"check":"","access_count":99999999999999999999,"last_accessed":1.0}',
        b'"key":"x","version":"1","purge_at":1e10,"check":"","access_count":1,"last_accessed":1e300}',
        b'"op":"usage","key":"a","access_count":99999999999999999999,"last_accessed":1.0}',
        b'"op":"usage","key":"a","access_count":1,"last_accessed":-1.0}',
        b'"op":"mark","key":"a","mark":"99999999999999999999","marked_at":1e10}',
        b'"op":"shard","format":1,"x":' + DEEP,
    ],
)
def test_a_line_with_what_no_writer_writes_is_damage_and_the_rest_goes_on(tmp_path: Path, line: bytes) -> None:
    with closing(open_jsonl(tmp_path)) as tier:
        tier.put(ROW)
    shard = tmp_path / "store" / SEALER.schema.namespace / "00.jsonl"
    shard.write_bytes(shard.read_bytes() + framed(line) + b"\n")
    with closing(open_jsonl(tmp_path)) as tier:
        assert tier.get("a") == ROW
        assert [row.key for row in tier.scan()] == ["a"]
        assert tier.damaged_lines == 1
        tier.compact()
        assert tier.highest_version() == ROW.version


@pytest.mark.parametrize("usage", ODD_USAGE)
def test_usage_in_a_table_that_cannot_be_counts_for_nothing(tmp_path: Path, usage: Mapping[str, Any]) -> None:
    with closing(SQLiteCacheTier(stored.context(), tmp_path / "store.db")) as tier:
        tier.put(ROW)
        with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as connection:
            for name, value in usage.items():
                odd = min(value, 2**63 - 1) if isinstance(value, int) else value
                connection.execute(f'UPDATE "{SEALER.schema.namespace}" SET "{name}" = ?', (odd,))  # noqa: S608 - of names that stand here
        found = tier.get("a")
        assert found == ROW
        assert found is not None
        assert (found.access_count, found.last_accessed) == (0, 0.0)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("namespace", ["..", "../outside", "/outside", "a/b", "a\0b", "", ".", "x" * 300, "é"])
def test_a_namespace_that_is_no_name_makes_no_folder_and_is_not_even_looked_for(
    tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked(path: str) -> None:
        raise AssertionError(f"looked at {path!r}")

    monkeypatch.setattr("tierkit.files.stat", looked)
    with pytest.raises(CacheConfigError):
        FileCacheTier(stored.context(namespace=namespace), tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


def test_a_namespace_with_a_null_character_names_no_table(tmp_path: Path) -> None:
    with pytest.raises(CacheConfigError, match="null character"):
        SQLiteCacheTier(stored.context(namespace="a\0b"), tmp_path / "store.db")
    assert list(tmp_path.iterdir()) == []


# -- what is imported --------------------------------------------------------------------------------------------------


@pytest.mark.req("US5-2")
@pytest.mark.parametrize(
    "nested", [b"[" * 65 + b"]" * 65, b'{"a":' * 65 + b"1" + b"}" * 65, b'[{"a":' * 33 + b"1" + b"}]" * 33]
)
def test_a_row_is_nested_64_levels_deep_at_most(nested: bytes) -> None:
    with pytest.raises(Unfit, match="nested deeper than 64"):
        parse_object(b'{"key":"k","value":' + nested + b"}")


def test_brackets_in_a_text_are_no_levels() -> None:
    row = b'{"key":"k","value":[' + b'"' + b"[{" * 100 + b'"]}'
    assert parse_object(row) == {"key": "k", "value": ["[{" * 100]}


def test_what_is_wrong_with_a_row_is_said_in_few_words() -> None:
    with pytest.raises(Unfit) as caught:
        parse_object(b'{"key":' + b"[" * 900 + b"1e999" + b"]" * 900 + b"}")
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    "row",
    [
        b'{"key":"k","key":"l"}', b'{"key":"k","k\\u0065y":"l"}', b'{"key":"\\ud800"}', b'{"key":"k","value":NaN}',
        b'{"key":"k","value":Infinity}', b'{"key":"k","value":1e999}', b'\xef\xbb\xbf{"key":"k"}',
        b'{"key":"k","value":"\0"}', b'{"key":"k\xff"}', DEEP, b"null",
    ],
)  # fmt: skip
def test_a_row_beyond_the_limits_is_refused(row: bytes) -> None:
    with pytest.raises(Unfit):
        parse_object(row)


@pytest.mark.req("US5-2")
def test_a_whole_number_beyond_64_bits_is_not_imported(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"key":"a","value":%d}\n{"key":"b","value":[%d]}\n{"key":"c","value":1}' % (2**64, 2**64))
    with CacheManager(imported.CONFIG, entry_type=ValueEntry, clock=FakeClock()) as cache:
        assert cache.warm_from_file(file).loaded == 1


def test_a_small_file_that_is_a_document_of_very_many_parts_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierkit.transfer.json_document.MAX_COMMAS", 1000)
    file = tmp_path / "a.json.gz"
    file.write_bytes(gzip.compress(b'[{"key":"a"}' + b",0" * 1000 + b"]"))
    assert imported.cache_of(imported.Wide).warm_from_file(file).loaded == 1
    file.write_bytes(gzip.compress(b'[{"key":"a"}' + b",0" * 1001 + b"]"))
    with pytest.raises(TransferError, match="more than 1000 commas"):
        imported.cache_of(imported.Wide).warm_from_file(file)


# -- settings ----------------------------------------------------------------------------------------------------------


def test_a_number_in_a_file_that_is_too_long_to_write_is_refused(tmp_path: Path) -> None:
    number = "0x" + "f" * 6000
    assert "a number of 24000 bits" in refused(lambda: load(toml(tmp_path, f"[tierkit]\nttl_jitter = {number}")))
    config = load(toml(tmp_path, f"[tierkit]\nfailure_threshold = {number}"))
    assert "a number of 24000 bits" in {setting.value_text for setting in config.effective()}


@pytest.mark.parametrize("name", ["TIERS", "PER_SOURCE_TTL", "OBSERVER_OPTIONS__A"])
def test_json_in_a_variable_that_is_nested_too_deep_is_refused(name: str) -> None:
    assert "nested too deep" in refused(lambda: load(environ={f"TIERKIT_{name}": "[" * 5000}))


def test_a_list_in_a_variable_that_is_nested_too_deep_is_refused() -> None:
    assert "must be" in refused(lambda: load(environ={"TIERKIT_OBSERVERS": "[" * 5000}))


def test_a_level_of_which_nothing_is_left_is_refused_with_the_one_below_it() -> None:
    levels = '[{"backend": "memory"}, 1, {"backend": "memory"}]'
    said = refused(lambda: load(environ={"TIERKIT_TIERS": levels, "TIERKIT_CACHE_L2_DIR": "x"}))
    assert "tiers.1 (environment variable TIERKIT_TIERS): must be a table" in said


@pytest.mark.parametrize("name", ["PER_SOURCE_TTL", "OBSERVER_OPTIONS", "OBSERVER_OPTIONS__A"])
def test_a_table_that_is_given_as_a_number_is_refused_with_what_was_given_for_its_parts(name: str) -> None:
    environ = {f"TIERKIT_{name}": "5", f"TIERKIT_{name}__A": "5", f"TIERKIT_{name}__B": "5"}
    said = refused(lambda: load(environ=environ))
    assert f"{name.lower().replace('__', '.')} = 5 (environment variable TIERKIT_{name}): must be a table" in said


@pytest.mark.parametrize(
    "setting",
    [
        'encryption_key_file = "a\\u0000b"',
        'warm_files = ["a.csv", "b\\u0000"]',
        'l2_cache_dir = "\\u0000"',
        'name = "\\u0000"',
    ],
)
def test_a_null_character_is_refused_where_it_was_given(tmp_path: Path, setting: str) -> None:
    assert f"{setting.partition(' ')[0]} (file" in refused(lambda: load(toml(tmp_path, f"[tierkit]\n{setting}")))


# -- time --------------------------------------------------------------------------------------------------------------

GROWING: Mapping[str, Callable[[int], bytes]] = {
    "jsonl_line": lambda size: lines.HEAD * size,
    "jsonl_shard": lambda size: (lines.HEAD + b"\n") * size + lines.HEAD * size,
    "import_csv": lambda size: b"key,text\n" + b'"a\n' * size,
    "import_json": lambda size: b'{"a":[' + b'{"key":1},' * size,
    "import_jsonl": lambda size: b'{"key":"a","text":' + b'"\\"' * size + b"\n" + b"{\n" * size,
    "import_list": lambda size: b"a:@" * size + b"\n" + b"http://a:1\n" * size,
    "toml": lambda size: kept("toml")["whole"] + b"x = 1\n" * 0 + b"".join(b"a%d = 1\n" % n for n in range(size)),
    "environment": lambda size: b"".join(b"A%d=1\n" % n for n in range(size)),
    "keys": lambda size: b"a," * size,
    "proxy_url": lambda size: b"http://" + b"a:b@" * size,
}


@pytest.mark.parametrize("target", GROWING)
def test_twice_the_input_takes_about_twice_the_steps(target: str) -> None:
    few, many = (steps(target, GROWING[target](size)) for size in (150, 300))
    assert many < 2.5 * few


def steps(target: str, data: bytes) -> int:
    """How many functions are called."""
    count = 0

    def step(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    TARGETS[target](data)  # what is made once
    before = sys.getprofile()
    sys.setprofile(step)
    try:
        TARGETS[target](data)
    finally:
        sys.setprofile(before)
    return count
