from pathlib import Path

import pytest
from benchmarks.page import PAGE, table, write_section


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text("# Page\n\nHead.\n\n## One\n\nold\n\n## Two\n\ntwo\n")
    return path


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("One", "# Page\n\nHead.\n\n## One\n\nnew\n\n## Two\n\ntwo\n"),
        ("Two", "# Page\n\nHead.\n\n## One\n\nold\n\n## Two\n\nnew\n"),
        ("Three", "# Page\n\nHead.\n\n## One\n\nold\n\n## Two\n\ntwo\n\n## Three\n\nnew\n"),
    ],
)
def test_a_section_is_written_and_the_others_stay(page: Path, title: str, expected: str) -> None:
    for _ in range(2):
        write_section(title, "new\n", page)
        assert page.read_text() == expected


def test_a_table_has_a_line_below_its_head() -> None:
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"


def test_the_page_has_a_section_for_what_tierkit_costs() -> None:
    assert "\n## Costs\n" in PAGE.read_text()
