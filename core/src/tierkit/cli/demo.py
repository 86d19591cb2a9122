"""`tierkit demo`: three tiers, a real list, a restart and a look at the disk, in a few seconds."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import click

from tierkit.cli.exits import INTERNAL
from tierkit.cli.output import bar, cell, console, table
from tierkit.cli.settings import Settings, global_options, pass_settings, refuse_cache_options
from tierkit.cli.text import latency, size

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from tierkit.demo import ListedProxy, Listing, Place
    from tierkit.manager import CacheManager
    from tierkit.statistics import CacheStatistics

_SAMPLE: Final = 600  # records read twice
_REQUESTS: Final = 10_000
_SHORT_LIVED: Final = 200
_SHORT_TTL_SECONDS: Final = 0.3
_INDENT: Final = 3
_URL: Final = '"proxy_url"'
_WIDEST: Final = 110  # columns: longer lines are hard to read


@click.command(short_help="See it work, on a real list, in a few seconds.")
@click.option(
    "--keep",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Work in this new or empty directory and keep it.",
)
@global_options
@pass_settings
@click.pass_context
def demo(context: click.Context, settings: Settings, keep: Path | None) -> None:
    """See it work: a real list in three tiers, read, restarted, expired, counted.

    Everything happens in a new temporary directory, which is removed at the end. Your configuration, your environment
    and the network are not touched.
    """
    refuse_cache_options(settings, "demo")
    with _directory(keep) as root:
        good = _Demo(root, kept=keep is not None).run()
    if not good:
        context.exit(INTERNAL.code)


@contextlib.contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="tierkit-demo-") as made:
            yield Path(made).resolve()
        return
    keep.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(keep.iterdir()):
        raise click.UsageError(f"--keep {keep}: the directory is not empty")
    yield keep.resolve()


class _Demo:
    """The steps, in order, each telling what it did."""

    def __init__(self, root: Path, *, kept: bool) -> None:
        """Prepare to work in `root`."""
        self.out = console()
        self.out.width = min(self.out.width, _WIDEST)
        self.root = root
        self.kept = kept
        self.started = time.perf_counter()
        self.steps = 0
        self.failed = False

    def run(self) -> bool:
        """All steps. Answers whether everything was as it must be."""
        from tierkit.demo import Listing, Place

        self._say("tierkit demo", f"in {self.root}")
        listing, place = Listing(), Place(self.root)
        self._introduce(listing)
        with place.open() as cache:
            self._load(cache, listing)
            self._read(cache, listing)
            example = _example(cache, listing)
        self._restart(place, listing)
        self._look_at_disk(place, listing, example)
        with place.open() as cache:
            self._serve(cache, listing)
            self._expire(cache, listing)
            self._count(cache)
        self._end()
        return not self.failed

    # -- the steps -------------------------------------------------------------------------------------------------

    def _introduce(self, listing: Listing) -> None:
        from tierkit.demo import LIST_ORIGIN

        self._step("A real list")
        self._tell(
            f"{len(listing.rows):,} proxies from {LIST_ORIGIN}; it ships with tierkit. It has no credentials, so that "
            f"{listing.with_credentials:,} of them get a user name and a password invented for this demo."
        )

    def _load(self, cache: CacheManager[ListedProxy], listing: Listing) -> None:
        from tierkit.demo import TTL_SECONDS

        self._step("Load it into three tiers")
        file = self.root / "list.jsonl"
        listing.write(file)
        started = time.perf_counter()
        result = cache.warm_from_file(file, TTL_SECONDS)
        seconds = time.perf_counter() - started
        file.unlink()  # it holds the passwords in the clear
        self._tell(f"{result.loaded:,} records loaded, {result.skipped} skipped, in {seconds:.2f} s:")
        self._tell(_holdings(cache))

    def _read(self, cache: CacheManager[ListedProxy], listing: Listing) -> None:
        from tierkit.demo import sample, timed_reads

        self._step("Read some back: which level answers, and how fast")
        keys = sample(listing.keys(), _SAMPLE)
        first, again = timed_reads(cache, keys), timed_reads(cache, keys)
        self._tell(_latencies(cache, first, again))
        self._tell("What a lower level answers is promoted: the second time it comes from memory.")

    def _restart(self, place: Place, listing: Listing) -> None:
        self._step("Close it, and open it again in a new process")
        found, wanted = place.check_in_new_process(), listing.check()
        self._tell(
            f"Process {found.pid} (this one is {os.getpid()}) found {found.records:,} of {wanted.records:,} records "
            f"and opened {found.secrets:,} of {wanted.secrets:,} secrets in {found.seconds:.2f} s."
        )
        self._verdict(found.digest == wanted.digest, "Every field is as in the list.", "The fields differ!")

    def _look_at_disk(self, place: Place, listing: Listing, example: str) -> None:
        from tierkit.demo import files_with, line_on_disk, row_on_disk

        files = place.files()
        self._step("What a secret looks like on disk")
        self._tell(f"The password {listing.password(example)} in L2, from the middle of a line of JSON Lines:")
        found = line_on_disk(files, example)
        self._tell(_middle_of(found[1]) if found else "(L2 does not hold that record)")
        self._tell("The same record in L3, a row of the SQLite table:")
        self._tell(_columns(row_on_disk(place.database, example)))
        total = size(sum(path.stat().st_size for path in files))
        leaks = ", ".join(path.name for path in files_with(files, listing.marker))
        self._verdict(
            not leaks,
            f"Searched {len(files)} files, {total}: no user name and no password is there in the clear.",
            f"Credentials are in the clear in {leaks}!",
        )

    def _serve(self, cache: CacheManager[ListedProxy], listing: Listing) -> None:
        from tierkit.demo import requests

        self._step(f"Serve {_REQUESTS:,} requests, for a few proxies often and for most seldom")
        wanted = requests(listing.keys(), _REQUESTS)
        started = time.perf_counter()
        answered = sum(cache.get(key) is not None for key in wanted)
        seconds = time.perf_counter() - started
        self._tell(f"{answered:,} answered in {seconds:.2f} s, by a cache just opened, with nothing in memory yet.")

    def _expire(self, cache: CacheManager[ListedProxy], listing: Listing) -> None:
        self._step("Let some go bad")
        keys = listing.keys()[:_SHORT_LIVED]
        entries = cache.get_many(keys).values()
        cache.put_many([entry.evolve(ttl_seconds=_SHORT_TTL_SECONDS, fetch_time=None) for entry in entries])
        until = time.monotonic() + _SHORT_TTL_SECONDS
        fresh = len(cache.get_many(keys[:20]))
        time.sleep(max(0.0, until - time.monotonic()) + 0.02)
        stale = len(cache.get_many(keys[:20]))
        cache.sweep()
        self._tell(
            f"{len(entries)} of them put again with {_SHORT_TTL_SECONDS} s to live. Of 20 asked for, {fresh} answered; "
            f"{_SHORT_TTL_SECONDS} s later {stale} did. After a sweep {cache.size():,} records are left."
        )

    def _count(self, cache: CacheManager[ListedProxy]) -> None:
        self._step("Statistics since the cache was opened again")
        statistics = cache.get_statistics()
        self._tell(_statistics(statistics, bar_width=8 if self.out.width < 90 else 16))
        rate = f"{statistics.overall_hit_rate:.2%}"
        self._tell(f"{statistics.answered:,} of {statistics.requests:,} requests were answered: {rate}.")

    def _end(self) -> None:
        self.out.print()
        seconds = time.perf_counter() - self.started
        if not self.kept:
            self._say("Done", f"in {seconds:.1f} s, and the directory is removed; --keep DIR keeps one.")
            return
        self._say("Done", f"in {seconds:.1f} s. Everything is still there; look around, for instance with")
        options = f"--config {self.root / 'tierkit.toml'} --entry-type tierkit.demo:ListedProxy"
        self.out.print(f"tierkit {options} ls", soft_wrap=True)

    # -- how it looks ----------------------------------------------------------------------------------------------

    def _say(self, head: str, rest: str) -> None:
        self.out.print(cell("").append(head, "bold cyan").append(f" {rest}"), soft_wrap=True)

    def _step(self, title: str) -> None:
        self.steps += 1
        self.out.print()
        self.out.print(cell("").append(f"{self.steps}  ", "bold cyan").append(title, "bold"))

    def _tell(self, what: RenderableType) -> None:
        from rich.padding import Padding

        self.out.print(Padding(what, (0, 0, 0, _INDENT), expand=False))

    def _verdict(self, good: bool, text: str, otherwise: str) -> None:
        self.failed = self.failed or not good
        self._tell(cell(f"✓ {text}", "bold green") if good else cell(f"✗ {otherwise}", "bold red"))


def _example(cache: CacheManager[ListedProxy], listing: Listing) -> str:
    """The key of a record with a password that the middle level holds too, if there is one."""
    pairs = zip(listing.keys(), listing.rows, strict=True)
    keys = [key for key, row in pairs if "password" in row]
    middle = cache.levels[1].tier
    return next((key for key in keys if middle.get(key) is not None), keys[0])


def _holdings(cache: CacheManager[Any]) -> Table:
    numbers = ("records", "of at most", "on disk")
    made = table("level", "kind", *numbers, right=numbers)
    for level in cache.levels:
        bound = "any number" if level.max_entries is None else f"{level.max_entries:,}"
        disk = size(level.tier.bytes_on_disk()) if level.persistent else "in memory"
        made.add_row(cell(level.name, "cyan"), level.kind, f"{level.tier.size():,}", bound, disk)
    return made


def _latencies(cache: CacheManager[Any], first: dict[str, list[float]], again: dict[str, list[float]]) -> Table:
    numbers = ("first read", "median", "second read", "median ")
    made = table("level", "kind", *numbers, right=numbers)
    for level in cache.levels:
        row = [text for took in (first, again) for text in _timing(took.get(level.name, []))]
        made.add_row(cell(level.name, "cyan"), level.kind, *row)
    return made


def _timing(took: list[float]) -> tuple[str, str]:
    return (f"{len(took):,}", latency(median(took))) if took else ("-", "-")


def _middle_of(line: str) -> Any:
    """The part of a record's line from its URL on, the tokens marked."""
    text = cell(f"...,{line[line.index(_URL) :]}", "dim")
    for found in re.finditer(r'"\w+_encrypted": ?"[^"]*"', text.plain):
        text.stylize("not dim yellow", *found.span())
    return text


def _columns(row: dict[str, Any]) -> Table:
    made = table("column", "value")
    for name in ("proxy_url", "country_code", "source", "username_encrypted", "password_encrypted"):
        value = row.get(name)
        shown = value.decode("ascii", "replace") if isinstance(value, bytes) else json.dumps(value)
        made.add_row(cell(name, "cyan"), cell(shown, "yellow" if name.endswith("_encrypted") else "dim"))
    return made


def _statistics(statistics: CacheStatistics, bar_width: int) -> Table:
    numbers = ("records", "asked", "promoted", "evicted", "expired")
    made = table("level", "kind", *numbers, "hit rate", right=numbers)
    for tier in statistics.tiers:
        made.add_row(
            cell(tier.name, "bold cyan"),
            tier.backend,
            f"{tier.size:,}",
            f"{tier.hits + tier.misses:,}",
            f"{tier.promotions:,}",
            f"{tier.evictions_for_room:,}",
            f"{tier.evictions_ttl:,}",
            bar(tier.hit_rate, bar_width),
        )
    return made
