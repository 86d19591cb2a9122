"""What a plugin may hook, as a menu.

A plugin is a module named by an entry point in the group `tierkit`; it marks its functions with `tierkit.hookimpl`.
Hooks run while a cache is being built, never while it serves.

What they speak of is imported from `tierkit`. Where it is written down:

- `tier.py`: `TierSpec`, `CacheTier`, `TierContext`, `Trait`; `row.py`: `Row`; `errors.py`: what a tier raises.
- `blob.py`: `BlobTier`, the short way for backends that keep plain bytes by key.
- `eviction/policy.py`: `EvictionPolicy`, an order of keys. `eviction/key_order.py`: `KeyOrder`, which keeps one for a
  tier that outlives the process.
- `admission.py`: `AdmissionPolicy`, the door of a level.
- `observers.py`: `CacheObserver`, what is told of events.
- `export_format.py`: `ExportFormat`, how records become a file and are read again; `Unreadable`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import pluggy
from pydantic import BaseModel

from tierkit.admission import AdmissionFactory
from tierkit.eviction import PolicyFactory
from tierkit.export_format import FormatFactory
from tierkit.keys import KeyProvider
from tierkit.observers import CacheObserver
from tierkit.tier import TierSpec

ENTRY_POINT_GROUP: Final = "tierkit"

hookspec = pluggy.HookspecMarker(ENTRY_POINT_GROUP)
hookimpl = pluggy.HookimplMarker(ENTRY_POINT_GROUP)


@hookspec
def register_tiers() -> Sequence[TierSpec]:  # type: ignore[empty-body]  # a hook has no body
    """The kinds of tier that this plugin offers.

    Called once, at discovery. Import backends inside the factories: every cache start pays for what is imported here.
    """


@hookspec
def register_eviction_policies() -> Mapping[str, PolicyFactory]:  # type: ignore[empty-body]  # likewise
    """The eviction policies that this plugin offers, by the name that a configuration uses.

    Called once, at discovery. Each is a subclass of `EvictionPolicy`, or what makes one for a number of keys. It serves
    every bounded tier that takes any policy.
    """


@hookspec
def make_observer(cache_name: str, options: Mapping[str, Any]) -> CacheObserver:  # type: ignore[empty-body]  # likewise
    """What is to watch the cache called `cache_name`.

    Called when a cache opens whose `observers` name this plugin, by its entry point. `options` are those that the
    configuration gives in `observer_options`, as they were given: a pydantic model that refuses what it does not know
    checks them. A plugin without options leaves the argument out, and giving it any is an error.
    """


@hookspec
def register_observer_options() -> type[BaseModel]:  # type: ignore[empty-body]  # likewise
    """The pydantic model of the options of this plugin's observer.

    Called once, at discovery. With it options are checked before the observer is made, and by `tierkit config`, which
    makes none; a message for one that the model forbids names the nearest that there is.
    """


@hookspec
def register_admission_policies() -> Mapping[str, AdmissionFactory]:  # type: ignore[empty-body]  # likewise
    """The admission policies that this plugin offers, by the name that a configuration uses.

    Called once, at discovery. Each is a subclass of `AdmissionPolicy`, or what makes one for a number of entries.
    """


@hookspec
def register_key_providers() -> Mapping[str, KeyProvider]:  # type: ignore[empty-body]  # likewise
    """The sources of encryption keys that this plugin offers, by the name that the setting `key_provider` uses.

    Called once, at discovery. A provider is called when a cache opens that asks for it and finds no key before. It
    gets the name of the cache, and answers a `SecretStr` (a Fernet key, or several with commas between, the newest
    first) or None. What it raises is reported by its type alone.
    """


@hookspec
def register_formats() -> Mapping[str, FormatFactory]:  # type: ignore[empty-body]  # likewise
    """The formats of exported files that this plugin offers, by the extension of their names, without the dot.

    Called once, at discovery. Each is a subclass of `ExportFormat`, or what makes one; it is made anew for each file
    that is written or read. Import what it needs in its methods. A name may have `.gz` behind the extension: then the
    core compresses what the format writes.
    """
