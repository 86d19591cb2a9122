"""docs/reference/cli.md names every command, option and exit code, and nothing else."""

import re
from pathlib import Path

import click
import pytest

from tierkit.cli.app import app
from tierkit.cli.exits import EXITS
from tierkit.cli.settings import _GLOBAL

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli.md").read_text("utf-8")


def sections() -> dict[str, str]:
    _, *parts = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    return {part.split("\n", 1)[0].strip("`").split(" ")[0]: part for part in parts}


def global_names() -> set[str]:
    @click.command()
    def none() -> None: ...

    for option in _GLOBAL:
        none = option(none)
    return {name for option in none.params for name in option.opts}


def documented_options(section: str) -> set[str]:
    cells = re.findall(r"^\| (`-.*?) \|", section, flags=re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", cell)}


def options_of(command: click.Command) -> set[str]:
    return {name for option in command.params if isinstance(option, click.Option) for name in option.opts}


@pytest.mark.parametrize("name", sorted(app.commands))
def test_a_command_has_a_section_with_its_options(name: str) -> None:
    assert documented_options(sections()[name]) == options_of(app.commands[name]) - global_names()


def test_the_global_options_are_documented() -> None:
    assert documented_options(sections()["Global"]) == options_of(app) | {"-h", "--help"}


def test_every_command_takes_the_global_options() -> None:
    assert all(global_names() <= options_of(command) for command in app.commands.values())


def test_nothing_is_documented_that_is_not_there() -> None:
    assert sections().keys() == {*app.commands, "Global", "Exit"}


def test_every_exit_code_is_documented() -> None:
    codes = re.findall(r"^\| (\d+) \|", sections()["Exit"], flags=re.MULTILINE)
    assert [int(code) for code in codes] == [way.code for way in EXITS]
