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
from hashlib import blake2b
from typing import Any, ClassVar

import msgspec
import pytest
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
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
from tierkit.ciphers import CIPHERS, CipherName, derive
from tierkit.encryptor import CredentialEncryptor
from tierkit.keys import parse_keys
from tierkit.schema import schema_of
from tierkit.sealing import Sealer, needs_key

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
MARKS = {"aes-256-gcm-siv": "s1", "fernet": "f1"}


@pytest.fixture(params=CIPHERS)
def cipher(request: pytest.FixtureRequest) -> CipherName:
    name: CipherName = request.param
    return name


@pytest.fixture
def encryptor(cipher: CipherName) -> CredentialEncryptor:
    return CredentialEncryptor(RING, cipher=cipher)


@pytest.fixture
def proxies(cipher: CipherName) -> Sealer:
    return Sealer(schema_of(ProxyEntry), RING, cipher)


@pytest.fixture
def sessions_of(cipher: CipherName) -> Sealer:
    return Sealer(schema_of(Session), RING, cipher)


# -- the encryptor -----------------------------------------------------------------------------------------------------


@pytest.mark.req("F-7")
@pytest.mark.parametrize("secret", ["pass word", "", "påß😀", "x" * 10_000, "\0", "s1.0123abcd.AAAA"])
def test_a_secret_comes_back_from_its_token(secret: str, cipher: CipherName) -> None:
    encryptor = CredentialEncryptor(SecretStr(NEW), cipher=cipher)
    token = encryptor.encrypt(SecretStr(secret))
    assert type(token) is bytes
    assert token.decode().startswith(f"{MARKS[cipher]}.{RING.primary.id}.")
    assert CredentialEncryptor(SecretStr(NEW)).decrypt(token) == SecretStr(secret)


@pytest.mark.req("F-7")
def test_what_is_no_cipher_and_what_cannot_be_accepted_is_refused_with_what_can() -> None:
    with pytest.raises(CacheValidationError, match="cipher must be 'aes-256-gcm-siv' or 'fernet', not 'rot13'"):
        CredentialEncryptor(RING, cipher="rot13")  # type: ignore[arg-type]  # it is refused
    with pytest.raises(CacheValidationError, match=r"accept must be \(\) or \(\"fernet\",\), not 'fernet'"):
        CredentialEncryptor(RING, accept="fernet")  # type: ignore[arg-type]  # it is refused


@pytest.mark.req("F-7")
@given(st.text(), st.sampled_from(sorted(CIPHERS)))
def test_any_text_that_can_be_encoded_comes_back(secret: str, cipher: CipherName) -> None:
    encryptor = CredentialEncryptor(RING, cipher=cipher)
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
@pytest.mark.parametrize("mark", MARKS.values())
@pytest.mark.parametrize("body", ["A", "AA", "AAA", "A" * 15, "A" * 16, "A" * 40, "A" * 41, "A" * 200])
def test_a_short_or_broken_body_is_tampered(mark: str, body: str) -> None:
    with pytest.raises(TamperedError, match="was changed"):
        CredentialEncryptor(RING).decrypt(f"{mark}.{RING.primary.id}.{body}".encode())


@pytest.mark.req("F-7")
@pytest.mark.parametrize("secret", ["canary-0451", b"canary-0451", None, SecretStr("canary-0451\ud800")])
def test_what_cannot_be_encrypted_is_refused_without_showing_it(secret: Any) -> None:
    with pytest.raises(SealingError, match="what is encrypted") as caught:
        CredentialEncryptor(RING).encrypt(secret)
    assert "canary-0451" not in told(caught.value)


@pytest.mark.req("F-7")
@pytest.mark.parametrize("secret", ["", "a", "ab", "abc"])
def test_every_edit_of_one_character_of_a_token_is_refused(secret: str, encryptor: CredentialEncryptor) -> None:
    token = encryptor.encrypt(SecretStr(secret)).decode()
    for place, found in enumerate(token):
        for put in set(TOKEN_ALPHABET) - {found}:
            with pytest.raises(SealingError):
                encryptor.decrypt((token[:place] + put + token[place + 1 :]).encode())


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t + b"A", lambda t: t + b"=", lambda t: b" " + t])
def test_a_token_that_is_cut_or_longer_is_refused(
    change: Callable[[bytes], bytes], encryptor: CredentialEncryptor
) -> None:
    with pytest.raises(TamperedError):
        encryptor.decrypt(change(encryptor.encrypt(SecretStr("abcd"))))


def test_one_secret_gives_a_new_token_each_time(encryptor: CredentialEncryptor) -> None:
    assert encryptor.encrypt(SecretStr("a")) != encryptor.encrypt(SecretStr("a"))


def test_text_that_another_program_sealed_in_no_encoding_is_refused_without_showing_it() -> None:
    bound_to = ["", 1, RING.primary.id, "", "", []]
    for token in (_by_siv(bound_to, b"canary-0451\xff"), _by_fernet(bound_to, b"canary-0451\xff")):
        with pytest.raises(TamperedError) as caught:
            CredentialEncryptor(RING).decrypt(token)
        assert "canary-0451" not in told(caught.value)


# -- the format, made by hand ------------------------------------------------------------------------------------------


def _by_siv(bound_to: list[Any], secret: bytes) -> bytes:
    """A token as the documented format says, made without the library's own code for it."""
    nonce = os.urandom(12)
    cipher = AESGCMSIV(derive(SecretStr(NEW), b"tierkit seal v1", 32))
    return _spelled("s1", nonce + cipher.encrypt(nonce, b"\1" + secret, msgspec.msgpack.encode(bound_to)))


def _by_fernet(bound_to: list[Any], secret: bytes) -> bytes:
    """Likewise."""
    key = derive(SecretStr(NEW), b"tierkit fernet context v1", 64)
    context = blake2b(msgspec.msgpack.encode(bound_to), key=key, digest_size=16).digest()
    fernet = Fernet(base64.urlsafe_b64encode(derive(SecretStr(NEW), b"tierkit fernet v1", 32)))
    return _spelled("f1", base64.urlsafe_b64decode(fernet.encrypt(context + secret)))


def _spelled(mark: str, body: bytes) -> bytes:
    return f"{mark}.{RING.primary.id}.".encode() + base64.urlsafe_b64encode(body).rstrip(b"=")


@pytest.mark.parametrize("by_hand", [_by_siv, _by_fernet])
def test_a_token_made_as_the_document_says_opens(by_hand: Callable[[list[Any], bytes], bytes]) -> None:
    row = PROXIES.seal(proxy())
    bound_to = ["proxy_entry", 1, RING.primary.id, row.key, "password", [["proxy_url", "http://192.0.2.1:8080"]]]
    made = with_columns(row, password_encrypted=by_hand(bound_to, b"swordfish"))
    opened = PROXIES.open(rechecked(PROXIES, made))
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
def test_a_row_holds_no_secret_in_the_clear(proxies: Sealer) -> None:
    row = proxies.seal(proxy("http://user-canary:pass-canary@192.0.2.1:8080"))
    assert set(row.columns) >= {"username_encrypted", "password_encrypted"}
    for text in (repr(row), repr(pack_row(row)), proxies.open(row)):
        assert "canary" not in str(text)


def test_an_opened_row_is_the_entry_that_was_sealed(proxies: Sealer) -> None:
    entry = proxy(source="paid", failure_count=2, health_status=HealthStatus.UNHEALTHY)
    row = proxies.seal(entry)
    assert proxies.open(row) == entry
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
def test_absent_and_empty_secrets_stay_what_they_are(fields: dict[str, Any], proxies: Sealer) -> None:
    entry = proxy("http://192.0.2.1:8080", **fields)
    opened = proxies.open(proxies.seal(entry))
    assert opened == entry
    assert {name for name in proxies.seal(entry).columns if "encrypted" in name} == {f"{n}_encrypted" for n in fields}


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
def test_an_edit_of_any_column_is_detected(column: str, how: str, proxies: Sealer) -> None:
    value = {"changed": EDITS[column], "dropped": None, "of another type": ["x"]}[how]
    with pytest.raises(CacheCorruptionError, match="is not what was written"):
        proxies.open(with_columns(proxies.seal(proxy()), **{column: value}))


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


def test_a_token_does_not_open_in_another_record(proxies: Sealer) -> None:
    mine, yours = proxies.seal(proxy()), proxies.seal(proxy("http://bob:b@192.0.2.1:8080"))
    row = moved(mine, "password_encrypted", yours, "password_encrypted")
    with pytest.raises(CacheCorruptionError):
        proxies.open(row)
    with pytest.raises(TamperedError, match="sealed for another place"):
        proxies.open(rechecked(proxies, row))


def test_a_token_does_not_open_in_another_field(proxies: Sealer) -> None:
    row = proxies.seal(proxy())
    with pytest.raises(TamperedError):
        proxies.open(rechecked(proxies, moved(row, "username_encrypted", row, "password_encrypted")))


@pytest.mark.parametrize(
    "url", ["http://192.0.2.66:8080", "http://192.0.2.1:8081", "https://192.0.2.1:8080", "http://192.0.2.1:8080."]
)
def test_a_token_does_not_open_for_another_host(url: str, proxies: Sealer) -> None:
    row = with_columns(proxies.seal(proxy()), proxy_url=url)
    with pytest.raises(TamperedError):
        proxies.open(rechecked(proxies, row))


@pytest.mark.parametrize("change", [{"port": 2}, {"realm": ""}, {"realm": "r"}, {"weight": 1.5}])
def test_a_token_does_not_open_where_any_bound_field_differs(change: dict[str, Any], sessions_of: Sealer) -> None:
    row = sessions_of.seal(stamped(Session(key="k", token=SecretStr("t"), port=1)))
    assert sessions_of.open(rechecked(sessions_of, row)).key == "k"
    with pytest.raises(TamperedError):
        sessions_of.open(rechecked(sessions_of, with_columns(row, **change)))


def test_a_tier_that_drops_the_sign_of_zero_loses_no_secret(sessions_of: Sealer) -> None:
    row = sessions_of.seal(stamped(Session(key="k", token=SecretStr("t"), port=1, weight=-0.0)))
    opened = sessions_of.open(with_columns(row, weight=0))
    assert isinstance(opened, Session)
    assert opened.token == SecretStr("t")


def test_a_token_does_not_open_in_another_storage(cipher: CipherName) -> None:
    class Elsewhere(ProxyEntry):
        __namespace__ = "elsewhere"

    entry = proxy()
    elsewhere = Sealer(schema_of(Elsewhere), RING, cipher)
    row = elsewhere.seal(stamped(Elsewhere(proxy_url=entry.proxy_url, username=entry.username, key=entry.key)))
    with pytest.raises(CacheCorruptionError):
        PROXIES.open(row)
    with pytest.raises(TamperedError):
        PROXIES.open(rechecked(PROXIES, row))


def test_a_token_of_a_record_does_not_open_alone_nor_the_other_way_round(
    encryptor: CredentialEncryptor, proxies: Sealer
) -> None:
    row = proxies.seal(proxy())
    with pytest.raises(TamperedError):
        encryptor.decrypt(row.columns["password_encrypted"])
    slipped_in = with_columns(row, password_encrypted=encryptor.encrypt(SecretStr("x")))
    with pytest.raises(TamperedError):
        proxies.open(rechecked(proxies, slipped_in))


def test_a_plaintext_that_slipped_in_is_never_taken_for_a_secret(proxies: Sealer) -> None:
    row = with_columns(proxies.seal(proxy()), password_encrypted=b"canary-0451")
    with pytest.raises(TamperedError, match="not a sealed secret") as caught:
        proxies.open(rechecked(proxies, row))
    assert "canary-0451" not in str(caught.value)


# -- new versions of a record ------------------------------------------------------------------------------------------


def test_a_change_of_health_uses_the_ciphertext_again(proxies: Sealer) -> None:
    before = proxies.seal(proxy())
    entry = stamped(proxy().evolve(health_status=HealthStatus.UNHEALTHY, failure_count=3, ttl_seconds=5.0), version=8)
    after = proxies.seal(entry, ciphertext_of=before)
    for column in ("username_encrypted", "password_encrypted"):
        assert after.columns[column] == before.columns[column]
    assert after.check != before.check
    assert proxies.open(after) == entry


def test_ciphertext_used_again_for_another_host_does_not_open(proxies: Sealer) -> None:
    elsewhere = proxy("http://ada:lovelace@192.0.2.66:8080", key=proxy().key)
    with pytest.raises(TamperedError):
        proxies.open(proxies.seal(elsewhere, ciphertext_of=proxies.seal(proxy())))


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


# -- two ciphers, and tokens of other tools ----------------------------------------------------------------------------


def test_what_either_cipher_sealed_is_read_whatever_the_setting_and_kept_where_nothing_is_sealed_anew() -> None:
    by_fernet = Sealer(schema_of(ProxyEntry), RING, "fernet")
    row = PROXIES.seal(proxy())
    assert by_fernet.open(row) == proxy()
    assert by_fernet.seal(proxy(), ciphertext_of=row).columns == row.columns
    sealed_anew = by_fernet.seal(proxy())
    assert sealed_anew.columns["password_encrypted"].startswith(b"f1.")
    assert PROXIES.open(sealed_anew) == proxy()


def test_a_token_of_one_cipher_does_not_open_as_one_of_the_other(encryptor: CredentialEncryptor) -> None:
    token = encryptor.encrypt(SecretStr("a"))
    other = {b"s1": b"f1", b"f1": b"s1"}[token[:2]]
    with pytest.raises(TamperedError):
        encryptor.decrypt(other + token[2:])


def plain(secret: str | bytes, key: str = NEW) -> bytes:
    """A token as another tool makes it."""
    return Fernet(key).encrypt(secret if isinstance(secret, bytes) else secret.encode())


@pytest.mark.parametrize("secret", ["swordfish", "", "påß😀", "x" * 5000])
@pytest.mark.parametrize("key", [NEW, OLD], ids=["new", "old"])
def test_a_plain_fernet_token_of_any_key_is_read_where_that_is_accepted(secret: str, key: str) -> None:
    accepting = CredentialEncryptor(SecretStr(f"{NEW},{OLD}"), accept=("fernet",))
    assert accepting.decrypt(plain(secret, key)) == SecretStr(secret)
    assert accepting.decrypt(accepting.encrypt(SecretStr(secret))) == SecretStr(secret)
    assert accepting.encrypt(SecretStr(secret)).startswith(b"s1.")


def test_a_plain_fernet_token_is_refused_where_nobody_accepts_it_and_no_key_is_kept_for_it() -> None:
    with pytest.raises(TamperedError, match="not a sealed secret"):
        CredentialEncryptor(RING).decrypt(plain("swordfish"))
    assert RING.primary.plain is None
    assert RING.open_plain(plain("swordfish")) is None


@pytest.mark.parametrize("change", [lambda t: t[:-4], lambda t: t[:60] + b"AAAA" + t[64:], lambda _: plain("x", OTHER)])
def test_a_plain_fernet_token_that_no_key_opens_is_of_a_key_that_is_not_held(change: Callable[[bytes], bytes]) -> None:
    accepting = CredentialEncryptor(SecretStr(NEW), accept=("fernet",))
    with pytest.raises(KeyNotHeldError, match=f"held .{RING.primary.id}.") as caught:
        accepting.decrypt(change(plain("canary-0451")))
    assert "canary-0451" not in told(caught.value)


def test_a_plain_fernet_token_that_holds_no_text_is_refused_without_showing_it() -> None:
    with pytest.raises(KeyNotHeldError) as caught:
        CredentialEncryptor(SecretStr(NEW), accept=("fernet",)).decrypt(plain(b"canary-0451\xff"))
    assert "canary-0451" not in told(caught.value)


@pytest.mark.parametrize("token", [b"", b"gAAAA", "gAAAAtext", None, b"gAAAA!" * 20])
def test_what_is_no_token_of_any_kind_is_refused_also_where_others_are_accepted(token: Any) -> None:
    with pytest.raises(SealingError):
        CredentialEncryptor(SecretStr(NEW), accept=("fernet",)).decrypt(token)


def test_a_ring_that_does_not_accept_them_is_refused_where_they_are_to_be() -> None:
    with pytest.raises(EncryptionKeyError, match="made without accept"):
        CredentialEncryptor(RING, accept=("fernet",))
    accepting = parse_keys(NEW, accept=("fernet",))
    assert CredentialEncryptor(accepting).decrypt(plain("a")) == SecretStr("a")


def test_a_generated_key_and_one_of_the_environment_accept_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROXYWHIRL_CACHE_ENCRYPTION_KEY", raising=False)
    monkeypatch.setenv("TIERKIT_ENCRYPTION_KEY", NEW)
    assert CredentialEncryptor(accept=("fernet",)).decrypt(plain("a")) == SecretStr("a")
    monkeypatch.delenv("TIERKIT_ENCRYPTION_KEY")
    with pytest.raises(KeyNotHeldError):
        CredentialEncryptor(accept=("fernet",)).decrypt(plain("a"))


def test_a_row_never_opens_a_plain_fernet_token_even_with_a_check_that_fits() -> None:
    accepting = Sealer(schema_of(ProxyEntry), parse_keys(NEW, accept=("fernet",)))
    row = with_columns(accepting.seal(proxy()), password_encrypted=plain("swordfish"))
    with pytest.raises(TamperedError, match="not a sealed secret"):
        accepting.open(rechecked(accepting, row))


def test_a_sealer_opens_plain_tokens_for_imports_if_its_ring_accepts_them() -> None:
    accepting = Sealer(schema_of(ProxyEntry), parse_keys(NEW, accept=("fernet",)))
    assert accepting.open_plain(plain("a")) == SecretStr("a")
    assert PROXIES.open_plain(plain("a")) is None
    assert VALUES.open_plain(plain("a")) is None


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


def test_a_row_tells_which_key_it_needs_that_is_not_held() -> None:
    old, both = (Sealer(schema_of(ProxyEntry), parse_keys(keys)) for keys in (OLD, f"{NEW},{OLD}"))
    old_row, mixed = old.seal(proxy()), both.seal(proxy(), ciphertext_of=old.seal(proxy()))
    old_id = parse_keys(OLD).primary.id
    assert [PROXIES.key_not_held(row) for row in (old_row, mixed)] == [old_id, old_id]
    assert [both.key_not_held(row) for row in (old_row, mixed, PROXIES.seal(proxy()))] == ["", "", ""]
    assert Sealer(schema_of(ProxyEntry), None).key_not_held(old_row) == old_id
    assert PROXIES.key_not_held(msgspec.structs.replace(old_row, check="?", columns={"password_encrypted": "?"})) == ""
    assert VALUES.key_not_held(VALUES.seal(ValueEntry.from_value("k", 1))) == ""


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
def test_no_failure_tells_a_secret_or_a_key_even_with_the_locals_of_its_frames(
    number: int, sessions_of: Sealer
) -> None:
    canary = base64.b16encode(os.urandom(12)).decode()
    with pytest.raises((SealingError, CacheCorruptionError, CacheValidationError, SchemaMismatchError)) as caught:
        failures(canary, sessions_of)[number]()
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
