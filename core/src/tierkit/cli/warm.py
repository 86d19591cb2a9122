"""`tierkit warm`: load records from files, with a bar on a terminal and log lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tierkit.checks import CREDENTIALS_IN_SOURCE
from tierkit.cli.arguments import path_of
from tierkit.cli.exits import OK, STORAGE, TRANSFER, Exit
from tierkit.cli.output import cell, json_option, show, table, write_json, write_line
from tierkit.cli.progress import progress
from tierkit.cli.settings import Settings, global_options, pass_settings
from tierkit.cli.text import clean, latency
from tierkit.duration import parse_duration
from tierkit.errors import TransferError
from tierkit.expiry import CENTURY_SECONDS
from tierkit.proxy_url import SCHEME, holds_credentials

if TYPE_CHECKING:
    from tierkit.manager import CacheManager
    from tierkit.transfer import WarmResult

_REASONS_SHOWN: Final = 5  # per file


def _seconds(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    try:
        seconds = None if value is None else parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), context, option) from None
    if seconds is not None and not 0 < seconds <= CENTURY_SECONDS:
        raise click.BadParameter(f"{value!r} is not more than 0 seconds and at most 100 years", context, option)
    return seconds


def _scheme(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not SCHEME.fullmatch(value):  # it may be a URL, with a password in it
        raise click.BadParameter("it is not one word, such as http or socks5", context, option)
    return value


def _source(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if holds_credentials(value):
        raise click.BadParameter(CREDENTIALS_IN_SOURCE, context, option)
    return value


def _paths(context: click.Context, argument: click.Parameter, values: tuple[str, ...]) -> tuple[Path, ...]:
    return tuple([path_of(context, argument, value) for value in values])


@dataclass(frozen=True)
class _Outcome:
    """What became of one file: a result, or why there is none."""

    path: Path
    seconds: float
    result: WarmResult | None = None
    error: str = ""

    @property
    def way(self) -> Exit:
        if self.result is None or (self.result.found and not self.result.loaded + self.result.failed):
            return TRANSFER
        return STORAGE if self.result.failed else OK

    def as_json(self) -> dict[str, Any]:
        from tierkit.transfer import WarmResult

        counts = asdict(self.result or WarmResult(self.path, found=0, loaded=0, skipped=0, failed=0))
        return {**counts, "path": str(self.path), "seconds": round(self.seconds, 3), "error": self.error or None}


@click.command(short_help="Load records from files.")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(), callback=_paths)
@click.option("--source", metavar="NAME", callback=_source, help="The source of all records, whatever the files say.")
@click.option(
    "--scheme",
    metavar="SCHEME",
    callback=_scheme,
    help="The scheme of proxies that the file gives without one: http, socks5, ...",
)
@click.option(
    "--ttl", metavar="DURATION", callback=_seconds, help="How long all records live from now on: 900, 15m, 2h5m."
)
@json_option
@global_options
@pass_settings
@click.pass_context
def warm(
    context: click.Context,
    settings: Settings,
    *,
    files: tuple[Path, ...],
    source: str | None,
    scheme: str | None,
    ttl: float | None,
    as_json: bool,
) -> None:
    """Load records from FILEs: JSON, JSONL, CSV or host:port lines, each also with .gz at the end."""
    outcomes: list[_Outcome] = []
    with settings.open(read_only=False) as cache, contextlib.ExitStack() as after:
        after.callback(_report, outcomes, as_json)
        with progress(settings, "tierkit.transfer") as progress_of:  # the table says what became of the rows
            for path in files:
                options = {"source": source, "scheme": scheme, "on_progress": progress_of(path.name)}
                outcomes.append(_warm(cache, path, ttl, options))
    context.exit(max((outcome.way for outcome in outcomes), key=lambda way: way.code).code)


def _warm(cache: CacheManager[Any], path: Path, ttl: float | None, options: dict[str, Any]) -> _Outcome:
    started = time.perf_counter()
    try:
        result = cache.warm_from_file(path, ttl, **options)
    except TransferError as error:
        return _Outcome(path, time.perf_counter() - started, error=str(error))
    return _Outcome(path, time.perf_counter() - started, result)


# -- the result ----------------------------------------------------------------------------------------------------


def _report(outcomes: list[_Outcome], as_json: bool) -> None:
    if as_json:
        write_json({"files": [outcome.as_json() for outcome in outcomes]})
    elif outcomes:
        _print(outcomes)


def _print(outcomes: list[_Outcome]) -> None:
    numbers = ("found", "loaded", "skipped", "failed", "time")
    made = table("file", *numbers, right=numbers)
    for outcome in outcomes:
        made.add_row(*_row(outcome))
    show(made)
    remarks = [line for outcome in outcomes for line in _remarks(outcome)]
    for place, line in enumerate(remarks):
        write_line(clean(line) if place else f"\n{clean(line)}")


def _row(outcome: _Outcome) -> Iterator[Any]:
    result = outcome.result
    yield cell(outcome.path, "cyan")
    if result is None:
        yield from (cell("-", "red") for _ in range(4))
    else:
        yield f"{result.found:,}"
        yield cell(f"{result.loaded:,}", "green" if result.loaded else "")
        yield cell(f"{result.skipped:,}", "yellow" if result.skipped else "dim")
        yield cell(f"{result.failed:,}", "red" if result.failed else "dim")
    yield latency(outcome.seconds)


def _remarks(outcome: _Outcome) -> Iterator[str]:
    result = outcome.result
    if result is None:
        yield f"not imported: {outcome.error}"
        return
    yield from (f"skipped: {reject}" for reject in result.rejects[:_REASONS_SHOWN])
    if result.skipped > _REASONS_SHOWN:
        yield f"skipped: {outcome.path}: {result.skipped - min(_REASONS_SHOWN, len(result.rejects)):,} rows more"
    if result.left_out:
        names = ", ".join(result.left_out)
        yield f"left out: {outcome.path}: {names} (a class that declares them keeps them: --entry-type)"
