"""`tierkit count`, `delete` and `invalidate`: what is done to all records that conditions hold of."""

from __future__ import annotations

import sys
from typing import Any

import click

from tierkit.cli.arguments import key_of, other_proxy, shown_key
from tierkit.cli.exits import NOT_FOUND, STORAGE
from tierkit.cli.output import json_option, note, write_json, write_line
from tierkit.cli.settings import Settings, global_options, pass_settings
from tierkit.cli.where import filters_given, where_options

_dry_run = click.option("--dry-run", is_flag=True, help="Change nothing; say how many records it would be.")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")


@click.command(short_help="Count records.")
@where_options
@click.option("--all", "include_expired", is_flag=True, help="Expired records too.")
@json_option
@global_options
@pass_settings
def count(
    settings: Settings,
    *,
    source: str | None,
    health: str | None,
    conditions: tuple[str, ...],
    include_expired: bool,
    as_json: bool,
) -> None:
    """Count the records of the lowest persistent level of which every condition holds."""
    filters = filters_given(settings.entry_type(), conditions, source, health)
    with settings.open(read_only=True) as cache:
        found = cache.count(include_expired=include_expired, where=filters)
    if as_json:
        write_json({"count": found})
    else:
        write_line(str(found))


@click.command(short_help="Delete records.")
@click.argument("keys", metavar="[KEY|URL]...", nargs=-1)
@where_options
@click.option("--all", "include_expired", is_flag=True, help="With conditions: expired records too.")
@_dry_run
@_yes
@json_option
@global_options
@pass_settings
@click.pass_context
def delete(
    context: click.Context,
    settings: Settings,
    *,
    keys: tuple[str, ...],
    source: str | None,
    health: str | None,
    conditions: tuple[str, ...],
    include_expired: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete the records of these KEYs, or all of which every condition holds, from every level."""
    filters = filters_given(settings.entry_type(), conditions, source, health)
    if bool(keys) == bool(filters):
        raise click.UsageError("give keys, or conditions (--where, --source, --health), and not both")
    if keys:
        named = {given: key_of(settings, given, None) for given in keys}
        context.exit(_delete_keys(settings, named, dry_run=dry_run, as_json=as_json))
    asked: dict[str, Any] = {"include_expired": include_expired, "where": filters}
    if _is_wanted(settings, asked, "delete", dry_run=dry_run, yes=yes, as_json=as_json):
        with settings.open(read_only=False) as cache:
            _tell("deleted", cache.delete_where(**asked), as_json=as_json)


def _delete_keys(settings: Settings, named: dict[str, str], *, dry_run: bool, as_json: bool) -> int:
    with settings.open(read_only=dry_run) as cache:
        there = {given for given, key in named.items() if (key in cache if dry_run else cache.delete(key))}
    for given in named:
        if given not in there:
            note(f"tierkit: no record {shown_key(given)}{other_proxy(settings, given, None)}")
    _tell("would be deleted" if dry_run else "deleted", len(there), as_json=as_json)
    return 0 if there else NOT_FOUND.code


@click.command(short_help="Count a failure of records.")
@where_options
@_dry_run
@_yes
@json_option
@global_options
@pass_settings
@click.pass_context
def invalidate(
    context: click.Context,
    settings: Settings,
    *,
    source: str | None,
    health: str | None,
    conditions: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Count a failure of every record of which every condition holds; at `failure_threshold` it is removed."""
    filters = filters_given(settings.entry_type(), conditions, source, health)
    if not filters:
        raise click.UsageError("give conditions: --where, --source or --health")
    if not _is_wanted(settings, {"where": filters}, "invalidate", dry_run=dry_run, yes=yes, as_json=as_json):
        return
    with settings.open(read_only=False) as cache:
        result = cache.invalidate_where(where=filters)
    if as_json:
        counts = {name: getattr(result, name) for name in ("healthy", "unhealthy", "removed", "missing")}
        write_json({**counts, "error": None if result.error is None else str(result.error)})
    else:
        write_line(str(result))
    context.exit(0 if result.error is None else STORAGE.code)


def _is_wanted(
    settings: Settings, asked: dict[str, Any], verb: str, *, dry_run: bool, yes: bool, as_json: bool
) -> bool:
    """Whether to go on: after a question, unless it is answered already or nobody can be asked."""
    if yes and not dry_run:
        return True
    with settings.open(read_only=True) as cache:
        found = cache.count(**asked)
    if dry_run:
        _tell(f"would be {verb}d", found, as_json=as_json)
        return False
    if not sys.stdin.isatty():
        raise click.UsageError(f"this would {verb} {_records(found)}: add --yes to do so, or --dry-run to see how many")
    go_on: bool = click.confirm(f"{verb.capitalize()} {_records(found)}?", err=True)
    if not go_on:
        note("Nothing was changed.")
    return go_on


def _tell(done: str, found: int, *, as_json: bool) -> None:
    if as_json:
        write_json({done.replace(" ", "_"): found})
    else:
        write_line(f"{_records(found)} {done}")


def _records(found: int) -> str:
    return "1 record" if found == 1 else f"{found} records"
