"""`tierkit explain`."""

import json
from pathlib import Path

import pytest

from tierkit import CacheConfig, CacheManager

from .conftest import Run

URL = "http://ada:lovelace1815@192.0.2.3:8080"


def below(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file() and path.suffix != ".db-shm"}


def test_a_record_is_explained_by_its_url_and_nothing_changes(run: Run, store: Path) -> None:
    before = below(store)
    told = json.loads(run("explain", URL, "--json").stdout)
    assert (told["answer"], told["why"]) == ("L2", "a hit from L2: L1 does not hold it")
    assert [level["state"] for level in told["levels"]] == ["absent", "fresh", "fresh"]
    assert ("L3", "written") in [(one["level"], one["what"]) for one in told["decisions"]]
    shown = run("explain", URL).output
    assert "a hit from L2" in shown
    assert "written" in shown
    assert "lovelace1815" not in shown + json.dumps(told)
    assert below(store).keys() == before.keys()
    assert all(before[path] == data for path, data in below(store).items() if path.suffix != ".db-wal")


@pytest.mark.usefixtures("store")
def test_who_holds_it_is_told(run: Run) -> None:
    with CacheManager(CacheConfig.load()) as cache, cache.lease() as entry:
        assert entry is not None
        assert "It is leased by" in run("explain", entry.key).stdout


@pytest.mark.usefixtures("store")
def test_a_key_of_which_nothing_is_known_ends_with_1_as_get_does(run: Run) -> None:
    assert "no level holds" in run("explain", "nobody", code=1).stderr
    told = json.loads(run("explain", "nobody", "--json", code=1).stdout)
    assert (told["answer"], told["decisions"]) == (None, [])


def test_an_expired_record_says_since_when(run: Run, store: Path) -> None:
    key = next(json.loads(line)["key"] for line in run("ls", "--expired", "--json").stdout.splitlines())
    told = json.loads(run("explain", key, "--json").stdout)
    assert told["answer"] is None
    assert "expired" in told["why"]
    assert "ago" in run("explain", key).stdout


def test_who_looks_where_no_decision_was_kept_is_told_the_setting(run: Run, store: Path) -> None:
    config = store / "tierkit.toml"
    config.write_text(config.read_text().replace("[tierkit]", "[tierkit]\ndecisions_persisted = false"))
    (store / "proxies.txt").write_text("http://192.0.2.77:80\n")
    run("warm", "proxies.txt")
    assert "decisions_persisted = true" in run("explain", "http://192.0.2.77:80").stdout
