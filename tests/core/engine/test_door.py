"""What a cache takes, and what it refuses at the door with nothing written."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from tests.core.engine.support import Note, World, note

from tierkit import CacheEntry, CacheManager, CacheValidationError, HealthStatus, ProxyEntry, ValueEntry
from tierkit.testing import FakeClock

KEY = SecretStr(Fernet.generate_key().decode())
THREE = ("live", "disk", "disk")
BAD_KEYS: list[Any] = ["", 1, None, b"a", ("a",), [], {}, "\ud800", "a\udfff", "k" * 4097, 1.5, True]


class Place(msgspec.Struct, frozen=True):
    city: str
    floor: int = 0


class ApiKey(CacheEntry):
    service: str
    token: SecretStr
    quota: int = 0
    tags: tuple[str, ...] = ()
    place: Place | None = None
    data: bytes = b""
    seen: datetime | None = None


@pytest.mark.req("US1-1")
@pytest.mark.req("US1-3")
@pytest.mark.parametrize("levels", [("live",), ("disk",), THREE])
def test_a_users_own_entry_with_a_secret_comes_back_equal(world: World, levels: tuple[str, ...]) -> None:
    cache = world.open(*levels, entry_type=ApiKey, encryption_key=KEY)
    put = cache.put(
        ApiKey(
            key="k",
            service="maps",
            token=SecretStr("canary-0451"),
            tags=("a", "b"),
            place=Place("Oslo", 3),
            data=b"\0\xff",
            seen=datetime(2023, 1, 1, tzinfo=UTC),
            health_status=HealthStatus.HEALTHY,
        )
    )
    assert cache.get("k") == put
    if levels != ("live",):
        cache = world.reopen(*levels, entry_type=ApiKey, encryption_key=KEY)
        found = cache.get("k")
        assert found == put
        assert found is not None
        assert found.token.get_secret_value() == "canary-0451"
        assert found.is_healthy
    assert not any(b"canary-0451" in blob for disk in world.disks.values() for blob in disk.values())


def test_a_value_comes_back_as_a_fresh_copy(world: World) -> None:
    cache = world.open("live", "disk", entry_type=ValueEntry)
    value = {"name": "Ada", "list": [1, 2.5, None, True, b"x"]}
    cache.put(ValueEntry.from_value("k", value))
    for _ in range(2):
        entry = cache.get("k")
        assert entry is not None
        assert entry.value == value
        entry.value["list"].append("changed")
        cache = world.reopen("live", "disk", entry_type=ValueEntry)


@pytest.mark.req("US1-5")
def test_the_key_of_a_proxy_is_a_stable_hash_of_bare_url_and_user() -> None:
    url = "http://user:secret@Example.org:8080"
    assert CacheManager.generate_cache_key(url) == ProxyEntry.from_url(url).key
    assert CacheManager.generate_cache_key("http://example.org:8080", "user") == ProxyEntry.key_for(url)


@pytest.mark.parametrize("keys", ["abc", b"abc", 5, None], ids=repr)
def test_what_holds_no_keys_is_refused_by_whatever_takes_several(world: World, keys: Any) -> None:
    cache = world.open(*THREE)
    cache.put(note("a"))
    for call in (cache.get_many, cache.delete_many):
        with pytest.raises(CacheValidationError, match=rf"several keys, such as \[key\], not {type(keys).__name__}"):
            call(keys)
    assert cache.get("a") is not None


@pytest.mark.parametrize("key", BAD_KEYS, ids=repr)
def test_what_cannot_be_a_key_is_refused_everywhere(world: World, key: Any) -> None:
    cache = world.open(*THREE)
    for call in (cache.get, cache.get_with_level, cache.delete, cache.invalidate_by_health):
        with pytest.raises(CacheValidationError, match="key"):
            call(key)
    with pytest.raises(CacheValidationError, match="key"):
        cache.get_many([key])
    with pytest.raises(CacheValidationError, match="key"):
        cache.put(note(key))
    assert not any(world.disks.values())


@pytest.mark.parametrize("levels", [("live",), THREE])
@pytest.mark.parametrize(
    "fields",
    [
        {"ttl_seconds": 0},
        {"ttl_seconds": -1},
        {"ttl_seconds": float("nan")},
        {"ttl_seconds": float("inf")},
        {"ttl_seconds": "60"},
        {"ttl_seconds": True},
        {"ttl_seconds": 1e12},
        {"fetch_time": datetime(2023, 1, 1)},  # noqa: DTZ001 - it is what is refused
        {"expires_at": datetime(2023, 1, 1)},  # noqa: DTZ001 - likewise
        {"created_at": "yesterday"},
        {"expires_at": 1.5},
        {"text": 1},
        {"text": None},
        {"text": "\ud800"},
        {"source": None},
        {"health_status": "fine"},
        {"failure_count": 2**63},
        {"failure_count": "1"},
    ],
    ids=lambda fields: str(fields)[:40],
)
def test_an_entry_that_cannot_be_stored_is_refused_with_nothing_written(
    world: World, levels: tuple[str, ...], fields: dict[str, Any]
) -> None:
    cache = world.open(*levels)
    before = cache.put(note("a", "x"))
    with pytest.raises(CacheValidationError) as caught:
        cache.put(note("a", **{"text": "y", **fields}))
    assert next(iter(fields)) in str(caught.value)
    assert cache.get("a") == before
    assert cache.levels[0].in_service


def test_a_record_too_large_for_a_line_of_a_file_is_refused(world: World) -> None:
    cache = world.open("live")
    with pytest.raises(CacheValidationError, match="1000014 characters"):
        cache.put(note("a", "x" * 1_000_000))
    assert cache.size() == 0


class Narrower(Note):
    more: int = 0


@pytest.mark.parametrize(
    "entry",
    [None, "a", {"key": "a"}, ValueEntry.from_value("a", 1), Narrower(key="a", more=1), CacheEntry(key="a")],
    ids=lambda entry: type(entry).__name__,
)
def test_an_entry_of_another_type_is_refused(world: World, entry: Any) -> None:
    cache = world.open(*THREE)
    with pytest.raises(CacheValidationError, match="this cache holds Note"):
        cache.put(entry)
    with pytest.raises(CacheValidationError, match="this cache holds Note"):
        cache.put_many([entry])
    assert not any(world.disks.values())


class Listing(CacheEntry):
    items: list[int] = []  # noqa: RUF012 - it is what is refused


class Thawed(CacheEntry, frozen=False):  # type: ignore[misc]  # it is what is refused
    text: str = ""


@pytest.mark.parametrize("entry_type", [Listing, Thawed, int, "Note"])
def test_a_type_that_cannot_be_stored_is_refused_when_the_cache_is_opened(world: World, entry_type: Any) -> None:
    with pytest.raises(CacheValidationError):
        world.open("live", entry_type=entry_type)


@pytest.mark.req("F-2")
@pytest.mark.req("F-1")
def test_an_entry_whose_deadline_has_passed_is_refused_and_can_be_renewed(world: World, clock: FakeClock) -> None:
    cache = world.open(*THREE)
    past = datetime.fromtimestamp(clock.wall(), UTC) - timedelta(hours=1)
    old = note("a", fetch_time=past, ttl_seconds=60)
    with pytest.raises(CacheValidationError, match=r"has passed; put entry\.renewed"):
        cache.put(old)
    assert cache.size() == 0
    assert cache.put(old.renewed()) == cache.get("a")


def test_a_secret_is_in_no_error_of_the_door(world: World) -> None:
    cache = world.open("disk", entry_type=ApiKey, encryption_key=KEY)
    bad: Any = "canary-0451"
    for token in (bad, SecretStr("canary-0451\ud800")):
        with pytest.raises(CacheValidationError) as caught:
            cache.put(ApiKey(key="k", service="s", token=token))
        assert "canary" not in str(caught.value)


@pytest.mark.req("US1-6")
def test_operations_log_without_key_or_credential(world: World, caplog: pytest.LogCaptureFixture) -> None:
    cache = world.open(("live", 1), "disk", entry_type=ProxyEntry, encryption_key=KEY)
    with caplog.at_level("DEBUG"):
        for host in ("192.0.2.1", "192.0.2.2"):
            put = cache.put(ProxyEntry.from_url(f"http://canaryuser:canary-0451@{host}:80"))
            cache.get(put.key)
            cache.delete(put.key)
    assert any(record.message.startswith("put ") for record in caplog.records)
    assert any(record.message.startswith("delete ") for record in caplog.records)
    assert "canary" not in caplog.text
