"""`tierkit config`: the configuration in effect, and where each value came from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tierkit.cli.output import cell, json_option, show, table, write_json
from tierkit.cli.settings import Settings, global_options, pass_settings

if TYPE_CHECKING:
    from tierkit.config import CacheConfig


@click.command(short_help="Show the settings in effect and where they come from.")
@json_option
@global_options
@pass_settings
def config(settings: Settings, as_json: bool) -> None:
    """Show every setting in effect with its origin, and check that the stack can work. Secrets are masked."""
    from tierkit.plugins import discover

    effective = settings.config()
    if as_json:
        write_json({item.name: {"value": item.value_text, "origin": item.origin} for item in effective.effective()})
    else:
        _print(effective)
    if effective.cache_enabled:
        effective.resolve(discover())


def _print(effective: CacheConfig) -> None:
    made = table("setting", "value", "from")
    for item in effective.effective():
        style = "dim" if item.origin == "default" else ""
        made.add_row(cell(item.name, "cyan"), cell(item.value_text, style), cell(item.origin, style))
    show(made)
