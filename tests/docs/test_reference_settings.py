"""Settings are documented, all of them and no others, with their defaults and bounds; the example loads."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import PydanticUndefined

from tierkit import CacheConfig, CacheConfigError, CacheTierConfig
from tierkit.plugins import TIER_SETTINGS, discover
from tierkit.settings import dotted, shown
from tierkit.settings_sources import SPELLINGS

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "configuration.md").read_text()
EXAMPLES = re.findall(r"^```toml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
KINDS = ("memory", "jsonl", "sqlite")

Row = list[str]


def table(heading: str) -> dict[str, Row]:
    """The rows of the first table below a heading or phrase, by what their first cell names."""
    below = TEXT[TEXT.index(heading) :]
    lines = below[below.index("\n|") + 1 :].split("\n\n")[0].splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row for row in rows}


SETTINGS = table("## Settings")
LEVEL_SETTINGS = table("## Levels")
OPTIONS = table("Those that ship:")
SPELLED = table("### The three-tier spelling")


def options_of_kinds() -> dict[str, Any]:
    registry = discover()
    models = {kind: registry.spec(kind).options for kind in KINDS}
    return {f"{kind}.{name}": field for kind, model in models.items() for name, field in model.model_fields.items()}


def test_every_setting_is_documented_and_every_documented_setting_exists() -> None:
    assert set(SETTINGS) == set(CacheConfig.model_fields)
    assert set(LEVEL_SETTINGS) == set(CacheTierConfig.model_fields) == set(TIER_SETTINGS)


def test_every_other_spelling_is_documented_with_what_it_stands_for() -> None:
    assert {name: re.findall(r"`([^`]+)`", row[1])[0] for name, row in SPELLED.items()} == {
        name: dotted(where) for name, where in SPELLINGS.items()
    }


def test_the_flat_name_of_each_setting_is_true() -> None:
    for name, row in SETTINGS.items():
        flat = row[4].strip("`")
        assert not flat or flat == name or SPELLINGS[flat] == (name,)


def test_the_documented_defaults_are_those_of_the_code() -> None:
    config = CacheConfig()
    documented = {name: row[2].strip("`") for name, row in SETTINGS.items() if name != "tiers"}
    assert documented == {name: shown((name,), getattr(config, name)) for name in documented}
    level = CacheTierConfig()
    for name in ("enabled", "max_entries", "eviction_policy", "admission", "timeout_seconds", "write_policy"):
        assert LEVEL_SETTINGS[name][2] == f"`{shown((name,), getattr(level, name))}`"


@pytest.mark.parametrize("name", [name for name, row in SETTINGS.items() if "at least" in row[3]])
def test_the_documented_bounds_are_those_of_the_code(name: str) -> None:
    (least,) = map(float, re.findall(r"at least (\d+)", SETTINGS[name][3]))
    assert getattr(CacheConfig(**{name: least}), name) == least
    with pytest.raises(CacheConfigError, match="at least"):
        CacheConfig(**{name: least - 1})


@pytest.mark.parametrize("name", ["key_policy", "cipher", "durability"])
def test_the_documented_choices_are_those_of_the_code(name: str) -> None:
    with pytest.raises(CacheConfigError) as refused:
        CacheConfig(**{name: "?"})
    documented = SETTINGS[name][3].split(", ")
    assert re.findall(r"'([\w-]+)'", str(refused.value).split("must be")[1]) == documented


def test_every_option_that_ships_is_documented_with_its_default() -> None:
    known = options_of_kinds()
    assert set(OPTIONS) == set(known)
    for name, field in known.items():
        default = "needed" if field.default is PydanticUndefined else f"`{shown((name,), field.default)}`"
        assert OPTIONS[name][2] == default, name


def test_the_example_says_what_the_defaults_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = EXAMPLES  # the others are in the how-to, and tested with it
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "tierkit.toml"
    file.write_text(example)
    shown_here, by_default = CacheConfig.load(file, environ={}), CacheConfig()
    assert [(line.name, line.value_text) for line in shown_here.effective()] == [
        (line.name, line.value_text) for line in by_default.effective()
    ]


def test_the_variables_that_the_text_names_are_read() -> None:
    named = set(re.findall(r"`(TIERKIT_[A-Z0-9_]+(?:__[a-z-]+)?)=([^`]+)`", TEXT))
    assert len(named) >= 5
    for variable, text in named:
        origins = CacheConfig.load(environ={variable: text}).origins
        assert f"environment variable {variable}" in origins.values()
