"""Where the encryption keys of a configuration are looked for, and what is there: ids and names, never a key."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tierkit.errors import EncryptionKeyError

if TYPE_CHECKING:
    from tierkit.config import CacheConfig
    from tierkit.entry import CacheEntry


def key_variables(config: CacheConfig) -> tuple[str, ...]:
    """The environment variables that may hold keys, the first one first."""
    from tierkit.opening import LEGACY_KEY_VARIABLE

    return tuple(dict.fromkeys((config.encryption_key_env, LEGACY_KEY_VARIABLE)))


def key_places(config: CacheConfig) -> list[str]:
    """Every place where a key may stand, in the order in which they are looked at."""
    from tierkit.keys import default_key_file

    return [*key_variables(config), f"the file {config.encryption_key_file or default_key_file(os.environ)}"]


def held_key_ids(config: CacheConfig) -> tuple[str, ...]:
    """The ids of the keys that are found there; none if there is none that can be used."""
    from tierkit.keys import default_key_file, find_key_ring

    try:
        file = config.encryption_key_file or default_key_file(os.environ)
        ring = find_key_ring(config.encryption_key, key_variables(config), os.environ, file)
    except EncryptionKeyError:
        return ()
    return ring.ids if ring else ()


def check_encryption_keys(config: CacheConfig, entry_type: type[CacheEntry]) -> None:
    """See whether the keys that are found would do. That there is none is a fault only where none may be generated.

    Raises:
        EncryptionKeyError: A source of keys is malformed or unsafe, or there is no key and one is required.
    """
    from tierkit.keys import NONE_IS_GENERATED, default_key_file, find_key_ring, no_key
    from tierkit.schema import schema_of
    from tierkit.sealing import needs_key

    needed = needs_key(schema_of(entry_type))
    file = config.encryption_key_file or (default_key_file(os.environ) if needed else None)
    ring = find_key_ring(config.encryption_key, key_variables(config), os.environ, file)
    if ring is None and needed and config.key_policy == "require":
        raise no_key(NONE_IS_GENERATED, config.encryption_key_env, file)
