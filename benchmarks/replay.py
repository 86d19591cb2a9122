"""Replay of eight real lists of proxies: eight fetches, with lives by source, health, restarts, and a dict beside it.

Each list is fetched once, at the time of its publication. A client runs every hour: it opens the cache anew, as a job
of cron does, and has work for many proxies of the newest list, the faster ones more often. It reports which of them
fail and which do not, and where one fails takes another. After each list and each run the whole cache is compared with
a dict that was told the same, record by record: fields, deadline, health, failures, reads.

What is saved. Without a cache nothing outlives a run, so each run has to fetch the list: that is what the fetches are
compared with. The same client without a cache also forgets which proxies failed it; how often it tries those is told
beside it. Below 2.5 runs to a list no cache could save 60 %.
"""

from __future__ import annotations

import argparse
import gzip
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.resources import as_file, files
from itertools import accumulate
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

from benchmarks.measuring import Figure
from benchmarks.page import machine, table, verdict, write_section
from benchmarks.records import default_stack
from tierkit import CacheManager, HealthStatus, ProxyEntry
from tierkit.testing import FakeClock

FOLDER = Path(__file__).parents[1] / "tests" / "data" / "proxy-lists"
HOUR = 3600.0
LIVES = {"http": 4 * HOUR, "https": 7 * HOUR, "socks4": 1.5 * HOUR, "socks5": 24 * HOUR}
"""Seconds that a record lives, by its source: shorter than from list to list, and longer than several."""
DRAWS = 50
"""Proxies that a client tries for one piece of work before it gives up and fetches the list again."""


@dataclass(frozen=True)
class Scale:
    """How much is replayed; less of it in a test.

    Attributes:
        lists: How many of the eight.
        share: One of so many proxies of each list, the same ones in each.
        runs: Of the client, from one list to the next.
        work: Pieces of it in each run.
        threshold: Failures after which a proxy is removed.
    """

    lists: int = 8
    share: int = 1
    runs: int = 3
    work: int = 1000
    threshold: int = 3


@dataclass
class Tally:
    """What was counted, over all runs."""

    runs: int = 0
    fetches: int = 0
    requests: int = 0
    hits: int = 0
    bad: int = 0
    failed: int = 0
    failed_without: int = 0
    removed: int = 0
    lost: int = 0
    compared: int = 0
    differences: list[str] = field(default_factory=list)
    lists: list[tuple[str, ...]] = field(default_factory=list)

    @property
    def saved(self) -> float:
        """The share of fetches that the cache spared; without it each run needs one."""
        return 1 - self.fetches / self.runs

    @property
    def hit_ratio(self) -> float:
        """Proxies found among those asked for."""
        return self.hits / self.requests


class Listed(ProxyEntry):
    """A proxy with all that its publisher says of it."""

    country_code: str | None = None
    response_time_ms: float | None = None
    last_checked: datetime | None = None


@dataclass(frozen=True)
class Held:
    """What the dict holds for a key."""

    published: tuple[Any, ...]
    deadline: float
    health: str = HealthStatus.UNKNOWN.value
    failures: int = 0
    reads: int = 0


def merged(held: Held | None, new: Held) -> Held:
    """What warming makes of a record that is held already: the new one, with what was found out about the old one."""
    return new if held is None else replace(new, health=held.health, failures=held.failures, reads=held.reads)


class Model:
    """A dict that is told what the cache is told."""

    def __init__(self, threshold: int) -> None:
        self.held: dict[str, Held] = {}
        self.removed: set[str] = set()
        self.threshold = threshold

    def warm(self, rows: dict[str, dict[str, Any]], now: float) -> None:
        self.removed -= rows.keys()
        for key, row in rows.items():
            self.held[key] = merged(self.held.get(key), Held(_published(row), now + LIVES[row["source"]]))

    def expire(self, now: float) -> None:
        self.held = {key: held for key, held in self.held.items() if now < held.deadline}

    def get(self, key: str, now: float) -> Held | None:
        held = self.held.get(key)
        if held is None or now >= held.deadline:
            return None
        self.held[key] = replace(held, reads=held.reads + 1)
        return self.held[key]

    def succeed(self, key: str) -> None:
        self.held[key] = replace(self.held[key], failures=0, health=HealthStatus.HEALTHY.value)

    def fail(self, key: str) -> bool:
        """Whether this removed the record."""
        held = self.held[key]
        if held.failures + 1 >= self.threshold:
            del self.held[key]
            self.removed.add(key)
            return True
        self.held[key] = replace(held, failures=held.failures + 1, health=HealthStatus.UNHEALTHY.value)
        return False


class Client:
    """Uses proxies of one list, the n-th fastest 1/n as often as the fastest; which of them fail is always the same."""

    def __init__(self, rows: dict[str, dict[str, Any]], seed: str) -> None:
        self.random = random.Random(seed)
        keys = self.keys = sorted(rows, key=lambda key: rows[key]["response_time_ms"])
        self.weights = list(accumulate(1 / rank for rank in range(1, len(keys) + 1)))

    def draws(self) -> Iterator[str]:
        """Proxies to try, one after another, for one piece of work."""
        yield from self.random.choices(self.keys, cum_weights=self.weights, k=DRAWS)

    def works(self, key: str) -> bool:
        """Whether `key` works this time: 30 % never do, one in ten of the others fails."""
        return crc32(key.encode()) % 100 >= 30 and self.random.random() >= 0.1


class Replay:
    """The cache, the dict, the clock, and what was counted."""

    def __init__(self, folder: Path, scale: Scale) -> None:
        self.config = default_stack(folder, per_source_ttl=LIVES, failure_threshold=scale.threshold)
        self.folder = folder
        self.scale = scale
        self.model = Model(scale.threshold)
        self.tally = Tally()

    def run(self) -> Tally:
        """Replay the lists."""
        paths = list_paths()[: self.scale.lists]
        times = [_published_at(path) for path in paths]
        self.clock = FakeClock(wall=times[0])
        self.cache = self._open()
        try:
            for path, start, end in zip(paths, times, [*times[1:], times[-1] + 3 * HOUR], strict=True):
                self._list(path, start, end)
        finally:
            self.cache.close()
        return self.tally

    def _open(self) -> CacheManager[Listed]:
        return CacheManager(self.config, entry_type=Listed, clock=self.clock)

    def _list(self, path: Path, start: float, end: float) -> None:
        before = replace(self.tally)
        self._sweep_at(start)
        rows = self._fetch(path)
        self._compare(path.name)
        for run in range(self.scale.runs):
            self._sweep_at(start + run * (end - start) / self.scale.runs)
            self._run(rows, f"{path.name} {run}")
            self._compare(f"{path.name} run {run}")
        self.tally.lists.append(self._told(path, len(rows), before))

    def _sweep_at(self, moment: float) -> None:
        """Restart at `moment`, as the next run of a job does, and sweep."""
        self.clock.advance(moment - self.clock.wall())
        self.cache.close()
        self.cache = self._open()
        self.cache.sweep()
        self.model.expire(self.clock.wall())

    def _fetch(self, path: Path) -> dict[str, dict[str, Any]]:
        rows = [msgspec.json.decode(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
        keyed = {ProxyEntry.key_for(row["proxy_url"]): row for row in rows}
        chosen = {key: row for key, row in keyed.items() if crc32(key.encode()) % self.scale.share == 0}
        fetched = self.folder / "fetched.jsonl"
        fetched.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in chosen.values()))
        self.cache.warm_from_file(fetched)
        self.model.warm(chosen, self.clock.wall())
        self.tally.fetches += 1
        return chosen

    def _run(self, rows: dict[str, dict[str, Any]], seed: str) -> None:
        self.tally.runs += 1
        client = Client(rows, seed)
        starved = sum(not self._piece_of_work(client) for _ in range(self.scale.work))
        self.tally.fetches += starved > 0  # it would fetch the list again
        self.tally.failed_without += self._without_cache(Client(rows, seed))

    def _piece_of_work(self, client: Client) -> bool:
        """Whether a proxy was found that did it."""
        for key in client.draws():
            entry, expected = self.cache.get(key), self.model.get(key, self.clock.wall())
            self.tally.requests += 1
            self.tally.hits += entry is not None
            self.tally.bad += entry is None and key in self.model.removed
            if (entry is None) != (expected is None):
                self.tally.differences.append(f"get {key}: {entry}, and should be {expected}")
            if entry is not None and expected is not None:
                if client.works(key):
                    self._succeed(key)
                    return True
                self._fail(key)
        return False

    def _succeed(self, key: str) -> None:
        self.model.succeed(key)
        if self.cache.record_success(key) is None:
            self.tally.differences.append(f"success of {key}: it is not there")

    def _fail(self, key: str) -> None:
        self.tally.failed += 1
        left, removed = self.cache.invalidate_by_health(key), self.model.fail(key)
        self.tally.removed += removed
        if (left is None) != removed:
            self.tally.differences.append(f"failure of {key}: {left}, and the model removed it: {removed}")

    def _without_cache(self, client: Client) -> int:
        """How often the same client meets a failure if it knows of nothing before this run."""
        failures: dict[str, int] = {}
        failed = 0
        for _ in range(self.scale.work):
            for key in client.draws():
                if failures.get(key, 0) < self.scale.threshold:
                    if client.works(key):
                        failures[key] = 0
                        break
                    failures[key] = failures.get(key, 0) + 1
                    failed += 1
        return failed

    def _compare(self, moment: str) -> None:
        """Compare the whole state with the dict's."""
        self.cache.flush()
        found = {entry.key: _held(entry) for entry in self.cache.scan()}
        expected = self.model.held
        self.tally.compared += len(expected)
        self.tally.lost += len(expected.keys() - found.keys())
        keys = [key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)]
        self.tally.differences += [f"{moment}: {key}: {found.get(key)} for {expected.get(key)}" for key in keys]
        self.tally.differences += [f"{moment}: {place}" for place in self._stale_copies()]

    def _stale_copies(self) -> list[str]:
        """Copies above the authority that are not what it holds."""
        *above, authority = self.cache.levels
        versions = {row.key: row.version for row in authority.tier.scan()}
        copies = [(level.name, record) for level in above for record in level.tier.scan()]
        return [f"{name}: {record.key}" for name, record in copies if versions.get(record.key) != record.version]

    def _told(self, path: Path, listed: int, before: Tally) -> tuple[str, ...]:
        tally = self.tally
        requests, hits = tally.requests - before.requests, tally.hits - before.hits
        return (
            path.name.removesuffix(".jsonl.gz"),
            f"{listed:,}",
            f"{len(self.model.held):,}",
            f"{requests:,}",
            f"{hits / requests:.1%}",
            f"{tally.failed - before.failed:,}",
            f"{tally.failed_without - before.failed_without:,}",
            f"{tally.removed - before.removed:,}",
        )


def list_paths() -> list[Path]:
    """The lists, in order; one of them ships with tierkit."""
    with as_file(files("tierkit").joinpath("data")) as shipped:
        return sorted([*FOLDER.glob("*.jsonl.gz"), *shipped.glob("*.jsonl.gz")], key=lambda path: path.name)


def _published_at(path: Path) -> float:
    return datetime.strptime(path.name[:16], "%Y-%m-%dT%H%MZ").replace(tzinfo=UTC).timestamp()


def _published(row: dict[str, Any]) -> tuple[Any, ...]:
    checked = datetime.fromisoformat(row["last_checked"]).replace(tzinfo=UTC)
    url = ProxyEntry(proxy_url=row["proxy_url"]).proxy_url
    return url, row["source"], row["country_code"], row["response_time_ms"], checked


def _held(entry: Listed) -> Held:
    published = (entry.proxy_url, entry.source, entry.country_code, entry.response_time_ms, entry.last_checked)
    return Held(published, entry.purge_at, entry.health_status.value, entry.failure_count, entry.access_count)


def figures(tally: Tally) -> list[Figure]:
    """What the replay shows, and whether it is as it must be."""
    misses = tally.requests - tally.hits
    saved = (f"{tally.saved:.1%}: {tally.fetches} fetches", f"without a cache {tally.runs}, one for each run")
    reads = (
        f"{tally.hit_ratio:.1%} of {tally.requests:,} reads",
        f"{tally.bad:,} misses of proxies removed for their health, {misses - tally.bad:,} of expired ones",
    )
    tries = (f"{tally.failed:,}", f"without a cache {tally.failed_without:,}")
    lost = (str(tally.lost), f"{tally.removed:,} were removed for their health")
    state = (f"{len(tally.differences)} differences", f"a dict: {tally.compared:,} records compared, one by one")
    return [
        Figure("fetches saved", *saved, None, "60 %", tally.saved >= 0.6),
        Figure("hit ratio of the client", *reads, None, "none", holds=True),
        Figure("tries of proxies that failed", *tries, None, "fewer", tally.failed < tally.failed_without),
        Figure("records lost", *lost, None, "0", tally.lost == 0),
        Figure("state after each list and run", *state, None, "0", not tally.differences),
    ]


def main(arguments: Sequence[str], scale: Scale = Scale()) -> int:
    """Replay, print, and write the section of the page if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks replay", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the section of the page")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        tally = Replay(Path(folder), scale).run()
    for difference in tally.differences[:20]:
        print(difference, file=sys.stderr)
    found = figures(tally)
    printed = _report(tally, found)
    print(printed)
    if asked.write:
        write_section("Replay of eight lists", _introduction(scale) + printed)
    return 0 if all(figure.holds for figure in found) else 1


def _report(tally: Tally, found: Sequence[Figure]) -> str:
    head = ("list", "proxies", "held afterwards", "reads", "hits", "failed tries", "without a cache", "removed")
    rows = [(figure.what, figure.measured, figure.beside, figure.target, verdict(figure.holds)) for figure in found]
    return table(head, tally.lists) + "\n" + table(("what", "with the cache", "beside", "target", ""), rows)


def _introduction(scale: Scale) -> str:
    lives = ", ".join(f"{source} {seconds / HOUR:g} h" for source, seconds in LIVES.items())
    story = (__doc__ or "").split("\n\n", 1)[1]
    return (
        f"{story}\nLives by source: {lives}; default bounds; {scale.work:,} pieces of work a run; removed after "
        f"{scale.threshold} failures;\n30 % of the proxies never work and one try in ten of the others fails, by seed. "
        f"On {machine()}, with\n\n    uv run python -m benchmarks replay --write\n\n"
    )
