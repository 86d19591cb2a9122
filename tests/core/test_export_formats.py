"""Formats of plugins, and what a format makes of a file that is not its own."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import pytest

from tierkit import (
    CacheConfig,
    CacheManager,
    ExportFormat,
    FlatRecord,
    PluginError,
    TransferError,
    Unreadable,
    discover,
    hookimpl,
)
from tierkit.export_format import EXPORT_FORMATS
from tierkit.transfer.formats import MOST_BYTES

from .transfer_support import Everything, got


class Packed(ExportFormat):
    """All records as one MessagePack array."""

    def write(self, records: Iterable[FlatRecord], names: Sequence[str]) -> Iterator[bytes]:
        yield msgspec.msgpack.encode([{**record} for record in records])

    def read(self, file: BinaryIO) -> Iterator[FlatRecord | Unreadable]:
        yield from msgspec.msgpack.decode(file.read())


class Forgetful(Packed):
    """Loses what it is given, but for the beginning."""

    def write(self, records: Iterable[FlatRecord], names: Sequence[str]) -> Iterator[bytes]:
        yield from super().write(
            (
                {name: value[:9] if isinstance(value, bytes) else value for name, value in record.items()}
                for record in records
            ),
            names,
        )


class Plugin:
    def __init__(self, offered: Any) -> None:
        self.offered = offered

    @hookimpl
    def register_formats(self) -> Any:
        return self.offered


def cache_with(*offered: Any) -> CacheManager[Any]:
    config = CacheConfig(tiers=[{"backend": "memory"}])
    return CacheManager(config, entry_type=Everything, plugins=[Plugin(offer) for offer in offered])


def test_a_format_of_a_plugin_is_as_good_as_one_that_ships(tmp_path: Path) -> None:
    with cache_with({"packed": Packed}) as one, cache_with({"packed": Packed}) as other:
        one.put(Everything(key="a", data=bytes(range(40)), amount=1e300))
        for name in ("all.packed", "all.packed.gz"):
            one.export_to_file(tmp_path / name)
            assert other.import_from_file(tmp_path / name).imported == 1
        assert got(other, "a") == got(one, "a")


def test_a_format_that_loses_something_is_found_out(tmp_path: Path) -> None:
    with cache_with({"packed": Forgetful}) as cache:
        cache.put(Everything(key="a", data=bytes(40)))
        cache.export_to_file(tmp_path / "all.packed")
        with pytest.raises(TransferError, match="its records are not those that were written"):
            cache.import_from_file(tmp_path / "all.packed")


def test_a_format_that_fails_is_named_and_its_text_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "all.packed").write_bytes(b"\xc1 Kanarienvogel")
    with cache_with({"packed": Packed}) as cache, pytest.raises(TransferError) as caught:
        cache.import_from_file(tmp_path / "all.packed")
    assert str(caught.value).endswith("all.packed cannot be read: its format Packed failed with a DecodeError")


@pytest.mark.parametrize("value", [["a"], 2**70, {"b": 1}])
def test_a_value_that_no_column_can_hold_is_rejected(tmp_path: Path, value: Any) -> None:
    class Odd(Packed):
        def read(self, file: BinaryIO) -> Iterator[FlatRecord | Unreadable]:
            first, *records, last = super().read(file)
            yield from (first, *({**record, "text": value} for record in records), last)  # type: ignore[dict-item]  # what is tried

    with cache_with({"packed": Odd}) as cache:
        cache.put(Everything(key="a"))
        cache.export_to_file(tmp_path / "all.packed")
        with pytest.raises(TransferError, match="is not what was exported"):
            cache.import_from_file(tmp_path / "all.packed")
        result = cache.import_from_file(tmp_path / "all.packed", accept_damage=True)
        assert (result.imported, result.rejected) == (0, 1)
        with pytest.raises(TransferError, match=r"failed with|is no file"):
            cache.import_from_file(result.rejects_path or "", format="packed")


def test_two_that_offer_one_format_and_a_broken_offer_are_told(tmp_path: Path) -> None:
    with (
        cache_with({"csv": Packed}) as cache,
        pytest.raises(PluginError, match="'csv' is offered by tierkit itself and"),
    ):
        cache.export_to_file(tmp_path / "all.csv")
    with cache_with({"packed": 7}) as cache, pytest.raises(PluginError, match="int cannot be called"):
        cache.export_to_file(tmp_path / "all.packed")
    registry = discover([Plugin({"packed": Packed}), Plugin(None)])
    assert [*registry.formats] == ["csv", "json", "jsonl", "packed"]
    assert [broken.error for broken in registry.broken] == [
        "TypeError: register_formats returned NoneType, not a mapping of names"
    ]


@pytest.mark.parametrize("name", EXPORT_FORMATS)
def test_a_record_that_is_too_long_is_passed_over(name: str) -> None:
    written = EXPORT_FORMATS[name]().write([{"key": "x" * (MOST_BYTES + 10)}, {"key": "b"}], ["key"])
    found = list(EXPORT_FORMATS[name]().read(io.BytesIO(b"".join(written))))
    assert [type(item) for item in found] == [Unreadable, dict]
    assert found[1] == {"key": "b"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b'"a"x,1', "is not valid CSV"),
        (b"\xff,1", "is not UTF-8"),
        (b"1", "has 1 cells where the header has 2"),
        (b"base64:!,", "has a cell that holds no value"),
        (b"99999999999999999999,", "has a cell that holds no value"),
        (b"1,{", "is not a JSON object"),
        (b'"a,1', "has a quote that is not closed"),
    ],
)
def test_a_row_that_is_none_is_told(row: bytes, reason: str) -> None:
    (found,) = EXPORT_FORMATS["csv"]().read(io.BytesIO(b"key,tierkit.more\r\n\r\n" + row + b"\n"))
    assert isinstance(found, Unreadable)
    assert reason in found.reason


@pytest.mark.parametrize(
    "line", [b'{"a": {"bytes": 1}}', b'{"a": {"x": "y"}}', b'{"a": {}}', b'{"a": true}', b"[" * 5000]
)
def test_a_line_that_is_none_is_told(line: bytes) -> None:
    assert [type(item) for item in EXPORT_FORMATS["jsonl"]().read(io.BytesIO(line + b"\n\n"))] == [Unreadable]


@pytest.mark.parametrize("name", EXPORT_FORMATS)
def test_a_byte_order_mark_before_the_text_is_no_part_of_it(name: str) -> None:
    written = b"".join(EXPORT_FORMATS[name]().write([{"key": "\ufeffa"}], ["key"]))
    assert list(EXPORT_FORMATS[name]().read(io.BytesIO(b"\xef\xbb\xbf" + written))) == [{"key": "\ufeffa"}]


def test_bytes_that_no_cell_can_show_stand_as_base64() -> None:
    records: list[FlatRecord] = [{"key": "a", "b": b"a\x00\x1b"}, {"key": "b", "b": b"a b"}]
    written = b"".join(EXPORT_FORMATS["csv"]().write(records, ["key", "b"]))
    assert written.splitlines()[1:] == [b"a,base64:YQAb,", b"b,bytes:a b,"]
    assert list(EXPORT_FORMATS["csv"]().read(io.BytesIO(written))) == records


@pytest.mark.parametrize("name", EXPORT_FORMATS)
def test_noise_raises_nothing(name: str) -> None:
    chance = random.Random(7)
    whole = b"".join(EXPORT_FORMATS[name]().write([{"key": "a", "b": b"\xff", "c": 1.5, "d": '"\n'}] * 3, ["key", "c"]))
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.choice(b'"\n,{}\\\xff0:')
        list(EXPORT_FORMATS[name]().read(io.BytesIO(bytes(data))))
