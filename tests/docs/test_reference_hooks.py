"""Hooks are documented, all of them and no others, and so is what they answer."""

import dataclasses
import re
from pathlib import Path

import pluggy

from tierkit import TierSpec, hookspecs

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "hooks.md").read_text()


def hooks() -> set[str]:
    manager = pluggy.PluginManager(hookspecs.ENTRY_POINT_GROUP)
    manager.add_hookspecs(hookspecs)
    return {name for name in vars(manager.hook) if not name.startswith("_")}


def test_every_hook_is_documented_and_every_documented_hook_exists() -> None:
    documented = set(re.findall(r"^\| `(\w+)\(\w*\)` \|", TEXT, re.MULTILINE))
    assert documented == hooks() != set()


def test_every_hook_has_a_section_and_a_docstring() -> None:
    for name in hooks():
        assert f"\n## `{name}`\n" in TEXT
        assert getattr(hookspecs, name).__doc__


def test_every_field_of_a_spec_is_documented_and_every_documented_field_exists() -> None:
    section = TEXT[TEXT.index("## `register_tiers`") : TEXT.index("## Discovery")]
    documented = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert documented == [field.name for field in dataclasses.fields(TierSpec)]


def test_the_group_in_the_text_is_the_group_in_the_code() -> None:
    assert f"[project.entry-points.{hookspecs.ENTRY_POINT_GROUP}]" in TEXT
