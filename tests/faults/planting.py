"""How a fault is planted in a copy of a tier."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import pytest

from tierkit import CacheTier, Row, TierContext

FaultyClass = TypeVar("FaultyClass", bound=type[CacheTier[Any]])


@dataclass(frozen=True)
class Fault:
    """A kind of tier with one fault.

    Attributes:
        tier: The faulty class; it is opened with the path if it takes one.
        what: What is wrong with it.
    """

    tier: type[CacheTier[Any]]
    what: str

    @property
    def name(self) -> str:
        return self.tier.__name__

    def open(self, context: TierContext, path: Path) -> CacheTier[Any]:
        make: Callable[..., CacheTier[Any]] = self.tier
        return make(context, path) if "path" in signature(make).parameters else make(context)


FAULTS: Final[list[Fault]] = []
#: What a faulty tier or engine leaves behind may raise when its test has failed long since: no business of the hunt's.
QUIET: Final = (
    "-q",
    "--tb=no",
    *(
        word
        for name in ("cacheprovider", "xdist", "threadexception", "unraisableexception")
        for word in ("-p", f"no:{name}")
    ),
)
#: A process that plants has imported some of pytest's plugins already: their asserts stay as they are.
ALREADY: Final = ("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")


def fault(what: str) -> Callable[[FaultyClass], FaultyClass]:
    """Add a class to the table."""

    def add(tier: FaultyClass) -> FaultyClass:
        FAULTS.append(Fault(tier, what))
        return tier

    return add


def changed(row: Row, **changes: Any) -> Row:
    return msgspec.structs.replace(row, **changes)


def fails(test: Path | str) -> bool:
    """Whether a test fails in this process, as it is now. pytest can be run once in a process."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return pytest.main(["-x", *QUIET, *ALREADY, str(test)]) == pytest.ExitCode.TESTS_FAILED
