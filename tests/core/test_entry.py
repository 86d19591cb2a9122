"""Entries: a user's records, live and typed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from math import inf
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from tests.telling import told

from tierkit import CacheEntry, CacheValidationError, HealthStatus, ProxyEntry, TTLManager, Usage, ValueEntry
from tierkit import entry as entry_module

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class ApiKey(CacheEntry):
    service: str
    token: SecretStr
    spare: SecretStr | None = None


@pytest.mark.req("F-1")
def test_a_proxy_has_every_documented_field() -> None:
    entry = ProxyEntry(proxy_url="http://192.0.2.1:80")
    for name in (
        *("key", "proxy_url", "username", "password", "source", "fetch_time", "last_accessed", "access_count"),
        *("ttl_seconds", "expires_at", "health_status", "failure_count", "created_at", "updated_at"),
    ):
        assert hasattr(entry, name)


@pytest.mark.req("F-1")
def test_what_is_left_out_is_not_made_up() -> None:
    entry = CacheEntry()
    assert (entry.key, entry.source, entry.version, entry.failure_count) == ("", "unknown", 0, 0)
    assert (entry.fetch_time, entry.ttl_seconds, entry.expires_at, entry.purge_at) == (None, None, None, inf)
    assert entry.health_status is HealthStatus.UNKNOWN


def test_entries_and_their_subclasses_take_keywords_only_and_are_frozen() -> None:
    with pytest.raises(TypeError):
        ApiKey("service")  # type: ignore[call-arg]  # it is refused
    entry = ApiKey(service="s", token=SecretStr("t"))
    with pytest.raises(AttributeError):
        entry.service = "other"  # type: ignore[misc]  # it is refused


class At(datetime):
    """A clock on the wall that stands still."""

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        assert tz is UTC
        return NOW


@pytest.mark.req("F-2")
@pytest.mark.parametrize(
    ("deadline", "expired"),
    [
        (None, False),
        (NOW + timedelta(microseconds=1), False),
        (NOW, True),
        (NOW - timedelta(microseconds=1), True),
    ],
)
def test_an_entry_is_expired_from_its_deadline_on(
    deadline: datetime | None, expired: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry_module, "datetime", At)
    assert CacheEntry(expires_at=deadline).is_expired is expired


@pytest.mark.req("F-2")
@pytest.mark.parametrize("status", HealthStatus)
def test_an_entry_is_healthy_only_if_it_is_known_to_be(status: HealthStatus) -> None:
    assert CacheEntry(health_status=status).is_healthy is (status is HealthStatus.HEALTHY)


@pytest.mark.req("F-2")
def test_health_is_one_of_three() -> None:
    assert {status.name for status in HealthStatus} == {"HEALTHY", "UNHEALTHY", "UNKNOWN"}


def test_the_deadline_is_when_a_tier_may_drop_it() -> None:
    assert CacheEntry(expires_at=NOW).purge_at == NOW.timestamp()


# -- usage -------------------------------------------------------------------------------------------------------------


def test_usage_is_shown_and_cannot_be_passed_in() -> None:
    with pytest.raises(TypeError):
        CacheEntry(access_count=5)  # type: ignore[call-arg]  # it is refused
    entry = CacheEntry(_usage=Usage(3, 1.5))
    entry._usage.hits += 2
    assert entry.access_count == 5
    assert entry.last_accessed == datetime.fromtimestamp(1.5, UTC)


def test_an_entry_that_was_never_read_has_no_last_access() -> None:
    assert CacheEntry().last_accessed is None


def test_hits_are_taken_once_and_can_be_put_back() -> None:
    usage = Usage(flushed=10)
    usage.hits += 3
    assert usage.take() == 3
    assert (usage.flushed, usage.hits, usage.take()) == (13, 0, 0)
    usage.hits += 1
    usage.put_back(3)
    assert (usage.flushed, usage.hits) == (10, 4)


def test_entries_do_not_share_usage() -> None:
    assert CacheEntry()._usage is not CacheEntry()._usage


# -- copies, equality, repr --------------------------------------------------------------------------------------------


def test_a_changed_copy_is_a_new_entry_that_was_never_put() -> None:
    entry = CacheEntry(key="k", version=9, expires_at=NOW, _usage=Usage(5, 1.0), _fresh_until=1.0)
    copy = entry.evolve(source="other")
    assert (copy.key, copy.source, copy.version, copy.expires_at) == ("k", "other", 0, NOW)
    assert (copy.access_count, copy._fresh_until) == (0, inf)
    assert (entry.source, entry.access_count) == ("unknown", 5)


@pytest.mark.parametrize("changes", [{"ttl_seconds": 5.0}, {"fetch_time": NOW}])
def test_a_new_life_has_its_deadline_computed_anew(changes: dict[str, Any]) -> None:
    entry = CacheEntry(expires_at=NOW)
    assert entry.evolve(**changes).expires_at is None
    assert entry.evolve(**changes, expires_at=NOW).expires_at == NOW


@pytest.mark.parametrize("seconds", [None, 5.0])
def test_a_renewed_entry_begins_a_new_life_and_keeps_its_health(seconds: float | None) -> None:
    times = {"fetch_time": NOW, "expires_at": NOW, "created_at": NOW, "ttl_seconds": 9.0}
    health = {"health_status": HealthStatus.UNHEALTHY, "failure_count": 2}
    entry = CacheEntry(key="k", source="web", version=9, _usage=Usage(5, 1.0), **times, **health)  # type: ignore[arg-type]  # dicts of several types
    renewed = entry.renewed(seconds)
    assert (renewed.fetch_time, renewed.expires_at, renewed.version) == (None, None, 0)
    assert (renewed.ttl_seconds, renewed.access_count) == (seconds, 0)
    assert (renewed.key, renewed.source, renewed.created_at) == ("k", "web", NOW)
    assert (renewed.health_status, renewed.failure_count) == (HealthStatus.UNHEALTHY, 2)
    later = NOW + timedelta(days=1)
    deadline = later + timedelta(seconds=seconds or 60.0)
    assert TTLManager(60.0).stamp(renewed, later.timestamp()).expires_at == deadline


def test_a_copy_with_a_field_that_there_is_not_is_refused() -> None:
    with pytest.raises(TypeError):
        CacheEntry().evolve(colour="red")


@pytest.mark.parametrize(
    "refused",
    [
        lambda entry: entry.evolve(proxy_url="http://ada:lovelace@h:99999"),
        lambda entry: entry.evolve(proxy_url="none", password="lovelace"),
        lambda entry: entry.evolve(pasword="lovelace"),
        lambda _: ProxyEntry.from_url("http://h:80", pasword="lovelace"),
        lambda _: ApiKey(key="k", service="s", token=SecretStr("t")).evolve(tokn="lovelace"),
    ],
)
def test_a_change_that_is_refused_leaves_no_secret_in_what_can_be_told_of_the_error(refused: Any) -> None:
    with pytest.raises((CacheValidationError, TypeError)) as caught:
        refused(ProxyEntry.from_url("http://h:80"))
    assert "lovelace" not in told(caught.value)


def test_entries_are_equal_by_class_and_fields_and_not_by_usage() -> None:
    entry = ApiKey(key="k", service="s", token=SecretStr("t"))
    same = ApiKey(key="k", service="s", token=SecretStr("t"), _usage=Usage(5))
    assert entry == same
    assert not entry != same  # noqa: SIM202 - it is a method of its own
    assert hash(entry) == hash(same)
    assert entry != msgspec.structs.replace(entry, token=SecretStr("u"))
    assert entry != msgspec.structs.replace(entry, version=1)
    assert CacheEntry(key="k") != ValueEntry(key="k")
    assert CacheEntry(key="k") != "k"


@pytest.mark.req("US1-6")
def test_a_repr_shows_what_is_set_and_masks_secrets() -> None:
    entry = ApiKey(key="k", service="s", token=SecretStr("canary-0451"))
    text = "service='s', token=SecretStr('**********')"
    assert repr(entry) == str(entry) == f"ApiKey({SHOWN}{text})".replace("key=''", "key='k'")


SHOWN = "key='', source='unknown', health_status=<HealthStatus.UNKNOWN: 'unknown'>, failure_count=0, version=0, "


@pytest.mark.req("US1-6")
@pytest.mark.parametrize(
    "entry",
    [
        ApiKey(service="s", token="canary-0451"),  # type: ignore[arg-type]  # a mistake that users make
        ApiKey(service="s", token=SecretStr("t"), spare="canary-0451"),  # type: ignore[arg-type]  # likewise
        ApiKey(service="s", token=b"canary-0451"),  # type: ignore[arg-type]  # likewise
        ProxyEntry(proxy_url="http://a:1", password="canary-0451"),  # type: ignore[arg-type]  # likewise
        ProxyEntry(proxy_url="http://canary-0451:canary-0451@a:1"),
    ],
)
def test_a_repr_masks_a_secret_that_was_given_in_the_clear(entry: CacheEntry) -> None:
    assert "canary" not in repr(entry)
    assert "SecretStr('**********')" in repr(entry)


# -- proxies -----------------------------------------------------------------------------------------------------------


def test_credentials_are_taken_out_of_the_url() -> None:
    entry = ProxyEntry.from_url("HTTP://us%40er:p%3Aw@Host.Example:8080/", source="paid", ttl_seconds=9.0)
    assert entry.proxy_url == "http://host.example:8080"
    assert entry.username == SecretStr("us@er")
    assert entry.password == SecretStr("p:w")
    assert (entry.source, entry.ttl_seconds) == ("paid", 9.0)


def test_credentials_that_are_given_beside_the_url_come_first() -> None:
    entry = ProxyEntry(proxy_url="http://a:b@h:1", username=SecretStr("x"))
    assert (entry.username, entry.password) == (SecretStr("x"), SecretStr("b"))


def test_plain_credentials_are_masked_at_once() -> None:
    entry = ProxyEntry(proxy_url="http://h:1", username="u", password="p")  # type: ignore[arg-type]  # a mistake that users make
    assert (entry.username, entry.password) == (SecretStr("u"), SecretStr("p"))
    assert entry.key == ProxyEntry.key_for("http://h:1", "u")


@pytest.mark.parametrize("url", [None, 5, b"http://h:1", "", "h:1", "http://", "http://h:0", "http://h:70000"])
def test_what_is_no_proxy_url_is_refused(url: Any) -> None:
    with pytest.raises(CacheValidationError, match="proxy_url"):
        ProxyEntry(proxy_url=url)


@pytest.mark.req("US1-5")
def test_a_key_is_stable_between_releases() -> None:
    assert ProxyEntry.key_for("http://192.0.2.1:8080") == "939144b9e74fa09b094015ceaf7d816c"
    assert ProxyEntry.key_for("http://192.0.2.1:8080", "ada") == "c89a358add8aa7fd1616990f7b22e65a"


@pytest.mark.req("US1-5")
@pytest.mark.parametrize(
    "url", ["HTTP://Host.Example:80", "http://host.example", "http://host.example/", "http://host.example.:80/"]
)
def test_spellings_of_one_url_give_one_key(url: str) -> None:
    assert ProxyEntry.key_for(url) == ProxyEntry.key_for("http://host.example:80")
    assert ProxyEntry(proxy_url=url).key == ProxyEntry.key_for(url)


@pytest.mark.req("US1-5")
def test_a_key_tells_users_of_one_gateway_apart_and_ignores_the_password() -> None:
    url = "http://gateway.example:8000"
    keys = {ProxyEntry.key_for(url), ProxyEntry.key_for(url, "a"), ProxyEntry.key_for(url, "b")}
    assert len(keys) == 3
    assert ProxyEntry.key_for("http://a:one@gateway.example:8000") == ProxyEntry.key_for(url, "a")
    assert ProxyEntry.key_for("http://a:one@h:1") == ProxyEntry.key_for("http://a:two@h:1")
    assert ProxyEntry.key_for("http://b@h:1", "a") == ProxyEntry.key_for("http://a@h:1")


@pytest.mark.req("US1-5")
@given(st.text(st.characters(exclude_characters="\0"), min_size=1))
def test_any_user_name_gives_a_key_of_32_hex_digits(username: str) -> None:
    key = ProxyEntry.key_for("http://h:1", username)
    assert re.fullmatch("[0-9a-f]{32}", key)
    assert ProxyEntry(proxy_url="http://h:1", username=SecretStr(username)).key == key


def test_a_key_that_is_given_is_kept() -> None:
    assert ProxyEntry(proxy_url="http://h:1", key="mine").key == "mine"


# -- values ------------------------------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(values)
def test_a_value_comes_back_equal(value: object) -> None:
    assert ValueEntry.from_value("k", value).value == value


def test_nobody_can_change_a_value_that_is_held() -> None:
    given = {"names": ["Ada"]}
    entry = ValueEntry.from_value("k", given, source="web")
    given["names"].append("Bob")
    entry.value["names"].append("Eve")
    assert entry.value == {"names": ["Ada"]}
    assert entry.source == "web"


def test_without_a_value_there_is_none() -> None:
    assert ValueEntry(key="k").value is None


DEEP = b"\x91" * 100_000 + b"\xc0"


@pytest.mark.parametrize("encoded", [b"", b"\xc1", b"\xa1\xff", b"\xc0\xc0", b"\x81\x80\xc0", DEEP, None, "text"])
def test_what_cannot_be_decoded_is_an_error_of_ours_that_names_the_key(encoded: Any) -> None:
    entry = ValueEntry(key="the-key", encoded=encoded)
    with pytest.raises(CacheValidationError, match="the value of 'the-key' cannot be decoded"):
        _ = entry.value


def _endless() -> list[object]:
    loop: list[object] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize("value", [object(), 2**70, "\ud800", _endless(), {"a": [object()]}])
def test_a_value_that_cannot_be_encoded_is_refused(value: object) -> None:
    with pytest.raises(CacheValidationError, match="the value for 'k' cannot be stored"):
        ValueEntry.from_value("k", value)
