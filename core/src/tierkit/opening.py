"""Opening a stack: from a configuration to tiers in their places, with keys that fit what they hold."""

from __future__ import annotations

import logging
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, Final, NoReturn

from tierkit.admission import UNBOUNDED_ENTRIES, AdmissionPolicy
from tierkit.breaker import Backoff
from tierkit.clock import CacheTime, VersionClock
from tierkit.config import CLOCK_DIFFERENCE_SECONDS, CacheConfig, ResolvedTier
from tierkit.entry import CacheEntry
from tierkit.errors import (
    CacheConfigError,
    CacheCorruptionError,
    CacheStorageError,
    PluginError,
    TierUnavailable,
)
from tierkit.key_sources import KeySources
from tierkit.keys import Environment, KeyRing
from tierkit.level import Level, Missed
from tierkit.levels import StackSettings
from tierkit.plugins import PluginRegistry
from tierkit.reconciling import align, reconcile
from tierkit.row import ColumnType
from tierkit.schema import EntrySchema, schema_of
from tierkit.sealing import Sealer, needs_key
from tierkit.side import SideTiers, side_namespace
from tierkit.stack import Stack
from tierkit.tier import CacheTier, TierContext, Trait
from tierkit.workers import Workers

logger = logging.getLogger("tierkit")

LOOKED_AT_FOR_KEYS: Final = 100
"""Records of each level whose keys are looked at when a cache opens."""


def open_stack(
    config: CacheConfig,
    entry_type: type[CacheEntry],
    time: CacheTime,
    read_only: bool,
    registry: PluginRegistry,
) -> Stack[Any]:
    """Open every tier that `config` names and put them in order. If anything fails, what was opened is closed.

    Raises:
        CacheConfigError: The configuration cannot work.
        CacheValidationError: The entry type cannot be stored.
        EncryptionKeyError: There is no usable encryption key.
        CacheStorageError: A tier could not be opened.
    """
    schema = schema_of(entry_type)
    resolved = config.resolve(registry) if config.cache_enabled else ()
    with ExitStack() as opened:
        levels = []
        for tier in resolved:
            context = tier_context(config, tier, schema, time, read_only=read_only)
            levels.append(_level(config, tier, context, time.monotonic, lowest=tier is resolved[-1]))
            opened.callback(levels[-1].close)
        ring = _key_ring(config, schema, levels, read_only, registry)
        sealer = Sealer(schema, ring, config.cipher)
        settings = StackSettings(
            late_seconds=config.late_seconds,
            staleness_seconds=config.staleness_seconds,
            grace_seconds=config.grace_seconds,
            read_only=read_only,
            counting=config.enable_statistics,
            volatile=config.durability == "none",
            decisions_kept=config.decisions_kept,
            decisions_persisted=config.decisions_persisted,
            flush_interval_seconds=config.flush_interval_seconds,
            marks_seconds=config.tombstone_seconds - config.late_seconds - CLOCK_DIFFERENCE_SECONDS,
        )
        _warn_of_foreign_keys(levels, sealer)
        stack: Stack[Any] = Stack(levels, sealer, time, VersionClock(time.now), settings)
        for level in levels:
            level.align = partial(_align, weakref.ref(stack), level)
        if resolved:
            opener = partial(_open_side, resolved[-1])
            reader = partial(opener, replace(context, read_only=True))
            stack.sides = SideTiers(partial(opener, context), reader, read_only=read_only)
        if read_only:
            stack.owing.adopt_all()
        else:
            reconcile(stack)
            stack.settle()
        opened.pop_all()
    return stack


def tier_context(
    config: CacheConfig, tier: ResolvedTier, schema: EntrySchema, time: CacheTime, *, read_only: bool
) -> TierContext:
    """What the tier of a level is told."""
    return TierContext(
        name=tier.name,
        namespace=schema.namespace,
        columns=schema.columns,
        max_entries=tier.max_entries,
        eviction_policy=tier.eviction_policy,
        policy_factory=tier.policy_factory,
        durability=config.durability,
        tombstone_seconds=config.tombstone_seconds,
        read_only=read_only,
        now=time.now,
    )


def _open_side(
    authority: ResolvedTier, context: TierContext, name: str, columns: Mapping[str, ColumnType]
) -> CacheTier[Any]:
    """A tier beside that of `authority`, without a bound: what it holds is not for eviction."""
    namespace = side_namespace(context.namespace, name)
    return _open_tier(authority, replace(context, namespace=namespace, columns=columns, max_entries=None, beside=True))


def _level(
    config: CacheConfig,
    resolved: ResolvedTier,
    context: TierContext,
    monotonic: Callable[[], float],
    lowest: bool,
) -> Level:
    """The level of a tier. One above the authority, or any to be read only, may fail to open: it is out of service."""
    failure = None
    try:
        tier = _open_in_time(resolved, context)
    except CacheStorageError as error:
        if lowest and not context.read_only:
            raise
        failure, tier = error, _AbsentTier(context, resolved.spec.traits, error)
    level = Level(
        resolved.name,
        resolved.spec,
        tier,
        monotonic=monotonic,
        threshold=config.tier_failure_threshold,
        backoff=Backoff(
            initial_seconds=config.recovery_initial_seconds, longest_seconds=config.recovery_longest_seconds
        ),
        timeout_seconds=resolved.timeout_seconds,
        admission=_admission(resolved),
        write_policy=resolved.write_policy,
        counting=config.enable_statistics,
    )
    if failure is not None:
        level.reopen = partial(_open_in_time, resolved, context)
        level.miss(failure)
    return level


def _align(reference: weakref.ref[Stack[Any]], level: Level, missed: Missed) -> None:
    stack = reference()
    if stack is not None:
        align(stack, level, missed)


def _admission(resolved: ResolvedTier) -> AdmissionPolicy | None:
    if resolved.admission is None:
        return None
    try:
        policy: object = resolved.admission(resolved.max_entries or UNBOUNDED_ENTRIES)
    except Exception as error:
        failure = f"{type(error).__name__}: {error}"
        raise PluginError(f"{resolved.name}: its admission policy could not be made: {failure}") from error
    if not isinstance(policy, AdmissionPolicy):
        raise PluginError(f"{resolved.name}: its admission policy is a {type(policy).__name__}, no AdmissionPolicy")
    return policy


def _open_in_time(resolved: ResolvedTier, context: TierContext) -> CacheTier[Any]:
    """Open a tier, within the time limit of its level if it has one."""
    if resolved.timeout_seconds is None:
        return _open_tier(resolved, context)
    workers = Workers(resolved.name, resolved.timeout_seconds)
    try:
        tier: CacheTier[Any] = workers.call(_open_tier, resolved, context)
        return tier
    finally:
        workers.close()


def _open_tier(resolved: ResolvedTier, context: TierContext) -> CacheTier[Any]:
    where = f"{resolved.name} ({resolved.spec.kind})"
    if context.policy_factory is not None:
        context.new_policy()  # a wrong one is refused now: a tier may make its own long after
    try:
        tier = resolved.spec.factory(context, resolved.options)
    except (CacheStorageError, CacheConfigError):
        raise
    except Exception as error:
        raise TierUnavailable(f"{where} could not be opened: {type(error).__name__}: {error}") from error
    if not isinstance(tier, CacheTier):
        raise PluginError(f"{where}: its factory made a {type(tier).__name__}, which is no CacheTier")
    _check_constructed(tier, where)
    if tier.traits != resolved.spec.traits:
        tier.close()
        raise PluginError(f"{where}: its spec claims {resolved.spec.traits}, its tier {tier.traits}: they must agree")
    return tier


def _check_constructed(tier: CacheTier[Any], where: str) -> None:
    missing = [name for name in ("context", "lock") if not hasattr(tier, name)]
    if missing:
        with suppress(Exception):  # it may well need what is missing
            tier.close()
        lack = f"its {type(tier).__name__} has no `{missing[0]}`"
        raise PluginError(f"{where}: {lack}: its __init__ must call super().__init__(context)")


class _AbsentTier(CacheTier[Any]):
    """Stands where a tier could not be opened, and refuses every call."""

    def __init__(self, context: TierContext, traits: Trait, error: CacheStorageError) -> None:
        super().__init__(context)
        self.traits = traits  # type: ignore[misc]  # as those of the tier that is not there
        self._error = error

    def _refuse(self, *_: Any) -> NoReturn:
        raise TierUnavailable(f"{self.context.name} could not be opened: {self._error}")

    get = put = delete = scan = _refuse  # type: ignore[assignment]  # whatever it is called with

    def close(self) -> None:
        """Nothing is open."""


def _key_ring(
    config: CacheConfig, schema: EntrySchema, levels: Sequence[Level], read_only: bool, registry: PluginRegistry
) -> KeyRing | None:
    needed = needs_key(schema)
    sources = KeySources.of(config, registry, Environment(), needed=needed)
    stored = [level for level in levels if not level.live]
    written = needed and not read_only and any(level.in_service for level in stored)
    if written:
        return sources.resolve(key_policy=config.key_policy, ciphertext=lambda: _why_no_new_key(stored))
    if not config.accept and not any(level.in_service for level in stored):
        return None
    # Without secrets a key only makes tampering evident: one that was given is used, none is looked for or made.
    ring = sources.find()
    if ring is None and needed:
        logger.info("no encryption key was found: sealed records cannot be read")
    return ring


def _why_no_new_key(stored: Sequence[Level]) -> str:
    """Why a new key could not open what is stored; nothing if nothing is."""
    for level in stored:
        if not level.in_service:
            return f"{level.name} is out of service and may hold secrets, which a new key could not open"
        if any(True for _ in islice(level.scan(), 1)):
            return "the storage holds secrets already, which a new key could not open"
    return ""


def _warn_of_foreign_keys(levels: Sequence[Level], sealer: Sealer) -> None:
    """Say at once that a key is wrong or missing, and not at the first read: by the first records of each level."""
    held = ", ".join(sealer.key_ids) or "none"
    for level in levels:
        if level.live or not level.in_service:
            continue
        try:
            looked_at, foreign = _keys_not_held(level, sealer)
        except (CacheStorageError, CacheCorruptionError) as error:
            logger.warning("%s could not be read: %s", level.name, str(error))
            continue
        if foreign:
            logger.warning(
                "%s: of the first %d records %d were sealed with keys that are not held: %s (held: %s): they cannot be "
                "read and are left as they are, but a put of the same key replaces one; add the keys that are missing",
                level.name,
                looked_at,
                foreign.total(),
                ", ".join(f"{key_id} ({count})" for key_id, count in foreign.most_common()),
                held,
            )


def _keys_not_held(level: Level, sealer: Sealer) -> tuple[int, Counter[str]]:
    """How many records were looked at, and how many need each key that is not held."""
    rows = list(islice(level.scan(), LOOKED_AT_FOR_KEYS))
    needed = map(sealer.key_not_held, rows)
    return len(rows), Counter(key_id for key_id in needed if key_id)
