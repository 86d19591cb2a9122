"""One examination: the surroundings, the storage of each level as it lies there, and every row."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tierkit import storage_checks
from tierkit.config import ResolvedTier
from tierkit.doctor import kinds
from tierkit.doctor.coherence import Comparison
from tierkit.doctor.key_checks import check_keys_of_rows, check_sources
from tierkit.doctor.patients import Patient
from tierkit.doctor.result import Chart, Examination
from tierkit.doctor.rows import RowChecks
from tierkit.errors import CacheCorruptionError, CacheStorageError, PluginError, TierkitError
from tierkit.findings import Finding
from tierkit.inspection import size_of
from tierkit.level import Level
from tierkit.plugins import PluginRegistry
from tierkit.progress import Meter, OnProgress
from tierkit.stack import Stack

logger: Final = logging.getLogger("tierkit.doctor")

BATCH: Final = 500


def examine_all(patient: Patient, on_progress: OnProgress | None) -> Examination:
    """Examine everything. Changes nothing; blocks on I/O."""
    chart = Chart()
    chart.add("", _check_plugins(patient.registry))
    chart.add("", check_sources(patient))
    for tier in patient.levels:
        chart.add(tier.name, _check_storage(patient, tier))
    try:
        with patient.reading() as stack:
            _check_levels(patient, stack, chart, on_progress)
    except TierkitError as error:
        for tier in patient.levels:
            _unreadable(chart, tier.name, error)
    return chart.result(tier.name for tier in patient.levels)


def _check_plugins(registry: PluginRegistry) -> Iterator[Finding]:
    for plugin in registry.broken:
        yield kinds.PLUGIN_BROKEN.at(f"{plugin.name} of {plugin.distribution}", plugin.error)


def _check_storage(patient: Patient, tier: ResolvedTier) -> Iterator[Finding]:
    """What its plugin finds in the storage, which nobody need have open. A plugin that fails is told, too."""
    yield from _kept_beside(tier)
    if tier.spec.examine is None:
        return
    try:
        yield from map(_checked, tier.spec.examine(patient.context(tier), tier.options))
    except Exception as error:
        logger.debug("the storage of %s could not be examined", tier.name, exc_info=True)
        yield kinds.LEVEL_UNREADABLE.at("its storage", f"{type(error).__name__}: {error}")


def _checked(finding: object) -> Finding:
    if isinstance(finding, Finding):
        return finding
    raise PluginError(f"its examination answered a {type(finding).__name__}, which is no Finding")


def _kept_beside(tier: ResolvedTier) -> Iterator[Finding]:
    path: object = getattr(tier.options, "path", None)
    if isinstance(path, Path):
        for kept in sorted(path.parent.glob(f"{glob.escape(path.name)}.damaged-*.jsonl")):
            yield storage_checks.SET_ASIDE.at(str(kept))


def _check_levels(patient: Patient, stack: Stack[Any], chart: Chart, on_progress: OnProgress | None) -> None:
    levels = [level for level in stack.stored if patient.names(level.name)]
    meter = Meter("examining", size_of(levels), on_progress=on_progress, log=logger)
    for level in reversed(levels):
        try:
            _check_rows(patient, stack, level, chart, meter)
        except (CacheStorageError, CacheCorruptionError) as error:
            _unreadable(chart, level.name, error)
    meter.finish()
    chart.add("", check_keys_of_rows(stack.sealer.key_ids, chart.keys_named, complete=len(levels) == len(stack.stored)))


def _check_rows(patient: Patient, stack: Stack[Any], level: Level, chart: Chart, meter: Meter) -> None:
    level.call(level.tier.size)  # one that could not be opened says why
    checks = RowChecks(stack, level, key_usable=not patient.key_error)
    comparison = Comparison(stack, level)
    rows = level.scan()
    while batch := list(islice(rows, BATCH)):
        chart.records[level.name] += len(batch)
        chart.add(level.name, checks.of(batch))
        comparison.take(batch)
        meter.advance(len(batch))
    chart.add(level.name, checks.at_the_end())
    chart.add(level.name, comparison.findings())
    chart.keys_named[level.name] = checks.keys


def _unreadable(chart: Chart, level: str, error: TierkitError) -> None:
    chart.unreadable[level] = None
    chart.add(level, [kinds.LEVEL_UNREADABLE.at("the level", str(error))])
