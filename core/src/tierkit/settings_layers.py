"""How sources of settings are laid over each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from tierkit.plugins import TIER_SETTINGS
from tierkit.settings import Given, Givens, Where, problem
from tierkit.settings_sources import PATH_OWNERS, Source


def overlaid(sources: Iterable[Source]) -> tuple[dict[Where, Given], list[str]]:
    """All sources as one, and what is wrong with them; the first has the least to say."""
    merged: dict[Where, Given] = {}
    problems: list[str] = []
    for source in sources:
        merged = {place: given for place, given in merged.items() if not _replaced(place, merged, source)}
        merged.update(source.givens)
        problems += source.problems
    misplaced = _misplaced(merged)
    problems += misplaced.values()
    return {where: given for where, given in merged.items() if where not in misplaced}, problems


def nested(givens: Givens) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The settings and the levels, as the models take them."""
    settings: dict[str, Any] = {}
    levels: list[dict[str, Any]] = []
    for where in sorted(givens, key=lambda place: place[1:2] if place[0] == "tiers" else ()):
        value = givens[where].value
        if where[0] == "tiers" and len(where) == 3:
            while len(levels) <= int(where[1]):  # nothing is left of a level where all that was given is misplaced
                levels.append({"name": f"L{len(levels) + 1}"})
            levels[int(where[1])][str(where[2])] = value
        elif len(where) == 3:
            _table(_table(settings, str(where[0])), where[1])[where[2]] = value
        elif len(where) == 2:
            _table(settings, str(where[0]))[where[1]] = value
        else:
            settings[str(where[0])] = value
    return settings, levels


def _table(settings: dict[Any, Any], name: str | int) -> dict[Any, Any]:
    """The table `name` in `settings`, or one that is forgotten: what was given in its place is refused later."""
    table = settings.setdefault(name, {})
    return table if isinstance(table, dict) else {}


def without_values(givens: Givens) -> dict[Where, Given]:
    """Only where each came from."""
    return {where: replace(given, value=None) for where, given in givens.items()}


def _replaced(place: Where, merged: Givens, source: Source) -> bool:
    """Whether `source` does away with `place`: a list replaces a list, and options go with their backend."""
    if place[0] != "tiers":
        return False
    if source.whole_stack or len(place) < 3:
        return source.whole_stack
    backend = (*place[:2], "backend")
    after, before = source.givens.get(backend), merged.get(backend)
    changed = after is not None and (before is None or before.value != after.value)
    return changed and place[2] not in TIER_SETTINGS


def _misplaced(givens: Givens) -> dict[Where, str]:
    """What is wrong with the place where something was given."""
    places = sorted({int(place[1]) for place in givens if place[0] == "tiers" and len(place) == 3})
    wrong = ((where, _fault_of_place(where, givens, places)) for where in givens if where[0] == "tiers")
    return {where: problem(where, givens, fault) for where, fault in wrong if fault}


def _fault_of_place(where: Where, givens: Givens, places: Sequence[int]) -> str | None:
    """Levels cannot be if they are not a table, after a gap, or of another kind than the spelling is for."""
    if len(where) < 3:
        return "must be a list of tables" if len(where) == 1 else "must be a table"
    level = int(where[1])
    if (above := places.index(level)) != level:
        return f"there is no level {above} above it"
    kind, held = PATH_OWNERS.get(givens[where].spelled), _backend(where, givens)
    return f"is for backend {kind!r}, and level {level} is {held!r}" if kind not in {None, held} else None


def _backend(where: Where, givens: Givens) -> Any:
    given = givens.get((*where[:2], "backend"))
    return given.value if given else None
