"""Interrupts between any two steps of the JSON Lines tier, and calls in the midst of another of the same thread."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.interrupts import from_another_thread, interrupted
from tests.plugins.jsonl_tools import held, open_store, row

from tierkit import Row, TierUnavailable, files
from tierkit_jsonl import FileCacheTier

CALLS: dict[str, Callable[[FileCacheTier], Any]] = {
    "put": lambda tier: tier.put(row("a", 2)),
    "put many": lambda tier: tier.put_many([row("a", 2), row("b", 2)]),
    "delete": lambda tier: tier.delete("b", 2),
    "get": lambda tier: tier.get("c"),
    "overflow": lambda tier: tier.overflow(),
    "compact": lambda tier: tier.compact(),
}


@pytest.mark.no_canary("an interrupt may leave the lock of a handler of the log held")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_interrupt_leaves_no_lock_behind(tmp_path: Path, call: Callable[[FileCacheTier], Any]) -> None:
    number, more = 0, True
    while more:
        number += 1
        root = tmp_path / str(number)
        with open_store(root, max_entries=1) as tier, open_store(root) as other:
            tier.put_many([row("a"), row("b")])
            other.put(row("c"))  # that `tier` has to read
            more = interrupted(lambda tier=tier: call(tier), number)  # type: ignore[misc]  # its type cannot be inferred
            assert from_another_thread(lambda tier=tier: tier.put(row("d"))) is None  # type: ignore[misc]  # likewise
            assert other.put(row("e")) is None, "as another process would"
            assert tier.put(row("f")) is None
            assert {"a", "c", "d", "e", "f"} <= set(held(tier))
            assert held(tier) == held(other)
            assert tier.damaged_lines == 0
    assert number > 5


@pytest.mark.parametrize("step", ["append", "fsync", "open_lock", "lock", "unlock"])
def test_a_call_within_a_call_is_refused_and_hangs_neither(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a signal handler or a finalizer makes one."""
    answers: list[Row | None] = []

    def handler(*args: Any) -> Any:
        monkeypatch.setattr(files, step, real)
        with pytest.raises(TierUnavailable, match="another call of the same thread"):
            tier.put(row("b"))
        answers.append(tier.get("a"))
        return real(*args)

    real = getattr(files, step)
    with open_store(tmp_path, durability="full") as filling:
        filling.put(row("a"))
    with open_store(tmp_path, durability="full") as tier:
        assert tier.get("a") == row("a")
        monkeypatch.setattr(files, step, handler)
        assert from_another_thread(lambda: tier.put(row("a", 2))) is None
        assert answers == [row("a")] or (step == "unlock" and answers == [row("a", 2)])
        assert tier.put(row("b")) is None
        assert held(tier) == {"a": row("a", 2), "b": row("b")}


@pytest.mark.parametrize("step", ["append", "unlock"])
def test_closing_in_the_midst_of_a_call_waits_for_its_end(
    tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handler(*args: Any) -> Any:
        monkeypatch.setattr(files, step, real)
        tier.close()
        assert tier._store.shards[0].lock._fd >= 0, "the lock is held to the end"
        return real(*args)

    real = getattr(files, step)
    tier = open_store(tmp_path)
    tier.put(row("a"))
    monkeypatch.setattr(files, step, handler)
    assert from_another_thread(lambda: tier.put(row("a", 2))) is None
    assert tier._store.shards[0].lock._fd == -1
    with open_store(tmp_path) as tier:
        assert tier.get("a") == row("a", 2)
