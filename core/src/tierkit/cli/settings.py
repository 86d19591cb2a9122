"""The global options, and what they lead to: a configuration, an entry type, an open cache, a log."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tierkit.cli.exits import describe
from tierkit.cli.output import LogLines, note
from tierkit.errors import CacheConfigError, CacheValidationError, EncryptionKeyError

if TYPE_CHECKING:
    from tierkit.config import CacheConfig
    from tierkit.entry import CacheEntry
    from tierkit.manager import CacheManager

F = TypeVar("F", bound=Callable[..., Any])


class Settings:
    """What the global options say.

    Attributes:
        config_path: The configuration file to read, or None for the usual places.
        entry_type_name: `package:Class`, or None for proxies.
        verbose: Whether to log at DEBUG, and to show where an unforeseen error came from.
    """

    def __init__(self) -> None:
        """Nothing was said yet."""
        self.config_path: Path | None = None
        self.entry_type_name: str | None = None
        self.verbose = False

    def config(self) -> CacheConfig:
        """The configuration in effect.

        Raises:
            CacheConfigError: A setting is wrong, or the file named cannot be read.
        """
        from tierkit.config import CacheConfig

        return CacheConfig.load(self.config_path)

    def entry_type(self) -> type[CacheEntry]:
        """The entry type in use.

        Raises:
            CacheValidationError: There is no such class, or it cannot be stored.
        """
        if self.entry_type_name is None:
            from tierkit.entry import ProxyEntry

            return ProxyEntry
        return load_entry_type(self.entry_type_name)

    def open_to_look(self, purpose: str) -> CacheManager[Any]:
        """The cache, read-only, for what opens no secret: with a key that opens nothing if the real one cannot be used.

        Args:
            purpose: What needs no key, for the remark on one that cannot be used: "to count".
        """
        try:
            return self.open(read_only=True)
        except EncryptionKeyError as error:
            note(f"tierkit: {describe(error)} (not needed {purpose})")
        log = logging.getLogger("tierkit")
        before = log.level
        log.setLevel(logging.ERROR)  # that the records were sealed with another key is no news
        try:
            return self.open(read_only=True, without_key=True)
        finally:
            log.setLevel(before)

    def open(self, *, read_only: bool, without_key: bool = False) -> CacheManager[Any]:
        """The cache. Read-only, it creates and changes nothing. Without a key it opens no secret and looks for none."""
        from tierkit.config import CacheConfig
        from tierkit.keys import new_key
        from tierkit.manager import CacheManager

        # Counted whatever the configuration says: the counts tell what could not be read. Watched by nobody: the port
        # of an observer belongs to the program that serves.
        given: dict[str, Any] = {"enable_statistics": True, "observers": ()}
        if without_key:
            given |= {
                "encryption_key": new_key(),
                "key_provider": None,
            }  # it opens nothing; no other is asked for
        config = CacheConfig.load(self.config_path, **given)
        return CacheManager(config, entry_type=self.entry_type(), read_only=read_only)

    def log_at(self, level: int) -> None:
        """Log what is at least this important, unless more was asked for."""
        logging.getLogger().setLevel(logging.DEBUG if self.verbose else level)

    @contextlib.contextmanager
    def logging(self) -> Iterator[None]:
        """Log to standard error while the command runs: warnings, unless told otherwise."""
        root = logging.getLogger()
        before, handler = root.level, LogLines()
        root.addHandler(handler)
        self.log_at(logging.WARNING)
        try:
            yield
        finally:
            root.removeHandler(handler)
            root.setLevel(before)


def load_entry_type(name: str) -> type[CacheEntry]:
    """The class that `package:Class` names. Modules in the current directory are found too, after installed ones.

    Raises:
        CacheValidationError: There is no such class, or it cannot be stored.
    """
    from tierkit.schema import schema_of

    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise CacheValidationError(f"--entry-type {name!r} is not of the form package:Class")
    found: Any = _module(module)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise CacheValidationError(f"--entry-type {name!r}: {module!r} has no {attribute!r}")
    return schema_of(found).entry_type


def _module(name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise CacheValidationError(
            f"--entry-type: {name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _set_config(context: click.Context, _option: click.Parameter, value: Path | None) -> None:
    if value is not None:
        context.ensure_object(Settings).config_path = value


def _set_entry_type(context: click.Context, _option: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.ensure_object(Settings).entry_type_name = value


def _set_verbose(context: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        settings = context.ensure_object(Settings)
        settings.verbose = True
        settings.log_at(logging.DEBUG)


_GLOBAL = (
    click.option(
        "--config",
        metavar="FILE",
        type=click.Path(path_type=Path),
        expose_value=False,
        callback=_set_config,
        help="The configuration to use.",
    ),
    click.option(
        "--entry-type",
        metavar="PACKAGE:CLASS",
        expose_value=False,
        callback=_set_entry_type,
        help="What the records are, if not proxies.",
    ),
    click.option(
        "-v",
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=_set_verbose,
        help="Log every step to standard error.",
    ),
)


def global_options(function: F) -> F:
    """Give a command the global options: they may stand before or after its name."""
    for option in reversed(_GLOBAL):
        function = option(function)
    return function


def refuse_cache_options(settings: Settings, command: str) -> None:
    """Tell a user who named a configuration that `command` uses none."""
    if settings.config_path or settings.entry_type_name:
        raise CacheConfigError(f"`{command}` takes neither --config nor --entry-type")


pass_settings = click.make_pass_decorator(Settings, ensure=True)
