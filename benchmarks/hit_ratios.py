"""Hit ratios of every eviction policy beside Belady's optimum. `--write` writes docs/explanation/eviction.md's figures.

`python -m benchmarks hit_ratios [--write]`. The figures are the same at each run: the sketch of W-TinyLFU goes by
Python's hash of a key, so the command starts itself again with PYTHONHASHSEED=0.
"""

from __future__ import annotations

import argparse
import heapq
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from benchmarks.bars import bars
from benchmarks.streams import streams
from tierkit import EVICTION_POLICIES

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "explanation" / "eviction.md"
PLOT = DOCS / "explanation" / "hit-ratios.svg"
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"
SIZES = (0.01, 0.05, 0.10, 0.25)
PLOTTED = 0.05
POLICIES = ("fifo", "lru", "lfu", "sieve", "s3fifo", "wtinylfu")
OPTIMUM = "optimum"

Ratios = Mapping[str, float]


def main(arguments: Sequence[str]) -> int:
    """Print the table; write it, and the plot, if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks hit_ratios", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name} and {PLOT.name}")
    asked = parser.parse_args(arguments)
    if os.environ.get("PYTHONHASHSEED") != "0":
        again = [sys.executable, "-m", "benchmarks", "hit_ratios", *arguments]
        return subprocess.run(again, env={**os.environ, "PYTHONHASHSEED": "0"}, check=False).returncode
    found = {(name, size): ratios(keys, size) for name, keys in streams() for size in SIZES}
    text = table(found) + "\n" + averages(found)
    print(text)
    if asked.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}{text}{END}{after}")
        chosen = {name: of for (name, size), of in found.items() if size == PLOTTED}
        PLOT.write_text(bars(chosen, POLICIES, OPTIMUM, f"Hit ratio with room for {PLOTTED:.0%} of the keys"))
    return 0


def ratios(keys: Sequence[str], size: float) -> Ratios:
    """The hit ratio of each policy, and the highest there can be, with room for `size` of the distinct keys."""
    capacity = max(1, round(len(set(keys)) * size))
    return {policy: replay(keys, policy, capacity) for policy in POLICIES} | {OPTIMUM: optimum(keys, capacity)}


def replay(keys: Sequence[str], policy: str, capacity: int) -> float:
    """The hit ratio of a cache that loads what it misses."""
    order = EVICTION_POLICIES[policy](capacity)
    held: set[str] = set()
    hits = 0
    for key in keys:
        if key in held:
            hits += 1
            order.hit(key)
            continue
        order.admit(key)
        held.add(key)
        for victim in order.coldest(max(0, len(held) - capacity)):
            order.remove(victim)
            held.discard(victim)
    return hits / len(keys)


def optimum(keys: Sequence[str], capacity: int) -> float:
    """That of a cache that evicts what is needed again last: L. A. Belady, IBM Systems Journal 5(2), 1966."""
    following = _next_uses(keys)
    due: dict[str, int] = {}
    heap: list[tuple[int, str]] = []
    hits = 0
    for place, key in enumerate(keys):
        hits += key in due
        if key not in due and len(due) == capacity:
            _evict_last(due, heap)
        due[key] = following[place]
        heapq.heappush(heap, (-following[place], key))
    return hits / len(keys)


def _evict_last(due: dict[str, int], heap: list[tuple[int, str]]) -> None:
    while True:
        place, key = heapq.heappop(heap)
        if due.get(key) == -place:  # else it was used since, and stands in the heap again
            del due[key]
            return


def _next_uses(keys: Sequence[str]) -> list[int]:
    following = [len(keys)] * len(keys)
    seen: dict[str, int] = {}
    for place in range(len(keys) - 1, -1, -1):
        following[place] = seen.get(keys[place], len(keys))
        seen[keys[place]] = place
    return following


def table(found: Mapping[tuple[str, float], Ratios]) -> str:
    """Hit ratios in percent; the best policy of each line is bold."""
    lines = [_line("stream", "room", *POLICIES, OPTIMUM), _line(*["---"] * (len(POLICIES) + 3))]
    for (name, size), of in found.items():
        best = max(of[policy] for policy in POLICIES)
        cells = [f"**{of[name]:.1%}**" if of[name] == best > 0 else f"{of[name]:.1%}" for name in POLICIES]
        lines.append(_line(name, f"{size:.0%}", *cells, f"{of[OPTIMUM]:.1%}"))
    return "\n".join(lines) + "\n"


def averages(found: Mapping[tuple[str, float], Ratios]) -> str:
    """The mean share of the optimum, over all streams and over those without the rotation."""
    lines = [_line("share of the optimum, mean", *POLICIES), _line(*["---"] * (len(POLICIES) + 1))]
    for title, left_out in (("all streams", ""), ("without the rotation", "rotation"), ("the two traces", "z")):
        chosen = [of for (name, _), of in found.items() if not _is_left_out(name, left_out)]
        cells = [f"{mean(of[policy] / of[OPTIMUM] for of in chosen):.2f}" for policy in POLICIES]
        lines.append(_line(title, *cells))
    return "\n".join(lines) + "\n"


def _is_left_out(name: str, left_out: str) -> bool:
    return name == left_out if left_out != "z" else not name.startswith("web")


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
