"""The `tierkit` command. One module per group of commands; only here are click and rich imported."""

from __future__ import annotations


def main() -> None:
    """Run the command with the arguments of this process, and exit."""
    from tierkit.cli.app import app

    app(prog_name="tierkit")


__all__ = ["main"]
