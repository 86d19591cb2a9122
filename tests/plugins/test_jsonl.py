"""The JSON Lines tier keeps the contract, and names victims as the contract says."""

import heapq
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.plugins.jsonl_tools import held, open_store, row, shard

import tierkit_jsonl
from tierkit import CacheConfigError, Delta, Finding, TierContext, TierSpec, Trait, coldness
from tierkit.testing import TierContract, make_row, stamp
from tierkit_jsonl import FileCacheTier, JsonlOptions
from tierkit_jsonl.examining import examine


class TestContract(TierContract):
    pytestmark = pytest.mark.req("US1-1")

    def open_tier(self, context: TierContext, path: Path) -> FileCacheTier:
        return FileCacheTier(context, path)

    def examine(self, context: TierContext, path: Path) -> Iterable[Finding]:
        return examine(context, JsonlOptions(path=path))


class TestContractWithOneShardThatIsRewrittenOften(TierContract):
    def open_tier(self, context: TierContext, path: Path) -> FileCacheTier:
        return FileCacheTier(context, path, shards=1, compact_ratio=0.1)


def spec() -> TierSpec:
    (only,) = tierkit_jsonl.register_tiers()
    return only


def test_the_plugin_offers_the_kind_jsonl(tmp_path: Path) -> None:
    assert (spec().kind, spec().options) == ("jsonl", JsonlOptions)
    assert spec().traits == FileCacheTier.traits == Trait.PERSISTENT | Trait.CRASH_SAFE | Trait.SHARED
    options = JsonlOptions(path=tmp_path / "store", shards=3)
    with spec().factory(TierContext(), options) as tier:
        assert isinstance(tier, FileCacheTier)
        tier.put(row("a"))
    assert shard(tmp_path, 2).exists()
    assert not shard(tmp_path, 3).exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"path": "x", "shard": 4},
        {"path": "x", "shards": 0},
        {"path": "x", "shards": 257},
        {"path": "x", "lock_timeout_seconds": -1},
        {"path": "x", "compact_ratio": 0},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        JsonlOptions(**wrong)


def test_the_plugin_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        _ = tierkit_jsonl.nothing


def test_an_unknown_policy_namespace_or_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CacheConfigError, match="lruu"):
        open_store(tmp_path, eviction_policy="lruu")
    for namespace in ("", "..", "a/b", "é", "a" * 201):
        with pytest.raises(CacheConfigError, match="identifier"):
            open_store(tmp_path, namespace=namespace)
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(CacheConfigError, match="not on win32"):
        open_store(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_namespaces_are_apart(tmp_path: Path) -> None:
    with open_store(tmp_path, namespace="one") as one, open_store(tmp_path, namespace="two") as two:
        one.put(row("a"))
        assert two.get("a") is None
        assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["one", "two"]


@pytest.mark.req("US1-3")
def test_a_hundred_restarts_lose_nothing(tmp_path: Path) -> None:
    rows = {f"key {n}": row(f"key {n}", n + 1) for n in range(50)}
    with open_store(tmp_path, shards=4) as tier:
        tier.put_many(list(rows.values()))
    for n in range(100):
        with open_store(tmp_path, shards=4) as tier:
            key = f"key {n % 50}"
            rows[key] = row(key, 100 + n)
            assert tier.put(rows[key]) is None
            assert held(tier) == rows


usage = st.tuples(st.sampled_from("abcdef"), st.sampled_from(["put", "touch", "delete", "discard"]), st.integers(0, 9))


@pytest.mark.req("E-6")
@pytest.mark.parametrize("policy", ["lru", "fifo"])
@given(writes=st.lists(usage, max_size=30), limit=st.integers(0, 4))
def test_victims_are_those_that_coldness_names(
    tmp_path_factory: pytest.TempPathFactory, policy: str, writes: list[tuple[str, str, int]], limit: int
) -> None:
    root = tmp_path_factory.mktemp("order")
    with open_store(root, shards=3, max_entries=limit, eviction_policy=policy) as tier:
        for turn, (key, what, seconds) in enumerate(writes):
            there = tier.get(key)
            if what == "put":
                tier.put(make_row(key, stamp(seconds, turn)))
            elif what == "touch":
                tier.touch_many({key: Delta(1, 1_700_000_000.0 + seconds)})
            elif there is not None:
                _ = tier.delete(key, there.version) if what == "delete" else tier.discard(there)
            rows = list(tier.scan())
            expected = heapq.nsmallest(max(0, len(rows) - limit), rows, key=coldness(policy))
            assert [(victim.key, victim.version) for victim in tier.overflow()] == [
                (victim.key, victim.version) for victim in expected
            ]
