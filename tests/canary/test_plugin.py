"""`pytest --canary`, run over a small suite of its own."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

SUITE = """
import logging
from pydantic import SecretStr

def test_that_leaks_into_a_file(tmp_path):
    (tmp_path / "00.jsonl").write_text(SecretStr("Kanarienvogel7").get_secret_value()[::-1])

def test_that_leaks_into_the_log():
    logging.getLogger("some").debug("%s", SecretStr("Kanarienvogel7").get_secret_value())

def test_that_may(tmp_path):
    (tmp_path / "some.csv").write_text(SecretStr("Kanarienvogel7").get_secret_value())

def test_that_says_what_is_no_secret():
    logging.getLogger("some").debug("%s", [SecretStr("password"), "password", SecretStr("short7"), "short7"])
"""


def test_a_leak_is_an_error_of_its_test(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(Path(__file__).parents[2])
    pytester.makeconftest(f"import sys; sys.path.insert(0, {root!r}); pytest_plugins = ['tests.canary.plugin']")
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("--canary", "-p", "no:cacheprovider")
    result.assert_outcomes(passed=4, errors=2)
    result.stdout.fnmatch_lines(["*the file 00.jsonl, reversed, at 0*"])
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=4)
