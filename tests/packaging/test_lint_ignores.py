"""Each lint ignore has its reason beside it."""

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("core", "plugins", "examples", "tests", "benchmarks", "scripts")
MARK = re.compile(r"#\s*(?:ruff:\s*)?noqa(?::\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*)?|#\s*type:\s*ignore(?:\[[\w, -]*\])?")


def without_reason(file: Path) -> Iterator[int]:
    """The lines with an ignore and no word beside it."""
    with file.open("rb") as source:
        for token in tokenize.tokenize(source.readline):
            if token.type == tokenize.COMMENT and MARK.search(token.string):
                said = MARK.sub("", token.string)
                if not re.search(r"[a-z]", said):
                    yield token.start[0]


def sources() -> list[Path]:
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    return [file for file in files if not {".venv", "build", "dist"} & set(file.relative_to(ROOT).parts)]


def test_every_lint_ignore_has_its_reason_beside_it() -> None:
    places = [f"{file.relative_to(ROOT)}:{line}" for file in sources() for line in without_reason(file)]
    assert not places


@pytest.mark.parametrize(
    ("line", "lacks"),
    [
        ("x = 1  # noqa: S101", True),
        ("x = 1  # noqa: S101, B008", True),
        ("x = 1  # type: ignore[misc]", True),
        ("x = 1  # type: ignore[misc, arg-type]  # noqa: ARG005", True),
        ("# ruff: noqa: S608", True),
        ("x = 1  # noqa: S101 - it is a test", False),
        ("x = 1  # type: ignore[misc]  # it is a test", False),
        ("x = 1  # type: ignore[misc]  # noqa: ARG005 - both are so", False),
        ("x = '# noqa: S101'", False),
        ("x = 1  # a comment", False),
    ],
)
def test_an_ignore_without_a_word_is_seen(tmp_path: Path, line: str, lacks: bool) -> None:
    file = tmp_path / "module.py"
    file.write_text(f"{line}\n")
    assert list(without_reason(file)) == ([1] if lacks else [])
