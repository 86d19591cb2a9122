"""`pytest --canary`: every secret of the tests is a canary, searched for in what each test logs and leaves.

Whatever a test wraps in a `SecretStr` is collected, if it has at least eight characters and could not be a word of
ours. After the test its log at DEBUG and the files in its `tmp_path` are searched; a hit is an error of the test.
Warnings need no search: none but those that a test expects gets past pytest. This takes about twice the time, so it is
run by hand. A test that counts the lines of its log, which are more at DEBUG, is marked `no_canary`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import SecretStr
from tests.canary.canaries import Canary, Search
from tests.canary.encodings import PIECES, Ways, ways_of_text
from tests.canary.watch import Watch

SHORTEST: Final = 8
MOST: Final = 40
"""Secrets of one test that are searched for; of more, as many evenly spread."""
_NO_SECRET: Final = re.compile(r"[a-z _-]+|\W+|.+://.+", re.DOTALL)
"""Words, which may stand somewhere for another reason, and whole URLs: their credentials are secrets by themselves."""
ALLOWED: Final = {
    r".*key": "a file that holds keys",
    r".*\.toml": "a configuration that gives a key",
    r".*\.(csv|json|ndjson|txt|list)(\.gz)?": "a list that a test wrote to import it",
    r"(?![0-9a-f]{2}\.)[^/]+\.jsonl(\.gz)?": "the same; the shards of a tier have two digits",
}
"""Files that may hold secrets, by a pattern of their names, and why."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Offer `--canary`."""
    parser.addoption("--canary", action="store_true", help="search what each test leaves for the secrets that it used")


def pytest_configure(config: pytest.Config) -> None:
    """Know the mark of tests that are not searched."""
    config.addinivalue_line("markers", "no_canary(why): is not searched by `--canary`, and why")


@pytest.fixture(autouse=True)
def no_secret_outlives_a_test(request: pytest.FixtureRequest) -> Iterator[None]:
    """With `--canary`: search what the test said and left."""
    if not request.config.getoption("--canary") or request.node.get_closest_marker("no_canary"):
        yield
        return
    folder = request.getfixturevalue("tmp_path") if "tmp_path" in request.fixturenames else None
    secrets: dict[str, None] = {}
    watch = Watch()
    with pytest.MonkeyPatch.context() as patch, watch.of_the_log():
        patch.setattr(SecretStr, "__init__", _collecting(SecretStr.__init__, secrets))
        yield
    hits = searched(canaries(secrets), watch, folder)
    assert not hits, "\n".join(hits[:20])


def _collecting(true: Callable[..., None], secrets: dict[str, None]) -> Callable[..., None]:
    def collect(self: SecretStr, secret_value: Any) -> None:
        true(self, secret_value)
        if isinstance(secret_value, str) and len(secret_value) >= SHORTEST and not _NO_SECRET.fullmatch(secret_value):
            secrets[secret_value] = None

    return collect


def canaries(secrets: dict[str, None]) -> list[Canary]:
    """The canaries of a test's secrets."""
    texts = [text for text in secrets if text.isprintable()]
    spread = texts[:: max(1, -(-len(texts) // MOST))]
    return [Canary(f"secret {number} ({text!r})", _whole(text)) for number, text in enumerate(spread)]


def _whole(text: str) -> Ways:
    """The ways of the whole text: a piece of what a test calls a secret may be anything."""
    return {name: way for name, way in ways_of_text(text).items() if name not in PIECES}


def _is_allowed(file: Path) -> bool:
    return any(re.fullmatch(pattern, file.name) for pattern in ALLOWED)


def searched(canaries: list[Canary], watch: Watch, folder: Path | None) -> list[str]:
    """What was found, a line for each."""
    search = Search(canaries)
    if canaries:
        for place, text in watch.said:
            search.text(place, text)
        if folder is not None:
            search.files(folder, filter(_is_allowed, folder.rglob("*")))
    return list(map(str, search.hits))
