"""Records of keys that are not held: told when a cache opens, left as they are, and never a reason not to open."""

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from tests.core.engine.support import World, tier

from tierkit import EncryptionKeyError, ProxyEntry, Row, TierUnavailable
from tierkit.keys import parse_keys

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))
OLD_ID, NEW_ID = (parse_keys(key).primary.id for key in (OLD, NEW))


def proxy(number: int) -> ProxyEntry:
    return ProxyEntry.from_url(f"http://ada:lovelace@192.0.2.{number}:80")


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("TIERKIT_ENCRYPTION_KEY", "PROXYWHIRL_CACHE_ENCRYPTION_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path / "tierkit" / "encryption.key"


def opened(world: World, key: str | None, *levels: Any, **settings: Any) -> Any:
    given = {} if key is None else {"encryption_key": SecretStr(key)}
    return world.reopen(*(levels or ("disk",)), entry_type=ProxyEntry, **given, **settings)


def row_of(cache: Any, number: int) -> Row:
    row = tier(cache, "L1").tier.get(proxy(number).key)
    assert isinstance(row, Row)
    return row


def token_of(cache: Any, number: int) -> bytes:
    token = row_of(cache, number).columns["password_encrypted"]
    assert isinstance(token, bytes)
    return token


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.req("E-3")
def test_a_wrong_key_is_told_at_once_with_how_many_of_the_first_records_need_which(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    opened(world, OLD).put_many(proxy(number) for number in range(1, 4))
    opened(world, NEW).put(proxy(9))
    caplog.clear()
    cache = opened(world, NEW)
    (told,) = warnings(caplog)
    assert (
        f"L1: of the first 4 records 3 were sealed with keys that are not held: {OLD_ID} (3) (held: {NEW_ID})" in told
    )
    assert "left as they are, but a put of the same key replaces one" in told
    assert [entry.key for entry in cache.scan()] == [proxy(9).key]
    assert len(list(opened(world, f"{NEW},{OLD}").scan())) == 4


def test_no_more_than_the_first_hundred_are_looked_at(world: World, caplog: pytest.LogCaptureFixture) -> None:
    opened(world, OLD).put_many(proxy(number) for number in range(1, 121))
    opened(world, NEW)
    assert "of the first 100 records 100 " in warnings(caplog)[-1]


def test_a_secret_of_an_old_key_below_a_check_of_the_new_one_is_told_too(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    opened(world, OLD).put(proxy(1))
    opened(world, f"{NEW},{OLD}").invalidate_by_health(proxy(1).key)
    caplog.clear()
    opened(world, NEW)
    assert f"of the first 1 records 1 were sealed with keys that are not held: {OLD_ID} (1)" in warnings(caplog)[0]


@pytest.mark.parametrize("key", [NEW, f"{NEW},{OLD}"], ids=["one", "two"])
def test_nothing_is_told_where_every_key_is_held(world: World, caplog: pytest.LogCaptureFixture, key: str) -> None:
    opened(world, NEW).put(proxy(1))
    opened(world, key)
    assert warnings(caplog) == []


def test_who_reads_without_a_key_is_told_so(world: World, caplog: pytest.LogCaptureFixture) -> None:
    opened(world, OLD).put(proxy(1))
    assert opened(world, None, read_only=True).get(proxy(1).key) is None
    assert "(held: none)" in warnings(caplog)[0]


def test_damaged_records_among_the_first_keep_nothing_from_opening(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    cache = opened(world, OLD)
    cache.put_many(proxy(number) for number in range(1, 4))
    row = row_of(cache, 1)
    disk = tier(cache, "L1").tier
    disk.discard(row)
    disk.put(msgspec.structs.replace(row, check="k1.nonsense", columns={"password_encrypted": "no bytes"}))
    caplog.clear()
    assert len(list(opened(world, NEW).scan())) == 0
    assert "of the first 3 records 2 " in warnings(caplog)[0]


def test_a_level_that_cannot_be_scanned_keeps_nothing_from_opening(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    opened(world, OLD).put(proxy(1))
    world.before_opening["L1"] = lambda made: made.fail("scan", error=TierUnavailable("away"), times=1)
    assert opened(world, OLD).get(proxy(1).key) is not None
    assert any("L1 could not be read: away" in line for line in warnings(caplog))


def test_with_a_wrong_key_nothing_is_lost_but_what_is_put_anew(world: World) -> None:
    cache = opened(world, OLD)
    cache.put_many(proxy(number) for number in (1, 2))
    wrong = opened(world, NEW)
    assert wrong.get(proxy(1).key) is None
    assert wrong.sweep() == 0
    wrong.put(proxy(2))
    assert len(list(opened(world, f"{OLD},{NEW}").scan())) == 2


@pytest.mark.req("E-3")
def test_no_key_is_generated_while_a_level_that_may_hold_secrets_cannot_be_looked_at(
    world: World, no_keys: Path
) -> None:
    def fails(_: object) -> None:
        raise TierUnavailable("away")

    world.before_opening["L1"] = fails
    with pytest.raises(EncryptionKeyError, match="L1 is out of service and may hold secrets"):
        opened(world, None, "disk", "disk")
    assert not no_keys.exists()


def test_the_setting_cipher_says_what_new_secrets_are_sealed_with(world: World) -> None:
    cache = opened(world, OLD, cipher="fernet")
    cache.put(proxy(1))
    assert token_of(cache, 1).startswith(b"f1.")
    cache = opened(world, OLD)
    cache.put(proxy(2))
    assert token_of(cache, 2).startswith(b"s1.")
    assert {entry.password.get_secret_value() for entry in cache.scan()} == {"lovelace"}
