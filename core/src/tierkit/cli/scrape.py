"""Reading a metrics endpoint of a cache: the part of Prometheus' text format that it takes."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Final
from urllib.parse import urlsplit

import click

from tierkit.errors import TierUnavailable

_MOST_BYTES: Final = 16_000_000
_TIMEOUT_SECONDS: Final = 5.0
_LINE: Final = re.compile(r'(?P<name>tierkit_\w+)\{(?P<labels>(?:\w+="(?:[^"\\]|\\.)*",?)*)\}\s+(?P<value>\S+)')
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPES: Final = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


@dataclass
class LevelCounts:
    """One level at a scrape: metrics by name, `evictions` over all causes, and the state of its breaker."""

    metrics: dict[str, float] = field(default_factory=dict)
    state: str = "unknown"


@dataclass
class CacheCounts:
    """One cache at a scrape: its own metrics by name, and its levels from the top."""

    metrics: dict[str, float] = field(default_factory=dict)
    levels: dict[str, LevelCounts] = field(default_factory=dict)


def check_url(url: str) -> str:
    """`url`, if something can be scraped there.

    Raises:
        click.UsageError: It is no URL of a web server.
    """
    try:
        parts = urlsplit(url)
        if parts.username is not None:
            raise click.UsageError("--watch takes no URL with credentials")
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fits = False
    if not fits:
        raise click.UsageError(
            f"--watch {url!r} is no URL of a metrics endpoint: give one like http://127.0.0.1:9464/metrics"
        )
    return url


def scrape(url: str) -> dict[str, CacheCounts]:
    """What the endpoint tells, by the name of each cache. Blocks for some seconds at most.

    Raises:
        TierUnavailable: It does not answer, or tells nothing of tierkit.
    """
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as answer:  # noqa: S310 - checked: http or https
            text = answer.read(_MOST_BYTES).decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        error.close()
        raise TierUnavailable(f"{url} answers {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise TierUnavailable(f"{url} cannot be read: {getattr(reason, 'strerror', None) or reason}") from None
    except HTTPException as error:  # it does not speak HTTP
        raise TierUnavailable(f"{url} cannot be read: {type(error).__name__}") from None
    found = parse(text)
    if not found:
        raise TierUnavailable(
            f"{url} answers, and tells of no cache: is it the endpoint of a tierkit cache that is open?"
        )
    return found


def parse(text: str) -> dict[str, CacheCounts]:
    """The caches that `text` tells of, in its order; what is not of tierkit is passed over."""
    caches: dict[str, CacheCounts] = {}
    for name, labels, value in _samples(text):
        cache = caches.setdefault(labels.get("cache", ""), CacheCounts())
        metric = name.removeprefix("tierkit_").removesuffix("_total")
        if "level" in labels:
            _add(cache.levels.setdefault(labels["level"], LevelCounts()), metric, labels, value)
        elif "operation" not in labels:
            cache.metrics[metric] = value
    return caches


def _add(level: LevelCounts, metric: str, labels: Mapping[str, str], value: float) -> None:
    if metric == "breaker_state":
        level.state = labels.get("state", "") if value else level.state
    elif "operation" not in labels:
        level.metrics[metric] = level.metrics.get(metric, 0.0) + value  # evictions come by cause


def _samples(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        labels = {name: _unescaped(value) for name, value in _LABEL.findall(found["labels"])}
        try:
            value = float(found["value"])
        except ValueError:
            continue
        if not found["name"].endswith("_created"):
            yield found["name"], labels, value


def _unescaped(value: str) -> str:
    return re.sub(r"\\.", lambda escape: _ESCAPES.get(escape[0], escape[0]), value)
