"""`tierkit stats`: what the persistent levels hold, or what a cache that runs tells. Needs no encryption key."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import click

from tierkit.cli.output import bar, cell, json_option, show, table, write_json
from tierkit.cli.progress import progress
from tierkit.cli.settings import Settings, global_options, pass_settings, refuse_cache_options
from tierkit.cli.text import size
from tierkit.errors import TierUnavailable

if TYPE_CHECKING:
    from rich.table import Table

    from tierkit.inspection import LevelSurvey

_INTERVAL_SECONDS: Final = 2.0
_TOP: Final = 12  # sources shown by name; the rest is summed up
_AGE_TEXT: Final = {
    "1m": "under a minute",
    "1h": "under an hour",
    "1d": "under a day",
    "7d": "under a week",
    "older": "a week or more",
}


@click.command(short_help="Count what the persistent levels hold.")
@click.option("--watch", "url", metavar="URL", help="Show what a metrics endpoint tells, again and again.")
@click.option(
    "--interval", type=click.FloatRange(min=0.1, max=86400), metavar="SECONDS", help="With --watch: how often."
)
@click.option("--count", "times", type=click.IntRange(min=1), metavar="N", help="With --watch: end after N scrapes.")
@json_option
@global_options
@pass_settings
def stats(settings: Settings, url: str | None, interval: float | None, times: int | None, as_json: bool) -> None:
    """Count the records of the persistent levels by level, source, health and age.

    With --watch URL show instead what a cache that runs tells on its metrics endpoint, as a live table.
    """
    if url is not None:
        _watch(settings, url, _INTERVAL_SECONDS if interval is None else interval, times, as_json=as_json)
        return
    if interval is not None or times is not None:
        raise click.UsageError("--interval and --count go with --watch")
    from tierkit.inspection import survey

    with (
        settings.open_to_look("to count") as cache,
        progress(settings, "tierkit.inspection", logs=False) as progress_of,
    ):
        levels = survey(cache.levels, time.time(), progress_of("counting"))
    if as_json:
        write_json({"levels": [vars(level) for level in levels]})
    else:
        _print(levels)
    broken = [f"{level.name} cannot be read: {level.error}" for level in levels if level.error]
    if broken:
        raise TierUnavailable("; ".join(broken))


def _watch(settings: Settings, url: str, interval: float, times: int | None, *, as_json: bool) -> None:
    from tierkit.cli.scrape import check_url
    from tierkit.cli.watch import showing, watch

    refuse_cache_options(settings, "stats --watch")
    checked = check_url(url)
    with showing(as_json=as_json) as show:
        watch(checked, interval, times, show, time.sleep)


def _print(levels: list[LevelSurvey]) -> None:
    if not levels:
        show("The configuration has no persistent level: nothing outlives a process.")
        return
    blocks, lowest = [_overview(levels)], levels[-1]
    if lowest.records:
        blocks += [
            _breakdown("source", f"{lowest.name} by source", _top(lowest.sources)),
            _breakdown("health", f"{lowest.name} by health", dict(lowest.health.most_common())),
            _breakdown("fetched", f"{lowest.name} by age", _by_age(lowest.ages)),
        ]
    show(*blocks)


def _overview(levels: list[LevelSurvey]) -> Table:
    made = table(
        "level", "kind", "records", "of at most", "expired", "on disk",
        right=("records", "of at most", "expired", "on disk"),
    )  # fmt: skip
    for level in levels:
        bound = "any number" if level.max_entries is None else f"{level.max_entries:,}"
        made.add_row(
            cell(level.name, "bold cyan"),
            cell(level.kind),
            f"{level.records:,}",
            bound,
            cell(f"{level.expired:,}", "yellow" if level.expired else "dim"),
            size(level.bytes_on_disk),
        )
    return made


def _breakdown(heading: str, title: str, counts: dict[str, int]) -> Table:
    total = sum(counts.values())
    made = table(heading, "records", "share", title=title, right=("records",))
    for name, count in counts.items():
        made.add_row(cell(name, "cyan"), f"{count:,}", bar(count / total))
    return made


def _top(sources: Counter[str]) -> dict[str, int]:
    first = dict(sources.most_common(_TOP))
    rest = sources.total() - sum(first.values())
    return {**first, f"({len(sources) - _TOP} others)": rest} if rest else first


def _by_age(ages: Counter[str]) -> dict[str, int]:
    named: dict[str, Any] = {text: ages[age] for age, text in _AGE_TEXT.items() if ages[age]}
    return named | ({"unknown": ages["unknown"]} if ages["unknown"] else {})
