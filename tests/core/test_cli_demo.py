"""`tierkit demo`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tierkit import demo
from tierkit.cli import demo as shown

from .conftest import Run


def run_demo(temporary: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The demo as a program, with an environment that would break it if it were read."""
    hostile = {"TIERKIT_CONFIG": "/nowhere", "TIERKIT_ENCRYPTION_KEY": "none", "TIERKIT_DEFAULT_TTL_SECONDS": "1"}
    environ = {**os.environ, **hostile, "PROXYWHIRL_CACHE_ENCRYPTION_KEY": "none", "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "tierkit", "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environ, check=False, timeout=300)


@pytest.mark.req("US1-3")
@pytest.mark.req("US1-6")
@pytest.mark.req("US2-1")
def test_the_demo_tells_its_story_and_leaves_nothing_behind(home: Path) -> None:
    (home / "tierkit.toml").write_text("this would be an error, if it were read", "utf-8")
    temporary = home / "temporary"
    temporary.mkdir()
    done = run_demo(temporary)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(temporary.iterdir()) == []
    assert {path.name for path in home.iterdir()} == {"tierkit.toml", "temporary"}
    story = (
        "7,038 of 7,038 records",
        "2,012 of 2,012 secrets",
        "✓ Every field",
        "✓ Searched",
        "6,838 records are left",
    )
    flat = " ".join(done.stdout.split())
    assert [part for part in story if part not in flat] == []
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines()[1:])) <= 120


def test_a_kept_demo_can_be_looked_at_with_the_other_commands(run: Run, home: Path) -> None:
    done = run_demo(home, "--keep", str(home / "kept"))
    assert done.returncode == 0, done.stderr
    kept = ("--config", home / "kept" / "tierkit.toml", "--entry-type", "tierkit.demo:ListedProxy")
    assert len(run(*kept, "ls", "--json").stdout.splitlines()) == 6838
    assert json.loads(run(*kept, "stats", "--json").stdout)["levels"][-1]["expired"] == 0


def test_a_directory_that_is_not_empty_is_refused_and_left_alone(run: Run, home: Path) -> None:
    (home / "precious").write_text("mine", "utf-8")
    assert "not empty" in run("demo", "--keep", home, code=2).stderr
    assert [path.name for path in home.iterdir()] == ["precious"]


def test_a_demo_that_finds_a_fault_does_not_end_with_0(run: Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shown._Demo, "run", lambda _self: False)
    run("demo", code=70)


def test_a_credential_on_disk_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x00\x01 demo1234-password \xff")
    (tmp_path / "b").write_bytes(b"nothing")
    assert demo.files_with([tmp_path / "a", tmp_path / "b"], "demo1234") == [tmp_path / "a"]


def test_every_generated_credential_begins_with_what_is_searched_for() -> None:
    listing = demo.Listing()
    found = [row[name] for row in listing.rows for name in ("username", "password") if name in row]
    assert len(found) == 2 * listing.with_credentials == len(set(found))
    assert all(secret.startswith(listing.marker) for secret in found)


def test_a_field_that_differs_is_noticed() -> None:
    listing = demo.Listing()
    before = listing.check()
    listing.rows[4711]["response_time_ms"] += 1
    assert listing.check().digest != before.digest


def test_the_list_comes_with_its_licence() -> None:
    data = Path(demo.__file__).parent / "data"
    assert {path.name for path in data.iterdir()} == {demo.LIST, "LICENSE"}
