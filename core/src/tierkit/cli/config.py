"""`tierkit config`: the configuration in effect, and where each value came from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tierkit.cli.keys import key_sources
from tierkit.cli.output import cell, json_option, show, table, write_json
from tierkit.cli.settings import Settings, global_options, pass_settings
from tierkit.cli.text import MASK
from tierkit.errors import CacheConfigError, TransferError
from tierkit.settings_sources import ENVIRONMENT

if TYPE_CHECKING:
    from tierkit.config import CacheConfig, ResolvedTier
    from tierkit.entry import CacheEntry
    from tierkit.key_sources import KeySources
    from tierkit.settings import Setting


@click.command(short_help="Show the settings in effect and where they come from.")
@json_option
@global_options
@pass_settings
def config(settings: Settings, as_json: bool) -> None:
    """Show every setting in effect with its origin, and check that a cache can open by them. Secrets are masked."""
    from tierkit.plugins import discover

    effective = settings.config()
    items = [_with_key(item, effective) for item in effective.effective()]
    if as_json:
        write_json({item.name: {"value": item.value_text, "origin": item.origin} for item in items})
    else:
        _print(items)
    registry = discover()
    effective.check_observers(registry)
    effective.check_observer_options(registry)
    if effective.cache_enabled:
        levels = effective.resolve(registry)
        sources = key_sources(effective, registry, settings.entry_type())
        _check_surroundings(effective, levels, settings.entry_type(), sources)


def _check_surroundings(
    effective: CacheConfig, levels: Sequence[ResolvedTier], entry_type: type[CacheEntry], sources: KeySources
) -> None:
    """Look for what an opening reads beside the levels: keys, if any level stores rows, and files to warm from."""
    from tierkit.tier import Trait

    if effective.accept or any(Trait.LIVE not in level.spec.traits for level in levels):
        sources.check(effective.key_policy)
    for path in effective.warm_files:
        _check_warm_file(path, entry_type)


def _check_warm_file(path: Path, entry_type: type[CacheEntry]) -> None:
    from tierkit.transfer import check_file

    try:
        check_file(path, entry_type)
    except TransferError as error:
        raise CacheConfigError(f"warm_files: {error}") from None


def _with_key(item: Setting, effective: CacheConfig) -> Setting:
    """The key may stand in an environment variable, which is read when a cache is opened."""
    if item.name != "encryption_key" or effective.encryption_key is not None:
        return item
    from tierkit.key_sources import key_variables

    variable = next((name for name in key_variables(effective) if os.environ.get(name, "").strip()), None)
    return item if variable is None else replace(item, value_text=MASK, origin=f"{ENVIRONMENT}{variable}")


def _print(items: list[Setting]) -> None:
    made = table("setting", "value", "from")
    for item in items:
        style = "dim" if item.origin == "default" else ""
        made.add_row(cell(item.name, "cyan"), cell(item.value_text, style), cell(item.origin, style))
    show(made)
