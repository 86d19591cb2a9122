"""`tierkit plugins`: which kinds of tier, observers and formats can be used, and what cannot and why."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import click

from tierkit.cli.output import cell, json_option, show, table, write_json
from tierkit.cli.settings import Settings, global_options, pass_settings

if TYPE_CHECKING:
    from tierkit.plugins import BrokenPlugin, InstalledObserver, InstalledTier, PluginRegistry
    from tierkit.tier import Trait


@click.command(short_help="Show which tiers, observers and formats are installed.")
@json_option
@global_options
@pass_settings
def plugins(settings: Settings, as_json: bool) -> None:
    """Show the kinds of tier, the observers and the formats of exports that are installed, and what failed to load."""
    from tierkit.plugins import discover

    settings.log_at(logging.CRITICAL)  # what is broken stands in the answer
    registry = discover()
    if as_json:
        write_json(_as_json(registry))
    else:
        _print(registry)


def _as_json(registry: PluginRegistry) -> dict[str, Any]:
    return {
        "installed": [
            {
                "kind": tier.kind,
                "traits": trait_names(tier.traits),
                "distribution": tier.distribution,
                "version": tier.version,
                "entry_point": tier.entry_point,
                "summary": tier.summary,
            }
            for tier in registry.installed
        ],
        "observers": [
            {
                "name": observer.name,
                "distribution": observer.distribution,
                "version": observer.version,
                "entry_point": observer.entry_point,
                "summary": observer.summary,
            }
            for observer in registry.observers
        ],
        "formats": [{"name": name, "from": origin} for name, _, origin in registry.formats.all()],
        "broken": [
            {"name": plugin.name, "distribution": plugin.distribution, "error": plugin.error}
            for plugin in registry.broken
        ],
    }


def _print(registry: PluginRegistry) -> None:
    none = "No kind of tier is installed: try `pip install tierkit`."
    blocks = [_installed(registry.installed) if registry.installed else none]
    if registry.observers:
        blocks.append(_observers(registry.observers))
    blocks.append(_formats(registry))
    if registry.broken:
        blocks.append(_broken(registry.broken))
    show(*blocks)


def _installed(tiers: tuple[InstalledTier, ...]) -> Any:
    made = table("kind", "from", "traits", "summary")
    for tier in tiers:
        origin = f"{tier.distribution} {tier.version}".strip() or "code"
        traits = ", ".join(trait_names(tier.traits)) or "-"
        made.add_row(cell(tier.kind, "bold cyan"), cell(origin), cell(traits), cell(tier.summary))
    return made


def _observers(observers: tuple[InstalledObserver, ...]) -> Any:
    made = table("observer", "from", "summary")
    for observer in observers:
        origin = f"{observer.distribution} {observer.version}".strip() or "code"
        made.add_row(cell(observer.name, "bold cyan"), cell(origin), cell(observer.summary))
    return made


def _formats(registry: PluginRegistry) -> Any:
    made = table("format", "from")
    for name, _, origin in registry.formats.all():
        made.add_row(cell(name, "bold cyan"), cell(origin))
    return made


def _broken(plugins: list[BrokenPlugin]) -> Any:
    made = table("cannot be used", "from", "why")
    for plugin in plugins:
        made.add_row(cell(plugin.name, "bold red"), cell(plugin.distribution), cell(plugin.error))
    return made


def trait_names(traits: Trait) -> list[str]:
    """The names of `traits` as documents spell them."""
    return [trait.name for trait in traits if trait.name]
