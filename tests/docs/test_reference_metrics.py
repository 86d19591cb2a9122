"""Metrics are documented, all of them and no others."""

import re
from pathlib import Path

import pytest
from tests.core.engine.support import World, note

from tierkit import METRICS
from tierkit.testing import FakeClock
from tierkit.timing import CACHE_OPERATIONS, TIER_OPERATIONS

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text()
NAMED = TEXT[TEXT.index("## Prometheus and OpenTelemetry") : TEXT.index("## Latencies")]
FLAT = TEXT.replace(NAMED, "")


@pytest.mark.req("US6-3")
def test_every_flat_metric_is_documented_and_every_documented_one_exists() -> None:
    world = World(FakeClock())
    cache = world.open(("live", 1), "disk", latency_histograms=True)
    cache.put(note("a"))
    names = set(cache.get_statistics().to_metrics_dict())
    world.close()
    documented = set(re.findall(r"^\| `([a-z0-9_<>]+)` \| (?:counter|gauge) \|", FLAT, re.MULTILINE))
    operations = "|".join(TIER_OPERATIONS)
    general = {re.sub(r"^l\d_", "<level>_", name) for name in names}
    general = {re.sub(rf"^(<level>_)?(?:{operations})_seconds", r"\1<operation>_seconds", name) for name in general}
    assert general == documented


@pytest.mark.req("US6-2")
def test_the_operations_that_are_measured_are_documented() -> None:
    section = TEXT[TEXT.index("## Latencies") :].split("\n\n")[1]
    lists = re.findall(r"\(((?:`\w+`,?\s*)+)\)", section)
    assert [tuple(re.findall(r"\w+", names)) for names in lists] == [CACHE_OPERATIONS, TIER_OPERATIONS]


@pytest.mark.req("US6-3")
def test_every_metric_of_monitoring_systems_is_documented_with_kind_labels_and_meaning() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\| (.*) \|$", NAMED, re.MULTILINE)
    documented = [(name, kind, tuple(re.findall(r"\w+", labels)), meaning) for name, kind, labels, meaning in rows]
    assert documented == [(metric.name, metric.kind, metric.labels, metric.help) for metric in METRICS]
