"""`tierkit export`, `import`, `backup` and `restore`."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from .conftest import CONFIG, Run

SECRET = "lovelace1815"


@pytest.fixture
def elsewhere(store: Path) -> Path:
    """Another configuration, with one tier, and the same keys."""
    tiers = '[[tierkit.tiers]]\nbackend = "jsonl"\npath = "other"\n'
    path = store / "other.toml"
    path.write_text(CONFIG[: CONFIG.index("[[")] + tiers, "utf-8")
    return path


def test_what_is_exported_is_imported_elsewhere(run: Run, store: Path, elsewhere: Path) -> None:
    assert "3 records exported, 2 expired left out" in run("export", "all.csv.gz").stdout
    told = json.loads(run("--config", elsewhere, "import", "all.csv.gz", "--json").stdout)
    assert (told["imported"], told["rejected"], told["rejects_path"]) == (3, 0, None)
    assert sorted(run("--config", elsewhere, "ls", "--json").stdout.splitlines()) == sorted(
        run("ls", "--json").stdout.splitlines()
    )


@pytest.mark.req("US1-6")
def test_secrets_are_in_the_clear_only_by_asking_and_it_is_said(run: Run, store: Path) -> None:
    run("export", "all.jsonl")
    assert SECRET not in Path("all.jsonl").read_text()
    result = run("export", "all.json", "--secrets", "plain", "--json")
    assert json.loads(result.stdout)["secrets"] == "plain"
    assert "holds secrets in the clear" in result.stderr
    assert SECRET in Path("all.json").read_text()
    assert stat.S_IMODE(Path("all.json").stat().st_mode) == 0o600


def test_a_backup_is_verified_and_restored_onto_other_tiers(run: Run, store: Path, elsewhere: Path) -> None:
    made = run("backup", "all.jsonl")
    assert "The keys are not in it" in made.stderr
    assert "each record can be opened" in run("restore", "all.jsonl", "--verify").stdout
    assert "3 restored" in run("--config", elsewhere, "restore", "all.jsonl").stdout
    refused = run("--config", elsewhere, "restore", "all.jsonl", code=2)
    assert "--merge" in refused.stderr
    told = json.loads(run("--config", elsewhere, "restore", "all.jsonl", "--replace", "--json").stdout)
    assert (told["imported"], told["backup"]["records"]) == (3, 3)


def test_of_two_ways_to_restore_none_is_taken(run: Run, store: Path) -> None:
    run("backup", "all.jsonl")
    for two in (("--merge", "--replace"), ("--verify", "--replace")):
        assert "give one of" in run("restore", "all.jsonl", *two, code=2).stderr


def test_rejects_are_shown_and_end_with_a_code(run: Run, store: Path) -> None:
    run("export", "all.jsonl")
    Path("keys/encryption.key").write_text(Fernet.generate_key().decode())
    shown = run("import", "all.jsonl", "--rejects", "bad.jsonl", code=4)
    assert "add it" in shown.stdout
    assert Path("bad.jsonl").exists()
    assert "3 unreadable left out" in run("export", "none.jsonl", code=6).stdout
    assert run("backup", "none.jsonl", "--json", code=6).stdout.count('"left_out": 3') == 1


def test_what_cannot_be_done_is_told(run: Run, store: Path) -> None:
    assert "is a URL, not a file" in run("export", f"https://u:{SECRET}@host/a.json", code=2).stderr
    assert "is no file that tierkit exported" in run("import", "tierkit.toml", "--format", "jsonl", code=4).stderr
    run("export", "all.jsonl")
    with Path("all.jsonl").open("r+b") as file:
        file.truncate(900)
    assert "--accept-damage" in run("import", "all.jsonl", code=4).stderr
    assert "rejected: " in run("import", "all.jsonl", "--accept-damage", code=6).stdout
