"""`tierkit.inspection`: a survey of rows, without opening them."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel
from tests.tiers import FiveMethodTier

from tierkit import Row, TierContext, TierSpec, TierUnavailable, Trait
from tierkit.inspection import survey
from tierkit.level import Level

NOW = 1_800_000_000.0


def level(tier: FiveMethodTier, *, traits: Trait = Trait.PERSISTENT) -> Level:
    tier.traits = traits  # type: ignore[misc]  # not those of its class
    spec = TierSpec(kind="five", factory=lambda _context, _options: tier, options=BaseModel, traits=traits, api=1)
    return Level("L2", spec, tier)


def row(key: str, *, left: float = 60.0, **columns: Any) -> Row:
    return Row(key=key, version=1, purge_at=NOW + left, check="", columns=columns)


def full(*rows: Row) -> FiveMethodTier:
    tier = FiveMethodTier(TierContext(name="L2", max_entries=7))
    for item in rows:
        tier.put(item)
    return tier


def test_rows_are_counted_by_source_health_and_deadline() -> None:
    rows = (
        row("a", source="x", health_status="healthy"),
        row("b", source="x", health_status="unhealthy", left=-1.0),
        row("c", source="y", health_status="healthy", left=0.0),
    )
    (found,) = survey([level(full(*rows))], NOW)
    assert (found.name, found.kind, found.max_entries, found.records, found.expired) == ("L2", "five", 7, 3, 2)
    assert (found.sources, found.health) == ({"x": 2, "y": 1}, {"healthy": 2, "unhealthy": 1})
    assert found.bytes_on_disk is None


def test_a_record_in_its_grace_period_has_expired() -> None:
    (found,) = survey([level(full(row("a", expires_at=NOW), row("b", expires_at=NOW + 1)))], NOW)
    assert found.expired == 1


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(-5, "1m"), (0, "1m"), (59, "1m"), (60, "1h"), (3600, "1d"), (86400, "7d"), (604800, "older"), (1e9, "older")],
)
def test_ages_count_from_the_fetch(seconds: float, bucket: str) -> None:
    (found,) = survey([level(full(row("a", fetch_time=NOW - seconds)))], NOW)
    assert found.ages == {bucket: 1}


def test_what_a_row_does_not_say_is_unknown() -> None:
    (found,) = survey([level(full(row("a")))], NOW)
    assert found.sources == found.health == found.ages == {"unknown": 1}


def test_levels_of_this_process_are_left_out() -> None:
    assert survey([level(full(), traits=Trait.LIVE), level(full(), traits=Trait.NONE)], NOW) == []


def test_a_level_that_fails_says_why_and_spoils_no_other() -> None:
    class Failing(FiveMethodTier):
        def scan(self) -> Iterator[Row]:
            yield row("a")
            raise TierUnavailable("the disk is gone")

    broken, good = survey([level(Failing(TierContext())), level(full(row("a")))], NOW)
    assert (broken.records, broken.error) == (1, "the disk is gone")
    assert (good.records, good.error) == (1, "")
