"""Progress of what takes long: bars on a terminal, log lines elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator

from tierkit.cli.output import LogLines, cell, console
from tierkit.cli.settings import Settings
from tierkit.progress import OnProgress


@contextlib.contextmanager
def progress(settings: Settings, log_name: str, *, logs: bool = True) -> Iterator[Callable[[str], OnProgress | None]]:
    """Makes the progress callback for a thing by its name: a bar on a terminal; elsewhere None, and logs are shown.

    Above a bar what is logged to `log_name` is left out, errors excepted: the command tells it at its end. Without
    `logs`, for a command that only reads, they are shown nowhere.
    """
    if not sys.stderr.isatty():
        if logs:
            settings.log_at(logging.INFO)
        yield lambda _name: None
        return
    log = logging.getLogger(log_name)
    before = log.level
    if not settings.verbose:
        log.setLevel(logging.ERROR)
    try:
        with _bars() as bars:
            yield bars
    finally:
        log.setLevel(before)


@contextlib.contextmanager
def _bars() -> Iterator[Callable[[str], OnProgress]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    shown = console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    LogLines.console = shown
    try:
        with Progress(*columns, console=shown, transient=True) as made:

            def bar_for(name: str) -> OnProgress:
                task = made.add_task(cell(name).plain, total=None)
                return lambda done, total: made.update(task, completed=done, total=total)

            yield bar_for
    finally:
        LogLines.console = None
