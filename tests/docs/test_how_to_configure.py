"""Each configuration of the how-to opens, and keeps a record."""

import re
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from tierkit import CacheConfig, CacheManager, ProxyEntry

TEXT = (Path(__file__).parents[2] / "docs" / "how-to" / "configure.md").read_text()
EXAMPLES = dict(re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```toml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL))


def test_every_kind_of_use_has_an_example() -> None:
    assert [*EXAMPLES] == re.findall(r"^## (.+)", TEXT, re.MULTILINE)
    assert len(EXAMPLES) == 8


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_cache_so_configured_keeps_a_record(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIERKIT_ENCRYPTION_KEY", Fernet.generate_key().decode())
    file = tmp_path / "tierkit.toml"
    file.write_text(EXAMPLES[name])
    config = CacheConfig.load(file, environ={})
    for listed in config.warm_files:
        listed.parent.mkdir()
        listed.write_text("proxy_url\nhttp://192.0.2.1:8080\n")
    with CacheManager(config) as cache:
        key = cache.put(ProxyEntry.from_url("http://user:pass@203.0.113.7:8080", source="free-list")).key
    with CacheManager(config) as cache:
        assert cache.get(key) is not None
        assert cache.size() == 1 + len(config.warm_files)
