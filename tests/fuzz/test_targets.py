"""Every target holds on its kept inputs, and on what Hypothesis makes of their pieces."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz import runner, stored
from tests.fuzz.__main__ import main
from tests.fuzz.inputs import CORPUS, WORDS, kept, mutations
from tests.fuzz.targets import TARGETS

from tierkit import unpack_row

EXAMPLES = {"jsonl_shard": 15, "jsonl_meta": 15, "sqlite_row": 15, "name": 15, "import_packed": 15}
"""How many examples the targets get that open a store for each, or decompress much."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """What is logged of hostile input would fill the report of a failure."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.req("E-1")
@pytest.mark.parametrize("target", TARGETS)
def test_each_kept_input_is_survived(target: str) -> None:
    inputs = kept(target)
    assert inputs
    for name, data in inputs.items():
        try:
            TARGETS[target](data)
        except Exception as error:
            error.add_note(f"with the input {name}")
            raise


@pytest.mark.req("E-1")
@pytest.mark.parametrize("target", TARGETS)
def test_anything_made_of_pieces_of_kept_inputs_is_survived(target: str) -> None:
    inputs = [data for data in kept(target).values() if len(data) < 3000]
    lines = [line for data in inputs for line in data.split(b"\n")]
    pieces = st.sampled_from([*inputs, *lines, *WORDS]) | st.binary(max_size=30)

    @settings(max_examples=EXAMPLES.get(target, 80), deadline=None, database=None)
    @given(st.lists(pieces, max_size=6).map(b"".join))
    def survive(data: bytes) -> None:
        TARGETS[target](data)

    survive()


def test_the_oracles_have_records_to_look_at() -> None:
    assert stored.found_in_shard(kept("jsonl_shard")["whole"]) == len(stored.WRITTEN)
    assert stored.found_in_shard(kept("jsonl_shard")["torn"]) == len(stored.WRITTEN) - 1
    assert stored.found_in_table(b"") == len(stored.WRITTEN)
    assert stored.opened(iter([unpack_row(kept("blob")["row"])])) == 1


def test_the_kept_inputs_are_few_and_small_and_each_belongs_to_a_target() -> None:
    files = [file for file in CORPUS.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 300_000
    assert {file.parent.name for file in files} == set(TARGETS)
    assert all(len(kept(target)) <= runner.MOST_KEPT for target in TARGETS)


def test_mutations_are_the_same_for_the_same_seed() -> None:
    seeds = list(kept("toml").values())
    assert list(mutations(seeds, 20, 5)) == list(mutations(seeds, 20, 5)) != list(mutations(seeds, 20, 6))


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_tells_what_came_of_each_target_and_fails_on_a_finding(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"keys": {b"x": "ValueError: of another kind"}, "blob": {}}
    results = {name: runner.Fuzzed(name, 1234, 56, findings, []) for name, findings in found.items()}
    monkeypatch.setattr("tests.fuzz.__main__.obstacle", lambda: "")
    monkeypatch.setattr("tests.fuzz.__main__.fuzzed", lambda target, _: results[target])
    monkeypatch.setattr("tests.fuzz.__main__.keep", lambda *about: f"{about[-1]}-1")
    assert main(["blob"]) == 0
    assert main(["blob", "keys"]) == 1
    printed = capsys.readouterr().out
    assert "blob: 1,234 executions, coverage 56, 0 findings" in printed
    assert "  FOUND finding-1: ValueError: of another kind" in printed


def test_without_atheris_the_command_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "find_spec", lambda _: None)
    assert main(["blob"]) == 2
    assert "--group fuzz" in capsys.readouterr().out


def test_an_input_is_merged_if_it_reaches_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = {b"kept": {("a", 1, 2)}, b"same": {("a", 1, 2)}, b"more": {("a", 2, 3)}, b"again": {("a", 2, 3)}}
    monkeypatch.setattr(runner, "CORPUS", tmp_path)
    monkeypatch.setattr(runner, "lines_reached", lambda _, data: set(reached[data]))
    folder = tmp_path / "blob"
    folder.mkdir()
    (folder / "first").write_bytes(b"kept")
    [name] = runner.merge("blob", [b"same", b"more", b"again"])
    assert (folder / name).read_bytes() == b"more"
