"""Diagram: the matplotlib artists of a diagram, a few for each layer regardless of its number of edges."""

from typing import Any

import torch
from torch import Tensor

from ..layers.shape import owners
from .edge_data import Edges
from .figure import colours
from .layout import LEAST_POINTS, NUMBERS, Layout, Point, Ranges, Row, text_size
from .legend import GAPS, SAMPLE, Placed
from .legend import POINTS as LEGEND_POINTS
from .numbers import ends, heights, short
from .selection import MIN_OPACITY, Selection

INSET = 0.12  # margin around the curve in its box, in sides of the box
HEAD, HEAD_TEXT = 0.26, 0.17  # room and text of the number at the top of a box, in sides
MIN_BOX_OPACITY = 0.8  # of the background of a box, which hides lines behind it
MIN_TEXT_OPACITY = 0.65


class Diagram:
    """Draws on matplotlib axes in units of inches, at the positions of a layout."""

    def __init__(self, axes: Any, layout: Layout, unit: float):
        self.axes, self.layout, self.unit = axes, layout, unit
        self.colours = colours(axes.figure)

    def edges(self, l: int, edges: Edges, opacity: list[float], tick: bool, sample: bool) -> None:
        """The edges of layer l: lines to and from their boxes, frames, curves, and numbers."""
        if not edges.inputs:
            return
        boxes, side = self.layout.boxes[l], self.layout.sides[l]
        strokes = [(*self.colours.mode(mode)[:3], alpha) for mode, alpha in zip(edges.modes, opacity, strict=True)]
        below = [self.layout.nodes[l][i] for i in edges.inputs]
        above = [self.layout.subnodes[l + 1][j] for j in edges.outputs]
        lower = [(node, (x, y - side / 2)) for node, (x, y) in zip(below, boxes, strict=True)]
        upper = [((x, y + side / 2), node) for node, (x, y) in zip(above, boxes, strict=True)]
        order = sorted(range(len(boxes)), key=opacity.__getitem__)  # the strongest on top
        lines = [lines[n] for n in order for lines in (lower, upper)]
        faded = [self.colours.faded(opacity[n], edges.modes[n]) for n in order for _ in range(2)]
        thin = min(1.0, max(0.4, (30 / len(boxes)) ** 0.5))
        self._lines(f"lines-{l}", lines, faded, 0.9 * self.unit * thin, 1)
        self._frames(f"boxes-{l}", boxes, side, strokes, opacity)
        thick = min(max(0.04 * 72 * side, 0.6 * self.unit), 1.6 * self.unit)
        y = heights(edges.y, edges.low, edges.high)
        x = torch.linspace(0, 1, edges.x.shape[1], dtype=torch.float64, device="cpu").expand_as(edges.x)
        head = not tick and headed(side, self.unit)
        self._lines(f"curves-{l}", self._inside(l, x, y, head), strokes, thick * (0.5 if sample else 1.0), 4)
        if sample:
            start, extent = edges.x[:, :1], edges.x[:, -1:] - edges.x[:, :1]
            x = torch.where(extent > 0, (edges.sample_x - start) / extent, 0.5)
            y = heights(edges.sample_y, edges.low, edges.high)
            self._points(f"samples-{l}", self._inside(l, x, y, head), strokes, thick)
        if tick:
            self._numbers(boxes, side, edges, strokes)
        elif head:
            self._extents(l, edges, strokes)

    def nodes(self, drawn: Selection, opacity: list[list[float]]) -> None:
        """Inputs as dots, summing nodes as +, multiplication nodes as x, and the lines between subnodes and nodes.

        A node's opacity is that of its strongest outgoing edge, but at least MIN_OPACITY.
        """
        layout = self.layout
        for l, positions in enumerate(layout.nodes):
            last = l == len(opacity)
            strength = [1.0 if last else MIN_OPACITY] * len(positions)
            for i, alpha in () if last else zip(drawn.edges[l].inputs, opacity[l], strict=True):
                strength[i] = max(strength[i], alpha)
            strokes = [self.colours.faded(alpha) for alpha in strength]
            if l == 0:
                self._circles("inputs", positions, layout.dot, strokes, filled=True)
                continue
            n_sum, owner = drawn.sums[l], owners(drawn.groups[l])
            below = [strokes[node] for node in owner]
            self._circles(f"sums-{l}", layout.subnodes[l], layout.sign, below)
            self._signs(layout.subnodes[l], below, SIGNS["sum"])
            if positions is not layout.subnodes[l]:
                joins = [(layout.subnodes[l][sub], positions[node]) for sub, node in enumerate(owner)]
                self._lines(f"joins-{l}", joins, below, 0.9 * self.unit, 1)
                self._circles(f"handed-on-{l}", positions[:n_sum], layout.dot, strokes[:n_sum], filled=True)
                self._circles(f"products-{l}", positions[n_sum:], layout.sign, strokes[n_sum:])
                self._signs(positions[n_sum:], strokes[n_sum:], SIGNS["product"])

    def ranges(self, l: int, ranges: Ranges) -> None:
        """The ranges [a, b] of nodes: below the inputs, on the right of the other nodes."""
        if not ranges.texts:
            return
        at, gap = [self.layout.nodes[l][n] for n in ranges.nodes], 0.05 * self.unit
        if l == 0:
            at, align = [(x, y - self.layout.dot - gap) for x, y in at], ("center", "top")
        else:
            at, align = [(x + self.layout.sign + gap, y) for x, y in at], ("left", "center")
        inks = [self.colours.faded(MIN_TEXT_OPACITY)] * len(at)
        self._written(f"ranges-{l}", ranges.texts, at, ranges.points, inks, align)

    def texts(self, rows: list[Row], ranges: float) -> None:
        """The names of inputs below and of outputs above their nodes, and the title; ranges: height of the inputs'."""
        layout, gap = self.layout, 0.07 * self.unit
        places = (
            (layout.nodes[0], -layout.dot - gap - ranges, "top"),
            (layout.nodes[-1], layout.sign + gap, "bottom"),
            ([(layout.width / 2, layout.height)], -gap, "top"),
        )
        for row, (nodes, offset, align) in zip(rows, places, strict=True):
            for text, (x, y) in zip(row.texts, nodes, strict=bool(row.texts)):
                self.axes.text(
                    x, y + offset, text, fontsize=row.points, color=self.colours.ink, ha="center", va=align,
                    rotation=90 if row.upright else 0,
                )  # fmt: skip

    def legend(self, items: list[Placed], top: float) -> None:
        """The legend, downwards from this height."""
        points, sample = LEGEND_POINTS * self.unit, SAMPLE * self.unit
        line, ink = 1.5 * points / 72, self.colours.ink
        marks = {kind: [] for kind in ("line", "sum", "product", "input")}
        for item, x, y in items:
            left, middle = self.layout.margin + x, top - y - line / 2
            start = left + (sample + GAPS[0] * self.unit if item.kind else 0.0)
            self.axes.text(start, middle, item.text, fontsize=points, color=ink, va="center_baseline", gid="legend")
            if item.kind:
                marks[item.kind].append((item, left, middle))
        lines = [((x, y), (x + sample, y)) for _, x, y in marks["line"]]
        strokes = [self.colours.faded(item.opacity, item.mode) for item, _, _ in marks["line"]]
        self._lines("legend-lines", lines, strokes, 1.3 * self.unit, 4)
        radius = 0.045 * self.unit
        for kind in ("sum", "product", "input"):
            at = [(x + sample / 2, y) for _, x, y in marks[kind]]
            self._circles(f"legend-{kind}", at, radius, [ink] * len(at), filled=kind == "input")
            if kind in SIGNS:
                self._signs(at, [ink] * len(at), SIGNS[kind], radius)

    # Artists

    def _inside(self, l: int, x: Tensor, y: Tensor, head: bool) -> list[Tensor]:
        """Points of [0, 1] x [0, 1] in the boxes of layer l, below a head: x, y [E, P] -> E of [P, 2]."""
        side = self.layout.sides[l]
        centre = torch.tensor(self.layout.boxes[l], dtype=torch.float64, device="cpu")  # E 2
        corner, room = centre + (INSET - 0.5) * side, (1 - 2 * INSET) * side
        height = room - (HEAD - INSET) * side if head else room
        x, y = corner[:, :1] + x.clamp(0, 1) * room, corner[:, 1:] + y.clamp(0, 1) * height
        return list(torch.stack([x, y], 2).numpy())

    def _lines(self, name: str, lines: list, strokes: list, width: float, order: float) -> None:
        from matplotlib.collections import LineCollection

        artist = LineCollection(lines, colors=strokes, linewidths=width, zorder=order, capstyle="round", gid=name)
        self.axes.add_collection(artist, autolim=False)

    def _frames(self, name: str, boxes: list[Point], side: float, strokes: list, opacity: list[float]) -> None:
        from matplotlib.collections import PolyCollection

        half = side / 2
        squares = [
            [(x - half, y - half), (x + half, y - half), (x + half, y + half), (x - half, y + half)] for x, y in boxes
        ]
        *paper, solid = self.colours.paper
        fills = [(*paper, solid * (MIN_BOX_OPACITY + (1 - MIN_BOX_OPACITY) * alpha)) for alpha in opacity]
        width = min(max(0.02 * 72 * side, 0.4 * self.unit), 0.8 * self.unit)
        artist = PolyCollection(squares, facecolors=fills, edgecolors=strokes, linewidths=width, zorder=3, gid=name)
        self.axes.add_collection(artist, autolim=False)

    def _points(self, name: str, points: list, strokes: list, size: float) -> None:
        """Dots at points, a list of E arrays [S, 2], in the E colours of strokes."""
        from matplotlib.collections import EllipseCollection

        count, across = len(points[0]), 1.7 * size / 72
        offsets = [tuple(point) for curve in points for point in curve]
        colour = [stroke for stroke in strokes for _ in range(count)]
        artist = EllipseCollection(
            [across], [across], [0], units="xy", offsets=offsets, offset_transform=self.axes.transData,
            facecolors=colour, linewidths=0, zorder=5, gid=name,
        )  # fmt: skip
        self.axes.add_collection(artist, autolim=False)

    def _circles(self, name: str, at: list[Point], radius: float, strokes: list, filled: bool = False) -> None:
        from matplotlib.collections import EllipseCollection

        if not at:
            return
        artist = EllipseCollection(
            [2 * radius], [2 * radius], [0], units="xy", offsets=at, offset_transform=self.axes.transData,
            facecolors=self.colours.paper, edgecolors=strokes, linewidths=0.9 * self.unit, zorder=6, gid=name,
        )  # fmt: skip
        if filled:
            artist.set(facecolors=strokes, linewidths=0)
        self.axes.add_collection(artist, autolim=False)

    def _signs(self, at: list[Point], strokes: list, directions: tuple, radius: float | None = None) -> None:
        radius = self.layout.sign if radius is None else radius
        arms = [(0.58 * radius / (a * a + b * b) ** 0.5, a, b) for a, b in directions]
        lines = [((x - s * a, y - s * b), (x + s * a, y + s * b)) for x, y in at for s, a, b in arms]
        colour = [stroke for stroke in strokes for _ in arms]
        self._lines("signs", lines, colour, 0.9 * self.unit, 7)

    def _numbers(self, boxes: list[Point], side: float, edges: Edges, strokes: list) -> None:
        """The range of the input below each box, the range of the output on its left."""
        *paper, solid = self.colours.paper
        background = (*paper, MIN_BOX_OPACITY * solid)
        size, half, pad = min(max(72 * side * 0.16, 2.0), 7.0 * self.unit), side / 2, 0.05 * side
        for n, (x, y) in enumerate(boxes):
            first, last = ends(edges.x[n, 0].item(), edges.x[n, -1].item())
            least, most = ends(edges.low[n].item(), edges.high[n].item())
            below = size * min(1.0, 0.92 * side / (text_size(first, size)[0] + text_size(last, size)[0]))
            left = size * min(1.0, (NUMBERS - 0.1) * side / max(text_size(value, size)[0] for value in (least, most)))
            for at_x, at_y, value, points, side_x, side_y in (
                (x - half, y - half - pad, first, below, "left", "top"),
                (x + half, y - half - pad, last, below, "right", "top"),
                (x - half - pad, y - half, least, left, "right", "bottom"),
                (x - half - pad, y + half, most, left, "right", "top"),
            ):
                self.axes.text(
                    at_x, at_y, value, fontsize=points, color=_legible(strokes[n]), ha=side_x, va=side_y, zorder=2,
                    bbox={"facecolor": background, "linewidth": 0, "pad": 0.5},
                )  # fmt: skip

    def _extents(self, l: int, edges: Edges, strokes: list) -> None:
        """The height of each curve in units of the function, at the top of its box."""
        side, points = self.layout.sides[l], head_points(self.layout.sides[l], self.unit)
        values = [rf"$\updownarrow${short(height, 2)}" for height in (edges.high - edges.low)[:, 0].tolist()]
        at = [(x - 0.42 * side, y + 0.42 * side) for x, y in self.layout.boxes[l]]
        inks = [_legible(stroke) for stroke in strokes]
        self._written(f"heights-{l}", values, at, points, inks, ("left", "top"))

    def _written(self, name: str, values: list[str], at: list[Point], points: float, inks: list, align: tuple) -> None:
        """Texts as one artist, of glyphs in inches, on a rim of the paper; lines are parted by newlines."""
        from matplotlib.collections import PathCollection
        from matplotlib.path import Path
        from matplotlib.patheffects import withStroke
        from matplotlib.textpath import TextPath

        size, shapes = points / 72, []
        for value, (x, y) in zip(values, at, strict=True):
            lines = value.split("\n")
            tall = (0.72 + 1.15 * (len(lines) - 1)) * size
            baseline = y - 0.72 * size + (tall / 2 if align[1] == "center" else 0.0)
            for n, line in enumerate(lines):
                glyphs = TextPath((0, 0), line, size=points)
                wide = text_size(line, points)[0]
                left = x - (wide / 2 if align[0] == "center" else 0.0)
                corner = (left, baseline - 1.15 * n * size)
                shapes.append(Path(glyphs.vertices / 72 + corner, glyphs.codes))
        inks = [ink for ink, value in zip(inks, values, strict=True) for _ in value.split("\n")]
        rim = [withStroke(linewidth=0.25 * points, foreground=(*self.colours.paper[:3], 0.85))]
        artist = PathCollection(shapes, facecolors=inks, linewidths=0, zorder=8, gid=name, path_effects=rim)
        self.axes.add_collection(artist, autolim=False)


SIGNS = {"sum": ((1, 0), (0, 1)), "product": ((1, 1), (1, -1))}


def headed(side: float, unit: float) -> bool:
    """Whether a box of this side in inches has room for a number that can be read."""
    return head_points(side, unit) >= LEAST_POINTS * unit


def head_points(side: float, unit: float) -> float:
    """The font size of that number."""
    return min(HEAD_TEXT * 72 * side, 7.0 * unit)


def _legible(stroke: tuple) -> tuple:
    return (*stroke[:3], max(stroke[3], MIN_TEXT_OPACITY))
