"""`tierkit export`, `import`, `backup` and `restore`: everything that a cache holds, to a file and from one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import click

from tierkit.cli.arguments import path_of
from tierkit.cli.exits import OK, RECORD, TRANSFER
from tierkit.cli.output import json_option, note, write_json, write_line
from tierkit.cli.progress import progress
from tierkit.cli.settings import Settings, global_options, pass_settings
from tierkit.cli.text import clean

_REASONS_SHOWN: Final = 5
_KEYS_APART: Final = (
    "The keys are not in it. Keep them elsewhere, for nobody can open it without these: {keys} (`tierkit keys` shows "
    "where they are found)"
)


def _path(context: click.Context, argument: click.Parameter, value: str | None) -> Path | None:
    return None if value is None else path_of(context, argument, value)


_file = click.argument("path", metavar="FILE", type=click.Path(), callback=_path)
_format = click.option(
    "--format", "form", metavar="FORMAT", help="The format, if the extension does not say it: jsonl, json, csv, ..."
)


@click.command(short_help="Write all records to a file.")
@_file
@_format
@click.option(
    "--secrets",
    type=click.Choice(["sealed", "plain", "none"]),
    default="sealed",
    show_default=True,
    help="Secrets as they are stored, in the clear, or left out.",
)
@json_option
@global_options
@pass_settings
@click.pass_context
def export(
    context: click.Context, settings: Settings, *, path: Path, form: str | None, secrets: Any, as_json: bool
) -> None:
    """Write all records to FILE: JSONL, JSON or CSV, each also with .gz at the end. `tierkit import` takes it back.

    FILE is replaced in one step once all is on the medium, and only its owner can read it. It ends with 6 if a record
    was left out, since it is damaged or needs a key that is not held.
    """
    with settings.open(read_only=True) as cache, progress(settings, "tierkit.transfer") as progress_of:
        result = cache.export_to_file(path, format=form, secrets=secrets, on_progress=progress_of(path.name))
    if as_json:
        write_json({**asdict(result), "path": str(path)})
    else:
        write_line(clean(str(result)))
    if secrets == "plain":
        note(f"{path} holds secrets in the clear: whoever can read it has them")
    context.exit((OK if result.complete else RECORD).code)


@click.command("import", short_help="Put the records of an exported file.")
@_file
@_format
@click.option(
    "--on-conflict",
    type=click.Choice(["newer", "replace"]),
    default="newer",
    show_default=True,
    help="Let a newer record stay, or put the one of FILE in its place.",
)
@click.option(
    "--rejects",
    metavar="FILE",
    type=click.Path(),
    callback=_path,
    help="The file for records that do not go in; by default FILE.rejects.jsonl.",
)
@click.option("--accept-damage", is_flag=True, help="Take what can be read of a file that was cut off or changed.")
@json_option
@global_options
@pass_settings
@click.pass_context
def import_(
    context: click.Context,
    settings: Settings,
    *,
    path: Path,
    form: str | None,
    on_conflict: Any,
    rejects: Path | None,
    accept_damage: bool,
    as_json: bool,
) -> None:
    """Put the records of FILE, which `tierkit export` wrote, as they were: deadline, health and usage included.

    For lists of other make there is `tierkit warm`. It ends with 4 if nothing could be imported, or with 6 if records
    were rejected.
    """
    with settings.open(read_only=False) as cache, progress(settings, "tierkit.transfer") as progress_of:
        result = cache.import_from_file(
            path,
            format=form,
            on_conflict=on_conflict,
            rejects=rejects,
            accept_damage=accept_damage,
            on_progress=progress_of(path.name),
        )
    if as_json:
        kept = None if result.rejects_path is None else str(result.rejects_path)
        write_json({**asdict(result), "path": str(path), "rejects_path": kept})
    else:
        write_line(clean(str(result)))
        for reject in result.rejects[:_REASONS_SHOWN]:
            write_line(clean(f"rejected: {reject}"))
        if result.rejected:
            write_line(clean(f"all {result.rejected:,} that were rejected, with reasons: {result.rejects_path}"))
    if not result.rejected:
        return
    context.exit((RECORD if result.imported + result.kept else TRANSFER).code)


@click.command(short_help="Write a verified backup.")
@click.argument("path", metavar="FILE|FOLDER", type=click.Path(), callback=_path)
@json_option
@global_options
@pass_settings
@click.pass_context
def backup(context: click.Context, settings: Settings, *, path: Path, as_json: bool) -> None:
    """Write a sealed export of everything, read it back, compare it, and only then give it its name.

    FILE ends in .jsonl or .jsonl.gz; in a FOLDER it is named after the cache and the time. The encryption keys are not
    in it. It ends with 6 if a record was left out, since it is damaged or needs a key that is not held.
    """
    with settings.open(read_only=True) as cache, progress(settings, "tierkit.transfer") as progress_of:
        info = cache.backup(path, on_progress=progress_of(path.name))
    if as_json:
        write_json({**asdict(info), "path": str(info.path)})
    else:
        write_line(clean(str(info)))
    if info.keys:
        note(_KEYS_APART.format(keys=", ".join(info.keys)))
    context.exit((RECORD if info.left_out else OK).code)


@click.command(short_help="Bring back what a backup holds.")
@_file
@click.option("--merge", is_flag=True, help="The cache holds records: let newer ones stay.")
@click.option("--replace", is_flag=True, help="The cache holds records: have what the backup has, and nothing else.")
@click.option("--verify", is_flag=True, help="Only see that the backup is whole and can be opened; change nothing.")
@json_option
@global_options
@pass_settings
def restore(settings: Settings, *, path: Path, merge: bool, replace: bool, verify: bool, as_json: bool) -> None:
    """Verify the backup FILE, put its records, and see that each is there. The tiers may be others than it came from.

    A cache that holds records already is refused, unless --merge or --replace is given.
    """
    if merge + replace + verify > 1:
        raise click.UsageError("give one of --merge, --replace and --verify")
    with settings.open(read_only=verify) as cache, progress(settings, "tierkit.transfer") as progress_of:
        if verify:
            info = cache.verify_backup(path, on_progress=progress_of(path.name))
            told, line = {**asdict(info), "path": str(path)}, f"{info}: whole, and each record can be opened"
        else:
            result = cache.restore(
                path, held="merge" if merge else "replace" if replace else "refuse", on_progress=progress_of(path.name)
            )
            told, line = asdict(result), str(result)
            told["backup"]["path"] = str(path)
    if as_json:
        write_json(told)
    else:
        write_line(clean(line))
