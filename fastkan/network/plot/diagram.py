"""plot: the diagram of a network as the KAN papers draw it, functions on the edges and their strength as opacity.

Source: Liu et al., KAN (arXiv 2404.19756), figure 0.1 and section 2.5.1; KAN 2.0 (arXiv 2408.10205), section 3.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...arguments import number
from .diagram_artists import Diagram
from .edge_data import shown
from .figure import axes_of, file_kind, need_matplotlib, write
from .layout import Layout, Row, Shape, fitted, measured, place, texts

FAINTEST = 0.05  # opacity of an edge that is on, however weak


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
    fig=None,
    ax=None,
):
    """Draw the network: every edge that is on with its function over the range of the data, inputs at the bottom.

    Numeric edges are black (light on a dark style), symbolic ones red, those with both branches purple. + marks nodes
    that sum and x those that multiply. Each function fills its box; how much it matters is told by its opacity.

    Args:
        folder: where to write kan.pdf; made if it is not there. Nothing is written by default.
        beta: an edge's opacity is tanh(beta * score), but never quite 0; raise it for wide networks, of small scores.
        metric: of the scores: "backward" (attribute), "forward_n" (acts_scale) or "forward_u" (edge_actscale).
        scale: of everything, text and lines included; the usual 0.5 fits a page.
        tick: the ranges of every edge's input and output beside its box.
        sample: some of the data on every curve.
        in_vars, out_vars: names, as text ("$x_1$" is set as a formula) or SymPy expressions. After prune_input names of
            all inputs will do, as will those of the remaining ones.
        title: above it all.
        varscale: of the names, beside scale.
        path: the file to write, vectors as .pdf or .svg, pixels as .png; a file that is there is replaced in one piece.
        x: data [..., in_features] to draw for, by default what the model has seen (fit, get_act).
        figsize: width and height in inches, by default what the network takes.
        fig, ax: a matplotlib figure, subfigure or axes to draw on instead of a new figure; a file has it all.

    Returns:
        The matplotlib Figure. It is not one of pyplot's: it needs no closing, and plt.show() shows it only where it
        was made there and given as fig.

    The model stays as it is. Raises ImportError without matplotlib, ValueError for a wrong argument and where there is
    no data.
    """
    need_matplotlib()
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
    edges = shown(model, x, metric)
    shape = Shape(model.width_in, model.width_out, [len(layer.inputs) for layer in edges])
    unit = 2 * scale
    points = (20 * scale * varscale, 20 * scale * varscale, 24 * scale)
    size = _size(figsize, fig, ax) or (_width(shape, unit, names, points, tick), None)
    slots = (size[0] / shape.nodes[0], size[0] / shape.nodes[-1], size[0])
    upright = 2.5 * unit if size[1] is None else 0.3 * size[1]
    rows = [fitted(*row, upright) for row in zip(names, points, slots, strict=True)]
    layout = _placed(shape, unit, size, rows, tick)
    axes = axes_of(fig, ax, (layout.width, layout.height))
    diagram = Diagram(axes, layout, unit)
    opacity = [torch.tanh(beta * layer.scores.nan_to_num(0.0)).clamp_min(FAINTEST).tolist() for layer in edges]
    diagram.nodes(model, edges, opacity)
    for l, layer in enumerate(edges):
        diagram.edges(l, layer, opacity[l], tick, sample)
    diagram.texts(*rows)
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
    if path is not None:
        write(axes.figure.figure, path)
    return axes.figure.figure


def _size(figsize, fig, ax) -> tuple[float, float] | None:
    """The inches that are given to draw on, if any."""
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
    """A good width, in which a long name of a single output, or title, still fits."""
    alone = [measured(row[0], size)[0] / 0.94 for row, size in zip(names, points, strict=True) if len(row) == 1]
    return max(shape.width(unit, tick), min(max(alone, default=0.0), 5 * unit))


def _placed(shape: Shape, unit: float, size, rows: Sequence[Row], tick: bool) -> Layout:
    below, above, title = (row.height + 0.06 * unit if row.texts else 0.0 for row in rows)
    return place(shape, unit, *size, below + 0.1 * unit, above + title + 0.1 * unit, tick)


def _positive(name: str, value) -> float:
    if number(name, value, 0.0) == 0.0:
        raise ValueError(f"{name}={value!r}: expected a number above 0")
    return float(value)
