"""Where output goes: tables for people, JSON for programs, log lines and progress to standard error."""

from __future__ import annotations

import json
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, ClassVar, Final

import click

from tierkit.cli.exits import ReaderGone
from tierkit.cli.text import clean

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

_WIDE: Final = 200  # columns where there is no terminal: nothing is cut short

json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON to standard output.")


def console(*, stderr: bool = False) -> Console:
    """A console on standard output or standard error. Without a terminal it writes plain, wide lines."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    narrow = stream.isatty() or "COLUMNS" in os.environ
    made = Console(file=stream, width=None if narrow else _WIDE, highlight=False, markup=False, emoji=False)
    made.on_broken_pipe = _raise_reader_gone  # type: ignore[method-assign]  # rich has no other way to say it
    return made


def _raise_reader_gone() -> None:
    raise ReaderGone


def cell(value: object, style: str = "") -> Text:
    """`value` for a table: control characters escaped, nothing in it taken as markup."""
    from rich.text import Text

    return Text(clean(str(value)), style=style)


def table(*headings: str, title: str = "", right: tuple[str, ...] = ()) -> Table:
    """An empty table with these headings; those in `right` stand to the right."""
    from rich import box
    from rich.table import Table

    made = Table(
        box=box.SIMPLE_HEAD,
        title=title or None,
        title_justify="left",
        title_style="bold",
        show_edge=False,
        pad_edge=False,
        collapse_padding=True,
    )
    for heading in headings:
        made.add_column(heading, justify="right" if heading in right else "left", header_style="bold", overflow="fold")
    return made


def show(*blocks: RenderableType, out: Console | None = None) -> None:
    """Print `blocks` to standard output with an empty line between them."""
    out = out or console()
    for place, block in enumerate(blocks):
        if place:
            out.print()
        out.print(block)


def write_json(value: Any) -> None:
    """`value` as one JSON document for a program, ASCII only."""
    write_line(json.dumps(value, indent=2))


def write_json_line(value: Any) -> None:
    """`value` as one line of JSON Lines."""
    write_line(json.dumps(value))


def write_line(line: str) -> None:
    """`line` as it is, to standard output."""
    try:
        sys.stdout.write(f"{line}\n")
    except BrokenPipeError:
        raise ReaderGone from None


def note(text: str) -> None:
    """A remark for a person; standard output stays clean."""
    click.echo(clean(text), err=True)


class LogLines(logging.Handler):
    """Log records as single lines on standard error, above a progress bar if one is shown.

    Attributes:
        console: Where the bar is, if there is one.
    """

    console: ClassVar[Console | None] = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            line = clean(f"{record.levelname} {record.name}: {record.getMessage()}")
        except Exception:  # noqa: BLE001 - a log call with wrong arguments must not end a command
            line = f"{record.levelname} {record.name}: {clean(str(record.msg))}"
        if LogLines.console is None:
            click.echo(line, err=True)
        else:
            LogLines.console.print(line, soft_wrap=True)


def bar(share: float, width: int = 24) -> Text:
    """`share` (0 to 1) as a bar with its percentage."""
    from rich.text import Text

    full = round(share * width)
    return Text("█" * full, "cyan").append("·" * (width - full), "dim").append(f" {share:6.1%}")
