"""The command that compares eviction policies: its optimum is one, and its page names every policy that ships."""

import random
from functools import cache
from xml.etree import ElementTree as ET

import pytest
from benchmarks.hit_ratios import BEGIN, END, PAGE, PLOT, POLICIES, SIZES, averages, optimum, ratios, replay, table
from benchmarks.streams import trace

from tierkit import EVICTION_POLICIES


def best_by_trying(keys: tuple[str, ...], capacity: int) -> int:
    """The most hits that any choice of victims gives, by trying all of them."""

    @cache
    def hits(place: int, held: frozenset[str]) -> int:
        if place == len(keys):
            return 0
        key = keys[place]
        if key in held:
            return 1 + hits(place + 1, held)
        if len(held) < capacity:
            return hits(place + 1, held | {key})
        return max(hits(place + 1, held - {victim} | {key}) for victim in held)

    return hits(0, frozenset())


@pytest.mark.parametrize("seed", range(20))
def test_no_choice_of_victims_has_more_hits_than_the_optimum(seed: int) -> None:
    drawn = random.Random(seed)
    keys = tuple(drawn.choices("abcdef", k=14))
    capacity = drawn.randint(1, 3)
    assert optimum(keys, capacity) == best_by_trying(keys, capacity) / len(keys)


def test_no_policy_beats_the_optimum_and_all_are_compared() -> None:
    assert sorted(POLICIES) == sorted(EVICTION_POLICIES)
    keys = trace("web07")[:3000]
    assert len(set(keys)) > 500
    of = ratios(keys, 0.1)
    assert max(of[policy] for policy in POLICIES) < of["optimum"]
    assert 0 < replay(keys, "fifo", 100) < replay(keys, "fifo", 1000)
    assert table({("some", 0.1): of}).count("**") == 2
    assert len(averages({("web07", 0.1): of, ("rotation", 0.1): of}).splitlines()) == 5


def test_the_page_has_the_figures_and_the_plot() -> None:
    text = PAGE.read_text()
    figures = text[text.index(BEGIN) : text.index(END)]
    assert figures.count("| web07 |") == len(SIZES)
    for policy in EVICTION_POLICIES:
        assert f"| `{policy}` |" in text
        assert policy in figures
    assert ET.fromstring(PLOT.read_text()).tag.endswith("svg")  # noqa: S314 - our own
