"""Tokens: which key and which cipher made one, and what is said of one that does not open."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec
from pydantic import SecretStr

from tierkit.ciphers import CIPHERS, Cipher
from tierkit.errors import CacheValidationError, KeyNotHeldError, TamperedError
from tierkit.keys import Key, KeyRing
from tierkit.row import Row, key_digest

SCHEMA_VERSION: Final = 1
"""The version of what tokens are bound to and of what checks cover."""

TOKEN: Final = re.compile(rb"(s1|f1)\.([0-9a-f]{8})\.[A-Za-z0-9_-]+")
"""A token: its mark, and the id of its key."""

encode: Callable[[Any], bytes] = msgspec.msgpack.Encoder(order="deterministic").encode
"""The one form in bytes of what tokens are bound to and of what checks cover."""


def mark_of(cipher: str) -> str:
    """The mark of the tokens that a cipher makes.

    Raises:
        CacheValidationError: There is no such cipher.
    """
    if cipher not in CIPHERS:
        raise CacheValidationError(f"cipher must be {' or '.join(map(repr, CIPHERS))}, not {cipher!r}")
    return CIPHERS[cipher].mark


def maker_of(ring: KeyRing | None, token: object, row: Row | None = None) -> tuple[Key, Cipher]:
    """The key that a token names, and its cipher that made the token.

    Raises:
        KeyNotHeldError: The key is not held.
        TamperedError: It is no token.
    """
    found = matches(TOKEN, token)
    if found is None:
        raise TamperedError(f"{name_of(row)} holds something that is not a sealed secret")
    key = held_key(ring, found[2].decode(), row)
    return key, key.ciphers[found[1].decode()]


def held_key(ring: KeyRing | None, key_id: str, row: Row | None) -> Key:
    """The key with this id.

    Raises:
        KeyNotHeldError: It is not held.
    """
    key = None if ring is None else ring.get(key_id)
    if key is None:
        held = "no key is held" if ring is None else f"held: {', '.join(ring.ids)}"
        raise KeyNotHeldError(
            f"{name_of(row)} was sealed with the key {key_id}, which is not in the key ring ({held}): add it"
        )
    return key


def open_token(cipher: Cipher, token: bytes, bound_to: bytes, row: Row | None = None) -> SecretStr:
    """The secret in a token of `cipher`.

    Raises:
        TamperedError: It was changed, or was not bound to this.
    """
    secret = cipher.open(token, bound_to)
    if secret is None:
        raise TamperedError(
            f"{name_of(row)} holds a sealed secret that was changed, or that was sealed for another place"
        )
    return secret


def name_of(row: Row | None) -> str:
    """What an error calls a row, or a token that stands in none."""
    return "the token" if row is None else f"record {key_digest(row.key)}"


def matches(form: re.Pattern[bytes], value: object) -> re.Match[bytes] | None:
    """The match of the whole of `value`, which may be anything."""
    return form.fullmatch(value) if isinstance(value, bytes) else None
