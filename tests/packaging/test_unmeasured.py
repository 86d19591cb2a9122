"""The table of tests whose coverage is not measured names tests that are there."""

import re
from pathlib import Path

import pytest
from tests.unmeasured import UNMEASURED

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", UNMEASURED)
def test_what_is_not_measured_is_there(name: str) -> None:
    path, _, test = name.partition("::")
    assert (ROOT / path).exists()
    assert not test or re.search(rf"^((def|class) )?{test.removesuffix('::')}", _text(path), re.MULTILINE)


def _text(path: str) -> str:
    return (ROOT / path).read_text("utf-8")
