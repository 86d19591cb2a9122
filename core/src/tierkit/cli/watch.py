"""`tierkit stats --watch`: a live table of what a metrics endpoint tells."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from tierkit.cli.output import cell, console, note, table, write_json_line
from tierkit.cli.scrape import CacheCounts, LevelCounts, scrape
from tierkit.errors import TierUnavailable

if TYPE_CHECKING:
    from rich.table import Table

_STYLES: Final = {"closed": "green", "half-open": "yellow", "open": "bold red"}
_NUMBERS: Final = ("records", "reads", "reads/s", "hits", "hit rate", "since last", "evictions", "failures", "waiting")

Show = Callable[["Watch"], None]


@dataclass
class Watch:
    """What is watched, and what the last two good scrapes told.

    Attributes:
        url: The endpoint.
        interval: Seconds between two scrapes.
        caches: What the last good scrape told.
        before: What the one before it told.
        seconds: Between the two; infinite after the first.
        error: Why the last scrape failed; empty if it did not.
    """

    url: str
    interval: float
    monotonic: Callable[[], float] = time.monotonic
    caches: dict[str, CacheCounts] = field(default_factory=dict)
    before: dict[str, CacheCounts] = field(default_factory=dict)
    seconds: float = math.inf
    error: str = ""
    _at: float = -math.inf

    def look(self) -> None:
        """Scrape once."""
        try:
            found = scrape(self.url)
        except TierUnavailable as error:
            self.error = str(error)
            return
        now = self.monotonic()
        self.before, self.caches, self.seconds = self.caches, found, now - self._at
        self.error, self._at = "", now


def watch(url: str, interval: float, times: int | None, show: Show, sleep: Callable[[float], None]) -> None:
    """Scrape `url` every `interval` seconds, `times` times or until Ctrl-C, and show each.

    Raises:
        TierUnavailable: The last of so many scrapes failed.
    """
    watched = Watch(url, interval)
    with contextlib.suppress(KeyboardInterrupt):  # the usual end of what has no other
        for number in count(1):
            watched.look()
            show(watched)
            if number == times:
                break
            sleep(interval)
    if times is not None and watched.error:
        raise TierUnavailable(watched.error)


@contextlib.contextmanager
def showing(*, as_json: bool) -> Iterator[Show]:
    """How to show: a table that stays in its place on a terminal, one below the other elsewhere, or lines of JSON."""
    screen = console()
    if as_json:
        yield _show_json
    elif not screen.is_terminal:
        yield _show_below
    else:
        from rich.live import Live

        with Live(console=screen, auto_refresh=False) as live:
            yield lambda watched: live.update(_live(watched), refresh=True)


def _show_json(watched: Watch) -> None:
    caches = {} if watched.error else {name: _as_json(cache) for name, cache in watched.caches.items()}
    write_json_line({"url": watched.url, "caches": caches, "error": watched.error or None})
    sys.stdout.flush()


def _as_json(cache: CacheCounts) -> dict[str, Any]:
    levels = {name: {**level.metrics, "breaker_state": level.state} for name, level in cache.levels.items()}
    return {**cache.metrics, "levels": levels}


def _show_below(watched: Watch) -> None:
    if watched.error:
        note(_complaint(watched))
    else:
        screen = console()
        screen.print(rendered(watched))
        screen.print()


def _live(watched: Watch) -> Any:
    from rich.console import Group

    complaint = [cell(_complaint(watched), "bold red")] if watched.error else []
    return Group(*([rendered(watched)] if watched.caches else []), *complaint)


def _complaint(watched: Watch) -> str:
    return f"{watched.error}; trying again every {watched.interval:g} s"


def rendered(watched: Watch) -> Table:
    """The table: a line for each cache, and one for each of its levels."""
    made = table("cache", "level", *_NUMBERS, "breaker", right=_NUMBERS)
    for name, cache in watched.caches.items():
        before = watched.before.get(name, CacheCounts())
        whole = _line(cache.metrics, before.metrics, ("requests",), ("answered",), watched.seconds)
        made.add_row(cell(name, "bold cyan"), "", "", *whole, "", "", _whole(cache.metrics, "intents"), "")
        for place, level in cache.levels.items():
            made.add_row("", *_level_row(place, level, before.levels.get(place, LevelCounts()), watched.seconds))
    return made


def _level_row(name: str, level: LevelCounts, before: LevelCounts, seconds: float) -> list[Any]:
    return [
        cell(name, "cyan"),
        _whole(level.metrics, "records"),
        *_line(level.metrics, before.metrics, ("hits", "misses"), ("hits",), seconds),
        _whole(level.metrics, "evictions"),
        _whole(level.metrics, "failures"),
        "",
        cell(level.state + _room(level), _STYLES.get(level.state, "")),
    ]


def _room(level: LevelCounts) -> str:
    return ", takes no writes" if level.state == "closed" and not level.metrics.get("writable", 1.0) else ""


def _line(
    now: dict[str, float], before: dict[str, float], reads: tuple[str, ...], hits: tuple[str, ...], seconds: float
) -> list[str]:
    """Reads, reads a second, hits, the share of hits among all reads and among those since the last scrape."""
    asked, answered = (sum(now.get(name, 0.0) for name in names) for names in (reads, hits))
    asked_before, answered_before = (sum(before.get(name, 0.0) for name in names) for names in (reads, hits))
    new, new_answered = asked - asked_before, answered - answered_before
    known = bool(before) and new >= 0 and seconds > 0  # less than before: the cache was opened again
    return [
        f"{asked:,.0f}",
        f"{new / seconds:,.1f}" if known else "-",
        f"{answered:,.0f}",
        _share(answered, asked),
        _share(new_answered, new) if known else "-",
    ]


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _whole(metrics: dict[str, float], name: str) -> str:
    return f"{metrics[name]:,.0f}" if name in metrics else "-"
