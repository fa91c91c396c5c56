"""Diagram: the matplotlib artists of a diagram, a few for each layer regardless of its number of edges."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..layers.shape import owners
from .edge_data import Edges
from .figure import colours
from .layout import Layout, Point, Row

if TYPE_CHECKING:
    from ..model import KAN

INSET = 0.12  # margin around the curve in its box, in sides of the box
MIN_NODE_OPACITY = 0.2
MIN_BOX_OPACITY = 0.7  # of the background of a box, which hides lines behind it


class Diagram:
    """Draws on matplotlib axes in units of inches, at the positions of a layout."""

    def __init__(self, axes: Any, layout: Layout, unit: float):
        self.axes, self.layout, self.unit = axes, layout, unit
        self.colours = colours(axes.figure)

    def edges(self, l: int, edges: Edges, opacity: list[float], tick: bool, sample: bool) -> None:
        """The edges of layer l: lines to and from their boxes, frames, curves."""
        if not edges.inputs:
            return
        boxes, side = self.layout.boxes[l], self.layout.sides[l]
        strokes = [(*self.colours.mode(mode)[:3], alpha) for mode, alpha in zip(edges.modes, opacity, strict=True)]
        below = [self.layout.nodes[l][i] for i in edges.inputs]
        above = [self.layout.subnodes[l + 1][j] for j in edges.outputs]
        lower = [(node, (x, y - side / 2)) for node, (x, y) in zip(below, boxes, strict=True)]
        upper = [((x, y + side / 2), node) for node, (x, y) in zip(above, boxes, strict=True)]
        thin = min(1.0, max(0.4, (30 / len(boxes)) ** 0.5))
        self._lines(f"lines-{l}", lower + upper, strokes * 2, 0.9 * self.unit * thin, 1)
        self._frames(f"boxes-{l}", boxes, side, strokes, opacity)
        thick = min(max(0.04 * 72 * side, 0.6 * self.unit), 1.6 * self.unit)
        low, high = _bounds(edges.y)
        y = ((edges.y - low) / (high - low)).where(edges.y.isfinite(), torch.nan)
        x = torch.linspace(0, 1, edges.x.shape[1], dtype=torch.float64, device="cpu").expand_as(edges.x)
        self._lines(f"curves-{l}", self._inside(l, x, y), strokes, thick * (0.5 if sample else 1.0), 4)
        if sample:
            start, extent = edges.x[:, :1], edges.x[:, -1:] - edges.x[:, :1]
            x = torch.where(extent > 0, (edges.sample_x - start) / extent, 0.5)
            self._points(f"samples-{l}", self._inside(l, x, (edges.sample_y - low) / (high - low)), strokes, thick)
        if tick:
            self._numbers(boxes, side, edges, strokes)

    def nodes(self, model: "KAN", edges: list[Edges], opacity: list[list[float]]) -> None:
        """Inputs as dots, summing nodes as +, multiplication nodes as x, and the lines between subnodes and nodes.

        A node's opacity is that of its strongest outgoing edge, but at least MIN_NODE_OPACITY.
        """
        layout = self.layout
        for l, positions in enumerate(layout.nodes):
            strength = [MIN_NODE_OPACITY if l < model.depth else 1.0] * len(positions)
            for i, alpha in zip(edges[l].inputs, opacity[l], strict=True) if l < model.depth else ():
                strength[i] = max(strength[i], alpha)
            strokes = [self.colours.faded(alpha) for alpha in strength]
            if l == 0:
                self._circles("inputs", positions, layout.dot, strokes, filled=True)
                continue
            n_sum, groups = model.width[l][0], model.subnodes(l)
            owner = owners(groups)
            below = [strokes[node] for node in owner]
            self._circles(f"sums-{l}", layout.subnodes[l], layout.sign, below)
            self._signs(layout.subnodes[l], below, ((1, 0), (0, 1)))
            if positions is not layout.subnodes[l]:
                joins = [(layout.subnodes[l][sub], positions[node]) for sub, node in enumerate(owner)]
                self._lines(f"joins-{l}", joins, below, 0.9 * self.unit, 1)
                self._circles(f"handed-on-{l}", positions[:n_sum], layout.dot, strokes[:n_sum], filled=True)
                self._circles(f"products-{l}", positions[n_sum:], layout.sign, strokes[n_sum:])
                self._signs(positions[n_sum:], strokes[n_sum:], ((1, 1), (1, -1)))

    def texts(self, below: Row, above: Row, title: Row) -> None:
        """The names of inputs and outputs beside their nodes, and the title above."""
        layout, gap = self.layout, 0.07 * self.unit
        for row, nodes, offset, align in (
            (below, layout.nodes[0], -layout.dot - gap, "top"),
            (above, layout.nodes[-1], layout.sign + gap, "bottom"),
            (title, [(layout.width / 2, layout.height)], -gap, "top"),
        ):
            for text, (x, y) in zip(row.texts, nodes, strict=bool(row.texts)):
                self.axes.text(
                    x, y + offset, text, fontsize=row.points, color=self.colours.ink, ha="center", va=align,
                    rotation=90 if row.upright else 0,
                )  # fmt: skip

    # Artists

    def _inside(self, l: int, x: Tensor, y: Tensor) -> list[Tensor]:
        """Points of [0, 1] x [0, 1] in the boxes of layer l: x, y [E, P] -> E of [P, 2]."""
        room = self.layout.sides[l] * (1 - 2 * INSET)
        centre = torch.tensor(self.layout.boxes[l], dtype=torch.float64, device="cpu")[:, None]  # E 1 2
        return list((centre + (torch.stack([x, y], 2).clamp(0, 1) - 0.5) * room).numpy())

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

    def _signs(self, at: list[Point], strokes: list, directions: tuple) -> None:
        arms = [(0.58 * self.layout.sign / (a * a + b * b) ** 0.5, a, b) for a, b in directions]
        lines = [((x - s * a, y - s * b), (x + s * a, y + s * b)) for x, y in at for s, a, b in arms]
        colour = [stroke for stroke in strokes for _ in arms]
        self._lines("signs", lines, colour, 0.9 * self.unit, 7)

    def _numbers(self, boxes: list[Point], side: float, edges: Edges, strokes: list) -> None:
        """The range of the input below each box, the range of the output on its left."""
        *paper, solid = self.colours.paper
        background = (*paper, MIN_BOX_OPACITY * solid)
        size, half, pad = min(max(72 * side * 0.16, 2.0), 7.0 * self.unit), side / 2, 0.05 * side
        for n, (x, y) in enumerate(boxes):
            finite = edges.y[n][edges.y[n].isfinite()]
            first, last = _distinct(edges.x[n, 0].item(), edges.x[n, -1].item())
            labels = [(x - half, y - half - pad, first, "left", "top")]
            labels += [(x + half, y - half - pad, last, "right", "top")]
            if len(finite):
                least, most = _distinct(finite.min().item(), finite.max().item())
                labels += [(x - half - pad, y - half, least, "right", "bottom")]
                labels += [(x - half - pad, y + half, most, "right", "top")]
            for at_x, at_y, text, side_x, side_y in labels:
                self.axes.text(
                    at_x, at_y, text, fontsize=size, color=strokes[n], ha=side_x, va=side_y, zorder=2,
                    bbox={"facecolor": background, "linewidth": 0, "pad": 0.5},
                )  # fmt: skip


def _distinct(low: float, high: float) -> tuple[str, str]:
    """Both numbers with the smallest number of digits, two to five, that distinguishes them."""
    texts = ((f"{low:.{digits}g}", f"{high:.{digits}g}") for digits in range(2, 6))
    return next((pair for pair in texts if pair[0] != pair[1]), (f"{low:.2g}", f"{high:.2g}"))


def _bounds(y: Tensor) -> tuple[Tensor, Tensor]:
    """The values at the lower and upper side of the box, [E, 1] each: the range of the finite values of y [E, P].

    A function that is constant up to rounding lies in the middle.
    """
    finite = y.isfinite()
    low = torch.where(finite, y, torch.inf).amin(1, keepdim=True).nan_to_num(posinf=0.0)
    high = torch.where(finite, y, -torch.inf).amax(1, keepdim=True).nan_to_num(neginf=0.0)
    rounding = 1e-5 * torch.maximum(low.abs(), high.abs()) + 1e-30
    constant = high - low <= rounding
    return torch.where(constant, low - 1.0, low), torch.where(constant, high + 1.0, high)
