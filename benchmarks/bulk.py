"""Loading 10,000 records into three tiers, beside the bare work."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks import bare
from benchmarks.measuring import Figure, ratio_figure, side_by_side
from benchmarks.records import COUNT, three_tiers, write_lists
from tierkit import CacheManager

PARSERS = {"CSV": bare.parse_csv, "JSONL": bare.parse_jsonl}


def figures(folder: Path) -> list[Figure]:
    """For each format: everything in every level, and the default bounds."""
    found = []
    for form, path in write_lists(folder).items():
        taken = side_by_side(
            {
                "bare": partial(_bare, folder, path, form),
                "all": _warm(folder, path, bounded=False),
                "default": _warm(folder, path, bounded=True),
            },
            rounds=7,
        )
        for name, title in (("all", "all in every level"), ("default", "default bounds")):
            what = f"10,000 records with secrets from {form} into three tiers, {title}"
            found.append(ratio_figure(what, taken[name], taken["bare"], "bare work", 5))
    return found


def _bare(folder: Path, path: Path, form: str) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as new:
        bare.load(PARSERS[form](path), Path(new), bytes(32))


def _warm(folder: Path, path: Path, *, bounded: bool) -> Callable[[], None]:
    def warm() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as new:
            with CacheManager(three_tiers(Path(new), bounded)) as cache:
                result = cache.warm_from_file(path)
            if result.loaded != COUNT:
                raise RuntimeError(f"loaded {result.loaded} of {COUNT}: {result.rejects[:1]}")

    return warm
