"""Queries among a million records: what `select` costs beside the bare SQL, and what memory going over all takes.

`python -m benchmarks queries` takes some minutes, most of them to put the records; `--count 20000` some seconds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.measuring import Figure, duration, ratio_figure, side_by_side
from benchmarks.page import machine, table, verdict, write_section
from tierkit import CacheConfig, CacheEntry, CacheManager, at_least
from tierkit_sqlite import queries, work
from tierkit_sqlite.library import sqlite3

COUNT = 1_000_000
SOURCES = 1000
COUNTRIES = 200
LIMIT = 10
MOST_GROWTH = 50.0
"""MB; the records themselves are some hundreds."""
INTRODUCTION = """{count:,} records of an entry type without secrets, a thousandth of which share a `source`, and a
two-hundredth a `country` that has an index by the setting `indexes`. Each query, by another value each time, beside the
statement that it makes, executed by the bare module on the same file, with `fetchall`, on {machine}. Memory is
what the process grows by (its highest resident size) from the opening of the cache to the end of the iteration, in a
process of its own. Written by

    uv run python -m benchmarks queries --write

"""


class Endpoint(CacheEntry):
    """What is asked for."""

    country: str = ""
    score: int = 0
    url: str = ""


def main(arguments: Sequence[str]) -> int:
    """Measure, and answer 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks queries", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help=f"records ({COUNT:,})")
    parser.add_argument("--folder", type=Path, help="where the stores are kept, and used again if they are there")
    parser.add_argument("--write", action="store_true", help="write the page too")
    asked = parser.parse_args(arguments)
    with nullcontext(asked.folder) if asked.folder else tempfile.TemporaryDirectory() as folder:
        found = [*_sqlite(Path(folder), asked.count), *_jsonl(Path(folder), asked.count)]
    rows = [
        (
            one.what,
            one.measured,
            one.beside,
            "" if one.ratio is None else f"{one.ratio:.2f}",
            one.target,
            verdict(one.holds),
        )
        for one in found
    ]
    printed = table(("what", "tierkit", "beside", "ratio", "target", ""), rows)
    print(printed)
    if asked.write:
        write_section("Queries", INTRODUCTION.format(machine=machine(), count=asked.count) + printed)
    return 0 if all(one.holds for one in found) else 1


def _config(kind: str, path: Path) -> CacheConfig:
    more = {"indexes": ["country, score"]} if kind == "sqlite" else {}
    return CacheConfig(tiers=({"backend": kind, "path": path, **more},), default_ttl_seconds=30 * 86400.0)


def _records(count: int) -> Iterator[Endpoint]:
    for n in range(count):
        name = f"c{n * 7919 % COUNTRIES}"
        yield Endpoint(
            key=f"{n:08x}", source=f"s{n % SOURCES}", country=name, score=n % 97, url=f"http://h{n}.example:80/"
        )


def _filled(kind: str, path: Path, count: int) -> None:
    started = time.perf_counter()
    with CacheManager(_config(kind, path), entry_type=Endpoint) as cache:
        records = _records(0 if cache.size() == count else count)
        while some := list(islice(records, 50_000)):
            cache.put_many(some)
    print(f"{kind}: {count:,} records put in {time.perf_counter() - started:.0f} s", file=sys.stderr)


def _sqlite(folder: Path, count: int) -> list[Figure]:
    path = folder / "queries.db"
    _filled("sqlite", path, count)
    with CacheManager(_config("sqlite", path), entry_type=Endpoint) as cache:
        found = [
            _beside_sql(cache, path, "an indexed filter, limit 10", "source", SOURCES, limit=LIMIT),
            _beside_sql(cache, path, "an index of the settings, limit 10", "country", COUNTRIES, limit=LIMIT),
            _beside_sql(
                cache,
                path,
                "an index of the settings in its order, limit 10",
                "country",
                COUNTRIES,
                order_by="score",
                limit=LIMIT,
            ),
            _beside_sql(
                cache, path, "an indexed filter and another, all that match", "source", SOURCES, score=at_least(90)
            ),
            _opening(cache),
            _count(cache, path),
        ]
    return [*found, _iteration("sqlite", path, count, {}), _iteration("sqlite", path, count, {"order_by": "score"})]


def _jsonl(folder: Path, count: int) -> list[Figure]:
    path = folder / "jsonl"
    _filled("jsonl", path, count)
    return [_iteration("jsonl", path, count, {})]


def _noted(ask: Callable[[], object]) -> tuple[str, Any]:
    """The first statement that a query makes, with its values."""
    with patch.object(queries, "fetch", wraps=work.fetch) as fetch:
        ask()
    _, sql, values = fetch.call_args_list[0].args
    return sql, values


def _beside_sql(cache: CacheManager[Endpoint], path: Path, what: str, field: str, values: int, **asked: Any) -> Figure:
    """`select` by `field`, each time by another of its values, beside the statement that it makes."""
    names = [f"{field[0]}{n * 17 % values}" for n in range(values)]
    sql, bound = _noted(lambda: list(cache.select(**{"limit": 1000, **asked, field: names[0]})))
    place = bound.index(names[0])
    ours, theirs = cycle(names), cycle(names)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA cache_size = -8192")  # as much as the tier's

    def ask() -> list[Endpoint]:
        return list(cache.select(**{field: next(ours), **asked}))

    def execute() -> list[Any]:
        return list(connection.execute(sql, (*bound[:place], next(theirs), *bound[place + 1 :])).fetchall())

    try:
        found = len(ask())
        assert len(execute()) == found
        taken = side_by_side({"ours": ask, "bare": execute}, rounds=500, calls=4, of_rounds=min)
    finally:
        connection.close()
    target = 3 if "limit" in asked else 20
    return ratio_figure(f"select by {what}: {found} records", taken["ours"], taken["bare"], "the bare SQL", target)


def _opening(cache: CacheManager[Endpoint]) -> Figure:
    """What the bare SQL does not do: its rows as entries, each with its check verified."""
    rows, opened = list(islice(cache.levels[0].tier.scan(), LIMIT)), cache._stack.sealer.open
    taken = side_by_side({"open": lambda: [opened(row) for row in rows]}, rounds=400, calls=10, of_rounds=min)["open"]
    return Figure(f"of these: {LIMIT} rows verified and made entries", duration(taken), "", None, "none", holds=True)


def _count(cache: CacheManager[Endpoint], path: Path) -> Figure:
    sql, values = _noted(lambda: cache.count(source="s17"))
    connection = sqlite3.connect(path)
    try:
        ways = {"ours": lambda: cache.count(source="s17"), "bare": lambda: connection.execute(sql, values).fetchall()}
        taken = side_by_side(ways, rounds=60, calls=4, of_rounds=min)
    finally:
        connection.close()
    return ratio_figure("count by an indexed filter", taken["ours"], taken["bare"], "the bare SQL", 3)


def _iteration(kind: str, path: Path, count: int, asked: dict[str, Any]) -> Figure:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        seen, seconds, growth = pool.apply(iterate, (kind, path, asked))
    assert seen == count, (seen, count)
    order = f" in the order of {asked['order_by']}, which has no index" if asked else ""
    return Figure(
        f"{kind}: going over all of them by select(){order}",
        f"{growth:.1f} MB more memory",
        f"{duration(seconds / count)} a record",
        None,
        f"under {MOST_GROWTH:g} MB",
        growth < MOST_GROWTH,
    )


def iterate(kind: str, path: Path, asked: dict[str, Any]) -> tuple[int, float, float]:
    """Go over all records: how many there are, the seconds that took, and the growth in MB."""
    with CacheManager(_config(kind, path), entry_type=Endpoint, read_only=True) as cache:
        next(cache.select())
        _peak()
        before = _peak()
        started = time.perf_counter()
        seen = sum(1 for _ in cache.select(**asked))
        return seen, time.perf_counter() - started, _peak() - before


def _peak() -> float:
    """The highest resident size of this process since the last call, in MB; on Linux."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")  # begins the highest anew: that of the parent would hide ours
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e3
