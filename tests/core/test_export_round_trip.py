"""What is exported and imported elsewhere is equal: every format, every type of field, other tiers."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tierkit import FlatRecord, HealthStatus, ProxyEntry, ValueEntry
from tierkit.export_format import EXPORT_FORMATS
from tierkit.testing import AWKWARD_KEYS, FakeClock

from .transfer_support import Everything, Point, Shade, cache_of, everything_in

text = st.one_of(
    st.text(max_size=8), st.sampled_from(["", "=1+1", "'", "-1", "1e5", '"', "a,b\r\nc", "\0", "base64:", "\r"])
)
moments = st.integers(-(10**15), 7 * 10**15).map(
    lambda micros: datetime(1970, 1, 1, tzinfo=UTC) + micros * datetime.resolution
)
reals = st.floats(allow_nan=False, allow_infinity=False)
values = st.one_of(text, st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.binary(max_size=6))
names = st.one_of(text.filter(bool), st.sampled_from(["key", "a", "b"]))


def written(name: str, records: list[FlatRecord], columns: list[str]) -> list[Any]:
    made = EXPORT_FORMATS[name]
    content = b"".join(made().write(iter(records), columns))
    return list(made().read(io.BytesIO(content)))


@pytest.mark.parametrize("name", EXPORT_FORMATS)
@given(records=st.lists(st.dictionaries(names, values, min_size=1, max_size=5), min_size=1, max_size=4))
@settings(max_examples=60)
def test_a_format_reads_what_it_wrote(name: str, records: list[FlatRecord]) -> None:
    found = written(name, records, ["key", "a"])
    assert found == records
    assert [{name: type(value) for name, value in record.items()} for record in found] == [
        {name: type(value) for name, value in record.items()} for record in records
    ]


entries = st.builds(
    Everything,
    key=st.one_of(st.text(min_size=1, max_size=6), st.sampled_from([key for key in AWKWARD_KEYS if len(key) < 300])),
    source=text.filter(lambda source: "@" not in source),
    text=text,
    words=st.none() | text,
    number=st.integers(-(2**63), 2**63 - 1),
    amount=st.none() | reals,
    flag=st.booleans(),
    data=st.binary(max_size=6),
    moment=st.none() | moments,
    token=st.none() | text.map(SecretStr),
    shade=st.sampled_from(Shade),
    points=st.lists(st.builds(Point, x=st.integers(0, 9), name=text), max_size=2).map(tuple),
    health_status=st.sampled_from(HealthStatus),
    failure_count=st.integers(0, 5),
    ttl_seconds=st.floats(60, 1e6),
)
proxies = st.builds(
    lambda host, user, password, source: ProxyEntry.from_url(
        f"http://{host}.example:80", source=source, username=user, password=password
    ),
    st.integers(0, 99),
    st.none() | text.filter(bool),
    st.none() | text.filter(bool),
    text.filter(lambda source: "@" not in source),
)
plain_values = st.builds(ValueEntry.from_value, st.text(min_size=1, max_size=4), st.none() | text | reals)
KINDS: dict[type[Any], Any] = {Everything: entries, ProxyEntry: proxies, ValueEntry: plain_values}
WAYS = [
    ("jsonl", "sealed", "memory", "sqlite"),
    ("json", "plain", "sqlite", "jsonl"),
    ("csv", "sealed", "jsonl", "memory"),
    ("csv.gz", "plain", "memory", "jsonl"),
]


@pytest.mark.req("E-5")
@pytest.mark.parametrize("entry_type", KINDS)
@given(data=st.data())
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_imported_elsewhere_is_equal(
    entry_type: type[Any], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, clock = tmp_path_factory.mktemp("export"), FakeClock()
    form, secrets, here, there = data.draw(st.sampled_from(WAYS))
    given_entries = data.draw(st.lists(KINDS[entry_type], max_size=4))
    with (
        cache_of(folder / "a", here, entry_type, clock=clock, grace_seconds=50.0) as one,
        cache_of(folder / "b", there, entry_type, clock=clock) as other,
    ):
        one.put_many(given_entries)
        for entry in given_entries[:2]:
            one.get(entry.key)
            one.invalidate_by_health(entry.key)
        exported = one.export_to_file(folder / f"all.{form}", secrets=secrets)  # type: ignore[arg-type]  # one of the three
        imported = other.import_from_file(folder / f"all.{form}")
        assert (exported.exported, imported.imported) == (one.size(), one.size())
        assert everything_in(other) == everything_in(one)


def test_infinite_numbers_and_nothing_come_back() -> None:
    for name in EXPORT_FORMATS:
        assert written(name, [{"a": inf, "b": -inf, "c": "inf"}, {"c": ""}], ["a"]) == [
            {"a": inf, "b": -inf, "c": "inf"},
            {"c": ""},
        ]


def test_no_cell_is_a_formula_and_numbers_stay_numbers(tmp_path: Path) -> None:
    record: FlatRecord = {"a": "=cmd|'/c calc'!A1", "b": "+1", "c": "@x", "d": "-1", "e": -1, "f": "\tx", "g": "\rx"}
    content = b"".join(EXPORT_FORMATS["csv"]().write([record], list(record))).decode()
    assert content.splitlines()[1].startswith("'=cmd|'/c calc'!A1,'+1,'@x,'-1,-1,'\tx,\"'")
