"""Imports of secrets that another tool encrypted: opened where that is accepted, and never left out in silence."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from tests.core.warming_support import Shelf, reasons

from tierkit import CacheConfig, CacheEntry, CacheManager, ProxyEntry
from tierkit.keys import parse_keys

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))
RING = parse_keys(f"{NEW},{OLD}", accept=("fernet",))
URL = "http://192.0.2.1:8080"


class ApiKey(CacheEntry):
    token: SecretStr


def sealed(text: str, key: str = OLD) -> str:
    """A token as another tool makes it."""
    return Fernet(key).encrypt(text.encode()).decode()


def written(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "export.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.req("F-7")
def test_an_export_of_another_tool_is_opened_and_sealed_anew_as_the_records_own(tmp_path: Path) -> None:
    row = {"proxy_url": URL, "username_encrypted": sealed("ada"), "password_encrypted": sealed("lovelace", NEW)}
    config = CacheConfig(
        tiers=[{"backend": "jsonl", "path": str(tmp_path / "data")}],
        encryption_key=SecretStr(f"{NEW},{OLD}"),
        accept=["fernet"],
    )
    with CacheManager(config) as cache:
        assert cache.warm_from_file(written(tmp_path, row)).loaded == 1
        entry = cache.get(ProxyEntry.key_for(URL, "ada"))
        assert entry is not None
        assert (entry.username, entry.password) == (SecretStr("ada"), SecretStr("lovelace"))
        stored = b"".join(file.read_bytes() for file in (tmp_path / "data").rglob("*.jsonl"))
    assert f"s1.{RING.primary.id}.".encode() in stored
    assert row["password_encrypted"].encode() not in stored


def test_a_cache_in_memory_alone_accepts_them_too(tmp_path: Path) -> None:
    row = {"proxy_url": URL, "password_encrypted": sealed("lovelace", NEW)}
    config = CacheConfig(tiers=[{"backend": "memory"}], encryption_key=SecretStr(NEW), accept=["fernet"])
    with CacheManager(config) as cache:
        assert cache.warm_from_file(written(tmp_path, row)).loaded == 1
        (entry,) = cache.scan()
        assert entry.password == SecretStr("lovelace")


def test_without_the_setting_such_a_row_is_refused_with_its_name(tmp_path: Path) -> None:
    row = {"proxy_url": URL, "password_encrypted": sealed("lovelace", NEW)}
    config = CacheConfig(tiers=[{"backend": "memory"}], encryption_key=SecretStr(NEW))
    with CacheManager(config) as cache:
        result = cache.warm_from_file(written(tmp_path, row))
    assert [reason for _, reason in reasons(result)] == [
        'password is encrypted: accept = ["fernet"] in the configuration opens plain Fernet tokens'
    ]


@pytest.mark.parametrize("options", [{}, {"open_plain": RING.open_plain}], ids=["refusing", "accepting"])
def test_rows_without_a_value_in_such_a_column_are_taken_either_way(tmp_path: Path, options: dict[str, Any]) -> None:
    rows = [
        {"proxy_url": URL, "username_encrypted": None},
        {"proxy_url": "http://192.0.2.2:8080", "password_encrypted": None},
    ]
    result = Shelf().warm(written(tmp_path, *rows), **options)
    assert (result.loaded, result.left_out, result.rejects) == (2, (), ())


@pytest.mark.parametrize(
    "value", [sealed("x", OTHER), sealed("x")[:-6], "plain text", "s1.0123abcd.AAAA", "", 5, " \n"], ids=range(7)
)
def test_what_no_key_opens_is_refused_without_showing_it(tmp_path: Path, value: Any) -> None:
    shelf = Shelf()
    path = written(tmp_path, {"key": "k", "token_encrypted": value})
    (reject,) = shelf.warm(path, ApiKey, open_plain=RING.open_plain).rejects
    assert "token" in reject.reason
    assert not isinstance(value, str) or not value.strip() or value not in reject.reason
    assert shelf.entries == []


def test_a_secret_that_the_class_requires_may_come_encrypted(tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.warm(
        written(tmp_path, {"key": "k", "Token Encrypted": f" {sealed('t')} "}), ApiKey, open_plain=RING.open_plain
    )
    assert [entry.token for entry in shelf.entries] == [SecretStr("t")]


def test_what_was_encrypted_is_held_to_what_a_plain_value_is(tmp_path: Path) -> None:
    path = written(tmp_path, {"proxy_url": URL, "password_encrypted": sealed("two\nlines")})
    assert reasons(Shelf().warm(path, open_plain=RING.open_plain)) == [
        (1, "password holds the control character U+000A")
    ]


def test_a_secret_in_two_columns_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {"proxy_url": URL, "password": "a", "password_encrypted": sealed("b")})
    assert reasons(Shelf().warm(path, open_plain=RING.open_plain)) == [(1, "has two columns for password")]
