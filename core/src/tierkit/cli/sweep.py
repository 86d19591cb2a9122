"""`tierkit sweep`: remove what expired, now."""

from __future__ import annotations

import click

from tierkit.cli.output import json_option, write_json, write_line
from tierkit.cli.progress import progress
from tierkit.cli.settings import Settings, global_options, pass_settings
from tierkit.errors import TierUnavailable


@click.command(short_help="Remove what expired.")
@json_option
@global_options
@pass_settings
def sweep(settings: Settings, *, as_json: bool) -> None:
    """Remove what expired from every level now, as a program that has the cache open does at intervals."""
    with settings.open(read_only=False) as cache, progress(settings, "tierkit.sweeper") as progress_of:
        removed = cache.sweep(progress_of("sweeping"))
        failed = [level.name for level in cache.levels if level.counters.failures or not level.in_service]
    if as_json:
        write_json({"removed": removed, "failed": failed})
    else:
        write_line(f"{removed:,} expired records were removed.")
    if failed:
        raise TierUnavailable(f"{', '.join(failed)} could not be swept (-v shows why)")
