"""Deadlines: which rule gives a record its time to live, and what is refused."""

import math
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from tierkit import CacheEntry, CacheValidationError, ProxyEntry, TTLManager
from tierkit.expiry import CENTURY_SECONDS

NOW = 1_800_000_000.0
MOMENT = datetime.fromtimestamp(NOW, UTC)
FETCHED = MOMENT - timedelta(seconds=100)


def stamped(ttl: TTLManager | None = None, **fields: Any) -> CacheEntry:
    return (ttl or TTLManager(3600, {"free": 600})).stamp(CacheEntry(key="k", **fields), NOW)


@pytest.mark.req("US2-3")
@pytest.mark.parametrize(
    ("fields", "ttl", "expires"),
    [
        ({}, 3600, MOMENT + timedelta(seconds=3600)),
        ({"source": "free"}, 600, MOMENT + timedelta(seconds=600)),
        ({"source": "free", "ttl_seconds": 7}, 7, MOMENT + timedelta(seconds=7)),
        ({"fetch_time": FETCHED}, 3600, FETCHED + timedelta(seconds=3600)),
        ({"fetch_time": FETCHED, "ttl_seconds": 7.5}, 7.5, FETCHED + timedelta(seconds=7.5)),
        ({"expires_at": MOMENT + timedelta(seconds=9)}, 9, MOMENT + timedelta(seconds=9)),
        ({"fetch_time": FETCHED, "expires_at": MOMENT}, 100, MOMENT),
        ({"ttl_seconds": 5, "expires_at": MOMENT + timedelta(days=1)}, 5, MOMENT + timedelta(days=1)),
        ({"source": "free", "expires_at": MOMENT + timedelta(seconds=9)}, 9, MOMENT + timedelta(seconds=9)),
    ],
)
def test_the_deadline_is_the_records_own_then_its_ttl_then_its_sources_then_the_default(
    fields: dict[str, Any], ttl: float, expires: datetime
) -> None:
    entry = stamped(**fields)
    assert (entry.ttl_seconds, entry.expires_at) == (ttl, expires)


@pytest.mark.req("F-1")
def test_every_time_is_filled_in_and_what_the_record_says_is_kept() -> None:
    entry = stamped()
    assert (entry.fetch_time, entry.created_at, entry.updated_at) == (MOMENT, MOMENT, MOMENT)
    entry = stamped(fetch_time=FETCHED, created_at=FETCHED, updated_at=FETCHED)
    assert (entry.fetch_time, entry.created_at, entry.updated_at) == (FETCHED, FETCHED, MOMENT)


def test_times_of_other_zones_are_told_in_utc() -> None:
    east = timezone(timedelta(hours=5))
    entry = stamped(fetch_time=FETCHED.astimezone(east), created_at=FETCHED.astimezone(east))
    assert entry.fetch_time is not None
    assert entry.fetch_time.tzinfo is UTC
    assert (entry.fetch_time, entry.created_at) == (FETCHED, FETCHED)


def test_the_entry_itself_is_not_changed_and_its_class_is_kept() -> None:
    entry = ProxyEntry(proxy_url="http://192.0.2.1:80", password=SecretStr("pw"))
    copy = TTLManager().stamp(entry, NOW, version=9)
    assert entry.expires_at is None
    assert type(copy) is ProxyEntry
    assert (copy.key, copy.password, copy.version) == (entry.key, entry.password, 9)


@pytest.mark.req("US2-3")
def test_rules_can_be_changed_while_the_cache_runs() -> None:
    ttl = TTLManager(3600, {"free": 600})
    old = stamped(ttl, source="free")
    ttl.set_ttl("free", 5)
    ttl.set_ttl(None, 50)
    assert old.ttl_seconds == 600
    assert (ttl.ttl_for("free"), ttl.ttl_for("other")) == (5, 50)
    assert ttl.rules == {None: 50, "free": 5}
    assert stamped(ttl, source="free").ttl_seconds == 5


WRONG_SECONDS = [0, -1, -0.5, math.nan, math.inf, -math.inf, True, "60", 10**400, timedelta(seconds=5)]


@pytest.mark.parametrize("seconds", WRONG_SECONDS, ids=lambda seconds: repr(seconds)[:12])
def test_a_ttl_that_is_no_positive_number_is_refused(seconds: Any) -> None:
    with pytest.raises(CacheValidationError, match="ttl_seconds"):
        stamped(ttl_seconds=seconds)
    with pytest.raises(CacheValidationError, match="ttl_seconds"):
        stamped(ttl_seconds=seconds, expires_at=MOMENT + timedelta(1))
    with pytest.raises(CacheValidationError, match="'free'"):
        TTLManager().set_ttl("free", seconds)
    with pytest.raises(CacheValidationError, match="default_ttl_seconds"):
        TTLManager(seconds)


@pytest.mark.req("US2-3")
def test_a_rule_can_be_taken_back_and_the_default_applies_again() -> None:
    ttl = TTLManager(3600, {"free": 600})
    ttl.set_ttl("free", None)
    ttl.set_ttl("never had one", None)
    assert ttl.ttl_for("free") == 3600
    assert ttl.rules == {None: 3600}
    with pytest.raises(CacheValidationError, match="default_ttl_seconds = None"):
        TTLManager().set_ttl(None, None)


@pytest.mark.parametrize("seconds", [CENTURY_SECONDS * 1.001, 1e12, 10**30])
def test_a_rule_that_is_longer_than_a_setting_may_be_is_refused(seconds: float) -> None:
    for make in (
        lambda: TTLManager().set_ttl("free", seconds),
        lambda: TTLManager().set_ttl(None, seconds),
        lambda: TTLManager(seconds),
        lambda: TTLManager(per_source={"free": seconds}),
    ):
        with pytest.raises(CacheValidationError, match=r"ttl.* = .*: must be at most 3155760000 seconds, 100 years"):
            make()
    TTLManager(CENTURY_SECONDS).set_ttl("free", CENTURY_SECONDS)


@pytest.mark.parametrize("source", [b"free", 5, ("free",)])
def test_a_rule_for_what_no_source_can_be_is_refused(source: Any) -> None:
    ttl = TTLManager()
    for seconds in (60, None):
        with pytest.raises(CacheValidationError, match=r"source = .*: must be text, or None for the default"):
            ttl.set_ttl(source, seconds)
    with pytest.raises(CacheValidationError, match="must be text"):
        TTLManager(per_source={source: 60})
    assert ttl.rules == {None: 3600}


@pytest.mark.parametrize("field", ["fetch_time", "expires_at", "created_at"])
@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 1, 1), "time zone"),  # noqa: DTZ001 - that is the fault
        (date(2026, 1, 1), "must be a datetime"),
        (NOW, "must be a datetime"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=2))), "UTC"),
    ],
)
def test_a_time_that_is_not_an_aware_datetime_is_refused(field: str, moment: Any, text: str) -> None:
    with pytest.raises(CacheValidationError, match=f"{field} = .*{text}"):
        stamped(**{field: moment})


@pytest.mark.parametrize("ttl", [1e12, 1e18, 10**30])
def test_a_deadline_beyond_what_a_datetime_can_hold_is_refused(ttl: float) -> None:
    with pytest.raises(CacheValidationError, match=r"ttl_seconds = 1.*later than the year 9999"):
        stamped(ttl_seconds=ttl)


def test_a_deadline_before_the_fetch_is_refused() -> None:
    with pytest.raises(CacheValidationError, match=r"expires_at = .*must be after fetch_time"):
        stamped(expires_at=MOMENT)


@given(ttl=st.floats(min_value=1e-3, max_value=1e9), age=st.floats(min_value=0, max_value=1e9))
def test_a_stamped_record_keeps_its_deadline_when_it_is_stamped_again(ttl: float, age: float) -> None:
    fetched = MOMENT - timedelta(seconds=age)
    first = stamped(fetch_time=fetched, ttl_seconds=ttl)
    second = TTLManager(1).stamp(first, NOW + 5)
    assert (second.fetch_time, second.ttl_seconds, second.expires_at) == (fetched, ttl, first.expires_at)
    assert second.created_at == first.created_at
    assert first.expires_at == fetched + timedelta(seconds=ttl)


JITTERED: list[tuple[float, float, dict[str, Any], float]] = [
    (0.1, 0.0, {}, 3600),
    (0.1, 0.5, {}, 3420),
    (0.1, 0.5, {"ttl_seconds": 100}, 95),
    (0.5, 0.5, {"source": "free"}, 450),
    (0.5, 0.5, {"fetch_time": FETCHED, "ttl_seconds": 140}, 30),
    (0.5, 0.5, {"fetch_time": FETCHED, "ttl_seconds": 90}, -10),
    (0.5, 0.5, {"expires_at": MOMENT + timedelta(seconds=9)}, 9),
    (0.5, 0.5, {"expires_at": MOMENT + timedelta(seconds=9), "ttl_seconds": 20}, 9),
    (0.0, 0.5, {}, 3600),
    (1.0, 1.0, {}, 1e-6),
]


@pytest.mark.req("US2-3")
@pytest.mark.parametrize(("jitter", "drawn", "fields", "left"), JITTERED)
def test_jitter_takes_a_part_of_what_is_left_off_a_deadline_that_was_not_given(
    jitter: float, drawn: float, fields: dict[str, Any], left: float
) -> None:
    plain = stamped(**fields)
    entry = stamped(TTLManager(3600, {"free": 600}, jitter=jitter, random=lambda: drawn), **fields)
    assert entry.expires_at == MOMENT + timedelta(seconds=left)
    assert entry.ttl_seconds == plain.ttl_seconds


@given(st.floats(0, 1), st.floats(0, 1, exclude_max=True), st.floats(1e-3, 1e8))
def test_jitter_neither_puts_a_deadline_off_nor_makes_it_pass(jitter: float, drawn: float, ttl: float) -> None:
    entry = stamped(TTLManager(jitter=jitter, random=lambda: drawn), ttl_seconds=ttl)
    assert entry.expires_at is not None
    assert MOMENT < entry.expires_at <= MOMENT + timedelta(seconds=ttl)


def test_jitter_is_drawn_for_each_record() -> None:
    ttl = TTLManager(3600, jitter=0.5)
    assert len({stamped(ttl).expires_at for _ in range(50)}) > 40


@pytest.mark.parametrize("jitter", [-0.1, 1.1, math.nan, "1"])
def test_a_jitter_that_is_no_fraction_is_refused(jitter: Any) -> None:
    with pytest.raises(CacheValidationError, match="ttl_jitter"):
        TTLManager(jitter=jitter)
