"""Opening a stack: from a configuration to tiers in their places, with keys that fit what they hold."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import islice
from typing import Any

from tierkit.clock import CacheTime, VersionClock
from tierkit.config import CacheConfig, ResolvedTier
from tierkit.entry import CacheEntry
from tierkit.errors import (
    CacheConfigError,
    CacheCorruptionError,
    CacheStorageError,
    KeyNotHeldError,
    TierUnavailable,
)
from tierkit.keys import KeyRing, default_key_file, find_key_ring, resolve_key_ring, ring_from_environment
from tierkit.level import Level
from tierkit.plugins import discover
from tierkit.schema import EntrySchema, schema_of
from tierkit.sealing import Sealer, needs_key
from tierkit.stack import Stack, StackSettings
from tierkit.tier import API_VERSION, CacheTier, TierContext

logger = logging.getLogger("tierkit")

LEGACY_KEY_VARIABLE = "PROXYWHIRL_CACHE_ENCRYPTION_KEY"
"""Accepted after the configured variable, so that existing deployments keep working."""


def open_stack(
    config: CacheConfig,
    entry_type: type[CacheEntry],
    time: CacheTime,
    read_only: bool,
    plugins: Sequence[object],
) -> Stack[Any]:
    """Open every tier that `config` names and put them in order. If anything fails, what was opened is closed.

    Raises:
        CacheConfigError: The configuration cannot work.
        CacheValidationError: The entry type cannot be stored.
        EncryptionKeyError: There is no usable encryption key.
        CacheStorageError: A tier could not be opened.
    """
    schema = schema_of(entry_type)
    resolved = config.resolve(discover(plugins)) if config.cache_enabled else ()
    with ExitStack() as opened:
        levels = [
            Level(
                tier.name,
                tier.spec,
                opened.enter_context(_open_tier(tier, _context(config, tier, schema, time, read_only))),
                threshold=config.tier_failure_threshold,
                counting=config.enable_statistics,
            )
            for tier in resolved
        ]
        _check_authority(levels)
        sealer = Sealer(schema, _key_ring(config, schema, levels, read_only))
        settings = StackSettings(
            late_seconds=config.late_seconds,
            staleness_seconds=config.staleness_seconds,
            read_only=read_only,
            counting=config.enable_statistics,
        )
        _warn_of_foreign_keys(levels, sealer)
        stack: Stack[Any] = Stack(levels, sealer, time, VersionClock(time.now), settings)
        opened.pop_all()
    return stack


def _context(
    config: CacheConfig, tier: ResolvedTier, schema: EntrySchema, time: CacheTime, read_only: bool
) -> TierContext:
    return TierContext(
        name=tier.name,
        namespace=schema.namespace,
        columns=schema.columns,
        max_entries=tier.max_entries,
        eviction_policy=tier.eviction_policy,
        durability=config.durability,
        tombstone_seconds=config.tombstone_seconds,
        read_only=read_only,
        now=time.now,
    )


def _open_tier(resolved: ResolvedTier, context: TierContext) -> CacheTier[Any]:
    try:
        tier = resolved.spec.factory(context, resolved.options)
    except (CacheStorageError, CacheConfigError):
        raise
    except Exception as error:
        raise TierUnavailable(
            f"{resolved.name} ({resolved.spec.kind}) could not be opened: {type(error).__name__}: {error}"
        ) from error
    if tier.api != API_VERSION:
        tier.close()
        raise CacheConfigError(
            f"{resolved.name}: {type(tier).__name__} was written for version {tier.api} of the tier contract, this is "
            f"version {API_VERSION}"
        )
    return tier


def _check_authority(levels: Sequence[Level]) -> None:
    """The lowest level has everything, so nothing above it may outlive it."""
    if levels and not levels[-1].persistent and any(level.persistent for level in levels):
        raise CacheConfigError(
            f"{levels[-1].name} ({levels[-1].kind}) is the lowest level and does not persist, but one above it does: "
            "put the persistent level last"
        )


def _key_ring(config: CacheConfig, schema: EntrySchema, levels: Sequence[Level], read_only: bool) -> KeyRing | None:
    names = tuple(dict.fromkeys((config.encryption_key_env, LEGACY_KEY_VARIABLE)))
    stored = [level for level in levels if not level.live]
    if not stored:
        return None
    explicit = config.encryption_key
    key_file = config.encryption_key_file or default_key_file(os.environ)
    if not needs_key(schema):
        # Without secrets a key only makes tampering evident: one that was given is used, none is looked for or made.
        return find_key_ring(explicit, (), {}, key_file) if explicit else ring_from_environment(names, os.environ)
    if read_only:
        ring = find_key_ring(explicit, names, os.environ, key_file)
        if ring is None:
            logger.info("no encryption key was found: sealed records cannot be read")
        return ring
    return resolve_key_ring(
        explicit=explicit,
        env_names=names,
        environ=os.environ,
        key_file=key_file,
        may_generate=True,
        ciphertext_present=lambda: any(map(_holds_rows, stored)),
        key_policy=config.key_policy,
    )


def _holds_rows(level: Level) -> bool:
    return any(True for _ in islice(level.scan(), 1))


def _warn_of_foreign_keys(levels: Sequence[Level], sealer: Sealer) -> None:
    """Say at once that the key is wrong, by the first row of each level, and not at the first read."""
    for level in levels:
        try:
            for row in () if level.live else islice(level.scan(), 1):
                sealer.verify(row)
        except KeyNotHeldError as error:
            logger.warning("%s: %s; records sealed so are left as they are", level.name, error)
        except CacheCorruptionError:
            pass  # found, counted and evicted when it is read
        except CacheStorageError as error:
            logger.warning("%s could not be read: %s", level.name, error)
