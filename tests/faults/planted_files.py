"""Modules that call others than those of `tierkit.files`: how faults are planted in what a tier does to files."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import ModuleType
from typing import Any
from unittest.mock import patch

from tierkit import files


class But:
    """`tierkit.files`, but for some calls. What is in it is looked up at each call, since it may be watched."""

    def __init__(self, **calls: Callable[..., Any]) -> None:
        vars(self).update(calls)

    def __getattr__(self, name: str) -> Any:
        return getattr(files, name)


def calling(calls: But, *modules: ModuleType) -> AbstractContextManager[object]:
    """These modules call others than those of `tierkit.files`."""
    patches = ExitStack()
    for module in modules:
        patches.enter_context(patch.object(module, "files", calls))
    return patches


def nothing(*_: Any) -> None:
    """In place of a call."""
