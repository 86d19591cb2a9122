"""tierkit: records that go bad, kept in a stack of storage tiers."""

import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tierkit.admission import AdmissionFactory, AdmissionPolicy
from tierkit.blob import BlobTier
from tierkit.bulk import OnInvalid
from tierkit.clock import Clock, SystemClock
from tierkit.config import CacheConfig, CacheTierConfig
from tierkit.encryptor import CredentialEncryptor
from tierkit.entry import CacheEntry, HealthStatus, ProxyEntry, Usage, ValueEntry
from tierkit.errors import (
    CacheClosedError,
    CacheConfigError,
    CacheCorruptionError,
    CacheStorageError,
    CacheValidationError,
    EncryptionKeyError,
    KeyNotHeldError,
    LoadError,
    LoadTimeout,
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
from tierkit.eviction import EVICTION_POLICIES, EvictionPolicy, Held, KeyOrder, PolicyFactory
from tierkit.expiry import TTLManager
from tierkit.export_format import ExportFormat, FlatRecord, FormatFactory, Unreadable
from tierkit.filters import above, at_least, at_most, below, between, contains, other_than
from tierkit.findings import Finding, FindingKind
from tierkit.health import HealthResult
from tierkit.hookspecs import hookimpl
from tierkit.keys import KeyProvider, KeyRing
from tierkit.latency import LatencyStatistics
from tierkit.level import Level
from tierkit.manager import CacheManager
from tierkit.metrics import METRICS, Metric, ObservedCaches, Sample, samples
from tierkit.observers import CacheObserver
from tierkit.plugins import PluginRegistry, discover
from tierkit.query import Condition, Contains, NoneOf, OneOf, Query, Range
from tierkit.row import ColumnType, ColumnValue, Delta, Record, Row, key_digest, pack_row, unpack_row, with_usage
from tierkit.settings import Setting
from tierkit.statistics import CacheStatistics, TierStatistics
from tierkit.tier import (
    ANY_POLICY,
    API_VERSION,
    CacheTier,
    Durability,
    TierContext,
    TierSpec,
    Trait,
    coldness,
    delete_refusal,
    refusal,
)

if TYPE_CHECKING:
    from tierkit.cache import Cache, LoadSettings, Memoized
    from tierkit.checking import Checker, CheckResult
    from tierkit.doctor import Examination
    from tierkit.explanation import Decision, Explanation, LevelState
    from tierkit.leases import Lease
    from tierkit.leasing import LeasedEntry
    from tierkit.progress import OnProgress
    from tierkit.rotation import KeyStatus, LevelKeys, RotationResult
    from tierkit.transfer import Reject, WarmResult
    from tierkit.transfer.results import BackupInfo, ExportResult, ImportReject, ImportResult, RestoreResult
    from tierkit_jsonl import FileCacheTier
    from tierkit_memory import MemoryCacheTier
    from tierkit_sqlite import SQLiteCacheTier

__version__ = "0.1.0"

_LATE = {
    "MemoryCacheTier": "tierkit_memory",
    "FileCacheTier": "tierkit_jsonl",
    "SQLiteCacheTier": "tierkit_sqlite",
    "Cache": "tierkit.cache",
    "LoadSettings": "tierkit.cache",
    "Memoized": "tierkit.cache",
    "Checker": "tierkit.checking",
    "CheckResult": "tierkit.checking",
    "Decision": "tierkit.explanation",
    "Explanation": "tierkit.explanation",
    "LevelState": "tierkit.explanation",
    "Lease": "tierkit.leases",
    "LeasedEntry": "tierkit.leasing",
    "Examination": "tierkit.doctor",
    "KeyStatus": "tierkit.rotation",
    "LevelKeys": "tierkit.rotation",
    "RotationResult": "tierkit.rotation",
    "OnProgress": "tierkit.progress",
    "Reject": "tierkit.transfer",
    "WarmResult": "tierkit.transfer",
    "BackupInfo": "tierkit.transfer.results",
    "ExportResult": "tierkit.transfer.results",
    "ImportReject": "tierkit.transfer.results",
    "ImportResult": "tierkit.transfer.results",
    "RestoreResult": "tierkit.transfer.results",
}


def __getattr__(name: str) -> Any:
    """What not every program uses is loaded when it is asked for: see `_LATE`."""
    if name not in _LATE:
        raise AttributeError(f"module 'tierkit' has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)


if not getattr(sys, "_is_gil_enabled", lambda: True)():
    warnings.warn(
        "this Python runs without its global lock, which the usage of records relies on:"
        " records are safe and statistics exact, but access counts may be a little low",
        RuntimeWarning,
        stacklevel=2,
    )

__all__ = [
    "ANY_POLICY",
    "API_VERSION",
    "EVICTION_POLICIES",
    "METRICS",
    "AdmissionFactory",
    "AdmissionPolicy",
    "BackupInfo",
    "BlobTier",
    "Cache",
    "CacheClosedError",
    "CacheConfig",
    "CacheConfigError",
    "CacheCorruptionError",
    "CacheEntry",
    "CacheManager",
    "CacheObserver",
    "CacheStatistics",
    "CacheStorageError",
    "CacheTier",
    "CacheTierConfig",
    "CacheValidationError",
    "CheckResult",
    "Checker",
    "Clock",
    "ColumnType",
    "ColumnValue",
    "Condition",
    "Contains",
    "CredentialEncryptor",
    "Decision",
    "Delta",
    "Durability",
    "EncryptionKeyError",
    "EvictionPolicy",
    "Examination",
    "Explanation",
    "ExportFormat",
    "ExportResult",
    "FileCacheTier",
    "Finding",
    "FindingKind",
    "FlatRecord",
    "FormatFactory",
    "HealthResult",
    "HealthStatus",
    "Held",
    "ImportReject",
    "ImportResult",
    "KeyNotHeldError",
    "KeyOrder",
    "KeyProvider",
    "KeyRing",
    "KeyStatus",
    "LatencyStatistics",
    "Lease",
    "LeasedEntry",
    "Level",
    "LevelKeys",
    "LevelState",
    "LoadError",
    "LoadSettings",
    "LoadTimeout",
    "Memoized",
    "MemoryCacheTier",
    "Metric",
    "NoneOf",
    "ObservedCaches",
    "OnInvalid",
    "OnProgress",
    "OneOf",
    "PluginError",
    "PluginRegistry",
    "PolicyFactory",
    "ProxyEntry",
    "Query",
    "Range",
    "Record",
    "Reject",
    "RestoreResult",
    "RotationResult",
    "Row",
    "SQLiteCacheTier",
    "Sample",
    "SchemaMismatchError",
    "SealingError",
    "Setting",
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
    "Unreadable",
    "Usage",
    "ValueEntry",
    "WarmResult",
    "above",
    "at_least",
    "at_most",
    "below",
    "between",
    "coldness",
    "contains",
    "delete_refusal",
    "discover",
    "hookimpl",
    "key_digest",
    "other_than",
    "pack_row",
    "refusal",
    "samples",
    "unpack_row",
    "with_usage",
]
