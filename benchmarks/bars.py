"""A bar chart as SVG, written by hand: the same bytes for the same figures, and no library to draw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from xml.sax.saxutils import escape

COLOURS = ("#9aa5b1", "#5b8db8", "#c9a227", "#7aa95c", "#b5651d", "#7b4ea3")
BAR, GAP, LEFT, TOP, HEIGHT = 16, 28, 50, 60, 260


def bars(groups: Mapping[str, Mapping[str, float]], series: Sequence[str], mark: str, title: str) -> str:
    """A group of bars for each of `groups`, a bar for each of `series`; `mark` is a line over the whole group."""
    step = BAR * len(series) + GAP
    width = LEFT + step * len(groups) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {TOP + HEIGHT + 50}" font-size="12">',
        "<style>text { font-family: sans-serif }</style>",
        f'<rect width="{width}" height="{TOP + HEIGHT + 50}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="15">{escape(title)}</text>',
        *_legend(series, mark),
        *_scale(width),
    ]
    for place, (name, values) in enumerate(groups.items()):
        parts += _group(LEFT + step * place + GAP / 2, name, values, series, mark)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _legend(series: Sequence[str], mark: str) -> Iterator[str]:
    for place, name in enumerate(series):
        x = LEFT + 90 * place
        yield f'<rect x="{x}" y="32" width="12" height="12" fill="{COLOURS[place]}"/>'
        yield f'<text x="{x + 17}" y="42">{escape(name)}</text>'
    x = LEFT + 90 * len(series)
    yield f'<line x1="{x}" y1="38" x2="{x + 14}" y2="38" stroke="black" stroke-width="2"/>'
    yield f'<text x="{x + 19}" y="42">{escape(mark)}</text>'


def _scale(width: int) -> Iterator[str]:
    for percent in range(0, 101, 20):
        y = TOP + HEIGHT * (1 - percent / 100)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{width - 10}" y2="{y:.1f}" stroke="#e3e3e3"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{percent} %</text>'


def _group(x: float, name: str, values: Mapping[str, float], series: Sequence[str], mark: str) -> Iterator[str]:
    for place, policy in enumerate(series):
        height = HEIGHT * values[policy]
        yield (
            f'<rect x="{x + BAR * place:.1f}" y="{TOP + HEIGHT - height:.1f}" width="{BAR - 2}"'
            f' height="{height:.1f}" fill="{COLOURS[place]}"/>'
        )
    y = TOP + HEIGHT * (1 - values[mark])
    end = x + BAR * len(series)
    yield f'<line x1="{x - 3:.1f}" y1="{y:.1f}" x2="{end + 1:.1f}" y2="{y:.1f}" stroke="black" stroke-width="2"/>'
    yield f'<text x="{(x + end) / 2:.1f}" y="{TOP + HEIGHT + 20}" text-anchor="middle">{escape(name)}</text>'
