"""Every error that tierkit raises, as one tree.

```
TierkitError
├── CacheConfigError (ValueError)          a setting is wrong; what was opened is closed again
│   ├── UnknownTierError (LookupError)     no plugin offers that kind of tier
│   └── PluginError                        a plugin is broken, or two offer one kind
├── CacheValidationError (ValueError)      a key, an entry or an argument was refused at the door
├── CacheClosedError (RuntimeError)        the cache has been closed
├── LoadError (RuntimeError)               a value could not be loaded: not what its loader raised
│   └── LoadTimeout (TimeoutError)         not within the time that the caller gave it
├── CacheStorageError (OSError)            a tier could not do its work
│   ├── TierUnavailable                    out of reach, broken, or taken out of service *
│   ├── TierFull                           no room left
│   ├── TierReadOnly (PermissionError)     cannot be written
│   └── TierTimeout (TimeoutError)         did not answer in time *
├── CacheCorruptionError (ValueError)      one record is not what was written
│   └── TierCorrupt                        raised by a tier that cannot decode a record
├── SealingError (ValueError)              a secret cannot be sealed or opened
│   ├── KeyNotHeldError                    sealed with a key we do not hold: record left alone
│   ├── TamperedError (CacheCorruptionError)   not what was sealed: record quarantined
│   └── EncryptionKeyError                 no usable encryption key, or a malformed one
├── SchemaMismatchError (ValueError)       written by an entry class that this one cannot read
└── TransferError (ValueError)             a file cannot be imported, exported or restored at all
```

Each also is the built-in exception that a caller would think of. A message says what was wrong,
with which value, and what to do; none ever holds a secret.

* Counts towards taking the level of that tier out of service; so does a bare `CacheStorageError`, and
whatever else a tier lets through, which becomes `TierUnavailable`. A level that is full or read-only
stays in service: it is read, and written again when a write succeeds (docs/adr/0011).
"""

from __future__ import annotations


class TierkitError(Exception):
    """Root of every error raised by tierkit."""


class CacheConfigError(TierkitError, ValueError):
    """A setting is unknown, without effect, or has a value that cannot work."""


class UnknownTierError(CacheConfigError, LookupError):
    """No installed plugin offers the kind of tier that was asked for."""


class PluginError(CacheConfigError):
    """A plugin could not be loaded or does what it must not, or two plugins offer the same kind."""


class CacheValidationError(TierkitError, ValueError):
    """A key, an entry, an entry type or an argument cannot be accepted.

    Attributes:
        reason: Why, without any value of the entry, for who does not know what its fields hold; empty if not given.
    """

    def __init__(self, message: str = "", *, reason: str = "") -> None:
        """Say what is wrong with which value, and the same without the value."""
        super().__init__(message)
        self.reason = reason


class CacheClosedError(TierkitError, RuntimeError):
    """The cache has been closed and takes no more calls."""


class LoadError(TierkitError, RuntimeError):
    """A value cannot be loaded: the load waits for itself, or ended its thread. What a loader raises is not this."""


class LoadTimeout(LoadError, TimeoutError):
    """A value was not loaded in the time that the caller would wait, and there is no stale one. The load goes on."""


class CacheStorageError(TierkitError, OSError):
    """A tier failed. Raise one of the four below.

    `TierUnavailable` and `TierTimeout` count towards taking its level out of service, `TierFull` and `TierReadOnly` do
    not. An exception of another library that a tier lets through counts, as `TierUnavailable`.
    """


class TierUnavailable(CacheStorageError):
    """The storage is out of reach or broken, which counts, or its level has been taken out of service."""


class TierFull(CacheStorageError):
    """The storage has no room left. What it holds is still read, so this takes no level out of service."""


class TierReadOnly(CacheStorageError, PermissionError):
    """The storage, or the way it was opened, does not allow writing. It is still read: as `TierFull`."""


class TierTimeout(CacheStorageError, TimeoutError):
    """The storage, or a lock on it, did not answer in time, which counts."""


class CacheCorruptionError(TierkitError, ValueError):
    """A stored record fails its check, its schema or its decryption."""


class TierCorrupt(CacheCorruptionError):
    """A tier holds something for this key that it cannot decode.

    The tier has set the damaged record aside before it raises this, so that the next call finds a miss.
    """


class SealingError(TierkitError, ValueError):
    """A secret cannot be sealed, or a sealed secret cannot be opened."""


class KeyNotHeldError(SealingError):
    """The record was sealed with a key that is not in the key ring. The record is left untouched."""


class TamperedError(SealingError, CacheCorruptionError):
    """The sealed secret, or what it is bound to, is not what was written."""


class EncryptionKeyError(SealingError):
    """There is no usable encryption key, or a key is malformed."""


class SchemaMismatchError(TierkitError, ValueError):
    """An intact record lacks what the entry class in use requires. The record is left untouched."""


class TransferError(TierkitError, ValueError):
    """A file cannot be imported, exported, backed up or restored: not readable, not whole, no export."""
