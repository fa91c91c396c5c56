"""The layout of a diagram: positions in inches from the lower left corner, inputs below, outputs above.

Between two rows of nodes are the boxes of the edges: few in one row, many in several staggered rows. Edges that are off
take no room.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

RANGE_POINTS = 6.5  # of the ranges at nodes, for a diagram of scale 0.5
LEAST_POINTS = 3.2  # of any number
MAX_LINES = 3  # of a name
MIN_SHRINK = 0.75  # of the size of names; below it they are turned upright instead


class Row(NamedTuple):
    """Texts side by side: font size in points, height in inches, and whether they are upright."""

    texts: list[str]
    points: float
    height: float
    upright: bool


class Ranges(NamedTuple):
    """The ranges of some nodes of a layer as texts: font size in points, height in inches."""

    nodes: list[int]
    texts: list[str]
    points: float
    height: float = 0.0


def select_names(name: str, values: Sequence | None, of: Sequence[int], total: int) -> list:
    """The values for the inputs `of`, out of `total`; values has one for all inputs, or for these only."""
    if values is None:
        return []
    if isinstance(values, str) or not isinstance(values, Sequence) or len(values) not in (total, len(of)):
        counts = f"{len(of)}" if total == len(of) else f"{len(of)}, or of all {total}"
        raise ValueError(f"{name}={values!r}: expected a list of {counts} names")
    return list(values) if len(values) == len(of) else [values[n] for n in of]


def texts(name: str, values: Sequence | None, of: Sequence[int], total: int) -> list[str]:
    """select_names as matplotlib texts: strings with formulas between dollar signs, SymPy expressions as LaTeX."""
    return [_text(f"{name}[{n}]", value) for n, value in enumerate(select_names(name, values, of, total))]


def fit_texts(values: list[str], points: float, slot: float, height: float) -> Row:
    """The font size for texts in a row, in slots of this width in inches; long texts are broken or turned upright.

    height: limit on the height of upright texts.
    """
    if not values:
        return Row([], points, 0.0, False)
    parts = [broken(text, points, 0.85 * slot) for text in values]
    if len(values) > 1 and max(map(len, parts)) <= MAX_LINES and MAX_LINES * points / 72 < height:
        broken_values = ["\n".join(lines) for lines in parts]
        sizes = [text_size(text, points) for text in broken_values]
        if max(width for width, _ in sizes) <= 0.85 * slot / MIN_SHRINK:
            fit = min(1.0, 0.85 * slot / max(width for width, _ in sizes))
            return Row(broken_values, points * fit, max(high for _, high in sizes) * fit, False)
    sizes = [text_size(text, points) for text in values]
    widest, highest = (max(size[part] for size in sizes) for part in (0, 1))
    fit = min(1.0, (0.94 if len(values) == 1 else 0.85) * slot / widest)
    if fit >= MIN_SHRINK or len(values) == 1:
        return Row(values, points * fit, highest * fit, False)
    fit = min(1.0, 0.94 * slot / highest, height / widest)
    return Row(values, points * fit, widest * fit, True)


def broken(text: str, points: float, width: float) -> list[str]:
    """The text in lines of this width in inches, broken after spaces and underscores; formulas stay whole."""
    if "$" in text or "\n" in text:
        return [text]
    lines = [""]
    for word in re.split(r"(?<=[ _])", text):
        if lines[-1] and text_size((lines[-1] + word).rstrip(), points)[0] > width:
            lines.append(word)
        else:
            lines[-1] += word
    return [line.rstrip() for line in lines]


def fit_ranges(ranges: list[tuple[str, str]], slot: float, unit: float) -> tuple[list[str], float]:
    """[a, b] of ends of ranges in slots of this width in inches, in one line or two, and the font size.

    No texts where they would be too small to read.
    """
    for between in (", ", ",\n"):
        values = [f"[{low}{between}{high}]" for low, high in ranges]
        widest = max((text_size(value, RANGE_POINTS * unit)[0] for value in values), default=0.0)
        points = RANGE_POINTS * unit * min(1.0, 0.9 * slot / max(widest, 1e-9))
        if points >= (LEAST_POINTS if "\n" in between else 0.8 * RANGE_POINTS) * unit:
            return values, points
    return [], 0.0


def text_size(text: str, points: float) -> tuple[float, float]:
    """Width and height of a text in inches."""
    from matplotlib.cbook import is_math_text
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    font, measure = FontProperties(size=points), TextToPath().get_text_width_height_descent
    lines = [(line, is_math_text(line)) for line in text.split("\n")]
    sizes = [measure(line if math else line.replace(r"\$", "$"), font, math) for line, math in lines]
    return max(max(width for width, _, _ in sizes), 0.5) / 72, max(1.2 * points * len(lines), sizes[0][1]) / 72


def _text(name: str, value: Any) -> str:
    text = str(value)
    if not isinstance(value, str):
        try:
            from sympy import Basic, latex
        except ImportError:
            pass
        else:
            text = f"${latex(value)}$" if isinstance(value, Basic) else text
    try:
        text_size(text, 10.0)
    except ValueError as error:
        raise ValueError(f"{name}={text!r}: expected text that matplotlib can set ({error})") from None
    return text


Point = tuple[float, float]

FILL = 0.8  # side of a box over its slot
FILL_NUMBERED = 0.55  # the same with numbers beside the boxes
NUMBERS = 0.7  # width of the numbers on the left of a box, in sides
MIN_SIDE = 0.3  # of a box in inches, before another row is used
MIN_SIDE_NUMBERED = 0.3
MAX_ROWS = 8
MARGIN = 0.05  # inches, left and right


@dataclass
class Layout:
    """Positions: nodes and subnodes of layers 0..depth (the same list where none multiplies), boxes of each layer's
    edges.

    margin: left and right; dot: radius of an input; sign: radius of a node with a sign; sides: of the square boxes of
    each layer.
    """

    width: float
    height: float
    margin: float
    dot: float
    sign: float
    nodes: list[list[Point]] = field(default_factory=list)
    subnodes: list[list[Point]] = field(default_factory=list)
    boxes: list[list[Point]] = field(default_factory=list)
    sides: list[float] = field(default_factory=list)


@dataclass
class Shape:
    """Numbers of nodes and subnodes of every layer, and of edges of every layer of edges."""

    nodes: list[int]
    subnodes: list[int]
    edges: list[int]

    def width(self, unit: float, numbers: bool) -> float:
        """The default width in inches, for text of 10 * unit points."""
        edges, nodes = max(self.edges), max(self.nodes + self.subnodes)
        few, each = (0.95, 0.5) if numbers else (0.75, 0.2)
        return unit * max(min(max(2.0, few * edges), 5.0), min(each * edges, 10.0), min(0.4 * nodes, 10.0))


def place(
    shape: Shape, unit: float, width: float, height: float | None, below: float, above: float, numbers: bool = False
) -> Layout:
    """The layout for a width and a height, by default the natural height.

    below, above: heights reserved for text. numbers: whether the boxes have numbers beside them.
    """
    margin, fill = MARGIN * unit, FILL_NUMBERED if numbers else FILL
    room = width - 2 * margin
    sign = sign_radius(shape, unit, width)
    dot = 0.6 * sign
    least = (MIN_SIDE_NUMBERED if numbers else MIN_SIDE) * unit
    rows = [_rows(edges, fill * room, least) for edges in shape.edges]
    lead = NUMBERS if numbers else 0.0  # of a side, left of the first box
    sides = [
        min(0.62 * unit, 0.3 * width, fill * room * r / (max(edges, r) + lead * fill * r))
        for r, edges in zip(rows, shape.edges, strict=True)
    ]
    pitch = 1 + (1 - fill) * 0.8  # of the rows of boxes, in sides
    stacks = [side * (1 + (r - 1) * pitch) for r, side in zip(rows, sides, strict=True)]
    fan = 0.2 * unit + 0.055 * width  # from a node to boxes
    step = [3.5 * sign + 0.02 * width if a != b else 0.0 for a, b in zip(shape.nodes, shape.subnodes, strict=True)]
    reserved, natural = below + above + sign + dot, sum(stacks) + 2 * fan * len(stacks) + sum(step)
    height = reserved + natural if height is None else height
    stretch = max(height - reserved, 0.2 * height) / natural
    shrink = min(stretch, 1.0)  # boxes never grow with the height
    sides, stacks, step = [s * shrink for s in sides], [s * shrink for s in stacks], [s * stretch for s in step]
    fan = (stretch * natural - sum(stacks) - sum(step)) / (2 * len(stacks))
    layout = Layout(width, height, margin, dot * min(1.0, 2 * shrink), sign * min(1.0, 2 * shrink), sides=sides)
    y = below + layout.dot
    for l, count in enumerate(shape.nodes):
        layout.subnodes.append(_row(shape.subnodes[l], margin, width - margin, y))
        y += step[l]
        layout.nodes.append(_row(count, margin, width - margin, y) if step[l] else layout.subnodes[l])
        if l < len(shape.edges):
            left = margin + lead * sides[l]
            layout.boxes.append(_stagger(shape.edges[l], rows[l], left, width - margin, y + fan, sides[l], pitch))
            y += 2 * fan + stacks[l]
    return layout


def sign_radius(shape: Shape, unit: float, width: float) -> float:
    """The radius of a node with a sign."""
    return min(0.085 * unit, 0.3 * width / max(shape.nodes + shape.subnodes))


def _rows(edges: int, room: float, side: float) -> int:
    """The number of rows in which `edges` boxes have at least this side."""
    return next((r for r in range(1, MAX_ROWS) if room * r >= side * edges), MAX_ROWS)


def _row(count: int, left: float, right: float, y: float) -> list[Point]:
    return [(left + (n + 0.5) / count * (right - left), y) for n in range(count)]


def _stagger(count: int, rows: int, left: float, right: float, bottom: float, side: float, pitch: float) -> list[Point]:
    """Centres of staggered boxes: each a little to the right of the previous one, and in the next row."""
    if rows == 1:
        return _row(count, left, right, bottom + side / 2)
    start, room = left + side / 2, right - left - side
    return [(start + n / (count - 1) * room, bottom + side * (0.5 + n % rows * pitch)) for n in range(count)]
