"""plot: the diagram of a network as in the KAN papers: functions on the edges, with scores as opacity.

Source: Liu et al., KAN (arXiv 2404.19756), figure 0.1 and section 2.5.1; KAN 2.0 (arXiv 2408.10205), section 3.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...arguments import integer, number
from .diagram_artists import Diagram, headed
from .edge_data import Edges, drawn_edges
from .figure import axes_of, check_matplotlib, file_kind, write
from .layout import (
    MARGIN,
    Layout,
    Ranges,
    Row,
    Shape,
    fit_ranges,
    fit_texts,
    place,
    sign_radius,
    text_size,
    texts,
)  # fmt: skip
from .legend import MODES, Item, flow, strengths
from .numbers import ends, short
from .selection import MAX_EDGES, MIN_OPACITY, Selection, strongest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..model import KAN

MAX_LEGEND = 0.3  # of a height that is given


def plot(
    model: "KAN",
    folder: str | os.PathLike | None = None,
    beta: float = 3.0,
    metric: str = "backward",
    scale: float = 0.5,
    tick: bool = False,
    sample: bool = False,
    in_vars: Sequence | None = None,
    out_vars: Sequence | None = None,
    title: str | None = None,
    varscale: float = 1.0,
    *,
    path: str | os.PathLike | None = None,
    x: Tensor | None = None,
    figsize: tuple[float, float] | None = None,
    fig: Any = None,
    ax: Any = None,
    legend: bool = True,
    max_edges: int | None = MAX_EDGES,
) -> "Figure":
    """Draw the network: the edges that are on, with their functions over the range of the data; inputs at the bottom.

    Numeric edges are black (light on a dark style), symbolic ones red, edges with both branches purple. + marks summing
    nodes, x multiplication nodes. Each function fills its box; its opacity shows its score. The number in a box is the
    height of its curve, the difference of its highest and lowest value; [a, b] at a node is the range of its values,
    the horizontal axis of the curves of its outgoing edges. Numbers that would be too small to read are left out.

    Args:
        folder: for the file kan.pdf; created if missing. Nothing is written by default.
        beta: an edge's opacity is tanh(beta * score), at least 0.35; raise it for wide networks with small scores.
        metric: of the scores: "backward" (attribute), "forward_n" (acts_scale) or "forward_u" (edge_actscale).
        scale: of everything, text and lines included; 0.5 fits a page.
        tick: show the ends of the ranges of every edge's input and output beside its box, instead of heights in boxes
            and ranges at nodes.
        sample: show some of the data on every curve.
        in_vars, out_vars: names, as text ("$x_1$" is set as a formula) or SymPy expressions. After prune_input, of all
            inputs or of the remaining ones.
        title: above the diagram.
        varscale: scale of the names, relative to `scale`.
        path: the file to write, vectors as .pdf or .svg, pixels as .png; an existing file is replaced when the new one
            is complete.
        x: data [..., in_features] to draw for, by default the model's cache_data (from fit or get_act).
        figsize: width and height in inches, by default from the size of the network.
        fig, ax: a matplotlib figure, subfigure or axes to draw on instead of a new figure, which is written completely.
        legend: explain lines, signs and numbers below the diagram, where they take at most 0.3 of a height that is
            given.
        max_edges: of each layer only as many edges are drawn, those with the highest scores, with the nodes they join.
            The legend has the numbers of all. None: every edge.

    Returns:
        The matplotlib Figure. It is not registered with pyplot: it need not be closed, and plt.show() shows it only if
        it was created by pyplot and given as fig.

    The model stays as it is. Raises ImportError without matplotlib, ValueError for a wrong argument or without data.
    """
    check_matplotlib()
    if folder is not None and path is not None:
        raise ValueError(f"folder={folder!r} and path={path!r} are given: expected one of them")
    path = path if folder is None else Path(folder) / "kan.pdf"
    if path is not None:
        file_kind(path)
    max_edges = None if max_edges is None else integer("max_edges", max_edges, 1)
    beta, scale, varscale = number("beta", beta, 0.0), _positive("scale", scale), _positive("varscale", varscale)
    names = (
        texts("in_vars", in_vars, model.input_id.tolist(), model.in_features),
        texts("out_vars", out_vars, range(model.width_in[-1]), model.width_in[-1]),
        texts("title", None if title is None else [title], [0], 1),
    )
    drawn = strongest(model, drawn_edges(model, x, metric), max_edges)
    names = [_drawn_names(model, drawn, 0, names[0]), _drawn_names(model, drawn, -1, names[1]), names[2]]
    opacity = [torch.tanh(beta * l.scores.nan_to_num(0.0)).clamp_min(MIN_OPACITY).tolist() for l in drawn.edges]
    shape, unit = drawn.shape(), 2 * scale
    points = (20 * scale * varscale, 20 * scale * varscale, 24 * scale)
    size = _size(figsize, fig, ax) or (_width(shape, unit, names, points, tick), None)
    slots = (size[0] / shape.nodes[0], size[0] / shape.nodes[-1], size[0])
    upright = 2.5 * unit if size[1] is None else 0.3 * size[1]
    rows = [fit_texts(*row, upright) for row in zip(names, points, slots, strict=True)]
    ranges = [
        Ranges([], [], 0.0) if tick else _ranges(l, layer, shape, size[0], unit) for l, layer in enumerate(drawn.edges)
    ]
    room = _heights(rows, ranges[0].height, unit)
    items = _legend(drawn, opacity, beta, ranges, place(shape, unit, *size, *room, tick), unit, tick, sample)
    explained, height = flow(items if legend else [], size[0] - 2 * MARGIN * unit, unit)
    if size[1] is not None and height > MAX_LEGEND * size[1]:
        explained, height = [], 0.0
    layout = place(shape, unit, *size, room[0] + height, room[1], tick)
    axes = axes_of(fig, ax, (layout.width, layout.height))
    diagram = Diagram(axes, layout, unit)
    diagram.nodes(drawn, opacity)
    for l, layer in enumerate(drawn.edges):
        diagram.edges(l, layer, opacity[l], tick, sample)
        diagram.ranges(l, ranges[l])
    diagram.texts(rows, ranges[0].height)
    diagram.legend(explained, height)
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    if path is not None:
        write(axes.figure.figure, path)
    return axes.figure.figure


def _drawn_names(model: "KAN", drawn: Selection, l: int, names: list[str]) -> list[str]:
    """The names of the drawn inputs, l = 0, or outputs, l = -1; without names x_1, ... where some are left out."""
    nodes = drawn.nodes[l]
    if names or len(nodes) == drawn.totals[1][l]:
        return [names[n] for n in nodes] if names else []
    numbers = model.input_id.tolist() if l == 0 else range(drawn.totals[1][l])
    return [f"${'x' if l == 0 else 'y'}_{{{numbers[n] + 1}}}$" for n in nodes]


def _ranges(l: int, edges: Edges, shape: Shape, width: float, unit: float) -> Ranges:
    """The ranges of the nodes below a layer of edges, in which its curves are drawn."""
    first = {i: n for n, i in reversed(list(enumerate(edges.inputs)))}
    slot, sign = width / shape.nodes[l], sign_radius(shape, unit, width)
    values = [ends(edges.x[n, 0].item(), edges.x[n, -1].item()) for n in first.values()]
    texts, points = fit_ranges(values, slot if l == 0 else slot / 2 - sign, unit)
    lines = texts[0].count("\n") + 1 if texts else 0
    return Ranges(list(first) if texts else [], texts, points, 1.2 * lines * points / 72)


def _legend(
    drawn: Selection, opacity: list[list[float]], beta: float, ranges: list[Ranges], layout: Layout, unit: float,
    tick: bool, sample: bool,
) -> list[Item]:  # fmt: skip
    """What the diagram has that needs a word."""
    modes = {mode for layer in drawn.edges for mode in layer.modes}
    faint = any(alpha < 0.9 for layer in opacity for alpha in layer)
    items = strengths(beta, MIN_OPACITY) if faint else []
    top = max((layer.scores.nan_to_num(0.0).max().item() for layer in drawn.edges if layer.inputs), default=0.0)
    if 0.0 < top * beta < 0.5:
        items.append(Item("", f"highest score {short(top, 2)}; for more contrast beta={short(1.5 / top, 1)}"))
    items += [Item("line", MODES[mode], mode) for mode in MODES if mode in modes] if modes != {"n"} else []
    items += [Item("input", "input"), Item("sum", "sum")]
    items += (
        [Item("product", "product")]
        if any(len(nodes) > n for nodes, n in zip(drawn.nodes, drawn.sums, strict=True))
        else []
    )
    if tick:
        items.append(Item("", "beside a box: range of its input and of its output"))
    else:
        items += (
            [Item("", "[a, b]: range of a node, the horizontal axis of its curves")]
            if any(r.texts for r in ranges)
            else []
        )
        high = any(headed(side, unit) for side in layout.sides)
        items.append(Item("", r"$\updownarrow$ height of a curve" if high else "each curve fills its box"))
    items += [Item("", "points: data")] if sample else []
    return items + [Item("", text) for text in drawn.left_out()]


def _heights(rows: Sequence[Row], ranges: float, unit: float) -> tuple[float, float]:
    """The heights of the texts below the inputs and above the outputs."""
    below, above, title = (row.height + 0.06 * unit if row.texts else 0.0 for row in rows)
    return below + ranges + 0.15 * unit, above + title + 0.1 * unit


def _size(figsize: tuple[float, float] | None, fig: Any, ax: Any) -> tuple[float, float] | None:
    """The size in inches of figsize, fig or ax, if one is given."""
    given = [name for name, value in (("figsize", figsize), ("fig", fig), ("ax", ax)) if value is not None]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} are given: expected one of them")
    if not given:
        return None
    if figsize is not None:
        width, height = figsize
        return _positive("figsize[0]", width), _positive("figsize[1]", height)
    box = (fig if ax is None else ax).bbox
    dpi = (fig if ax is None else ax.figure).dpi
    return box.width / dpi, box.height / dpi


def _width(shape: Shape, unit: float, names: Sequence[list[str]], points: Sequence[float], tick: bool) -> float:
    """The default width in inches, in which the title and the name of a single input or output fit."""
    alone = [text_size(row[0], size)[0] / 0.94 for row, size in zip(names, points, strict=True) if len(row) == 1]
    return max(shape.width(unit, tick), min(max(alone, default=0.0), 5 * unit))


def _positive(name: str, value: Any) -> float:
    if number(name, value, 0.0) == 0.0:
        raise ValueError(f"{name}={value!r}: expected a number above 0")
    return float(value)
