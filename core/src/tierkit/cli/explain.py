"""`tierkit explain`: where a record is, what `get` would answer, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tierkit.cli.arguments import key_of, other_proxy, shown_key
from tierkit.cli.exits import NOT_FOUND
from tierkit.cli.output import cell, json_option, note, show, table, write_json, write_line
from tierkit.cli.settings import Settings, global_options, pass_settings
from tierkit.cli.text import clean, moment, size, when

if TYPE_CHECKING:
    from rich.table import Table

    from tierkit.explanation import Explanation, LevelState


@click.command(short_help="Say where a record is, and why.")
@click.argument("key", metavar="KEY|URL")
@click.option("--username", metavar="NAME", help="The user name of the proxy at URL.")
@json_option
@global_options
@pass_settings
@click.pass_context
def explain(context: click.Context, settings: Settings, *, key: str, username: str | None, as_json: bool) -> None:
    """Say which levels hold a record, what `get` would answer and why, and what was last decided of it.

    Nothing is changed. The record is named by its key or, if it is a proxy, by its URL.
    """
    given, key = key, key_of(settings, key, username)
    with settings.open(read_only=True) as cache:
        found, persisted = cache.explain(key), cache.config.decisions_persisted
    if as_json:
        write_json(found.as_json())
    elif found.known:
        _print(found, persisted=persisted)
    if not found.known:
        other = other_proxy(settings, given, username)
        note(f"tierkit: no level holds {shown_key(key)}, and no decision about it is kept{other}")
        context.exit(NOT_FOUND.code)


def _print(found: Explanation, *, persisted: bool) -> None:
    write_line(clean(found.why))
    if found.waits_in:
        write_line(f"A write of it waits in {found.waits_in} for the lowest level.")
    if found.leased_by and found.leased_until:
        write_line(clean(f"It is leased by {found.leased_by} until {moment(found.leased_until)}."))
    write_line("")
    show(_levels(found))
    write_line("")
    if found.decisions:
        show(_decisions(found))
    else:
        write_line("No decision about it is kept." + ("" if persisted else " Set decisions_persisted = true."))


def _levels(found: Explanation) -> Table:
    made = table("level", "kind", "has", "version", "deadline", "health", "reads", "keys", "size", "remark")
    for level in found.levels:
        made.add_row(cell(level.name, "bold cyan"), cell(level.kind), cell(level.state), *map(cell, _facts(level)))
    return made


def _facts(level: LevelState) -> tuple[str, ...]:
    version = "-" if level.version is None else f"{level.version}{', the newest' if level.newest else ''}"
    health = "-" if level.health is None else f"{level.health}, {level.failure_count} failures"
    reads = "-" if level.access_count is None else f"{level.access_count:,}"
    remarks = [level.trouble, "the lowest level is owed it" if level.owed else ""]
    remarks.append(f"not held: {', '.join(level.keys_not_held)}" if level.keys_not_held else "")
    keys = ", ".join(level.key_ids) or "-"
    return version, _deadline(level), health, reads, keys, size(level.size_bytes), "; ".join(filter(None, remarks))


def _deadline(level: LevelState) -> str:
    if level.seconds_left is None:
        return "-" if level.health is None else "never"
    return when(level.seconds_left)


def _decisions(found: Explanation) -> Table:
    made = table("when", "level", "decided", "until", "why")
    for one in found.decisions:
        until = "" if one.until is None else moment(one.until)
        made.add_row(*map(cell, (moment(one.at), one.level, one.what, until, one.why)))
    return made
