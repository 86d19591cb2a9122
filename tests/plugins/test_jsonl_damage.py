"""Rot and foreign files in a JSON Lines store. Torn tails and rot in every byte are trials of the campaign."""

import logging
from pathlib import Path

import pytest
from tests.plugins.jsonl_tools import held, lines_of, open_store, row, shard

from tierkit import (
    TierCorrupt,
)


def test_an_older_value_does_not_come_back_when_a_newer_one_is_damaged(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier:
        tier.put_many([row("a", 1), row("b", 1)])
        tier.put(row("a", 2))
        tier.delete("b", 1)
    content = shard(tmp_path).read_bytes()
    content = content.replace(b"s1.k.a-2", b"s1.k.A-2")
    shard(tmp_path).write_bytes(content.replace(b'"mark":"0000000000000000002"', b'"mark":"0000000000000000009"'))
    with open_store(tmp_path) as tier:
        assert held(tier) == {}
        assert tier.damaged_lines == 2


@pytest.mark.req("E-1")
def test_a_record_damaged_while_open_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_store(tmp_path) as tier:
        tier.put_many([row("a", 1), row("b", 1)])
        tier.put(row("a", 2))
        rot(tmp_path, b"s1.k.a-2")
        with caplog.at_level(logging.WARNING, "tierkit.jsonl"), pytest.raises(TierCorrupt, match="byte"):
            tier.get("a")
        assert tier.get("a") is None
        assert held(tier) == {"b": row("b")}
        assert tier.damaged_lines >= 1
        assert tier.put(row("a", 1)) == 1, "what is older is not taken for what was lost"
    assert [line["mark"] for line in lines_of(tmp_path) if line.get("op") == "quarantine"] == ["0" * 18 + "2"]
    assert "s1.k" not in caplog.text
    with open_store(tmp_path) as tier:
        assert held(tier) == {"b": row("b")}
        assert tier.put(row("a", 2)) is None
        assert tier.get("a") == row("a", 2)


def rot(root: Path, what: bytes) -> None:
    """Change a byte in place, as a disk does."""
    content = shard(root).read_bytes()
    with shard(root).open("r+b") as file:
        file.seek(content.rindex(what))
        file.write(b"X")


def test_a_record_damaged_while_open_read_only_is_set_aside_in_memory(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier:
        tier.put_many([row("a"), row("b")])
    with open_store(tmp_path, read_only=True) as reader:
        assert reader.size() == 2
        rot(tmp_path, b"s1.k.a")
        before = shard(tmp_path).read_bytes()
        with pytest.raises(TierCorrupt):
            reader.get("a")
        assert reader.get("a") is None
        assert reader.get("b") == row("b")
        assert shard(tmp_path).read_bytes() == before


def test_scan_overflow_and_rewriting_leave_out_what_is_damaged(tmp_path: Path) -> None:
    with open_store(tmp_path, max_entries=1) as tier:
        tier.put_many([row("a", 1), row("b", 2), row("c", 3)])
        rot(tmp_path, b"s1.k.a")
        assert [victim.key for victim in tier.overflow()] == ["b"]
        tier.put(row("d", 4))
        rot(tmp_path, b"s1.k.d")
        assert set(held(tier)) == {"b", "c"}
        rot(tmp_path, b"s1.k.c")
        tier.compact()
        assert set(held(tier)) == {"b"}
        assert tier.put(row("c", 2)) == 2
        assert tier.put(row("c", 3)) is None


def test_damage_is_told_once_for_a_file_and_never_with_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_store(tmp_path) as tier:
        tier.put_many([row("a"), row("b"), row("c")])
    rot(tmp_path, b"s1.k.a")
    rot(tmp_path, b"s1.k.b")
    with caplog.at_level(logging.INFO, "tierkit.jsonl"), open_store(tmp_path) as tier:
        assert tier.size() == 1
        assert tier.damaged_lines == 2
        tier.put(row("d"))
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert str(shard(tmp_path)) in caplog.text
    assert "2 damaged lines" in caplog.text
    assert "s1.k" not in caplog.text


@pytest.mark.parametrize("content", [b"\x00" * 5000, b"not ours\n" * 9, b"\xff", b"{}\n"])
def test_a_file_that_holds_nothing_of_ours_is_moved_aside(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with open_store(tmp_path) as tier, open_store(tmp_path) as other:
        tier.put(row("a"))
        assert other.get("a") == row("a")
        shard(tmp_path).write_bytes(content)
        with open_store(tmp_path, read_only=True) as reader:
            assert held(reader) == {}
        assert held(other) == {}
        assert shard(tmp_path).read_bytes() == content
        with caplog.at_level(logging.WARNING, "tierkit.jsonl"), open_store(tmp_path) as new:
            assert new.put(row("b")) is None
        assert held(tier) == held(other) == {"b": row("b")}
    aside = shard(tmp_path).parent / "00.jsonl.corrupt-1700000000"
    assert aside.read_bytes() in (content, content + b"\n")
    assert str(aside) in caplog.text


def test_a_second_file_is_moved_aside_beside_the_first(tmp_path: Path) -> None:
    for content in (b"", b"one\n", b"two\n"):
        with open_store(tmp_path):
            shard(tmp_path).write_bytes(content)
        with open_store(tmp_path) as tier:
            tier.put(row("a"))
    aside = sorted(file.name for file in shard(tmp_path).parent.glob("00.jsonl.corrupt-*"))
    assert aside == ["00.jsonl.corrupt-1700000000", "00.jsonl.corrupt-1700000000-1"]


def test_an_endless_line_is_skipped(tmp_path: Path) -> None:
    with open_store(tmp_path) as tier:
        tier.put(row("a"))
    with shard(tmp_path).open("ab") as file:
        file.write(b"x" * (17 * 1024 * 1024) + b"\n")
    with open_store(tmp_path) as tier:
        assert held(tier) == {"a": row("a")}
        assert tier.damaged_lines >= 1
        assert tier.put(row("b")) is None
    with open_store(tmp_path) as tier:
        assert held(tier) == {"a": row("a"), "b": row("b")}
