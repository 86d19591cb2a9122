"""tierkit: records that go bad, kept in a stack of storage tiers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tierkit.blob import BlobTier
from tierkit.clock import VERSION_MAX, Clock, SystemClock
from tierkit.config import CacheConfig, CacheTierConfig
from tierkit.entry import CacheEntry, HealthStatus, ProxyEntry, Usage, ValueEntry
from tierkit.errors import (
    CacheClosedError,
    CacheConfigError,
    CacheCorruptionError,
    CacheStorageError,
    CacheValidationError,
    EncryptionKeyError,
    KeyNotHeldError,
    PluginError,
    SchemaMismatchError,
    SealingError,
    TamperedError,
    TierCorrupt,
    TierFull,
    TierkitError,
    TierReadOnly,
    TierTimeout,
    TierUnavailable,
    TransferError,
    UnknownTierError,
)
from tierkit.eviction import EVICTION_POLICIES, EvictionPolicy
from tierkit.expiry import TTLManager
from tierkit.hookspecs import hookimpl
from tierkit.level import Level
from tierkit.manager import CacheManager
from tierkit.row import ColumnType, ColumnValue, Delta, Record, Row, pack_row, unpack_row, with_usage
from tierkit.sealing import CredentialEncryptor
from tierkit.statistics import CacheStatistics, TierStatistics
from tierkit.tier import (
    API_VERSION,
    CacheTier,
    Durability,
    TierContext,
    TierSpec,
    Trait,
    coldness,
    delete_refusal,
    key_digest,
    refusal,
)

if TYPE_CHECKING:
    from tierkit_jsonl import FileCacheTier
    from tierkit_memory import MemoryCacheTier
    from tierkit_sqlite import SQLiteCacheTier

__version__ = "0.1.0"

_TIERS = {
    "MemoryCacheTier": "tierkit_memory",
    "FileCacheTier": "tierkit_jsonl",
    "SQLiteCacheTier": "tierkit_sqlite",
}


def __getattr__(name: str) -> Any:
    """The tiers that ship live in plugins of their own; here they are loaded when they are asked for."""
    if name not in _TIERS:
        raise AttributeError(f"module 'tierkit' has no attribute {name!r}")
    return getattr(import_module(_TIERS[name]), name)


__all__ = [
    "API_VERSION",
    "EVICTION_POLICIES",
    "VERSION_MAX",
    "BlobTier",
    "CacheClosedError",
    "CacheConfig",
    "CacheConfigError",
    "CacheCorruptionError",
    "CacheEntry",
    "CacheManager",
    "CacheStatistics",
    "CacheStorageError",
    "CacheTier",
    "CacheTierConfig",
    "CacheValidationError",
    "Clock",
    "ColumnType",
    "ColumnValue",
    "CredentialEncryptor",
    "Delta",
    "Durability",
    "EncryptionKeyError",
    "EvictionPolicy",
    "FileCacheTier",
    "HealthStatus",
    "KeyNotHeldError",
    "Level",
    "MemoryCacheTier",
    "PluginError",
    "ProxyEntry",
    "Record",
    "Row",
    "SQLiteCacheTier",
    "SchemaMismatchError",
    "SealingError",
    "SystemClock",
    "TTLManager",
    "TamperedError",
    "TierContext",
    "TierCorrupt",
    "TierFull",
    "TierReadOnly",
    "TierSpec",
    "TierStatistics",
    "TierTimeout",
    "TierUnavailable",
    "TierkitError",
    "Trait",
    "TransferError",
    "UnknownTierError",
    "Usage",
    "ValueEntry",
    "coldness",
    "delete_refusal",
    "hookimpl",
    "key_digest",
    "pack_row",
    "refusal",
    "unpack_row",
    "with_usage",
]
