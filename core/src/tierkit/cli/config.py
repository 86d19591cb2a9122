"""`tierkit config`: the configuration in effect, and where each value came from."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from tierkit.cli.keys import key_variables
from tierkit.cli.output import cell, json_option, show, table, write_json
from tierkit.cli.settings import Settings, global_options, pass_settings
from tierkit.cli.text import MASK
from tierkit.settings_sources import ENVIRONMENT

if TYPE_CHECKING:
    from tierkit.config import CacheConfig
    from tierkit.settings import Setting


@click.command(short_help="Show the settings in effect and where they come from.")
@json_option
@global_options
@pass_settings
def config(settings: Settings, as_json: bool) -> None:
    """Show every setting in effect with its origin, and check that the stack can work. Secrets are masked."""
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
        effective.resolve(registry)


def _with_key(item: Setting, effective: CacheConfig) -> Setting:
    """The key may stand in an environment variable, which is read when a cache is opened."""
    if item.name != "encryption_key" or effective.encryption_key is not None:
        return item
    variable = next((name for name in key_variables(effective) if os.environ.get(name, "").strip()), None)
    return item if variable is None else replace(item, value_text=MASK, origin=f"{ENVIRONMENT}{variable}")


def _print(items: list[Setting]) -> None:
    made = table("setting", "value", "from")
    for item in items:
        style = "dim" if item.origin == "default" else ""
        made.add_row(cell(item.name, "cyan"), cell(item.value_text, style), cell(item.origin, style))
    show(made)
