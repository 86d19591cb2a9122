"""The shell commands with which a key file is changed do what the page says, step by step."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from tierkit import CacheConfig, CacheManager, ProxyEntry

TEXT = (Path(__file__).parents[2] / "docs" / "how-to" / "rotate-keys.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
CONFIG = """
[tierkit]
encryption_key_file = "keys/encryption.key"
[[tierkit.tiers]]
backend = "sqlite"
path = "tierkit.db"
"""


def test_a_key_file_is_made_and_changed_by_the_commands_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TIERKIT_ENCRYPTION_KEY", raising=False)
    Path("tierkit.toml").write_text(CONFIG)
    make, change = BLOCKS
    run(make)
    old = keys()
    with CacheManager(CacheConfig.load()) as cache:
        key = cache.put(ProxyEntry.from_url("http://ada:lovelace@192.0.2.1:8080")).key

    mask, add, promote, rotate, remove = change.splitlines()
    run(f"{mask}\n{add}")
    assert keys()[:1] == old
    new = keys()[1:]
    run(f"{mask}\n{promote}")
    assert keys() == new + old
    run(rotate)
    run(f"{mask}\n{remove}")
    assert keys() == new
    assert Path("keys/encryption.key").stat().st_mode & 0o777 == 0o600
    with CacheManager(CacheConfig.load()) as cache:
        entry = cache.get(key)
        assert entry is not None
        assert entry.password == SecretStr("lovelace")


def keys() -> list[str]:
    return Path("keys/encryption.key").read_text().split()


def run(commands: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["sh", "-ec", commands], check=True, env={**os.environ, "PATH": path}, capture_output=True)
