"""How a fault is planted in the engine: a piece of a function's source is replaced."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from textwrap import dedent
from typing import Any


@dataclass(frozen=True)
class Fault:
    """One rule of the engine taken away.

    Attributes:
        what: What the engine does wrong then.
        where: The function, as `module:Class.name` below `tierkit`.
        old: A piece of its source, which occurs once; pieces of several lines are written without their common indent.
        new: What stands there instead.
        tests: The tests that find it, where no schedule does: paths that pytest takes.
    """

    what: str
    where: str
    old: str
    new: str
    tests: tuple[str, ...] = ()


class NotPlantable(Exception):
    """The engine has changed: the piece of source is not there, or more than once."""


def _owner(where: str) -> tuple[Any, str]:
    module, _, path = where.partition(":")
    *owners, name = path.split(".")
    owner: Any = import_module(f"tierkit.{module}")
    for part in owners:
        owner = getattr(owner, part)
    return owner, name


def faulty(fault: Fault) -> Callable[..., Any]:
    """The function with the fault in it."""
    owner, name = _owner(fault.where)
    held = inspect.getattr_static(owner, name)
    function: Any = held.fget if isinstance(held, property) else inspect.unwrap(held)
    source = dedent(inspect.getsource(function))
    if source.count(fault.old) != 1:
        raise NotPlantable(f"{fault.where} has {source.count(fault.old)} times {fault.old!r}: {fault.what}")
    flags = import_module("__future__").annotations.compiler_flag
    names: dict[str, Any] = {}
    code = compile(source.replace(fault.old, fault.new), inspect.getfile(function), "exec", flags)
    exec(code, function.__globals__, names)  # noqa: S102 - it is the engine's own source
    return names[name]  # type: ignore[no-any-return]  # what was just executed is a function


@contextmanager
def planted(fault: Fault) -> Iterator[None]:
    """The engine with the fault in it, in every module that has the function by its name."""
    owner, name = _owner(fault.where)
    sound, broken = inspect.getattr_static(owner, name), faulty(fault)
    modules = [module for key, module in sys.modules.items() if key.startswith("tierkit")]
    owners = [owner] if inspect.isclass(owner) else [module for module in modules if vars(module).get(name) is sound]
    for place in owners:
        setattr(place, name, broken)
    try:
        yield
    finally:
        for place in owners:
            setattr(place, name, sound)
