"""`tierkit get` and `tierkit ls`: records, read without changing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click

from tierkit.cli.arguments import key_of, other_proxy, shown_key
from tierkit.cli.exits import NOT_FOUND, Unreadable
from tierkit.cli.keys import held_key_ids, key_sources
from tierkit.cli.output import cell, console, json_option, note, show, table, write_json, write_json_line
from tierkit.cli.settings import Settings, global_options, pass_settings
from tierkit.cli.text import as_json as to_json
from tierkit.cli.text import deadline
from tierkit.cli.where import filters_given, where_options
from tierkit.entry import CacheEntry, HealthStatus, ValueEntry
from tierkit.errors import TierUnavailable
from tierkit.inspection import unheld_keys
from tierkit.schema import schema_of

if TYPE_CHECKING:
    from tierkit.manager import CacheManager

_LIMIT: Final = 50
_HEALTH_STYLE: Final = {HealthStatus.HEALTHY: "green", HealthStatus.UNHEALTHY: "red"}
_ROOMY: Final = 100  # columns from which on a proxy's key is shown beside its URL
_CELL: Final = 48  # characters of a field of the user's own


def fields_of(entry: CacheEntry, *, reveal: bool = False) -> dict[str, Any]:
    """The public fields of `entry` as JSON can hold them; secrets masked unless `reveal`."""
    names = [name for name in entry.__struct_fields__ if not name.startswith("_")]
    fields = {name: to_json(getattr(entry, name), reveal=reveal) for name in names}
    if isinstance(entry, ValueEntry):
        del fields["encoded"]
        fields["value"] = to_json(entry.value)
    fields["access_count"] = entry.access_count
    fields["last_accessed"] = to_json(entry.last_accessed)
    return fields


# -- get -----------------------------------------------------------------------------------------------------------


@click.command(short_help="Show one record.")
@click.argument("key", metavar="KEY|URL")
@click.option("--username", metavar="NAME", help="The user name of the proxy at URL.")
@click.option("--reveal", is_flag=True, help="Show secrets in the clear.")
@click.option("--allow-stale", is_flag=True, help="Show it in its grace period too, after it has expired.")
@json_option
@global_options
@pass_settings
@click.pass_context
def get(
    context: click.Context,
    settings: Settings,
    *,
    key: str,
    username: str | None,
    reveal: bool,
    allow_stale: bool,
    as_json: bool,
) -> None:
    """Show one record, by its key or, if it is a proxy, by its URL."""
    given, key = key, key_of(settings, key, username)
    with settings.open(read_only=True) as cache:
        entry, level = cache.get_with_level(key, allow_stale=allow_stale)
        if entry is None:
            _raise_trouble(cache, key)
            note(f"tierkit: no record {shown_key(key)}, or it has expired{other_proxy(settings, given, username)}")
            context.exit(NOT_FOUND.code)
        fields = {"level": level, "stale": entry.is_stale, **fields_of(entry, reveal=reveal)}
    if as_json:
        write_json(fields)
    else:
        _print_fields(fields)


def _raise_trouble(cache: CacheManager[Any], key: str | None = None) -> None:
    """Tell apart what is not there and what could not be read, under `key` or anywhere."""
    authority = cache.levels[-1:]  # without it nobody knows what there is, though it may not have been asked
    failed = [
        level.name for level in cache.levels if level.counters.failures or (level in authority and not level.in_service)
    ]
    if failed:
        raise TierUnavailable(f"{', '.join(failed)} could not be read (-v shows why)")
    if not _left_out(cache):
        return
    from tierkit.plugins import discover

    sources = key_sources(cache.config, discover())
    foreign = unheld_keys(cache.levels, key, held_key_ids(sources))
    if foreign:
        ids = " and ".join(foreign)
        raise Unreadable(
            f"a record is there and could not be read: it was sealed with another key, {ids}, which is not held; "
            f"keys are looked for in {' and '.join(sources.places())}"
        )
    raise Unreadable(
        "a record is there and could not be read: it is damaged, sealed with another key, or of another entry type"
    )


def _left_out(cache: CacheManager[Any]) -> bool:
    return any(level.counters.unreadable or level.counters.corruptions for level in cache.levels)


def _print_fields(fields: dict[str, Any]) -> None:
    made = table("field", "value")
    for name, value in fields.items():
        made.add_row(cell(name, "cyan"), cell("-" if value is None else value))
    show(made)


# -- ls ------------------------------------------------------------------------------------------------------------


@click.command(short_help="List records.")
@where_options
@click.option("--expired", "which", flag_value="expired", help="Only expired records that were not swept yet.")
@click.option("--all", "which", flag_value="all", help="Expired records too.")
@click.option("--order-by", metavar="FIELD", help="In the order of this field; descending with a - before it.")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(min=0),
    help=f"At most N; 0 for all. [default: {_LIMIT}; all with --json]",
)
@json_option
@global_options
@pass_settings
def ls(
    settings: Settings,
    *,
    source: str | None,
    health: str | None,
    conditions: tuple[str, ...],
    which: str | None,
    order_by: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """List the records of the lowest persistent level, which holds everything. Secrets are masked."""
    filters = filters_given(settings.entry_type(), conditions, source, health)
    limit = (0 if as_json else _LIMIT) if limit is None else limit
    with settings.open(read_only=True) as cache:
        entries = _entries(cache, filters, which, order_by, limit)
        shown = islice(entries, limit or None)
        if as_json:
            _write_lines(shown)
        else:
            listed = list(shown)
            if listed or not _left_out(cache):
                _print_table(listed, settings.entry_type())
        if next(entries, None) is not None:
            note(f"There are more than these {limit}: see them with --limit N, or all with --limit 0.")
        _raise_trouble(cache)


def _entries(
    cache: CacheManager[Any], filters: dict[str, Any], which: str | None, order_by: str | None, limit: int
) -> Iterator[CacheEntry]:
    """What is to be listed, and one more, by which it shows that there are more."""
    if which == "expired":
        found = cache.select(order_by=order_by, include_expired=True, where=filters)
        return (entry for entry in found if entry.is_expired)
    most = limit + 1 if limit else None
    return cache.select(order_by=order_by, limit=most, include_expired=which == "all", where=filters)


def _write_lines(entries: Iterator[CacheEntry]) -> None:
    for entry in entries:
        write_json_line(fields_of(entry))


def _print_table(entries: list[CacheEntry], entry_type: type[CacheEntry]) -> None:
    if not entries:
        note("No record matches.")
        return
    out, now = console(), datetime.now(UTC)
    columns = _columns(entry_type, roomy=out.width >= _ROOMY, now=now)
    made = table(*columns)
    for entry in entries:
        made.add_row(*(column(entry) for column in columns.values()), style="dim" if entry.is_expired else "")
    show(made, out=out)


def _columns(entry_type: type[CacheEntry], *, roomy: bool, now: datetime) -> dict[str, Callable[[CacheEntry], Any]]:
    own = [name for name in entry_type.__struct_fields__ if name not in CacheEntry.__struct_fields__]
    secrets = {field.name for field in schema_of(entry_type).secrets}
    columns: dict[str, Callable[[CacheEntry], Any]] = {}
    if roomy or "proxy_url" not in own:
        columns["key"] = lambda entry: cell(entry.key, "cyan")
    for name in own:
        if name not in secrets:
            columns["value" if name == "encoded" else name] = partial(_field, name)
    if secrets:
        columns["secrets"] = lambda entry: "****" if any(getattr(entry, name) for name in secrets) else "-"
    columns["source"] = lambda entry: cell(entry.source)
    columns["health"] = lambda entry: cell(entry.health_status.value, _HEALTH_STYLE.get(entry.health_status, ""))
    columns["expires"] = lambda entry: cell(deadline(entry.expires_at, now))
    return columns


def _field(name: str, entry: CacheEntry) -> Any:
    value = fields_of(entry).get("value" if name == "encoded" else name)
    text = "-" if value is None else str(value)
    return cell(text if len(text) <= _CELL else f"{text[: _CELL - 1]}…")
