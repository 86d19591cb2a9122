"""`tierkit leases`: who holds which record, and taking one out of the hands of who will not return it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from tierkit.cli.arguments import key_of, shown_key
from tierkit.cli.exits import NOT_FOUND
from tierkit.cli.output import cell, json_option, note, show, table, write_json, write_json_line
from tierkit.cli.settings import Settings, global_options, pass_settings
from tierkit.cli.text import as_json as to_json
from tierkit.cli.text import deadline, duration

if TYPE_CHECKING:
    from tierkit.leases import Lease


@click.command(short_help="Show which records are leased, and to whom.")
@click.option("--release", metavar="KEY|URL", help="End the lease of this record, whoever holds it.")
@click.option("--username", metavar="NAME", help="The user name of the proxy at URL.")
@json_option
@global_options
@pass_settings
@click.pass_context
def leases(
    context: click.Context, settings: Settings, *, release: str | None, username: str | None, as_json: bool
) -> None:
    """Show which records are leased now, by whom (host, process, thread), since when, and until when.

    With --release a record is free at once. Its holder is not stopped: if it still runs, two may have the record.
    """
    if release is not None:
        _release(context, settings, key_of(settings, release, username), as_json)
        return
    if username is not None:
        raise click.UsageError("--username goes with --release and the URL of a proxy")
    with settings.open_to_look("to tell of leases") as cache:
        held = cache.leased()
    if as_json:
        for lease in held:
            write_json_line(_fields(lease))
    elif held:
        _print(held)
    else:
        note("No record is leased.")


def _release(context: click.Context, settings: Settings, key: str, as_json: bool) -> None:
    with settings.open(read_only=False) as cache:
        ended = cache.end_lease(key)
    if ended is None:
        note(f"tierkit: {shown_key(key)} is not leased")
        context.exit(NOT_FOUND.code)
    if as_json:
        write_json(_fields(ended))
    else:
        _print([ended])


def _fields(lease: Lease) -> dict[str, Any]:
    return {
        "key": lease.key,
        "holder": lease.holder,
        "since": to_json(lease.since),
        "until": to_json(lease.until),
        "token": lease.token,
    }


def _print(held: list[Lease]) -> None:
    now = datetime.now(UTC)
    made = table("key", "holder", "held for", "runs out")
    for lease in held:
        taken = duration((now - lease.since).total_seconds())
        made.add_row(cell(lease.key, "cyan"), cell(lease.holder), cell(taken), cell(deadline(lease.until, now)))
    show(made)
