"""The options of observers, checked against what their plugins say, without making one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from tierkit.level_config import option_fields, secret_options
from tierkit.plugins import PluginRegistry, nearest
from tierkit.settings import Givens, problem, problems_of


def wrong_options(
    names: Iterable[str], options: Mapping[str, Mapping[str, Any]], registry: PluginRegistry, givens: Givens
) -> Iterator[str]:
    """What is wrong with the options of the observers `names`; nothing where the plugin does not say what it takes."""
    for name in names:
        model = registry.observer_options(name)
        if model is not None:
            yield from _unknown(name, options.get(name, {}), model, givens)
            yield from _wrong(name, options.get(name, {}), model, givens)


def _unknown(name: str, given: Mapping[str, Any], model: type[BaseModel], givens: Givens) -> Iterator[str]:
    if model.model_config.get("extra") != "forbid":
        return
    known = option_fields(model)
    for option in given.keys() - known.keys():
        meant = f"; did you mean {nearest(option, known)!r}?" if known else "."
        offered = f"has the options {', '.join(known)}" if known else "has no options"
        text = f"there is no such option{meant} Observer {name!r} {offered}"
        yield problem(("observer_options", name, option), givens, text)


def _wrong(name: str, given: Mapping[str, Any], model: type[BaseModel], givens: Givens) -> Iterator[str]:
    known = option_fields(model)
    try:
        model.model_validate({option: value for option, value in given.items() if option in known})
    except ValidationError as error:
        yield from problems_of(error, ("observer_options", name), givens, hidden=secret_options(model))
