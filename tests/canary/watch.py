"""Everything that a program says without being asked: logs, warnings, output, and what ends its threads."""

from __future__ import annotations

import io
import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from typing import Any, Self
from unittest.mock import patch

from tests.telling import told


def told_of(error: BaseException) -> str:
    """What a report with locals can say of `error` and of all errors behind it."""
    return "\n".join(
        [told(link) + "\n" + "".join(traceback.format_exception(link, chain=False)) for link in behind(error)]
    )


def behind(error: BaseException | None, seen: tuple[BaseException, ...] = ()) -> Iterator[BaseException]:
    """`error`, its cause, its context and its parts, and theirs."""
    if error is None or error in seen:
        return
    yield error
    parts = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    for link in (error.__cause__, error.__context__, *parts):
        yield from behind(link, (*seen, error))


class Watch(logging.Handler):
    """Hears all that is said while it is entered.

    Attributes:
        said: Where it was said, and what: the log at DEBUG with its arguments, warnings, both outputs, and what
            ended a thread or could not be raised.
    """

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.said: list[tuple[str, str]] = []
        self._open = ExitStack()

    def emit(self, record: logging.LogRecord) -> None:
        """Hear a line of the log; its arguments now, since they may be changed."""
        place = f"the log {record.name} in {record.filename}, line {record.lineno}"
        more = {name: value for name, value in vars(record).items() if name not in ("exc_info", "pathname")}
        self.said.append((place, f"{record.getMessage()}\n{more!r}"))
        if record.exc_info and record.exc_info[1]:
            self.said.append((f"{place}, traceback", told_of(record.exc_info[1])))

    def __enter__(self) -> Self:
        """Begin to hear."""
        with ExitStack() as stack:
            stack.enter_context(self.of_the_log())
            stack.enter_context(self._warnings())
            stack.enter_context(self._output())
            stack.enter_context(patch.object(threading, "excepthook", self._thread_ended))
            stack.enter_context(patch.object(sys, "unraisablehook", self._not_raised))
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Hear no more."""
        self._open.close()

    @contextmanager
    def of_the_log(self) -> Iterator[None]:
        """Hear the log and nothing else."""
        loggers = [logging.getLogger(), logging.getLogger("tierkit")]
        before = [logger.level for logger in loggers]
        loggers[0].addHandler(self)
        for logger in loggers:
            logger.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            loggers[0].removeHandler(self)
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)

    @contextmanager
    def _warnings(self) -> Iterator[None]:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield
        self.said += [("a warning", f"{warning.message}\n{warning.message!r}") for warning in caught]

    @contextmanager
    def _output(self) -> Iterator[None]:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            yield
        self.said += [("standard output", out.getvalue()), ("standard error", err.getvalue())]

    def _thread_ended(self, ended: threading.ExceptHookArgs, /) -> None:
        if ended.exc_value is not None:
            self.said.append((f"what ended {ended.thread}", told_of(ended.exc_value)))

    def _not_raised(self, unraisable: Any, /) -> None:
        self.said.append(("what could not be raised", f"{unraisable.err_msg} {unraisable.object!r}"))
        if unraisable.exc_value is not None:
            self.said.append(("what could not be raised", told_of(unraisable.exc_value)))
