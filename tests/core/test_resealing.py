"""Which keys a row names, and what is left of it when it is sealed anew."""

from typing import ClassVar

import pytest
from pydantic import SecretStr

from tierkit import CacheCorruptionError, CacheEntry, KeyNotHeldError, Row, SchemaMismatchError
from tierkit.keys import KeyRing, parse_keys
from tierkit.schema import schema_of
from tierkit.sealing import Sealer

OLD, NEW = (f"{letter * 42}A=" for letter in "xy")
OLD_RING, NEW_RING, BOTH = parse_keys(OLD), parse_keys(NEW), parse_keys(f"{NEW},{OLD}")
OLD_ID, NEW_ID = BOTH.ids[1], BOTH.ids[0]


class Login(CacheEntry):
    __bind__: ClassVar[tuple[str, ...]] = ("host",)

    host: str = "example.org"
    password: SecretStr | None = None
    token: bytes = b""


class Wider(Login):
    pin: SecretStr | None = None
    cookie: bytes = b""


class Elsewhere(Login):
    __bind__: ClassVar[tuple[str, ...]] = ("host", "port")

    port: int = 443


def sealer(ring: KeyRing | None, entry_type: type[CacheEntry] = Login) -> Sealer:
    return Sealer(schema_of(entry_type), ring)


def sealed(ring: KeyRing = OLD_RING, entry_type: type[CacheEntry] = Login, **fields: object) -> Row:
    given = {"password": SecretStr("hunter2"), **fields}
    return sealer(ring, entry_type).seal(entry_type(key="a", version=5, **given))  # type: ignore[arg-type]  # as they come


def test_a_row_names_the_key_of_its_check_and_those_of_its_tokens() -> None:
    row = sealed()
    assert sealer(BOTH).named_keys(row) == {OLD_ID}
    assert sealer(BOTH).named_keys(sealer(BOTH).restamp(row, 6)) == {NEW_ID, OLD_ID}
    assert sealer(BOTH).named_keys(sealer(BOTH).resealed(row, 6, {})) == {NEW_ID}
    assert sealer(BOTH).named_keys(Row("a", 1, 2.0, "c1.00000000", {})) == set()


def test_bytes_of_the_users_own_that_look_like_a_token_name_no_key() -> None:
    row = sealed(NEW_RING, token=f"s1.{OLD_ID}.AAAA".encode())
    assert sealer(BOTH).named_keys(row) == {NEW_ID}
    wider = sealed(NEW_RING, Wider, cookie=f"s1.{OLD_ID}.AAAA".encode())
    assert sealer(BOTH).named_keys(wider) == {NEW_ID}


@pytest.mark.parametrize(("ring", "outdated"), [(BOTH, True), (OLD_RING, False), (NEW_RING, False), (None, False)])
def test_a_row_is_outdated_if_it_names_a_key_that_is_held_and_is_not_the_primary(
    ring: KeyRing | None, outdated: bool
) -> None:
    assert sealer(ring).is_outdated(sealed()) is outdated


def test_what_is_sealed_anew_opens_with_the_new_key_alone_and_is_the_same_but_for_its_version() -> None:
    row = sealer(BOTH).resealed(sealed(), 9, {"tierkit.put": 5})
    assert (row.version, row.columns["tierkit.put"]) == (9, 5)
    opened = sealer(NEW_RING).open(row)
    assert opened.evolve(version=5) == sealer(OLD_RING).open(sealed()).evolve(version=5)


def test_secrets_that_the_class_does_not_declare_are_sealed_anew_too() -> None:
    row = sealer(BOTH).resealed(sealed(OLD_RING, Wider, pin=SecretStr("0815")), 9, {})
    opened = sealer(NEW_RING, Wider).open(row)
    assert isinstance(opened, Wider)
    assert opened.pin is not None
    assert opened.pin.get_secret_value() == "0815"


def test_a_row_that_was_changed_is_not_sealed_anew() -> None:
    row = sealed()
    with pytest.raises(CacheCorruptionError):
        sealer(BOTH).resealed(Row(row.key, row.version + 1, row.purge_at, row.check, row.columns), 9, {})


def test_a_row_of_a_key_that_is_not_held_is_not_sealed_anew() -> None:
    with pytest.raises(KeyNotHeldError):
        sealer(NEW_RING).resealed(sealed(), 9, {})


def test_a_row_whose_class_binds_its_secrets_to_more_is_not_taken_for_damaged() -> None:
    with pytest.raises(SchemaMismatchError, match="binds password_encrypted as Login does not"):
        sealer(BOTH).resealed(sealed(OLD_RING, Elsewhere), 9, {})
