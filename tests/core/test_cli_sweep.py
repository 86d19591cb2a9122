"""`tierkit sweep`."""

import json
from unittest.mock import patch

import pytest

from tierkit import TierUnavailable
from tierkit_sqlite import SQLiteCacheTier

from .conftest import Run


@pytest.mark.usefixtures("store")
def test_sweep_removes_what_expired_and_says_how_many(run: Run) -> None:
    before = len(run("ls", "--all", "--json").stdout.splitlines())
    expired = len(run("ls", "--expired", "--json").stdout.splitlines())
    ran = run("sweep", "--json")
    assert expired > 0
    assert json.loads(ran.stdout) == {"removed": 2 * expired, "failed": []}
    assert "INFO tierkit.sweeper: sweeping" in ran.stderr
    assert len(run("ls", "--all", "--json").stdout.splitlines()) == before - expired
    assert run("sweep").stdout == "0 expired records were removed.\n"


@pytest.mark.usefixtures("store")
def test_a_level_that_could_not_be_swept_is_named(run: Run) -> None:
    with patch.object(SQLiteCacheTier, "purge_in_steps", side_effect=TierUnavailable("away")):
        ran = run("sweep", "--json", code=3)
    assert json.loads(ran.stdout)["failed"] == ["L3"]
    assert "L3 could not be swept" in ran.stderr
