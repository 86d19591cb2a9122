"""What the commands tell of encryption keys: where they are looked for, and ids; never a key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierkit.errors import EncryptionKeyError

if TYPE_CHECKING:
    from tierkit.config import CacheConfig
    from tierkit.entry import CacheEntry
    from tierkit.key_sources import KeySources
    from tierkit.plugins import PluginRegistry


def key_sources(
    config: CacheConfig, registry: PluginRegistry, entry_type: type[CacheEntry] | None = None
) -> KeySources:
    """Where the keys of a cache are looked for; without an entry type, of one that needs a key.

    Raises:
        CacheConfigError: There is no such key provider.
        CacheValidationError: The entry type cannot be stored.
    """
    from tierkit.key_sources import KeySources
    from tierkit.keys import Environment
    from tierkit.schema import schema_of
    from tierkit.sealing import needs_key

    needed = entry_type is None or needs_key(schema_of(entry_type))
    return KeySources.of(config, registry, Environment(), needed=needed)


def held_key_ids(sources: KeySources) -> tuple[str, ...]:
    """The ids of the keys that are found there; none if there is none that can be used."""
    try:
        ring = sources.find()
    except EncryptionKeyError:
        return ()
    return ring.ids if ring else ()
