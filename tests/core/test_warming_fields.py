"""Warming: how a row's values become those of an entry."""

import json
import re
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr

from tierkit.entry import CacheEntry, HealthStatus, ProxyEntry
from tierkit.errors import CacheValidationError, TransferError

from .warming_support import NOW, Shelf, reasons

URL = "http://192.0.2.1:80"


class Grade(StrEnum):
    GOOD = "good"
    BAD = "bad"


class Place(msgspec.Struct, frozen=True):
    lat: float
    lon: float


class Rich(ProxyEntry):
    country_code: str = ""
    response_time_ms: float | None = None
    last_checked: datetime | None = None
    protocol: str = ""
    port: int = 0
    tags: tuple[str, ...] = ()
    place: Place | None = None
    grade: Grade | None = None
    anonymous: bool = False
    blob: bytes = b""


class ApiKey(CacheEntry):
    service: str
    token: SecretStr
    quota: int = 0


def warmed(tmp_path: Path, row: dict[str, Any], entry_type: type[CacheEntry] = ProxyEntry, **options: Any) -> Any:
    """The one entry of a file with one row, which is good."""
    (tmp_path / "stem.jsonl").write_text(json.dumps(row))
    shelf = Shelf()
    result = shelf.warm(tmp_path / "stem.jsonl", entry_type, **options)
    assert reasons(result) == []
    return shelf.entries[0]


def refused(tmp_path: Path, row: dict[str, Any], entry_type: type[CacheEntry] = ProxyEntry, **options: Any) -> str:
    """Why the one row of a file is skipped."""
    (tmp_path / "stem.jsonl").write_text(json.dumps(row))
    result = Shelf().warm(tmp_path / "stem.jsonl", entry_type, **options)
    [(_, reason)] = reasons(result)
    assert (result.found, result.loaded, result.skipped) == (1, 0, 1)
    return reason


@pytest.mark.req("US5-1")
def test_a_column_of_a_subclass_is_kept_in_its_declared_type(tmp_path: Path) -> None:
    row = {
        "proxy_url": URL,
        "country_code": "SE",
        "response_time_ms": "12.5",
        "last_checked": "2026-08-14T09:36:54.038750",
        "protocol": "http",
        "port": "8080",
        "tags": ["a", "b"],
        "place": {"lat": 1, "lon": 2.5},
        "grade": "good",
        "anonymous": "true",
        "blob": "AAE=",
    }
    entry = warmed(tmp_path, row, Rich)
    assert entry == Rich(
        proxy_url=URL,
        source="stem",
        country_code="SE",
        response_time_ms=12.5,
        last_checked=datetime(2026, 8, 14, 9, 36, 54, 38750, UTC),
        protocol="http",
        port=8080,
        tags=("a", "b"),
        place=Place(1.0, 2.5),
        grade=Grade.GOOD,
        anonymous=True,
        blob=b"\0\1",
    )


@pytest.mark.req("US5-1")
def test_csv_cells_become_the_declared_types_and_empty_ones_are_left_to_the_default(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        "proxy_url,response_time_ms,tags,place,anonymous,last_checked\n"
        f'{URL},12.5,"[""a"",""b""]","{{""lat"":1,""lon"":2}}",1,1755200000\n'
        "http://192.0.2.2:80,,,,,\n"
    )
    shelf = Shelf()
    assert reasons(shelf.warm(tmp_path / "a.csv", Rich)) == []
    first, second = shelf.entries
    assert (first.tags, first.place, first.anonymous) == (("a", "b"), Place(1.0, 2.0), True)
    assert first.last_checked == datetime.fromtimestamp(1755200000, UTC)
    assert (second.tags, second.response_time_ms, second.anonymous) == ((), None, False)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("country_code", 5, "country_code must be text, not a number"),
        ("country_code", "a\x00b", "country_code holds the control character U+0000"),
        ("response_time_ms", "fast", "response_time_ms is text that cannot be read as float"),
        ("response_time_ms", [1], "response_time_ms is an array that cannot be read as float"),
        ("last_checked", "yesterday", "last_checked must be a time"),
        ("last_checked", True, "last_checked must be a time"),
        ("last_checked", 1e300, "last_checked must be a time"),
        ("last_checked", "0001-01-01T00:00:00+14:00", "last_checked must be a time"),
        ("tags", [1], "tags is an array that cannot be read as tuple"),
        ("tags", "[", "tags is text that cannot be read as tuple"),
        ("tags", "[" * 5000, "tags is text that cannot be read as tuple"),
        ("place", {"lat": 1}, "place is an object that cannot be read as Place"),
        ("grade", "ugly", "grade is text that cannot be read as Grade"),
        ("anonymous", "perhaps", "anonymous is text that cannot be read as bool"),
        ("blob", "not base64!", "blob is text that cannot be read as bytes"),
        ("failure_count", -1, "failure_count must not be negative"),
        ("failure_count", 1.5, "failure_count is a number that cannot be read as int"),
        ("failure_count", 2**70, "does not fit 64 bits"),
        ("ttl_seconds", 0, "ttl_seconds must be a number above 0"),
        ("ttl_seconds", "nan", "ttl_seconds must be a number above 0"),
        ("health_status", "fine", "health_status is text that cannot be read as HealthStatus"),
        ("source", " ", "source is blank"),
        ("source", "a\nb", "source holds the control character U+000A"),
        ("source", ["a"], "source must be text, not an array"),
        ("key", {}, "key must be text, not an object"),
        ("username", 5, "username must be text, not a number"),
        ("password", "a\r\nb", "password holds the control character U+000D"),
        ("proxy_url", 5, "proxy_url must be text, not a number"),
        ("proxy_url", "", "proxy_url is blank"),
        ("proxy_url", "http://a b:80", "proxy_url is not of the form"),
        ("proxy_url", "http://192.0.2.1:70000", "proxy_url has a port out of range 1 to 65535"),
        ("proxy_url", "http://192.0.2.1:0/", "proxy_url has a port out of range 1 to 65535"),
        ("proxy_url", "hunter2", "has no scheme"),
        ("proxy_url", "http://192.0.2.256:80", "proxy_url is not of the form"),
        ("proxy_url", None, "has no proxy_url, nor ip and port"),
    ],
)
def test_a_value_that_does_not_fit_costs_its_row(tmp_path: Path, column: str, value: object, said: str) -> None:
    assert said in refused(tmp_path, {"proxy_url": URL, column: value}, Rich)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"ip": "192.0.2.1", "port": 65536}, "port is out of range 1 to 65535"),
        ({"ip": "192.0.2.1", "port": "0"}, "port is out of range 1 to 65535"),
        ({"ip": "192.0.2.1", "port": "eighty"}, "port must be a number"),
        ({"ip": "192.0.2.1", "port": 80.0}, "port must be a number"),
        ({"ip": "192.0.2.1", "port": None}, "has no proxy_url, nor ip and port"),
        ({"ip": "192.0.2.1"}, "has no proxy_url, nor ip and port"),
        ({"ip": None, "port": 80}, "has no proxy_url, nor ip and port"),
        ({"ip": 3221225985, "port": 80}, "host must be text, not a number"),
        ({"ip": "192.0.2.1/x", "port": 80}, "proxy_url is not of the form"),
        ({"ip": "192.0.2.1", "port": 80, "protocol": "ht tp"}, "proxy_url is not of the form"),
        ({"ip": "192.0.2.1", "port": 80, "protocol": ["http"]}, "scheme must be text, not an array"),
        ({"proxy_url": "hunter2"}, "proxy_url has no port"),
        ({"port": 80}, "has no proxy_url, nor ip and port"),
        ({}, "has no proxy_url, nor ip and port"),
        ({"url": URL, "URL": URL}, None),
        ({"proxy_url": URL, "Proxy_URL": URL}, "has two columns for proxy_url"),
    ],
)
def test_parts_of_a_url_are_checked_one_by_one(tmp_path: Path, row: dict[str, Any], said: str | None) -> None:
    if said is None:
        assert warmed(tmp_path, row, scheme="http").proxy_url == URL
    else:
        assert said in refused(tmp_path, row, scheme="http")


@pytest.mark.parametrize(
    "value",
    [
        "2026-08-14T09:36:54",
        "2026-08-14 09:36:54",
        "2026-08-14T09:36:54Z",
        "2026-08-14T11:36:54+02:00",
        1786700214,
        1786700214.0,
        "1786700214",
        "1786700214.0",
        1786700214000,
        "1786700214000",
    ],
)
def test_times_are_read_as_utc_unless_they_say_otherwise(tmp_path: Path, value: object) -> None:
    entry = warmed(tmp_path, {"proxy_url": URL, "last_checked": value}, Rich)
    assert entry.last_checked == datetime(2026, 8, 14, 9, 36, 54, tzinfo=UTC)
    assert entry.last_checked.tzinfo is UTC


def at(seconds: float) -> str:
    return datetime.fromtimestamp(NOW + seconds, UTC).isoformat()


@pytest.mark.req("US5-1")
def test_the_times_of_a_row_are_taken_and_what_it_does_not_say_is_left_to_the_cache(tmp_path: Path) -> None:
    row = {"proxy_url": URL, "fetch_time": at(-60), "ttl_seconds": 90, "health_status": "healthy", "failure_count": 2}
    entry = warmed(tmp_path, row | {"key": "k", "source": "s"})
    assert (entry.key, entry.source, entry.ttl_seconds, entry.expires_at) == ("k", "s", 90.0, None)
    assert entry.fetch_time == datetime.fromtimestamp(NOW - 60, UTC)
    assert (entry.health_status, entry.failure_count) == (HealthStatus.HEALTHY, 2)
    bare = warmed(tmp_path, {"proxy_url": URL})
    assert (bare.fetch_time, bare.ttl_seconds, bare.expires_at) == (None, None, None)


@pytest.mark.req("US5-1")
@pytest.mark.parametrize(
    "times",
    [
        {"expires_at": at(0)},
        {"expires_at": at(-1), "ttl_seconds": 900},
        {"fetch_time": at(-900), "ttl_seconds": 900},
    ],
)
def test_a_row_that_has_expired_is_skipped_unless_a_ttl_is_given(tmp_path: Path, times: dict[str, Any]) -> None:
    row = {"proxy_url": URL} | times
    assert refused(tmp_path, row) == "has expired already"
    entry = warmed(tmp_path, row, ttl_override=60)
    assert (entry.ttl_seconds, entry.fetch_time, entry.expires_at) == (60, None, None)


@pytest.mark.parametrize("times", [{"expires_at": at(1)}, {"fetch_time": at(-899), "ttl_seconds": 900}])
def test_a_row_that_has_a_second_to_live_goes_in(tmp_path: Path, times: dict[str, Any]) -> None:
    warmed(tmp_path, {"proxy_url": URL} | times)


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), 1e12, "15m", True, [900]])
def test_a_ttl_that_is_none_is_refused_before_anything_is_read(tmp_path: Path, ttl: Any) -> None:
    with pytest.raises(CacheValidationError, match=re.escape(f"ttl_override = {ttl!r}: must be")):
        Shelf().warm(tmp_path / "missing.csv", ttl_override=ttl)


@pytest.mark.parametrize("option", ["source", "scheme"])
def test_an_option_that_is_no_text_is_refused_before_anything_is_read(tmp_path: Path, option: str) -> None:
    for value, kind in ((5, "int"), (b"http", "bytes")):  # the value is not shown: it may hold credentials
        options: dict[str, Any] = {option: value}
        with pytest.raises(CacheValidationError, match=f"{option} must be text, not {kind}"):
            Shelf().warm(tmp_path / "missing.csv", **options)


@pytest.mark.req("US5-1")
def test_the_source_is_the_option_else_the_rows_else_the_files_stem(tmp_path: Path) -> None:
    assert warmed(tmp_path, {"proxy_url": URL, "source": "row"}, source="option").source == "option"
    assert warmed(tmp_path, {"proxy_url": URL, "source": "row"}).source == "row"
    assert warmed(tmp_path, {"proxy_url": URL, "source": None}).source == "stem"
    assert warmed(tmp_path, {"proxy_url": URL}).source == "stem"
    with pytest.raises(CacheValidationError, match="source is blank"):
        Shelf().warm(tmp_path / "stem.jsonl", source=" ")


def test_what_only_the_cache_may_set_is_ignored_and_not_called_undeclared(tmp_path: Path) -> None:
    own = {"created_at": "x", "updated_at": "x", "version": "x", "access_count": "x", "last_accessed": "x"}
    (tmp_path / "a.jsonl").write_text(json.dumps({"proxy_url": URL, "_usage": 1, "_fresh_until": 2} | own))
    shelf = Shelf()
    result = shelf.warm(tmp_path / "a.jsonl")
    assert result.left_out == ("_usage", "_fresh_until")
    assert (shelf.entries[0].version, shelf.entries[0].created_at) == (0, None)


@pytest.mark.req("US5-1")
def test_another_entry_type_is_read_by_the_names_of_its_fields(tmp_path: Path) -> None:
    entry = warmed(tmp_path, {"key": "k", "service": "s", "token": "t\nu", "quota": "5"}, ApiKey)
    assert (entry.service, entry.token.get_secret_value(), entry.quota) == ("s", "t\nu", 5)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"service": "s", "token": "t"}, "has no key"),
        ({"key": "k", "token": "t"}, "has no service"),
        ({"key": "k", "service": "s"}, "has no token"),
        ({"key": "k", "service": "s", "token": 7}, "token must be text, not a number"),
        ({"key": "k", "service": None, "token": "t"}, "has no service"),
        ({"key": "k", "service": "s", "token": ""}, "token must not be None"),
        ({"key": None, "service": "s", "token": "t"}, "has no key"),
    ],
)
def test_a_row_that_lacks_what_the_entry_type_requires_is_skipped(
    tmp_path: Path, row: dict[str, Any], said: str
) -> None:
    assert said in refused(tmp_path, row, ApiKey)


def test_a_csv_header_that_lacks_what_the_entry_type_requires_ends_the_import(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("key,service\nk,s\n")
    with pytest.raises(TransferError, match="has a header line that will not do: has no token"):
        Shelf().warm(tmp_path / "a.csv", ApiKey)


def test_an_entry_type_may_compute_its_key_and_refuse_a_row(tmp_path: Path) -> None:
    class Named(CacheEntry):
        name: str

        def __post_init__(self) -> None:
            if self.name == "mine":
                raise CacheValidationError("mine is taken")
            if self.name == "geheim":
                raise CacheValidationError(f"{self.name} is taken", reason="the name is taken")
            if self.name == "s3cret":
                raise ValueError(f"not {self.name}")
            if not self.key and self.name != "nobody":
                msgspec.structs.force_setattr(self, "key", f"name:{self.name}")

    assert warmed(tmp_path, {"name": "ada"}, Named).key == "name:ada"
    assert refused(tmp_path, {"name": "mine"}, Named) == "Named refuses it: mine is taken"
    assert refused(tmp_path, {"name": "geheim"}, Named) == "Named refuses it: the name is taken"
    assert refused(tmp_path, {"name": "s3cret"}, Named) == "Named refuses it: ValueError"
    assert refused(tmp_path, {"name": "nobody"}, Named) == "has no key"


def test_a_part_of_a_url_that_a_subclass_declares_is_both(tmp_path: Path) -> None:
    entry = warmed(tmp_path, {"ip": "192.0.2.1", "port": 80, "protocol": "http"}, Rich)
    assert (entry.proxy_url, entry.port, entry.protocol) == (URL, 80, "http")


def test_rows_of_ever_new_columns_are_read_in_bounded_memory(tmp_path: Path) -> None:
    lines = [json.dumps({"proxy_url": f"http://192.0.{n >> 8}.{n & 255}:80", f"c{n}": 1}) for n in range(600)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    result = Shelf().warm(tmp_path / "a.jsonl")
    assert result.loaded == 600
    assert len(result.left_out) == 100
