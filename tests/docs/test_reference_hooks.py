"""Hooks are documented, all of them and no others, and so is what they answer."""

import dataclasses
import inspect
import re
from pathlib import Path

import pluggy
import pytest

import tierkit
from tierkit import CacheObserver, CacheTier, CacheValidationError, TierSpec, hookspecs
from tierkit.checks import check_key
from tierkit.plugins import TIER_SETTINGS
from tierkit.schema import MAX_RECORD_BYTES

TEXT = (Path(__file__).parents[2] / "docs" / "reference" / "hooks.md").read_text()


def hooks() -> set[str]:
    manager = pluggy.PluginManager(hookspecs.ENTRY_POINT_GROUP)
    manager.add_hookspecs(hookspecs)
    return {name for name in vars(manager.hook) if not name.startswith("_")}


def test_every_hook_is_documented_and_every_documented_hook_exists() -> None:
    menu = TEXT[: TEXT.index("\n## ")]
    documented = set(re.findall(r"^\| `(\w+)\([\w, ]*\)` \|", menu, re.MULTILINE))
    assert documented == hooks() != set()


def test_every_hook_has_a_section_and_a_docstring() -> None:
    for name in hooks():
        assert f"\n## `{name}`\n" in TEXT
        assert getattr(hookspecs, name).__doc__


def test_every_field_of_a_spec_is_documented_and_every_documented_field_exists() -> None:
    section = TEXT[TEXT.index("## `register_tiers`") : TEXT.index("## Discovery")]
    documented = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert documented == [field.name for field in dataclasses.fields(TierSpec)]


def test_the_names_that_no_option_may_have_are_documented() -> None:
    (row,) = re.findall(r"^\| `options` \| .*$", TEXT, re.MULTILINE)
    (names,) = re.findall(r"None may be called as a setting of every level is: (.+?)\. ", row)
    assert re.findall(r"\w+", names) == list(TIER_SETTINGS)
    (names,) = re.findall(r"setting\s+of every level is: (.+?)\.\n", TierSpec.__doc__ or "", re.DOTALL)
    assert re.findall(r"\w+", names) == list(TIER_SETTINGS)


def test_the_limits_in_the_contract_are_those_of_the_engine() -> None:
    contract = " ".join((CacheTier.__doc__ or "").split())
    (longest,) = re.findall(r"1 to (\d+) characters", contract)
    check_key("k" * int(longest))
    with pytest.raises(CacheValidationError):
        check_key("k" * (int(longest) + 1))
    (kib,) = re.findall(r"at most (\d+) \* 1024 characters and bytes", contract)
    assert int(kib) * 1024 == MAX_RECORD_BYTES


def test_the_menu_says_in_which_module_each_name_stands() -> None:
    places = re.findall(r"`([\w/]+)\.py`: (.+?)(?=\.\s|; `\w+\.py`)", hookspecs.__doc__ or "", re.DOTALL)
    named = [(name, path) for path, names in places for name in re.findall(r"`([A-Z]\w+)`", names)]
    assert len(named) >= 10
    for name, path in named:
        assert getattr(tierkit, name).__module__ == f"tierkit.{path.replace('/', '.')}"


def test_the_group_in_the_text_is_the_group_in_the_code() -> None:
    assert f"[project.entry-points.{hookspecs.ENTRY_POINT_GROUP}]" in TEXT


def test_every_event_of_an_observer_is_documented_and_every_documented_one_exists() -> None:
    documented = re.findall(r"^\| `(on_\w+)\(([\w, ]*)\)` \|", TEXT, re.MULTILINE)
    methods = {name: method for name, method in vars(CacheObserver).items() if name.startswith("on_")}
    found = {name: ", ".join(list(inspect.signature(method).parameters)[1:]) for name, method in methods.items()}
    assert dict(documented) == found
