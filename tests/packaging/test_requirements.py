import re
from pathlib import Path

import pytest
from scripts.requirements import ROOT, TABLE, known_ids, main, under

SMALL = "| id | requirement |\n| --- | --- |\n| F-1 | one |\n| F-10 | ten |\n| US1-1 | other |\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "docs/reference").mkdir(parents=True)
    (tmp_path / "docs/reference/requirements.md").write_text(SMALL)
    (tmp_path / "tests").mkdir()
    return tmp_path


def write(project: Path, *lines: str) -> None:
    (project / "tests/test_it.py").write_text("\n".join([*lines, "def test_it(): ..."]))


def test_it_lists_what_no_test_shows(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(project, "@pytest.mark.req('F-1')")
    assert main([], project) == 0
    printed = capsys.readouterr().out
    assert "F-1 " not in printed
    assert "no test: F-10" in printed
    assert "1 of 3 requirements have a test" in printed


@pytest.mark.parametrize("prefix", ["F", "F-10", "US1"])
def test_strict_fails_for_a_missing_one(project: Path, prefix: str) -> None:
    write(project, "@pytest.mark.req('F-1')")
    assert main(["--strict", prefix], project) == 1


def test_strict_passes_when_all_of_the_prefix_are_shown(project: Path) -> None:
    write(project, "pytestmark = pytest.mark.req('US1-1')", "@req('F-1')")
    assert main(["--strict", "US1", "F-1"], project) == 0


@pytest.mark.parametrize("mark", ["@pytest.mark.req('F-9')", "@pytest.mark.req(NAME)"])
def test_a_mark_that_names_no_requirement_is_an_error(
    project: Path, mark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(project, mark)
    assert main([], project) == 1
    assert "tests/test_it.py:1: unknown requirement" in capsys.readouterr().err


def test_a_strict_prefix_that_matches_nothing_is_an_error(project: Path) -> None:
    assert main(["--strict", "F-11"], project) == 1


def test_the_projects_own_marks_are_all_known() -> None:
    assert main([]) == 0


def test_ci_fails_where_any_requirement_has_no_test() -> None:
    (strict,) = re.findall(r"requirements\.py --strict (.+)", (ROOT / ".ci" / "run").read_text())
    known = known_ids((ROOT / TABLE).read_text("utf-8"))
    assert all(any(under(name, prefix) for prefix in strict.split()) for name in known)
