# ruff: noqa: S608 - the names are constants of the tests
"""What damage to the usage of a row does to what is put over it, and that usage stays a number."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.plugins.sqlite_support import NAMESPACE, open_tier, proxy, raw

from tierkit import Delta
from tierkit.testing import make_row
from tierkit_sqlite import work


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tierkit.db"


@pytest.mark.req("E-1")
@pytest.mark.parametrize("way", ["put", "put_many", "weigh"])
@pytest.mark.parametrize(
    "damage",
    [
        "access_count = 'often'",
        "access_count = x'01'",
        "access_count = 1.5",
        "access_count = -7",
        "access_count = 9223372036854775807",
        "last_accessed = 'lately'",
        "last_accessed = x'01'",
        "last_accessed = 1e300",
        "last_accessed = -1.0",
    ],
)
def test_usage_that_rotted_does_not_spoil_what_is_put_over_it(path: Path, way: str, damage: str) -> None:
    with open_tier(path) as tier:
        tier.put(make_row("key 1", 1, access_count=2, last_accessed=20.0))
        with raw(path) as connection:
            connection.execute(f"UPDATE {NAMESPACE} SET {damage}")
        new = make_row("key 1", 2, access_count=1, last_accessed=10.0)
        write: dict[str, Callable[[], int | None]] = {
            "put": lambda: tier.put(new),
            "put_many": lambda: tier.put_many([new])[0],
            "weigh": lambda: tier._connections.write(work.weigh, new),
        }
        assert write[way]() is None
        held = tier.get("key 1")
        assert held is not None
        assert held.version == 2
        assert held.access_count in {1, 2}
        assert held.last_accessed in {10.0, 20.0}


def test_more_uses_than_can_be_counted_stay_a_number(path: Path) -> None:
    with open_tier(path) as tier:
        tier.put(proxy(1))
        with raw(path) as connection:
            connection.execute(f"UPDATE {NAMESPACE} SET access_count = 9223372036854775807")
        tier.touch_many({"key 1": Delta(1, 1.0)})
        held = tier.get("key 1")
        assert held is not None
        assert held.access_count == 2**62
