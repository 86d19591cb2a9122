"""docs/reference/findings.md tells every kind of finding as it is in the code, and no other."""

import re
from pathlib import Path

from tierkit import FindingKind, storage_checks
from tierkit.doctor import kinds
from tierkit_jsonl import findings as jsonl
from tierkit_sqlite import findings as sqlite

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "findings.md").read_text("utf-8")


def every_kind() -> tuple[FindingKind, ...]:
    return (*kinds.KINDS, *storage_checks.KINDS, *jsonl.KINDS, *sqlite.KINDS)


def row_of(kind: FindingKind) -> str:
    cells = (f"`{kind.code}`", kind.severity, kind.means, kind.advice, kind.fix or "-")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace('<', '&lt;') for cell in cells)} |"


def test_every_kind_is_documented_word_for_word() -> None:
    lacking = [row for kind in every_kind() if (row := row_of(kind)) not in PAGE]
    assert not lacking, "\n".join(lacking)


def test_every_documented_kind_exists_once() -> None:
    documented = re.findall(r"^\| `([\w-]+)` \|", PAGE, re.MULTILINE)
    assert sorted(documented) == sorted(kind.code for kind in every_kind())


def test_codes_are_kebab_case_and_sentences_end() -> None:
    for kind in every_kind():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.code)
        assert kind.means.endswith("."), kind.code
        assert kind.advice.endswith((".", "`.")), kind.code
