"""What `tierkit` offers: every name that a user needs to write a signature, without loading more than is used."""

import subprocess
import sys
from pathlib import Path

import pytest

import tierkit
from tierkit import bulk, cache, checking, health, keys, plugins, progress, rotation, settings, transfer

ROOT = Path(__file__).parents[2]
NAMES = {
    "Cache": cache.Cache,
    "LoadSettings": cache.LoadSettings,
    "Memoized": cache.Memoized,
    "CheckResult": checking.CheckResult,
    "Checker": checking.Checker,
    "HealthResult": health.HealthResult,
    "KeyRing": keys.KeyRing,
    "OnInvalid": bulk.OnInvalid,
    "KeyStatus": rotation.KeyStatus,
    "LevelKeys": rotation.LevelKeys,
    "RotationResult": rotation.RotationResult,
    "OnProgress": progress.OnProgress,
    "PluginRegistry": plugins.PluginRegistry,
    "Reject": transfer.Reject,
    "Setting": settings.Setting,
    "WarmResult": transfer.WarmResult,
    "discover": plugins.discover,
}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_a_public_signature_can_be_had_from_tierkit(name: str) -> None:
    assert name in tierkit.__all__
    assert getattr(tierkit, name) is NAMES[name]


def test_every_name_that_is_promised_is_there_and_they_are_sorted_as_ruff_does() -> None:
    assert all(hasattr(tierkit, name) for name in tierkit.__all__)
    assert len(set(tierkit.__all__)) == len(tierkit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Wram'"):
        _ = tierkit.Wram


def test_the_import_of_tierkit_leaves_alone_what_only_warming_needs() -> None:
    program = "import sys, tierkit; print([name for name in sys.modules if name.startswith('tierkit.transfer')])"
    assert python("-c", program).stdout.strip() == "[]"


# -- types, as a checker sees them -----------------------------------------------------------------------------------

SNIPPET = """
from pydantic import SecretStr
from tierkit import CacheEntry, CacheManager

class ApiKey(CacheEntry):
    service: str
    token: SecretStr

good = ApiKey(service="svc", token=SecretStr("x"), key="k")
reveal_type(CacheManager().get)
reveal_type(CacheManager(entry_type=ApiKey).get)
ApiKey("svc", SecretStr("x"), key="k")
good.service = "other"
"""


def test_a_type_checker_knows_what_a_cache_answers_and_that_entries_are_keyword_only_and_frozen(tmp_path: Path) -> None:
    file = tmp_path / "snippet.py"
    file.write_text(SNIPPET)
    ran = python("-m", "mypy", "--strict", "--no-pretty", "--hide-error-context", "--no-error-summary", str(file))
    lines = [line.partition(f"{file.name}:")[2] for line in ran.stdout.splitlines()]
    told = "\n".join(lines)
    assert (
        '10: note: Revealed type is "def (key: str, *, allow_stale: bool =) -> tierkit.entry.ProxyEntry | None"'
        in lines
    ), ran
    assert "ApiKey | None" in next(line for line in lines if line.startswith("11: note"))
    assert {line[:3] for line in lines if ": error: " in line} == {"12:", "13:"}, told
    assert "12: error: Too many positional arguments" in told
    assert "read-only" in told


# -- builds without the lock -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("answer", "warned"), [("lambda: False", 1), ("lambda: True", 0), (None, 0)])
def test_a_build_without_the_global_lock_is_warned_of_once(answer: str | None, warned: int) -> None:
    given = f"sys._is_gil_enabled = {answer}" if answer else "vars(sys).pop('_is_gil_enabled', None)"
    ran = python("-W", "always", "-c", f"import sys; {given}; import tierkit; import tierkit.demo")
    assert ran.returncode == 0
    assert ran.stderr.count("RuntimeWarning") == warned
    assert ran.stderr.count("may be a little low") == warned
