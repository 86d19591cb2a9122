"""The page of figures, docs/benchmarks.md: a section for each command, so that one is written without the others."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def write_section(title: str, body: str, page: Path = PAGE) -> None:
    """Put `body` under the heading `title`, in place of what stood there; a new section goes to the end."""
    section = f"## {title}\n\n{body.strip()}\n"
    text = page.read_text("utf-8")
    held = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if held is None:
        page.write_text(f"{text.rstrip()}\n\n{section}", "utf-8")
    else:
        rest = text[held.end() :]
        page.write_text(text[: held.start()] + section + ("\n" + rest if rest else ""), "utf-8")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def verdict(holds: bool) -> str:
    """How a figure stands to its target."""
    return "met" if holds else "**missed**"


def machine() -> str:
    """What was measured on, as far as it matters."""
    version = ".".join(platform.python_version_tuple()[:2])
    return f"{platform.system()} with 2 cores and Python {version}"
