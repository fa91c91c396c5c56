"""The legend of a diagram: what opacity, colours, signs and numbers mean, in lines that fit its width."""

import math
from typing import NamedTuple

from .layout import broken, text_size

POINTS = 6.5  # of the text, for a diagram of scale 0.5
SAMPLE = 0.2  # width of a sample in inches, GAPS after it and after the text
GAPS = 0.06, 0.18
HINTED = 1.14  # width of small text in pixels over that of its outlines
MODES = {"n": "numeric", "s": "symbolic", "ns": "numeric and symbolic"}


class Item(NamedTuple):
    """A sample and its text. kind: line, sum, product, input, or empty for text alone; mode and opacity of a line."""

    kind: str
    text: str
    mode: str = "n"
    opacity: float = 1.0


class Placed(NamedTuple):
    """An item at x and y in inches, of the left end of its line's middle, from the legend's upper left corner."""

    item: Item
    x: float
    y: float


def strengths(beta: float, least: float) -> list[Item]:
    """Lines of three opacities tanh(beta * score), at least `least`, with their scores."""
    if beta == 0.0:
        return []
    faint, middle, strong = (math.atanh(opacity) / beta for opacity in (least, 0.6, 0.95))
    return [
        Item("line", f"score ≤ {faint:.1g}", opacity=least),
        Item("line", f"{middle:.1g}", opacity=math.tanh(beta * float(f"{middle:.1g}"))),
        Item("line", f"≥ {strong:.1g}"),
    ]


def flow(items: list[Item], width: float, unit: float) -> tuple[list[Placed], float]:
    """The items in lines of this width in inches, and the height of all; texts that are too long are broken."""
    points, line = POINTS * unit, 1.5 * POINTS * unit / 72
    sample, (near, far) = SAMPLE * unit, (gap * unit for gap in GAPS)
    placed, x, y = [], 0.0, 0.0
    for item in items:
        room = sample + near if item.kind else 0.0
        for n, text in enumerate(broken(item.text, points, (width - room) / HINTED)):
            length = room + HINTED * text_size(text, points)[0]
            if n or (x and x + length > width):
                x, y = 0.0, y + line
            placed.append(Placed(item._replace(text=text, kind="" if n else item.kind), x + (room if n else 0.0), y))
            x += length + far
    return placed, y + line if placed else 0.0
