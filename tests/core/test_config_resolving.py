"""Configuration: levels, their plugins and options, and stacks that cannot work."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.configs import REGISTRY, ShelfOptions, load, refused

from tierkit import CacheConfig, CacheConfigError, TierSpec, UnknownTierError, hookimpl
from tierkit.plugins import discover

# -- resolving ---------------------------------------------------------------------------------------------------------


@pytest.mark.req("F-3")
def test_enabled_levels_are_resolved_in_order() -> None:
    levels = [{"backend": "live", "max_entries": 5}, {"backend": "pile", "enabled": False}, {"backend": "shelf"}]
    first, second = CacheConfig(tiers=levels).resolve(REGISTRY)
    assert (first.name, first.spec.kind, first.max_entries, first.eviction_policy) == ("L1", "live", 5, "lru")
    assert (second.name, second.spec.kind, second.options) == ("L3", "shelf", ShelfOptions())


def test_the_default_stack_resolves_with_what_is_installed() -> None:
    assert [level.spec.kind for level in CacheConfig().resolve(discover())] == ["memory", "jsonl", "sqlite"]


STACKS: list[tuple[list[dict[str, Any]], str]] = [
    ([], "no level is enabled"),
    ([{"backend": "shelf", "enabled": False}], "no level is enabled"),
    ([{"backend": "shelf"}, {"backend": "live"}], "level L2 (live) holds live entries and cannot stand below level L1"),
    ([{"backend": "shelf", "widht": 3}], "tiers.0.widht (code): there is no such option; did you mean 'width'?"),
    ([{"backend": "shelf", "max_entires": 3}], "did you mean 'max_entries'?"),
    (
        [{"backend": "shelf", "x": 3}],
        "backend 'shelf' has the options path, folders, tags, width, pin, and every level has",
    ),
    ([{"backend": "live", "x": 3}], "backend 'live' has no options, and every level has the settings name, backend, "),
    ([{"backend": "shelf", "width": "wide"}], "tiers.0.width = 'wide' (code): must be a whole number"),
    (
        [{"backend": "pile", "max_entries": 3, "eviction_policy": "lru"}],
        "backend 'pile' does not offer it; it offers fifo",
    ),
    ([{"backend": "pile", "eviction_policy": "lru"}], "tiers.0.eviction_policy = 'lru' (code)"),
    ([{"backend": "shelf", "eviction_policy": "lruu"}], "offers fifo, lru"),
    ([{"backend": "shelf", "x": 1, "width": "a"}, {"backend": "pile", "y": 1}], "3 settings are wrong"),
]


@pytest.mark.req("F-3")
@pytest.mark.parametrize(("levels", "text"), STACKS, ids=[text[:50] for _, text in STACKS])
def test_a_stack_that_cannot_work_is_refused_with_the_reason(levels: list[dict[str, Any]], text: str) -> None:
    assert text in refused(lambda: CacheConfig(tiers=levels).resolve(REGISTRY))


PROMISES: list[tuple[list[dict[str, Any]], str, str]] = [
    ([{"backend": "shelf"}, {"backend": "pile"}], "process", "L2 (pile) is the lowest level and does not persist"),
    (
        [{"backend": "live"}],
        "full",
        'durability = "full" needs a lowest level that is CRASH_SAFE, and L1 (live) is not',
    ),
    ([{"backend": "shelf"}], "full", "L1 (shelf) is not"),
    ([{"backend": "safe", "write_policy": "behind"}], "none", 'write_policy = "behind" needs a level above it'),
    ([{"backend": "live"}, {"backend": "safe", "write_policy": "behind"}], "process", "that is CRASH_SAFE"),
    ([{"backend": "shelf"}, {"backend": "safe", "write_policy": "demote"}], "process", "that is CRASH_SAFE"),
    (
        [{"backend": "live"}, {"backend": "safe", "write_policy": "behind"}, {"backend": "shelf"}],
        "process",
        "is for the lowest level alone: use through or demote",
    ),
    ([{"backend": "live"}, {"backend": "live", "write_policy": "demote"}], "none", "not live entries"),
]


@pytest.mark.parametrize(("levels", "durability", "text"), PROMISES)
def test_a_stack_that_cannot_keep_its_promise_is_refused_before_anything_is_opened(
    levels: list[dict[str, Any]], durability: str, text: str
) -> None:
    assert text in refused(lambda: CacheConfig(tiers=levels, durability=durability).resolve(REGISTRY))


@pytest.mark.parametrize(
    ("levels", "durability"),
    [
        ([{"backend": "safe"}, {"backend": "shelf", "write_policy": "behind"}], "process"),
        ([{"backend": "live"}, {"backend": "shelf", "write_policy": "behind"}], "none"),
        ([{"backend": "live"}, {"backend": "shelf", "write_policy": "demote"}, {"backend": "safe"}], "full"),
        ([{"backend": "live"}, {"backend": "pile"}], "process"),
    ],
)
def test_a_stack_that_keeps_its_promise_is_not_refused(levels: list[dict[str, Any]], durability: str) -> None:
    assert len(CacheConfig(tiers=levels, durability=durability).resolve(REGISTRY)) == len(levels)


@pytest.mark.parametrize("spelled", ["one", "./two/../one", "link", "there/one"])
def test_two_levels_of_one_kind_on_one_storage_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelled: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("one")
    (tmp_path / "there").symlink_to(tmp_path)
    levels = [{"backend": "live"}, {"backend": "shelf", "path": "one"}, {"backend": "shelf", "path": spelled}]
    text = refused(lambda: CacheConfig(tiers=levels).resolve(REGISTRY))
    assert text == (
        f"levels L2 and L3 (shelf) have the same path, {tmp_path / 'one'}: what one of them drops would be gone from"
        " the other, too; give each a path of its own"
    )


def test_levels_on_storages_of_their_own_or_turned_off_are_not_refused() -> None:
    levels = [
        {"backend": "pile", "eviction_policy": "fifo"},
        {"backend": "pile", "eviction_policy": "fifo"},
        {"backend": "shelf", "path": "one"},
        {"backend": "box", "path": "one"},
        {"backend": "shelf", "path": "two"},
        {"backend": "shelf", "path": "one", "enabled": False},
    ]
    assert len(CacheConfig(tiers=levels).resolve(REGISTRY)) == 5


def test_a_policy_does_not_matter_without_a_bound() -> None:
    class Endless:
        @hookimpl
        def register_tiers(self) -> list[TierSpec]:
            spec = REGISTRY.spec("pile")
            return [replace(spec, kind="endless", eviction_policies=frozenset(), default_policy="lru")]

    registry = discover([Endless()], installed=())
    assert CacheConfig(tiers=[{"backend": "endless"}]).resolve(registry)[0].max_entries is None
    with pytest.raises(CacheConfigError, match="backend 'endless' does not offer it; it offers none"):
        CacheConfig(tiers=[{"backend": "endless", "max_entries": 3}]).resolve(registry)


def test_an_unknown_backend_names_the_level_and_the_nearest() -> None:
    with pytest.raises(UnknownTierError, match=r"tiers.0.backend = 'shelv' \(code\): .*'shelf'.*live, pile, safe"):
        CacheConfig(tiers=[{"backend": "shelv"}]).resolve(REGISTRY)


def test_options_from_the_environment_are_read_by_their_type() -> None:
    environ = {
        "TIERKIT_TIERS": '[{"backend": "shelf"}]',
        "TIERKIT_TIERS__0__WIDTH": "5",
        "TIERKIT_TIERS__0__TAGS": "a, b",
        "TIERKIT_TIERS__0__FOLDERS": '["x,y"]',
    }
    (level,) = load(environ=environ).resolve(REGISTRY)
    options = ShelfOptions(width=5, tags=["a", "b"], folders=(Path("x,y"),))
    assert level.options == options
    broken = load(environ={**environ, "TIERKIT_TIERS__0__TAGS": "[1"})
    assert "must be a list" in refused(lambda: broken.resolve(REGISTRY))


def test_effective_values_hold_the_defaults_of_options_where_the_plugin_is_known() -> None:
    config = CacheConfig(tiers=[{"backend": "shelf"}, {"backend": "gone", "size": 1}])
    names = [line.name for line in config.effective(REGISTRY)]
    assert "tiers.0.width" in names
    assert "tiers.1.size" in names
    assert "tiers.0.width" not in config.origins


def test_a_level_that_asks_for_no_policy_has_what_its_backend_prefers() -> None:
    levels = CacheConfig(l3_config={"max_entries": 9}).resolve(discover())
    assert [(level.spec.kind, level.eviction_policy) for level in levels] == [
        ("memory", "s3fifo"),
        ("jsonl", "lru"),
        ("sqlite", "lru"),
    ]
    shown = {setting.name: setting.value_text for setting in CacheConfig().effective(discover())}
    assert shown["tiers.0.eviction_policy"] == "s3fifo"
