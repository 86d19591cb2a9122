"""The root command: global options, and one place where every error becomes a line and an exit code."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

import tierkit
from tierkit.cli import (
    config,
    demo,
    doctor,
    explain,
    filtered,
    leases,
    plugins,
    read,
    rotate,
    stats,
    sweep,
    transfer,
    warm,
)
from tierkit.cli.exits import BROKEN_PIPE, INTERRUPTED, OK, USAGE, Exit, describe, exit_of
from tierkit.cli.settings import Settings, global_options
from tierkit.cli.text import clean


class App(click.Group):
    """A group that never shows a traceback, unless it is asked to."""

    def main(  # type: ignore[override]  # ours never returns a value
        self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any
    ) -> None:
        """Run the command that `args` (by default those of this process) ask for, and exit."""
        extra["standalone_mode"] = False
        settings = extra["obj"] = Settings()
        _make_printable(sys.stdout, sys.stderr)
        try:
            with settings.logging():
                code = super().main(args, prog_name or "tierkit", **extra)
                sys.stdout.flush()
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever it is, the user gets one line
            code = _end(error, settings).code
        sys.exit(code if isinstance(code, int) else OK.code)


def _make_printable(*streams: Any) -> None:
    """Let a stream escape what its encoding cannot express, instead of failing."""
    for stream in streams:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.reconfigure(errors="backslashreplace")


def _end(error: BaseException, settings: Settings) -> Exit:
    way = exit_of(error)
    if way is BROKEN_PIPE:
        _drop_output()
    elif way is INTERRUPTED:
        click.echo("tierkit: interrupted", err=True)
    else:
        if settings.verbose and way is not USAGE:
            click.echo("".join(map(_clean_lines, traceback.format_exception(error))), err=True, nl=False)
        click.echo(f"{click.style('tierkit:', fg='red')} {describe(error)}", err=True)
    return way


def _clean_lines(text: str) -> str:
    return "".join(f"{clean(line)}\n" for line in text.splitlines())


def _drop_output() -> None:
    """Send what is still in the buffer nowhere, so that the interpreter does not complain when it exits."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@click.group(
    cls=App,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(tierkit.__version__, prog_name="tierkit")
@global_options
@click.pass_context
def app(context: click.Context) -> None:
    """Keep records that go bad (proxies, API keys, sessions, pages) in a stack of storage tiers.

    The cache is the one that the configuration describes: --config, else $TIERKIT_CONFIG, else ./tierkit.toml, else
    defaults. Reading commands (get, ls, explain, count, leases, stats, keys, export, backup, plugins, config, and
    doctor without --fix) create and change nothing in it.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(USAGE.code)


COMMANDS = (
    warm.warm,
    transfer.export,
    transfer.import_,
    transfer.backup,
    transfer.restore,
    read.get,
    read.ls,
    explain.explain,
    filtered.count,
    filtered.delete,
    filtered.invalidate,
    leases.leases,
    stats.stats,
    rotate.keys,
    rotate.rotate,
    sweep.sweep,
    plugins.plugins,
    config.config,
    doctor.doctor,
    demo.demo,
)
for command in COMMANDS:
    app.add_command(command)
