"""Encryption keys of a cache from the keychain of the system, by the library `keyring`.

A key is the password of the service `tierkit` for the user that is called as the cache is: its setting `name`. Put it
there with `keyring set tierkit NAME`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import SecretStr

from tierkit import KeyProvider, hookimpl

__all__ = ["SERVICE", "key_in_keychain", "register_key_providers"]

SERVICE: Final = "tierkit"
"""The service that the keychain keeps the keys of all caches under."""


@hookimpl
def register_key_providers() -> Mapping[str, KeyProvider]:
    """The keychain."""
    return {"keychain": key_in_keychain}


def key_in_keychain(cache_name: str) -> SecretStr | None:
    """The keys of a cache, or None if the keychain has none. It may ask the user to unlock it, and waits for that."""
    import keyring

    password = keyring.get_password(SERVICE, cache_name)
    return None if password is None else SecretStr(password)
