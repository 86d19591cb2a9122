"""What commands are given: the keys of records, and the names of files."""

from __future__ import annotations

from pathlib import Path

import click

from tierkit.cli.settings import Settings
from tierkit.entry import ProxyEntry
from tierkit.proxy_url import redact


def path_of(context: click.Context, argument: click.Parameter, value: str) -> Path:
    """The file that is named.

    Raises:
        click.BadParameter: It is a URL; what is said of it holds no credentials.
    """
    from tierkit.transfer.warming import url_in

    if url := url_in(value):
        raise click.BadParameter(f"{url} is a URL, not a file: fetch it first", context, argument)
    return Path(value)


def key_of(settings: Settings, given: str, username: str | None) -> str:
    """The key that is given, or that of the proxy whose URL is."""
    if issubclass(settings.entry_type(), ProxyEntry) and "://" in given:
        return ProxyEntry.key_for(given, username)
    if username is not None:
        raise click.UsageError("--username goes with the URL of a proxy, not with a key")
    return given


def other_proxy(settings: Settings, given: str, username: str | None) -> str:
    """What else may be meant, where there is nothing of a proxy that was named by a URL without a user name."""
    if username is not None or "@" in given or "://" not in given or not issubclass(settings.entry_type(), ProxyEntry):
        return ""
    return "; a proxy with a user name is another record: write SCHEME://NAME@HOST:PORT"


def shown_key(key: str) -> str:
    """`key` as an error may show it."""
    if any(mark in key for mark in ":@/"):  # it may be a proxy as a list has it, with a password
        return redact(key)
    return key if len(key) <= 80 else f"{key[:80]}..."
