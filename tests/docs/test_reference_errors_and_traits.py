"""Errors and traits are documented, all of them and no others."""

import re
from pathlib import Path

import tierkit
from tierkit import TierkitError, Trait
from tierkit import errors as errors_module

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
FIRST_CELL = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)


def errors() -> dict[str, type[Exception]]:
    return {
        name: value
        for name, value in vars(errors_module).items()
        if isinstance(value, type) and issubclass(value, TierkitError)
    }


def documented(name: str) -> set[str]:
    return set(FIRST_CELL.findall((REFERENCE / name).read_text()))


def test_every_error_is_documented_and_every_documented_error_exists() -> None:
    assert documented("errors.md") == set(errors())


def test_every_error_stands_in_the_tree_of_its_module_and_can_be_had_from_tierkit() -> None:
    tree = errors_module.__doc__ or ""
    for name, error in errors().items():
        assert re.search(rf"\b{name}\b", tree), name
        assert getattr(tierkit, name) is error


def test_every_error_is_also_a_built_in_one() -> None:
    for name, error in errors().items():
        if error is not TierkitError:
            own = [base for base in error.__mro__ if base.__module__ == "builtins"]
            assert own[0] is not Exception, name


def test_the_also_column_of_each_error_is_true() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", (REFERENCE / "errors.md").read_text(), re.MULTILINE)
    known = {**vars(__import__("builtins")), **errors()}
    for name, also in rows:
        for base in re.findall(r"`(\w+)`", also):
            assert issubclass(errors()[name], known[base]), (name, base)


def test_every_trait_is_documented_and_every_documented_trait_exists() -> None:
    text = (REFERENCE / "traits.md").read_text()
    assert documented("traits.md") == {trait.name for trait in Trait} | ({"memory"} & documented("traits.md"))
    assert "`NONE`" in text
