"""`tierkit leases`."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tierkit import CacheConfig, CacheManager, LeasedEntry, ProxyEntry

from .conftest import Run

URL = "http://192.0.2.1:80"


@pytest.fixture
def hand(store: Path) -> Iterator[LeasedEntry[ProxyEntry]]:
    """A proxy, leased by a program that goes on."""
    with CacheManager(CacheConfig.load()) as cache:
        yield cache.lease(key=ProxyEntry.key_for(URL), ttl=90)


def test_leases_tells_who_holds_what(run: Run, hand: LeasedEntry[ProxyEntry]) -> None:
    (line,) = run("leases", "--json").stdout.splitlines()
    told = json.loads(line)
    assert told["key"] == ProxyEntry.key_for(URL)
    assert told["holder"].split()[1] == str(os.getpid())
    assert told["token"] == hand.token
    assert told["since"] < told["until"]
    shown = run("leases").stdout
    assert ProxyEntry.key_for(URL) in shown
    assert "in 1 m" in shown


def test_leases_needs_no_key_and_creates_nothing(run: Run, store: Path) -> None:
    before = sorted(store.rglob("*"))
    assert run("leases").stderr == "No record is leased.\n"  # and nothing of keys that are not held
    assert run("leases", "--json").stdout == ""
    assert sorted(store.rglob("*")) == before


@pytest.mark.parametrize("name", [URL, ProxyEntry.key_for(URL)])
def test_a_lease_is_ended_by_force(run: Run, hand: LeasedEntry[ProxyEntry], name: str) -> None:
    assert json.loads(run("leases", "--release", name, "--json").stdout)["token"] == hand.token
    assert not hand.release()
    assert "is not leased" in run("leases", "--release", name, code=1).stderr


def test_what_was_ended_is_shown(run: Run, hand: LeasedEntry[ProxyEntry]) -> None:
    assert ProxyEntry.key_for(URL) in run("leases", "--release", URL).stdout


def test_a_user_name_without_a_record_is_refused(run: Run, store: Path) -> None:
    assert "--release" in run("leases", "--username", "ada", code=2).stderr
