"""`tierkit keys` and `tierkit rotate`: which keys the records need, and how the older ones are done without."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tierkit.cli.exits import Unreadable
from tierkit.cli.keys import key_sources
from tierkit.cli.output import cell, json_option, note, show, table, write_json, write_line
from tierkit.cli.progress import progress
from tierkit.cli.settings import Settings, global_options, pass_settings
from tierkit.errors import TierUnavailable

if TYPE_CHECKING:
    from rich.table import Table

    from tierkit.config import CacheConfig
    from tierkit.rotation import KeyStatus


@click.command(short_help="Show which encryption keys the records need.")
@click.option("--generate", is_flag=True, help="Print a new key instead, and do nothing else.")
@json_option
@global_options
@pass_settings
def keys(settings: Settings, *, generate: bool, as_json: bool) -> None:
    """Show which encryption keys are held, where they were found, and how many records of each level need which.

    Of a key only its id is shown, which every record names anyway.
    """
    if generate:
        _generate()
        return
    with settings.open(read_only=True) as cache, progress(settings, "tierkit.rotation", logs=False) as progress_of:
        status, found_in = cache.key_status(progress_of("reading")), key_origin(cache.config)
    if as_json:
        write_json(_as_json(status) | {"found_in": found_in})
    else:
        _print_keys(status, found_in)
    _check_readable(status)
    unheld = sorted({key for level in status.levels for key in level.others} - set(status.older))
    if unheld:
        raise Unreadable(f"records need keys that are not held: {', '.join(unheld)}")


@click.command(short_help="Seal every record with the current key.")
@json_option
@global_options
@pass_settings
def rotate(settings: Settings, *, as_json: bool) -> None:
    """Seal all that an older key has sealed with the current one, and leave nothing of it in the storage.

    The current key is the first of those that are held. Programs that use the storage may run meanwhile if they hold
    all of them. It may be stopped at any time: called again it goes on with what is left. It ends with 0 only if no
    record needs an older key any more.
    """
    with settings.open(read_only=False) as cache, progress(settings, "tierkit.rotation") as progress_of:
        result, found_in = cache.rotate(progress_of("rotating")), key_origin(cache.config)
    status, remains = result.status, list(result.remains())
    if as_json:
        counted = {"resealed": result.resealed, "retired": list(result.retired), "remains": remains}
        write_json(_as_json(status) | counted | {"found_in": found_in})
    else:
        show(_levels(status))
        write_line(f"\n{result.resealed:,} records were sealed anew with the current key, {status.primary or 'none'}.")
        for key in result.retired:
            write_line(f"The key {key} can go: no record here needs it. Rotate what else uses {found_in}, too.")
    _check_readable(status)
    if result.failures:
        raise TierUnavailable("; ".join(remains))
    if remains:
        raise Unreadable("; ".join(remains))


def key_origin(config: CacheConfig) -> str | None:
    """Where the keys of a cache are found; None if nowhere."""
    from tierkit.plugins import discover

    ring = key_sources(config, discover()).find()
    return ring.origin if ring else None


def _generate() -> None:
    from tierkit.keys import new_key, parse_keys

    key = new_key()
    note(
        f"a new key with the id {parse_keys(key).primary.id}: let nobody read it, and write it where only you can read"
    )
    write_line(key.get_secret_value())


def _check_readable(status: KeyStatus) -> None:
    broken = [f"{level.name} cannot be read: {level.error}" for level in status.levels if level.error]
    if broken:
        raise TierUnavailable("; ".join(broken))


def _as_json(status: KeyStatus) -> dict[str, Any]:
    return {
        "current": status.primary or None,
        "older": list(status.older),
        "retired": list(status.retired),
        "levels": [asdict(level) for level in status.levels],
    }


def _print_keys(status: KeyStatus, found_in: str | None) -> None:
    if not status.levels:
        write_line("The configuration has no level that stores records.")
        return
    made = table("key", "is", "records that name it", right=("records that name it",))
    counts = {key: sum(level.others.get(key, 0) for level in status.levels) for key in _others(status)}
    current = sum(level.current for level in status.levels)
    if status.primary:
        made.add_row(cell(status.primary, "bold cyan"), "current", f"{current:,}")
    for key, count in counts.items():
        held = key in status.older
        what = ("held" if count else "held, and not needed here") if held else "not held"
        made.add_row(cell(key, "cyan"), cell(what, "" if held else "red"), f"{count:,}")
    show(made, _levels(status))
    write_line(f"\nKeys are held in {found_in}." if found_in else "\nNo key is held.")


def _others(status: KeyStatus) -> list[str]:
    return list(dict.fromkeys([*status.older, *(key for level in status.levels for key in level.others)]))


def _levels(status: KeyStatus) -> Table:
    numbers = ("records", "on the current key", "damaged")
    made = table("level", "kind", *numbers, "others", right=numbers)
    for level in status.levels:
        made.add_row(
            cell(level.name, "bold cyan"),
            cell(level.kind),
            f"{level.records:,}",
            cell(f"{level.current:,} of {level.records:,}", "green" if level.current == level.records else "yellow"),
            cell(f"{level.damaged:,}", "red" if level.damaged else "dim"),
            cell(", ".join(f"{key}: {count:,}" for key, count in level.others.items()) or "-"),
        )
    return made
