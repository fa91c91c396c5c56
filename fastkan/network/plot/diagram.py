"""plot: the diagram of a network as in the KAN papers: functions on the edges, with scores as opacity.

Source: Liu et al., KAN (arXiv 2404.19756), figure 0.1 and section 2.5.1; KAN 2.0 (arXiv 2408.10205), section 3.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...arguments import number
from .diagram_artists import Diagram
from .edge_data import drawn_edges
from .figure import axes_of, check_matplotlib, file_kind, write
from .layout import Layout, Row, Shape, fit_texts, place, text_size, texts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..model import KAN

MIN_OPACITY = 0.05  # of an edge that is on


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
) -> "Figure":
    """Draw the network: every edge that is on, with its function over the range of the data; inputs at the bottom.

    Numeric edges are black (light on a dark style), symbolic ones red, edges with both branches purple. + marks summing
    nodes, x multiplication nodes. Each function fills its box; its opacity shows its score.

    Args:
        folder: for the file kan.pdf; created if missing. Nothing is written by default.
        beta: an edge's opacity is tanh(beta * score), at least 0.05; raise it for wide networks with small scores.
        metric: of the scores: "backward" (attribute), "forward_n" (acts_scale) or "forward_u" (edge_actscale).
        scale: of everything, text and lines included; 0.5 fits a page.
        tick: show the ranges of every edge's input and output beside its box.
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
    beta, scale, varscale = number("beta", beta, 0.0), _positive("scale", scale), _positive("varscale", varscale)
    names = (
        texts("in_vars", in_vars, model.input_id.tolist(), model.in_features),
        texts("out_vars", out_vars, range(model.width_in[-1]), model.width_in[-1]),
        texts("title", None if title is None else [title], [0], 1),
    )
    edges = drawn_edges(model, x, metric)
    shape = Shape(model.width_in, model.width_out, [len(layer.inputs) for layer in edges])
    unit = 2 * scale
    points = (20 * scale * varscale, 20 * scale * varscale, 24 * scale)
    size = _size(figsize, fig, ax) or (_width(shape, unit, names, points, tick), None)
    slots = (size[0] / shape.nodes[0], size[0] / shape.nodes[-1], size[0])
    upright = 2.5 * unit if size[1] is None else 0.3 * size[1]
    rows = [fit_texts(*row, upright) for row in zip(names, points, slots, strict=True)]
    layout = _layout(shape, unit, size, rows, tick)
    axes = axes_of(fig, ax, (layout.width, layout.height))
    diagram = Diagram(axes, layout, unit)
    opacity = [torch.tanh(beta * layer.scores.nan_to_num(0.0)).clamp_min(MIN_OPACITY).tolist() for layer in edges]
    diagram.nodes(model, edges, opacity)
    for l, layer in enumerate(edges):
        diagram.edges(l, layer, opacity[l], tick, sample)
    diagram.texts(*rows)
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    if path is not None:
        write(axes.figure.figure, path)
    return axes.figure.figure


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


def _layout(shape: Shape, unit: float, size: tuple[float, float | None], rows: Sequence[Row], tick: bool) -> Layout:
    below, above, title = (row.height + 0.06 * unit if row.texts else 0.0 for row in rows)
    return place(shape, unit, *size, below + 0.1 * unit, above + title + 0.1 * unit, tick)


def _positive(name: str, value: Any) -> float:
    if number(name, value, 0.0) == 0.0:
        raise ValueError(f"{name}={value!r}: expected a number above 0")
    return float(value)
