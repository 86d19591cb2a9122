"""The index of decisions has each of them, in order."""

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs" / "adr"
ROW = re.compile(r"^\| \[(\d{4})\]\((\1-[a-z0-9-]+\.md)\) \| \S.* \|$", re.MULTILINE)


def test_every_decision_stands_in_the_index_in_order() -> None:
    listed = [name for _, name in ROW.findall((FOLDER / "README.md").read_text())]
    assert listed == sorted(path.name for path in FOLDER.glob("[0-9]*.md"))
