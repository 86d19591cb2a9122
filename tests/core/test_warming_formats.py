"""Warming: what each format is read as."""

import gzip
import json
from pathlib import Path

import pytest

from tierkit.entry import CacheEntry, ProxyEntry, ValueEntry
from tierkit.errors import TransferError
from tierkit.transfer import FORMATS

from .warming_support import LISTS, Shelf, reasons

ROWS = [
    {"proxy_url": "http://192.0.2.1:80", "username": "ada", "password": "p,w", "source": "a"},
    {"proxy_url": "socks5://192.0.2.2:1080", "username": None, "password": None, "source": "a"},
]
CSV = 'proxy_url,username,password,source\nhttp://192.0.2.1:80,ada,"p,w",a\nsocks5://192.0.2.2:1080,,,a\n'
CONTENTS = {
    "list.json": json.dumps(ROWS),
    "nested.json": json.dumps({"total": 2, "proxies": ROWS, "notes": [], "by": {"x": [{"y": 1}]}}),
    "pretty.json": json.dumps(ROWS, indent=2),
    "list.jsonl": "".join(json.dumps(row) + "\n" for row in ROWS),
    "list.ndjson": "\n".join(json.dumps(row) + "\r" for row in ROWS),
    "list.csv": CSV,
    "semicolons.csv": CSV.replace("p,w", "p#w").replace(",", ";").replace("p#w", "p,w"),
    "tabs.csv": CSV.replace("p,w", "p#w").replace(",", "\t").replace("p#w", "p,w"),
    "LIST.CSV": CSV.replace("\n", "\r\n"),
    "list.txt": "# two\n\n192.0.2.1:80:ada:p,w\nsocks5://192.0.2.2:1080\n",
    "urls.list": "http://ada:p%2Cw@192.0.2.1:80\n  socks5://192.0.2.2:1080  ",
    "user-first.txt": "ada:p,w@192.0.2.1:80\nsocks5://192.0.2.2:1080",
}


@pytest.mark.req("US5-1")
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("packed", [False, True], ids=["", "gz"])
@pytest.mark.parametrize("name", CONTENTS)
def test_each_format_gives_the_same_entries(tmp_path: Path, name: str, packed: bool, bom: bytes) -> None:
    data = bom + CONTENTS[name].encode()
    path = tmp_path / (f"{name}.gz" if packed else name)
    path.write_bytes(gzip.compress(data) if packed else data)
    shelf = Shelf()
    result = shelf.warm(path, source="a", scheme="http")
    assert (result.found, result.loaded, result.skipped, result.failed) == (2, 2, 0, 0)
    ada, nobody = shelf.entries
    assert ada == ProxyEntry.from_url("http://ada:p%2Cw@192.0.2.1:80", source="a")
    assert nobody == ProxyEntry.from_url("socks5://192.0.2.2:1080", source="a")


def test_every_extension_is_tried_above() -> None:
    assert {Path(name).suffix.lower() for name in CONTENTS} == set(FORMATS)


@pytest.mark.parametrize("name", ["list.xml", "list", "list.gz", "list.csv.bz2", ".csv", "x.gz.gz"])
def test_an_unknown_extension_is_refused_and_the_known_ones_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(CSV)
    with pytest.raises(TransferError, match=r"\.json, \.jsonl, \.ndjson, \.csv, \.txt, \.list"):
        Shelf().warm(tmp_path / name)


@pytest.mark.req("US5-1")
def test_a_real_list_is_loaded_from_its_nested_json(caplog: pytest.LogCaptureFixture) -> None:
    shelf = Shelf()
    result = shelf.warm(LISTS / "as-published.json")
    assert (result.found, result.loaded, result.skipped) == (7038, 7038, 0)
    assert "http://160.34.208.144:80" in shelf.urls
    assert {entry.source for entry in shelf.entries} == {"user"}
    assert {entry.created_at for entry in shelf.entries} == {None}
    assert {entry.health_status for entry in shelf.entries} == {"unknown"}
    assert "country_code" in result.left_out
    assert "status" in result.left_out
    assert not {"created_at", "port", "ip", "protocol", "source"} & set(result.left_out)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.req("US5-1")
def test_a_real_list_of_host_and_port_is_loaded_with_a_scheme() -> None:
    shelf = Shelf()
    result = shelf.warm(LISTS / "as-published.txt", scheme="http")
    # The publisher lists 122 proxies under two headings.
    assert (result.found, result.loaded, result.skipped) == (7160, 7038, 122)
    assert {entry.source for entry in shelf.entries} == {"as-published"}
    assert all("has the key of line" in reason for _, reason in reasons(result))


@pytest.mark.req("US5-1")
def test_a_real_list_of_lines_without_a_scheme_asks_for_one_before_anything_is_written() -> None:
    shelf = Shelf()
    with pytest.raises(TransferError, match="--scheme"):
        shelf.warm(LISTS / "as-published.txt")
    assert shelf.entries == []


@pytest.mark.parametrize("scheme", ["", "http://", "5x", "http://u:Kanarienvogel7@x"])
def test_a_scheme_that_is_none_is_refused(tmp_path: Path, scheme: str) -> None:
    with pytest.raises(ValueError, match="scheme is not one word") as caught:
        Shelf().warm(tmp_path / "x.txt", scheme=scheme)
    assert "Kanarienvogel7" not in str(caught.value)


@pytest.mark.parametrize("row", ["gopher://192.0.2.1:70", "192.0.2.1:70", "gopher://u:pw@192.0.2.1:70"])
def test_any_scheme_will_do_if_there_is_a_port(tmp_path: Path, row: str) -> None:
    (tmp_path / "a.txt").write_text(f"{row}\ngopher://192.0.2.2\n")
    shelf = Shelf()
    result = shelf.warm(tmp_path / "a.txt", scheme="Gopher")
    assert shelf.urls == ["gopher://192.0.2.1:70"]
    assert reasons(result) == [(2, "proxy_url is not of the form scheme://[user:password@]host:port")]


@pytest.mark.req("US5-1")
def test_a_real_list_of_json_lines_is_loaded(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tierkit.transfer")
    shelf = Shelf()
    result = shelf.warm(LISTS / "2026-08-14T0936Z.jsonl.gz")
    assert (result.found, result.loaded) == (6812, 6812)
    assert result.left_out == ("country_code", "response_time_ms", "last_checked")
    assert [text for text in caplog.messages if "left out" in text] == [
        f"{result.path}: left out, since ProxyEntry does not declare them: country_code, response_time_ms, last_checked"
    ]


def test_ipv6_addresses_are_read_in_every_spelling(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("[2001:db8::1]:80\n[2001:DB8::2]:80:ada:pw\nhttp://[2001:db8::3]:80\n")
    (tmp_path / "a.jsonl").write_text(
        '{"ip":"2001:db8::4","port":80}\n{"host":"[2001:db8::5]","port":"80","protocol":"HTTP"}\n'
    )
    shelf = Shelf()
    shelf.warm(tmp_path / "a.txt", scheme="http")
    shelf.warm(tmp_path / "a.jsonl", scheme="http")
    assert shelf.urls == [f"http://[2001:db8::{n}]:80" for n in range(1, 6)]


def test_a_password_in_a_list_may_hold_colons_and_percent_signs(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("192.0.2.1:80:ada:p:w%20@x\n192.0.2.2:80::\n")
    shelf = Shelf()
    shelf.warm(tmp_path / "a.txt", scheme="http")
    first, second = shelf.entries
    assert first.password.get_secret_value() == "p:w%20@x"
    assert (second.username, second.password) == (None, None)


@pytest.mark.parametrize(
    ("names", "cells"),
    [
        ("IP,Port,Protocol,User,Pass", "192.0.2.1,80,http,ada,pw"),
        ("host,port,scheme,username,password", "192.0.2.1,80,HTTP,ada,pw"),
        ("url,user,pass", "http://192.0.2.1,ada,pw"),
        ("proxy,Username, Password ", "192.0.2.1:80,ada,pw"),
        ("Proxy URL", "http://ada:pw@192.0.2.1:80/"),
        ("proxy-url,protocol,host", "192.0.2.1:80,http,left.example"),
        ("ip,port,user,pass,protocol", "192.0.2.1, 80 ,ada,pw,"),
    ],
)
def test_what_published_lists_call_a_field_is_known(tmp_path: Path, names: str, cells: str) -> None:
    (tmp_path / "a.csv").write_text(f"{names}\n{cells}\n")
    shelf = Shelf()
    shelf.warm(tmp_path / "a.csv", scheme="http")
    [entry] = shelf.entries
    assert entry.proxy_url == "http://192.0.2.1:80"
    if len(names.split(",")) > 3 or "," not in names:
        assert (entry.username.get_secret_value(), entry.password.get_secret_value()) == ("ada", "pw")


def test_rows_without_a_scheme_say_how_to_give_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"ip":"192.0.2.1","port":80}\n{"proxy_url":"192.0.2.1:80"}\n')
    result = Shelf().warm(tmp_path / "a.jsonl")
    assert reasons(result) == [(n, "has no scheme: name one with scheme= (--scheme)") for n in (1, 2)]


def test_a_list_of_proxies_cannot_become_other_entries(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("192.0.2.1:80\n")
    with pytest.raises(TransferError, match="cannot become ValueEntry"):
        Shelf().warm(tmp_path / "a.txt", ValueEntry, scheme="http")


def test_plain_values_are_loaded_from_key_and_value(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"key": "k", "value": {"n": [1, None]}}, {"key": "l", "value": None}]
    rows += [{"value": 1}, {"key": "m", "value": 2**70}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    shelf = Shelf()
    result = shelf.warm(tmp_path / "a.jsonl", ValueEntry)
    assert [(entry.key, entry.value) for entry in shelf.entries] == [("k", {"n": [1, None]}), ("l", None)]
    assert reasons(result) == [(3, "has no key"), (4, "encoded cannot be stored")]


def test_an_entry_type_that_cannot_be_stored_is_refused_before_the_file_is_opened(tmp_path: Path) -> None:
    class Bad(CacheEntry):
        things: set[str] | None = None

    with pytest.raises(ValueError, match="things has type"):
        Shelf().warm(tmp_path / "missing.csv", Bad)
