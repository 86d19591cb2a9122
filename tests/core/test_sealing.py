"""Sealing: what a row hides, what it is bound to, and what is refused."""

import base64
import copy
import json
import os
import pickle
import string
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar

import msgspec
import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from tests.telling import told

from tierkit import (
    CacheCorruptionError,
    CacheEntry,
    CacheValidationError,
    EncryptionKeyError,
    HealthStatus,
    KeyNotHeldError,
    ProxyEntry,
    Row,
    SchemaMismatchError,
    SealingError,
    TamperedError,
    Usage,
    ValueEntry,
    pack_row,
    unpack_row,
)
from tierkit.keys import KeyRing, parse_keys
from tierkit.schema import schema_of
from tierkit.sealing import CredentialEncryptor, Sealer, needs_key

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))
RING = parse_keys(NEW)
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TOKEN_ALPHABET = string.ascii_letters + string.digits + "-_.=+/ "


class Tone(StrEnum):
    LOW = "low"
    HIGH = "high"


class Session(CacheEntry):
    """A type with every kind of column; it is bound to a number and to a text that may be None."""

    __bind__: ClassVar[tuple[str, ...]] = ("port", "realm", "weight")

    token: SecretStr
    port: int
    realm: str | None = None
    weight: float = 1.0
    spare: SecretStr | None = None
    flag: bool = False
    blob: bytes = b""
    seen: datetime | None = None
    tone: Tone = Tone.LOW
    tags: tuple[str, ...] = ()


def stamped(entry: CacheEntry, version: int = 7) -> Any:
    return msgspec.structs.replace(
        entry,
        version=version,
        fetch_time=NOW,
        ttl_seconds=3600.0,
        expires_at=NOW + timedelta(hours=1),
        created_at=NOW,
        updated_at=NOW,
    )


def proxy(url: str = "http://ada:lovelace@192.0.2.1:8080", **fields: Any) -> Any:
    return stamped(ProxyEntry.from_url(url, **fields))


def with_columns(row: Row, **columns: Any) -> Row:
    return msgspec.structs.replace(row, columns={**row.columns, **columns})


def rechecked(sealer: Sealer, row: Row) -> Row:
    """What a writer who held the check key could make: only the binding of the secrets stands in the way."""
    return sealer.restamp(row, row.version)


PROXIES = Sealer(schema_of(ProxyEntry), RING)
SESSIONS = Sealer(schema_of(Session), RING)
VALUES = Sealer(schema_of(ValueEntry), None)


# -- the encryptor -----------------------------------------------------------------------------------------------------


@pytest.mark.req("F-7")
@pytest.mark.parametrize("secret", ["pass word", "", "påß😀", "x" * 10_000, "\0", "s1.0123abcd.AAAA"])
def test_a_secret_comes_back_from_its_token(secret: str) -> None:
    encryptor = CredentialEncryptor(SecretStr(NEW))
    token = encryptor.encrypt(SecretStr(secret))
    assert type(token) is bytes
    assert token.startswith(b"s1.%b." % RING.primary.id.encode())
    assert encryptor.decrypt(token) == SecretStr(secret)


@pytest.mark.req("F-7")
@given(st.text())
def test_any_text_that_can_be_encoded_comes_back(secret: str) -> None:
    encryptor = CredentialEncryptor(RING)
    assert encryptor.decrypt(encryptor.encrypt(SecretStr(secret))).get_secret_value() == secret


@pytest.mark.req("F-7")
@pytest.mark.parametrize("variable", ["TIERKIT_ENCRYPTION_KEY", "PROXYWHIRL_CACHE_ENCRYPTION_KEY"])
def test_the_key_comes_from_the_environment(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIERKIT_ENCRYPTION_KEY", raising=False)
    monkeypatch.delenv("PROXYWHIRL_CACHE_ENCRYPTION_KEY", raising=False)
    monkeypatch.setenv(variable, f"{NEW},{OLD}")
    token = CredentialEncryptor(SecretStr(OLD)).encrypt(SecretStr("a"))
    assert CredentialEncryptor().decrypt(token) == SecretStr("a")


@pytest.mark.req("F-7")
def test_without_any_key_each_encryptor_has_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIERKIT_ENCRYPTION_KEY", raising=False)
    monkeypatch.delenv("PROXYWHIRL_CACHE_ENCRYPTION_KEY", raising=False)
    first, second = CredentialEncryptor(), CredentialEncryptor()
    token = first.encrypt(SecretStr("a"))
    assert first.decrypt(token) == SecretStr("a")
    with pytest.raises(KeyNotHeldError):
        second.decrypt(token)


@pytest.mark.req("F-7")
@pytest.mark.parametrize("token", [b"", b"plain", "s1.text", None, 5, b"s1..", b"s1.zzzzzzzz.AAAA", b"\xff" * 60])
def test_what_is_no_token_is_a_value_error(token: Any) -> None:
    with pytest.raises(ValueError, match="not a sealed secret") as caught:
        CredentialEncryptor(RING).decrypt(token)
    assert type(caught.value) is TamperedError


@pytest.mark.req("F-7")
@pytest.mark.parametrize("body", ["A", "AA", "AAA", "A" * 15, "A" * 16, "A" * 40, "A" * 41])
def test_a_short_or_broken_body_is_tampered(body: str) -> None:
    with pytest.raises(TamperedError, match="was changed"):
        CredentialEncryptor(RING).decrypt(f"s1.{RING.primary.id}.{body}".encode())


@pytest.mark.req("F-7")
@pytest.mark.parametrize("secret", ["canary-0451", b"canary-0451", None, SecretStr("canary-0451\ud800")])
def test_what_cannot_be_encrypted_is_refused_without_showing_it(secret: Any) -> None:
    with pytest.raises(SealingError, match="what is encrypted") as caught:
        CredentialEncryptor(RING).encrypt(secret)
    assert "canary-0451" not in told(caught.value)


@pytest.mark.req("F-7")
@pytest.mark.parametrize("secret", ["", "a", "ab", "abc"])
def test_every_edit_of_one_character_of_a_token_is_refused(secret: str) -> None:
    encryptor = CredentialEncryptor(RING)
    token = encryptor.encrypt(SecretStr(secret)).decode()
    for place, found in enumerate(token):
        for put in set(TOKEN_ALPHABET) - {found}:
            with pytest.raises(SealingError):
                encryptor.decrypt((token[:place] + put + token[place + 1 :]).encode())


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t + b"A", lambda t: t + b"=", lambda t: b" " + t])
def test_a_token_that_is_cut_or_longer_is_refused(change: Callable[[bytes], bytes]) -> None:
    encryptor = CredentialEncryptor(RING)
    with pytest.raises(TamperedError):
        encryptor.decrypt(change(encryptor.encrypt(SecretStr("abcd"))))


def test_one_secret_gives_a_new_token_each_time() -> None:
    encryptor = CredentialEncryptor(RING)
    assert encryptor.encrypt(SecretStr("a")) != encryptor.encrypt(SecretStr("a"))


def test_text_that_another_program_sealed_in_no_encoding_is_refused_without_showing_it() -> None:
    token = _sealed_by_hand(RING, ["", 1, RING.primary.id, "", "", []], b"\1canary-0451\xff")
    with pytest.raises(TamperedError) as caught:
        CredentialEncryptor(RING).decrypt(token)
    assert "canary-0451" not in told(caught.value)


# -- the format, made by hand ------------------------------------------------------------------------------------------


def _sealed_by_hand(ring: KeyRing, bound_to: list[Any], plaintext: bytes) -> bytes:
    """A token as the documented format says, made without the library's own code for it."""
    nonce = os.urandom(12)
    body = nonce + ring.primary.cipher.encrypt(nonce, plaintext, msgspec.msgpack.encode(bound_to))
    return f"s1.{ring.primary.id}.".encode() + base64.urlsafe_b64encode(body).rstrip(b"=")


def test_a_token_made_as_the_document_says_opens() -> None:
    row = PROXIES.seal(proxy())
    bound_to = ["proxy_entry", 1, RING.primary.id, row.key, "password", [["proxy_url", "http://192.0.2.1:8080"]]]
    by_hand = with_columns(row, password_encrypted=_sealed_by_hand(RING, bound_to, b"\1swordfish"))
    opened = PROXIES.open(rechecked(PROXIES, by_hand))
    assert isinstance(opened, ProxyEntry)
    assert opened.password == SecretStr("swordfish")


def test_a_check_made_as_the_document_says_fits() -> None:
    row = PROXIES.seal(proxy())
    whole = {name: int(v) if isinstance(v, float) and v.is_integer() else v for name, v in row.columns.items()}
    columns = {name: whole[name] for name in sorted(whole)}
    digest = RING.primary.hasher.copy()
    digest.update(msgspec.msgpack.encode(["proxy_entry", 1, row.key, row.version, row.purge_at, columns]))
    assert row.check == f"k1.{RING.primary.id}.{digest.hexdigest()}"


# -- rows --------------------------------------------------------------------------------------------------------------


@pytest.mark.req("US1-6")
def test_a_row_holds_no_secret_in_the_clear() -> None:
    row = PROXIES.seal(proxy("http://user-canary:pass-canary@192.0.2.1:8080"))
    assert set(row.columns) >= {"username_encrypted", "password_encrypted"}
    for text in (repr(row), repr(pack_row(row)), PROXIES.open(row)):
        assert "canary" not in str(text)


def test_an_opened_row_is_the_entry_that_was_sealed() -> None:
    entry = proxy(source="paid", failure_count=2, health_status=HealthStatus.UNHEALTHY)
    row = PROXIES.seal(entry)
    assert PROXIES.open(row) == entry
    assert (row.key, row.version, row.purge_at) == (entry.key, 7, entry.expires_at.timestamp())


def test_usage_travels_beside_the_record() -> None:
    entry = msgspec.structs.replace(proxy(), _usage=Usage(5, 1_700_000_000.5))
    row = PROXIES.seal(entry)
    assert (row.access_count, row.last_accessed) == (5, 1_700_000_000.5)
    touched = msgspec.structs.replace(row, access_count=9, last_accessed=1_700_000_009.0)
    opened = PROXIES.open(touched)
    assert (opened.access_count, opened._usage.flushed, opened._usage.hits) == (9, 9, 0)
    assert opened.last_accessed == datetime.fromtimestamp(1_700_000_009, UTC)


@pytest.mark.parametrize("fields", [{}, {"username": SecretStr("")}, {"password": SecretStr("")}])
def test_absent_and_empty_secrets_stay_what_they_are(fields: dict[str, Any]) -> None:
    entry = proxy("http://192.0.2.1:8080", **fields)
    opened = PROXIES.open(PROXIES.seal(entry))
    assert opened == entry
    assert {name for name in PROXIES.seal(entry).columns if "encrypted" in name} == {f"{n}_encrypted" for n in fields}


reals = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**53), 2**53))
#: Seconds in a double are exact to the microsecond until 2242.
moments = st.integers(-(10**15), 8 * 10**15).map(
    lambda count: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(0, 0, count)
)


@st.composite
def sessions(draw: st.DrawFn) -> Any:
    secrets = st.text().map(SecretStr)
    return stamped(
        Session(
            key=draw(st.text(min_size=1)),
            source=draw(st.text()),
            token=draw(secrets),
            port=draw(st.integers(-(2**63), 2**63 - 1)),
            realm=draw(st.none() | st.text()),
            weight=draw(reals),
            spare=draw(st.none() | secrets),
            flag=draw(st.booleans()),
            blob=draw(st.binary()),
            seen=draw(st.none() | moments),
            tone=draw(st.sampled_from(Tone)),
            tags=tuple(draw(st.lists(st.text()))),
        ),
        version=draw(st.integers(0, 2**63 - 1)),
    )


def as_a_loose_tier_hands_it_back(row: Row, extra: dict[str, Any]) -> Row:
    """Whole reals as integers, as SQLite does, and columns of None for what is absent."""
    loose = {
        name: int(value) if type(value) is float and value.is_integer() and abs(value) < 2**53 else value
        for name, value in {**extra, **row.columns}.items()
    }
    return msgspec.structs.replace(row, columns={"nothing": None, "realm": None, **loose})


@given(sessions())
def test_any_entry_comes_back_through_a_tier_that_is_loose_with_types(entry: Any) -> None:
    row = SESSIONS.seal(entry)
    opened = SESSIONS.open(as_a_loose_tier_hands_it_back(row, {}))
    assert opened == entry
    assert SESSIONS.open(unpack_row(pack_row(row))) == entry
    assert SESSIONS.verify(as_a_loose_tier_hands_it_back(row, {})) == dict(row.columns)


class Wider(ProxyEntry):
    """Declares a column that `ProxyEntry` does not know."""

    latency: float = 0.0
    city: str = ""


def test_columns_that_this_class_does_not_declare_are_covered_too() -> None:
    wide = stamped(Wider(proxy_url="http://192.0.2.1:80", latency=250.0, city="Oslo"))
    row = Sealer(schema_of(Wider), RING).seal(wide)
    narrow = PROXIES.open(as_a_loose_tier_hands_it_back(row, {}))
    assert type(narrow) is ProxyEntry
    assert PROXIES.verify(row)["city"] == "Oslo"
    for change in ({"city": "Bergen"}, {"latency": 251.0}, {"city": None}, {"more": 1}):
        with pytest.raises(CacheCorruptionError):
            PROXIES.open(with_columns(row, **change))


# -- what is refused ---------------------------------------------------------------------------------------------------


EDITS: dict[str, Any] = {
    "source": "other",
    "fetch_time": 1.0,
    "ttl_seconds": 9e9,
    "expires_at": 9e9,
    "health_status": "healthy",
    "failure_count": 1,
    "created_at": 1.0,
    "updated_at": 1.0,
    "proxy_url": "http://203.0.113.66:8080",
    "username_encrypted": b"root",
    "password_encrypted": b"",
}


def test_there_is_an_edit_for_each_column() -> None:
    assert set(EDITS) == set(PROXIES.seal(proxy()).columns)


@pytest.mark.req("US1-6")
@pytest.mark.parametrize("column", EDITS)
@pytest.mark.parametrize("how", ["changed", "dropped", "of another type"])
def test_an_edit_of_any_column_is_detected(column: str, how: str) -> None:
    value = {"changed": EDITS[column], "dropped": None, "of another type": ["x"]}[how]
    with pytest.raises(CacheCorruptionError, match="is not what was written"):
        PROXIES.open(with_columns(PROXIES.seal(proxy()), **{column: value}))


@pytest.mark.parametrize("change", [{"key": "other"}, {"version": 8}, {"purge_at": 9e9}, {"purge_at": "soon"}])
def test_an_edit_of_key_version_or_deadline_is_detected(change: dict[str, Any]) -> None:
    with pytest.raises(CacheCorruptionError):
        PROXIES.open(msgspec.structs.replace(PROXIES.seal(proxy()), **change))


@pytest.mark.parametrize("sealer", [PROXIES, VALUES], ids=["keyed", "plain"])
def test_every_edit_of_one_character_of_a_check_is_refused(sealer: Sealer) -> None:
    row = sealer.seal(proxy() if sealer is PROXIES else ValueEntry.from_value("k", 1))
    for place, found in enumerate(row.check):
        for put in set(string.ascii_letters + string.digits + ".") - {found}:
            changed = row.check[:place] + put + row.check[place + 1 :]
            with pytest.raises((CacheCorruptionError, KeyNotHeldError)):
                sealer.verify(msgspec.structs.replace(row, check=changed))


@pytest.mark.parametrize("check", ["", "c1.", "k2.", "nonsense", "c1.é", "c1.0000000", None, 5])
def test_a_check_that_cannot_be_read_is_corruption(check: Any) -> None:
    row = VALUES.seal(ValueEntry.from_value("k", 1))
    with pytest.raises(CacheCorruptionError):
        VALUES.verify(msgspec.structs.replace(row, check=check))


@pytest.mark.parametrize(
    "columns",
    [
        {"failure_count": float("inf")},
        {"failure_count": "many"},
        {"ttl_seconds": b"x"},
        {"extra": object()},
        {"extra": "\ud800"},
        {"extra": 2**80},
        {"source": 5},
    ],
)
def test_values_that_no_entry_could_have_written_are_corruption(columns: dict[str, Any]) -> None:
    with pytest.raises(CacheCorruptionError):
        PROXIES.verify(with_columns(PROXIES.seal(proxy()), **columns))


def test_a_type_with_secrets_refuses_a_check_that_anyone_can_make() -> None:
    row = PROXIES.seal(proxy("http://192.0.2.1:80"))
    forged = _checked_without_a_key(row)
    with pytest.raises(TamperedError, match="anyone could have made"):
        PROXIES.open(forged)
    with pytest.raises(TamperedError):
        Sealer(schema_of(ProxyEntry), None).open(forged)


def _checked_without_a_key(row: Row) -> Row:
    class Plain(CacheEntry):
        __namespace__ = "proxy_entry"

    return Sealer(schema_of(Plain), None).restamp(row, row.version)


def test_a_type_without_secrets_takes_either_check() -> None:
    entry = stamped(ValueEntry.from_value("k", [1]))
    keyed = Sealer(schema_of(ValueEntry), RING)
    assert keyed.seal(entry).check.startswith(f"k1.{RING.primary.id}.")
    assert VALUES.seal(entry).check.startswith("c1.")
    assert keyed.open(VALUES.seal(entry)) == entry
    with pytest.raises(KeyNotHeldError, match="no key is held"):
        VALUES.open(keyed.seal(entry))


def test_a_type_with_secrets_cannot_be_sealed_without_a_key() -> None:
    sealer = Sealer(schema_of(ProxyEntry), None)
    with pytest.raises(EncryptionKeyError, match=r"ProxyEntry has secrets.*the variable that encryption_key_env names"):
        sealer.seal(proxy("http://192.0.2.1:80"))
    with pytest.raises(EncryptionKeyError):
        sealer.restamp(PROXIES.seal(proxy()), 9)
    with pytest.raises(KeyNotHeldError):
        sealer.open(PROXIES.seal(proxy()))


@pytest.mark.parametrize(("entry_type", "needed"), [(ProxyEntry, True), (ValueEntry, False), (CacheEntry, False)])
def test_a_type_needs_a_key_if_it_has_secrets(entry_type: type[CacheEntry], needed: bool) -> None:
    assert needs_key(schema_of(entry_type)) is needed


# -- tokens stay where they belong -------------------------------------------------------------------------------------


def moved(source: Row, column: str, target: Row, into: str) -> Row:
    return with_columns(target, **{into: source.columns[column]})


def test_a_token_does_not_open_in_another_record() -> None:
    mine, yours = PROXIES.seal(proxy()), PROXIES.seal(proxy("http://bob:b@192.0.2.1:8080"))
    row = moved(mine, "password_encrypted", yours, "password_encrypted")
    with pytest.raises(CacheCorruptionError):
        PROXIES.open(row)
    with pytest.raises(TamperedError, match="sealed for another place"):
        PROXIES.open(rechecked(PROXIES, row))


def test_a_token_does_not_open_in_another_field() -> None:
    row = PROXIES.seal(proxy())
    with pytest.raises(TamperedError):
        PROXIES.open(rechecked(PROXIES, moved(row, "username_encrypted", row, "password_encrypted")))


@pytest.mark.parametrize(
    "url", ["http://192.0.2.66:8080", "http://192.0.2.1:8081", "https://192.0.2.1:8080", "http://192.0.2.1:8080."]
)
def test_a_token_does_not_open_for_another_host(url: str) -> None:
    row = with_columns(PROXIES.seal(proxy()), proxy_url=url)
    with pytest.raises(TamperedError):
        PROXIES.open(rechecked(PROXIES, row))


@pytest.mark.parametrize("change", [{"port": 2}, {"realm": ""}, {"realm": "r"}, {"weight": 1.5}])
def test_a_token_does_not_open_where_any_bound_field_differs(change: dict[str, Any]) -> None:
    row = SESSIONS.seal(stamped(Session(key="k", token=SecretStr("t"), port=1)))
    assert SESSIONS.open(rechecked(SESSIONS, row)).key == "k"
    with pytest.raises(TamperedError):
        SESSIONS.open(rechecked(SESSIONS, with_columns(row, **change)))


def test_a_tier_that_drops_the_sign_of_zero_loses_no_secret() -> None:
    row = SESSIONS.seal(stamped(Session(key="k", token=SecretStr("t"), port=1, weight=-0.0)))
    opened = SESSIONS.open(with_columns(row, weight=0))
    assert isinstance(opened, Session)
    assert opened.token == SecretStr("t")


def test_a_token_does_not_open_in_another_storage() -> None:
    class Elsewhere(ProxyEntry):
        __namespace__ = "elsewhere"

    entry = proxy()
    elsewhere = Sealer(schema_of(Elsewhere), RING)
    row = elsewhere.seal(stamped(Elsewhere(proxy_url=entry.proxy_url, username=entry.username, key=entry.key)))
    with pytest.raises(CacheCorruptionError):
        PROXIES.open(row)
    with pytest.raises(TamperedError):
        PROXIES.open(rechecked(PROXIES, row))


def test_a_token_of_a_record_does_not_open_alone_nor_the_other_way_round() -> None:
    row = PROXIES.seal(proxy())
    encryptor = CredentialEncryptor(RING)
    with pytest.raises(TamperedError):
        encryptor.decrypt(row.columns["password_encrypted"])
    slipped_in = with_columns(row, password_encrypted=encryptor.encrypt(SecretStr("x")))
    with pytest.raises(TamperedError):
        PROXIES.open(rechecked(PROXIES, slipped_in))


def test_a_plaintext_that_slipped_in_is_never_taken_for_a_secret() -> None:
    row = with_columns(PROXIES.seal(proxy()), password_encrypted=b"canary-0451")
    with pytest.raises(TamperedError, match="not a sealed secret") as caught:
        PROXIES.open(rechecked(PROXIES, row))
    assert "canary-0451" not in str(caught.value)


# -- new versions of a record ------------------------------------------------------------------------------------------


def test_a_change_of_health_uses_the_ciphertext_again() -> None:
    before = PROXIES.seal(proxy())
    entry = stamped(proxy().evolve(health_status=HealthStatus.UNHEALTHY, failure_count=3, ttl_seconds=5.0), version=8)
    after = PROXIES.seal(entry, ciphertext_of=before)
    for column in ("username_encrypted", "password_encrypted"):
        assert after.columns[column] == before.columns[column]
    assert after.check != before.check
    assert PROXIES.open(after) == entry


def test_ciphertext_used_again_for_another_host_does_not_open() -> None:
    elsewhere = proxy("http://ada:lovelace@192.0.2.66:8080", key=proxy().key)
    with pytest.raises(TamperedError):
        PROXIES.open(PROXIES.seal(elsewhere, ciphertext_of=PROXIES.seal(proxy())))


def test_a_secret_that_the_other_row_lacks_is_sealed_anew() -> None:
    bare = PROXIES.seal(proxy("http://192.0.2.1:8080", key=proxy().key))
    assert PROXIES.open(PROXIES.seal(proxy(), ciphertext_of=bare)) == proxy()


def test_a_secret_that_the_entry_lacks_is_not_taken_from_the_other_row() -> None:
    row = PROXIES.seal(proxy("http://192.0.2.1:8080", key=proxy().key), ciphertext_of=PROXIES.seal(proxy()))
    assert "password_encrypted" not in row.columns


@pytest.mark.parametrize("loose", [False, True])
def test_a_restamped_row_differs_in_version_and_check_alone(loose: bool) -> None:
    row = PROXIES.seal(proxy())
    given_back = as_a_loose_tier_hands_it_back(row, {}) if loose else row
    again = PROXIES.restamp(given_back, 99)
    assert (again.version, again.columns, again.purge_at) == (99, given_back.columns, row.purge_at)
    assert again.check == PROXIES.seal(stamped(proxy(), version=99), ciphertext_of=row).check
    assert PROXIES.open(again) == stamped(proxy(), version=99)


def test_a_row_without_secrets_can_be_restamped_without_a_key() -> None:
    row = VALUES.restamp(VALUES.seal(ValueEntry.from_value("k", 1)), 5)
    assert VALUES.open(row).version == 5


def test_a_stored_record_that_the_class_cannot_hold_is_a_mismatch_and_no_corruption() -> None:
    class Lacking(CacheEntry):
        __namespace__ = "value_entry"

        city: str

    with pytest.raises(SchemaMismatchError, match="has no 'city'"):
        Sealer(schema_of(Lacking), None).open(VALUES.seal(ValueEntry.from_value("k", 1)))


@pytest.mark.req("E-3")
def test_a_row_of_another_key_or_class_is_foreign_and_a_damaged_one_is_not() -> None:
    class Numbered(CacheEntry):
        __namespace__ = "value_entry"

        encoded: int

    row = VALUES.seal(ValueEntry.from_value("k", "text"))
    assert Sealer(schema_of(Numbered), None).is_foreign(row)
    assert PROXIES.is_foreign(Sealer(schema_of(ProxyEntry), parse_keys(OTHER)).seal(proxy()))
    assert not PROXIES.is_foreign(PROXIES.seal(proxy()))
    assert not PROXIES.is_foreign(with_columns(PROXIES.seal(proxy()), source="other"))


# -- several keys ------------------------------------------------------------------------------------------------------


def test_an_old_key_still_opens_and_the_new_one_seals() -> None:
    old, both = (Sealer(schema_of(ProxyEntry), parse_keys(keys)) for keys in (OLD, f"{NEW},{OLD}"))
    row = old.seal(proxy())
    assert both.open(row) == proxy()
    again = both.seal(both.open(row))
    assert f".{RING.primary.id}." in again.check
    assert again.columns["password_encrypted"].startswith(b"s1.%b." % RING.primary.id.encode())
    assert PROXIES.open(again) == proxy()


def test_a_new_check_may_cover_a_token_of_an_old_key() -> None:
    old, both = (Sealer(schema_of(ProxyEntry), parse_keys(keys)) for keys in (OLD, f"{NEW},{OLD}"))
    mixed = both.seal(proxy(), ciphertext_of=old.seal(proxy()))
    assert both.open(mixed) == proxy()
    with pytest.raises(KeyNotHeldError):
        PROXIES.open(mixed)


def test_a_row_of_a_key_that_is_not_held_is_no_corruption_even_if_it_is_damaged() -> None:
    row = Sealer(schema_of(ProxyEntry), parse_keys(OTHER)).seal(proxy())
    for each in (row, with_columns(row, source="other"), with_columns(row, failure_count="many")):
        with pytest.raises(KeyNotHeldError, match=f"{parse_keys(OTHER).primary.id}.*held: {RING.primary.id}") as caught:
            PROXIES.open(each)
        assert not isinstance(caught.value, CacheCorruptionError)


def test_a_row_does_not_pass_with_the_check_of_another_key_that_is_held() -> None:
    both = Sealer(schema_of(ProxyEntry), parse_keys(f"{NEW},{OLD}"))
    row = both.seal(proxy())
    old_id = parse_keys(OLD).primary.id
    with pytest.raises(CacheCorruptionError):
        both.open(msgspec.structs.replace(row, check=row.check.replace(RING.primary.id, old_id)))


# -- nothing tells a secret --------------------------------------------------------------------------------------------


HOLDERS = [PROXIES, CredentialEncryptor(RING)]


@pytest.mark.req("US1-6")
@pytest.mark.parametrize("holder", HOLDERS, ids=["sealer", "encryptor"])
@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_what_seals_can_neither_be_pickled_nor_copied(holder: object, take: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="holds encryption keys"):
        take(holder)


@pytest.mark.req("US1-6")
@pytest.mark.parametrize("holder", HOLDERS, ids=["sealer", "encryptor"])
def test_what_seals_shows_nothing(holder: object) -> None:
    assert repr(holder) == str(holder) == f"<{type(holder).__name__}>"


def failures(secret: str, sealer: Sealer) -> list[Callable[[], object]]:
    """Every way to fail with a secret at hand."""
    entry = stamped(Session(key="k", token=SecretStr(secret), port=1, spare=SecretStr(secret)))
    row = sealer.seal(entry)
    replace = msgspec.structs.replace
    encryptor = CredentialEncryptor(RING)
    return [
        lambda: sealer.seal(replace(entry, port="one")),
        lambda: sealer.seal(replace(entry, tags=object())),
        lambda: sealer.seal(replace(entry, seen=datetime(2026, 1, 1))),  # noqa: DTZ001 - it is refused
        lambda: sealer.seal(replace(entry, blob=bytes(1_000_000))),
        lambda: sealer.seal(replace(entry, token=secret)),
        lambda: sealer.seal(replace(entry, spare=secret)),
        lambda: sealer.seal(replace(entry, spare=SecretStr(secret + "\ud800"))),
        lambda: sealer.seal(replace(entry, spare=SecretStr(secret.encode()))),  # type: ignore[arg-type]  # it is refused
        lambda: Sealer(schema_of(Session), None).seal(entry),
        lambda: sealer.open(with_columns(row, source="x")),
        lambda: sealer.open(rechecked(sealer, with_columns(row, port=2))),
        lambda: sealer.open(rechecked(sealer, with_columns(row, tone="shrill"))),
        lambda: sealer.open(rechecked(sealer, with_columns(row, spare_encrypted=b"x"))),
        lambda: Sealer(schema_of(Session), parse_keys(OTHER)).open(row),
        lambda: encryptor.encrypt(secret),  # type: ignore[arg-type]  # it is refused
        lambda: encryptor.encrypt(SecretStr(secret + "\ud800")),
        lambda: encryptor.decrypt(row.columns["token_encrypted"]),
    ]


@pytest.mark.req("US1-6")
@pytest.mark.parametrize("number", range(17))
def test_no_failure_tells_a_secret_or_a_key_even_with_the_locals_of_its_frames(number: int) -> None:
    canary = base64.b16encode(os.urandom(12)).decode()
    with pytest.raises((SealingError, CacheCorruptionError, CacheValidationError, SchemaMismatchError)) as caught:
        failures(canary, SESSIONS)[number]()
    text = told(caught.value)
    for spelling in (canary, canary.lower(), json.dumps(canary), base64.b64encode(canary.encode()).decode(), NEW):
        assert spelling not in text


def test_each_failure_is_tried() -> None:
    assert len(failures("x", SESSIONS)) == 17


@pytest.mark.parametrize(("before", "after", "value"), [(int, str, 5), (str, int, "five"), (float, int, 1.5)])
def test_a_column_of_another_type_than_the_class_gives_it_is_a_mismatch_and_no_damage(
    before: type, after: type, value: object
) -> None:
    meta: Any = type(CacheEntry)
    older, newer = (
        meta("Evolving", (CacheEntry,), {"__annotations__": {"a": kind}, "__module__": __name__})
        for kind in (before, after)
    )
    row = Sealer(schema_of(older), RING).seal(stamped(older(key="k", a=value)))
    with pytest.raises(SchemaMismatchError, match="does not agree"):
        Sealer(schema_of(newer), RING).verify(row)
    with pytest.raises(CacheCorruptionError):
        Sealer(schema_of(newer), RING).verify(with_columns(row, source="elsewhere"))
