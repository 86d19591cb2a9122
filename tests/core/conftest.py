"""The command, run in a directory and an environment of its own."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tierkit import ProxyEntry
from tierkit.cli.app import app
from tierkit.config import CacheConfig
from tierkit.entry import HealthStatus
from tierkit.manager import CacheManager
from tierkit.testing import FakeClock

CONFIG = """\
[tierkit]
encryption_key_file = "keys/encryption.key"

[[tierkit.tiers]]
backend = "memory"
max_entries = 10

[[tierkit.tiers]]
backend = "jsonl"
path = "data/l2"
max_entries = 100

[[tierkit.tiers]]
backend = "sqlite"
path = "data/l3/tierkit.db"
"""

CREATED = datetime(2026, 1, 1, tzinfo=UTC)

Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no setting of tierkit in the environment."""
    for name in [name for name in os.environ if name.startswith(("TIERKIT_", "PROXYWHIRL_", "XDG_", "COLUMNS"))]:
        monkeypatch.delenv(name)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def run(home: Path) -> Run:
    """Runs the command in `home`; `code` is the exit code that is expected."""

    def run(*arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def place(home: Path) -> Path:
    """A directory with a configuration of three tiers, and nothing else."""
    (home / "tierkit.toml").write_text(CONFIG, "utf-8")
    return home


@pytest.fixture
def store(place: Path) -> Path:
    """A cache with five proxies: two from `list` (one unhealthy), one paid with credentials, two expired ones."""
    config = CacheConfig.load(place / "tierkit.toml", environ={})
    with CacheManager(config, clock=FakeClock(wall=CREATED.timestamp())) as cache:
        cache.put(ProxyEntry.from_url("socks5://192.0.2.4:1080", source="list", ttl_seconds=60.0))
        cache.put(ProxyEntry.from_url("socks5://192.0.2.5:1080", source="old", ttl_seconds=60.0))
    with CacheManager(config) as cache:
        cache.put(ProxyEntry.from_url("http://192.0.2.1:80", source="list", health_status=HealthStatus.HEALTHY))
        cache.put(ProxyEntry.from_url("http://192.0.2.2:80", source="list", health_status=HealthStatus.UNHEALTHY))
        cache.put(ProxyEntry.from_url("http://ada:lovelace1815@192.0.2.3:8080", source="paid"))
    return place
