"""A stranger's tier, installed from wheels into a bare environment, is found, used by name, and keeps the contract."""

import json
import os
import shutil
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "tierkit-folder"


def run(*command: str | Path, folder: Path) -> str:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TIERKIT_", "COVERAGE_", "COV_CORE", "PYTEST_", "VIRTUAL_ENV"))
    }
    ran = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment | {"UV_OFFLINE": "1"},  # what it needs was fetched when this environment was made
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def find_uv() -> str:
    found = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
    assert Path(found).exists(), "this test needs uv: start the tests with `uv run pytest`"
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an environment `venv` that has nothing but the wheels and what they depend on."""
    folder = tmp_path_factory.mktemp("bare")
    uv = find_uv()
    example = shutil.copytree(EXAMPLE, folder / "tierkit-folder")
    run(uv, "build", "--wheel", "--all-packages", "--out-dir", folder / "dist", folder=ROOT)
    run(uv, "build", "--wheel", "--out-dir", folder / "dist", example, folder=folder)
    run(uv, "venv", "--quiet", "venv", folder=folder)
    wheels = sorted((folder / "dist").glob("*.whl"))
    python = folder / "venv" / "bin" / "python"
    needed = sorted(declared({wheel.name.split("-")[0] for wheel in wheels} - {"tierkit_folder"}))
    # Without a look at the index: there is no network, and what is kept of its answers differs from machine to machine.
    run(uv, "pip", "install", "--quiet", "--no-deps", "--python", python, *wheels, *needed, folder=folder)
    run(uv, "pip", "check", "--python", python, folder=folder)
    return folder


def declared(members: set[str]) -> set[str]:
    """What `members`, with core's extra `testing`, say they need, and what that needs: as installed here."""
    waiting = [(name, "testing" if name == "tierkit_core" else "") for name in members]
    seen: dict[str, str] = {}
    while waiting:
        name, extra = waiting.pop()
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needed = canonicalize_name(requirement.name)
                if needed not in seen and not needed.startswith("tierkit"):
                    seen[needed] = metadata.version(needed)
                    waiting += [(needed, extra) for extra in ("", *requirement.extras)]
    return {f"{name}=={version}" for name, version in seen.items()}


def test_the_stranger_is_found_and_keeps_records_as_l2_by_name(bare: Path) -> None:
    tierkit = bare / "venv" / "bin" / "tierkit"
    folder = bare / "tierkit-folder"
    (folder / "list.txt").write_text("203.0.113.1:8080\n203.0.113.2:8080\n")
    plugins = json.loads(run(tierkit, "plugins", "--json", folder=folder))
    assert "folder" in json.dumps(plugins)
    run(tierkit, "--config", "tierkit.toml", "warm", "list.txt", "--scheme", "http", folder=folder)
    listed = run(tierkit, "--config", "tierkit.toml", "ls", "--json", folder=folder)
    assert sorted(json.loads(line)["proxy_url"] for line in listed.splitlines()) == [
        "http://203.0.113.1:8080",
        "http://203.0.113.2:8080",
    ]
    kept = [file for file in (folder / "data" / "folder" / "proxy_entry").iterdir() if not file.suffix]
    assert len(kept) == 2


def test_the_stranger_keeps_the_contract(bare: Path) -> None:
    python = bare / "venv" / "bin" / "python"
    quick = "not (lost or takes_back or only_the_version or not_due)"  # these race threads, as they do for any BlobTier
    command = (python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", quick, "tests")
    printed = run(*command, folder=bare / "tierkit-folder")
    assert " passed" in printed
    assert "failed" not in printed


def test_the_stranger_is_as_short_as_promised() -> None:
    tier = EXAMPLE / "src" / "tierkit_folder" / "__init__.py"
    contract = EXAMPLE / "tests" / "test_contract.py"
    assert len(tier.read_text().splitlines()) <= 60
    assert len(contract.read_text().splitlines()) <= 10
