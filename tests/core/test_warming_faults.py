"""Warming: what bad rows and bad files cost, and what is said of them."""

import csv
import gzip
import json
import logging
import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tierkit import CacheConfig, CacheManager, CacheValidationError, ProxyEntry
from tierkit.errors import CacheStorageError, TierFull, TierkitError, TransferError
from tierkit.progress import LOGGED_EVERY
from tierkit.transfer import files, jsonl_lines
from tierkit.transfer.csv_table import _Lines
from tierkit.transfer.report import REJECTS_KEPT, WARNINGS_SHOWN

from .warming_support import LISTS, Shelf, reasons

GOOD = b"http://192.0.2.%d:80"
JSON_ROW = b'{"proxy_url":"http://192.0.2.%d:80"}'
CANARY = "Kanarienvogel7"
MEGABYTE = 1024 * 1024


def between_good_rows(tmp_path: Path, name: str, bad: bytes) -> tuple[Shelf, list[tuple[int, str]]]:
    """Import a bad row with a good one before and after it."""
    row = {".csv": GOOD + b",x", ".txt": GOOD}.get(Path(name).suffix, JSON_ROW)
    head = b"proxy_url,source\n" if name.endswith(".csv") else b"# comment\n" if name.endswith(".txt") else b"\n"
    if name.endswith(".json"):
        data = b"[\n" + row % 1 + b",\n" + bad + b",\n" + row % 2 + b"]"
    else:
        data = head + row % 1 + b"\n" + bad + b"\n" + row % 2 + b"\n"
    (tmp_path / name).write_bytes(data)
    shelf = Shelf()
    result = shelf.warm(tmp_path / name, scheme="http")
    assert result.found == result.loaded + result.skipped + result.failed
    return shelf, reasons(result)


JSON_FAULTS = [
    (b'{"proxy_url":"http://192.0.2.9:80","source":"\\ud800"}', "holds a lone surrogate"),
    (b'{"proxy_url":"http://192.0.2.9:80","source":"\xff"}', "is not UTF-8 at byte 0 of a text"),
    (b'{"proxy_url":"http://192.0.2.9:80","source":"\\u0000"}', "source holds the control character U+0000"),
    (b'{"proxy_url":"http://192.0.2.9:80","source":"\x00"}', "is not JSON: JSON is malformed: invalid character"),
    (b'{"proxy_url":"http://192.0.2.9:80","ttl_seconds":NaN}', "is not JSON"),
    (b'{"proxy_url":"http://192.0.2.9:80","x":1e999}', "is not JSON: Number out of range"),
    (b'{"proxy_url" "http://192.0.2.9:80"}', "is not JSON"),
    (b'{"proxy_url":"http://192.0.2.9:80","source":"a","source":"b"}', "names a member twice"),
    (b'{"proxy_url":"http://192.0.2.9:80","source":"a","source" :"b"}', "names a member twice"),
    (b'{"proxy_url":"http://192.0.2.9:80","source":"a","sourc\\u0065":"b"}', "names a member twice"),
    (b'{"proxy_url":"http://192.0.2.9:80","x":{"y":1,"y":2}}', "names a member twice"),
    (b'{"proxy_url":"http://192.0.2.9:80","x":{"y":' + b"[" * 70 + b"]" * 70 + b"}}", "is nested deeper than 64"),
    (b'{"proxy_url":"http://192.0.2.9:80","x":' + b"[" * 9999 + b"]" * 9999 + b"}", "is nested deeper than 64"),
    (b'{"x":' * 9999 + b"1" + b"}" * 9999, "is nested deeper than 64"),
    (b"17", "is a number, not an object"),
    (b'["http://192.0.2.9:80"]', "is an array, not an object"),
    (b"null", "is null, not an object"),
]


@pytest.mark.req("US5-2")
@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(("bad", "said"), JSON_FAULTS, ids=range(len(JSON_FAULTS)))
def test_a_bad_json_row_costs_only_itself(tmp_path: Path, name: str, bad: bytes, said: str) -> None:
    shelf, [(line, reason)] = between_good_rows(tmp_path, name, bad)
    assert shelf.urls == ["http://192.0.2.1:80", "http://192.0.2.2:80"]
    assert (line, said) == (3, said)
    assert said in reason


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_awkward_json_that_is_good_goes_in(tmp_path: Path, name: str) -> None:
    rows = [
        b'{"proxy_url" : "http://192.0.2.9:80" , "x" :[[{"y":"\\":{}[]"}],"]"],"z":{"proxy_url":1}}',
        b'{\t"proxy_url"\t:\t"http://192.0.2.9:80","x":"' + b"[" * 99 + b'","y":{}}',
        b'{"proxy_url":"http://192.0.2.9:80","x":"\\ud83d\\ude00\\\\"}',
    ]
    for row in rows:
        shelf, rejected = between_good_rows(tmp_path, name, row)
        assert (len(shelf.entries), rejected) == (3, [])


@pytest.mark.req("US5-2")
@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.txt"])
def test_a_line_over_a_megabyte_is_skipped(tmp_path: Path, name: str) -> None:
    long = b"x" * MEGABYTE
    bad = {".csv": b"http://192.0.2.9:80," + long, ".txt": b"192.0.2.9:80:u:" + long}
    shelf, [(line, reason)] = between_good_rows(
        tmp_path, name, bad.get(Path(name).suffix, b'{"proxy_url":"http://192.0.2.9:80","source":"' + long + b'"}')
    )
    assert (len(shelf.entries), line) == (2, 3)
    assert "longer than 1048576 bytes" in reason


@pytest.mark.req("US5-2")
def test_an_entry_that_the_cache_refuses_is_skipped_with_its_line(tmp_path: Path) -> None:
    long = b"x" * (1000 * 1024)
    shelf, [(line, reason)] = between_good_rows(tmp_path, "a.csv", b"http://192.0.2.9:80," + long)
    assert (len(shelf.entries), line) == (2, 3)
    assert "characters and bytes; 983040 are allowed" in reason
    assert len(reason) < 200


CSV_FAULTS = [
    (b"http://192.0.2.9:80", "has 1 cells where the header has 2"),
    (b"http://192.0.2.9:80,a,b", "has 3 cells where the header has 2"),
    (b'http://192.0.2.9:80,"a,b', "has a quote that is not closed"),
    (b'"http://192.0.2.9:80"x,a', "is not valid CSV"),
    (b'http://192.0.2.9:80,"' + b"x" * 200_000 + b'"', "has a cell that is too long"),
    (b"http://192.0.2.9:80,a\x00b", "source holds the control character U+0000"),
    (b"http://192.0.2.9:80,a\rb", "is not valid CSV"),
    (b"http://192.0.2.9:80,\xff", "is not UTF-8 at byte 20 of the line"),
    (b'http://192.0.2.9:80,"a\nb"', "source holds the control character U+000A"),
    (b",a", "has no proxy_url, nor ip and port"),
    (b'"http://192.0.2.9:80","a","b"', "has 3 cells where the header has 2"),
]


@pytest.mark.req("US5-2")
@pytest.mark.parametrize(("bad", "said"), CSV_FAULTS, ids=range(len(CSV_FAULTS)))
def test_a_bad_csv_row_costs_only_itself(tmp_path: Path, bad: bytes, said: str) -> None:
    shelf, [(line, reason)] = between_good_rows(tmp_path, "a.csv", bad)
    assert shelf.urls == ["http://192.0.2.1:80", "http://192.0.2.2:80"]
    assert line == 3
    assert said in reason


@pytest.mark.req("US5-2")
def test_cells_with_line_breaks_are_read_and_the_lines_after_them_are_numbered_right(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(
        b'proxy_url,password,note\r\nhttp://192.0.2.1:80,"p""w","two\r\nlines, ""quoted"""\r\n\r\nbad,,\r\n'
    )
    shelf = Shelf()
    result = shelf.warm(tmp_path / "a.csv")
    assert shelf.entries[0].password.get_secret_value() == 'p"w'
    assert reasons(result) == [(5, "has no scheme: name one with scheme= (--scheme)")]


@pytest.mark.parametrize("bad", [b"\xff", b" " * (MEGABYTE + 1)], ids=["not text", "too long"])
def test_a_bad_line_in_a_quoted_cell_costs_the_lines_around_it_and_no_other(tmp_path: Path, bad: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(
        b'proxy_url,source\nhttp://192.0.2.1:80,"a\n' + bad + b'\nb"\nhttp://192.0.2.2:80,a\n'
    )
    shelf = Shelf()
    result = shelf.warm(tmp_path / "a.csv")
    assert shelf.urls == ["http://192.0.2.2:80"]
    assert [line for line, _ in reasons(result)] == [2, 3, 4]


def test_rows_after_a_stray_quote_that_meets_another_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(
        b'proxy_url,source\nhttp://192.0.2.1:80,"a\nhttp://192.0.2.2:80,b\nhttp://192.0.2.3:80",c\n'
    )
    shelf = Shelf()
    result = shelf.warm(tmp_path / "a.csv")
    assert shelf.urls == ["http://192.0.2.2:80"]
    assert [line for line, _ in reasons(result)] == [2, 4]


def test_quotes_that_are_never_closed_are_read_again_only_so_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tierkit.transfer.csv_table._REREAD_BYTES", MEGABYTE)
    read: list[int] = []
    feed = _Lines._feed

    def counted(self: _Lines, text: str, taken: list[Any]) -> Any:
        for line in feed(self, text, taken):
            read.append(len(line))
            yield line

    monkeypatch.setattr(_Lines, "_feed", counted)
    (tmp_path / "a.csv").write_bytes(b"proxy_url,source\n" + b'a","\n' * 300_000)
    result = Shelf().warm(tmp_path / "a.csv")
    assert result.loaded == 0
    assert sum(read) < 4 * MEGABYTE


LIST_FAULTS = [
    (b"192.0.2.9", "is not of the form host:port"),
    (b"192.0.2.9:99999", "port is out of range"),
    (b"192.0.2.9:80 US", "is not of the form host:port"),
    (b"192.0.2.9:80:ada", "is not of the form host:port"),
    (b"ada:pw:192.0.2.9:80", "is not of the form host:port"),
    (b"http://192.0.2.9:99999", "proxy_url has a port out of range"),
    (b"http://", "proxy_url is not of the form"),
    (b"192.0.2.9:80:ada:p\x00w", "password holds the control character U+0000"),
    (b"192.0.2.9:80\xff", "is not UTF-8 at byte 12"),
    (b"192.0.2.1:80:", "is not of the form"),
    (b"ada:pw@-bad-:80", "is not of the form"),
    (b"ada:pw@192.0.2.9", "proxy_url has no port"),
    (b"192.0.2.1:80", "has the key of line 2"),
]


@pytest.mark.req("US5-2")
@pytest.mark.parametrize(("bad", "said"), LIST_FAULTS, ids=range(len(LIST_FAULTS)))
def test_a_bad_line_of_a_list_costs_only_itself(tmp_path: Path, bad: bytes, said: str) -> None:
    shelf, [(line, reason)] = between_good_rows(tmp_path, "a.txt", bad)
    assert shelf.urls == ["http://192.0.2.1:80", "http://192.0.2.2:80"]
    assert line == 3
    assert said in reason


def test_a_line_that_is_no_address_does_not_ask_for_a_scheme(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("http://192.0.2.1:80\nhello\n")
    result = Shelf().warm(tmp_path / "a.txt")
    assert reasons(result)[0][1].startswith("is not of the form host:port")
    assert result.loaded == 1


@pytest.mark.req("US5-2")
def test_a_row_with_the_key_of_an_earlier_one_is_skipped_and_names_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "proxy_url,username\nhttp://192.0.2.1:80,a\n\nhttp://192.0.2.1:80,b\nHTTP://192.0.2.1:80/,a\n"
    )
    (tmp_path / "a.json").write_text('[{"proxy_url":"http://192.0.2.1"},\n\n{"proxy_url":"http://192.0.2.1"}]')
    assert reasons(Shelf().warm(tmp_path / "a.csv")) == [(5, "has the key of line 2")]
    result = Shelf().warm(tmp_path / "a.json")
    assert reasons(result) == [(3, "has the key of record 1")]
    assert str(result.rejects[0]) == f"{tmp_path / 'a.json'}, line 3, record 2: has the key of record 1"


@pytest.mark.req("US5-2")
def test_a_bad_file_does_not_flood_the_log_and_its_counts_are_exact(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"nonsense\n" * 5000 + JSON_ROW % 1)
    result = Shelf().warm(tmp_path / "a.jsonl")
    assert (result.found, result.loaded, result.skipped) == (5001, 1, 5000)
    assert len(result.rejects) == REJECTS_KEPT
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warnings) == WARNINGS_SHOWN + 1
    assert warnings[0].startswith(f"skipped: {tmp_path / 'a.jsonl'}, line 1: is not JSON")
    assert warnings[-1] == f"skipped: {tmp_path / 'a.jsonl'}: {5000 - WARNINGS_SHOWN} rows more"


# -- whole files ---------------------------------------------------------------------------------------------------


WHOLE_FILES = [
    ("a.csv", b"", "is empty"),
    ("a.json", b"", "is empty"),
    ("a.csv.gz", b"", "is empty"),
    ("a.txt.gz", gzip.compress(b""), "is empty"),
    ("a.csv.gz", b"proxy_url\nhttp://192.0.2.1:80\n", "not gzip"),
    ("a.json.gz", gzip.compress(b'[{"proxy_url":"x"}]')[:-12], "is cut off"),
    ("a.csv", gzip.compress(b"proxy_url\n" * 99), r"is binary, not text: it is gzip, so its name must end in \.gz"),
    ("a.jsonl", "{}\n".encode("utf-16"), "is binary"),
    ("a.txt", bytes(range(256)) * 9, "is binary"),
    ("a.csv", b"\x00" * 9000, "is binary"),
    ("a.json", b"17", "is not a JSON array of objects"),
    ("a.json", b'"text"', "is not a JSON array of objects"),
    ("a.json", b"nonsense", "is not a JSON array of objects"),
    ("a.json", b"[1,2,3]", "holds no array of objects"),
    ("a.json", b'{"a":1,"b":[2],"c":{"d":[{}]}}', "holds no array of objects"),
    ("a.json", b'{"a":[{}],"b":[{}]}', "holds 2 arrays of objects: one is expected"),
    ("a.json", b'[{"proxy_url":"http://192.0.2.1:80"},', "is not a whole JSON document: it is cut off"),
    ("a.json", b'[{"proxy_url":"http://192.0.2', "is not a whole JSON document: it is cut off"),
    ("a.json", b'{"proxies":[{"proxy_url":1}]', "is not a whole JSON document: it is cut off"),
    ("a.json", b"[" * 9999, "is not a whole JSON document: it is cut off"),
    ("a.json", b'{"a":1}\n{"a":2}\n', r"must be named \.jsonl"),
    ("a.csv", b"colour,shape\nred,round\n", "header line that will not do: has no proxy_url, nor ip and port"),
    ("a.csv", b"proxy_url,proxy_url\n", "has two columns for proxy_url"),
    ("a.csv", b"\xff,proxy_url\nproxy_url\n", "header line that will not do: is not UTF-8"),
    ("a.csv", b'"proxy_url\n', "header line that will not do: has a quote that is not closed"),
    ("a.csv", b"x" * (MEGABYTE + 2), "header line that will not do"),
]


@pytest.mark.req("US5-2")
@pytest.mark.parametrize(("name", "data", "said"), WHOLE_FILES, ids=range(len(WHOLE_FILES)))
def test_what_is_wrong_with_a_whole_file_raises_and_names_it(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    shelf = Shelf()
    with pytest.raises(TransferError, match=said) as caught:
        shelf.warm(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert shelf.entries == []


def _nothing(path: Path) -> None:
    pass


def _directory(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_nothing, "does not exist"),
        (_directory, "is a directory"),
        (_pipe, "is not a regular file"),
        (_loop, "cannot be read: Too many levels"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    make(tmp_path / "a.csv")
    with pytest.raises(TransferError, match=said):
        Shelf().warm(tmp_path / "a.csv")


def test_a_path_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(TransferError, match="cannot be read"):
        Shelf().warm(Path("a\0b.csv"))
    with pytest.raises(TransferError, match="cannot be read: File name too long"):
        Shelf().warm(Path("a" * 5000 + ".csv"))


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.csv").write_text("proxy_url\n")
    monkeypatch.setattr(Path, "open", denied)  # root may read everything
    with pytest.raises(TransferError, match="cannot be read: Permission denied"):
        Shelf().warm(tmp_path / "a.csv")


def test_a_disk_that_fails_on_the_way_ends_the_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(b'{"proxy_url":"http://h%d:80"}' % n for n in range(20_000)))
    shelf = Shelf()
    read, calls = files._read, []

    def failing(path: Path, stream: Any, size: int) -> bytes:
        calls.append(size)
        if len(calls) == 8:  # in the second reading of the file
            stream = _Failing()
        return read(path, stream, size)

    monkeypatch.setattr(files, "_read", failing)
    with pytest.raises(TransferError, match="cannot be read: Input/output error"):
        shelf.warm(tmp_path / "a.jsonl")
    assert 0 < len(shelf.entries) < 20_000


class _Failing:
    def read1(self, size: int) -> bytes:
        raise OSError(5, "Input/output error")


@pytest.mark.req("US5-2")
@pytest.mark.parametrize("name", ["a.json", "b.json", "a.jsonl", "a.csv", "a.txt"])
def test_a_list_of_nothing_is_no_error_but_a_warning(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    empty = {"a.json": "[]", "b.json": '{"total":0,"proxies":[]}', "a.csv": "proxy_url\n", "a.txt": "# none\n"}
    (tmp_path / name).write_text(empty.get(name, " \n\n"))
    result = Shelf().warm(tmp_path / name)
    assert (result.found, result.loaded, result.skipped, result.failed) == (0, 0, 0, 0)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"{tmp_path / name} holds no entries"
    ]


@pytest.mark.req("US5-2")
def test_of_a_compressed_file_that_is_cut_off_the_rows_before_go_in(tmp_path: Path) -> None:
    packed = noisy_rows()
    (tmp_path / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    shelf = Shelf()
    result = shelf.warm(tmp_path / "a.jsonl.gz")
    assert 5_000 < result.loaded < 15_000
    assert result.found == result.loaded + result.skipped
    assert result.rejects[-1].line == result.found
    assert "the file is cut off from here on" in result.rejects[-1].reason
    assert shelf.urls[-1] == f"http://h{result.loaded - 1}:80"


@pytest.mark.req("US5-2")
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.gz", "a.txt.gz"])
def test_a_compressed_file_that_is_damaged_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    rows = b"".join(b"http://192.0.2.%d:80\n" % n for n in range(1, 99))
    stored = bytearray(gzip.compress(b"proxy_url\n" + rows, compresslevel=0))  # every byte in it stands for itself
    place = stored.index(b"192.0.2.50")
    stored[place] ^= 2
    overwritten = noisy_rows()
    overwritten[len(overwritten) // 2 : len(overwritten) // 2 + 64] = b"\xff" * 64
    for packed in (stored, overwritten):
        (tmp_path / name).write_bytes(packed)
        shelf = Shelf()
        with pytest.raises(TransferError, match="is damaged"):
            shelf.warm(tmp_path / name, scheme="http")
        assert shelf.entries == []


@pytest.mark.req("US1-6")
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", f"192.0.2.1,8080,bob,{CANARY}\n"),
        ("a.csv", f"192.0.2.1:8080,{CANARY}\n"),
        ("a.jsonl", f'{{"{CANARY}": 1}}\n'),
    ],
)
def test_what_stands_where_names_should_be_is_not_told_if_it_is_refused(
    tmp_path: Path, name: str, data: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / name).write_text(data)
    caplog.set_level("DEBUG")
    try:
        said = repr(Shelf().warm(tmp_path / name))
    except TransferError as error:
        said = str(error)
    assert CANARY not in said + caplog.text


@pytest.mark.req("US1-6")
@pytest.mark.parametrize("path", ["http://u:%s@host/x.csv", "http:/u:%s@host/x.csv", "u:%s@host/x.csv"])
def test_a_url_is_no_file_and_is_not_repeated(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with pytest.raises(TransferError, match="is a URL, not a file") as caught:
        Shelf().warm(Path(path % CANARY))
    assert CANARY not in str(caught.value) + caplog.text


@pytest.mark.req("US1-6")
def test_a_source_with_credentials_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="source holds a URL with credentials") as caught:
        Shelf().warm(tmp_path / "missing.csv", source=f"http://ada:{CANARY}@feed.example/list")
    assert CANARY not in str(caught.value)


@pytest.mark.req("US1-6")
def test_a_row_whose_source_holds_credentials_is_skipped(tmp_path: Path) -> None:
    source = f"http://ada:{CANARY}@feed.example/list"
    rows = [{"proxy_url": GOOD.decode() % n, "source": source if n == 1 else "feed.example"} for n in (1, 2)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = CacheConfig(tiers=[{"backend": "memory"}])
    with CacheManager(config) as cache:
        result = cache.warm_from_file(tmp_path / "a.jsonl")
        assert [entry.source for entry in cache.scan()] == ["feed.example"]
        with pytest.raises(CacheValidationError, match="source holds a URL with credentials") as caught:
            cache.put(ProxyEntry.from_url("http://192.0.2.1:80", source=source))
    assert result.loaded == 1
    assert "source holds a URL with credentials" in result.rejects[0].reason
    assert CANARY not in repr(result) + str(caught.value)


TELLING = "837465019283"
TIMES_PAST = {"fetch_time": "1990-01-01T00:00:00Z"}
REFUSED_ROWS: list[tuple[dict[str, str], str]] = [
    ({"ttl_seconds": TELLING}, "the deadline is later than the year 9999"),
    ({"ttl_seconds": TELLING, "fetch_time": "2026-01-01"}, "the deadline is later than the year 9999"),
    ({"fetch_time": "9999-12-31", "ttl_seconds": "86400000"}, "the deadline is later than the year 9999"),
    ({"fetch_time": "9999-12-31T23:59:59"}, "the deadline is later than the year 9999"),
    ({"expires_at": "2090-01-01", "fetch_time": "2095-01-01"}, "expires_at must be after fetch_time"),
    ({"expires_at": "1990-01-01"}, "has expired already"),
    (TIMES_PAST, "has expired already"),
    ({"key": TELLING + "x" * 4096}, "a key must have 1 to 4096 characters, not 4108"),
    ({"key": TELLING, "note": "x" * 1000 * 1024}, "the record holds 1024"),
    ({"score": "inf"}, "score must be a finite number"),
    ({"score": "nan"}, "score must be a finite number"),
    ({"failure_count": TELLING * 3}, "failure_count"),
    ({"health_status": TELLING}, "health_status is"),
    ({"password": TELLING + "\x00"}, "password holds the control character U+0000"),
    ({"source": f"http://ada:{TELLING}@feed.example"}, "source holds a URL with credentials"),
    ({"proxy_url": TELLING}, "has no scheme"),
    ({"proxy_url": f"http://{TELLING}"}, "proxy_url is not of the form"),
]


class Scored(ProxyEntry):
    score: float | None = None
    note: str = ""


def file_with_row(folder: Path, suffix: str, row: dict[str, str]) -> Path:
    path = folder / f"a{suffix}"
    if suffix == ".csv":
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([row.keys(), row.values()])
    else:
        path.write_text(f"[{json.dumps(row)}]" if suffix == ".json" else json.dumps(row))
    return path


@pytest.mark.req("US1-6")
@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl"])
@pytest.mark.parametrize(("row", "said"), REFUSED_ROWS, ids=range(len(REFUSED_ROWS)))
def test_no_value_of_a_row_that_is_refused_comes_into_the_rejects_or_the_log(
    tmp_path: Path, suffix: str, row: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    path = file_with_row(tmp_path, suffix, {"proxy_url": GOOD.decode() % 1, **row})
    config = CacheConfig(tiers=[{"backend": "memory"}])
    with CacheManager(config, entry_type=Scored) as cache:
        result = cache.warm_from_file(path)
    [(_, reason)] = reasons(result)
    assert said in reason
    told = reason + caplog.text.replace(str(tmp_path), "")
    assert not [value for value in row.values() if value in told]
    assert "renewed" not in told


def test_a_refusal_that_gives_no_reason_fit_for_a_row_is_told_without_any(tmp_path: Path) -> None:
    def put_many(entries: Any, *, on_invalid: Any) -> int:
        for index, _ in enumerate(entries):
            on_invalid(index, CacheValidationError(f"{CANARY} is wrong"))
        return 0

    (tmp_path / "a.jsonl").write_bytes(JSON_ROW % 1)
    assert reasons(Shelf().warm(tmp_path / "a.jsonl", put_many=put_many)) == [(1, "the cache refuses it")]


@pytest.mark.parametrize("text", ["http://u:%00@192.0.2.1:80", "http://a%0Ab:pw@192.0.2.1:80", "http://u:%C2%85@h:80"])
def test_a_control_character_in_decoded_credentials_is_a_bad_row(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text + "\n")
    result = Shelf().warm(tmp_path / "a.txt")
    assert reasons(result) == [(1, "proxy_url has a control character in the user name or the password")]


def test_a_directory_without_an_extension_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="is a directory, not a file"):
        Shelf().warm(tmp_path)


def noisy_rows() -> bytearray:
    """20,000 rows, compressed, that do not compress well."""
    noise = random.Random(7)
    rows = [b'{"proxy_url":"http://h%d:80","x":"%x"}\n' % (n, noise.getrandbits(256)) for n in range(20_000)]
    return bytearray(gzip.compress(b"".join(rows)))


def test_a_line_that_fills_the_memory_is_one_bad_row_and_is_never_held(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wb", compresslevel=1) as stream:
        stream.write(JSON_ROW % 1 + b"\n")
        for _ in range(64):
            stream.write(b" " * MEGABYTE)
        stream.write(b"\n" + JSON_ROW % 2)
    tracemalloc.start()
    try:
        result = Shelf().warm(tmp_path / "a.jsonl.gz")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * MEGABYTE
    assert (result.loaded, reasons(result)) == (2, [(2, "the line is longer than 1048576 bytes")])


def test_a_last_line_that_is_too_long_is_one_bad_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(JSON_ROW % 1 + b"\n" + b" " * (3 * MEGABYTE))
    result = Shelf().warm(tmp_path / "a.jsonl")
    assert (result.loaded, reasons(result)) == (1, [(2, "the line is longer than 1048576 bytes")])


def test_a_json_document_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_DOCUMENT_BYTES", MEGABYTE)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b"[" + b" " * 2 * MEGABYTE + b"]"))
    with pytest.raises(TransferError, match="is larger than 1048576 bytes"):
        Shelf().warm(tmp_path / "a.json.gz")


def test_a_name_that_is_not_text_is_shown_escaped(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"a\xff\n.csv")
    path.write_text("proxy_url\nhttp://192.0.2.1:80\n")
    shelf = Shelf()
    result = shelf.warm(path)
    assert str(result).isprintable()
    assert shelf.entries[0].source.isprintable()
    with pytest.raises(TransferError) as caught:
        shelf.warm(path.with_suffix(".json"))
    assert str(caught.value).isprintable()


# -- the storage ---------------------------------------------------------------------------------------------------


@pytest.mark.req("US5-2")
def test_a_storage_that_fails_ends_the_import_and_the_counts_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([b"nonsense", *(JSON_ROW % n for n in range(9))]))
    shelf = Shelf(fails_after=3, error=TierFull("no room left"))
    with pytest.raises(CacheStorageError, match="no room left") as caught:
        shelf.warm(tmp_path / "a.jsonl")
    counts = "5 of 10 entries read, 4 handed to the storage, 1 skipped"
    assert caught.value.__notes__ == [f"while importing {tmp_path / 'a.jsonl'}: {counts}"]
    [error] = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "no room left" in error
    assert counts in error


@pytest.mark.req("US5-2")
def test_good_rows_that_the_storage_did_not_take_are_counted_as_failed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(JSON_ROW % n for n in range(9)))
    result = Shelf().warm(tmp_path / "a.jsonl", put_many=lambda entries, **_: len(list(entries)) - 2)
    assert (result.found, result.loaded, result.skipped, result.failed) == (9, 7, 0, 2)
    assert "2 failed" in caplog.messages[-1]


# -- progress ------------------------------------------------------------------------------------------------------


@pytest.mark.req("US5-3")
@pytest.mark.parametrize("name", ["as-published.json", "as-published.txt", "2026-08-14T0936Z.jsonl.gz"])
def test_progress_is_told_and_logged_on_real_lists(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tierkit.transfer")
    told: list[tuple[int, int | None]] = []
    path = LISTS / name
    result = Shelf().warm(path, scheme="http", on_progress=lambda done, total: told.append((done, total)))
    infos = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    assert infos[:2] == [f"importing {path}", f"importing {path}: {result.found} found"]
    thousands = [text for text in infos if text.endswith(f"000 of {result.found}")]
    assert thousands == [f"importing {path}: {n}000 of {result.found}" for n in range(1, result.found // 1000 + 1)]
    assert infos[-1].startswith(f"imported {path}: {result.found} entries found, {result.loaded} loaded")
    assert {total for _, total in told} == {result.found}
    assert [done for done, _ in told] == [*range(100, result.found, 100), result.found]


def test_a_bar_reaches_its_end_where_lines_were_counted_wrongly(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('proxy_url,note\nhttp://192.0.2.1:80,"a\nb\nc"\n')
    told: list[tuple[int, int | None]] = []
    Shelf().warm(tmp_path / "a.csv", on_progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 1)]


# -- secrets -------------------------------------------------------------------------------------------------------

LEAKY: dict[str, list[str]] = {
    "a.txt": [
        f"http://ada:{CANARY}@192.0.2.1:99999",
        f"http://{CANARY}:pw@:::",
        f"192.0.2.1:99999:ada:{CANARY}",
        f"192.0.2.1:80:{CANARY}",
        f"{CANARY}:pw:192.0.2.1:80",
        f"ada:{CANARY}@192.0.2.1",
        CANARY,
        f"http://ada:{CANARY}",
        f"192.0.2.1:80:{CANARY}:p\x01",
        f"192.0.2.1:80:ada:{CANARY}\x01",
    ],
    "a.csv": [
        f"192.0.2.1:99999,ada,{CANARY},,",
        f"http://192.0.2.1:80,ada,{CANARY},{CANARY},{CANARY}",
        f"http://192.0.2.1:80,ada,a,{CANARY},",
        f"http://192.0.2.1:80,ada,a,,{CANARY}",
        f'http://192.0.2.1:80,ada,"{CANARY}',
        f'http://192.0.2.1:80,ada,"{CANARY}"x,,',
        f"http://192.0.2.1:80,ada,{CANARY}\x01,,",
        f"{CANARY},ada,pw,,",
        f"http://{CANARY}@host:port,ada,pw,,",
        f"http://{CANARY},{CANARY}",
    ],
    "a.jsonl": [
        json.dumps({"proxy_url": f"http://ada:{CANARY}@192.0.2.1:99999"}),
        json.dumps({"proxy_url": "http://192.0.2.1:80", "password": [CANARY]}),
        json.dumps({"proxy_url": "http://192.0.2.1:80", "password": CANARY, "health_status": CANARY}),
        json.dumps({"proxy_url": "http://192.0.2.1:80", "password": CANARY + "\x00"}),
        json.dumps({"proxy_url": "http://192.0.2.1:80", "password": CANARY, "expires_at": CANARY}),
        json.dumps({"ip": f"ada:{CANARY}@192.0.2.1", "port": 80, "scheme": "http"}),
        json.dumps({"ip": "192.0.2.1", "port": CANARY, "scheme": CANARY}),
        json.dumps({f"http://ada:{CANARY}@192.0.2.1": 1}),
        '{"proxy_url":"http://192.0.2.1:80","password":"' + CANARY,
        '{"proxy_url":"http://192.0.2.1:80","password":"' + CANARY + '","password":""}',
        json.dumps(CANARY),
    ],
}
LEAKY["a.json"] = LEAKY["a.jsonl"][:8]
HEADS = {"a.csv": "proxy_url,username,password,failure_count,ttl_seconds\n"}


@pytest.mark.req("US5-2")
@pytest.mark.parametrize("name", LEAKY)
def test_a_credential_in_a_bad_row_is_never_repeated(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    rows = LEAKY[name]
    data = f"[{','.join(rows)}]" if name == "a.json" else HEADS.get(name, "") + "\n".join(rows)
    (tmp_path / name).write_text(data)
    result = Shelf().warm(tmp_path / name, scheme="http")
    assert (result.loaded, result.skipped) == (0, len(rows))
    assert CANARY not in repr(result) + str(result) + caplog.text


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", f"http://ada:{CANARY}@192.0.2.1:80,ada,{CANARY} x!\n"),
        ("a.json", f'{{"{CANARY} x!": "{CANARY}"}}'),
        ("a.json", f'["{CANARY}"]'),
        ("a.json", f'[{{"password":"{CANARY}'),
        ("a.txt", f"192.0.2.1:80:ada:{CANARY}\n"),
    ],
)
def test_a_credential_in_a_file_that_will_not_do_is_never_repeated(
    tmp_path: Path, name: str, data: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    (tmp_path / name).write_text(data)
    with pytest.raises(TierkitError) as caught:
        Shelf().warm(tmp_path / name)
    assert CANARY not in str(caught.value) + caplog.text
    assert caught.value.__cause__ is None


def test_the_limits_are_those_that_are_documented() -> None:
    assert (files.MAX_LINE_BYTES, jsonl_lines.MAX_DEPTH, LOGGED_EVERY) == (MEGABYTE, 64, 1000)
