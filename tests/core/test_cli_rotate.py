"""`tierkit keys` and `tierkit rotate`."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from tierkit import CacheConfig, FileCacheTier, TierUnavailable
from tierkit.cli.rotate import key_origin
from tierkit.keys import parse_keys
from tierkit_sqlite import SQLiteCacheTier

from .conftest import Run

NEW = Fernet.generate_key().decode()
NEW_ID = parse_keys(NEW).primary.id
KEY_FILE = Path("keys/encryption.key")


@pytest.fixture
def old_id(store: Path) -> str:
    """The id of the key that everything in the store is sealed with."""
    return parse_keys(KEY_FILE.read_text()).primary.id


@pytest.fixture
def both(store: Path, old_id: str) -> str:
    """A new key in front of the old one. Answers the id of the old one."""
    KEY_FILE.write_text(f"{NEW}\n{KEY_FILE.read_text()}")
    return old_id


def told(output: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output)
    return found


def records(run: Run) -> dict[str, dict[str, Any]]:
    """What is listed, by key, but for the versions."""
    found = map(json.loads, run("ls", "--json").stdout.splitlines())
    return {record["key"]: {**record, "version": 0} for record in found}


def below(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# -- keys -------------------------------------------------------------------------------------------------------------


def test_keys_tells_which_key_the_records_of_each_level_need_and_where_it_was_found(
    run: Run, store: Path, old_id: str
) -> None:
    shown = run("keys").stdout
    assert old_id in shown
    assert "encryption.key" in shown
    found = told(run("keys", "--json").stdout)
    assert (found["current"], found["older"]) == (old_id, [])
    assert found["found_in"] == f"the key file {KEY_FILE.absolute()}"
    assert [level["name"] for level in found["levels"]] == ["L2", "L3"]
    assert all(level["current"] == level["records"] > 0 for level in found["levels"])


def test_keys_changes_nothing_and_shows_no_key(run: Run, store: Path, both: str) -> None:
    before = below(store)
    for options in ([], ["--json"], ["-v"]):
        output = run("keys", *options).output
        assert not any(key in output for key in KEY_FILE.read_text().split())
    assert below(store) == before


def test_keys_tells_how_many_records_an_older_key_is_needed_for(run: Run, both: str) -> None:
    found = told(run("keys", "--json").stdout)
    assert (found["current"], found["older"], found["retired"]) == (NEW_ID, [both], [])
    assert found["levels"][1]["others"] == {both: found["levels"][1]["records"]}
    assert found["levels"][1]["current"] == 0
    assert "held" in run("keys").stdout


def test_keys_tells_of_a_key_that_is_not_held(run: Run, both: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIERKIT_ENCRYPTION_KEY", NEW)
    result = run("keys", code=6)
    assert f"tierkit: records need keys that are not held: {both}" in result.stderr
    assert "TIERKIT_ENCRYPTION_KEY" in result.stdout
    assert "not held" in result.stdout


def test_keys_without_any_key_or_any_level(run: Run, store: Path) -> None:
    KEY_FILE.unlink()
    assert "No key is held." in run("keys", code=6).stdout
    Path("tierkit.toml").write_text('[tierkit]\n[[tierkit.tiers]]\nbackend = "memory"\n')
    assert "no level that stores records" in run("keys").stdout


def test_keys_says_which_level_cannot_be_read(run: Run, both: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def scan(_: object) -> Any:
        raise TierUnavailable("gone")

    monkeypatch.setattr(SQLiteCacheTier, "scan", scan)
    assert "tierkit: L3 cannot be read: gone" in run("keys", code=3).stderr


def test_a_new_key_is_all_that_is_printed_to_standard_output(run: Run, home: Path) -> None:
    result = run("keys", "--generate")
    key = parse_keys(result.stdout).primary
    assert len(result.stdout) == 45
    assert key.id in result.stderr
    assert result.stdout.strip() not in result.stderr
    assert list(home.iterdir()) == []
    assert run("keys", "--generate").stdout != result.stdout


# -- rotate -----------------------------------------------------------------------------------------------------------


def test_rotate_brings_everything_to_the_first_key_and_says_that_the_other_can_go(
    run: Run, store: Path, both: str
) -> None:
    before = records(run)
    result = run("rotate")
    assert f"The key {both} can go: no record here needs it." in result.stdout
    assert "records were sealed anew with the current key" in result.stdout
    KEY_FILE.write_text(NEW)
    assert records(run) == before
    data = [content for path, content in below(store).items() if path.name != KEY_FILE.name]
    assert not any(both.encode() in content for content in data)


def test_rotate_as_json_and_a_second_time(run: Run, both: str) -> None:
    first, second = (told(run("rotate", "--json").stdout) for _ in range(2))
    assert first["resealed"] > 0
    assert second["resealed"] == 0
    for found in (first, second):
        assert (found["current"], found["retired"], found["remains"]) == (NEW_ID, [both], [])


def test_rotate_ends_with_6_while_records_need_a_key_that_is_not_held(
    run: Run, both: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIERKIT_ENCRYPTION_KEY", NEW)
    result = run("rotate", code=6)
    assert f"name the key {both}, which is not held" in result.stderr
    assert "can go" not in result.stdout


def test_rotate_ends_with_3_where_a_tier_could_not_be_compacted(
    run: Run, both: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compact(_: object) -> None:
        raise TierUnavailable("no room")

    monkeypatch.setattr(FileCacheTier, "compact", compact)
    result = run("rotate", code=3)
    assert "tierkit: L2 could not be compacted: no room" in result.stderr
    assert "can go" not in result.stdout
    monkeypatch.undo()


def test_rotate_shows_no_key(run: Run, both: str) -> None:
    for options in ([], ["--json"], ["-v"]):
        output = run("rotate", *options).output
        assert not any(key in output for key in KEY_FILE.read_text().split())
    assert os.stat(KEY_FILE).st_mode & 0o077 == 0


def test_the_origin_of_keys_that_a_program_passes_is_said() -> None:
    assert key_origin(CacheConfig(encryption_key=SecretStr(NEW))) == "the encryption key that was passed"
