"""Where settings come from: defaults, a TOML file, the environment, code.

Each source is translated into one map from a setting's place to what was given for it. Other spellings of a
setting are a table here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr

from tierkit.keys import KEY_VARIABLES
from tierkit.plugins import nearest
from tierkit.settings import Given, Where, dotted, masked

PREFIX: Final = "TIERKIT_"
CONFIG_VARIABLE: Final = "TIERKIT_CONFIG"
KEY_VARIABLE: Final = KEY_VARIABLES[0]
DEFAULT_FILE: Final = "tierkit.toml"
TABLE: Final = "tierkit"
FOUND: Final = "found"
"""By what a file is read that nobody asked for."""
ENVIRONMENT: Final = "environment variable "
"""How the origin of a value from the environment begins."""

SPELLINGS: Final[Mapping[str, Where]] = {
    "l1_config": ("tiers", 0),
    "l2_config": ("tiers", 1),
    "l3_config": ("tiers", 2),
    "l2_cache_dir": ("tiers", 1, "path"),
    "l3_database_path": ("tiers", 2, "path"),
    "cache_l1_max_entries": ("tiers", 0, "max_entries"),
    "cache_l2_max_entries": ("tiers", 1, "max_entries"),
    "cache_l3_max_entries": ("tiers", 2, "max_entries"),
    "cache_l2_dir": ("tiers", 1, "path"),
    "cache_l3_db_path": ("tiers", 2, "path"),
    "cache_default_ttl": ("default_ttl_seconds",),
    "cache_cleanup_interval": ("cleanup_interval_seconds",),
    "cache_encryption_key_env": ("encryption_key_env",),
    "cache_health_invalidation": ("enable_health_invalidation",),
    "cache_failure_threshold": ("failure_threshold",),
}
"""Names that are accepted too, and the settings that they stand for."""

PATH_OWNERS: Final = {
    "l2_cache_dir": "jsonl",
    "cache_l2_dir": "jsonl",
    "l3_database_path": "sqlite",
    "cache_l3_db_path": "sqlite",
}
"""The backend that a spelling is for."""
_DEFAULT_TIERS: Final = (
    {"backend": "memory", "max_entries": 1000},
    {"backend": "jsonl", "max_entries": 5000, "path": ".cache/proxies"},
    {"backend": "sqlite", "path": ".cache/db/tierkit.db"},
)
_PATHS: Final[Collection[Where]] = (("encryption_key_file",), ("warm_files",))
_TABLES: Final = ("tiers", "observer_options")
"""Settings that are tables of tables."""
_ANYBODYS: Final = {"name"}
"""Settings that files of other programs have at their top too."""
_URL_START: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")
_LISTS: Final[Collection[Where]] = (("accept",), ("observers",), ("warm_files",))


class Source:
    """What one source gives.

    Attributes:
        givens: By place. Lists of levels and maps are taken apart.
        whole_stack: Whether it gives `tiers` as a list, which replaces that of the sources below.
        problems: What is wrong with it, a line for each.
    """

    def __init__(self, known: Collection[str]) -> None:
        """Start empty; `known` are the names of the settings."""
        self.givens: dict[Where, Given] = {}
        self.whole_stack = False
        self.problems: list[str] = []
        self._stack_spellings: dict[str, str] = {}
        self._known = known

    def give(self, spelled: Where, value: Any, origin: str, base: Path | None = None) -> None:
        """Take one setting as it is spelled in the source."""
        head = str(spelled[0])
        if head not in self._known and head not in SPELLINGS:
            self.problems.append(f"{dotted(spelled)} ({origin}): {_unknown(head, self._known)}")
            return
        target = SPELLINGS.get(head, (head,)) + spelled[1:]
        if target == ("encryption_key",) and isinstance(value, str):
            value = SecretStr(value)
        self.whole_stack |= target == ("tiers",) and isinstance(value, list | tuple)
        if target[0] == "tiers":
            self._stack_spellings.setdefault(head, origin)
        for where, leaf in _leaves(target, value):
            name = dotted(spelled + where[len(target) :])
            if _has_null(leaf):
                self.problems.append(f"{name} ({origin}): holds a null character, which no path or name can")
                continue
            self._set(where, Given(_anchored(where, leaf, base), origin, name, base))

    def check_spellings(self) -> None:
        """Find settings of the stack that are given in two ways at once."""
        others = [name for name in self._stack_spellings if name != "tiers"]
        if others and "tiers" in self._stack_spellings:
            self.problems.append(
                f"{others[0]} ({self._stack_spellings[others[0]]}): cannot be used together with 'tiers' in one"
                " source; say it there"
            )

    def _set(self, where: Where, given: Given) -> None:
        before = self.givens.setdefault(where, given)
        if before is not given:
            self.problems.append(
                f"{given.spelled} ({given.origin}): {before.spelled} ({before.origin}) sets the same; keep one of them"
            )


def all_sources(
    path: str | os.PathLike[str] | None,
    environ: Mapping[str, str],
    code: Mapping[str, Any],
    known: Collection[str],
) -> list[Source]:
    """Every source, the one with the least to say first. What is wrong is noted in them: nothing is raised here."""
    sources = [from_defaults(known), *_file_sources(path, environ, known)]
    in_code = from_code(code, known)
    variables = {CONFIG_VARIABLE, *_key_variables(environ, [*sources, in_code])}
    return [*sources, from_environment(environ, known, variables), in_code]


def from_defaults(known: Collection[str]) -> Source:
    """The three levels that there are if nobody says otherwise; other defaults stand with the settings."""
    source = Source(known)
    source.give(("tiers",), _DEFAULT_TIERS, "default")
    return source


def from_code(settings: Mapping[str, Any], known: Collection[str]) -> Source:
    """What a program gives."""
    source = Source(known)
    for name, value in settings.items():
        source.give((name,), value, "code")
    source.check_spellings()
    return source


def from_file(path: Path, known: Collection[str], asked_by: str) -> Source:
    """The table [tierkit] of a TOML file; relative paths in it start from its folder.

    A file that was asked for must have that table, or be empty: else a header that is misspelt would go unnoticed.
    """
    source = Source(known)
    document, file = _parsed(path, asked_by), masked(str(path))
    if isinstance(document, str):
        source.problems.append(f"file {file}{document}")
        return source
    table = document.get(TABLE, {})
    stray = sorted(document.keys() & (set(known) - _ANYBODYS)) if TABLE not in document else []
    if stray:
        source.problems.append(f"{stray[0]} (file {file}): must stand below [{TABLE}], which the file does not have")
    elif document and TABLE not in document and asked_by != FOUND:
        source.problems.append(f"file {file} ({asked_by}): has no table [{TABLE}]{_instead(document)}")
    elif not isinstance(table, dict):
        source.problems.append(f"{TABLE} (file {file}): must be a table")
    else:
        for name, value in table.items():
            source.give((name,), value, f"file {file}", path.absolute().parent)
    source.check_spellings()
    return source


def _instead(document: Mapping[str, Any]) -> str:
    """What to do where there is no table: the name of the one that may have been meant for it."""
    tables = {name: table for name, table in document.items() if isinstance(table, dict)}
    inner = [f"{name}.{TABLE}" for name, table in tables.items() if TABLE in table]
    meant = nearest(TABLE, [*tables, *inner])
    return f"; did you mean it by [{meant}]?" if meant else ": put the settings below one"


def from_environment(environ: Mapping[str, str], known: Collection[str], not_settings: Collection[str]) -> Source:
    """The variables TIERKIT_*, a double underscore before each further part; an empty one counts as not set.

    Args:
        environ: The environment.
        known: The names of the settings.
        not_settings: Variables that are used otherwise.
    """
    source = Source(known)
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in not_settings and environ[variable]:
            _give_variable(source, variable, environ[variable], known)
    source.check_spellings()
    return source


def split_list(text: str) -> Any:
    """A list in an environment variable: JSON, or parts between commas; the text itself if it is neither."""
    if not text.lstrip().startswith("["):
        return [part.strip() for part in text.split(",")]
    try:
        return _json(text)
    except ValueError:
        return text


def _json(text: str) -> Any:
    import json

    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def _unknown(name: str, known: Collection[str], written: Callable[[str], str] = str) -> str:
    """What is said of a setting that there is not: what may have been meant, else what there is."""
    meant = _meant(name, known)
    guess = f"did you mean {written(meant)!r}?" if meant else f"the settings are {', '.join(known)}"
    return f"there is no such setting; {guess}"


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _meant(name: str, known: Collection[str]) -> str:
    """The setting that is most like `name`, or none; another spelling of one only if it is much more like that.

    Whoever begins with "cache_" means such a spelling, as nearly all of them do.
    """
    from difflib import SequenceMatcher

    proper, other = nearest(name, known), nearest(name, SPELLINGS)
    likeness = {meant: SequenceMatcher(None, name, meant).ratio() for meant in (proper, other)}
    margin = 0.0 if name.startswith("cache_") else 0.15
    return other if likeness[other] > likeness[proper] + margin else proper


def _leaves(where: Where, value: Any) -> Iterator[tuple[Where, Any]]:
    if isinstance(value, BaseModel):
        value = {name: part for name, part in value if name in value.model_fields_set}
    if where == ("tiers",) and isinstance(value, list | tuple):
        for place, level in enumerate(value):
            yield from _leaves(("tiers", place), level or {"backend": ""})
    elif isinstance(value, Mapping) and where == ("observer_options",):
        for name, options in value.items():
            yield from _leaves((*where, name), options)
    elif isinstance(value, Mapping) and (where == ("per_source_ttl",) or (where[0] in _TABLES and len(where) == 2)):
        yield from (((*where, name), part) for name, part in value.items())
    else:
        yield where, value


def _has_null(value: Any) -> bool:
    parts = value if isinstance(value, list | tuple) else [value]
    return any("\0" in str(part) for part in parts if isinstance(part, str | Path))


def _anchored(where: Where, value: Any, base: Path | None) -> Any:
    return anchor(value, base) if where in _PATHS else value


def anchor(value: Any, base: Path | None) -> Any:
    """A path, or each path of a list, relative to `base`; anything else, a URL too, as it is."""
    if isinstance(value, list | tuple):
        return [anchor(item, base) for item in value]
    if base is None or not isinstance(value, str | Path) or _URL_START.match(str(value)):
        return value  # a URL behind a folder would no longer be told for one, and its password be shown
    return base / value


def _file_sources(
    path: str | os.PathLike[str] | None, environ: Mapping[str, str], known: Collection[str]
) -> list[Source]:
    if path is not None:
        return [from_file(Path(path), known, "asked for")]
    if environ.get(CONFIG_VARIABLE):
        return [from_file(Path(environ[CONFIG_VARIABLE]), known, ENVIRONMENT + CONFIG_VARIABLE)]
    default = Path(DEFAULT_FILE)
    return [from_file(default, known, FOUND)] if default.exists() else []


def _key_variables(environ: Mapping[str, str], sources: Iterable[Source]) -> Iterator[str]:
    """The variables that hold keys: the usual one, and whichever one a source names."""
    yield KEY_VARIABLE
    target = ("encryption_key_env",)
    names = [target[0], *(name for name, where in SPELLINGS.items() if where == target)]
    yield from (environ.get(PREFIX + name.upper(), "") for name in names)
    yield from (str(source.givens[target].value) for source in sources if target in source.givens)


def _parsed(path: Path, asked_by: str) -> dict[str, Any] | str:
    """What a file holds, or what to say after its name. Nothing is raised: the errors of a parser hold the text."""
    import tomllib

    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        return f" ({asked_by}): cannot be read: {error.strerror or error}"
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        return f", line {line}: is not UTF-8, which TOML must be"
    except (ValueError, RecursionError) as error:
        return f": is not TOML: {error}"


def _give_variable(source: Source, variable: str, text: str, known: Collection[str]) -> None:
    origin = ENVIRONMENT + variable
    spelled = _spelled(variable, {*known, *SPELLINGS})
    if spelled is None:
        source.problems.append(f"{origin}: {_unknown(variable.removeprefix(PREFIX).lower(), known, _variable)}")
        return
    try:
        value = _value(SPELLINGS.get(str(spelled[0]), spelled[:1]) + spelled[1:], text)
    except ValueError as error:
        source.problems.append(f"{dotted(spelled)} ({origin}): must be JSON: {error}")
        return
    source.give(spelled, value, origin)


def _spelled(variable: str, known: Collection[str]) -> Where | None:
    """The setting that a variable names. Only the name of a source keeps its case and double underscores."""
    head, *rest = variable.removeprefix(PREFIX).split("__")
    name = head.lower()
    if name not in known or "" in rest:
        return None
    if not rest:
        return (name,)
    target = SPELLINGS.get(name, (name,))
    if target == ("per_source_ttl",):
        return (name, "__".join(rest))
    if name == "tiers" and rest[0].isdecimal() and len(rest[0]) < 4 and len(rest) <= 2:
        return (name, int(rest[0]), *map(str.lower, rest[1:]))
    part_of_level = target[0] == "tiers" and len(target) == 2 and len(rest) == 1
    if part_of_level or (target == ("observer_options",) and len(rest) <= 2):
        return (name, *map(str.lower, rest))
    return None


def _value(where: Where, text: str) -> Any:
    if where in _LISTS:
        return split_list(text)
    is_table = where == ("per_source_ttl",) or (where[0] in _TABLES and len(where) < 3)
    return _json(text) if is_table else text
